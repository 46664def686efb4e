# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The launch files and the views' configurations: with the real launch system where there is one, else with a double.

Programs of a made-up installation take the places of node and RViz. They write down what rclpy makes of their command
lines: its word on names, parameters and topics is what counts.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
REAL = importlib.util.find_spec("launch_ros") is not None and shutil.which("ros2") is not None
LAUNCH = ["ros2", "launch"] if REAL else [sys.executable, str(ROOT / "test/launch_double.py")]
ARGUMENTS = {"map", "image", "camera_info", "params_file", "namespace", "name", "use_sim_time", "log_level"}
ARGUMENTS |= {"autostart", "rviz", "required"}
REPLAY_ARGUMENTS = {"bag", "map", "rate", "image", "camera_info", "params_file", "namespace", "log_level", "rviz"}

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
PROGRAM = f"""#!{sys.executable}
TOPICS = {["image", "image/compressed", "camera_info", "pose", *VIEWED]}
ROOT = {str(ROOT)!r}
"""
PROGRAM += """
import json, os, signal, sys, time
sys.path.insert(0, ROOT)
from pathlib import Path
name, folder = Path(sys.argv[0]).name, Path(os.environ["PROGRAM_FOLDER"])

def end(*_):
    (folder / f"{name}.ended").touch()
    os._exit(0)

signal.signal(signal.SIGINT, end)
with open(folder / f"{name}.started", "a") as file:
    file.write("once ")
from nre_ros import ros_environment
ros_environment.prepare()
import rclpy
from rclpy.logging import get_logger_effective_level
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage

rclpy.init(args=sys.argv, signal_handler_options=SignalHandlerOptions.NO)
node = Node("some_name", automatically_declare_parameters_from_overrides=True)
heard = []
if os.environ.get("PROGRAM_LISTENS") == name:
    node.create_subscription(CameraInfo, "camera_info", lambda _: None, 10)
    node.create_subscription(CompressedImage, "image/compressed", lambda _: heard.append(1), 10)
    deadline = time.monotonic() + 60
    while len(heard) < 3 and time.monotonic() < deadline:
        rclpy.spin_once(node, timeout_sec=0.1)
(folder / f"{name}.tmp").write_text(json.dumps({
    "node": node.get_fully_qualified_name(),
    "topics": {topic: node.resolve_topic_name(topic) for topic in TOPICS},
    "parameters": {name: p.value for name, p in node.get_parameters_by_prefix("").items()
                   if name != "start_type_description_service"},
    "log_levels": [get_logger_effective_level(name).name for name in (node.get_logger().name, "rcl")],
    "argv": sys.argv, "heard": len(heard),
}))
(folder / f"{name}.tmp").rename(folder / f"{name}.json")
if os.environ.get("PROGRAM_STAYS") == name:
    time.sleep(60)
sys.stdout.flush()
os._exit(int(os.environ.get("PROGRAM_CODE", 0)))
"""


RVIZ_MARKER = "share/ament_index/resource_index/packages/rviz2"


class Installation:
    """A folder as colcon makes it, with our launch files and programs that write down how they were called."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder = folder
        self.prefix = folder / "install"
        for package, program in (("nre_ros", "localize_node"), ("rviz2", "rviz2")):
            self._install(package, program)
        share = self.prefix / "share/nre_ros"
        for name in ("launch", "config"):
            shutil.copytree(ROOT / name, share / name)
        self.localize, self.replay = share / "launch/localize.launch.py", share / "launch/replay.launch.py"
        path = os.pathsep.join(filter(None, (str(self.prefix), environment.get("AMENT_PREFIX_PATH", ""))))
        python_path = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH", ""))))
        self.environment = {**environment, "AMENT_PREFIX_PATH": path, "PYTHONPATH": python_path}
        self.environment |= {"PROGRAM_FOLDER": str(folder), "ROS_LOG_DIR": str(folder / "log")}

    def _install(self, package: str, program: str) -> None:
        marker = self.prefix / "share/ament_index/resource_index/packages" / package
        executable = self.prefix / "lib" / package / program
        for path in (marker, executable):
            path.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        executable.write_text(PROGRAM)
        executable.chmod(0o755)

    def remove_rviz(self) -> None:
        (self.prefix / RVIZ_MARKER).unlink()

    def has_rviz(self) -> bool:
        """Whether rviz2 is installed, here or in the ROS installation."""
        return any(
            Path(prefix, RVIZ_MARKER).exists() for prefix in self.environment["AMENT_PREFIX_PATH"].split(os.pathsep)
        )

    def run(self, file: Path, *words: str, timeout: float = 120, environment=(), **given: str):
        """``ros2 launch FILE name:=value ...``, until it ends."""
        command = [*LAUNCH, str(file), *words, *(f"{name}:={value}" for name, value in given.items())]
        return subprocess.run(
            command,
            env={**self.environment, **dict(environment)},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )

    def started(self) -> set[str]:
        time.sleep(0.5)  # a program that was left behind says so
        return {path.stem for path in self.folder.glob("*.started")}

    def called(self, program: str = "localize_node") -> dict:
        path, deadline = self.folder / f"{program}.json", time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        return json.loads(path.read_text())


@pytest.fixture
def installation(ros_environment, tmp_path):
    if REAL and shutil.which("rviz2"):
        ros_environment = {k: v for k, v in ros_environment.items() if k != "DISPLAY"}
    return Installation(tmp_path, ros_environment)


@pytest.fixture
def launched(installation):
    """launched(argument=value, ...): what rclpy makes of the node's command line."""

    def ask(program="localize_node", file=None, **given):
        run = installation.run(file or installation.localize, **given)
        assert run.returncode == 0, run.stdout
        return installation.called(program)

    return ask


def params_file(folder: Path, key="/**", name="mine.yaml", **values) -> str:
    path = folder / name
    path.write_text(yaml.safe_dump({key: {"ros__parameters": values}}))
    return str(path)


def refused(run) -> str:
    """The one line of a launch that starts nothing."""
    lines = [line for line in run.stdout.splitlines() if "Caught exception in launch" in line]
    assert run.returncode and len(lines) == 1 and "Traceback" not in run.stdout, run.stdout
    return lines[0]


def test_arguments_are_described(installation):
    for file, arguments in ((installation.localize, ARGUMENTS), (installation.replay, REPLAY_ARGUMENTS)):
        shown = installation.run(file, "--show-args").stdout
        assert set(re.findall(r"'(\w+)':", shown)) == arguments
        assert "no description given" not in shown


def test_without_arguments_nothing_is_set(launched):
    """Defaults are the node's own, so that a parameter file or a parent launch file can set everything."""
    node = launched()
    assert node["node"] == "/localize_node"
    assert list(node["topics"].values())[:4] == [
        "/camera/color/image_raw",
        "/camera/color/image_raw/compressed",
        "/camera/color/camera_info",
        "/pose",
    ]
    assert node["parameters"] == {"use_sim_time": False}, "rclpy's own parameter alone"
    assert node["log_levels"] == ["INFO", "INFO"]


def test_every_argument_arrives(launched, tmp_path):
    node = launched(
        map="2024",
        image="cam/image",
        camera_info="/cam/info",
        params_file=params_file(tmp_path, retrieve=7, map_file="other.db", use_sim_time=False, autostart=True),
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
    assert node["log_levels"] == ["WARN", "INFO"], "of the node's logger alone"


def test_settings_of_the_parameter_file_count(launched, tmp_path):
    values = {"map_file": "mine.db", "autostart": False, "use_sim_time": True, "retrieve": 7}
    parameters = launched(params_file=params_file(tmp_path, **values))["parameters"]
    assert parameters == values


@pytest.mark.parametrize("key", ["localize_node", "/localize_node", "/**/localize_node"])
def test_an_argument_wins_over_a_file_that_names_the_node(launched, tmp_path, key):
    given = params_file(tmp_path, key, map_file="mine.db", retrieve=7)
    parameters = launched(map="yours.db", params_file=given)["parameters"]
    assert (parameters["map_file"], parameters["retrieve"]) == ("yours.db", 7)


@pytest.mark.parametrize("key", ["/**", "/*/localize_node", "/robot1/localize_node", "/**/localize_node"])
def test_keys_that_match_the_node_in_its_namespace(launched, tmp_path, key):
    parameters = launched(namespace="robot1", params_file=params_file(tmp_path, key, retrieve=7))["parameters"]
    assert parameters["retrieve"] == 7


@pytest.mark.parametrize("given", [{"namespace": "robot1"}, {"name": "where"}])
def test_a_parameter_file_for_another_node_is_refused(installation, given):
    path = params_file(installation.folder, "localize_node", retrieve=7)
    words = refused(installation.run(installation.localize, map="a.db", params_file=path, **given))
    assert path in words and "only for /localize_node" in words and "/**" in words
    assert not installation.started()


def test_a_parameter_file_that_cannot_be_used_is_refused(installation):
    folder = installation.folder
    (folder / "broken.yaml").write_text("/**: {ros__parameters: [")
    (folder / "plain.yaml").write_text("retrieve: 7\n")
    for name, reason in (("none", "does not exist"), ("broken", "is no YAML"), ("plain", "has no ros__parameters")):
        path = str(folder / f"{name}.yaml")
        words = refused(installation.run(installation.localize, map="a.db", params_file=path))
        assert path in words and reason in words
    assert not installation.started()


PARENT = """
from launch import LaunchDescription
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetParameter, SetRemap


def generate_launch_description():
    return LaunchDescription([GroupAction([
        %s,
        IncludeLaunchDescription(PythonLaunchDescriptionSource(%r), launch_arguments=[("map", "a.db")]),
    ])])
"""


def test_a_parent_launch_file_sets_parameters(installation, launched):
    parent = installation.folder / "parent.launch.py"
    actions = 'SetParameter("use_sim_time", True), SetParameter("retrieve", 9), SetParameter("autostart", False)'
    parent.write_text(PARENT % (actions, str(installation.localize)))
    parameters = launched(file=parent)["parameters"]
    assert parameters == {"use_sim_time": True, "retrieve": 9, "autostart": False, "map_file": "a.db"}


def test_a_parent_launch_file_of_two_robots(installation, launched):
    """The recipe of docs/node.md: everything relative, also /tf."""
    parent = installation.folder / "parent.launch.py"
    actions = 'PushRosNamespace("robot1"), SetRemap("/tf", "tf"), SetRemap("/tf_static", "tf_static")'
    parent.write_text(PARENT % (actions, str(installation.localize)))
    path = params_file(installation.folder, "/robot1/localize_node", retrieve=7)
    node = launched(file=parent, params_file=path, image="camera/image", log_level="debug")
    assert node["node"] == "/robot1/localize_node"
    assert node["topics"]["image"] == "/robot1/camera/image" and node["topics"]["pose"] == "/robot1/pose"
    assert node["parameters"]["retrieve"] == 7
    assert "/tf:=tf" in node["argv"] and "/tf_static:=tf_static" in node["argv"]
    assert node["log_levels"][0] == "DEBUG"


def test_the_executable_is_installed():
    assert (ROOT / "scripts/localize_node").stat().st_mode & 0o111


def test_rviz_starts_on_demand_only(installation):
    installation.run(installation.localize, map="a.db")
    assert installation.started() == {"localize_node"}


@pytest.mark.parametrize("namespace", ["", "robot1"])
def test_rviz_sees_the_topics_of_the_node(installation, launched, namespace):
    path = params_file(installation.folder, use_sim_time=True)
    seen = launched("rviz2", map="a.db", rviz="true", namespace=namespace, params_file=path)
    prefix = f"/{namespace}" if namespace else ""
    assert [seen["topics"][topic] for topic in VIEWED] == [prefix + topic for topic in VIEWED]
    assert seen["parameters"]["use_sim_time"] is True, "as the node's"
    argv = seen["argv"]
    assert Path(argv[argv.index("-d") + 1]).read_text() == (ROOT / "config/localize.rviz").read_text()


@pytest.mark.parametrize("file", ["localize", "replay"])
def test_without_rviz_nothing_is_left_running(installation, small_bag, file):
    installation.remove_rviz()
    if installation.has_rviz():
        pytest.skip("needs a machine without rviz2")
    given = {"map": "a.db", "rviz": "true", **({"bag": str(small_bag)} if file == "replay" else {})}
    words = refused(installation.run(getattr(installation, file), **given))
    assert "rviz2 is not installed" in words and "rviz:=false" in words
    assert not installation.started()


@pytest.mark.parametrize("name", ["rviz", "autostart", "use_sim_time", "required"])
def test_a_switch_that_is_neither_true_nor_false_starts_nothing(installation, name):
    words = refused(installation.run(installation.localize, map="a.db", **{"rviz": "true", name: "maybe"}))
    assert name in words and "'maybe'" in words
    assert not installation.started()


# --- replay -------------------------------------------------------------------------------------


@pytest.fixture
def small_bag(tmp_path):
    pytest.importorskip("rosbags", reason="needs rosbags")
    import cv2
    from bag_samples import START, encoded_message, write_messages

    from nre_ros.gallery.bag import camera_info_message
    from nre_ros.geometry import Camera

    camera = Camera(32, 24, 30.0, 30.0, 15.5, 11.5)
    data = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    messages = []
    for i in range(20):
        stamp = START + i * 10**8
        messages.append((stamp, "/front/image/compressed", "compressed", encoded_message(stamp, "front", data)))
        messages.append((stamp, "/front/camera_info", "info", camera_info_message(stamp, "front", camera)))
    return write_messages(tmp_path / "walk", messages)


def test_replay_plays_to_the_node_when_it_listens(installation, small_bag):
    """The bag's only topics are found; the node gets them, and the bag's clock."""
    listens = {"PROGRAM_LISTENS": "localize_node"}
    run = installation.run(installation.replay, bag=str(small_bag), map="a.db", rviz="false", environment=listens)
    node = installation.called()
    assert node["heard"] >= 3, run.stdout
    assert node["topics"]["image/compressed"] == "/front/image/compressed"
    assert node["topics"]["camera_info"] == "/front/camera_info"
    assert node["parameters"] == {"map_file": "a.db", "use_sim_time": True}
    assert "Traceback" not in run.stdout


def test_replay_ends_when_the_node_is_dead(installation, small_bag):
    begun = time.monotonic()
    given = {"bag": str(small_bag), "map": "a.db", "rviz": "true"}
    changes = {"PROGRAM_CODE": "2", "PROGRAM_STAYS": "rviz2"}
    run = installation.run(installation.replay, environment=changes, **given)
    assert time.monotonic() - begun < 50, "without waiting for a subscriber"
    assert "Traceback" not in run.stdout, run.stdout
    assert (installation.folder / "rviz2.ended").exists() or not (installation.folder / "rviz2.json").exists()


def test_replay_refuses_what_it_cannot_play(installation, small_bag):
    folder = installation.folder
    for changed, reason in (
        ({"bag": str(folder / "no_such_bag")}, "no_such_bag does not exist"),
        ({"bag": str(folder)}, "walk in it may be meant"),
        ({"image": "/rear/image"}, "has no image topic /rear/image; it has: .*/front/image/compressed"),
        ({"camera_info": "/rear/info"}, "has no camera_info topic /rear/info; it has: .*/front/camera_info"),
        ({"rate": "fast"}, "rate is 'fast'"),
        ({"params_file": str(folder / "none.yaml")}, "none.yaml does not exist"),
    ):
        given = {"bag": str(small_bag), "map": "a.db", "rviz": "false", **changed}
        assert re.search(reason, refused(installation.run(installation.replay, **given)))
    assert not installation.started()


@pytest.mark.parametrize(
    "words, reason",
    [
        (("no_such_bag", "--image", "/a"), "bag no_such_bag does not exist"),
        (("walk", "--image", "/a"), "has no topic /a; it has: "),
        (("walk", "--image", "/front/image/compressed", "--wait-for", "/b", "/c"), "has no topic /b, /c; it has: "),
    ],
)
def test_the_player_refuses_in_one_line(ros_environment, small_bag, words, reason):
    run = subprocess.run(
        [sys.executable, "-m", "nre_ros.replay.player", *words],
        env={**ros_environment, "PYTHONPATH": str(ROOT)},
        cwd=small_bag.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1 and reason in run.stderr, run.stderr


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
