# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Compatible views of a map point: where the limits of scale and direction lie, by geometry."""

import math

import numpy as np
import pytest
import torch

from nre_ros.features.base import network_focal_length
from nre_ros.geometry import Camera
from nre_ros.nre.viewpoints import compatible_views


def compatible(T, points, directions, camera):
    """Within a factor of 1.5 in scale and 25 degrees."""
    return compatible_views(T, points, directions.float(), camera, 1.5, math.cos(math.radians(25.0)))


def test_the_scale_of_a_point_is_measured_in_the_image_that_the_network_gets():
    """The same view by a camera of 640 pixels and by one of 2560: reduced to 1024, it is 1.6 times as large."""
    points = torch.tensor([[0.0, 0.0, 4.0]], dtype=torch.float64)
    for width, alike in ((640, True), (900, True), (1024, False), (2560, False)):
        camera = Camera(width, width * 3 // 4, 0.8 * width, 0.8 * width, width / 2, width * 3 / 8)
        found = compatible(torch.eye(4, dtype=torch.float64), points, points / (0.8 * 640), camera)
        assert found.tolist() == [alike], width
        as_in_query = points / network_focal_length(camera)
        assert compatible(torch.eye(4, dtype=torch.float64), points, as_in_query, camera).tolist() == [True]


@pytest.mark.parametrize(
    "keyframe, focal, alike",
    [
        ((0.0, 0.0, 0.0), 260.0, True),  # from the same place
        ((4.0 * np.tan(np.radians(20)), 0.0, 0.0), 260.0, True),
        ((4.0 * np.tan(np.radians(30)), 0.0, 0.0), 260.0, False),
        ((0.0, 0.0, 1.2), 260.0, True),
        ((0.0, 0.0, 1.5), 260.0, False),  # nearer: 4 / 2.8 and 4 / 2.5 times as large
        ((0.0, 0.0, -1.8), 260.0, True),
        ((0.0, 0.0, -2.2), 260.0, False),  # further
        ((0.0, 0.0, 0.0), 400.0, False),
        ((0.0, 0.0, -2.0), 390.0, True),  # a longer lens, and one that makes up for it
    ],
)
def test_views_are_compatible_from_a_similar_direction_and_at_a_similar_scale(keyframe, focal, alike):
    """A point 4 m in front of a query with a focal length of 260 pixels."""
    query = np.eye(4)
    query[:3, 3] = (0.3, -0.2, 1.0)  # map to camera: the map's origin lies elsewhere
    points = torch.tensor([[0.0, 0.0, 4.0]], dtype=torch.float64) - torch.from_numpy(query[:3, 3])
    centre = torch.tensor(keyframe, dtype=torch.float64) - torch.from_numpy(query[:3, 3])
    camera = Camera(320, 240, 260.0, 260.0, 160.0, 120.0)
    found = compatible(torch.from_numpy(query), points, (points - centre) / focal, camera)
    assert found.tolist() == [alike]
