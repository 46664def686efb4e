# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Two equal rooms: no image tells which one it shows, and odometry does, once it is known where the robot was."""

import re
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from ros_process import World, assert_pose, jpeg_image
from test_node_inputs import stated

from nre_ros.gallery import CameraMount, camera_pose
from nre_ros.geometry import invert
from nre_ros.node.conversions import matrix_of_pose

DISTANCE = 20.0
ODOM_START = camera_pose([3.0, -2.0, 0.0], 0.7)
"""Of base_link when the robot starts: odometry's numbers are not the map's."""


def place(room):
    T = np.eye(4)
    T[1, 3] = DISTANCE * room
    return T


@pytest.fixture(scope="module")
def equal_rooms(tmp_path_factory):
    return World(tmp_path_factory.mktemp("twins"), [place(0), place(1)])


def trajectory():
    """Poses of the camera in the room, a few decimetres apart."""
    return [camera_pose([0.05, y, 1.3], 0.08 - 0.1 * y, -0.03) for y in (-0.1, 0.1, 0.25, 0.4, 0.55, 0.45)]


def localize(robot, equal_rooms, T_room_cam):
    """The status of an image from a place in the room, whichever of the two it is; odometry is right."""
    stamp, mount = robot.now(), CameraMount()
    T_room_base = [T @ invert(mount.T_base_cam) for T in (trajectory()[0], T_room_cam)]
    robot.publish_odometry(ODOM_START @ invert(T_room_base[0]) @ T_room_base[1], stamp, mount)
    return robot.ask(jpeg_image(equal_rooms.image_at(T_room_cam), stamp))


@pytest.mark.parametrize("room", (0, 1))
def test_odometry_decides_between_two_equal_rooms(equal_rooms, start, room):
    _, robot = start(map_file=equal_rooms.map_file, base_frame="base_link", first_fixes=2, use_prior=False)
    # nobody knows: consistent as the images are, none of them says which room it is
    waiting = [localize(robot, equal_rooms, T) for T in trajectory()[:4]]
    for status in waiting:
        assert not status.pose_valid and not any(status.pose.covariance)
    ambiguous = "an alternative pose of the image|none of the image's poses has the confidence"
    assert sum(bool(re.search(ambiguous, status.reason)) for status in waiting) >= 3, [s.reason for s in waiting]
    assert not robot.poses and not robot.transforms
    # somebody tells, by half a metre: from now on odometry carries it
    begin = place(room) @ trajectory()[0] @ invert(CameraMount().T_base_cam)
    robot.publish_once(stated(begin, "room", deviation=0.5), "initialpose")
    statuses = [localize(robot, equal_rooms, T) for T in trajectory()]
    assert all(status.pose_valid for status in statuses), [status.reason for status in statuses]
    for status, T in zip(statuses, trajectory()):
        assert_pose(matrix_of_pose(status.pose.pose), place(room) @ T)
    assert robot.wait(lambda: len(robot.poses) == len(statuses))
    time.sleep(0.1)
    assert all(
        abs(t.transform.translation.y - robot.transforms[0][1].transform.translation.y) < 1 for _, t in robot.transforms
    )


def test_in_one_of_two_equal_rooms_the_alternative_pose_is_accepted(equal_rooms, start):
    """The other test would pass in one room if the alternative pose were never used."""
    _, robot = start(map_file=equal_rooms.map_file, base_frame="base_link", first_fixes=2, use_prior=False)
    reasons_of = {0: [], 1: []}
    for room in reasons_of:
        robot.publish_once(
            stated(place(room) @ trajectory()[0] @ invert(CameraMount().T_base_cam), "room", deviation=0.5),
            "initialpose",
        )
        reasons_of[room] = [localize(robot, equal_rooms, T).gate_reason for T in trajectory()[:4]]
    assert any("alternative poses agrees" in reason for reasons in reasons_of.values() for reason in reasons), (
        reasons_of
    )
