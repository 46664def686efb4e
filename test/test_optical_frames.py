# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The frame of a camera's body in place of its optical frame is noticed, and right frames are not."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")

from nre_ros.messages.frame_ids import frame_name
from nre_ros.messages.transform_buffer import TransformBuffer
from nre_ros.node import optical_frames
from nre_ros.node.optical_frames import OpticalFrameCheck
from nre_ros.node.tf import Frames, OwnTransforms, _names_of_frames

OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Rotation of an optical frame in its body: x right, y down, z forward (REP-103)."""
S = 10**9


def check(frame, tree, base="base_link", odom="odom"):
    """The warning about a frame; tree: child -> (parent, rotation [3, 3], position)."""
    transforms = OwnTransforms.__new__(OwnTransforms)
    transforms._buffer = TransformBuffer()
    for child, (parent, R, position) in tree.items():
        refusal = transforms._buffer.insert(S, parent, child, position, Rotation.from_matrix(R).as_quat(), static=True)
        assert not refusal
    return OpticalFrameCheck(transforms, Frames("map", odom, base, "", "")).check(frame)


def turned(x=0.0, y=0.0, z=0.0):
    return Rotation.from_euler("xyz", [x, y, z], degrees=True).as_matrix()


ROBOT = {
    "base_link": ("odom", turned(z=40), [1.0, 2.0, 0.0]),
    "camera_link": ("base_link", turned(y=10), [0.2, 0.0, 0.6]),
    "camera_color_frame": ("camera_link", turned(), [0.0, 0.015, 0.0]),
    "camera_color_optical_frame": ("camera_color_frame", OPTICAL, [0.0, 0.0, 0.0]),
}


@pytest.mark.parametrize("frame", ["camera_link", "camera_color_frame", "base_link"])
def test_a_body_with_an_optical_frame_in_tf_is_noticed_with_the_cure(frame):
    warning = check(frame, ROBOT)
    assert warning.startswith(f"{frame} is no optical frame") and "turned by 120 degrees" in warning
    assert warning.endswith("set camera_frame to camera_color_optical_frame")


def test_of_several_optical_frames_the_nearest_is_named():
    rear = {
        "rear_link": ("base_link", turned(z=180), [-0.3, 0.0, 0.6]),
        "rear_optical_frame": ("rear_link", OPTICAL, [0.0, 0.0, 0.0]),
        "top_link": ("base_link", turned(), [0.2, 0.0, 0.9]),
        "top_optical": ("top_link", OPTICAL, [0.0, 0.0, 0.0]),
    }
    assert check("camera_link", {**rear, **ROBOT}).endswith("set camera_frame to camera_color_optical_frame")
    assert check("rear_link", {**rear, **ROBOT}).endswith("set camera_frame to rear_optical_frame")


@pytest.mark.parametrize("base, odom", [("base_link", "odom"), ("", "odom"), ("base_link", "")])
def test_a_body_without_an_optical_frame_is_noticed_because_it_stands_upright(base, odom):
    tree = {name: ROBOT[name] for name in ("base_link", "camera_link")}
    warning = check("camera_link", tree, base, odom)
    assert warning.startswith("by TF, camera_link looks straight up") and "camera_frame" in warning


def test_optical_frames_are_right_whatever_their_names_and_directions():
    assert check("camera_color_optical_frame", ROBOT) == ""
    for angle in (0, 90, 180, 270):  # around the robot
        for tilt in (-45, 0, 45):
            camera = ("base_link", turned(z=angle) @ turned(y=tilt) @ OPTICAL, [0.1, 0.1, 0.5])
            assert check("camera", {**ROBOT, "camera": camera}) == "", (angle, tilt)
    floor = ("base_link", turned(y=90) @ OPTICAL, [0.1, 0.0, 0.5])
    assert check("camera", {**ROBOT, "camera": floor}) == ""
    assert check("camera", {}) == "" == check("", ROBOT), "TF knows nothing yet"


def test_a_frame_is_reported_once_and_again_looked_at_until_something_is_found(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(optical_frames.time, "monotonic", lambda: now[0])
    transforms = OwnTransforms.__new__(OwnTransforms)
    transforms._buffer = TransformBuffer()
    checked = OpticalFrameCheck(transforms, Frames("map", "odom", "", "", ""))
    assert checked.check("camera_link") == ""
    for child, (parent, R, position) in ROBOT.items():
        transforms._buffer.insert(S, parent, child, position, Rotation.from_matrix(R).as_quat(), static=True)
    assert checked.check("camera_link") == "", "once a second is enough"
    now[0] = 1.5
    assert "no optical frame" in checked.check("camera_link")
    now[0] = 4.0
    assert checked.check("camera_link") == "" and list(checked.warnings) == ["camera_link"]


def test_a_frame_about_which_nothing_is_found_is_looked_at_ever_less(monkeypatch):
    now, seen = [0.0], []
    monkeypatch.setattr(optical_frames.time, "monotonic", lambda: now[0])
    transforms = OwnTransforms.__new__(OwnTransforms)
    transforms.frame_names = lambda: seen.append(now[0]) or []
    checked = OpticalFrameCheck(transforms, Frames("map", "", "", "", ""))
    for now[0] in range(200):
        assert checked.check("camera") == ""
    assert seen == [0, 1, 3, 7, 15, 31, 63, 127, 191]


@pytest.mark.parametrize("text", ["{}", "[]", ""])
def test_names_are_found_in_the_list_of_tf2(text):
    assert _names_of_frames(text) == []
    listed = "camera_link: \n  parent: 'base_link'\n  broadcaster: 'default_authority'\n  rate: 10000.000\n  buffer_length: 0.000\n"
    listed += "base_link: \n  parent: 'odom'\n  rate: 20.000\n"
    assert _names_of_frames(listed) == ["base_link", "camera_link", "odom"]


def test_frames_are_named_without_the_slash_of_ros_1():
    assert [frame_name(name) for name in ("/map", "map", "", "/", "/robot/map")] == ["map", "map", "", "", "robot/map"]
    buffer = TransformBuffer()
    buffer.insert(S, "/map", "/odom", [0, 0, 0], [0, 0, 0, 1])
    assert buffer.frame_names() == ["map", "odom"]
