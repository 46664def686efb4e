"""launch/localize.launch.py: with the real launch system where there is one, else with a double.

With the double the command line that comes out is given to rclpy, whose word on names, parameters
and topics is what counts.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import launch_double
import pytest

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILE = ROOT / "launch/localize.launch.py"
REAL = importlib.util.find_spec("launch_ros") is not None and shutil.which("ros2") is not None
ARGUMENTS = {"map", "image", "camera_info", "params_file", "namespace", "name", "use_sim_time", "log_level"}

with_double = pytest.mark.skipif(REAL, reason="the real launch system is here")
with_launch = pytest.mark.skipif(not REAL, reason="needs launch, launch_ros and ros2launch, which have no wheels")

ASK_RCLPY = """
import json, sys
from nre_ros.node import bootstrap
bootstrap.prepare()
import rclpy
from rclpy.logging import get_logger_effective_level
from rclpy.node import Node

rclpy.init(args=sys.argv)
node = Node("some_name", automatically_declare_parameters_from_overrides=True)
print(json.dumps({
    "node": node.get_fully_qualified_name(),
    "topics": [node.resolve_topic_name(topic) for topic in ("image", "image/compressed", "camera_info", "pose")],
    "parameters": {name: p.value for name, p in node.get_parameters_by_prefix("").items()},
    "log_level": get_logger_effective_level(node.get_name()).name,
}))
"""


@pytest.fixture
def description(monkeypatch):
    launch_double.install(monkeypatch)
    spec = importlib.util.spec_from_file_location("localize_launch", LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.generate_launch_description()


@pytest.fixture
def launched(description, ros_environment, tmp_path):
    """launched(argument=value, ...): what rclpy makes of the command line."""

    def ask(**given):
        context = description.context(given, {"nre_ros": str(ROOT)}, tmp_path)
        (node,) = description.nodes()
        command = [sys.executable, "-c", ASK_RCLPY, *node.command_line(context)]
        run = subprocess.run(command, env=ros_environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout.splitlines()[-1])

    return ask


@with_double
def test_arguments_are_described_and_only_the_map_is_required(description):
    arguments = {argument.name: argument for argument in description.arguments()}
    assert set(arguments) == ARGUMENTS
    assert all(argument.description for argument in arguments.values())
    assert [name for name, argument in arguments.items() if argument.default_value is None] == ["map"]


@with_double
def test_a_launch_without_a_map_is_refused(description, tmp_path):
    with pytest.raises(launch_double.MissingArgument, match="map"):
        description.context({}, {"nre_ros": str(ROOT)}, tmp_path)


@with_double
def test_defaults(launched):
    node = launched(map="/maps/kitchen.db")
    assert node["node"] == "/localize_node"
    assert node["topics"] == [
        "/camera/color/image_raw",
        "/camera/color/image_raw/compressed",
        "/camera/color/camera_info",
        "/pose",
    ]
    assert node["parameters"]["map_file"] == "/maps/kitchen.db"
    assert node["parameters"]["use_sim_time"] is False
    assert node["parameters"]["transform_tolerance"] == 0.1, "config/localize.yaml is the default file"
    assert node["log_level"] == "INFO"


@with_double
def test_every_argument_arrives(launched, tmp_path):
    params_file = tmp_path / "mine.yaml"
    params_file.write_text("/**:\n  ros__parameters:\n    retrieve: 7\n    map_file: other.db\n")
    node = launched(
        map="2024", image="cam/image", camera_info="/cam/info", params_file=str(params_file), namespace="robot1",
        name="where", use_sim_time="true", log_level="warn",
    )
    assert node["node"] == "/robot1/where"
    assert node["topics"] == ["/robot1/cam/image", "/robot1/cam/image/compressed", "/cam/info", "/robot1/pose"]
    assert node["parameters"]["map_file"] == "2024", "the argument wins over the file, and stays text"
    assert node["parameters"]["retrieve"] == 7
    assert node["parameters"]["use_sim_time"] is True
    assert node["log_level"] == "WARN"


@with_double
def test_the_executable_is_installed(description):
    (node,) = description.nodes()
    assert node.package == "nre_ros"
    assert (ROOT / "scripts" / node.executable).stat().st_mode & 0o111


@with_launch
def test_ros2_launch_shows_the_arguments():
    command = ["ros2", "launch", str(LAUNCH_FILE), "--show-args"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert all(f"'{name}':" in shown for name in ARGUMENTS)


@with_launch
def test_ros2_launch_hands_the_map_to_the_node(ros_environment, tmp_path):
    """The node ends with an error that names the map file, which it can only know from the launch."""
    missing = tmp_path / "no_such_map.db"
    command = ["ros2", "launch", str(LAUNCH_FILE), f"map:={missing}"]
    run = subprocess.run(command, env=ros_environment, capture_output=True, text=True, timeout=300)
    assert str(missing) in run.stdout + run.stderr
