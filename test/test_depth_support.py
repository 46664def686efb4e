# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depth support of points: confirmed, contradicted, hidden and unseen ones, in closed form."""

import numpy as np

from nre_ros.geometry import Camera
from nre_ros.keyframes.building.depth_support import DepthView, depth_support, support_weights


def test_depth_images_confirm_points_contradict_them_or_show_nothing():
    camera = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
    depth = np.full((48, 64), 2.0, np.float32)
    depth[:, 40:] = 1.0
    depth[:8] = 0.0
    T_map_cam = np.eye(4)
    T_map_cam[2, 3] = -1.0
    view = DepthView(T_map_cam, camera, depth)
    points = np.array(
        [
            [0, 0, 1.02],
            [0, 0, 0.5],  # on the surface within the tolerance; seen through
            [0.4, 0, 1.0],  # behind the nearer panel: hidden
            [0, -0.8, 1.0],
            [5.0, 0, 1.0],
            [0, 0, -3.0],  # no depth there; beside the image; behind the camera
        ]
    )
    confirmed, contradicted = depth_support(points, [view, view])
    np.testing.assert_array_equal(confirmed, [2, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(contradicted, [0, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(support_weights(np.array([2, 0, 1, 0]), np.array([0, 2, 2, 0])), [1.0, 0.1, 0.1, 0.5])
