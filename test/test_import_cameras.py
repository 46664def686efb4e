# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP's camera models become ours, half a pixel apart."""

import cv2
import numpy as np
import pytest
import torch

from nre_ros.errors import CameraError, ImportSourceError
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.cameras import camera_from_colmap, read_cameras_txt, write_cameras_txt

MODELS = {
    "SIMPLE_PINHOLE": [500, 320, 240],
    "PINHOLE": [500, 510, 318, 242],
    "SIMPLE_RADIAL": [500, 320, 240, -0.1],
    "RADIAL": [500, 320, 240, -0.1, 0.03],
    "OPENCV": [500, 510, 318, 242, -0.1, 0.03, 0.002, -0.001],
    "FULL_OPENCV": [500, 510, 318, 242, -0.1, 0.03, 0.002, -0.001, 0.01, 0.02, -0.01, 0.003],
    "OPENCV_FISHEYE": [500, 510, 318, 242, -0.03, 0.01, -0.004, 0.001],
}


@pytest.mark.parametrize("model", MODELS)
def test_projections_equal_colmaps_minus_half_a_pixel(model):
    pycolmap = pytest.importorskip("pycolmap")
    theirs = pycolmap.Camera(model=model, width=640, height=480, params=MODELS[model])
    points = np.random.default_rng(0).uniform([-0.6, -0.5, 1], [0.6, 0.5, 1.2], (50, 3))
    pixels, valid, _ = camera_from_colmap(model, 640, 480, MODELS[model]).project(torch.as_tensor(points))
    assert valid.all()
    np.testing.assert_allclose(pixels.numpy(), theirs.img_from_cam(points) - 0.5, atol=1e-9)


@pytest.mark.parametrize(
    "model, parameters, match",
    [
        ("FOV", [1, 1, 1, 1, 1], "FOV"),
        ("THIN_PRISM_FISHEYE", [1] * 12, "THIN_PRISM_FISHEYE"),
        ("PINHOLE", [1, 2, 3], "4 parameters, got 3"),
        ("PINHOLE", [0, 500, 1, 1], "fx=0"),
        ("SIMPLE_RADIAL", [500, 1, 1, float("nan")], "finite"),
    ],
)
def test_unsupported_models_and_wrong_values_are_reported(model, parameters, match):
    with pytest.raises(CameraError, match=match):
        camera_from_colmap(model, 640, 480, parameters)


def test_written_cameras_are_read_back_here_and_by_colmap(tmp_path):
    cameras = {
        1: Camera(640, 480, 500.25, 510.5, 319.5, 239.5),
        4: Camera(64, 48, 50.1, 51.0, 31.5, 23.5, "radial_tangential", (0.1, 0.2, 0.003, 0.004)),
        5: Camera(64, 48, 50.1, 51.0, 31.5, 23.5, "radial_tangential", (0.1, 0.2, 0.003, 0.004, 0, 0, 0, 0.1)),
        9: Camera(64, 48, 50.1, 51.0, 31.5, 23.5, "equidistant", (0.1, 0.2, 0.03, 0.004)),
    }
    path = tmp_path / "cameras.txt"
    write_cameras_txt(path, cameras)
    assert read_cameras_txt(path) == cameras
    pycolmap = pytest.importorskip("pycolmap")
    (tmp_path / "images.txt").write_text("")
    (tmp_path / "points3D.txt").write_text("")
    model = pycolmap.Reconstruction(str(tmp_path))
    assert {i: (c.width, c.height) for i, c in model.cameras.items()} == {
        i: (c.width, c.height) for i, c in cameras.items()
    }
    np.testing.assert_allclose(model.cameras[1].params, [500.25, 510.5, 320, 240])


@pytest.mark.parametrize(
    "text, match",
    [
        ("", "no camera"),
        ("# nothing\n", "no camera"),
        ("1 PINHOLE 640\n", "cameras.txt"),
        ("hello world\n", "hello"),
        ("1 PINHOLE 640 480 a b c d\n", "a b c d"),
    ],
)
def test_wrong_camera_files_are_refused(tmp_path, text, match):
    path = tmp_path / "cameras.txt"
    path.write_text(text)
    with pytest.raises(ImportSourceError, match=match) as error:
        read_cameras_txt(path)
    assert str(path) in str(error.value)


def test_a_refused_camera_model_is_reported_with_file_and_camera(tmp_path):
    path = tmp_path / "cameras.txt"
    path.write_text("7 FOV 640 480 1 2 3 4 5\n")
    with pytest.raises(CameraError, match="camera 7.*FOV"):
        read_cameras_txt(path)
    with pytest.raises(ImportSourceError, match="No such file"):
        read_cameras_txt(tmp_path / "none.txt")


def test_the_kitchens_camera_projects_as_opencvs(shared):
    camera = read_cameras_txt(shared / "data/kitchen/sparse/cameras.txt")[1]
    assert (camera.width, camera.height, camera.cx, camera.cy) == (640, 480, 319.5, 239.5)
    point = np.array([[0.2, -0.1, 1.0]])
    expected = cv2.projectPoints(point, np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion))[0][:, 0]
    np.testing.assert_allclose(camera.project(torch.as_tensor(point))[0].numpy(), expected, atol=1e-6)
