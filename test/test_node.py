# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node as the rest of a robot sees it: real messages, through DDS, between processes.

The room is synthetic, so every pose has an exact truth.  Limits of 3 cm and 1 degree: what is
tested is the way through the node, the estimator's accuracy has tests of its own.
"""

import math
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from nre_ros.msg import LocalizationStatus
from rcl_interfaces.srv import DescribeParameters, GetParameters
from rclpy.parameter import parameter_value_to_python
from ros_process import (
    CAMERA,
    OPTICAL,
    SimClock,
    assert_pose,
    camera_info,
    jpeg_image,
    raw_image,
)

from nre_ros.gallery import CameraMount, camera_pose
from nre_ros.geometry import invert
from nre_ros.node.conversions import matrix_of_pose, matrix_of_transform, stamp_nanoseconds
from nre_ros.node.parameters import DECLARATIONS

MOUNT = CameraMount()


def odometry():
    """Some place of the base in the odometry frame."""
    T = np.eye(4)
    T[:2, :2] = [[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]]
    T[:2, 3] = 3.0, -2.0
    return T


def test_an_image_becomes_pose_status_and_transform(world, start):
    _, robot = start()
    time.sleep(1.0)
    assert not robot.poses and not robot.covariances and not robot.transforms, "nothing is known before the first fix"

    stamp = robot.now()
    robot.publish_odometry(odometry(), stamp)
    status = robot.ask(raw_image(world.image, stamp))

    assert status.pose_valid and status.reason == "" and status.state == LocalizationStatus.LOCALIZED
    assert status.header.frame_id == "room" and status.camera_frame == OPTICAL
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert 0.5 <= status.confidence <= 1 and 0 < status.points_used <= status.points_considered
    assert list(status.keyframes_used) and set(status.keyframes_used) <= {1, 2, 3, 4, 5}
    assert math.isfinite(status.cost) and status.cost != 0
    assert status.stages[:2] == ["decode", "features"] and len(status.stage_milliseconds) == len(status.stages)
    assert 0 < sum(status.stage_milliseconds) <= status.total_milliseconds

    assert robot.wait(lambda: robot.poses and robot.covariances)
    pose, with_covariance = robot.poses[0], robot.covariances[0]
    assert stamp_nanoseconds(pose.header.stamp) == stamp and pose.header == with_covariance.header
    assert pose.header.frame_id == "room"
    assert pose.pose == with_covariance.pose.pose == status.pose.pose
    covariance = with_covariance.pose.covariance.reshape(6, 6)
    np.testing.assert_array_equal(covariance.ravel(), status.pose.covariance)
    assert np.linalg.eigvalsh(covariance).min() > 0 and np.sqrt(covariance.diagonal()[:3]).max() < 0.1

    # map -> odom closes the chain, and stays alive without another image
    assert robot.wait(lambda: len(robot.transforms) >= 8)
    first = robot.transforms[0][1]
    assert (first.header.frame_id, first.child_frame_id) == ("room", "odom")
    assert_pose(matrix_of_transform(first.transform) @ odometry() @ MOUNT.T_base_cam, matrix_of_pose(pose.pose))
    assert_pose(matrix_of_transform(first.transform) @ odometry() @ MOUNT.T_base_cam, world.T_map_cam)
    stamps = [stamp_nanoseconds(t.header.stamp) for _, t in robot.transforms]
    assert all(later > earlier for earlier, later in zip(stamps, stamps[1:])) and stamps[0] > stamp
    assert all(t.transform == first.transform for _, t in robot.transforms)


def test_transforms_are_dated_into_the_future_by_the_tolerance(world, start):
    _, robot = start()
    assert robot.set_parameter("transform_tolerance", 5.0).successful
    stamp = robot.now()
    robot.publish_odometry(odometry(), stamp)
    robot.ask(raw_image(world.image, stamp))
    assert robot.wait(lambda: robot.transforms)
    arrival, transform = robot.transforms[0]
    assert arrival < stamp_nanoseconds(transform.header.stamp) <= arrival + 5 * 10**9


@pytest.mark.parametrize("moved", [-3.0, 3.0], ids=["only newer", "only older"])
def test_without_odometry_at_the_images_stamp_the_pose_comes_alone(world, start, moved):
    _, robot = start(transform_timeout=0.1)
    stamp = robot.now()
    robot.publish_odometry(odometry(), stamp - round(moved * 1e9))
    status = robot.ask(raw_image(world.image, stamp))
    assert status.pose_valid
    direction = "past" if moved < 0 else "future"
    assert status.reason.startswith("no room -> odom: ") and f"extrapolation into the {direction}" in status.reason
    assert robot.wait(lambda: robot.poses)
    assert_pose(matrix_of_pose(robot.poses[0].pose), world.T_map_cam)
    time.sleep(0.5)
    assert not robot.transforms
    # the next image with odometry gets its transform
    stamp = robot.now()
    robot.publish_odometry(odometry(), stamp)
    assert robot.ask(raw_image(world.image, stamp)).reason == ""
    assert robot.wait(lambda: robot.transforms)


def test_odometry_that_comes_late_is_waited_for(world, start):
    _, robot = start(transform_timeout=1.5)
    stamp = robot.now()
    robot.publish_odometry(odometry(), stamp - 10**9)
    robot.publish(camera_info())
    robot.publish(raw_image(world.image, stamp))
    time.sleep(0.8)
    assert not robot.poses, "a pose is judged by odometry before it is published"
    robot.publish_odometry(odometry(), stamp)
    assert robot.wait(lambda: robot.statuses and robot.poses)
    assert robot.statuses[0].reason == ""
    assert robot.wait(lambda: robot.transforms)


def test_jpeg_images_below_a_remapped_topic(world, start):
    node, robot = start("-r", "image:=/the_camera/image", image="/the_camera/image")
    stamp = robot.now()
    robot.publish_odometry(odometry(), stamp)
    status = robot.ask(jpeg_image(world.image, stamp))
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert "/the_camera/image/compressed" in node.output


def test_the_same_image_by_both_transports_is_localized_once(world, start):
    _, robot = start()
    stamp = robot.now()
    robot.ask(jpeg_image(world.image, stamp))
    before = len(robot.statuses)
    for _ in range(3):
        robot.publish(raw_image(world.image, stamp))
    later = robot.now()
    robot.ask(jpeg_image(world.image, later))
    stamps = [stamp_nanoseconds(status.header.stamp) for status in robot.statuses[before:]]
    assert stamp not in stamps and later in stamps


def test_a_newer_image_replaces_the_waiting_one_and_both_are_counted(world, start):
    _, robot = start()
    robot.ask(jpeg_image(world.image, robot.now()))
    before = len(robot.statuses)
    messages = [jpeg_image(world.image, robot.now() + i) for i in range(20)]
    for message in messages:
        robot.publish(message)
        time.sleep(0.005)
    last = stamp_nanoseconds(messages[-1].header.stamp)
    assert robot.wait(lambda: stamp_nanoseconds(robot.statuses[-1].header.stamp) == last)
    time.sleep(1.0)
    answered = [stamp_nanoseconds(status.header.stamp) for status in robot.statuses[before:]]
    assert answered == sorted(set(answered)) and answered[-1] == last
    assert len(answered) < len(messages)
    status = robot.statuses[-1]
    drops = dict(zip(status.dropped_reasons, status.dropped_counts))
    # every image that the node has received has a status or was replaced
    assert status.images_received == len(robot.statuses) + drops["replaced"]


def test_pose_frame_is_the_frame_of_the_pose_topics(world, start):
    _, robot = start(pose_frame="base_link", camera_frame=OPTICAL)
    stamp = robot.now()
    robot.publish_odometry(odometry(), stamp)
    message = raw_image(world.image, stamp)
    message.header.frame_id = "a driver's invention"
    status = robot.ask(message)
    assert status.reason == "" and status.camera_frame == OPTICAL
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert robot.wait(lambda: robot.poses and robot.covariances)
    assert_pose(matrix_of_pose(robot.poses[0].pose), world.T_map_cam @ invert(MOUNT.T_base_cam))
    # the base is a metre below the camera: what turns the camera moves the base
    base, camera = (np.reshape(c, (6, 6)) for c in (robot.covariances[0].pose.covariance, status.pose.covariance))
    np.testing.assert_allclose(base[3:, 3:], camera[3:, 3:])
    assert not np.allclose(base[:3, :3], camera[:3, :3], rtol=0.01)


@pytest.mark.parametrize("base_frame", ["base_link", ""])
def test_without_odometry_the_map_is_connected_with_base_or_camera(world, start, base_frame):
    _, robot = start(odom_frame='""', base_frame=base_frame or '""', publish_tf=True)
    stamp = robot.now()
    robot.publish_transform(MOUNT.T_base_cam, "base_link", OPTICAL, stamp, static=True)
    status = robot.ask(raw_image(world.image, stamp))
    assert status.pose_valid and status.reason == ""
    assert robot.wait(lambda: robot.transforms)
    transform = robot.transforms[0][1]
    assert (transform.header.frame_id, transform.child_frame_id) == ("room", base_frame or OPTICAL)
    assert stamp_nanoseconds(transform.header.stamp) == stamp
    expected = world.T_map_cam @ invert(MOUNT.T_base_cam) if base_frame else world.T_map_cam
    assert_pose(matrix_of_transform(transform.transform), expected)
    time.sleep(0.3)
    assert {stamp_nanoseconds(t.header.stamp) for _, t in robot.transforms} == {stamp}, "an old pose is not repeated"


def test_transforms_can_be_switched_off(world, start):
    _, robot = start(publish_tf=False)
    stamp = robot.now()
    robot.publish_odometry(odometry(), stamp)
    assert robot.ask(raw_image(world.image, stamp)).reason == ""
    time.sleep(0.5)
    assert robot.poses and not robot.transforms


def test_lost_and_found(world, start):
    _, robot = start(lost_seconds=0.5)
    floor = np.full_like(world.image, 90)
    assert robot.ask(jpeg_image(floor, robot.now())).state == LocalizationStatus.UNLOCALIZED
    assert robot.ask(jpeg_image(world.image, robot.now())).state == LocalizationStatus.LOCALIZED
    poses = len(robot.poses)
    time.sleep(0.6)
    lost = robot.ask(jpeg_image(floor, robot.now()))
    assert lost.state == LocalizationStatus.LOST and not lost.pose_valid and lost.reason
    assert len(robot.poses) == poses
    assert robot.ask(jpeg_image(world.image, robot.now())).state == LocalizationStatus.LOCALIZED


def test_the_service_localize_image_does_not_change_the_node(world, start):
    _, robot = start()
    message = raw_image(world.image, 0)
    status = robot.localize_image(message, camera_info())
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert status.header.frame_id == "room" and status.reason == ""
    refused = robot.localize_image(message, camera_info(k=[0.0] * 9))
    assert not refused.pose_valid and "K is all zeros" in refused.reason
    assert not robot.poses and not robot.statuses and not robot.transforms


def test_a_simulation_that_starts_again_is_followed(world, start):
    """/clock jumps back by an hour: the old correction is forgotten, new images are localized."""
    node, robot = start(use_sim_time=True)
    hour = 3600 * 10**9

    def localized(clock):
        stamp = clock.now()
        robot.publish_odometry(odometry(), stamp)
        return robot.ask(jpeg_image(world.image, stamp))

    def broadcasts():
        return [stamp_nanoseconds(t.header.stamp) for _, t in robot.transforms]

    node.wait_for("no /clock yet")
    with SimClock(robot, 2 * hour) as clock:
        while not robot.node.count_subscribers("/clock"):
            time.sleep(0.02)
        time.sleep(1.0)
        assert localized(clock).reason == ""
        assert robot.wait(lambda: len(broadcasts()) > 5)
        assert min(broadcasts()) > 2 * hour

        clock.set(hour)
        node.wait_for("the clock went back")
        time.sleep(0.3)  # what was on its way
        robot.transforms.clear()
        time.sleep(0.5)
        assert not robot.transforms, "the correction of the time before is not broadcast any more"
        status = localized(clock)
        assert status.pose_valid and status.reason == ""
        assert robot.wait(broadcasts)
        assert hour < min(broadcasts()) <= max(broadcasts()) < 2 * hour


def test_a_bag_that_starts_again_is_followed(world, start):
    """Without a clock: stamps of images and odometry go back together."""
    node, robot = start()
    now = robot.now()
    for stamp in (now, now - 100 * 10**9):
        robot.publish_odometry(odometry(), stamp)
        status = robot.ask(jpeg_image(world.image, stamp))
        assert status.pose_valid
    assert "the stamps of the images went back by 100.0 s" in node.output
    stamp = now - 99 * 10**9
    robot.publish_odometry(odometry(), stamp)
    assert robot.ask(jpeg_image(world.image, stamp)).reason == ""
    assert "behind this node's clock" in node.output


def test_intrinsics_may_change_while_running(world, start):
    """Half the resolution by binning: the same pose."""
    _, robot = start()
    assert robot.ask(raw_image(world.image, robot.now())).pose_valid
    large = world.gallery.render(CAMERA.resized(640, 480), world.T_map_cam).image
    binned = large.reshape(240, 2, 320, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    camera = CAMERA.resized(640, 480)
    info = camera_info(width=640, height=480, k=camera.K.ravel().tolist(), binning_x=2, binning_y=2)
    status = robot.ask(raw_image(binned, robot.now()), info)
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)


def test_parameters_are_described_and_guarded(start):
    _, robot = start()
    names = [entry.name for entry in DECLARATIONS]
    described = robot.call(DescribeParameters, "describe_parameters", DescribeParameters.Request(names=names))
    for entry, descriptor in zip(DECLARATIONS, described.descriptors):
        assert descriptor.name == entry.name and len(descriptor.description) > 20
        assert ("read when" in descriptor.additional_constraints) != entry.runtime
        is_number = isinstance(entry.default, (int, float)) and not isinstance(entry.default, bool)
        assert bool(descriptor.integer_range or descriptor.floating_point_range) == is_number
    for name, value in (("transform_tolerance", -1.0), ("min_confidence", 1.5), ("map_file", "x.db"), ("seed", 3)):
        assert not robot.set_parameter(name, value).successful, name
    assert robot.set_parameter("min_confidence", 0.75).successful
    request = GetParameters.Request(names=["min_confidence", "seed"])
    answer = robot.call(GetParameters, "get_parameters", request)
    assert [parameter_value_to_python(value) for value in answer.values] == [0.75, 0]


def test_min_confidence_is_obeyed_at_once(world, start):
    _, robot = start()
    assert robot.ask(raw_image(world.image, robot.now())).pose_valid
    assert robot.set_parameter("min_confidence", 1.0).successful
    status = robot.ask(raw_image(world.image, robot.now()))
    assert not status.pose_valid and "confidence" in status.reason and status.confidence > 0


def test_images_of_two_places_get_their_own_poses(world, start):
    """Two images from two places: each its own pose, none the one before."""
    _, robot = start()
    places = [camera_pose([0.0, -0.5, 1.25], 0.1), camera_pose([0.1, 0.6, 1.25], -0.1)]
    for T in places:
        status = robot.ask(raw_image(world.image_at(T), robot.now()))
        assert_pose(matrix_of_pose(status.pose.pose), T)
