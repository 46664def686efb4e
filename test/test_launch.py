# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The launch files and the views' configurations: with the real launch system where there is one, else with a double.

With the double the command line that comes out is given to rclpy, whose word on names, parameters
and topics is what counts.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import launch_double
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILE = ROOT / "launch/localize.launch.py"
REPLAY_FILE = ROOT / "launch/replay.launch.py"
REAL = importlib.util.find_spec("launch_ros") is not None and shutil.which("ros2") is not None
ARGUMENTS = {"map", "image", "camera_info", "params_file", "namespace", "name", "use_sim_time", "log_level"}
ARGUMENTS |= {"autostart", "rviz"}
REPLAY_ARGUMENTS = {"bag", "map", "rate", "image", "camera_info", "params_file", "namespace", "log_level", "rviz"}

with_double = pytest.mark.skipif(REAL, reason="the real launch system is here")
with_launch = pytest.mark.skipif(not REAL, reason="needs launch, launch_ros and ros2launch, which have no wheels")

VIEWED = [
    "/pose_with_covariance",
    "/path",
    "/markers/map",
    "/markers/fix",
    "/map_points",
    "/fix_points",
    "/debug_image",
    "/initialpose",
]
ASK_RCLPY = (
    f"""
TOPICS = {["image", "image/compressed", "camera_info", "pose", *VIEWED]}
"""
    + """
import json, sys
from nre_ros import ros_environment
ros_environment.prepare()
import rclpy
from rclpy.logging import get_logger_effective_level
from rclpy.node import Node

rclpy.init(args=sys.argv)
node = Node("some_name", automatically_declare_parameters_from_overrides=True)
print(json.dumps({
    "node": node.get_fully_qualified_name(),
    "topics": {topic: node.resolve_topic_name(topic) for topic in TOPICS},
    "parameters": {name: p.value for name, p in node.get_parameters_by_prefix("").items()},
    "log_level": get_logger_effective_level(node.get_name()).name,
}))
"""
)


@pytest.fixture
def description(monkeypatch):
    launch_double.install(monkeypatch)
    return launch_double.load(LAUNCH_FILE)


@pytest.fixture
def replay(monkeypatch):
    launch_double.install(monkeypatch)
    return launch_double.load(REPLAY_FILE)


@pytest.fixture
def launched(description, ros_environment, tmp_path):
    """launched(argument=value, ...): what rclpy makes of the command line."""

    def ask(executable="localize_node", **given):
        context = description.context(given, {"nre_ros": str(ROOT)}, tmp_path)
        node = description.node(executable)
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
    assert list(node["topics"].values())[:4] == [
        "/camera/color/image_raw",
        "/camera/color/image_raw/compressed",
        "/camera/color/camera_info",
        "/pose",
    ]
    assert node["parameters"]["map_file"] == "/maps/kitchen.db"
    assert node["parameters"]["use_sim_time"] is False and node["parameters"]["autostart"] is True
    assert node["parameters"]["transform_tolerance"] == 0.1, "config/localize.yaml is the default file"
    assert node["log_level"] == "INFO"


@with_double
def test_every_argument_arrives(launched, tmp_path):
    params_file = tmp_path / "mine.yaml"
    params_file.write_text("/**:\n  ros__parameters:\n    retrieve: 7\n    map_file: other.db\n")
    node = launched(
        map="2024",
        image="cam/image",
        camera_info="/cam/info",
        params_file=str(params_file),
        namespace="robot1",
        name="where",
        use_sim_time="true",
        log_level="warn",
        autostart="false",
    )
    assert node["node"] == "/robot1/where"
    assert list(node["topics"].values())[:4] == [
        "/robot1/cam/image",
        "/robot1/cam/image/compressed",
        "/cam/info",
        "/robot1/pose",
    ]
    assert node["parameters"]["map_file"] == "2024", "the argument wins over the file, and stays text"
    assert node["parameters"]["retrieve"] == 7
    assert node["parameters"]["use_sim_time"] is True and node["parameters"]["autostart"] is False
    assert node["log_level"] == "WARN"


@with_double
def test_the_executable_is_installed(description):
    node = description.node("localize_node")
    assert node.package == "nre_ros"
    assert (ROOT / "scripts" / node.executable).stat().st_mode & 0o111


@with_double
@pytest.mark.parametrize("namespace", ["", "robot1"])
def test_rviz_is_started_on_demand_and_sees_the_nodes_topics(description, launched, tmp_path, namespace):
    rviz = description.node("rviz2")
    shares = {"nre_ros": str(ROOT)}
    starts = [
        rviz.starts(description.context({"map": "a.db", **given}, shares, tmp_path)) for given in ({}, {"rviz": "true"})
    ]
    assert starts == [False, True]
    seen = launched("rviz2", map="a.db", rviz="true", namespace=namespace, use_sim_time="true")
    prefix = f"/{namespace}" if namespace else ""
    assert [seen["topics"][topic] for topic in VIEWED] == [prefix + topic for topic in VIEWED]
    assert seen["parameters"]["use_sim_time"] is True
    command = rviz.command_line(description.context({"map": "a.db"}, shares, tmp_path))
    assert Path(command[command.index("-d") + 1]) == ROOT / "config/localize.rviz"


@with_double
def test_replay_starts_the_node_and_a_player_that_waits_for_it(replay, tmp_path):
    arguments = {argument.name: argument for argument in replay.arguments()}
    assert set(arguments) == REPLAY_ARGUMENTS and all(argument.description for argument in arguments.values())
    assert {name for name, argument in arguments.items() if argument.default_value is None} == {"map", "bag"}
    given = {"map": "a.db", "bag": "walk", "rate": "0.5", "image": "/cam/image", "camera_info": "/cam/info"}
    context = replay.context(given, {"nre_ros": str(ROOT)}, tmp_path)
    (included,) = replay.of(launch_double.IncludeLaunchDescription)
    inner = included.description(context)
    handed = included.given(context)
    assert handed.items() >= {"map": "a.db", "image": "/cam/image", "use_sim_time": "true", "rviz": "true"}.items()
    assert set(handed) <= {argument.name for argument in inner.arguments()}
    (player,) = replay.of(launch_double.ExecuteProcess)
    words = player.command_line(context)
    assert words[1:] == [
        "-m",
        "nre_ros.replay.player",
        "walk",
        "--rate",
        "0.5",
        "--image",
        "/cam/image",
        "--wait-for",
        "/cam/image",
        "/cam/image/compressed",
        "/cam/info",
    ]


@with_double
def test_the_player_understands_what_replay_gives_it(replay, ros_environment, tmp_path):
    given = {"map": "a.db", "bag": str(tmp_path / "no_such_bag")}
    (player,) = replay.of(launch_double.ExecuteProcess)
    words = player.command_line(replay.context(given, {"nre_ros": str(ROOT)}, tmp_path))
    run = subprocess.run(
        [sys.executable, *words[1:]], env=ros_environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode and "no_such_bag" in run.stderr and "usage:" not in run.stderr


# --- views --------------------------------------------------------------------------------------


def test_the_rviz_configuration_shows_the_nodes_topics():
    manager = yaml.safe_load((ROOT / "config/localize.rviz").read_text())["Visualization Manager"]
    assert manager["Global Options"]["Fixed Frame"] == "map"
    shown = {}
    for part in (*manager["Displays"], *manager["Tools"]):
        assert part["Class"].startswith("rviz_default_plugins/")
        if "Topic" in part:
            shown[part["Topic"]["Value"]] = part["Class"].split("/")[1], part["Topic"]["Durability Policy"]
    assert set(shown) == set(VIEWED), "the launch file remaps these"
    assert shown == {
        "/markers/map": ("MarkerArray", "Transient Local"),
        "/markers/fix": ("MarkerArray", "Transient Local"),
        "/map_points": ("PointCloud2", "Transient Local"),
        "/fix_points": ("PointCloud2", "Volatile"),
        "/path": ("Path", "Transient Local"),
        "/pose_with_covariance": ("PoseWithCovariance", "Volatile"),
        "/debug_image": ("Image", "Volatile"),
        "/initialpose": ("SetInitialPose", "Volatile"),
    }
    assert {"TF", "Grid"} <= {display["Class"].split("/")[1] for display in manager["Displays"]}


def test_the_foxglove_layout_shows_the_nodes_topics():
    layout = json.loads((ROOT / "config/foxglove.json").read_text())
    placed = []

    def walk(part):
        if isinstance(part, str):
            placed.append(part)
        else:
            assert part["direction"] in ("row", "column")
            walk(part["first"])
            walk(part["second"])

    walk(layout["layout"])
    assert sorted(placed) == sorted(layout["configById"]), "every panel has a place"
    text = json.dumps(layout["configById"])
    topics = set(re.findall(r'"(/[a-z_/]+)[".]', text)) - {"/move_base_simple/goal", "/clicked_point"}
    own = {topic for topic in topics if topic not in ("/diagnostics", "/initialpose")}
    assert own == {
        "/markers/map",
        "/markers/fix",
        "/map_points",
        "/fix_points",
        "/pose_with_covariance",
        "/path",
        "/debug_image/compressed",
        "/status",
    }


def test_the_fields_that_foxglove_plots_exist():
    pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")
    from nre_ros.msg import LocalizationStatus

    text = (ROOT / "config/foxglove.json").read_text()
    fields = set(re.findall(r'"/status\.(\w+)"', text))
    assert fields and fields <= set(LocalizationStatus.get_fields_and_field_types())


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
