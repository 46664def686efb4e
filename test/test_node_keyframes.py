# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topic keyframes: a map that grows and is corrected while the node localizes in it."""

import shutil
import time
from array import array

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from nre_ros.msg import Keyframe
from ros_process import (
    CAMERA,
    assert_pose,
    camera_info,
    jpeg_image,
    raw_image,
)
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from nre_ros.gallery import camera_pose
from nre_ros.geometry import invert
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.node.conversions import matrix_of_pose, pose_message, stamp_message

PLACES = [camera_pose([0.2, y, 1.2 + 0.1 * (i % 2)], -0.2 * y) for i, y in enumerate((-0.6, 0.0, 0.6))]


def message(name, T, frame="room"):
    keyframe = Keyframe(name=name, pose=pose_message(T), camera_info=camera_info())
    keyframe.header.frame_id, keyframe.header.stamp = frame, stamp_message(1_700_000_000 * 10**9)
    return keyframe


def with_depth(world, name, T, frame="room", T_frame_room=np.eye(4)):
    """A keyframe with an image and its depth in millimetres."""
    view = world.gallery.render(CAMERA, T)
    keyframe = message(name, T_frame_room @ T, frame)
    keyframe.compressed_image = jpeg_image(view.image, 0)
    depth = np.rint(1000 * view.depth).astype("<u2")
    keyframe.depth = Image(height=240, width=320, encoding="16UC1", step=640, data=array("B", depth.tobytes()))
    return keyframe


def with_points(world, name, T):
    """A keyframe with an image and 400 points that its pixels show."""
    view = world.gallery.render(CAMERA, T)
    keyframe = message(name, T)
    keyframe.image = raw_image(view.image, 0)
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.integers(8, 312, 400), rng.integers(8, 232, 400)], axis=1)
    z = view.depth[pixels[:, 1], pixels[:, 0]]
    rays = CAMERA.rays(torch.as_tensor(pixels, dtype=torch.float64)).numpy()
    points = rays / rays[:, 2:] * z[:, None] @ T[:3, :3].T + T[:3, 3]
    keyframe.points, keyframe.pixels = points.ravel().tolist(), pixels.ravel().astype(float).tolist()
    keyframe.point_ids = list(range(400))
    return keyframe


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def names(path):
    with KeyframeStore.open(path) as store:
        return set(store.names())


def test_a_map_grows_from_nothing(world, start, tmp_path):
    """RGB-D views and points with pixels, in the map's frame and in another; the next image is localized in them."""
    path = tmp_path / "grown.db"
    node, robot = start(map_file=path, create_map=True, map_frame="room")
    assert "holds no keyframes" in robot.ask(jpeg_image(world.image, robot.now())).reason
    T_room_slam = camera_pose([1.0, 2.0, 0.0], 0.3)
    robot.publish_transform(T_room_slam, "room", "slam_map", 1, static=True)
    robot.publish_once(with_depth(world, "a", PLACES[0]), "keyframes")
    robot.publish_once(with_depth(world, "b", PLACES[1], "slam_map", invert(T_room_slam)), "keyframes")
    robot.publish_once(with_points(world, "c", PLACES[2]), "keyframes")
    wait_for(lambda: names(path) == {"a", "b", "c"})
    with KeyframeStore.open(path) as store:
        for name, T in zip("abc", PLACES):
            keyframe = store.get(store.find(name))
            assert_pose(keyframe.T_map_cam, T)
            assert 100 < len(keyframe.points) <= 500 and keyframe.stamp == 1_700_000_000 * 10**9
        assert set(store.get(store.find("c")).point_ids) <= set(range(400))
    status = robot.ask(jpeg_image(world.image, robot.now()))
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
    assert node.stop() == 0
    assert [file.name for file in tmp_path.glob("grown.db*")] == ["grown.db"], "one plain file is left"


def test_adjusted_poses_move_what_is_localized(world, start, tmp_path):
    """All keyframes are moved by the same motion, as after a loop closure: the next pose is, too."""
    path = tmp_path / "moved.db"
    shutil.copy(world.map_file, path)
    node, robot = start(map_file=path)
    assert_pose(matrix_of_pose(robot.ask(jpeg_image(world.image, robot.now())).pose.pose), world.T_map_cam)
    motion = camera_pose([0.5, -1.0, 0.2], 0.0) @ invert(camera_pose([0, 0, 0], 0.2))
    with KeyframeStore.open(path) as store:
        poses = {name: store.get(i).T_map_cam for name, i in store.names().items()}
    publisher = robot.node.create_publisher(Keyframe, "keyframes", 1000)
    wait_for(publisher.get_subscription_count)
    for step in range(60):  # as many as a bundle adjustment of a large map sends at once
        for name, T in poses.items():
            publisher.publish(message(name, camera_pose([0.01 * (60 - step), 0, 0], 0) @ motion @ T))
    for name, T in poses.items():
        publisher.publish(message(name, motion @ T))

    def all_moved():
        with KeyframeStore.open(path) as store:
            return all(np.allclose(store.get(store.find(name)).T_map_cam, motion @ T) for name, T in poses.items())

    wait_for(all_moved)
    assert "is rejected" not in node.output
    robot.call(Trigger, "clear", Trigger.Request())
    status = robot.ask(jpeg_image(world.image, robot.now()))
    assert_pose(matrix_of_pose(status.pose.pose), motion @ world.T_map_cam)


def test_invalid_keyframes_are_rejected_with_the_reason_and_the_next_one_is_added(world, start, tmp_path):
    path = tmp_path / "faults.db"
    shutil.copy(world.map_file, path)
    node, robot = start(map_file=path, transform_timeout=0.1)
    before = names(path)

    def refused(keyframe, words):
        robot.publish_once(keyframe, "keyframes")
        node.wait_for(words)

    good = with_depth(world, "good", PLACES[0])
    nan = with_depth(world, "nan", PLACES[0])
    nan.pose.position.x = float("nan")
    refused(nan, "keyframe 'nan' is rejected: pose is not finite")
    refused(message("unknown", PLACES[0]), "keyframe 'unknown' is rejected: the map has no keyframe of that name")
    nothing = message("nothing", PLACES[0])
    nothing.compressed_image = jpeg_image(world.image, 0)
    refused(nothing, "keyframe 'nothing' is rejected: there are neither points nor depth")
    small = with_depth(world, "small", PLACES[0])
    small.depth.height = 120
    small.depth.data = small.depth.data[: 120 * 640]
    refused(small, "keyframe 'small' is rejected: depth of 320x120 pixels, image of 320x240")
    uneven = with_points(world, "uneven", PLACES[0])
    uneven.pixels = uneven.pixels[:-1]
    refused(uneven, "keyframe 'uneven' is rejected: 1200 numbers of points, 799 of pixels and 400 ids")
    refused(with_depth(world, "", PLACES[0]), "a keyframe needs a name")
    refused(with_depth(world, "lost", PLACES[0], "nowhere"), "is rejected: it is in nowhere, not in the map: ")
    uncalibrated = with_depth(world, "raw", PLACES[0])
    uncalibrated.camera_info = camera_info(k=[0.0] * 9)
    refused(uncalibrated, "keyframe 'raw' is rejected: camera_info of frame")
    assert names(path) == before

    robot.publish_once(good, "keyframes")
    wait_for(lambda: names(path) == before | {"good"})
    assert robot.ask(jpeg_image(world.image, robot.now())).pose_valid
    # a map whose file has gone: nothing is written into what would be lost
    path.unlink()
    refused(with_depth(world, "late", PLACES[1]), "was removed while it was open")
    assert robot.ask(jpeg_image(world.image, robot.now())).pose_valid
    assert "Traceback" not in node.output
