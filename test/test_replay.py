# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Bags played over DDS to the node, in processes of their own: the real kitchen, and the demo's room."""

import os
import subprocess
import sys

import numpy as np
import pytest
from child_process import child_process
from PIL import Image
from scipy.spatial.transform import Rotation, Slerp

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import pose_error, pose_matrix
from nre_ros.messages.bag import open_bag
from nre_ros.replay.bag import find_topics, read_ground_truth, read_images
from nre_ros.replay.session import read_session, run_session
from nre_ros.replay.summary import recorded_pose, summarize

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")


@pytest.fixture(scope="module")
def kitchen(shared):
    return shared / "data/kitchen"


@pytest.fixture(scope="module")
def kitchen_session(kitchen, tmp_path_factory):
    """The kitchen's bag, played to a node with the RGB-D map of the other half of the walk.

    It is played at half speed, so that a slow machine processes enough images.
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


def test_every_image_that_the_node_processes_gets_a_pose_or_a_reason(kitchen_session):
    assert len(kitchen_session.sent) == 250
    assert len(kitchen_session.statuses) >= 10
    stamps = [status["stamp"] for status in kitchen_session.statuses]
    assert stamps == sorted(set(stamps)) and set(stamps) <= set(kitchen_session.sent)
    assert all(status["success"] or status["reason"] for status in kitchen_session.statuses)
    localized = [status["stamp"] for status in kitchen_session.statuses if status["success"]]
    assert [pose["stamp"] for pose in kitchen_session.poses] == localized


def test_kitchen_poses_agree_with_the_ground_truth(kitchen, kitchen_session):
    """Of the images with ground truth 95 % are localized, and the medians are within 1.5 cm and 0.5 degrees."""
    summary = summarize(kitchen_session, read_ground_truth(kitchen / "bag", "/ground_truth"))
    assert summary.with_ground_truth >= 3
    assert len(summary.position_errors) >= 0.95 * summary.with_ground_truth
    assert np.median(summary.position_errors) <= 0.015
    assert np.degrees(np.median(summary.rotation_errors)) <= 0.5


def odometry(bag):
    """A function stamp -> T_odom_cam [4, 4] of the bag: TF interpolated by SciPy, times the static mount."""
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
        # rebroadcast on a timer: the transform received between this image's status and the next image's
        begin, end = status["monotonic"] + 0.01, following["monotonic"] - 0.05
        received = [t for t in kitchen_session.transforms if begin < t["monotonic"] < end and t["child"] == "odom"]
        if received:
            composed = recorded_pose(received[0]) @ T_odom_cam(status["stamp"])
            distance, angle = pose_error(composed, recorded_pose(status))
            assert distance < 1e-6 and angle < 1e-6
            compared += 1
    assert compared >= 0.7 * (len(statuses) - 1)


def test_the_demo_prints_its_table_writes_its_pictures_and_its_poses_are_right(tmp_path):
    demo = subprocess.run(
        [sys.executable, "-m", "nre_ros", "demo", "-o", tmp_path, "--keyframes", "40", "--duration", "8", "--animate"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert demo.returncode == 0, demo.stderr
    for row in (
        "images sent",
        "images received",
        "images localized",
        "position error",
        "time from image to pose",
        "possible rate",
    ):
        assert row in demo.stdout
    assert (tmp_path / "replay/replay.png").stat().st_size > 20_000
    ground_truth = read_ground_truth(tmp_path / "bag", "/ground_truth")
    summary = summarize(read_session(tmp_path / "replay"), ground_truth)
    assert summary.sent == len(ground_truth) == 121
    # the gate accepts no first pose before a second one agrees with it
    assert summary.localized >= 0.9 * (summary.processed - 1) > 0
    assert np.median(summary.position_errors) < 0.02 and np.degrees(np.median(summary.rotation_errors)) < 0.5
    with Image.open(tmp_path / "replay/replay.gif") as animation:
        # successive frames that look alike are one
        assert animation.width == 800 and 0.5 * summary.localized < animation.n_frames <= summary.localized


def test_the_error_about_a_missing_topic_lists_the_topics_of_the_bag(kitchen):
    with pytest.raises(ImportSourceError, match="no image topic /front; it has: .*/camera/color/image_raw/compressed"):
        find_topics(kitchen / "bag", image="/front")


def test_a_path_that_is_no_bag_is_refused(tmp_path):
    with pytest.raises(ImportSourceError, match="does not exist"):
        find_topics(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportSourceError, match="is no bag: it has neither metadata.yaml nor"):
        find_topics(tmp_path / "empty")


def test_a_session_whose_node_cannot_start_reports_the_reason(tmp_path, kitchen):
    from nre_ros.errors import NreError

    with pytest.raises(NreError, match="none.db"):
        run_session(tmp_path / "none.db", kitchen / "bag", find_topics(kitchen / "bag"), tmp_path, progress=False)


SESSION_THAT_WAITS = """
import sys, time
from nre_ros.replay import session
from nre_ros.replay.bag import BagTopics

def wait(child, text):
    print(child.process.pid, flush=True)
    time.sleep(60)

session._ChildProcess.wait_for = wait
session.run_session("none.db", "bag", BagTopics("image", False, "camera_info", "", 1), sys.argv[1], progress=False)
"""


def test_a_session_that_is_ended_by_sigterm_leaves_no_process_behind(tmp_path, ros_environment):
    command = [sys.executable, "-c", SESSION_THAT_WAITS, str(tmp_path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with child_process(command, env=ros_environment, **pipes) as running:
        child = int(running.stdout.readline())
        running.terminate()
        assert running.wait(60)
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_images_are_read_by_their_stamps(kitchen):
    topics = find_topics(kitchen / "bag")
    stamps = sorted(read_ground_truth(kitchen / "bag", topics.ground_truth))[:3]
    images = dict(read_images(kitchen / "bag", topics.image, set(stamps[::2])))
    assert list(images) == stamps[::2]
    assert all(image.shape == (480, 640, 3) for image in images.values())
