# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes and a tiny backbone for tests in which the real network does not matter."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

from nre_ros.features.base import FeatureBackbone, FeatureGrid, FeatureMap, ImageFeatures, check_image
from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe

CAMERA = Camera(640, 480, 524.2, 521.7, 319.5, 239.5, "radial_tangential", (-0.07, 0.02, -0.0013, 0.0004))


class PlaceBackbone(FeatureBackbone):
    """Features that say where they are: a descriptor sampled at pixel (x, y) is along (x, y, 100, grey).

    Linear in x and y, so bilinear sampling is exact and ``pixels_of`` tells where it was sampled.
    """

    name = "place"
    coarse_channels = fine_channels = 4
    coarse_temperature = fine_temperature = 0.1
    weights_hash = "0" * 64

    def extract(self, image, detect=False, fine=True):
        image = check_image(image)
        grey = torch.as_tensor(image.reshape(*image.shape[:2], -1).mean(2), dtype=torch.float32)
        detection = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0)) if detect else None
        return ImageFeatures(self._map(grey, 8), self._map(grey, 4), detection)

    def _map(self, grey, stride):
        grid = FeatureGrid(stride, (stride - 1) / 2)
        data = F.avg_pool2d(grey[None, None], stride)[0, 0]
        height, width = data.shape
        x = grid.to_pixels(torch.arange(width, dtype=torch.float32)).expand(height, width)
        y = grid.to_pixels(torch.arange(height, dtype=torch.float32))[:, None].expand(height, width)
        return FeatureMap(torch.stack([x, y, torch.full_like(x, 100.0), data]), grid)


def pixels_of(descriptors):
    """The pixels [N, 2] at which descriptors [N, 4] of ``PlaceBackbone`` were sampled."""
    return descriptors[:, :2] / descriptors[:, 2:3] * 100.0


def random_pose(rng):
    T = np.eye(4)
    T[:3, :3] = Rotation.random(random_state=rng.integers(1 << 31)).as_matrix()
    T[:3, 3] = rng.normal(size=3)
    return T


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def random_keyframe(name, seed, points=500, channels=64, background=128, dimensions=2080, fine=32, **changes):
    """A keyframe of random numbers with the sizes of the real ones."""
    rng = np.random.default_rng(seed)
    values = dict(
        name=name,
        stamp=1_700_000_000_123_456_789 + seed,
        T_map_cam=random_pose(rng),
        camera=CAMERA,
        points=rng.normal(size=(points, 3)).astype(np.float32),
        coarse=unit(rng.normal(size=(points, channels))),
        fine=unit(rng.normal(size=(points, fine))),
        background=unit(rng.normal(size=(background, channels))),
        background_cells=4800,
        global_descriptor=unit(rng.normal(size=dimensions)),
        point_ids=rng.integers(0, 1 << 24, points),
        thumbnail=rng.bytes(5000),
    )
    return Keyframe(**{**values, **changes})


UTM = np.eye(4)
"""The frame of a map in UTM coordinates, and turned: motion from the map's old frame."""
UTM[:3, :3] = Rotation.from_euler("zyx", [130, 20, -10], degrees=True).as_matrix()
UTM[:3, 3] = 500_000.25, 5_400_000.5, 300.75


def moved_keyframe(keyframe, T=UTM):
    """A keyframe after a motion T [4, 4] of its map, in double precision."""
    points = np.asarray(keyframe.points, dtype=np.float64) @ T[:3, :3].T + T[:3, 3]
    return replace(keyframe, T_map_cam=T @ keyframe.T_map_cam, points=points)


def moved_map(source, path, T=UTM, frame="map"):
    """Writes a map whose keyframes are those of the map ``source`` after a motion T [4, 4]."""
    with KeyframeStore.open(source) as old:
        metadata = old.metadata()
        made_with = metadata["backbone"], metadata["weights_hash"]
        with KeyframeStore.create(path, *made_with, frame, retrieval=metadata["retrieval"]) as store:
            for keyframe_id in old.names().values():
                store.add(moved_keyframe(old.get(keyframe_id), T))
    return path
