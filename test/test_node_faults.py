# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Invalid input, as real messages: each gets a status with the reason, and the next good image its pose."""

import math
import re
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from ros_process import NodeProcess, Robot, camera_info, jpeg_image, raw_image

from nre_ros.geometry import pose_error
from nre_ros.node.conversions import matrix_of_pose, stamp_message, transform_message

NAN = float("nan")


@pytest.fixture(scope="module")
def node(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    with NodeProcess(folder, "-r", "__ns:=/faulty", map_file=world.map_file, transform_timeout=0.1) as node:
        yield node.wait_ready()


@pytest.fixture(scope="module")
def robot(node):
    with Robot("/faulty") as robot:
        yield robot.wait_connected()


def assert_next_good_image_is_posed(world, robot, node):
    stamp = robot.now()
    robot.publish_odometry(np.eye(4), stamp)
    status = robot.ask(raw_image(world.image, stamp))
    assert status.pose_valid and status.reason == "", status.reason
    metres, radians = pose_error(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert metres < 0.03 and math.degrees(radians) < 1
    assert "Traceback" not in node.output and "internal error" not in node.output


def test_an_image_before_any_camera_info_is_dropped_with_the_reason(world, node, robot):
    """Runs first: no camera_info has arrived yet."""
    status = robot.ask(jpeg_image(world.image, robot.now()), info=None)
    assert not status.pose_valid and "no camera_info" in status.reason and status.state == status.UNLOCALIZED
    assert_next_good_image_is_posed(world, robot, node)


def without(message, **changes):
    for name, value in changes.items():
        setattr(message, name, value)
    return message


BAD_IMAGES = {
    "unknown encoding": (lambda w, t: without(raw_image(w.image, t), encoding="bgr9"), "encoding 'bgr9'"),
    "depth": (lambda w, t: without(raw_image(w.image, t), encoding="32FC1"), "encoding '32FC1'"),
    "zero width": (lambda w, t: without(raw_image(w.image, t), width=0), "0x240 pixels is empty"),
    "zero size": (lambda w, t: without(raw_image(w.image, t), width=0, height=0, step=0, data=[]), "0x0 pixels"),
    "short data": (lambda w, t: without(raw_image(w.image, t), data=bytes(1000)), "1000 bytes, 960 x 240 = 230400"),
    "short step": (lambda w, t: without(raw_image(w.image, t), step=320), "step of 320 bytes"),
    "other size": (lambda w, t: raw_image(w.image[:120, :160].copy(), t), "160x120 but its intrinsics are for 320x240"),
    "truncated JPEG": (lambda w, t: truncated(jpeg_image(w.image, t), 0.6), "truncated"),
    "empty JPEG": (lambda w, t: truncated(jpeg_image(w.image, t), 0), "0 bytes"),
    "text for JPEG": (lambda w, t: without(jpeg_image(w.image, t), data=b"not a picture"), "cannot be decoded"),
    "no stamp": (lambda w, t: raw_image(w.image, 0), "no time stamp"),
    "black": (lambda w, t: raw_image(np.zeros_like(w.image), t), ""),
    "tiny": (lambda w, t: raw_image(w.image[:9, :9].copy(), t), "9x9 but its intrinsics are for 320x240"),
}


def without_numbers(text):
    return re.sub(r"[-+\d.]+", "", text)


def truncated(message, part):
    message.data = message.data[: int(part * len(message.data))]
    return message


@pytest.mark.parametrize("what", BAD_IMAGES)
def test_an_invalid_image_gets_a_reason_and_the_next_good_one_a_pose(world, node, robot, what):
    make, words = BAD_IMAGES[what]
    poses = len(robot.poses)
    status = robot.ask(make(world, robot.now()))
    assert not status.pose_valid and words in status.reason and status.reason, status.reason
    assert "\n" not in status.reason
    # the same words with other numbers may have been logged a moment ago
    assert without_numbers(f"no pose: {status.reason}") in without_numbers(node.output)
    assert len(robot.poses) == poses
    assert_next_good_image_is_posed(world, robot, node)


BAD_INFOS = {
    "all-zero K": (dict(k=[0.0] * 9), "not calibrated: K is all zeros"),
    "NaN in K": (dict(k=[NAN, 0.0, 160.0, 0.0, 260.0, 120.0, 0.0, 0.0, 1.0]), "not finite"),
    "negative focal length": (dict(k=[-260.0, 0.0, 160.0, 0.0, 260.0, 120.0, 0.0, 0.0, 1.0]), "fx=-260"),
    "infinite distortion": (dict(d=[math.inf, 0.0, 0.0, 0.0]), "not finite"),
    "three coefficients": (dict(d=[0.1, 0.1, 0.1]), "got 3"),
    "unknown model": (dict(distortion_model="fovmodel", d=[0.9]), "'fovmodel'"),
    "other size": (dict(width=640, height=480), "320x240 but its intrinsics are for 640x480"),
    "no size": (dict(width=0, height=0), "0x0"),
}


@pytest.mark.parametrize("what", BAD_INFOS)
def test_an_invalid_camera_info_gets_a_reason_and_the_next_good_one_a_pose(world, node, robot, what):
    changes, words = BAD_INFOS[what]
    status = robot.ask(jpeg_image(world.image, robot.now()), camera_info(**changes))
    assert not status.pose_valid and words in status.reason, status.reason
    assert "\n" not in status.reason
    assert_next_good_image_is_posed(world, robot, node)


def test_images_with_padded_rows_are_localized(world, node, robot):
    status = robot.ask(raw_image(world.image, robot.now(), padding=52))
    metres, radians = pose_error(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert metres < 0.03 and math.degrees(radians) < 1


@pytest.mark.parametrize("encoding, order", [("rgb8", [2, 1, 0]), ("mono8", None)])
def test_the_encoding_can_change_while_the_node_runs(world, node, robot, encoding, order):
    pixels = world.image[..., order].copy() if order else world.image.mean(axis=2).astype(np.uint8)
    status = robot.ask(raw_image(pixels, robot.now(), encoding))
    metres, radians = pose_error(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert metres < 0.03 and math.degrees(radians) < 1
    assert_next_good_image_is_posed(world, robot, node)


@pytest.mark.parametrize("where", [(0, 3), (0, 0)], ids=["translation", "rotation"])
def test_odometry_that_is_not_finite_counts_as_none(world, node, robot, where):
    """Nothing of it is published."""
    # in the future of all good odometry, so that there is nothing but NaN around it
    stamp = robot.now() + 9 * 10**8
    for offset in (-20_000_000, 0, 20_000_000):
        publish_broken_odometry(robot, stamp + offset, where)
    time.sleep(0.2)
    robot.transforms.clear()
    poses = len(robot.poses)
    status = robot.ask(raw_image(world.image, stamp))
    assert status.pose_valid and status.reason.startswith("no room -> odom: ") and "extrapolation" in status.reason
    assert robot.wait(lambda: len(robot.poses) > poses), "the pose needs no odometry"
    assert "TF_NAN_INPUT" in node.output and 'child_frame_id "base_link"' in node.output
    time.sleep(0.3)
    for _, transform in robot.transforms:
        t, q = transform.transform.translation, transform.transform.rotation
        assert np.isfinite([t.x, t.y, t.z, q.x, q.y, q.z, q.w]).all()
    time.sleep(1.0)  # stamps are not to go back
    assert_next_good_image_is_posed(world, robot, node)


def publish_broken_odometry(robot, stamp, where):
    message = transform_message(np.eye(4), "odom", "base_link", stamp)
    if where[1] == 3:
        message.transform.translation.x = NAN
    else:
        message.transform.rotation.w = NAN
    robot.publish_on_tf(message)


def test_images_of_a_camera_with_an_old_clock_get_poses(world, node, robot):
    """The clock is in 1970: the images get poses, and the missing odometry is reported."""
    message = raw_image(world.image, 0)
    message.header.stamp = stamp_message(5 * 10**9)
    status = robot.ask(message)
    assert status.pose_valid and "no room -> odom" in status.reason
    assert "behind this node's clock" in node.output
    assert_next_good_image_is_posed(world, robot, node)


def test_frames_without_a_name_are_reported(world, node, robot):
    message = raw_image(world.image, robot.now())
    message.header.frame_id = ""
    info = camera_info()
    info.header.frame_id = ""
    status = robot.ask(message, info)
    assert status.pose_valid and "frame_id" in status.reason and "camera_frame" in status.reason
    assert_next_good_image_is_posed(world, robot, node)


RAISING_ESTIMATOR = """
import sys
from nre_ros.localization import localizer
from nre_ros.node.localize_node import main

localize = localizer.Localizer.localize

def raise_for_black(self, image, camera, prior=None, **options):
    if not image.any():
        raise RuntimeError("a kernel failed.\\nNobody knows why")
    return localize(self, image, camera, prior, **options)

localizer.Localizer.localize = raise_for_black
sys.exit(main())
"""


def test_the_node_outlives_an_error_in_the_estimator(world, tmp_path):
    arguments = ("-r", "__ns:=/raising")
    with NodeProcess(tmp_path, *arguments, command=("-c", RAISING_ESTIMATOR), map_file=world.map_file) as node:
        node.wait_ready()
        with Robot("/raising") as robot:
            robot.wait_connected()
            black = raw_image(np.zeros_like(world.image), robot.now())
            status = robot.ask(black)
            assert not status.pose_valid
            assert status.reason == "internal error, RuntimeError: a kernel failed. Nobody knows why"
            assert "Traceback" in node.output, "whoever maintains the node needs to know where"
            assert "internal error" in robot.localize_image(black, camera_info()).reason
            stamp = robot.now()
            robot.publish_odometry(np.eye(4), stamp)
            assert robot.ask(raw_image(world.image, stamp)).pose_valid
        assert node.stop() == 0


def test_the_node_is_still_the_same_process(node):
    assert node.process.poll() is None
    assert node.stop() == 0
