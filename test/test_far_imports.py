# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Importers of poses in UTM coordinates make the map that they make near the origin."""

import json

import cv2
import numpy as np
import pytest
from keyframe_samples import UTM, PlaceBackbone

from nre_ros.cli import main
from nre_ros.gallery import Gallery, build_room, mapping_poses
from nre_ros.gallery.rgbd import write_rgbd
from nre_ros.geometry import Camera, invert, pose_error, pose_matrix, position_quaternion
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.building.multiview.keypoints import KeypointView, match_keypoints
from nre_ros.keyframes.building.multiview.triangulation import triangulate
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.storage.store import KeyframeStore

CAMERA = Camera(320, 240, 260.0, 260.0, 160.5, 118.5)
ORIGIN = [500_000.0, 5_400_000.0, 0.0]


@pytest.fixture(scope="module")
def gallery():
    return Gallery(build_room(seed=0, pixels_per_metre=100))


def builder():
    return KeyframeBuilder(PlaceBackbone(), 150, background=16)


def keyframes(path):
    with KeyframeStore.open(path) as store:
        return {name: store.get(i) for name, i in store.names().items()}, store.origin.tolist()


def assert_moved(near_map, far_map):
    """The far map's keyframes are the near map's after the motion; few points differ, where two were equally good."""
    (near, near_origin), (far, far_origin) = keyframes(near_map), keyframes(far_map)
    assert near_origin == [0, 0, 0] and far_origin == ORIGIN and far.keys() == near.keys() != set()
    back = invert(UTM)
    for name, keyframe in near.items():
        metres, radians = pose_error(back @ far[name].T_map_cam, keyframe.T_map_cam)
        assert metres < 1e-6 and radians < 1e-7
        assert len(far[name].points) == len(keyframe.points) > 20
        # about the scene first: a product of large coordinates is coarser
        points = (far[name].points - UTM[:3, 3]) @ UTM[:3, :3]
        differ = np.abs(points - keyframe.points).max(axis=1) > 1e-4
        assert differ.mean() < 0.02


def test_a_bag_in_utm(gallery, tmp_path):
    pytest.importorskip("rosbags", reason="needs rosbags to write and read bags")
    from bag_samples import START, rgbd_messages, write_messages

    from nre_ros.keyframes.importers.bag.source import bag_source

    T_base_cam = pose_matrix([0.1, -0.05, 0.4], [0.5, -0.5, 0.5, -0.5])
    T_map_odom = pose_matrix([1.0, 2.0, 0.0], [0, 0, 0.6, 0.8])
    views = [gallery.render(CAMERA, T) for T in mapping_poses(keyframes=16, seed=2)[:4]]
    for name, M in (("near", np.eye(4)), ("far", UTM)):
        frames = [
            (START + i * 500_000_000, cv2.imencode(".jpg", view.image)[1].tobytes(), view.depth, M @ view.T_map_cam)
            for i, view in enumerate(views)
        ]
        bag = write_messages(tmp_path / name, rgbd_messages(frames, CAMERA, T_base_cam, M @ T_map_odom))
        build_map(bag_source(bag), builder(), tmp_path / f"{name}.db", progress=False)
    assert_moved(tmp_path / "near.db", tmp_path / "far.db")


def test_a_colmap_model_in_utm(tmp_path):
    pytest.importorskip("pycolmap", reason="needs pycolmap to read COLMAP models")
    from test_import_colmap import NAMES, hand_written_model

    from nre_ros.keyframes.importers.colmap.model_source import ColmapSource

    hand_written_model(tmp_path / "near")
    (tmp_path / "far").mkdir()
    for name in NAMES:
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "images" / name), np.full((240, 320, 3), 90, np.uint8))
    (tmp_path / "far/cameras.txt").write_text((tmp_path / "near/cameras.txt").read_text())
    lines = (tmp_path / "near/images.txt").read_text().splitlines()
    for i in range(1, len(lines), 2):
        number, w, x, y, z, *t, camera, name = lines[i].split()
        T = pose_matrix(list(map(float, t)), list(map(float, (x, y, z, w)))) @ invert(UTM)
        (tx, ty, tz), (qx, qy, qz, qw) = (values.tolist() for values in position_quaternion(T))
        lines[i] = " ".join(map(str, (number, qw, qx, qy, qz, tx, ty, tz, camera, name)))
    (tmp_path / "far/images.txt").write_text("\n".join(lines) + "\n")
    with open(tmp_path / "far/points3D.txt", "w") as file:
        for line in (tmp_path / "near/points3D.txt").read_text().splitlines():
            number, x, y, z, *rest = line.split()
            xyz = np.array([x, y, z], dtype=float) @ UTM[:3, :3].T + UTM[:3, 3]
            print(number, *xyz.tolist(), *rest, file=file)
    for name in ("near", "far"):
        source = ColmapSource(tmp_path / name, tmp_path / "images")
        build_map(source, builder(), tmp_path / f"{name}.db", progress=False)
    assert_moved(tmp_path / "near.db", tmp_path / "far.db")


def test_points_are_triangulated_in_utm(gallery):
    poses = list(mapping_poses(keyframes=60, seed=2)[:3])
    images = [gallery.render(CAMERA, T).image for T in poses]
    found = []
    for M in (np.eye(4), UTM):
        view, *others = [KeypointView.from_image(image, CAMERA, M @ T) for image, T in zip(images, poses)]
        found.append(triangulate(view, others, [match_keypoints(view, other) for other in others]))
    near, far = found
    common, a, b = np.intersect1d(near.index, far.index, return_indices=True)
    assert len(common) > 0.98 * len(near.index) > 10
    points = (far.points[b] - UTM[:3, 3]) @ UTM[:3, :3]
    assert np.quantile(np.abs(points - near.points[a]).max(axis=1), 0.98) < 1e-4


def test_the_command_line_builds_and_localizes_in_utm(gallery, tmp_path):
    """RGB-D images of the gallery's room: the same errors to a tenth of a millimetre and a thousandth of a degree."""
    poses = mapping_poses(keyframes=60, seed=0)
    mapped = write_rgbd(tmp_path / "map", gallery, CAMERA, poses[:12:2])
    asked = write_rgbd(tmp_path / "queries", gallery, CAMERA, poses[1:8:2], seed=1)
    lines = []
    for line in mapped.poses.read_text().splitlines()[1:]:
        seconds, *numbers = line.split()
        T = UTM @ pose_matrix(*np.split(np.array(numbers, dtype=float), [3]))
        lines.append(" ".join([seconds, *map(str, np.concatenate(position_quaternion(T)).tolist())]))
    (tmp_path / "utm.txt").write_text("\n".join(lines) + "\n")
    found = {}
    for name, poses_file in (("near", mapped.poses), ("far", tmp_path / "utm.txt")):
        path, out = tmp_path / f"{name}.db", tmp_path / f"{name}.jsonl"
        words = ["--images", mapped.images, "--depth", mapped.depth, "--list", mapped.list, "--camera", mapped.camera]
        assert main(list(map(str, ["map", "build", "rgbd", *words, "--poses", poses_file, "-o", path]))) == 0
        words = ["--images", asked.images, "--list", asked.list, "--camera", asked.camera]
        assert main(list(map(str, ["localize", "--map", path, *words, "-o", out]))) == 0
        found[name] = [json.loads(line) for line in out.read_text().splitlines()]
    localized = 0
    for near, far, truth in zip(found["near"], found["far"], poses[1:8:2]):
        assert near["success"] == far["success"]
        if not near["success"]:
            continue
        localized += 1
        near_error = pose_error(pose_matrix(near["position"], near["quaternion"]), truth)
        far_error = pose_error(pose_matrix(far["position"], far["quaternion"]), UTM @ truth)
        assert abs(near_error[0] - far_error[0]) < 1e-4
        assert np.degrees(abs(near_error[1] - far_error[1])) < 1e-3
    assert localized >= 3
