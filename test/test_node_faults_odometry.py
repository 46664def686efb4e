# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Faulty odometry and stamps: each is reported, and the next good image gets its pose and its transform."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from ros_process import (
    OPTICAL,
    NodeProcess,
    Robot,
    assert_pose,
    camera_info,
    jpeg_image,
    raw_image,
)

from nre_ros.gallery import CameraMount
from nre_ros.node.conversions import matrix_of_pose, stamp_nanoseconds

MOUNT = CameraMount()


@pytest.fixture(scope="module")
def node(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    parameters = {"map_file": world.map_file, "transform_timeout": 0.1, "jump_fixes": 1, "jump_seconds": 0.0}
    with NodeProcess(folder, "-r", "__ns:=/odometry", **parameters) as node:
        yield node.wait_ready()


@pytest.fixture(scope="module")
def robot(node):
    with Robot("/odometry") as robot:
        yield robot.wait_connected()


def moved(x):
    T = np.eye(4)
    T[0, 3] = x
    return T


def assert_next_good_image_is_posed(world, robot, T_odom_base=np.eye(4)):
    stamp = robot.now()
    robot.publish_odometry(T_odom_base, stamp)
    robot.transforms.clear()
    status = robot.ask(raw_image(world.image, stamp))
    assert status.pose_valid and status.reason == "", status.reason
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert robot.wait(lambda: robot.transforms)
    return status


def test_a_pose_without_any_odometry_is_published_alone(world, node, robot):
    """Runs first: there is no odom frame yet."""
    status = robot.ask(jpeg_image(world.image, robot.now()))
    assert status.pose_valid and status.reason.startswith("no room -> odom: ") and "does not exist" in status.reason
    assert not robot.transforms
    assert_next_good_image_is_posed(world, robot)


def test_a_camera_outside_of_the_tree_of_odometry_gets_a_pose_without_transform(world, node, robot):
    """TF does not connect camera and odometry."""
    stamp = robot.now()
    robot.publish_odometry(np.eye(4), stamp)
    message = jpeg_image(world.image, stamp)
    message.header.frame_id = "loose_optical_frame"
    robot.publish_transform(np.eye(4), "another_robot", "loose_optical_frame", robot.now(), static=True)
    time.sleep(0.2)
    status = robot.ask(message)
    # our own room -> odom is in the tree as well: of two trees, or of none at that time, tf2 says what it meets first
    assert status.pose_valid and status.reason.startswith("no room -> odom: ") and "loose_optical" in status.reason
    assert_next_good_image_is_posed(world, robot)


def test_odometry_that_jumps_is_reported_and_map_to_odom_follows(world, node, robot):
    """The odometry of the wheels starts again elsewhere."""
    assert_next_good_image_is_posed(world, robot, moved(0.0))
    time.sleep(0.3)
    status = assert_next_good_image_is_posed(world, robot, moved(50.0))
    assert "odometry jumped by 50.0" in status.gate_reason, status.gate_reason
    time.sleep(0.3)
    assert_next_good_image_is_posed(world, robot, moved(50.0))


def test_consistent_images_overrule_wrong_odometry(world, node, robot):
    """Odometry reports motion while the robot stands still."""
    for i in range(4):
        assert_next_good_image_is_posed(world, robot, moved(50.0 + 0.5 * i))
        time.sleep(0.2)


@pytest.mark.parametrize("seconds", [5, 3600])
def test_images_with_future_stamps_are_dropped_and_the_pose_stays(world, node, robot, seconds):
    """The camera's clock is ahead, by a little or by an hour."""
    state = assert_next_good_image_is_posed(world, robot).state
    poses = len(robot.poses)
    status = robot.ask(jpeg_image(world.image, robot.now() + seconds * 10**9))
    assert not status.pose_valid and "ahead of this node's clock" in status.reason and status.state == state
    assert len(robot.poses) == poses
    assert_next_good_image_is_posed(world, robot)
    assert "went back" not in node.output.split("ahead of this node's clock")[-1]


def test_camera_info_can_arrive_late_and_change(world, node, robot):
    """Meanwhile the intrinsics are for half the size."""
    half = camera_info(width=160, height=120)
    status = robot.ask(jpeg_image(world.image, robot.now()), half)
    assert not status.pose_valid and "320x240 but its intrinsics are for 160x120" in status.reason
    assert_next_good_image_is_posed(world, robot)


def test_everything_published_is_finite_and_has_a_stamp(robot, node):
    for pose in robot.poses:
        assert np.isfinite(matrix_of_pose(pose.pose)).all() and stamp_nanoseconds(pose.header.stamp)
    for _, transform in robot.transforms:
        assert transform.header.frame_id == "room" and stamp_nanoseconds(transform.header.stamp)
    assert OPTICAL and "Traceback" not in node.output and node.stop() == 0
