# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The front door of a ROS installation: colcon builds a workspace that has the repository in src/."""

import json
import os
import shutil
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(2400)]

ASK = """
import json, os
import nre_ros, nre_ros.geometry, nre_ros.msg, nre_ros.srv, nre_ros._operators
from ament_index_python.packages import get_package_share_directory
from nre_ros import ros_environment
library_path = os.environ["LD_LIBRARY_PATH"]
ros_environment.prepare()
import rclpy
from rclpy.serialization import deserialize_message, serialize_message
status = nre_ros.msg.LocalizationStatus(reason="too dark")
back = deserialize_message(serialize_message(status), nre_ros.msg.LocalizationStatus)
print(json.dumps({
    "files": [module.__file__ for module in (nre_ros.geometry, nre_ros.msg, nre_ros.srv, nre_ros._operators)],
    "share": get_package_share_directory("nre_ros"), "reason": back.reason, "version": nre_ros.__version__,
    "unchanged": os.environ["LD_LIBRARY_PATH"] == library_path,
}))
"""


@pytest.fixture(scope="module", params=["copied", "symlinked"])
def workspace(request, sources, tools, prefixes, run_in, tmp_path_factory) -> Path:
    if shutil.which("colcon", path=tools["PATH"]) is None:
        pytest.skip("needs colcon: requirements/test.txt")
    workspace = tmp_path_factory.mktemp(f"colcon_{request.param}")
    shutil.copytree(sources, workspace / "src/nre_ros")
    command = ["colcon", "build"] + (["--symlink-install"] if request.param == "symlinked" else [])
    if prefixes == [sys.prefix]:  # the wheels need what setup.py does for them, a ROS installation nothing
        cure = workspace / "src/nre_ros/cmake/build_in_venv.cmake"
        command += ["--cmake-args", f"-DCMAKE_PROJECT_INCLUDE={cure}", f"-DPython3_EXECUTABLE={sys.executable}"]
    joined = os.pathsep.join(prefixes)
    run_in(workspace, dict(tools, AMENT_PREFIX_PATH=joined, CMAKE_PREFIX_PATH=joined), *command)
    return workspace


@pytest.fixture
def in_workspace(workspace, tools, run_in, tmp_path):
    """Runs a command with the workspace sourced, as a user's shell does."""

    def run(*command) -> str:
        script = f'. "{workspace}/install/setup.sh"; exec "$@"'
        return run_in(tmp_path, tools, "sh", "-c", script, "sh", *command)

    return run


def test_messages_kernels_and_package_come_from_the_install_space(workspace, in_workspace):
    answer = json.loads(in_workspace(sys.executable, "-c", ASK).splitlines()[-1])
    install = workspace / "install/nre_ros"
    assert all(Path(file).is_relative_to(install) for file in answer["files"]), answer
    assert answer["share"] == str(install / "share/nre_ros")
    assert answer["reason"] == "too dark"
    assert answer["version"] == ElementTree.parse(workspace / "src/nre_ros/package.xml").findtext("version")
    assert answer["unchanged"], "a sourced workspace needs nothing from bootstrap"


def test_executables_where_ros2_run_and_launch_look(workspace, in_workspace):
    executables = workspace / "install/nre_ros/lib/nre_ros"
    assert {file.name for file in executables.iterdir()} == {"nre_ros", "localize_node"}
    assert all(os.access(file, os.X_OK) for file in executables.iterdir())
    assert "usage: nre_ros" in in_workspace(executables / "nre_ros", "--help")


def test_launch_and_config_are_in_share(workspace):
    share = workspace / "install/nre_ros/share/nre_ros"
    source = workspace / "src/nre_ros"
    for folder in ("launch", "config"):
        installed = {file.name for file in (share / folder).iterdir()}
        assert installed == {file.name for file in (source / folder).iterdir()}
    assert "localize.launch.py" in {file.name for file in (share / "launch").iterdir()}
