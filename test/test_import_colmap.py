# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP models: text by hand and binary by pycolmap give the same keyframes, where they belong; damaged models."""

import struct
import sys

import cv2
import numpy as np
import pytest
import torch
from keyframe_samples import PlaceBackbone, pixels_of
from scipy.spatial.transform import Rotation

from nre_ros.errors import CameraError, ImageError, ImportSourceError, PoseError
from nre_ros.geometry import invert
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.colmap.cameras import read_cameras_txt
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource

pycolmap = pytest.importorskip("pycolmap", reason="COLMAP itself is the oracle")

K = np.array([[300.0, 0, 159.3], [0, 310.0, 121.7], [0, 0, 1]])  # our pixel convention
DISTORTION = np.array([-0.1, 0.03, 0.002, -0.001])
NAMES = ["b.png", "sub/a.png"]


def hand_written_model(folder, n=60):
    """Two images of n points; returns T_map_cam by name, points [n, 3] and our pixels by name [n, 2]."""
    rng = np.random.default_rng(0)
    points = rng.uniform([-0.8, -0.6, 2.5], [0.8, 0.6, 4], (n, 3))
    poses, pixels, image_lines = {}, {}, []
    for i, name in enumerate(NAMES):
        rotation, t = Rotation.from_rotvec(rng.normal(0, 0.05, 3)), rng.normal(0, 0.1, 3)
        poses[name] = np.eye(4)
        poses[name][:3, :3], poses[name][:3, 3] = rotation.inv().as_matrix(), -rotation.inv().apply(t)
        pixels[name] = cv2.projectPoints(points, rotation.as_rotvec(), t, K, DISTORTION)[0][:, 0]
        x, y, z, w = rotation.as_quat().tolist()
        image_lines.append(" ".join(map(repr, [i + 1, w, x, y, z, *t.tolist(), 3])) + f" {name}")
        image_lines.append(
            " ".join(
                [f"{u + 0.5!r} {v + 0.5!r} {100 + j}" for j, (u, v) in enumerate(pixels[name].tolist())]
                + ["5.0 5.0 -1"]
            )
        )
    folder.mkdir()
    (folder / "cameras.txt").write_text(
        f"# hand-written\n3 OPENCV 320 240 300 310 {K[0, 2] + 0.5} {K[1, 2] + 0.5} -0.1 0.03 0.002 -0.001\n"
    )
    (folder / "images.txt").write_text("# hand-written\n" + "\n".join(image_lines) + "\n")
    (folder / "points3D.txt").write_text(
        "".join(f"{100 + j} {x!r} {y!r} {z!r} 1 2 3 0.5 1 {j} 2 {j}\n" for j, (x, y, z) in enumerate(points.tolist()))
    )
    return poses, points, pixels


@pytest.fixture
def model(tmp_path):
    """(sparse folder, images folder, truth of ``hand_written_model``)."""
    truth = hand_written_model(tmp_path / "text")
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name in NAMES:
        cv2.imwrite(str(images / name), np.full((240, 320, 3), 90, np.uint8))
    return tmp_path / "text", images, truth


def builder(points=500):
    return KeyframeBuilder(PlaceBackbone(), points, background=16)


def test_keyframes_of_a_text_model_are_where_they_should_be(model):
    sparse, images, (poses, points, pixels) = model
    source = ColmapSource(sparse, images)
    assert source.names() == NAMES
    for name in NAMES:
        keyframe = source.keyframe(name, builder())
        np.testing.assert_allclose(keyframe.T_map_cam, poses[name], atol=1e-12)
        index = keyframe.point_ids - 100
        assert sorted(index) == list(range(60))
        np.testing.assert_allclose(keyframe.points, points[index], atol=1e-6)
        # descriptors tell where they were sampled: half a pixel would show
        np.testing.assert_allclose(pixels_of(keyframe.coarse), pixels[name][index], atol=0.02)
        np.testing.assert_allclose(pixels_of(keyframe.fine), pixels[name][index], atol=0.02)


def test_binary_and_text_models_give_the_same_keyframes(model, tmp_path):
    sparse, images, _ = model
    binary = tmp_path / "binary"
    binary.mkdir()
    pycolmap.Reconstruction(str(sparse)).write_binary(str(binary))
    assert (binary / "points3D.bin").is_file() and not list(binary.glob("*.txt"))
    text, binary = ColmapSource(sparse, images), ColmapSource(binary, images)
    assert text.names() == binary.names()
    for name in NAMES:
        a, b = text.keyframe(name, builder(20)), binary.keyframe(name, builder(20))
        assert a.camera == b.camera and len(a.points) == 20
        np.testing.assert_allclose(a.T_map_cam, b.T_map_cam, atol=1e-12)
        for field in ("points", "point_ids", "coarse", "fine", "background", "global_descriptor"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


MODELS = {
    "SIMPLE_PINHOLE": [300, 160, 120],
    "PINHOLE": [300, 310, 158, 122],
    "SIMPLE_RADIAL": [300, 160, 120, -0.1],
    "RADIAL": [300, 160, 120, -0.1, 0.03],
    "OPENCV": [300, 310, 158, 122, -0.1, 0.03, 0.002, -0.001],
    "FULL_OPENCV": [300, 310, 158, 122, -0.1, 0.03, 0.002, -0.001, 0.01, 0.02, -0.01, 0.003],
    "OPENCV_FISHEYE": [300, 310, 158, 122, -0.03, 0.01, -0.004, 0.001],
}


@pytest.mark.parametrize("name", MODELS)
def test_every_common_camera_of_text_and_binary_models_projects_as_colmaps(model, tmp_path, name):
    """pycolmap's projection of the model's points, half a pixel apart, in both forms of the model."""
    sparse, images, _ = model
    parameters = " ".join(map(str, MODELS[name]))
    (sparse / "cameras.txt").write_text(f"3 {name} 320 240 {parameters}\n")
    reconstruction = pycolmap.Reconstruction(str(sparse))
    binary = tmp_path / "binary"
    binary.mkdir()
    reconstruction.write_binary(str(binary))
    theirs = pycolmap.Camera(model=name, width=320, height=240, params=MODELS[name])
    points = np.array([point.xyz for point in reconstruction.points3D.values()])
    for folder in (sparse, binary):
        T_map_cam, camera = ColmapSource(folder, images).pose_and_camera("b.png")
        local = points @ invert(T_map_cam)[:3, :3].T + invert(T_map_cam)[:3, 3]
        found, front, _ = camera.project(torch.as_tensor(local))
        assert front.all()
        np.testing.assert_allclose(found.numpy(), theirs.img_from_cam(local) - 0.5, atol=1e-8)


def test_a_pose_that_is_not_finite_is_reported(model):
    sparse, images, _ = model
    text = (sparse / "images.txt").read_text().splitlines()
    fields = text[1].split()
    text[1] = " ".join([*fields[:5], "nan", *fields[6:]])
    (sparse / "images.txt").write_text("\n".join(text) + "\n")
    with pytest.raises((PoseError, ImportSourceError), match="not finite|cannot be read"):
        ColmapSource(sparse, images).pose_and_camera("b.png")


def test_a_list_restricts_and_unknown_names_are_left_out_one_by_one(model, tmp_path):
    sparse, images, _ = model
    chosen = tmp_path / "list.txt"
    chosen.write_text("# some\nsub/a.png\n\nnone.png\n")
    source = ColmapSource(sparse, images, chosen)
    assert source.names() == ["sub/a.png", "none.png"]
    assert source.keyframe("sub/a.png", builder()).name == "sub/a.png"
    with pytest.raises(ImportSourceError, match="no image of that name"):
        source.keyframe("none.png", builder())


def test_images_that_cannot_be_used_are_reported(model):
    sparse, images, _ = model
    source = ColmapSource(sparse, images)
    cv2.imwrite(str(images / "b.png"), np.zeros((120, 160, 3), np.uint8))
    with pytest.raises(ImageError, match="160x120.*320x240"):
        source.keyframe("b.png", builder())
    (images / "b.png").write_bytes((images / "b.png").read_bytes()[:-30])
    with pytest.raises(ImageError, match="truncated"):
        source.keyframe("b.png", builder())
    (images / "b.png").unlink()
    with pytest.raises(ImageError, match="No such file"):
        source.keyframe("b.png", builder())


def test_an_image_without_points_is_left_out(model):
    sparse, images, _ = model
    lines = (sparse / "images.txt").read_text().splitlines()
    lines[2] = lines[4] = ""
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    (sparse / "points3D.txt").write_text("")
    with pytest.raises(ImportSourceError, match="no 3D point"):
        ColmapSource(sparse, images).keyframe("b.png", builder())


def test_an_unsupported_camera_is_reported(model):
    sparse, images, _ = model
    (sparse / "cameras.txt").write_text("3 FOV 320 240 300 310 160 120 0.5\n")
    with pytest.raises(CameraError, match="camera 3.*FOV"):
        ColmapSource(sparse, images).keyframe("b.png", builder())


@pytest.mark.parametrize(
    "spoil, match",
    [
        (lambda sparse: (sparse / "points3D.txt").unlink(), "points3D"),
        (lambda sparse: (sparse / "points3D.txt").write_text("1 2 hello\n"), "cannot be read"),
        (lambda sparse: [(sparse / f).write_text("") for f in ("images.txt", "points3D.txt")], "no image"),
        (lambda sparse: (sparse / "images.txt").write_text(""), "no image"),
    ],
)
def test_models_that_cannot_be_read_are_refused(model, spoil, match):
    sparse, images, _ = model
    spoil(sparse)
    with pytest.raises(ImportSourceError, match=match) as error:
        ColmapSource(sparse, images)
    assert "\n" not in str(error.value) and str(sparse) in str(error.value)


def test_missing_folders_are_reported_and_a_missing_pycolmap_is_not_missed(model, tmp_path, monkeypatch):
    sparse, images, _ = model
    with pytest.raises(ImportSourceError, match="not a folder"):
        ColmapSource(tmp_path / "none", images)
    with pytest.raises(ImportSourceError, match="not a folder"):
        ColmapSource(sparse, tmp_path / "none")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert ColmapSource(sparse, images).names() == NAMES


def test_kitchen_points_reproject_onto_their_pixels(shared):
    """OpenCV's projection at the TUM pose, against where the descriptors were sampled."""
    folder = shared / "data/kitchen"
    source = ColmapSource(folder / "sparse", folder / "images", folder / "map.txt")
    camera = read_cameras_txt(folder / "sparse/cameras.txt")[1]
    assert len(source.names()) == 63
    for name in source.names()[::20]:
        keyframe = source.keyframe(name, builder())
        assert keyframe.camera == camera and 100 < len(keyframe.points) <= 500
        T = invert(keyframe.T_map_cam)
        expected = cv2.projectPoints(
            keyframe.points.astype(np.float64),
            cv2.Rodrigues(T[:3, :3])[0],
            T[:3, 3],
            camera.K,
            np.array(camera.distortion),
        )[0][:, 0]
        # within half a cell of the border the sampled place is clamped
        inside = ((expected > 8) & (expected < (630, 470))).all(1)
        error = (pixels_of(keyframe.coarse) - expected)[inside]
        assert np.median(np.linalg.norm(error, axis=1)) < 1.0
        assert (np.abs(np.mean(error, axis=0)) < 0.15).all()  # half a pixel off would show


def rewrite(path, change):
    """Replaces the lines of a text file by ``change`` of them."""
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def written_binary(sparse, folder):
    folder.mkdir()
    pycolmap.Reconstruction(str(sparse)).write_binary(str(folder))
    return folder


@pytest.mark.parametrize("binary", [False, True])
def test_observations_of_points_that_the_model_lacks_are_left_out_and_counted(model, tmp_path, binary):
    sparse, images, (_, points, _) = model
    if binary:
        sparse = written_binary(sparse, tmp_path / "binary")
        data = bytearray((sparse / "points3D.bin").read_bytes())
        struct.pack_into("<Q", data, 8, 9999)  # the first point gets an id that no image names
        gone = 1
        (sparse / "points3D.bin").write_bytes(data)
    else:
        gone = 5
        rewrite(sparse / "points3D.txt", lambda lines: lines[:-gone])
    source = ColmapSource(sparse, images)
    assert any(f"{2 * gone} of 120 observations name points that points3D" in note for note in source.notes)
    keyframe = source.keyframe("b.png", builder())
    assert len(keyframe.points) == 60 - gone
    np.testing.assert_allclose(keyframe.points, points[keyframe.point_ids - 100], atol=1e-6)


def test_points_that_are_not_finite_are_left_out_and_counted(model):
    sparse, images, _ = model
    rewrite(sparse / "points3D.txt", lambda lines: [lines[0].replace(lines[0].split()[1], "nan"), *lines[1:]])
    source = ColmapSource(sparse, images)
    assert any("1 points are not finite" in note for note in source.notes)
    assert len(source.keyframe("b.png", builder()).points) == 59


def test_a_model_without_points_is_refused_with_the_command_that_takes_it(model):
    sparse, images, _ = model
    (sparse / "points3D.txt").write_text("")
    rewrite(sparse / "images.txt", lambda lines: [line for line in lines if len(line.split()) < 30])
    with pytest.raises(ImportSourceError, match="no 3D point that an image shows.*nre_ros map build posed"):
        ColmapSource(sparse, images)


def test_an_image_whose_camera_is_missing_is_left_out_alone(model):
    sparse, images, _ = model
    rewrite(sparse / "images.txt", lambda lines: [lines[0], lines[1].replace(" 3 b.png", " 7 b.png"), *lines[2:]])
    source = ColmapSource(sparse, images)
    with pytest.raises(CameraError, match="no camera 7"):
        source.keyframe("b.png", builder())
    assert source.keyframe("sub/a.png", builder()).name == "sub/a.png"


def test_names_with_spaces_are_read_whole(model):
    sparse, images, _ = model
    rewrite(sparse / "images.txt", lambda lines: [line.replace("b.png", "b c  d.png") for line in lines])
    (images / "b.png").rename(images / "b c  d.png")
    assert ColmapSource(sparse, images).keyframe("b c  d.png", builder()).name == "b c  d.png"


def test_byte_order_marks_headers_and_windows_line_ends_are_read(model):
    sparse, images, (poses, _, _) = model
    headers = {
        "cameras": "CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]",
        "images": "IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\r\nPOINTS2D[] as (X, Y, POINT3D_ID)",
        "points3D": "POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)",
    }
    for stem, header in headers.items():
        text = (sparse / f"{stem}.txt").read_text().replace("\n", "\r\n")
        (sparse / f"{stem}.txt").write_bytes(b"\xef\xbb\xbf" + f"{header}\r\n{text}".encode())
    source = ColmapSource(sparse, images)
    assert source.names() == NAMES and not source.notes
    for name in NAMES:
        keyframe = source.keyframe(name, builder())
        np.testing.assert_allclose(keyframe.T_map_cam, poses[name], atol=1e-12)
        assert len(keyframe.points) == 60


def test_poses_are_colmaps_to_the_bit(shared):
    for name in ("kitchen", "lund_door"):
        folder = shared / "data" / name
        source = ColmapSource(folder / "sparse", folder / "images")
        for image in pycolmap.Reconstruction(str(folder / "sparse")).images.values():
            theirs = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
            np.testing.assert_array_equal(source.pose_and_camera(image.name)[0][:3], theirs.inverse().matrix())


RIGS = "1 2 CAMERA 3 CAMERA 4 1 0.7071067811865476 0 0.7071067811865476 0 0.2 0 0\n"
FRAMES = "1 1 1 0 0 0 -1 -2 -3 2 CAMERA 3 1 CAMERA 4 2\n"
RIG_CAMERAS = "".join(f"{i} PINHOLE 320 240 300 310 160 120\n" for i in (3, 4))
RIG_IMAGES = "1 1 0 0 0 9 9 9 3 b.png\n10 10 100\n2 1 0 0 0 9 9 9 4 sub/a.png\n20 20 100\n"


def rig_model(folder, **files):
    folder.mkdir()
    texts = {"cameras": RIG_CAMERAS, "images": RIG_IMAGES, "points3D": "100 0 0 5 1 2 3 0.5 1 0 2 0\n"}
    for stem, text in {**texts, "rigs": RIGS, "frames": FRAMES, **files}.items():
        if text is not None:
            (folder / f"{stem}.txt").write_text(text)
    return folder


@pytest.mark.parametrize("binary", [False, True])
def test_poses_come_from_frames_and_rigs_as_colmaps_do_and_a_difference_is_reported(model, tmp_path, binary):
    _, images, _ = model
    sparse = rig_model(tmp_path / "rig")
    theirs = pycolmap.Reconstruction(str(sparse))
    if binary:
        sparse = written_binary(sparse, tmp_path / "rig_binary")
        data = bytearray((sparse / "images.bin").read_bytes())
        struct.pack_into("<d", data, 12 + 32, 9.0)  # tx of the first image
        (sparse / "images.bin").write_bytes(data)
    for source in (ColmapSource(sparse, images), ColmapPosesSource(sparse, images)):
        for image in theirs.images.values():
            expected = image.cam_from_world().inverse().matrix()
            np.testing.assert_allclose(source.pose_and_camera(image.name)[0][:3], expected, atol=1e-12)
        (note,) = (note for note in source.notes if "frames" in note)
        assert f"{1 if binary else 2} of 2 images have another pose" in note and "as by COLMAP" in note


@pytest.mark.parametrize("other", ["1 0 0 0 -500001 -4000001 0", "0.99 0 0.14 0 -500000 -4000000 0"])
def test_poses_that_differ_are_reported_in_utm_coordinates_too(tmp_path, other):
    same = "1 0 0 0 -500000 -4000000 0"
    images = f"1 {same} 3 b.png\n\n2 {same} 3 c.png\n\n"
    frames = f"1 1 {other} 1 CAMERA 3 1\n2 1 {same} 1 CAMERA 3 2\n"
    sparse = rig_model(tmp_path / "rig", images=images, rigs="1 1 CAMERA 3\n", frames=frames)
    (note,) = ColmapPosesSource(sparse, tmp_path).notes
    assert "1 of 2 images have another pose in frames.txt" in note
    (sparse / "frames.txt").write_text(f"1 1 {same} 1 CAMERA 3 1\n2 1 {same} 1 CAMERA 3 2\n")
    assert not ColmapPosesSource(sparse, tmp_path).notes


@pytest.mark.parametrize(
    "files, name, words",
    [
        ({"frames": "1 1 1 0 0 0 -1 -2 -3 1 CAMERA 4 2\n"}, "b.png", "no frame of the model has image 1"),
        ({"rigs": RIGS.replace("1 2", "5 2", 1)}, "b.png", "no rig 1"),
        ({"rigs": "1 1 CAMERA 3\n"}, "sub/a.png", "no camera 4 on rig 1"),
        ({"rigs": "1 2 CAMERA 3 CAMERA 4 0\n"}, "sub/a.png", "place of camera 4 on rig 1 is not known"),
        ({"rigs": RIGS.replace("0.7071067811865476", "0.9")}, "sub/a.png", "length 1.27"),
    ],
)
def test_images_without_a_pose_by_their_rig_are_left_out_one_by_one(model, tmp_path, files, name, words):
    _, images, _ = model
    source = ColmapPosesSource(rig_model(tmp_path / "rig", **files), images)
    with pytest.raises(PoseError, match=words):
        source.pose(name)
    if "length" not in words:
        assert any("of 2 images have no pose in frames.txt and rigs.txt" in note for note in source.notes)


def test_frames_without_rigs_are_not_used(model, tmp_path):
    _, images, _ = model
    source = ColmapPosesSource(rig_model(tmp_path / "rig", rigs=None), images)
    np.testing.assert_allclose(source.pose("b.png")[1][:3, 3], [-9, -9, -9])
    assert "frames.txt is not used, since rigs.txt is missing" in source.notes[0]


@pytest.mark.parametrize("stem, text", [("rigs", "1 2 CAMERA\n"), ("frames", "1 1 1 0 0 zero\n")])
def test_rigs_and_frames_that_cannot_be_read_are_refused(model, tmp_path, stem, text):
    _, images, _ = model
    with pytest.raises(ImportSourceError, match=f"{stem}.txt: line 1 is not as COLMAP writes it"):
        ColmapPosesSource(rig_model(tmp_path / "rig", **{stem: text}), images)


@pytest.mark.parametrize("given", ["project", "project/sparse"])
def test_of_several_models_the_largest_is_read_and_reported(model, tmp_path, given):
    sparse, images, (poses, _, _) = model
    models = tmp_path / "project/sparse"
    models.mkdir(parents=True)
    rig_model(models / "0", images=RIG_IMAGES.splitlines()[0] + "\n\n", rigs=None, frames=None)
    sparse.rename(models / "1")
    (models / "notes.txt").write_text("no model")
    for source in (ColmapSource(tmp_path / given, images), ColmapPosesSource(tmp_path / given, images)):
        assert source.names() == NAMES
        np.testing.assert_allclose(source.pose_and_camera("b.png")[0], poses["b.png"], atol=1e-12)
        assert "sparse/1 is read: it has 2 images; beside it are 0 (1 images)" in source.notes[0]


def test_of_a_binary_and_a_text_model_in_one_folder_the_binary_one_is_read_as_by_colmap(model, tmp_path):
    sparse, images, (poses, _, _) = model
    written_binary(sparse, tmp_path / "binary")
    for file in (tmp_path / "binary").iterdir():
        file.rename(sparse / file.name)
    assert not ColmapSource(sparse, images).notes
    rewrite(sparse / "images.txt", lambda lines: [lines[0], lines[1].replace(lines[1].split()[5], "7"), *lines[2:]])
    for source in (ColmapSource(sparse, images), ColmapPosesSource(sparse, images)):
        np.testing.assert_allclose(source.pose_and_camera("b.png")[0], poses["b.png"], atol=1e-12)
        (note,) = source.notes
        assert "not the same model: 2 and 2 images, 1 with another pose" in note and "images.bin is used" in note


def test_a_model_in_two_forms_is_refused_with_points_and_reported_without(model):
    sparse, images, _ = model
    (sparse / "cameras.bin").write_bytes(struct.pack("<QIiQQ4d", 1, 3, 1, 320, 240, 300, 310, 160, 120))
    (sparse / "cameras.txt").unlink()
    with pytest.raises(ImportSourceError, match="cameras.bin, images.txt, points3D.txt are not all .bin or all .txt"):
        ColmapSource(sparse, images)
    assert "cameras.bin, images.txt are read together" in ColmapPosesSource(sparse, images).notes[0]


def test_names_with_spaces_are_read_from_text_models(model):
    sparse, images, (poses, _, _) = model
    text = (sparse / "images.txt").read_text()
    (sparse / "images.txt").write_text(text.replace("sub/a.png", "sub/my image (1) 2.png"))
    (images / "sub/a.png").rename(images / "sub/my image (1) 2.png")
    for source in (ColmapSource(sparse, images), ColmapPosesSource(sparse, images)):
        assert source.names() == ["b.png", "sub/my image (1) 2.png"]
        np.testing.assert_allclose(source.pose_and_camera("sub/my image (1) 2.png")[0], poses["sub/a.png"], atol=1e-12)
        assert source.image_to_check("sub/my image (1) 2.png").shape == (240, 320, 3)


def test_an_image_that_exif_turns_is_refused_with_the_cure(model):
    sparse, images, _ = model
    source = ColmapSource(sparse, images)
    cv2.imwrite(str(images / "b.png"), np.zeros((320, 240, 3), np.uint8))
    with pytest.raises(ImageError, match="240x320 .* 320x240 .*EXIF orientation.*mogrify -auto-orient"):
        source.keyframe("b.png", builder())
