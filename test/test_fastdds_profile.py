# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""config/fastdds_large_images.xml: raw images arrive with sensor-data QoS, which Fast DDS loses by default."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "config/fastdds_large_images.xml"
SENT = 60

CAMERA = f"""
import array, time
from nre_ros import ros_environment
ros_environment.prepare()
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("camera")
publisher = node.create_publisher(Image, "image", qos_profile_sensor_data)
image = Image(height=480, width=640, encoding="rgb8", step=1920)
image.data = array.array("B", bytes(range(256)) * (1920 * 480 // 256))
while publisher.get_subscription_count() == 0:
    time.sleep(0.05)
time.sleep(1.0)
for number in range({SENT}):
    image.header.stamp.sec = number
    publisher.publish(image)
    time.sleep(0.05)
time.sleep(1.0)
"""

LISTENER = """
import json, time
from nre_ros import ros_environment
ros_environment.prepare()
import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("listener")
images = []
def take(image):
    assert bytes(image.data[:256]) == bytes(range(256)) and len(image.data) == 1920 * 480
    images.append(image.header.stamp.sec)
node.create_subscription(Image, "image", take, qos_profile_sensor_data)
end, quiet = time.monotonic() + 60, None
while time.monotonic() < end and (quiet is None or time.monotonic() < quiet):
    before = len(images)
    rclpy.spin_once(node, timeout_sec=0.1)
    if len(images) > before:
        quiet = time.monotonic() + 2.0
print(json.dumps(images))
"""


def test_raw_images_arrive_with_the_profile_on_the_publisher(ros_environment):
    if "fastrtps" not in ros_environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"):
        pytest.skip("RMW_IMPLEMENTATION is not Fast DDS")
    listener = subprocess.Popen(
        [sys.executable, "-c", LISTENER], env=ros_environment, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    camera = subprocess.Popen(
        [sys.executable, "-c", CAMERA], env=dict(ros_environment, FASTRTPS_DEFAULT_PROFILES_FILE=str(PROFILE)), cwd=ROOT
    )
    try:
        output, _ = listener.communicate(timeout=120)
        assert camera.wait(timeout=60) == 0
    finally:
        listener.kill()
        camera.kill()
    received = json.loads(output.splitlines()[-1])
    # by default about one in a hundred arrives; a busy machine may drop a few of a queue of five
    assert len(received) >= 0.75 * SENT
    assert received == sorted(set(received))
