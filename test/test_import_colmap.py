# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP models: text by hand and binary by pycolmap give the same keyframes, where they belong."""

import subprocess
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

pycolmap = pytest.importorskip("pycolmap", reason="needs pycolmap to read COLMAP models")
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource  # noqa: E402

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
        (lambda sparse: (sparse / "images.txt").write_text(""), "cannot be read"),
    ],
)
def test_models_that_cannot_be_read_are_refused(model, spoil, match):
    sparse, images, _ = model
    spoil(sparse)
    with pytest.raises(ImportSourceError, match=match) as error:
        ColmapSource(sparse, images)
    assert "\n" not in str(error.value) and str(sparse) in str(error.value)


def test_missing_folders_and_a_missing_pycolmap(model, tmp_path, monkeypatch):
    sparse, images, _ = model
    with pytest.raises(ImportSourceError, match="not a folder"):
        ColmapSource(tmp_path / "none", images)
    with pytest.raises(ImportSourceError, match="not a folder"):
        ColmapSource(sparse, tmp_path / "none")
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ImportSourceError, match="pip install pycolmap"):
        ColmapSource(sparse, images)


def test_pycolmap_is_imported_only_to_read_a_model():
    code = (
        "import sys, nre_ros.keyframes.storage.store, nre_ros.keyframes.retrieval.retriever, nre_ros.keyframes.importers.colmap\n"
        "sys.exit('pycolmap' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


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
