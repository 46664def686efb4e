# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The gallery's pictures against closed-form geometry and OpenCV's camera models."""

import cv2
import numpy as np
import pytest

from nre_ros.errors import ImageError, PoseError
from nre_ros.gallery import Gallery, Quad, Texture, box, build_room, camera_pose
from nre_ros.geometry import Camera

CAMERAS = {
    "pinhole": Camera(160, 120, 130.0, 128.0, 79.5, 60.2),
    "plumb_bob": Camera(160, 120, 130.0, 128.0, 78.0, 61.0, "radial_tangential", (-0.28, 0.09, 1e-3, -2e-3, -0.01)),
    "rational": Camera(
        160, 120, 110.0, 112.0, 80.0, 58.0, "radial_tangential", (0.2, -0.1, 5e-4, 1e-3, 0.02, 0.5, -0.05, 0.01)
    ),
    "fisheye": Camera(160, 120, 80.0, 81.0, 79.0, 60.0, "equidistant", (0.02, -0.01, 2e-3, -1e-3)),
}


def opencv_rays(camera: Camera) -> np.ndarray:
    """[H, W, 3] rays (x, y, 1) of all pixels, by OpenCV."""
    pixels = np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), -1).reshape(-1, 1, 2)
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    if camera.model == "equidistant":
        xy = cv2.fisheye.undistortPoints(pixels.astype(float), camera.K, np.array(camera.distortion), criteria=criteria)
    else:
        distortion = np.array(camera.distortion or (0.0,) * 4)
        undistort = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)  # OpenCV 4, OpenCV 5
        xy = undistort(pixels.astype(float), camera.K, distortion, R=np.eye(3), P=np.eye(3), criteria=criteria)
    return np.concatenate([xy, np.ones_like(xy[..., :1])], -1).reshape(camera.height, camera.width, 3)


def opencv_project(camera: Camera, T_map_cam: np.ndarray, points: np.ndarray) -> np.ndarray:
    T = np.linalg.inv(T_map_cam)
    rotation, translation = cv2.Rodrigues(T[:3, :3])[0], T[:3, 3:].copy()
    points = points.reshape(-1, 1, 3)
    if camera.model == "equidistant":
        return cv2.fisheye.projectPoints(points, rotation, translation, camera.K, np.array(camera.distortion))[0][:, 0]
    distortion = np.array(camera.distortion or (0.0,) * 4)
    return cv2.projectPoints(points, rotation, translation, camera.K, distortion)[0][:, 0]


def facing(distance: float, size: float, texture: np.ndarray, z: float = 1.0) -> Quad:
    """A square in the plane x = distance that faces the origin, centred at height z."""
    corner = np.array([distance, size / 2, z + size / 2])
    return Quad(corner, np.array([0, -size, 0]), np.array([0, 0, -size]), Texture(texture))


def plain(grey: int) -> np.ndarray:
    return np.full((32, 32, 3), grey, np.uint8)


@pytest.fixture(scope="module")
def room() -> list[Quad]:
    return build_room(seed=3, pixels_per_metre=60)


@pytest.mark.parametrize("name", CAMERAS)
def test_depth_and_visibility_are_those_of_rays_and_planes(room, name):
    camera = CAMERAS[name]
    T = camera_pose([-1.6, 1.0, 1.3], yaw=-0.6, pitch=-0.15)
    view = Gallery(room).render(camera, T)
    directions = opencv_rays(camera) @ T[:3, :3].T
    nearest, index = np.full(view.depth.shape, np.inf), np.full(view.depth.shape, -1)
    for i, quad in enumerate(room):
        normal = np.cross(quad.right, quad.down)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = ((quad.corner - T[:3, 3]) @ normal) / (directions @ normal)
            hit = T[:3, 3] + z[..., None] * directions - quad.corner
            a, b = hit @ quad.right / (quad.right @ quad.right), hit @ quad.down / (quad.down @ quad.down)
        seen = (z > 0) & (directions @ normal > 0) & (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1) & (z < nearest)
        nearest[seen], index[seen] = z[seen], i
    same = view.labels == index
    assert same.mean() > 0.999  # the rest: rays that graze an edge, within rounding
    assert len(np.unique(index)) >= 7
    np.testing.assert_allclose(view.depth[same], nearest[same], rtol=2e-5)


@pytest.mark.parametrize("supersample", [1, 2, 3])
@pytest.mark.parametrize("name", CAMERAS)
def test_texture_points_appear_where_opencv_projects_them(name, supersample):
    camera = CAMERAS[name]
    texture = np.zeros((512, 512, 3), np.uint8)
    y, x = np.mgrid[:512, :512]
    spots = [(60, 50), (256, 256), (420, 80), (90, 430), (447, 460)]
    for u, v in spots:
        spot = 255 * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 10.0**2))
        texture = np.maximum(texture, spot[..., None].astype(np.uint8))
    quad = facing(2.0, 1.5, texture)
    T = camera_pose([0.2, 0.3, 1.1], yaw=-0.15, pitch=-0.1)
    image = Gallery([quad]).render(camera, T, supersample).image[..., 0].astype(float)
    points = np.array([quad.point((u + 0.5) / 512, (v + 0.5) / 512) for u, v in spots])
    inside = 0
    for u, v in opencv_project(camera, T, points):
        if not (8 < u < camera.width - 9 and 8 < v < camera.height - 9):
            continue
        inside += 1
        rows, columns = np.mgrid[round(v) - 8 : round(v) + 9, round(u) - 8 : round(u) + 9]
        weight = image[rows, columns]
        centroid = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose(centroid, (u, v), atol=0.06)
    assert inside >= 4


def test_a_texel_a_pixel_gives_the_texture_back():
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    quad = Quad(np.array([2.0, 0.5, 0.375]), np.array([0, -1.0, 0]), np.array([0, 0, -0.75]), Texture(texture))
    camera = Camera(64, 48, 128.0, 128.0, 31.5, 23.5)
    view = Gallery([quad]).render(camera, camera_pose([0, 0, 0], 0.0), supersample=1)
    assert np.abs(view.image.astype(int) - texture).max() <= 2
    np.testing.assert_allclose(view.depth, 2.0, rtol=1e-6)


def test_two_views_agree_through_depth_and_poses(room):
    camera = Camera(320, 240, 260.0, 260.0, 159.5, 119.5, "radial_tangential", (-0.1, 0.02, 1e-3, 0.0))
    gallery = Gallery(room)
    T_a, T_b = camera_pose([-0.9, -1.2, 1.3], 0.5), camera_pose([-1.2, -1.0, 1.45], 0.42, -0.05)
    a, b = gallery.render(camera, T_a), gallery.render(camera, T_b)
    points = opencv_rays(camera) * a.depth[..., None]
    in_map = points.reshape(-1, 3) @ T_a[:3, :3].T + T_a[:3, 3]
    in_b = (in_map - T_b[:3, 3]) @ T_b[:3, :3]
    u, v = (opencv_project(camera, T_b, in_map).reshape(240, 320, 2).astype(np.float32)[..., i] for i in (0, 1))
    warped = cv2.remap(b.image, u, v, cv2.INTER_LINEAR)
    depth_there = cv2.remap(b.depth, u, v, cv2.INTER_NEAREST)
    z = in_b[:, 2].reshape(240, 320)
    visible = (z > 0) & (np.abs(depth_there - z) < 0.02 * z)  # else hidden in b, or outside it
    assert visible.mean() > 0.5
    residual = np.abs(warped.astype(float) - a.image).mean(-1)
    assert np.median(residual[visible]) < 3
    shifted = np.abs(np.roll(warped, 2, axis=1).astype(float) - a.image).mean(-1)
    assert np.median(shifted[visible]) > 1.5 * np.median(residual[visible])  # so the test would notice 2 pixels


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_nearer_hides_what_is_farther(order):
    quads = [facing(3.0, 2.0, plain(200)), facing(2.0, 0.5, plain(50))][::order]
    camera = CAMERAS["pinhole"]
    view = Gallery(quads).render(camera, camera_pose([0, 0, 1.0], 0.0))
    assert view.image[60, 80].tolist() == [50, 50, 50] and view.depth[60, 80] == pytest.approx(2.0)
    assert view.image[60, 110].tolist() == [200, 200, 200] and view.depth[60, 110] == pytest.approx(3.0)


def test_where_nothing_is_there_is_no_depth():
    camera = CAMERAS["pinhole"]
    gallery = Gallery([facing(3.0, 1.0, plain(200))], background=(1, 2, 3))
    view = gallery.render(camera, camera_pose([0, 0, 1.0], 0.0))
    assert view.depth[5, 5] == 0 and view.labels[5, 5] == -1 and view.image[5, 5].tolist() == [1, 2, 3]
    behind = gallery.render(camera, camera_pose([0, 0, 1.0], np.pi))
    from_the_back = gallery.render(camera, camera_pose([5.0, 0, 1.0], np.pi))
    empty = Gallery([]).render(camera, np.eye(4))
    for nothing in (behind, from_the_back, empty):
        assert not nothing.depth.any() and (nothing.labels == -1).all()


def test_rays_that_the_lens_does_not_have_stay_empty():
    # r (1 - 0.5 r^2) grows up to 0.544 only: pixels farther from the centre have no ray
    camera = Camera(160, 120, 100.0, 100.0, 79.5, 59.5, "radial_tangential", (-0.5, 0.0, 0.0, 0.0))
    view = Gallery([facing(2.0, 30.0, plain(200))]).render(camera, camera_pose([0, 0, 1.0], 0.0))
    u, v = np.meshgrid(np.arange(160) - 79.5, np.arange(120) - 59.5)
    radius = np.hypot(u, v) / 100
    assert (view.depth[radius < 0.53] > 0).all()
    assert (view.depth[radius > 0.56] == 0).all()


def test_fine_patterns_far_away_become_grey_instead_of_moire():
    checks = np.uint8(255) * ((np.indices((512, 512)).sum(0) // 4) % 2).astype(np.uint8)
    camera = Camera(64, 64, 64.0, 64.0, 31.5, 31.5)
    view = Gallery([facing(2.0, 2.5, checks)]).render(camera, camera_pose([0, 0, 1.0], 0.0))
    assert abs(view.image.mean() - 127.5) < 2 and view.image.std() < 12


def test_boxes_show_their_outside_from_everywhere():
    shades = {"front": 40, "left": 80, "back": 120, "right": 160, "top": 200}
    gallery = Gallery(box([0, 0, 0], (0.4, 0.6, 0.8), 0.5, {side: Texture(plain(g)) for side, g in shades.items()}))
    for yaw, side in zip((0.5, 0.5 + np.pi / 2, 0.5 + np.pi, 0.5 - np.pi / 2), ("front", "left", "back", "right")):
        position = np.array([2 * np.cos(yaw), 2 * np.sin(yaw), 0.4])
        view = gallery.render(CAMERAS["pinhole"], camera_pose(position, yaw + np.pi))
        assert view.image[60, 80, 0] == shades[side]
        depth = 2 - (0.2 if side in ("front", "back") else 0.3)
        assert view.depth[60, 80] == pytest.approx(depth, abs=1e-5)
    above = gallery.render(CAMERAS["pinhole"], camera_pose([0, 0, 2.0], 0.0, -np.pi / 2))
    assert above.image[60, 80, 0] == shades["top"] and above.depth[60, 80] == pytest.approx(1.2, abs=1e-5)


def test_bad_input_is_named():
    gallery = Gallery([facing(2.0, 1.0, plain(9))])
    with pytest.raises(PoseError, match="nan"):
        gallery.render(CAMERAS["pinhole"], np.full((4, 4), np.nan))
    with pytest.raises(PoseError, match="rotation"):
        gallery.render(CAMERAS["pinhole"], np.diag([2.0, 1, 1, 1]))
    with pytest.raises(ImageError, match="float64"):
        Texture(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="no area"):
        Quad(np.zeros(3), np.ones(3), np.ones(3), Texture(plain(9)), "flat")
