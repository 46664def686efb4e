# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The gate in the node: first poses, outliers, kidnaps, and the pose between images."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from nre_ros.msg import LocalizationStatus
from ros_process import assert_pose, jpeg_image

from nre_ros.gallery import CameraMount, camera_pose
from nre_ros.geometry import invert
from nre_ros.node.conversions import matrix_of_pose, matrix_of_transform, stamp_nanoseconds

MOUNT = CameraMount()
ELSEWHERE = camera_pose([0.0, -0.5, 1.25], 0.1)
"""Far from where ``world.image`` was taken, and in the map."""


def localize(robot, image, T_odom_base):
    """The status of an image taken now, with odometry."""
    stamp = robot.now()
    robot.publish_odometry(T_odom_base, stamp)
    return robot.ask(jpeg_image(image, stamp))


def moved(x, y=0.0):
    T = np.eye(4)
    T[:2, 3] = x, y
    return T


def test_no_pose_before_two_images_agree(world, start):
    _, robot = start(first_fixes=2)
    first = localize(robot, world.image, np.eye(4))
    assert not first.pose_valid and first.image_localized and first.state == LocalizationStatus.UNLOCALIZED
    assert "1 of 2 fixes" in first.reason and first.mahalanobis == -1
    assert not any(first.pose.covariance) and not robot.poses and not robot.transforms
    # elsewhere, without having moved: it agrees with nothing
    other = localize(robot, world.image_at(ELSEWHERE), np.eye(4))
    assert not other.pose_valid and "1 of 2 fixes" in other.reason
    time.sleep(0.3)
    second = localize(robot, world.image_at(ELSEWHERE), np.eye(4))
    assert second.pose_valid and second.reason == "" and "2 consecutive fixes" in second.gate_reason
    assert second.verdict == second.gate_reason, "the deprecated name"
    assert_pose(matrix_of_pose(second.pose.pose), ELSEWHERE)
    assert robot.wait(lambda: robot.poses and robot.transforms)


def test_a_pose_that_odometry_contradicts_is_reported_with_numbers_and_not_published(world, start):
    """A look-alike place, or a robot that was carried: the first images there do not move it, consistent ones do."""
    _, robot = start(jump_fixes=3, jump_seconds=0.5)
    assert localize(robot, world.image, np.eye(4)).pose_valid
    poses = len(robot.poses)
    assert robot.wait(lambda: robot.transforms)
    away = np.linalg.norm(ELSEWHERE[:3, 3] - world.T_map_cam[:3, 3])
    there = world.image_at(ELSEWHERE)
    rejected = localize(robot, there, np.eye(4))
    assert not rejected.pose_valid and rejected.image_localized and rejected.state == LocalizationStatus.LOCALIZED
    assert rejected.metres == pytest.approx(away, abs=0.03)
    assert rejected.mahalanobis > rejected.mahalanobis_limit > 1
    assert "not accepted yet" in rejected.reason and "Mahalanobis" in rejected.reason
    # an image of the present place: the evidence for the other one is gone
    assert localize(robot, world.image, np.eye(4)).pose_valid
    states = [localize(robot, there, np.eye(4)) for _ in range(10)]  # each weighs its confidence
    assert not states[0].pose_valid and not states[1].pose_valid
    accepted = next(status for status in states if status.pose_valid)
    assert accepted.jump, "odometry does not explain it"
    assert_pose(matrix_of_pose(accepted.pose.pose), ELSEWHERE)
    published = [matrix_of_pose(pose.pose) for pose in robot.poses[poses:]]
    assert all(min(np.linalg.norm(T[:3, 3] - P[:3, 3]) for P in (ELSEWHERE, world.T_map_cam)) < 0.03 for T in published)


def test_motion_that_odometry_explains_is_no_jump(world, start):
    """The robot drives where odometry says: accepted at once, and map -> odom stays."""
    _, robot = start()
    T_map_base = [T @ invert(MOUNT.T_base_cam) for T in (world.T_map_cam, ELSEWHERE)]
    assert localize(robot, world.image, T_map_base[0]).pose_valid
    time.sleep(0.5)
    status = localize(robot, world.image_at(ELSEWHERE), T_map_base[1])
    assert status.pose_valid and status.metres < 0.05 and not status.jump
    assert robot.wait(lambda: robot.transforms)
    for _, transform in robot.transforms:
        assert_pose(matrix_of_transform(transform.transform), np.eye(4))


def test_the_pose_is_propagated_by_odometry_between_images(world, start):
    """Ever less certain, and silent as soon as the parameter is false."""
    _, robot = start(odometry_propagation=True)
    T_map_base = world.T_map_cam @ invert(MOUNT.T_base_cam)
    assert localize(robot, world.image, T_map_base).pose_valid
    assert robot.wait(lambda: robot.covariances)
    count = len(robot.covariances)
    for i in range(1, 6):
        stamp = robot.now()
        robot.publish_odometry(T_map_base @ moved(0.1 * i), stamp)
        time.sleep(0.2)
    assert robot.wait(lambda: len(robot.covariances) >= count + 4)
    propagated = robot.covariances[count:]
    stamps = [stamp_nanoseconds(pose.header.stamp) for pose in propagated]
    assert stamps == sorted(set(stamps))
    expected = T_map_base @ moved(0.5) @ MOUNT.T_base_cam
    assert_pose(matrix_of_pose(propagated[-1].pose.pose), expected)
    spreads = [np.trace(np.reshape(pose.pose.covariance, (6, 6))) for pose in propagated]
    assert all(later > earlier for earlier, later in zip(spreads, spreads[1:]))
    assert robot.set_parameter("odometry_propagation", False).successful
    time.sleep(0.2)
    count = len(robot.covariances)
    robot.publish_odometry(T_map_base @ moved(0.6), robot.now())
    time.sleep(0.4)
    assert len(robot.covariances) == count
