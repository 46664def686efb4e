# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The written rosbag2, read back by rosbags; and the RGB-D folder, read back by other libraries."""

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from nre_ros.errors import NreError
from nre_ros.gallery import CameraMount, Gallery, OdometryNoise, Sensor, build_room, mapping_poses, robot_loop
from nre_ros.gallery.bag import write_bag
from nre_ros.gallery.rgbd import write_rgbd
from nre_ros.geometry import Camera

pytest.importorskip("rosbags")
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability

CAMERAS = {
    "pinhole": Camera(96, 64, 80.0, 81.0, 47.0, 32.5),
    "plumb_bob": Camera(96, 64, 80.0, 81.0, 47.0, 32.5, "radial_tangential", (-0.1, 0.02, 1e-3, -1e-3)),
    "rational_polynomial": Camera(
        96, 64, 80.0, 81.0, 47.0, 32.5, "radial_tangential", (0.2, -0.1, 5e-4, 1e-3, 0.02, 0.5, -0.05, 0.01)
    ),
    "equidistant": Camera(96, 64, 50.0, 51.0, 47.0, 32.5, "equidistant", (0.02, -0.01, 2e-3, -1e-3)),
}
NO_NOISE = OdometryNoise(0, 0, 0, 0)


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return Gallery(build_room(seed=0, pixels_per_metre=40))


def read(path) -> tuple[dict, dict]:
    """Topic -> [(log time, message)], and topic -> connection."""
    messages, connections = {}, {}
    with AnyReader([path]) as reader:
        for connection, time, raw in reader.messages():
            messages.setdefault(connection.topic, []).append((time, reader.deserialize(raw, connection.msgtype)))
            connections[connection.topic] = connection
    return messages, connections


def nanoseconds(header) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def matrix(position, rotation) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([rotation.x, rotation.y, rotation.z, rotation.w]).as_matrix()
    T[:3, 3] = position.x, position.y, position.z
    return T


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_bag_read_back_is_complete_and_in_order(tmp_path, gallery, storage):
    loop = robot_loop(duration=1.0, seed=1)
    calls = []
    summary = write_bag(
        tmp_path / "bag",
        gallery,
        CAMERAS["plumb_bob"],
        loop,
        image_rate=10,
        odometry_rate=50,
        storage=storage,
        progress=lambda done, total: calls.append((done, total)),
    )
    messages, connections = read(tmp_path / "bag")
    assert {topic: len(entries) for topic, entries in messages.items()} == {
        "/tf_static": 1,
        "/tf": 53,
        "/camera/color/camera_info": 11,
        "/camera/color/image_raw/compressed": 11,
        "/ground_truth": 11,
    }
    assert calls[-1] == (11, 11) and len(calls) == 11
    for topic, entries in messages.items():
        times = [time for time, _ in entries]
        assert times == sorted(set(times))
        headers = [message.transforms[0].header if "tf" in topic else message.header for _, message in entries]
        assert [nanoseconds(header) for header in headers] == times
    stamps = [time for time, _ in messages["/ground_truth"]]
    assert stamps == summary.stamps.tolist()
    assert stamps == [time for time, _ in messages["/camera/color/image_raw/compressed"]]
    odometry = [time for time, _ in messages["/tf"]]
    assert odometry[0] < stamps[0] and odometry[-1] > stamps[-1]  # every image can be looked up
    assert connections["/tf_static"].ext.offered_qos_profiles[0].durability is QosDurability.TRANSIENT_LOCAL
    for connection in connections.values():
        assert connection.ext.offered_qos_profiles[0].reliability is QosReliability.RELIABLE


def test_transforms_compose_to_the_truth_without_drift(tmp_path, gallery):
    write_bag(
        tmp_path / "bag",
        gallery,
        CAMERAS["pinhole"],
        robot_loop(duration=2.0),
        image_rate=5,
        noise=NO_NOISE,
        mount=CameraMount(),
    )
    messages, _ = read(tmp_path / "bag")
    links = {t.child_frame_id: t for t in messages["/tf_static"][0][1].transforms}
    assert links["camera_link"].header.frame_id == "base_link"
    assert links["camera_color_optical_frame"].header.frame_id == "camera_link"
    T_base_cam = np.eye(4)
    for child in ("camera_link", "camera_color_optical_frame"):
        T_base_cam = T_base_cam @ matrix(links[child].transform.translation, links[child].transform.rotation)
    odometry = {}
    for time, message in messages["/tf"]:
        (transform,) = message.transforms
        assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "base_link")
        odometry[time] = matrix(transform.transform.translation, transform.transform.rotation)
    truth = {time: matrix(m.pose.position, m.pose.orientation) for time, m in messages["/ground_truth"]}
    assert all(message.header.frame_id == "map" for _, message in messages["/ground_truth"])
    T_map_odom = [truth[t] @ np.linalg.inv(odometry[t] @ T_base_cam) for t in truth]
    assert len(T_map_odom) == 11
    for T in T_map_odom:
        np.testing.assert_allclose(T, T_map_odom[0], atol=1e-9)
    # REP-103: the optical frame's z is the robot's forward, its y points down
    assert T_base_cam[0, 2] > 0.9 and T_base_cam[2, 1] < -0.9 and T_base_cam[1, 0] == pytest.approx(-1)


def test_odometry_drifts_and_the_seed_decides(tmp_path, gallery):
    def poses(name, seed):
        write_bag(tmp_path / name, gallery, CAMERAS["pinhole"], robot_loop(duration=1.0), image_rate=1, seed=seed)
        return np.array(
            [
                matrix(m.transforms[0].transform.translation, m.transforms[0].transform.rotation)
                for _, m in read(tmp_path / name)[0]["/tf"]
            ]
        )

    a, again, b = poses("a", 1), poses("again", 1), poses("b", 2)
    np.testing.assert_array_equal(a, again)
    assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("model", CAMERAS)
def test_camera_info_projects_as_the_camera_does(tmp_path, gallery, model):
    camera = CAMERAS[model]
    write_bag(tmp_path / "bag", gallery, camera, robot_loop(duration=1.0), image_rate=1)
    _, info = read(tmp_path / "bag")[0]["/camera/color/camera_info"][0]
    assert info.distortion_model == ("plumb_bob" if model == "pinhole" else model)
    assert (info.width, info.height, info.header.frame_id) == (96, 64, "camera_color_optical_frame")
    assert len(info.d) == {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}[info.distortion_model]
    np.testing.assert_array_equal(info.r.reshape(3, 3), np.eye(3))
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, :3], info.k.reshape(3, 3))
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, 3], 0)
    points = np.random.default_rng(0).uniform([-1, -0.6, 2], [1, 0.6, 3], (20, 1, 3))
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    expected = project(points, np.zeros(3), np.zeros(3), info.k.reshape(3, 3), info.d)[0][:, 0]
    pixels, valid, _ = camera.project(torch.from_numpy(points[:, 0]))
    assert valid.all()
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("encoding", ["jpeg", "bgr8", "rgb8", "mono8"])
def test_images_are_the_renderings(tmp_path, gallery, encoding):
    camera = CAMERAS["pinhole"]
    summary = write_bag(
        tmp_path / "bag", gallery, camera, robot_loop(duration=1.0), image_rate=2, encoding=encoding, jpeg_quality=95
    )
    topic = "/camera/color/image_raw" + ("/compressed" if encoding == "jpeg" else "")
    entries = read(tmp_path / "bag")[0][topic]
    assert len(entries) == 3
    for (_, message), T in zip(entries, summary.T_map_cam):
        expected = gallery.render(camera, T).image
        if encoding == "jpeg":
            assert "jpeg" in message.format
            decoded = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
            assert np.abs(decoded.astype(int) - expected).mean() < 8
            continue
        channels = 1 if encoding == "mono8" else 3
        assert (message.encoding, message.height, message.width) == (encoding, 64, 96)
        assert (message.step, message.is_bigendian) == (96 * channels, 0)
        data = message.data.reshape(64, 96, channels)
        if encoding == "rgb8":
            expected = cv2.cvtColor(expected, cv2.COLOR_BGR2RGB)
        elif encoding == "mono8":
            expected = cv2.cvtColor(expected, cv2.COLOR_BGR2GRAY)[..., None]
        np.testing.assert_array_equal(data, expected)


def test_types_have_the_hashes_of_a_recorded_bag(tmp_path, gallery, shared):
    if not (shared / "data/kitchen/bag").is_dir():
        pytest.skip("needs data/kitchen/bag, absent here")
    write_bag(tmp_path / "bag", gallery, CAMERAS["pinhole"], robot_loop(duration=1.0), image_rate=1)

    def hashes(path):
        with AnyReader([path]) as reader:
            return {connection.topic: (connection.msgtype, connection.digest) for connection in reader.connections}

    assert hashes(tmp_path / "bag") == hashes(shared / "data/kitchen/bag")


def test_nothing_is_overwritten_and_bad_options_are_named(tmp_path, gallery):
    (tmp_path / "bag").mkdir()
    loop, camera = robot_loop(duration=1.0), CAMERAS["pinhole"]
    with pytest.raises(NreError, match="exists already"):
        write_bag(tmp_path / "bag", gallery, camera, loop)
    with pytest.raises(ValueError, match="yuv"):
        write_bag(tmp_path / "other", gallery, camera, loop, encoding="yuv")
    with pytest.raises(ValueError, match="csv"):
        write_bag(tmp_path / "other", gallery, camera, loop, storage="csv")
    assert not (tmp_path / "other").exists()
    write_rgbd(tmp_path / "rgbd", gallery, camera, mapping_poses()[:1])
    with pytest.raises(NreError, match="exists already"):
        write_rgbd(tmp_path / "rgbd", gallery, camera, mapping_poses()[:1])


@pytest.mark.parametrize("model", CAMERAS)
def test_rgbd_folder_read_back(tmp_path, gallery, model):
    camera, poses = CAMERAS[model], mapping_poses()[::20]
    out = write_rgbd(tmp_path, gallery, camera, poses, image_format="png", rate=4.0)
    names = out.list.read_text().split()
    lines = np.loadtxt(out.poses)
    assert len(names) == len(lines) == len(poses) == 4
    np.testing.assert_allclose(np.diff(lines[:, 0]), 0.25, atol=1e-6)
    for name, line, T in zip(names, lines, poses):
        np.testing.assert_allclose(line[1:4], T[:3, 3], atol=1e-8)
        np.testing.assert_allclose(Rotation.from_quat(line[4:]).as_matrix(), T[:3, :3], atol=1e-8)
        view = gallery.render(camera, T)
        np.testing.assert_array_equal(cv2.imread(str(out.images / name)), view.image)
        depth = cv2.imread(str(out.depth / name), cv2.IMREAD_UNCHANGED)
        assert depth.dtype == np.uint16
        np.testing.assert_allclose(depth / 1000.0, view.depth, atol=0.00051)
    colmap_projects_half_a_pixel_off(out.camera, camera)


def colmap_projects_half_a_pixel_off(path, camera: Camera):
    """COLMAP's own reading of the camera against OpenCV's projection."""
    pycolmap = pytest.importorskip("pycolmap")
    (line,) = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    _, model, width, height, *parameters = line.split()
    theirs = pycolmap.Camera(model=model, width=int(width), height=int(height), params=list(map(float, parameters)))
    points = np.random.default_rng(0).uniform([-1, -0.6, 2], [1, 0.6, 3], (20, 1, 3))
    project = cv2.fisheye.projectPoints if camera.model == "equidistant" else cv2.projectPoints
    distortion = np.array(camera.distortion or (0.0,) * 4)
    expected = project(points, np.zeros(3), np.zeros(3), camera.K, distortion)[0][:, 0]
    np.testing.assert_allclose(theirs.img_from_cam(points[:, 0]) - 0.5, expected, atol=1e-9)


def test_sensor_noise_depends_on_seed_and_frame_only(tmp_path, gallery):
    camera, poses = CAMERAS["pinhole"], np.repeat(mapping_poses()[:1], 2, axis=0)

    def images(name, seed):
        out = write_rgbd(
            tmp_path / name, gallery, camera, poses, image_format="png", sensor=Sensor(noise=3.0), seed=seed
        )
        return [cv2.imread(str(out.images / file)) for file in out.list.read_text().split()]

    first, again, other = images("first", 1), images("again", 1), images("other", 2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], other[0])
