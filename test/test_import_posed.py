# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Posed images: COLMAP models without points as pycolmap reads them, and kapture folders with rigs."""

import struct

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nre_ros.errors import CameraError, ImageError, ImportSourceError, PoseError
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource
from nre_ros.keyframes.importers.kapture import KaptureSource

IMAGES_TXT = """# two lines an image; the second, the keypoints, may be empty
1 0.9238795 0.3826834 0 0 0.1 0.2 0.3 1 a.jpg

2 1 0 0 0 1 2 3 2 folder/b c.jpg
10.0 20.0 -1 30.0 40.0 -1
3 1 0 0 0 nan 0 0 1 nan.jpg

4 0.5 0 0 0 0 0 0 1 short.jpg

5 1 0 0 0 0 0 0 9 stranger.jpg
"""


def colmap_folder(tmp_path, images=IMAGES_TXT):
    cameras = "1 PINHOLE 640 480 500 501 320 240\n2 SIMPLE_RADIAL 640 480 500 320 240 -0.1\n"
    (tmp_path / "cameras.txt").write_text(cameras)
    (tmp_path / "images.txt").write_text(images)
    return tmp_path


def test_a_text_model_without_points(tmp_path):
    source = ColmapPosesSource(colmap_folder(tmp_path), tmp_path)
    assert source.names() == ["a.jpg", "folder/b c.jpg", "nan.jpg", "short.jpg", "stranger.jpg"]
    stamp, T = source.pose("a.jpg")
    R = Rotation.from_euler("x", 45, degrees=True).as_matrix()
    assert stamp == 0
    np.testing.assert_allclose(T[:3, :3], R.T, atol=1e-6)
    np.testing.assert_allclose(T[:3, 3], -R.T @ [0.1, 0.2, 0.3], atol=1e-6)
    assert source.camera("a.jpg").cx == 319.5 and source.camera("folder/b c.jpg").distortion == (-0.1, 0, 0, 0)


@pytest.mark.parametrize(
    "name, error, words",
    [
        ("nan.jpg", PoseError, "not finite"),
        ("short.jpg", PoseError, "length 0.5"),
        ("stranger.jpg", CameraError, "no camera 9"),
        ("gone.jpg", ImportSourceError, "no image of that name"),
        ("a.jpg", ImageError, "cannot be read"),
    ],
)
def test_images_that_cannot_be_used_are_reported_one_by_one(tmp_path, name, error, words):
    source = ColmapPosesSource(colmap_folder(tmp_path), tmp_path)
    with pytest.raises(error, match=words):
        source.keyframe(name, KeyframeBuilder(None))


@pytest.mark.parametrize("names", [["a.jpg", "b.jpg", "c.jpg"], ["1", "2", "3"], ["a b", "c d", "e f"]])
@pytest.mark.parametrize("keypoints", [[False] * 3, [True, False, True], [True] * 3])
def test_every_image_is_read_with_or_without_lines_of_keypoints(tmp_path, names, keypoints):
    text = ""
    for k, (name, has_keypoints) in enumerate(zip(names, keypoints)):
        text += f"{k + 1} 1 0 0 0 {k} 0 0 1 {name}\n" + ("10.5 20.5 -1 30 40 7\n" if has_keypoints else "")
    source = ColmapPosesSource(colmap_folder(tmp_path, text), tmp_path)
    assert source.names() == sorted(names)
    assert [source.pose(name)[1][0, 3] for name in names] == [0, -1, -2]
    bare = keypoints[:2].count(False)  # behind the last image nothing need follow
    assert [f"{bare} of 3 images have no line" in note for note in source.notes] == [True] * bool(bare)


def test_folders_that_are_no_model_are_refused_at_once(tmp_path):
    with pytest.raises(ImportSourceError, match="neither cameras.txt nor cameras.bin"):
        ColmapPosesSource(tmp_path, tmp_path)
    colmap_folder(tmp_path, "1 1 0 0 0 0 0 zero 1 a.jpg\n")
    with pytest.raises(ImportSourceError, match="not a line of COLMAP's images.txt"):
        ColmapPosesSource(tmp_path, tmp_path)
    colmap_folder(tmp_path, "# nothing\n")
    with pytest.raises(ImportSourceError, match="is empty"):
        ColmapPosesSource(tmp_path, tmp_path)


def test_binary_models_read_as_pycolmap_writes_them(tmp_path, shared):
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(str(shared / "data/lund_door/sparse"))
    model.write_binary(str(tmp_path))
    (tmp_path / "points3D.bin").unlink()
    source = ColmapPosesSource(tmp_path, tmp_path)
    for image in model.images.values():
        matrix = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        # the model's quaternions are rounded to seven digits
        np.testing.assert_allclose(source.pose(image.name)[1][:3], matrix.inverse().matrix(), atol=1e-5)
        theirs = model.cameras[image.camera_id]
        assert source.camera(image.name).fx == theirs.params[0]
    for name in ("images.bin", "cameras.bin"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:-5])
        with pytest.raises(ImportSourceError, match="truncated"):
            ColmapPosesSource(tmp_path, tmp_path)
        (tmp_path / name).write_bytes(data)


def test_an_unsupported_camera_of_cameras_bin_affects_only_its_images(tmp_path):
    colmap_folder(tmp_path)
    fov = struct.pack("<IiQQ5d", 1, 7, 640, 480, *range(5))
    pinhole = struct.pack("<IiQQ4d", 2, 1, 640, 480, 500, 500, 320, 240)
    cameras = struct.pack("<Q", 2) + fov + pinhole
    (tmp_path / "cameras.bin").write_bytes(cameras)
    (tmp_path / "cameras.txt").unlink()
    source = ColmapPosesSource(tmp_path, tmp_path)
    with pytest.raises(CameraError, match="FOV is not supported"):
        source.camera("a.jpg")
    assert source.camera("folder/b c.jpg").fy == 500


SENSORS = """# kapture format: 1.1
left, , camera, PINHOLE, 640, 480, 500, 500, 320, 240
right, , camera, SIMPLE_RADIAL, 640, 480, 500, 320, 240, 0.1
odd, , camera, UNKNOWN_CAMERA, 640, 480
bad, , camera, PINHOLE, 640, 480, five
wifi0, , wifi
"""
RIGS = """head, left, 1, 0, 0, 0, 0, 0, -0.1
head, right, 0.7071068, 0, 0.7071068, 0, 0.2, 0, 0
robot, head, 0, 1, 0, 0, 1, 2, 3
"""
TRAJECTORIES = """20, robot, 0.9659258, 0, 0, 0.258819, 4, 5, 6
10, left, 1, 0, 0, 0, 1, 0, 0
11, left, nan, 0, 0, 0, 1, 0, 0
"""
RECORDS = """20, right, r/20.jpg
20, left, l/20.jpg
10, left, l/10.jpg
11, left, l/11.jpg
30, left, l/30.jpg
20, odd, o.jpg
20, bad, b.jpg
20, none, n.jpg
"""


def kapture_folder(tmp_path, **changes):
    sensors = tmp_path / "sensors"
    sensors.mkdir(exist_ok=True)
    files = {"sensors": SENSORS, "rigs": RIGS, "trajectories": TRAJECTORIES, "records_camera": RECORDS, **changes}
    for name, text in files.items():
        if text is not None:
            (sensors / f"{name}.txt").write_text(text)
    return tmp_path


def matrix(quaternion_wxyz, position):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(np.roll(quaternion_wxyz, -1)).as_matrix()
    T[:3, 3] = position
    return T


def test_poses_lead_through_rigs_within_rigs(tmp_path):
    source = KaptureSource(kapture_folder(tmp_path))
    assert source.names()[:2] == ["l/10.jpg", "l/11.jpg"]  # by their stamps, whatever the file's order
    robot = matrix([0.9659258, 0, 0, 0.258819], [4, 5, 6])
    head = matrix([0, 1, 0, 0], [1, 2, 3])
    right = matrix([0.7071068, 0, 0.7071068, 0], [0.2, 0, 0])
    stamp, T = source.pose("r/20.jpg")
    assert stamp == 20
    np.testing.assert_allclose(np.linalg.inv(T), right @ head @ robot, atol=1e-6)
    np.testing.assert_allclose(source.pose("l/10.jpg")[1][:3, 3], [-1, 0, 0])
    assert source.camera("r/20.jpg").distortion == (0.1, 0, 0, 0)


def test_a_folder_without_rigs_and_a_list(tmp_path):
    source = KaptureSource(kapture_folder(tmp_path, rigs=None))
    np.testing.assert_allclose(source.pose("l/10.jpg")[1][:3, 3], [-1, 0, 0])
    with pytest.raises(PoseError, match="no pose of right or its rig at the time 20"):
        source.pose("r/20.jpg")


def test_repeated_lines_of_kapture_are_counted(tmp_path):
    assert not KaptureSource(kapture_folder(tmp_path)).counts
    again = {"records_camera": RECORDS + "30, left, l/10.jpg\n", "trajectories": TRAJECTORIES + TRAJECTORIES}
    assert KaptureSource(kapture_folder(tmp_path, **again)).counts == (
        ("repeated lines", "3 of trajectories.txt, the last of a device and time is used"),
        ("repeated lines", "1 of records_camera.txt, the latest of an image is used"),
    )


@pytest.mark.parametrize(
    "name, error, words",
    [
        ("l/11.jpg", PoseError, "pose of left at 11: pose is not finite"),
        ("l/30.jpg", PoseError, "no pose of left"),
        ("o.jpg", CameraError, "UNKNOWN_CAMERA"),
        ("b.jpg", CameraError, "five"),
        ("n.jpg", CameraError, "no camera none"),
        ("l/10.jpg", ImageError, "cannot be read"),
        ("x.jpg", ImportSourceError, "no image of that name"),
    ],
)
def test_records_that_cannot_be_used_are_reported_one_by_one(tmp_path, name, error, words):
    rigs = RIGS + "robot, odd, 1, 0, 0, 0, 0, 0, 0\nrobot, bad, 1, 0, 0, 0, 0, 0, 0\nrobot, none, 1, 0, 0, 0, 0, 0, 0\n"
    source = KaptureSource(kapture_folder(tmp_path, rigs=rigs))
    with pytest.raises(error, match=words):
        source.keyframe(name, KeyframeBuilder(None))


def test_a_camera_of_infinite_size_is_left_out(tmp_path):
    sensors = SENSORS + "vast, , camera, SIMPLE_PINHOLE, inf, 24, 30, 16, 12\n"
    source = KaptureSource(kapture_folder(tmp_path, sensors=sensors, records_camera="20, vast, v.jpg\n"))
    with pytest.raises(CameraError, match="camera vast: "):
        source.camera("v.jpg")


def test_a_loop_of_rigs_is_reported(tmp_path):
    rigs = "a, left, 1, 0, 0, 0, 0, 0, 0\nb, a, 1, 0, 0, 0, 0, 0, 0\na, b, 1, 0, 0, 0, 0, 0, 0\n"
    with pytest.raises(PoseError, match="loop"):
        KaptureSource(kapture_folder(tmp_path, rigs=rigs)).pose("l/30.jpg")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"trajectories": None}, "no sensors/trajectories.txt"),
        ({"records_camera": None}, "no sensors/records_camera.txt"),
        ({"trajectories": "1, left, 1, 0, 0\n"}, "line of 5 fields"),
        ({"records_camera": "soon, left, a.jpg\n"}, "not a whole number"),
    ],
)
def test_folders_that_are_no_kapture_are_refused_at_once(tmp_path, changes, words):
    with pytest.raises(ImportSourceError, match=words):
        KaptureSource(kapture_folder(tmp_path, **changes))


def test_the_virtual_gallery_of_kapture(shared):
    source = KaptureSource(shared / "data/virtual_gallery/mapping")
    assert len(source.names()) == 12
    # the rig's front cameras stand 0.1 m from its centre and look 60 degrees apart
    folder = "training/gallery_light1_loop1/frames/rgb"
    (_, left), (_, right) = (source.pose(f"{folder}/camera_{k}/rgb_00223.jpg") for k in (0, 1))
    angle = np.degrees(Rotation.from_matrix(left[:3, :3].T @ right[:3, :3]).magnitude())
    assert angle == pytest.approx(60, abs=1e-3)
    assert np.linalg.norm(left[:3, 3] - right[:3, 3]) == pytest.approx(0.1, abs=1e-3)
