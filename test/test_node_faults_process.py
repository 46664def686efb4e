# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Faults around the process: its map file, its memory, a subscriber that does not read, its own end."""

import shutil
import signal
import time

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from nre_ros.msg import LocalizationStatus
from nre_ros.srv import LoadMap
from rclpy.qos import QoSProfile
from ros_process import NodeProcess, Robot, assert_pose, jpeg_image

from nre_ros.node.conversions import matrix_of_pose


def assert_posed(world, robot):
    stamp = robot.now()
    robot.publish_odometry(np.eye(4), stamp)
    status = robot.ask(jpeg_image(world.image, stamp))
    assert status.pose_valid and status.reason == "", status.reason
    assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)


@pytest.mark.parametrize("what", ["deleted", "replaced", "overwritten"])
def test_the_map_file_is_replaced_while_the_node_runs(world, start, tmp_path, what):
    """The open file stays usable; one that was overwritten in place is reported and loaded anew."""
    path = tmp_path / "map.db"
    shutil.copy(world.map_file, path)
    node, robot = start(map_file=path)
    assert_posed(world, robot)
    if what == "deleted":
        path.unlink()
        assert_posed(world, robot)
    elif what == "replaced":
        (tmp_path / "new.db").write_bytes(b"no map at all")
        (tmp_path / "new.db").replace(path)
        assert_posed(world, robot)
    else:
        path.write_bytes(b"no map at all")
        status = robot.ask(jpeg_image(world.image, robot.now()))
        assert status.pose_valid or str(path) in status.reason
        refused = robot.call(LoadMap, "load_map", LoadMap.Request(map_file=str(path)))
        assert not refused.success and str(path) in refused.message
    shutil.copy(world.map_file, tmp_path / "again.db")
    assert robot.call(LoadMap, "load_map", LoadMap.Request(map_file=str(tmp_path / "again.db"))).success
    assert_posed(world, robot)
    assert "Traceback" not in node.output and node.stop() == 0


SHORT_OF_MEMORY = """
import sys
from nre_ros.localization import localizer
from nre_ros.node.localize_node import main

localize = localizer.Localizer.localize

def with_room_for_two(self, image, camera, prior=None, *, retrieve, **options):
    if retrieve > 2:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    return localize(self, image, camera, prior, retrieve=retrieve, **options)

localizer.Localizer.localize = with_room_for_two
localizer.Localizer.warm_up = lambda self: None
sys.exit(main())
"""


def test_out_of_memory_the_estimator_uses_fewer_keyframes_and_reports_it(world, tmp_path):
    command = ("-c", SHORT_OF_MEMORY)
    with NodeProcess(tmp_path, "-r", "__ns:=/small", command=command, map_file=world.map_file) as node:
        with Robot("/small") as robot:
            node.wait_ready()
            robot.wait_connected()
            stamp = robot.now()
            robot.publish_odometry(np.eye(4), stamp)
            status = robot.ask(jpeg_image(world.image, stamp))
            assert status.pose_valid and len(status.keyframes_used) == 2
            assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
            assert "out of memory on cpu: 2 of 5 keyframes an image" in node.output
            assert_posed(world, robot)
        assert node.stop() == 0 and "Traceback" not in node.output


def test_a_subscriber_that_never_reads_blocks_nothing(world, start):
    _, robot = start()
    context = rclpy.Context()
    rclpy.init(context=context)
    sleeper = rclpy.create_node("sleeper", context=context)  # nobody spins it
    for kind, topic in ((PoseStamped, "pose"), (LocalizationStatus, "status")):
        sleeper.create_subscription(
            kind, robot.node.resolve_topic_name(topic), lambda message: None, QoSProfile(depth=1)
        )
    time.sleep(0.5)
    for _ in range(6):
        assert_posed(world, robot)
    sleeper.destroy_node()
    context.shutdown()


def test_a_node_that_was_killed_continues_from_its_last_pose(world, tmp_path):
    """In the middle of a bag: the second process continues with the TF and images of then."""
    file = tmp_path / "last.json"
    given = dict(map_file=world.map_file, last_pose_file=file)
    with Robot("/phoenix") as robot:
        with NodeProcess(tmp_path, "-r", "__ns:=/phoenix", **given) as node:
            node.wait_ready()
            robot.wait_connected()
            assert_posed(world, robot)
            assert robot.wait(file.exists), "it is written soon after the pose, not at the end"
            dead = robot.listeners()
            assert node.stop(signal.SIGKILL) == -signal.SIGKILL
        robot.transforms.clear()
        with NodeProcess(tmp_path, "-r", "__ns:=/phoenix", **{**given, "first_fixes": 50}) as node:
            node.wait_ready()
            robot.wait_connected(besides=dead)
            assert_posed(world, robot)
            assert robot.wait(lambda: robot.transforms)
            assert node.stop() == 0
