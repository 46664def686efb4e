# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bags through DDS to the node, in processes of their own: the real kitchen, and the synthetic room."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import pose_error, pose_matrix
from nre_ros.messages.bag import open_bag
from nre_ros.replay.bag import find_topics, read_truth
from nre_ros.replay.report import figures, pose_of
from nre_ros.replay.session import read_session, run_session

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")


@pytest.fixture(scope="module")
def kitchen(shared):
    return shared / "data/kitchen"


@pytest.fixture(scope="module")
def kitchen_session(kitchen, tmp_path_factory):
    """The kitchen's bag to a node with the RGB-D map of the other half of the walk.

    At half its speed: a slow machine shall take enough images.
    """
    folder = tmp_path_factory.mktemp("kitchen")
    map_file = folder / "kitchen.db"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "nre_ros",
            "map",
            "build",
            "rgbd",
            "--images",
            kitchen / "images",
            "--depth",
            kitchen / "depth",
            "--poses",
            kitchen / "map_poses.txt",
            "--list",
            kitchen / "map.txt",
            "--camera",
            kitchen / "sparse/cameras.txt",
            "-o",
            map_file,
        ],
        check=True,
        timeout=600,
    )
    return run_session(map_file, kitchen / "bag", find_topics(kitchen / "bag"), folder, rate=0.5, progress=False)


def test_every_image_that_the_node_takes_gets_a_pose_or_a_reason(kitchen_session):
    assert len(kitchen_session.sent) == 250
    assert len(kitchen_session.statuses) >= 10
    stamps = [status["stamp"] for status in kitchen_session.statuses]
    assert stamps == sorted(set(stamps)) and set(stamps) <= set(kitchen_session.sent)
    assert all(status["success"] or status["reason"] for status in kitchen_session.statuses)
    posed = [status["stamp"] for status in kitchen_session.statuses if status["success"]]
    assert [pose["stamp"] for pose in kitchen_session.poses] == posed


def test_kitchen_poses_are_true(kitchen, kitchen_session):
    """Of the images with ground truth: 95% posed, median within 1.5 cm and 0.5 degrees."""
    result = figures(kitchen_session, read_truth(kitchen / "bag", "/ground_truth"))
    assert result.with_truth >= 3
    assert result.posed_with_truth >= 0.95 * result.with_truth
    assert np.median(result.position_errors) <= 0.015
    assert np.degrees(np.median(result.rotation_errors)) <= 0.5


def odometry(bag):
    """The bag's odom -> camera at a stamp: TF interpolated by SciPy, times the static mount."""
    stamps, positions, quaternions, mount = [], [], [], np.eye(4)
    with open_bag(bag) as reader:
        for connection, _, raw in reader.messages():
            if connection.topic not in ("/tf", "/tf_static"):
                continue
            for t in reader.deserialize(raw, connection.msgtype).transforms:
                p, q = t.transform.translation, t.transform.rotation
                if connection.topic == "/tf_static":
                    mount = mount @ pose_matrix([p.x, p.y, p.z], [q.x, q.y, q.z, q.w])
                else:
                    stamps.append(t.header.stamp.sec * 10**9 + t.header.stamp.nanosec)
                    positions.append([p.x, p.y, p.z])
                    quaternions.append([q.x, q.y, q.z, q.w])
    seconds = (np.array(stamps) - stamps[0]) / 1e9
    slerp = Slerp(seconds, Rotation.from_quat(quaternions))

    def T_odom_cam(stamp):
        now = (stamp - stamps[0]) / 1e9
        position = [np.interp(now, seconds, axis) for axis in np.transpose(positions)]
        return pose_matrix(position, slerp(now).as_quat()) @ mount

    return T_odom_cam


def test_map_to_odom_and_the_bags_odometry_give_the_same_pose(kitchen, kitchen_session):
    T_odom_cam = odometry(kitchen / "bag")
    statuses = [status for status in kitchen_session.statuses if status["success"]]
    compared = 0
    for status, following in zip(statuses, statuses[1:]):
        # rebroadcast on a timer: the one heard between this image's status and the next image's
        begin, end = status["monotonic"] + 0.01, following["monotonic"] - 0.05
        heard = [t for t in kitchen_session.transforms if begin < t["monotonic"] < end and t["child"] == "odom"]
        if heard:
            composed = pose_of(heard[0]) @ T_odom_cam(status["stamp"])
            distance, angle = pose_error(composed, pose_of(status))
            assert distance < 1e-6 and angle < 1e-6
            compared += 1
    assert compared >= 0.7 * (len(statuses) - 1)


def test_demo_runs_and_is_exact(tmp_path):
    """The whole demo, small: it prints its table, writes its picture, and the poses are right."""
    demo = subprocess.run(
        [sys.executable, "-m", "nre_ros", "demo", "-o", tmp_path, "--keyframes", "40", "--duration", "8"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert demo.returncode == 0, demo.stderr
    for row in ("images sent", "received", "posed", "position error", "image to pose", "the node sustains"):
        assert row in demo.stdout
    assert (tmp_path / "replay/replay.png").stat().st_size > 20_000
    truth = read_truth(tmp_path / "bag", "/ground_truth")
    result = figures(read_session(tmp_path / "replay"), truth)
    assert result.sent == len(truth) == 121
    # the first one waits for another that agrees
    assert result.posed >= 0.9 * (result.answered - 1) > 0
    assert np.median(result.position_errors) < 0.02 and np.degrees(np.median(result.rotation_errors)) < 0.5


def test_a_bag_without_the_topic_says_what_it_has(kitchen):
    with pytest.raises(ImportSourceError, match="no image topic /front; it has: .*/camera/color/image_raw/compressed"):
        find_topics(kitchen / "bag", image="/front")


def test_what_is_no_bag_is_refused(tmp_path):
    with pytest.raises(ImportSourceError, match="does not exist"):
        find_topics(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportSourceError, match="cannot be read"):
        find_topics(tmp_path / "empty")


def test_a_session_whose_node_cannot_start_says_why(tmp_path, kitchen):
    from nre_ros.errors import NreError

    with pytest.raises(NreError, match="none.db"):
        run_session(tmp_path / "none.db", kitchen / "bag", find_topics(kitchen / "bag"), tmp_path, progress=False)
