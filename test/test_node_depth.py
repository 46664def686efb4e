# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth images over DDS: they refuse wrong poses, and what is wrong with them takes no pose away."""

import struct
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from ros_process import CAMERA, OPTICAL, NodeProcess, Robot, raw_image
from sensor_msgs.msg import CompressedImage, Image

from nre_ros.node.conversions import stamp_message


@pytest.fixture(scope="module")
def depth(world):
    return world.gallery.render(CAMERA, world.T_map_cam).depth


def raw_depth(depth, stamp, frame=OPTICAL, encoding="16UC1"):
    values = np.rint(1000 * depth).astype(np.uint16) if encoding == "16UC1" else depth.astype(np.float32)
    message = Image(height=depth.shape[0], width=depth.shape[1], encoding=encoding, data=values.tobytes())
    message.step = values.itemsize * depth.shape[1]
    message.header.stamp, message.header.frame_id = stamp_message(stamp), frame
    return message


def compressed_depth(depth, stamp):
    png = cv2.imencode(".png", np.rint(1000 * depth).astype(np.uint16))[1].tobytes()
    message = CompressedImage(format="16UC1; compressedDepth png", data=struct.pack("<iff", 0, 0.0, 0.0) + png)
    message.header.stamp, message.header.frame_id = stamp_message(stamp), OPTICAL
    return message


@pytest.fixture(scope="module", params=["raw", "compressedDepth"])
def running(request, world, tmp_path_factory):
    """Node, robot, and ask(depth message of a stamp or None) -> status."""
    raw = request.param == "raw"
    namespace = f"/depth_{request.param}"
    folder = tmp_path_factory.mktemp("node")
    with (
        NodeProcess(folder, "-r", f"__ns:={namespace}", map_file=world.map_file, depth_transport=request.param) as node,
        Robot(namespace) as robot,
    ):
        topic = "depth" if raw else "depth/compressedDepth"
        publisher = robot.node.create_publisher(Image if raw else CompressedImage, topic, 10)
        node.wait_ready()
        robot.wait_connected()
        deadline = time.monotonic() + 20
        while not publisher.get_subscription_count() and time.monotonic() < deadline:
            time.sleep(0.02)

        def ask(make):
            stamp = robot.now()
            for _ in range(2 if make else 0):  # best effort
                publisher.publish(make(stamp))
                time.sleep(0.05)
            return robot.ask(raw_image(world.image, stamp))

        yield raw, node, ask


def test_depth_confirms_and_contradicts(running, depth):
    raw, node, ask = running
    make = raw_depth if raw else compressed_depth
    assert "/depth" in node.output.split("listening to")[1].splitlines()[0]
    assert ask(lambda stamp: make(depth, stamp)).pose_valid
    status = ask(lambda stamp: make(1.5 * depth, stamp))
    assert not status.pose_valid and status.confidence == 0
    assert "the depth image contradicts the pose: measured depths are 1.5 times the expected ones" in status.reason
    # without a depth image of its stamp an image is localized by itself
    assert ask(None).pose_valid
    assert ask(lambda stamp: make(1.5 * depth, stamp - 10**9)).pose_valid


def test_depth_that_cannot_be_used_is_reported_and_ignored(running, depth):
    raw, node, ask = running
    if raw:
        cases = {
            "its frame is depth_optical": lambda stamp: raw_depth(1.5 * depth, stamp, "depth_optical"),
            "has encoding 'rgb8'": lambda stamp: Image(header=raw_depth(depth, stamp).header, encoding="rgb8"),
        }
    else:
        cases = {"is no whole PNG image": lambda stamp: broken(compressed_depth(depth, stamp))}
    for message, make in cases.items():
        assert ask(make).pose_valid
        assert "is ignored: " in node.output and message in node.output, node.output
    time.sleep(1.1)
    assert ask(lambda stamp: (raw_depth if raw else compressed_depth)(depth[:100], stamp)).pose_valid
    assert f"it has {CAMERA.width}x100 pixels, the image has {CAMERA.width}x{CAMERA.height}" in node.output
    assert "Traceback" not in node.output


def broken(message):
    message.data = message.data[:200]
    return message
