# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The installed messages are real ones: they pass through DDS from one process to another."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nre_ros.ros_environment import install_prefix

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(install_prefix() is None, reason="needs the generated messages: make setup or colcon")

TALKER = """
import array, time
from nre_ros import ros_environment
ros_environment.prepare()
import rclpy
from geometry_msgs.msg import TransformStamped
from nre_ros.msg import LocalizationStatus
from tf2_msgs.msg import TFMessage

rclpy.init()
node = rclpy.create_node("talker")
status = LocalizationStatus(state=LocalizationStatus.LOST, reason="wall \\u00e4", confidence=0.5)
status.keyframes_used = array.array("q", [2**40, -1])
status.stages = ["coarse", "fine"]
status.stage_milliseconds = array.array("f", [1.5, 2.5])
status.pose.covariance[35] = 7.25
transform = TransformStamped(child_frame_id="odom")
transform.header.frame_id = "map"
transform.transform.translation.x = 1.25
publishers = node.create_publisher(LocalizationStatus, "status", 1), node.create_publisher(TFMessage, "tf", 1)
while True:
    publishers[0].publish(status)
    publishers[1].publish(TFMessage(transforms=[transform]))
    time.sleep(0.05)
"""

LISTENER = """
import json, time
from nre_ros import ros_environment
ros_environment.prepare()
import rclpy
import nre_ros.node
from ament_index_python.packages import get_package_share_directory
from nre_ros.msg import LocalizationStatus
from nre_ros.srv import LocalizeImage
from tf2_msgs.msg import TFMessage

rclpy.init()
node = rclpy.create_node("listener")
heard = {}
node.create_subscription(LocalizationStatus, "status", lambda m: heard.setdefault("status", m), 1)
node.create_subscription(TFMessage, "tf", lambda m: heard.setdefault("tf", m), 1)
end = time.monotonic() + 60
while len(heard) < 2 and time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.1)
publishers = {topic: node.count_publishers(topic) for topic in ("status", "tf")}
assert len(heard) == 2, f"heard {sorted(heard)} only; publishers found: {publishers}"
status, tf = heard["status"], heard["tf"]
(endpoint,) = node.get_publishers_info_by_topic("tf")
print(json.dumps({
    "status": [status.state, status.reason, status.confidence, list(status.keyframes_used), status.stages,
               list(status.stage_milliseconds), status.pose.covariance[35]],
    "tf": [tf.transforms[0].header.frame_id, tf.transforms[0].child_frame_id,
           tf.transforms[0].transform.translation.x],
    "tf_hash": str(getattr(endpoint, "topic_type_hash", "")),
    "request": sorted(LocalizeImage.Request.get_fields_and_field_types()),
    "share": get_package_share_directory("nre_ros"),
    "sources": nre_ros.node.__file__,
}))
"""


def exchange(environment: dict[str, str], folder: Path) -> dict:
    """Runs talker and listener in ``folder`` and returns what the listener heard."""
    talker = subprocess.Popen([sys.executable, "-c", TALKER], env=environment, cwd=folder)
    try:
        listener = subprocess.run(
            [sys.executable, "-c", LISTENER], env=environment, cwd=folder, capture_output=True, text=True, timeout=120
        )
        assert listener.returncode == 0, f"{listener.stderr}\ntalker: {talker.poll() or 'running'}"
    finally:
        talker.kill()
        talker.wait()
    return json.loads(listener.stdout.splitlines()[-1])


@pytest.mark.parametrize("where", ["sources", "elsewhere"])
def test_messages_pass_between_processes(where, ros_environment, tmp_path):
    """In the source folder, whose nre_ros shadows the installed one, and anywhere else."""
    heard = exchange(ros_environment, ROOT if where == "sources" else tmp_path)
    assert heard["status"] == [2, "wall ä", 0.5, [2**40, -1], ["coarse", "fine"], [1.5, 2.5], 7.25]
    assert heard["tf"] == ["map", "odom", 1.25]
    assert heard["request"] == ["camera_info", "image"]
    assert heard["share"] == str(install_prefix() / "share/nre_ros")
    assert (ROOT / "nre_ros" in Path(heard["sources"]).parents) == (where == "sources")


def test_tf_message_has_the_type_hash_of_the_real_one(ros_environment, tmp_path, shared):
    """DDS endpoints match by type, and a recorder writes the hash: oracle is a bag's metadata."""
    metadata = yaml.safe_load((shared / "data/kitchen/bag/metadata.yaml").read_text())
    topics = [t["topic_metadata"] for t in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]]
    (expected,) = {t["type_description_hash"].strip() for t in topics if t["type"] == "tf2_msgs/msg/TFMessage"}
    heard = exchange(ros_environment, tmp_path)
    if not heard["tf_hash"]:
        pytest.skip("this rclpy does not tell type hashes (older than Jazzy)")
    assert heard["tf_hash"] == expected


def test_a_foreign_mark_of_the_wheels_does_no_harm(ros_environment, tmp_path):
    """A child of another environment's Python inherits the mark, but not our library folders."""
    heard = exchange(dict(ros_environment, _ROS_WHEELS_BOOTSTRAP_COMPLETE="1"), tmp_path)
    assert heard["tf"] == ["map", "odom", 1.25]
