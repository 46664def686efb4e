# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The few names of ``launch`` and ``launch_ros`` that our launch files use, where they are not installed.

It records a launch description and renders the node's command line as launch_ros does: remappings
as ``-r from:=to``, parameters as files, substitutions filled in from the launch arguments.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import yaml


class MissingArgument(Exception):
    """A launch argument without a default that was not given."""


@dataclass
class LaunchConfiguration:
    name: str

    def perform(self, context: dict) -> str:
        return context["arguments"][self.name]


@dataclass
class FindPackageShare:
    package: str

    def perform(self, context: dict) -> str:
        return context["shares"][self.package]


@dataclass
class PathJoinSubstitution:
    parts: list

    def perform(self, context: dict) -> str:
        return str(Path(*(fill(part, context) for part in self.parts)))


@dataclass
class FindExecutable:
    name: str

    def perform(self, context: dict) -> str:
        return shutil.which(self.name)


@dataclass
class IfCondition:
    predicate: object

    def evaluate(self, context: dict) -> bool:
        return fill(self.predicate, context).lower() in ("true", "1")


@dataclass
class PythonLaunchDescriptionSource:
    path: object


@dataclass
class ParameterValue:
    value: object
    value_type: type | None = None
    description: str | None = None

    def evaluate(self, context: dict):
        text = fill(self.value, context)
        if self.value_type is str:
            return text
        value = yaml.safe_load(text)
        if self.value_type is not None and type(value) is not self.value_type:
            raise TypeError(f"{text!r} is no {self.value_type.__name__}")
        return value


@dataclass
class DeclareLaunchArgument:
    name: str
    default_value: object = None
    description: str | None = None
    choices: list | None = None


@dataclass
class ExecuteProcess:
    cmd: list
    output: str = "log"

    def command_line(self, context: dict) -> list[str]:
        return [fill(word, context) for word in self.cmd]


@dataclass
class IncludeLaunchDescription:
    source: PythonLaunchDescriptionSource
    launch_arguments: list = field(default_factory=list)

    def description(self, context: dict) -> LaunchDescription:
        """What the included file describes."""
        return load(fill(self.source.path, context))

    def given(self, context: dict) -> dict[str, str]:
        """The arguments that are handed to it."""
        return {name: fill(value, context) for name, value in self.launch_arguments}


@dataclass
class Node:
    executable: str
    package: str
    name: object = None
    namespace: object = None
    parameters: list = field(default_factory=list)
    remappings: list = field(default_factory=list)
    arguments: list = field(default_factory=list)
    output: str = "log"
    condition: IfCondition | None = None

    def starts(self, context: dict) -> bool:
        return self.condition is None or self.condition.evaluate(context)

    def command_line(self, context: dict) -> list[str]:
        """What follows the executable."""
        command = [fill(argument, context) for argument in self.arguments] + ["--ros-args"]
        command += ["-r", f"__node:={fill(self.name, context)}"]
        if fill(self.namespace, context):
            command += ["-r", f"__ns:=/{fill(self.namespace, context).strip('/')}"]
        for parameters in self.parameters:
            command += ["--params-file", self._parameter_file(parameters, context)]
        for source, target in self.remappings:
            command += ["-r", f"{fill(source, context)}:={fill(target, context)}"]
        return command

    def _parameter_file(self, parameters, context: dict) -> str:
        if not isinstance(parameters, dict):
            return fill(parameters, context)
        values = {name: value.evaluate(context) for name, value in parameters.items()}
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=context["folder"], delete=False) as file:
            yaml.safe_dump({"/**": {"ros__parameters": values}}, file)
        return file.name


@dataclass
class LaunchDescription:
    entities: list

    def arguments(self) -> list[DeclareLaunchArgument]:
        return self.of(DeclareLaunchArgument)

    def nodes(self) -> list[Node]:
        return self.of(Node)

    def node(self, executable: str) -> Node:
        (node,) = [node for node in self.nodes() if node.executable == executable]
        return node

    def of(self, kind) -> list:
        return [entity for entity in self.entities if isinstance(entity, kind)]

    def context(self, given: dict[str, str], shares: dict[str, str], folder: Path) -> dict:
        """Arguments given and by default, with the share folders of packages and one for files."""
        context = {"arguments": dict(given), "shares": shares, "folder": folder}
        for argument in self.arguments():
            if argument.name in given:
                continue
            if argument.default_value is None:
                raise MissingArgument(argument.name)
            context["arguments"][argument.name] = fill(argument.default_value, context)
        return context


def fill(value, context: dict) -> str:
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


def install(monkeypatch) -> None:
    """Makes ``import launch`` and ``import launch_ros`` find the double for the time of a test."""
    modules = {
        "launch": {"LaunchDescription": LaunchDescription},
        "launch.actions": {
            "DeclareLaunchArgument": DeclareLaunchArgument,
            "ExecuteProcess": ExecuteProcess,
            "IncludeLaunchDescription": IncludeLaunchDescription,
        },
        "launch.conditions": {"IfCondition": IfCondition},
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": PythonLaunchDescriptionSource},
        "launch.substitutions": {
            "FindExecutable": FindExecutable,
            "LaunchConfiguration": LaunchConfiguration,
            "PathJoinSubstitution": PathJoinSubstitution,
        },
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
        "launch_ros.parameter_descriptions": {"ParameterValue": ParameterValue},
        "launch_ros.substitutions": {"FindPackageShare": FindPackageShare},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
