# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What several tests need: the data beside the repository, and ROS apart from everyone else's."""

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from domain_lock import DomainLock
from time_limits import pytest_unconfigure  # noqa: F401 - a hook of pytest

ROOT = Path(__file__).resolve().parents[1]
FILES_WITH_NODES = ("test_node", "test_replay", "test_launch", "test_camera_input")


def pytest_configure(config):
    """Tests that use rclpy in pytest's own process neither hear nor disturb another ROS system."""
    config.addinivalue_line("markers", "packaging: builds the package through one of its front doors (slow)")
    os.environ.update(_isolation(DomainLock()))  # locked until the process ends
    from nre_ros.process import prepare
    from nre_ros.ros_environment import set_prefix_path

    prepare()
    set_prefix_path()


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which need not be installed
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file stay in one process, and so do all tests that wait for nodes.

    Two nodes at the same time would share two cores, and localize less often than these tests expect.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            name = Path(nodeid.partition("::")[0]).stem
            return "nodes" if name.startswith(FILES_WITH_NODES) else name

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real images and reference numbers that lies beside the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs {folder.name}/ beside the repository, absent here")
    return folder


@pytest.fixture
def ros_environment(tmp_path) -> Iterator[dict[str, str]]:
    """Environment for the child processes of one test: a DDS domain and log folder of their own."""
    pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
    from nre_ros.ros_environment import clean_environment

    with contextlib.closing(DomainLock()) as domain:
        yield clean_environment(**_isolation(domain), ROS_LOG_DIR=str(tmp_path / "ros_log"))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The room that the node's tests live in, and its map; a test that changes the map takes a copy."""
    pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")
    from ros_process import World

    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def start(world, tmp_path):
    """start(parameter=value, ...): a node in a namespace of its own and a robot connected to it."""
    from ros_process import NodeProcess, Robot

    opened = []

    def start(*ros_args, image="image", **parameters):
        namespace = f"/robot{len(opened)}_{time.monotonic_ns()}"
        parameters = {"map_file": world.map_file, **parameters}
        node = NodeProcess(tmp_path, "-r", f"__ns:={namespace}", *ros_args, **parameters)
        opened.append(node)
        robot = Robot(namespace, image)
        opened.append(robot)
        node.wait_ready()
        return node, robot.wait_connected()

    yield start
    for each in reversed(opened):
        each.__exit__()


def _isolation(domain: DomainLock) -> dict[str, str]:
    isolation = {"ROS_DOMAIN_ID": str(domain.number), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    if os.environ.get("ROS_DISTRO") == "humble":  # knows only the older variable
        isolation["ROS_LOCALHOST_ONLY"] = "1"
    return isolation


@pytest.fixture
def make_map(tmp_path):
    """Makes maps whose keyframes have given global descriptors; they are closed after the test."""
    from retrieval_samples import make_map

    with contextlib.ExitStack() as stores:
        numbers = itertools.count()
        yield lambda *given, **options: stores.enter_context(
            make_map(tmp_path / f"{next(numbers)}.db", *given, **options)
        )


@pytest.fixture
def small_is_large(monkeypatch):
    """Maps of more than 50 keyframes count as large."""
    monkeypatch.setattr("nre_ros.keyframes.retrieval.descriptor_index.SMALL_MAP", 50)
