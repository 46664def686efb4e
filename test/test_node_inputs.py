# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node listens to besides one camera's images: an initial pose, more cameras, a limited rate."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from geometry_msgs.msg import PoseWithCovarianceStamped
from ros_process import (
    OPTICAL,
    TIMEOUT,
    NodeProcess,
    Robot,
    assert_pose,
    camera_info,
    jpeg_image,
    raw_image,
)

from nre_ros.gallery import CameraMount, camera_pose
from nre_ros.geometry import invert
from nre_ros.node.conversions import matrix_of_pose, pose_message, stamp_message, stamp_nanoseconds

MOUNT = CameraMount()


def stated(T, frame, stamp=0, deviation=0.3):
    message = PoseWithCovarianceStamped()
    message.header.frame_id, message.header.stamp = frame, stamp_message(stamp)
    message.pose.pose = pose_message(T)
    message.pose.covariance = (deviation**2 * np.eye(6)).ravel().tolist()
    return message


def test_an_initial_pose_is_confirmed_by_one_image(world, start):
    """Otherwise fifty images would have to agree, so that the initial pose is what confirms it."""
    node, robot = start(first_fixes=50, base_frame="base_link")
    T_map_base = world.T_map_cam @ invert(MOUNT.T_base_cam)

    def localize():
        stamp = robot.now()
        robot.publish_odometry(np.eye(4), stamp)
        return robot.ask(jpeg_image(world.image, stamp))

    assert "1 of 50 fixes" in localize().gate_reason and not robot.poses
    # a few decimetres off, in the map's frame
    off = T_map_base.copy()
    off[:3, 3] += 0.2, -0.2, 0.1
    robot.publish_once(stated(off, "room", robot.now()), "initialpose")
    status = localize()
    assert status.pose_valid and 0 < status.mahalanobis < status.mahalanobis_limit
    assert 0.2 < status.metres < 0.5 and status.metres == pytest.approx(0.3, abs=0.05)
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert "initialpose: initial pose of the camera at" in node.output

    # in a frame that TF connects with the map
    T_room_site = camera_pose([1.0, 2.0, 0.5], 0.4)
    robot.publish_transform(T_room_site, "room", "site", robot.now(), static=True)
    robot.publish_once(stated(invert(T_room_site) @ T_map_base, "site"), "initialpose")
    status = localize()
    assert status.pose_valid and 0 <= status.metres < 0.05

    # elsewhere: one image does not confirm it
    robot.publish_once(stated(T_map_base @ camera_pose([3.0, 0, 0], 0), "room"), "initialpose")
    status = localize()
    assert not status.pose_valid and status.mahalanobis > status.mahalanobis_limit
    assert "not accepted yet" in status.reason


def test_invalid_initial_poses_are_rejected_with_the_reason(world, start):
    node, robot = start(transform_timeout=0.1)
    wrong = stated(np.eye(4), "room")
    wrong.pose.pose.position.x = float("nan")
    robot.publish_once(wrong, "initialpose")
    node.wait_for("initialpose is rejected: pose is not finite")
    wrong = stated(np.eye(4), "room")
    wrong.pose.covariance[0] = -1.0
    robot.publish_once(wrong, "initialpose")
    node.wait_for("initialpose is rejected: its covariance has a negative variance")
    robot.publish_once(stated(np.eye(4), "nowhere"), "initialpose")
    status = robot.ask(jpeg_image(world.image, robot.now()))
    assert status.pose_valid, "the rejected pose leaves the node as it was"
    node.wait_for("initialpose is rejected: it is in nowhere, not in the map: ")


def test_two_cameras_give_one_pose_of_the_robot(world, tmp_path):
    """Each by its own topics, intrinsics and place on the robot, in fair turns."""
    places = {"front": world.T_map_cam, "rear": camera_pose([0.1, 0.6, 1.25], -0.1)}
    frames = {"front": OPTICAL, "rear": "rear_optical_frame"}
    T_map_base = world.T_map_cam @ invert(MOUNT.T_base_cam)
    parameters = {"cameras": "[front, rear]", "base_frame": "base_link"}  # whose pose is published then
    with (
        NodeProcess(tmp_path, "-r", "__ns:=/two", map_file=world.map_file, **parameters) as node,
        Robot("/two", "front/image", "front/camera_info") as front,
        Robot("/two", "rear/image", "rear/camera_info") as rear,
    ):
        node.wait_ready()
        robots = {"front": front.wait_connected(), "rear": rear.wait_connected()}
        front.publish_transform(invert(T_map_base) @ places["rear"], "base_link", frames["rear"], 1, static=True)
        for name, robot in robots.items():
            stamp = robot.now()
            front.publish_odometry(np.eye(4), stamp)
            message = jpeg_image(world.image_at(places[name]), stamp)
            message.header.frame_id = frames[name]
            status = robot.ask(message)
            assert (status.camera, status.camera_frame, status.reason) == (name, frames[name], "")
            assert_pose(matrix_of_pose(status.pose.pose), places[name])
        assert front.wait(lambda: len(front.poses) >= 2)
        for pose in front.poses:
            assert_pose(matrix_of_pose(pose.pose), T_map_base)

        # both send more than can be localized: they take turns
        before = len(front.statuses)
        messages = {name: jpeg_image(world.image_at(places[name]), 0) for name in places}
        deadline = time.monotonic() + TIMEOUT
        while len(front.statuses) < before + 6 and time.monotonic() < deadline:
            for name, robot in robots.items():
                stamp = robot.now()
                front.publish_odometry(np.eye(4), stamp)
                messages[name].header.stamp, messages[name].header.frame_id = stamp_message(stamp), frames[name]
                robot.publish(messages[name])
            time.sleep(0.02)
        turns = [status.camera for status in front.statuses[before:]]
        assert len(turns) >= 6 and abs(turns.count("front") - turns.count("rear")) <= 1, turns


def test_the_rate_may_be_limited(world, start):
    _, robot = start(max_rate=0.5)
    deadline = time.monotonic() + TIMEOUT
    while len(robot.statuses) < 4 and time.monotonic() < deadline:
        robot.publish(camera_info())
        robot.publish(jpeg_image(world.image, robot.now()))
        time.sleep(0.03)
    stamps = [stamp_nanoseconds(status.header.stamp) for status in robot.statuses]
    assert len(stamps) >= 4 and min(np.diff(stamps)) > 0.9e9, "one in two seconds, however many come"
    assert robot.set_parameter("max_rate", 0.0).successful
    assert not robot.set_parameter("max_rate", -1.0).successful
    assert robot.ask(raw_image(world.image, robot.now())).pose_valid
