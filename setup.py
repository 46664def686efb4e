# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""pip's front door: makes messages and CPU kernels with CMake and puts them into the wheel.

The package is described in pyproject.toml; this file adds what a declaration cannot say.  CMake
(the CMakeLists.txt that colcon builds, too) runs against the ROS installation that has been
sourced, or else against the ROS wheels, and its install tree becomes the wheel: what lies in the
tree's Python folder joins the package, the rest is placed below the environment's prefix.
"""

import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# One folder per Python and environment: several may build from one checkout, each against a ROS of its own.
BUILD = ROOT / "build" / f"pip-{sys.implementation.cache_tag}-{Path(sys.prefix).name.lstrip('.')}"
TREE = BUILD / "install"


def sourced_prefixes() -> list[Path]:
    """Prefixes of the ROS installation, and overlays of it, that the shell has sourced."""
    return [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]


def wheel_prefixes() -> list[Path]:
    """Prefixes that hold the ROS wheels: of the environment, or of pip's overlay for an isolated build."""
    parents = [Path(entry).parents for entry in sys.path if entry]
    prefixes = [Path(sys.prefix), *(above[2] for above in parents if len(above) > 2)]
    return [prefix for prefix in dict.fromkeys(prefixes) if (prefix / "share/ament_cmake/cmake").is_dir()]


def needs_tf2_msgs() -> bool:
    """Whether tf2_msgs has to be built as well: only where there is no other than ours.

    Among wheels its files prove nothing, since they may be of the nre_ros that is being replaced.
    """
    if sourced_prefixes():
        return not any((prefix / "share/tf2_msgs/package.xml").is_file() for prefix in sourced_prefixes())
    return not set(packages_distributions().get("tf2_msgs", [])) - {"nre_ros"}


def build_requirements() -> list[str]:
    """What pip brings into an isolated build: the ROS wheels and build tools, unless there is a ROS installation."""
    if sourced_prefixes():
        return []
    lines = [line for name in ("ros", "ros-build") for line in (ROOT / f"requirements/{name}.txt").open()]
    return ["numpy", *(line.strip() for line in lines if not line.startswith("#"))]


def run_cmake(name: str, source: Path, prefixes: list[Path]) -> None:
    """Configures, builds and installs one CMake project into TREE."""
    # The generators are Python programs that import ament_package and rosidl: pip hides a sourced
    # PYTHONPATH from its builds, and an overlay of its own from the programs that they start.
    patterns = ("lib/python3*/*-packages", "local/lib/python3*/*-packages")
    folders = [folder for prefix in prefixes for pattern in patterns for folder in prefix.glob(pattern)]
    joined = os.pathsep.join(map(str, prefixes))
    environment = dict(
        os.environ,
        AMENT_PREFIX_PATH=joined,
        CMAKE_PREFIX_PATH=joined,
        PYTHONPATH=os.pathsep.join(map(str, folders)),
    )
    build = BUILD / name
    configure = [
        "cmake",
        "-S",
        source,
        "-B",
        build,
        f"-DCMAKE_INSTALL_PREFIX={TREE}",
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_TESTING=OFF",
        f"-DPython3_EXECUTABLE={sys.executable}",
        f"-DCMAKE_PROJECT_INCLUDE={ROOT / 'cmake/build_in_venv.cmake'}",
    ]
    if shutil.which("ninja"):
        configure += ["-G", "Ninja"]
    configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
    for command in (configure, ["cmake", "--build", build, "--parallel"], ["cmake", "--install", build]):
        subprocess.run(list(map(str, command)), env=environment, check=True)


def build_tree() -> Path:
    """Fills TREE; returns its Python folder."""
    prefixes = sourced_prefixes() or wheel_prefixes()
    if not prefixes:
        raise SystemExit(
            "nre_ros: no ROS 2 to generate the messages with: source a ROS installation, "
            "or install requirements/ros.txt and requirements/ros-build.txt"
        )
    shutil.rmtree(TREE, ignore_errors=True)
    if needs_tf2_msgs():
        run_cmake("tf2_msgs", ROOT / "cmake/tf2_msgs", prefixes)
    run_cmake("nre_ros", ROOT, prefixes)
    (messages,) = TREE.glob("**/nre_ros/msg/__init__.py")
    return messages.parents[2]


class BuildWithCMake(build_py):
    """build_py that adds what CMake makes: the messages, and the CPU kernels."""

    def run(self):
        if self.editable_mode:
            raise SystemExit(
                "nre_ros: an editable installation cannot hold generated messages; install it without -e: "
                "programs started in the source folder use its files and the installed messages"
            )
        # a module that has been removed from the sources must not live on in the wheel
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        python_dir = build_tree()
        # rosidl's egg-info would be a second set of metadata under our name
        unwanted = shutil.ignore_patterns("*.egg-info", "__pycache__", "*.c")
        shutil.copytree(python_dir, self.build_lib, dirs_exist_ok=True, ignore=unwanted)
        files: dict[str, list[str]] = {}
        for path in sorted(TREE.rglob("*")):
            if path.is_file() and python_dir not in path.parents:
                folder = str(path.parent.relative_to(TREE))
                files.setdefault(folder, []).append(str(path.relative_to(ROOT)))
        self.distribution.data_files = list(files.items())


class BinaryDistribution(Distribution):
    """The wheel is bound to a platform and a Python though setuptools compiles nothing itself."""

    def has_ext_modules(self):
        return True


setup(
    distclass=BinaryDistribution,
    cmdclass={"build_py": BuildWithCMake},
    setup_requires=build_requirements(),
)
