# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Data sets as they are downloaded: miniatures of TUM RGB-D and 7-Scenes, rendered from a room with exact depth."""

from decimal import Decimal

import cv2
import numpy as np
import pytest
import torch
from keyframe_samples import PlaceBackbone, pixels_of
from scipy.spatial.transform import Rotation

from nre_ros.errors import ImageError, ImportSourceError, NreError, PoseError
from nre_ros.gallery import Gallery, build_room, mapping_poses
from nre_ros.gallery.rgbd import write_rgbd
from nre_ros.geometry import Camera, position_quaternion
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.rgbd.layouts import rgbd_folder_source

STAMPS = [
    Decimal("1305031102.175304"),
    Decimal("1305031102.211214"),
    Decimal("1305031102.275326"),
    Decimal("1305031105.000000"),
]
# the benchmark's calibration page: fx fy cx cy d0 d1 d2 d3 d4
FREIBURG2 = ([520.9, 521.0, 325.1, 249.7], [0.2312, -0.7849, -0.0033, -0.0001, 0.9172])


@pytest.fixture(scope="module")
def gallery():
    return Gallery(build_room(seed=0, pixels_per_metre=40))


@pytest.fixture(scope="module")
def poses():
    return mapping_poses(keyframes=8, seed=2)


def write_depth(path, depth, scale):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.round(depth * scale).astype(np.uint16))


def write_image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def assert_on_the_surface(keyframe, gallery, camera, T_map_cam, tolerance):
    """The keyframe's points are where the room is, by its own rendering from the colour camera's pose."""
    np.testing.assert_allclose(keyframe.T_map_cam, T_map_cam, atol=1e-6)
    local = (keyframe.points.astype(float) - T_map_cam[:3, 3]) @ T_map_cam[:3, :3]
    x, y = np.rint(pixels_of(keyframe.fine)).astype(int).T
    error = np.abs(local[:, 2] / gallery.render(camera, T_map_cam).depth[y, x] - 1)
    assert len(local) > 50 and np.median(error) < tolerance and np.quantile(error, 0.95) < 4 * tolerance


@pytest.fixture
def tum(tmp_path, gallery, poses):
    """rgb.txt, depth.txt and groundtruth.txt; the last image has neither depth nor pose."""
    folder = tmp_path / "rgbd_dataset_freiburg2_small"
    camera = Camera(640, 480, *FREIBURG2[0], "radial_tangential", tuple(FREIBURG2[1]))
    rgb, depth, truth = (["# colour"], ["# depth"], ["# ground truth", "# t x y z qx qy qz qw"])
    for i, stamp in enumerate(STAMPS):
        rgb.append(f"{stamp} rgb/{stamp}.png")
        if i == 3:
            write_image(folder / f"rgb/{stamp}.png", np.zeros((480, 640, 3), np.uint8))
            continue
        view = gallery.render(camera, poses[i])
        write_image(folder / f"rgb/{stamp}.png", view.image)
        late = stamp + Decimal("0.0127")
        write_depth(folder / f"depth/{late}.png", view.depth, 5000)
        depth.append(f"{late} depth/{late}.png")
        # the motion capture is not synchronous: 4 ms before and 6 ms after, on a line and a uniform turn
        turn, step = Rotation.from_rotvec([0.02, 0.01, -0.01]), np.array([0.03, 0.0, 0.01])
        for shift in (Decimal("-0.004"), Decimal("0.006")):
            T = poses[i].copy()
            T[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(float(shift) * turn.as_rotvec()).as_matrix()
            T[:3, 3] += float(shift) * step
            position, quaternion = position_quaternion(T)
            truth.append(" ".join([str(stamp + shift), *(f"{value:.9f}" for value in (*position, *quaternion))]))
    truth += ["1305031102.5 nan 0 0 0 0 0 1", "1305031102.6 0 0 0 0 0 0 2", "not a pose"]
    for name, lines in (("rgb.txt", rgb), ("depth.txt", depth), ("groundtruth.txt", truth)):
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def test_a_tum_sequence_is_recognised_and_associated(tum, gallery, poses):
    source = rgbd_folder_source(tum)
    assert source.names() == [f"rgb/{stamp}.png" for stamp in STAMPS]
    camera = source.camera("")
    point, K = np.array([[0.3, -0.2, 1.0]]), np.array([[520.9, 0, 325.1], [0, 521.0, 249.7], [0, 0, 1]])
    expected = cv2.projectPoints(point, np.zeros(3), np.zeros(3), K, np.array(FREIBURG2[1]))[0][:, 0]
    np.testing.assert_allclose(camera.project(torch.as_tensor(point))[0].numpy(), expected, atol=1e-6)
    builder = KeyframeBuilder(PlaceBackbone(), 200)
    for i in range(3):
        keyframe = source.keyframe(source.names()[i], builder)
        assert keyframe.stamp == int(STAMPS[i] * 10**9)
        assert_on_the_surface(keyframe, gallery, camera, poses[i], 0.002)
    assert any("3 lines of groundtruth.txt" in note for note in source.notes)


def test_a_tum_image_without_pose_or_depth_is_reported(tum):
    source = rgbd_folder_source(tum)
    with pytest.raises(ImportSourceError, match="no pose at this image's time: the nearest is 2.7"):
        source.keyframe(source.names()[3], KeyframeBuilder(PlaceBackbone()))
    lines = (tum / "depth.txt").read_text().splitlines()
    (tum / "depth.txt").write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    with pytest.raises(ImageError, match="no depth image within 0.02 s"):
        rgbd_folder_source(tum).depth(source.names()[0])


def test_repeated_lines_of_a_tum_sequence_are_counted(tum):
    assert not rgbd_folder_source(tum).counts
    with (tum / "rgb.txt").open("a") as file:
        file.write(f"1305031103.5 rgb/{STAMPS[0]}.png\n")
    assert rgbd_folder_source(tum).counts == (("repeated lines", "1 of rgb.txt, the last line of an image is used"),)


def test_a_tum_folder_of_another_name_needs_a_camera(tum, tmp_path):
    other = tmp_path / "mine"
    tum.rename(other)
    with pytest.raises(ImportSourceError, match="freiburg1, freiburg2, freiburg3; give --camera"):
        rgbd_folder_source(other)
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 640 480 500 501 320 240\n")
    assert rgbd_folder_source(other, tmp_path / "cameras.txt").camera("").fx == 500
    (other / "rgb.txt").write_text("1305031102.175304\n")
    with pytest.raises(ImportSourceError, match="rgb.txt: not 'timestamp filename'"):
        rgbd_folder_source(other, tmp_path / "cameras.txt")


DEPTH_CAMERA = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)
COLOUR_CAMERA = Camera(640, 480, 525.0, 525.0, 320.0, 240.0)
# of the LIRIS calibration that DSAC* takes, rounded: the colour camera's place seen from the depth camera
T_COLOUR_DEPTH = np.array(
    [
        [0.99996518, 0.0026765127, -0.0079041012, -0.0255589432],
        [-0.0027409311, 0.999963028, -0.0081504521, 0.000101096363],
        [0.0078819942, 0.0081718329, 0.9999355346, 0.0020318322],
        [0, 0, 0, 1],
    ]
)


@pytest.fixture
def scene(tmp_path, gallery, poses):
    """A scene of three sequences; the third is still zipped; frame 1 of the first has an invalid pose."""
    folder = tmp_path / "heads"
    frames = [("seq-01", 0, poses[0]), ("seq-01", 1, poses[1]), ("seq-02", 0, poses[2])]
    for sequence, i, T_map_depth in frames:
        stem = f"{sequence}/frame-{i:06d}"
        depth = gallery.render(DEPTH_CAMERA, T_map_depth).depth
        depth = np.where(np.arange(640) < 60, 65.535, depth)
        write_depth(folder / f"{stem}.depth.png", depth, 1000)
        image = gallery.render(COLOUR_CAMERA, T_map_depth @ np.linalg.inv(T_COLOUR_DEPTH)).image
        write_image(folder / f"{stem}.color.png", image)
        rows = ["\t ".join(f"{value: .7e}" for value in row) for row in T_map_depth]
        (folder / f"{stem}.pose.txt").write_text("\t \n".join(rows) + "\t \n")
    (folder / "seq-01/frame-000001.pose.txt").write_text("\n".join(["-1.#IND -1.#IND -1.#IND -1.#IND"] * 4))
    (folder / "seq-03.zip").write_bytes(b"PK")
    (folder / "TrainSplit.txt").write_text("sequence1\nsequence3\n")
    (folder / "TestSplit.txt").write_text("sequence2\n")
    return folder


def test_a_scene_of_seven_scenes_is_recognised(scene, gallery, poses):
    source = rgbd_folder_source(scene)
    assert source.names() == ["seq-01/frame-000000.color.png", "seq-01/frame-000001.color.png"]
    assert any("seq-03" in note and "zipped" in note for note in source.notes)
    keyframe = source.keyframe(source.names()[0], KeyframeBuilder(PlaceBackbone(), 200))
    assert_on_the_surface(keyframe, gallery, COLOUR_CAMERA, poses[0] @ np.linalg.inv(T_COLOUR_DEPTH), 0.004)
    # what had no measurement is left out: the value 65535 would be 65 m
    assert pixels_of(keyframe.fine)[:, 0].min() > 30
    with pytest.raises(NreError, match="frame-000001.pose.txt"):
        source.keyframe(source.names()[1], KeyframeBuilder(PlaceBackbone()))


def test_sequences_of_seven_scenes_are_chosen(scene):
    assert rgbd_folder_source(scene, sequences="test").names() == ["seq-02/frame-000000.color.png"]
    assert len(rgbd_folder_source(scene, sequences="all").names()) == 3
    assert rgbd_folder_source(scene, sequences="seq-02").names() == ["seq-02/frame-000000.color.png"]
    assert rgbd_folder_source(scene / "seq-02").names() == ["seq-02/frame-000000.color.png"]
    with pytest.raises(ImportSourceError, match="seq-03 is left out: it is still zipped"):
        rgbd_folder_source(scene, sequences="seq-03")
    with pytest.raises(ImportSourceError, match="no depth scale"):
        rgbd_folder_source(scene, depth_scale=5000.0)
    (scene / "TrainSplit.txt").unlink()
    with pytest.raises(ImportSourceError, match="--sequences all"):
        rgbd_folder_source(scene)


@pytest.mark.parametrize(
    "text, match",
    [
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n", r"shape \(3, 4\)"),
        ("inf 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "not finite"),
        ("2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "not a rigid motion"),
        ("-1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "rigid"),
    ],
)
def test_files_that_are_no_pose_are_reported(scene, text, match):
    (scene / "seq-02/frame-000000.pose.txt").write_text(text)
    with pytest.raises(PoseError, match=match):
        rgbd_folder_source(scene, sequences="test").pose("seq-02/frame-000000.color.png")


def test_an_impossible_depth_scale_is_refused_in_every_layout(tum, scene, tmp_path, gallery, poses):
    own = tmp_path / "rgbd"
    write_rgbd(own, gallery, Camera(160, 120, 150.0, 150.0, 79.5, 59.5), poses[:1])
    for folder, match in ((tum, "not positive"), (scene, "no depth scale"), (own, "not positive")):
        with pytest.raises(ImportSourceError, match=match):
            rgbd_folder_source(folder, depth_scale=0.0)


def test_a_folder_of_the_demo_is_recognised_and_an_unknown_one_refused(tmp_path, gallery, poses):
    camera = Camera(160, 120, 130.0, 131.0, 79.5, 59.5)
    write_rgbd(tmp_path / "own", gallery, camera, poses[:2])
    source = rgbd_folder_source(tmp_path / "own")
    keyframe = source.keyframe(source.names()[1], KeyframeBuilder(PlaceBackbone(), 100))
    assert_on_the_surface(keyframe, gallery, camera, poses[1], 0.002)
    with pytest.raises(ImportSourceError, match="7-Scenes, which alone has sequences"):
        rgbd_folder_source(tmp_path / "own", sequences="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportSourceError, match="neither a TUM RGB-D sequence .* nor 7-Scenes"):
        rgbd_folder_source(tmp_path / "empty")
    with pytest.raises(ImportSourceError, match="not a folder"):
        rgbd_folder_source(tmp_path / "none")
