# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A small ``ros2 launch`` for machines without one: ``python launch_double.py FILE name:=value ...``.

It has the names of ``launch`` and ``launch_ros`` that our launch files and their tests use, visits the actions in order,
starts processes and ends them as launch does: remappings as ``-r from:=to``, parameters as files, SetParameter as
``-p`` before them, and processes that already run when a later action fails are left behind.  ``test_launch.py`` runs
the same tests with the real launch system where there is one.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace

import yaml


class Context:
    """Launch configurations, what a parent has set for all nodes, and the processes that run."""

    def __init__(self, given: dict[str, str]):
        self.launch_configurations = dict(given)
        self.parameters: list[tuple[str, object]] = []
        self.remappings: list[tuple[str, str]] = []
        self.processes: list[tuple[subprocess.Popen, object]] = []
        self.ended = False

    def visit(self, entities) -> None:
        for entity in entities or ():
            entity.visit(self)

    def start(self, command: list[str], on_exit) -> None:
        self.processes.append((subprocess.Popen(command), on_exit))

    def run(self) -> None:
        """Waits until all processes have ended, and does what was asked for after their end."""
        while self.processes:
            time.sleep(0.02)
            for process, on_exit in list(self.processes):
                code = process.poll()
                if code is None:
                    continue
                self.processes.remove((process, on_exit))
                event = SimpleNamespace(returncode=code)
                self.visit(on_exit(event, self) if callable(on_exit) else on_exit)

    def shut_down(self) -> None:
        if not self.ended:
            self.ended = True
            for process, _ in self.processes:
                process.send_signal(signal.SIGINT)


@dataclass
class LaunchConfiguration:
    name: str

    def perform(self, context: Context) -> str:
        return context.launch_configurations[self.name]


@dataclass
class FindPackageShare:
    package: str

    def perform(self, context: Context) -> str:
        from ament_index_python.packages import get_package_share_directory

        return get_package_share_directory(self.package)


@dataclass
class ExecutableInPackage:
    executable: str
    package: str

    def perform(self, context: Context) -> str:
        from ament_index_python.packages import get_package_prefix

        path = Path(get_package_prefix(self.package), "lib", self.package, self.executable)
        if not os.access(path, os.X_OK):
            raise RuntimeError(f"executable '{self.executable}' not found on the libexec directory '{path.parent}'")
        return str(path)


@dataclass
class PythonLaunchDescriptionSource:
    path: object


@dataclass
class ParameterValue:
    value: object
    value_type: type | None = None
    description: str | None = None

    def evaluate(self, context: Context):
        text = fill(self.value, context)
        return text if self.value_type is str else yaml.safe_load(text)


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: object = None
    description: str | None = None
    choices: list | None = None

    def visit(self, context: Context) -> None:
        if self.name in context.launch_configurations:
            return
        if self.default_value is None:
            raise RuntimeError(f'Required launch argument "{self.name}" was not provided.')
        context.launch_configurations[self.name] = fill(self.default_value, context)


@dataclass
class OpaqueFunction:
    function: object

    def visit(self, context: Context) -> None:
        context.visit(self.function(context))


@dataclass
class Shutdown:
    reason: str = ""

    def visit(self, context: Context) -> None:
        context.shut_down()


@dataclass
class SetParameter:
    name: str
    value: object

    def visit(self, context: Context) -> None:
        context.parameters.append((self.name, self.value))


@dataclass
class SetRemap:
    src: str
    dst: str

    def visit(self, context: Context) -> None:
        context.remappings.append((self.src, self.dst))


@dataclass
class PushRosNamespace:
    namespace: str

    def visit(self, context: Context) -> None:
        outer = context.launch_configurations.get("ros_namespace", "")
        context.launch_configurations["ros_namespace"] = f"{outer}/{self.namespace.strip('/')}"


@dataclass
class GroupAction:
    actions: list

    def visit(self, context: Context) -> None:
        before = dict(context.launch_configurations), list(context.parameters), list(context.remappings)
        context.visit(self.actions)
        context.launch_configurations, context.parameters, context.remappings = before


@dataclass
class ExecuteProcess:
    cmd: list
    output: str = "log"
    on_exit: object = None

    def visit(self, context: Context) -> None:
        context.start([fill(word, context) for word in self.cmd], self.on_exit)


@dataclass
class IncludeLaunchDescription:
    source: PythonLaunchDescriptionSource
    launch_arguments: list = field(default_factory=list)

    def visit(self, context: Context) -> None:
        given = {name: fill(value, context) for name, value in dict(self.launch_arguments).items()}
        context.launch_configurations.update(given)
        context.visit(load(fill(self.source.path, context)).entities)


@dataclass
class Node:
    executable: str
    package: str
    name: str | None = None
    namespace: str | None = None
    parameters: list = field(default_factory=list)
    remappings: list = field(default_factory=list)
    arguments: list = field(default_factory=list)
    output: str = "log"
    on_exit: object = None

    def visit(self, context: Context) -> None:
        command = [ExecutableInPackage(self.executable, self.package).perform(context), *self.arguments, "--ros-args"]
        if self.name:
            command += ["-r", f"__node:={self.name}"]
        namespace = self._namespace(context.launch_configurations.get("ros_namespace", ""))
        if namespace:
            command += ["-r", f"__ns:={namespace}"]
        for name, value in context.parameters:
            command += ["-p", f"{name}:={yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"]
        full_name = f"{namespace}/{self.name}" if self.name and namespace else "/**"
        for parameters in self.parameters:
            if isinstance(parameters, dict):
                command += ["--params-file", self._parameter_file(parameters, full_name, context)]
            elif Path(parameters).is_file():
                command += ["--params-file", parameters]
            else:
                print(f"[WARNING] [{self.executable}]: Parameter file path is not a file: {parameters}", flush=True)
        for source, target in [*context.remappings, *self.remappings]:
            command += ["-r", f"{source}:={target}"]
        context.start(command, self.on_exit)

    def _namespace(self, outer: str) -> str:
        if self.namespace and self.namespace.startswith("/"):
            return self.namespace
        parts = [part.strip("/") for part in (outer, self.namespace or "") if part]
        return "/" + "/".join(parts) if parts else ""

    @staticmethod
    def _parameter_file(parameters: dict, full_name: str, context: Context) -> str:
        values = {n: v.evaluate(context) if isinstance(v, ParameterValue) else v for n, v in parameters.items()}
        with tempfile.NamedTemporaryFile("w", prefix="launch_params_", delete=False) as file:
            yaml.safe_dump({full_name: {"ros__parameters": values}}, file)
        return file.name


@dataclass
class LaunchDescription:
    entities: list


def fill(value, context: Context) -> str:
    """Text of a string, a substitution or a list of both."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "".join(fill(part, context) for part in value)
    return value.perform(context)


def load(path: str | Path) -> LaunchDescription:
    """The description that a launch file makes; ``install`` comes first."""
    spec = importlib.util.spec_from_file_location(Path(path).name.split(".")[0] + "_launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


def install() -> None:
    """Makes ``import launch`` and ``import launch_ros`` find the double in this process."""
    actions = (DeclareLaunchArgument, ExecuteProcess, GroupAction, IncludeLaunchDescription, OpaqueFunction, Shutdown)
    modules = {
        "launch": (LaunchDescription,),
        "launch.actions": actions,
        "launch.launch_description_sources": (PythonLaunchDescriptionSource,),
        "launch.substitutions": (LaunchConfiguration,),
        "launch_ros": (),
        "launch_ros.actions": (Node, PushRosNamespace, SetParameter, SetRemap),
        "launch_ros.parameter_descriptions": (ParameterValue,),
        "launch_ros.substitutions": (ExecutableInPackage, FindPackageShare),
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update({each.__name__: each for each in content})
        sys.modules[name] = module


def main(path: str, *words: str) -> int:
    """As ``ros2 launch``; returns the exit code."""
    install()
    description = load(path)
    if "--show-args" in words:
        for argument in description.entities:
            if isinstance(argument, DeclareLaunchArgument):
                default = "" if argument.default_value is None else f"\n        (default: {argument.default_value!r})"
                print(f"    '{argument.name}':\n        {argument.description}{default}")
        return 0
    context = Context(dict(word.split(":=", 1) for word in words))
    signal.signal(signal.SIGINT, lambda *_: context.shut_down())
    try:
        context.visit(description.entities)
    except Exception as error:
        print(f"[ERROR] [launch]: Caught exception in launch (see debug for traceback): {error}", file=sys.stderr)
        return 1
    context.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
