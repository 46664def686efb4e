# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The ecosystem's libraries and the package's own functions give the same messages; point clouds hold what they should."""

import importlib
import math
import sys
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: a ROS installation or requirements/ros.txt")

from conftest import ROOT
from keyframe_samples import random_keyframe
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image, PointField
from std_msgs.msg import Header

from nre_ros.errors import ImageError, PoseError
from nre_ros.gate.decision import Decision, State
from nre_ros.geometry import Camera
from nre_ros.localization.result import LocalizationResult
from nre_ros.node import point_clouds
from nre_ros.node.conversions import matrix_of_pose
from nre_ros.node.ros_libraries import NAMES, RosLibraries
from nre_ros.pictures.point_colours import point_colours

HEADER = Header(frame_id="map")
ROTATION = Rotation.from_euler("xyz", [10, 200, -35], degrees=True)


STAND_INS = ROOT / "test/ros_stand_ins"
MODULES = ("cv_bridge", "tf_transformations", "sensor_msgs_py", "sensor_msgs_py.point_cloud2", "stand_in_calls")


def install(monkeypatch) -> dict[str, int]:
    """Makes the stand-ins importable until the test ends; returns how often each function has been called."""
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(STAND_INS))
    calls = importlib.import_module("stand_in_calls").CALLS
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    return calls


@pytest.fixture
def calls(monkeypatch):
    """The stand-ins are importable; how often each of their functions was called."""
    return install(monkeypatch)


@pytest.fixture(params=["absent", "present"])
def libraries(request, monkeypatch):
    """Both kinds of machine: without the three libraries, and with them."""
    if request.param == "present":
        install(monkeypatch)
    else:
        for name in NAMES:
            monkeypatch.setitem(sys.modules, name, None)
    return RosLibraries()


def test_all_three_are_found_and_used(calls):
    libraries = RosLibraries()
    assert libraries.available == NAMES
    calls.clear()  # of the first calls that show whether a library works
    libraries.pose_matrix([1, 2, 3], [0, 0, 0, 1])
    libraries.position_quaternion(np.eye(4))
    libraries.image_message(np.zeros((4, 6, 3), np.uint8), HEADER)
    libraries.point_cloud(HEADER, {"x": np.zeros(2, np.float32)})
    assert calls == {"quaternion_matrix": 1, "quaternion_from_matrix": 1, "cv2_to_imgmsg": 1, "create_cloud": 1}


def test_a_library_that_breaks_on_import_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "cv_bridge.py").write_text("raise AttributeError('_ARRAY_API not found')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)
    assert "cv_bridge" not in RosLibraries().available


def test_a_folder_of_that_name_is_no_library(monkeypatch, tmp_path):
    for name in ("cv_bridge", "tf_transformations"):
        (tmp_path / name).mkdir()
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not {"cv_bridge", "tf_transformations"} & set(RosLibraries().available)


def test_a_cv_bridge_that_breaks_at_its_first_call_is_replaced(calls, monkeypatch):
    def broken(*args, **kwargs):
        raise ImportError("numpy.core.multiarray failed to import")

    monkeypatch.setattr(sys.modules["cv_bridge"].CvBridge, "cv2_to_imgmsg", broken)
    libraries = RosLibraries()
    assert libraries.image_message(np.full((4, 6, 3), 7, np.uint8), HEADER).step == 18
    assert "cv_bridge" not in libraries.available


def test_a_pose_keeps_position_and_rotation(libraries):
    T = libraries.pose_matrix([1.0, -2.0, 3.0], (3 * ROTATION.as_quat()).tolist())
    np.testing.assert_allclose(T[:3, :3], ROTATION.as_matrix(), atol=1e-12)
    np.testing.assert_array_equal(T[:3, 3], [1, -2, 3])
    position, quaternion = libraries.position_quaternion(T)
    assert position == [1, -2, 3] and quaternion[3] >= 0
    np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), ROTATION.as_matrix(), atol=1e-12)


@pytest.mark.parametrize("quaternion", [[0, 0, 0, 0], [math.nan, 0, 0, 1]])
def test_a_quaternion_that_is_none_is_refused(libraries, quaternion):
    with pytest.raises(PoseError):
        libraries.pose_matrix([0, 0, 0], quaternion)


def test_an_image_keeps_its_pixels(libraries):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    message = libraries.image_message(picture, HEADER)
    assert (message.height, message.width, message.encoding, message.step) == (4, 6, "bgr8", 18)
    assert bytes(message.data) == picture.tobytes() and message.header.frame_id == "map"


def test_a_compressed_image_is_a_jpeg(libraries):
    message = libraries.compressed_image_message(np.full((8, 8, 3), 100, np.uint8), HEADER)
    decoded = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (8, 8, 3) and message.format == "bgr8; jpeg compressed bgr8"


def test_cv_bridge_decodes_an_encoding_that_the_package_does_not_know(calls):
    grey = Image(height=2, width=2, encoding="yuv444", step=6, data=bytes([90, 128, 128] * 4))
    decoded = RosLibraries().decode(grey)
    assert decoded.shape == (2, 2, 3) and np.all(abs(decoded.astype(int) - 90) <= 1)


def test_an_encoding_that_nobody_knows_is_an_image_error(libraries):
    with pytest.raises(ImageError, match="'rggb10p'"):
        libraries.decode(Image(height=2, width=2, encoding="rggb10p", step=6, data=bytes(12)))


def read(cloud) -> dict[str, np.ndarray]:
    """Columns of a cloud by the definition of PointCloud2, not by the code under test."""
    kinds = {PointField.FLOAT32: "f4", PointField.UINT32: "u4", PointField.UINT8: "u1"}
    rows = np.frombuffer(bytes(cloud.data), np.uint8).reshape(cloud.height * cloud.width, cloud.point_step)
    assert cloud.row_step == cloud.width * cloud.point_step and not cloud.is_bigendian
    columns = {}
    for field in cloud.fields:
        kind = np.dtype(kinds[field.datatype]).newbyteorder("<")
        columns[field.name] = rows[:, field.offset : field.offset + kind.itemsize].copy().view(kind)[:, 0]
    return columns


def test_a_cloud_has_its_columns(libraries):
    given = {"x": np.arange(5, dtype=np.float32), "count": np.arange(5, dtype=np.uint32)}
    cloud = libraries.point_cloud(HEADER, given)
    found = read(cloud)
    assert not cloud.is_dense  # as create_cloud has it
    assert {name: values.tolist() for name, values in found.items()} == {k: v.tolist() for k, v in given.items()}


def test_the_points_of_a_fix_have_residuals_and_colours(libraries, monkeypatch):
    monkeypatch.setattr(point_clouds, "LIBRARIES", libraries)
    result = LocalizationResult(
        T_map_cam=np.eye(4), points=np.array([[0, 0, 2], [0.5, 0, 2], [9, 9, 9.0]]), losses=np.array([0.0, 0.6, 1.0])
    )
    found = read(point_clouds.fix_cloud(result, Decision(True, State.LOCALIZED, ""), HEADER))
    assert found["x"].tolist() == [0.0, 0.5] and found["z"].tolist() == [2.0, 2.0]  # the third is out of view
    np.testing.assert_allclose(found["residual"], [0.0, 0.6], atol=1e-6)
    red, green = (found["rgb"].view(np.uint32) >> 16) & 255, (found["rgb"].view(np.uint32) >> 8) & 255
    assert red.tolist() == [0, 153] and green.tolist() == [255, 102]
    assert read(point_clouds.fix_cloud(result, Decision(False, State.LOST, ""), HEADER))["x"].tolist() == []


def test_points_take_the_colour_of_the_picture_where_they_project():
    """A picture that is red on its left half and blue on its right."""
    camera = Camera(320, 240, 200.0, 200.0, 159.5, 119.5)
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[:, :40], picture[:, 40:] = (0, 0, 255), (255, 0, 0)
    thumbnail = cv2.imencode(".png", picture)[1].tobytes()
    points = np.array([[-0.5, 0, 2], [0.5, 0, 2], [0, 0, -2]], np.float32)
    keyframe = random_keyframe("a", 0, points=3)
    keyframe = type(keyframe)(
        **{**vars(keyframe), "camera": camera, "T_map_cam": np.eye(4), "points": points, "thumbnail": thumbnail}
    )
    colours = point_colours(keyframe)
    assert colours[:2].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert len(set(colours[2].tolist())) == 1  # behind the camera: grey


def test_a_map_cloud_is_bounded_and_empty_maps_give_empty_clouds(libraries, monkeypatch, make_map):
    monkeypatch.setattr(point_clouds, "LIBRARIES", libraries)
    store = make_map(np.eye(4, dtype=np.float32)[:3])
    whole = read(point_clouds.map_cloud(store, HEADER))
    stored = np.concatenate([keyframe.points for keyframe in store.load(list(store.names().values()))])
    np.testing.assert_array_equal(np.stack([whole["x"], whole["y"], whole["z"]], 1), stored)
    monkeypatch.setattr(point_clouds, "MAX_CLOUD_POINTS", 3)
    assert len(read(point_clouds.map_cloud(store, HEADER))["x"]) <= 3


@pytest.mark.parametrize("stand_ins", [False, True], ids=["absent", "present"])
def test_a_node_publishes_the_same_with_and_without_the_libraries(
    world, ros_environment, tmp_path, monkeypatch, stand_ins
):
    """Pose, debug image and point clouds of a real node, as subscribers get them."""
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.qos import DurabilityPolicy, QoSProfile
    from ros_process import NodeProcess, Robot, raw_image
    from sensor_msgs.msg import PointCloud2

    if stand_ins:
        monkeypatch.setenv("PYTHONPATH", str(STAND_INS))
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    name = f"/libraries_{stand_ins}".lower()
    with NodeProcess(tmp_path, "-r", f"__ns:={name}", map_file=world.map_file) as node, Robot(name) as robot:
        node.wait_ready()
        robot.wait_connected()
        found = {}
        for topic, kind, qos in (
            ("debug_image", Image, 1),
            ("map_points", PointCloud2, latched),
            ("fix_points", PointCloud2, 1),
            ("/diagnostics", DiagnosticArray, 10),
        ):
            robot.node.create_subscription(
                kind, topic, lambda message, topic=topic: found.update({topic: message}), qos
            )
        deadline = time.monotonic() + 60
        while set(found) < {"debug_image", "map_points", "fix_points", "/diagnostics"}:
            assert time.monotonic() < deadline, f"only {sorted(found)} came: {node.output}"
            status = robot.ask(raw_image(world.image, robot.now()))
        assert status.pose_valid
        np.testing.assert_allclose(matrix_of_pose(status.pose.pose)[:3, 3], world.T_map_cam[:3, 3], atol=0.03)
        assert found["debug_image"].encoding == "bgr8"
        points = read(found["map_points"])
        assert len(set(points["rgb"].view(np.uint32).tolist())) > 100  # the colours of the pictures, not one grey
        assert len(points["x"]) > 500 and found["map_points"].header.frame_id == "room"
        # the room of the gallery is 6 m x 5 m x 3 m around its centre
        assert abs(points["x"]).max() < 3.1 and abs(points["y"]).max() < 2.6
        residuals = read(found["fix_points"])["residual"]
        assert len(residuals) > 50 and 0 <= residuals.min() and residuals.max() < 1
        values = {value.key: value.value for status in found["/diagnostics"].status for value in status.values}
        used = "cv_bridge, sensor_msgs_py.point_cloud2, tf_transformations" if stand_ins else "none"
        assert values["ROS libraries in use"] == used
