# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The transform buffer against closed forms, tf2's documented behaviour, and tf2 itself where installed;
composition of frames against sampled motions."""

import sys
import threading
import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nre_ros.geometry import covariance_of_frame, map_to_odom
from nre_ros.messages.transform_buffer import ConnectivityError, ExtrapolationError, FrameLookupError, TransformBuffer

SECOND = 10**9
START = 1_700_000_000 * SECOND  # as large as real stamps are: float seconds would lose nanoseconds
IDENTITY = [0.0, 0.0, 0.0, 1.0]


def motion(rng):
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    T[:3, 3] = rng.normal(size=3)
    return T


def insert(buffer, T, parent, child, stamp=START, static=False):
    return buffer.insert(stamp, parent, child, T[:3, 3], Rotation.from_matrix(T[:3, :3]).as_quat(), static)


def shift(x):
    T = np.eye(4)
    T[0, 3] = x
    return T


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_any_two_frames_of_a_tree_are_connected(rng):
    # map -> odom -> base -> camera, and base -> lidar: T_b_a through poses of all frames in the map
    parents = {"odom": "map", "base": "odom", "camera": "base", "lidar": "base"}
    poses = {frame: motion(rng) for frame in ("map", *parents)}
    buffer = TransformBuffer()
    for child, parent in parents.items():
        T_parent_child = np.linalg.inv(poses[parent]) @ poses[child]
        assert insert(buffer, T_parent_child, parent, child, static=child in ("camera", "lidar")) == ""
    for target in poses:
        for source in poses:
            expected = np.linalg.inv(poses[target]) @ poses[source]
            np.testing.assert_allclose(buffer.lookup(target, source, START), expected, atol=1e-12)


def test_between_two_stamps_motion_is_linear_and_rotation_uniform():
    axis = np.array([0.36, 0.48, 0.8])
    buffer = TransformBuffer()
    for stamp, angle, x in ((0, 0.3, 1.0), (SECOND, 1.7, 5.0)):
        T = shift(x)
        T[:3, :3] = Rotation.from_rotvec(angle * axis).as_matrix()
        insert(buffer, T, "odom", "base", START + stamp)
    for nanoseconds in (1, 250_000_000, 999_999_999):
        part = nanoseconds / SECOND
        T = buffer.lookup("odom", "base", START + nanoseconds)
        assert T[0, 3] == pytest.approx(1 + 4 * part, abs=1e-12)
        rotation = Rotation.from_matrix(T[:3, :3]).as_rotvec()
        np.testing.assert_allclose(rotation, (0.3 + 1.4 * part) * axis, atol=1e-9)


def test_rotation_is_interpolated_by_the_smaller_angle_whatever_the_sign_of_the_quaternion():
    buffer = TransformBuffer()
    buffer.insert(START, "odom", "base", [0, 0, 0], IDENTITY)
    buffer.insert(START + SECOND, "odom", "base", [0, 0, 0], -Rotation.from_rotvec([0, 0, 0.4]).as_quat())
    T = buffer.lookup("odom", "base", START + SECOND // 2)
    np.testing.assert_allclose(Rotation.from_matrix(T[:3, :3]).as_rotvec(), [0, 0, 0.2], atol=1e-12)


def test_transforms_may_arrive_out_of_order():
    buffer = TransformBuffer()
    for second in (3, 1, 2, 0):
        insert(buffer, shift(float(second**2)), "odom", "base", START + second * SECOND)
    assert buffer.lookup("odom", "base", START + 1_500_000_000)[0, 3] == pytest.approx(2.5)


def test_of_two_transforms_at_one_stamp_the_later_counts_and_nothing_grows():
    buffer = TransformBuffer()
    for x in range(1000):
        insert(buffer, shift(float(x)), "odom", "base")
    assert buffer.lookup("odom", "base", START)[0, 3] == 999
    assert len(buffer._histories["base"].entries) == 1


def test_nothing_is_extrapolated():
    buffer = TransformBuffer()
    insert(buffer, shift(1.0), "odom", "base", START)
    with pytest.raises(ExtrapolationError, match="at time 1700000001.000000, but only time 1700000000.000000"):
        buffer.lookup("odom", "base", START + SECOND)
    insert(buffer, shift(2.0), "odom", "base", START + SECOND)
    words = (
        "extrapolation into the future.  Requested time 1700000001.500000 but the latest data is at time "
        r"1700000001.000000, when looking up transform from frame \[base\] to frame \[odom\]"
    )
    with pytest.raises(ExtrapolationError, match=words):
        buffer.lookup("odom", "base", START + 1_500_000_000)
    with pytest.raises(ExtrapolationError, match="into the past.  Requested time 1699999999.999999 but the earliest"):
        buffer.lookup("odom", "base", START - 1)
    with pytest.raises(ExtrapolationError, match=r"from frame \[odom\] to frame \[base\]"):
        buffer.lookup("base", "odom", START - 1)
    np.testing.assert_array_equal(buffer.lookup("odom", "base", START), shift(1.0))


def test_unknown_frames_and_bad_names_are_named():
    buffer = TransformBuffer()
    insert(buffer, shift(1.0), "odom", "base")
    with pytest.raises(FrameLookupError, match='"base_link" passed to lookupTransform argument source_frame does not'):
        buffer.lookup("odom", "base_link", START)
    with pytest.raises(FrameLookupError, match='"map" passed to lookupTransform argument target_frame does not exist'):
        buffer.lookup("map", "base", START)
    with pytest.raises(FrameLookupError, match="frame_ids cannot be empty"):
        buffer.lookup("", "base", START)
    with pytest.raises(FrameLookupError, match="cannot start with a '/'"):
        buffer.lookup("odom", "/base", START)


def test_two_trees_are_not_connected():
    buffer = TransformBuffer()
    insert(buffer, shift(1.0), "odom", "base")
    insert(buffer, shift(1.0), "rig", "camera", static=True)
    for stamp in (START, 0):
        with pytest.raises(ConnectivityError, match="'odom' and 'camera' because they are not part of the same tree"):
            buffer.lookup("odom", "camera", stamp)


def test_a_loop_is_an_error_not_a_hang():
    buffer = TransformBuffer()
    insert(buffer, shift(1.0), "a", "b")
    insert(buffer, shift(1.0), "b", "a")
    insert(buffer, shift(1.0), "d", "c")
    for stamp in (START, 0):
        with pytest.raises(FrameLookupError, match="loop"):
            buffer.lookup("c", "a", stamp)


def test_a_frame_to_itself_is_the_identity_even_if_unknown():
    np.testing.assert_array_equal(TransformBuffer().lookup("nowhere", "nowhere", START), np.eye(4))


def test_static_transforms_hold_at_all_times_and_are_replaced():
    buffer = TransformBuffer()
    insert(buffer, shift(1.0), "base", "camera", START, static=True)
    for stamp in (1, START, START + 3600 * SECOND):
        assert buffer.lookup("base", "camera", stamp)[0, 3] == 1.0
    insert(buffer, shift(2.0), "base", "camera", START - SECOND, static=True)
    assert buffer.lookup("base", "camera", START)[0, 3] == 2.0


def test_time_zero_is_the_latest_common_time():
    buffer = TransformBuffer()
    insert(buffer, shift(100.0), "base", "camera", START, static=True)
    for second in range(5):
        insert(buffer, shift(float(second)), "odom", "base", START + second * SECOND)
    for second in range(3):
        insert(buffer, shift(10.0 * second), "map", "odom", START + second * SECOND)
    assert buffer.lookup("odom", "camera", 0)[0, 3] == 104
    assert buffer.lookup("map", "camera", 0)[0, 3] == 122  # the one at 2 s: map -> odom has no newer


def test_ten_seconds_are_kept():
    buffer = TransformBuffer()
    for second in range(15):
        insert(buffer, shift(float(second)), "odom", "base", START + second * SECOND)
    assert buffer.lookup("odom", "base", START + 4 * SECOND)[0, 3] == 4
    with pytest.raises(ExtrapolationError, match="earliest data is at time 1700000004.000000"):
        buffer.lookup("odom", "base", START + 4 * SECOND - 1)
    assert insert(buffer, shift(0.0), "odom", "base", START + 3 * SECOND).startswith("TF_OLD_DATA")


def test_clearing_keeps_static_transforms_and_lets_time_start_again():
    buffer = TransformBuffer()
    insert(buffer, shift(1.0), "odom", "base", START)
    insert(buffer, shift(1.0), "base", "camera", START, static=True)
    buffer.clear()
    assert buffer.lookup("base", "camera", START)[0, 3] == 1.0
    with pytest.raises((ExtrapolationError, ConnectivityError)):
        buffer.lookup("odom", "base", START)
    assert insert(buffer, shift(7.0), "odom", "base", START - 1000 * SECOND) == ""
    assert buffer.lookup("odom", "camera", START - 1000 * SECOND)[0, 3] == 8.0


@pytest.mark.parametrize(
    "parent, child, position, quaternion, code",
    [
        ("odom", "base", [float("nan"), 0, 0], IDENTITY, "TF_NAN_INPUT"),
        ("odom", "base", [0, 0, 0], [0, float("nan"), 0, 1], "TF_NAN_INPUT"),
        ("odom", "base", [0, 0, 0], [0, 0, 0, 0], "TF_DENORMALIZED_QUATERNION"),
        ("odom", "base", [0, 0, 0], [0, 0, 0, 1.01], "TF_DENORMALIZED_QUATERNION"),
        ("base", "base", [0, 0, 0], IDENTITY, "TF_SELF_TRANSFORM"),
        ("/base", "base", [0, 0, 0], IDENTITY, "TF_SELF_TRANSFORM"),
        ("odom", "", [0, 0, 0], IDENTITY, "TF_NO_CHILD_FRAME_ID"),
        ("", "base", [0, 0, 0], IDENTITY, "TF_NO_FRAME_ID"),
    ],
)
def test_what_tf2_ignores_is_ignored_and_reported(parent, child, position, quaternion, code):
    buffer = TransformBuffer()
    insert(buffer, shift(1.0), "odom", "base")
    refusal = buffer.insert(START, parent, child, position, quaternion)
    assert refusal.startswith(code) and "\n" not in refusal
    assert buffer.lookup("odom", "base", START)[0, 3] == 1.0


def test_a_quaternion_within_the_tolerance_is_normalised():
    buffer = TransformBuffer()
    assert buffer.insert(START, "/odom", "base", [0, 0, 0], [0, 0, 0, 1.004]) == ""
    np.testing.assert_allclose(buffer.lookup("odom", "base", START), np.eye(4))


def test_a_waiting_thread_is_woken_by_an_insertion():
    buffer, woken = TransformBuffer(), threading.Event()

    def wait():
        with buffer.changed:
            if buffer.changed.wait(10):
                woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not woken.is_set() and thread.is_alive():
        insert(buffer, shift(1.0), "odom", "base")
        time.sleep(0.01)
    thread.join()
    assert woken.is_set()


@pytest.mark.parametrize(
    "content, fault",
    [(None, ""), ("import libtf2_none", "No module named 'libtf2_none'"), ("1 / 0", "division by zero")],
)
def test_a_broken_tf2_ros_is_told_from_an_absent_one(monkeypatch, tmp_path, content, fault):
    from nre_ros.node.tf import _import_tf2

    monkeypatch.delitem(sys.modules, "tf2_ros", raising=False)
    if content is None:
        monkeypatch.setattr(sys, "path", [])
    else:
        (tmp_path / "tf2_ros.py").write_text(content)
        monkeypatch.syspath_prepend(str(tmp_path))
    module, found = _import_tf2()
    assert module is None and fault in found and bool(found) == bool(fault)


def test_random_trees_agree_with_tf2(rng):
    tf2_ros = pytest.importorskip("tf2_ros", reason="needs tf2_ros, which comes with a ROS installation only")
    from rclpy.time import Time

    from nre_ros.node.conversions import matrix_of_transform, transform_message

    errors = {
        tf2_ros.LookupException: FrameLookupError,
        tf2_ros.ConnectivityException: ConnectivityError,
        tf2_ros.ExtrapolationException: ExtrapolationError,
    }
    frames = [f"frame{i}" for i in range(8)]
    theirs, ours = tf2_ros.Buffer(), TransformBuffer()
    for child in range(1, len(frames)):
        parent, static = int(rng.integers(child)), bool(rng.random() < 0.3)
        if child == 5:
            continue  # leaves its subtree unconnected
        for _ in range(1 if static else 20):
            T, stamp = motion(rng), START + int(rng.integers(12 * SECOND))
            message = transform_message(T, frames[parent], frames[child], stamp)
            (theirs.set_transform_static if static else theirs.set_transform)(message, "test")
            insert(ours, T, frames[parent], frames[child], stamp, static)
    for _ in range(500):
        target, source = rng.choice(frames, 2)
        stamp = 0 if rng.random() < 0.1 else START + int(rng.integers(14 * SECOND))
        try:
            expected = matrix_of_transform(theirs.lookup_transform(target, source, Time(nanoseconds=stamp)).transform)
        except tuple(errors) as error:
            with pytest.raises(errors[type(error)]):
                ours.lookup(target, source, stamp)
        else:
            np.testing.assert_allclose(ours.lookup(target, source, stamp), expected, atol=1e-6)


# --- composition of frames ----------------------------------------------------------------------


def test_map_to_odom_closes_the_chain(rng):
    T_map_cam, T_odom_base, T_base_cam = motion(rng), motion(rng), motion(rng)
    T_map_odom = map_to_odom(T_map_cam, T_odom_base @ T_base_cam)
    np.testing.assert_allclose(T_map_odom @ T_odom_base @ T_base_cam, T_map_cam, atol=1e-12)


def test_covariance_of_a_mounted_frame_is_the_spread_of_its_samples(rng):
    """Camera poses drawn from the covariance; the base is carried along, its scatter measured."""
    T_map_cam, T_cam_base = motion(rng), motion(rng)
    root = rng.normal(size=(6, 6)) * 0.01
    covariance = root @ root.T
    draws = rng.multivariate_normal(np.zeros(6), covariance, size=200_000)
    rotation = Rotation.from_rotvec(draws[:, 3:])
    arm = T_map_cam[:3, :3] @ T_cam_base[:3, 3]
    centres = T_map_cam[:3, 3] + draws[:, :3] + rotation.apply(arm)
    scatter = np.cov(np.hstack([centres, draws[:, 3:]]).T)
    predicted = covariance_of_frame(covariance, T_map_cam, T_cam_base)
    np.testing.assert_allclose(predicted, scatter, atol=0.02 * np.abs(scatter).max())
    np.testing.assert_allclose(predicted, predicted.T)
