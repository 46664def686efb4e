# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth of one camera seen from another: a wall in closed form, with what stands before it."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nre_ros.geometry import Camera
from nre_ros.keyframes.building.depth_registration import register_depth
from nre_ros.keyframes.building.point_selection import smooth_depth

COLOUR = Camera(160, 120, 131.0, 129.0, 80.2, 58.9)
T_COLOUR_DEPTH = np.eye(4)
T_COLOUR_DEPTH[:3, :3] = Rotation.from_rotvec([0.01, -0.02, 0.008]).as_matrix()
T_COLOUR_DEPTH[:3, 3] = [-0.03, 0.004, 0.002]


def plane_depth(camera, normal, distance):
    """Depth [H, W] of the plane normal . x = distance in the camera's own frame (no distortion)."""
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones(x.shape)], axis=-1)
    return distance / (rays @ normal)


def in_colour(normal, distance):
    """The plane in the colour camera's frame."""
    turned = T_COLOUR_DEPTH[:3, :3] @ normal
    return turned, distance + turned @ T_COLOUR_DEPTH[:3, 3]


@pytest.mark.parametrize("size", [(160, 120, 146.0), (80, 60, 73.0), (320, 240, 292.0)])
def test_a_slanted_wall_is_where_it_should_be_without_holes(size):
    width, height, focal = size
    camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    normal, distance = np.array([0.25, -0.15, 1.0]), 2.5
    found = register_depth(plane_depth(camera, normal, distance), camera, COLOUR, T_COLOUR_DEPTH)
    expected = plane_depth(COLOUR, *in_colour(normal, distance))
    inside = np.zeros(found.shape, bool)
    inside[12:-12, 14:-14] = True
    assert (found[inside] > 0).all()
    # a measurement is at most about a pixel of the coarser image away from where it is asked for
    pixel = max(1.0, 160 / width)
    steepest = max(np.abs(np.diff(expected, axis=axis)).max() for axis in (0, 1)) * pixel * 2
    assert np.abs(found - expected)[inside].max() < steepest
    assert np.median(np.abs(found / expected - 1)[inside]) < 0.004


def test_the_nearer_surface_wins_and_missing_depth_stays_missing():
    camera = Camera(160, 120, 146.0, 146.0, 79.5, 59.5)
    ahead = np.array([0, 0, 1.0])
    depth = plane_depth(camera, ahead, 3.0)
    depth[40:80, 60:100] = 1.0
    depth[:, :30] = 0.0
    depth[100:, 120:] = np.nan
    found = register_depth(depth, camera, COLOUR, T_COLOUR_DEPTH)
    wall, panel = (plane_depth(COLOUR, *in_colour(ahead, distance)) for distance in (3.0, 1.0))
    known = found > 0
    assert (np.minimum(np.abs(found - wall), np.abs(found - panel))[known] < 0.02).all()
    # the panel's corners, moved by hand
    corners = np.array([[(u - 79.5) / 146, (v - 59.5) / 146, 1.0] for u, v in ((62, 42), (97, 77))])
    moved = corners @ T_COLOUR_DEPTH[:3, :3].T + T_COLOUR_DEPTH[:3, 3]
    (left, top), (right, bottom) = np.rint(moved[:, :2] / moved[:, 2:] * [131.0, 129.0] + [80.2, 58.9]).astype(int)
    assert (np.abs(found - panel)[top:bottom, left:right] < 0.02).all()
    assert (found[:, :20] == 0).all() and (found[110:, 130:] == 0).all()
    # no point of the map is made on the border between the two
    edge = np.array([(59.5 - 79.5) / 146, 0, 1.0]) @ T_COLOUR_DEPTH[:3, :3].T + T_COLOUR_DEPTH[:3, 3]
    column = int(edge[0] / edge[2] * 131.0 + 80.2)
    assert (smooth_depth(found)[top:bottom, column - 1 : column + 2] == 0).all()


def test_equal_cameras_in_one_place_leave_depth_as_it_is():
    depth = np.random.default_rng(0).uniform(1, 3, (120, 160)).astype(np.float32)
    np.testing.assert_allclose(register_depth(depth, COLOUR, COLOUR, np.eye(4)), depth, rtol=1e-6)
