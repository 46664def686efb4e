# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The managed node: what exists in each state, by the services of a lifecycle manager."""

import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
pytest.importorskip("nre_ros.msg", reason="needs the generated messages: make setup or colcon")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nre_ros.srv import LoadMap, Relocalize
from ros_process import TIMEOUT, NodeProcess, Robot, assert_pose, camera_info, raw_image
from std_srvs.srv import Trigger

from nre_ros.node.conversions import matrix_of_pose


@pytest.fixture
def managed(tmp_path):
    """managed(parameter=value, ...): a node that waits for a manager, and a robot that may be the manager."""
    opened = []

    def start(**parameters):
        node = NodeProcess(tmp_path, "-r", "__ns:=/managed", autostart=False, **parameters)
        robot = Robot("/managed")
        opened.extend((node, robot))
        return node, robot

    yield start
    for each in reversed(opened):
        each.__exit__()


def change(robot, transition) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return robot.call(ChangeState, "change_state", request).success


def state(robot) -> str:
    return robot.call(GetState, "get_state", GetState.Request()).current_state.label


def inputs(robot) -> int:
    """Number of subscriptions of the node to images and camera_info."""
    return sum(robot.node.count_subscribers(robot.node.resolve_topic_name(name)) for name in ("image", "camera_info"))


def test_all_transitions_twice(world, managed):
    node, robot = managed(map_file=world.map_file)
    assert state(robot) == "unconfigured"
    assert not robot.node.count_publishers("/managed/pose") and not inputs(robot)
    for _ in range(2):
        assert change(robot, Transition.TRANSITION_CONFIGURE) and state(robot) == "inactive"
        assert not inputs(robot), "it listens when it is active, not before"
        refused = robot.localize_image(raw_image(world.image, 0), camera_info())
        assert refused.reason == "the node is not active"

        for _ in range(2):
            assert change(robot, Transition.TRANSITION_ACTIVATE) and state(robot) == "active"
            robot.wait_connected()
            status = robot.ask(raw_image(world.image, robot.now()))
            assert_pose(matrix_of_pose(status.pose.pose), world.T_map_cam)
            at_work = resident(node.process.pid)
            assert change(robot, Transition.TRANSITION_DEACTIVATE) and state(robot) == "inactive"
            assert resident(node.process.pid) < at_work - 20e6, "what the images used is the system's again"
            assert not inputs(robot)
            time.sleep(0.3)  # what was on its way
            heard = len(robot.statuses), len(robot.poses), len(robot.transforms)
            robot.publish(raw_image(world.image, robot.now()))
            time.sleep(0.5)
            assert heard == (len(robot.statuses), len(robot.poses), len(robot.transforms))

        assert str(world.map_file) in open_files(node.process.pid)
        assert change(robot, Transition.TRANSITION_CLEANUP) and state(robot) == "unconfigured"
        for topic in ("pose", "pose_with_covariance", "status", "path", "debug_image"):
            assert not robot.node.count_publishers(f"/managed/{topic}"), topic
        assert not robot.node.create_client(Trigger, "localize_node/clear").wait_for_service(0.2)
        assert str(world.map_file) not in open_files(node.process.pid)
    assert node.stop() == 0
    assert "Traceback" not in node.output


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> list[str]:
    return [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd") if os.path.lexists(entry.path)]


def test_a_failed_configure_is_reported_and_can_be_repeated(world, tmp_path, managed):
    node, robot = managed(map_file=tmp_path / "none.db")
    assert not change(robot, Transition.TRANSITION_CONFIGURE) and state(robot) == "unconfigured"
    told = [line for line in node.output.splitlines() if "ERROR" in line]
    assert len(told) == 1 and f"map {tmp_path / 'none.db'} does not exist" in told[0]
    # a parameter that is read by configuring may be set before it, not after
    assert robot.set_parameter("map_file", str(world.map_file)).successful
    assert not robot.set_parameter("device", "tpu").successful
    assert change(robot, Transition.TRANSITION_CONFIGURE)
    answer = robot.set_parameter("map_file", "other.db")
    assert not answer.successful and "clean it up first" in answer.reason
    assert change(robot, Transition.TRANSITION_ACTIVATE)
    assert robot.wait_connected().ask(raw_image(world.image, robot.now())).pose_valid
    assert node.stop() == 0


def test_invalid_transitions_are_refused(world, managed):
    node, robot = managed(map_file=world.map_file)
    for wrong in (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_CLEANUP, 99):
        assert not change(robot, wrong) and state(robot) == "unconfigured"
    assert change(robot, Transition.TRANSITION_CONFIGURE)
    assert not change(robot, Transition.TRANSITION_CONFIGURE) and state(robot) == "inactive"
    assert change(robot, Transition.TRANSITION_INACTIVE_SHUTDOWN) and state(robot) == "finalized"
    assert node.process.poll() is None
    assert node.stop() == 0


def test_calls_that_wait_for_a_pose_are_answered_at_shutdown(world, managed):
    node, robot = managed(map_file=world.map_file)
    assert change(robot, Transition.TRANSITION_CONFIGURE) and change(robot, Transition.TRANSITION_ACTIVATE)
    client = robot.node.create_client(Relocalize, "localize_node/relocalize")
    assert client.wait_for_service(TIMEOUT)
    waiting = [client.call_async(Relocalize.Request(timeout=60.0)) for _ in range(2)]
    for _ in waiting:  # rclpy takes one request of each service a turn, those of ~/clear after those of ~/relocalize
        robot.call(Trigger, "clear", Trigger.Request())
    assert change(robot, Transition.TRANSITION_ACTIVE_SHUTDOWN) and state(robot) == "finalized"
    for call in waiting:
        answer = robot.answer(call)
        assert not answer.success and "not active any more" in answer.message
    end = time.monotonic() + TIMEOUT
    while client.service_is_ready() and time.monotonic() < end:  # discovery takes a moment
        time.sleep(0.1)
    assert not client.service_is_ready() and node.process.poll() is None
    assert node.stop() == 0 and "Traceback" not in node.output


def test_a_map_that_cannot_be_loaded_while_inactive_ends_nothing(world, managed):
    _, robot = managed(map_file=world.map_file)
    assert change(robot, Transition.TRANSITION_CONFIGURE)
    for name in (300 * "x", "/proc/self/mem", ""):
        answer = robot.call(LoadMap, "load_map", LoadMap.Request(map_file=name))
        assert not answer.success and answer.message and "\n" not in answer.message, name
    answer = robot.call(LoadMap, "load_map", LoadMap.Request(map_file=str(world.map_file)))
    assert answer.success
    assert change(robot, Transition.TRANSITION_ACTIVATE)
    robot.wait_connected()
    assert robot.ask(raw_image(world.image, robot.now())).pose_valid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_in_every_state(world, managed, number):
    node, robot = managed(map_file=world.map_file)
    assert state(robot) == "unconfigured"
    client = robot.node.create_client(ChangeState, "localize_node/change_state")
    client.call_async(ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE)))
    node.wait_for("loading")  # in the middle of the transition
    assert node.stop(number) == 0
    assert "Traceback" not in node.output, node.output


def test_several_cameras_need_to_know_where_they_are(world, managed):
    node, robot = managed(map_file=world.map_file, cameras="[front, rear]")
    assert not change(robot, Transition.TRANSITION_CONFIGURE)
    assert "2 cameras need the parameter base_frame" in node.output
    assert robot.set_parameter("cameras", ["front", "front"]).successful
    assert not change(robot, Transition.TRANSITION_CONFIGURE)
    assert "names one twice" in node.output
    for names in (["front", "rear cam"], ["9"]):
        assert robot.set_parameter("cameras", names).successful
        assert not change(robot, Transition.TRANSITION_CONFIGURE)
    assert "'rear cam' cannot be part of a topic's name" in node.output and "Traceback" not in node.output
