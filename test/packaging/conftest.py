# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A copy of the sources to build, and the tools to build it with."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nre_ros.ros_environment import clean_environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> Path:
    """What a clone would hold, in <workspace>/src/nre_ros."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if listing.returncode != 0:
        pytest.skip("needs a git checkout to know which files belong to the package")
    target = tmp_path_factory.mktemp("workspace") / "src/nre_ros"
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():  # a file deleted but not yet committed is still listed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="session")
def prefixes() -> list[str]:
    """Where ROS is: the sourced installation's prefixes, else this venv with the wheels."""
    sourced = clean_environment().get("AMENT_PREFIX_PATH", "")
    if sourced:
        return sourced.split(os.pathsep)
    if not (Path(sys.prefix) / "share/ament_cmake").is_dir():
        pytest.skip("needs ROS 2: a ROS installation, or requirements/ros.txt and ros-build.txt")
    return [sys.prefix]


@pytest.fixture(scope="session")
def tools(prefixes) -> dict[str, str]:
    """Environment to run build tools in: those of this venv come first."""
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), os.environ["PATH"]])
    environment = clean_environment(PATH=path, CMAKE_PREFIX_PATH=None)
    if prefixes == [sys.prefix]:  # wheels: a set AMENT_PREFIX_PATH would stand for a sourced installation
        environment.pop("AMENT_PREFIX_PATH", None)
        # CMake and ninja must be those of PyPI: a fresh machine has no others
        assert Path(shutil.which("cmake", path=path)).parent == Path(sys.prefix) / "bin"
        assert Path(shutil.which("ninja", path=path)).parent == Path(sys.prefix) / "bin"
    return environment


@pytest.fixture(scope="session")
def run_in():
    """run_in(folder, environment, *command): the output, or the test fails with it."""

    def run(folder: Path, environment: dict[str, str], *command) -> str:
        process = subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env=environment,
            text=True,
            timeout=900,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.returncode == 0, f"{' '.join(map(str, command))}\n{process.stdout[-6000:]}"
        return process.stdout

    return run
