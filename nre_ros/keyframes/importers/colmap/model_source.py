# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from COLMAP sparse models, text or binary, with their points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import WITHOUT_SUPPORT, KeyframeBuilder
from nre_ros.keyframes.building.point_selection import select_distributed
from nre_ros.keyframes.importers.colmap.cameras import HALF_PIXEL
from nre_ros.keyframes.importers.colmap.images_file import NO_POINT
from nre_ros.keyframes.importers.colmap.model import read_model
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.pose_checks import pose_from_wxyz
from nre_ros.keyframes.importers.text_files import check_folder, digest, read_list
from nre_ros.keyframes.types import Keyframe


class ColmapSource(MapSource):
    """The registered images of a COLMAP model, with the model's points. The stamps are 0.

    Observations of points that the model lacks are left out and counted.

    Args:
        sparse: Folder of the model, with cameras, images and points3D (.txt or .bin); see ``read_model``.
        images: Folder that the model's image names are relative to.
        list_path: File of image names, to import only these.

    Raises:
        ImportSourceError: The model cannot be read, or no image shows a point of it.
    """

    def __init__(self, sparse: Path | str, images: Path | str, list_path: Path | str | None = None) -> None:
        self.images = check_folder(images)
        self.list = None if list_path is None else read_list(list_path)
        self.model = read_model(sparse, points=True)
        self.sparse = self.model.folder
        assert self.model.points is not None  # since they were asked for
        self.points = self.model.points
        self.notes = (*self.model.notes, *self._check_references())

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return sorted(self.model.images) if self.list is None else self.list

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        files = sorted(file for file in self.sparse.iterdir() if file.suffix in (".txt", ".bin"))
        return {"importer": "colmap", "images_folder": str(self.images.resolve()), "model": digest(*files)}

    def pose_and_camera(self, name: str) -> tuple[npt.NDArray[np.float64], Camera]:
        """Returns pose and camera of an image; see ``MapSource``."""
        return _inverse_pose(self.model.pose_numbers(name)), self.model.camera(name)

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """Makes the keyframe of an image; see ``MapSource``."""
        T_map_cam, camera = self.pose_and_camera(name)
        pixels, ids = self.observations(name)
        if not len(ids):
            raise ImportSourceError("the model has no 3D point in this image")
        rows = self.points.find(ids)
        views = self.points.views[rows]
        # points of many views first; among equal ones the more precise
        scores = views + 1.0 / (1.0 + np.maximum(self.points.errors[rows], 0.0))
        chosen = select_distributed(pixels, scores, builder.points_per_keyframe, camera.width, camera.height)
        builder.tally[WITHOUT_SUPPORT] += int((views[chosen] < 2).sum())
        image = read_image(self.images / name)
        points = self.points.xyz[rows[chosen]]
        return builder.build(name, 0, image, camera, T_map_cam, pixels[chosen], points, ids[chosen])

    def image_to_check(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``MapSource``."""
        return read_image(self.images / name)

    def depth_to_check(self, name: str) -> npt.NDArray[np.float32] | None:
        """Returns the depths of the model's points around the places where the image shows them; see ``MapSource``."""
        T_map_cam, camera = self.pose_and_camera(name)
        pixels, ids = self.observations(name)
        depth = np.zeros((camera.height, camera.width), dtype=np.float32)
        points = self.points.xyz[self.points.find(ids)]
        z = (points - T_map_cam[:3, 3]) @ T_map_cam[:3, 2]
        for (x, y), value in zip(np.rint(pixels).astype(int), z):
            depth[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3] = max(value, 0.0)
        return depth

    def observations(self, name: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Returns the observations of 3D points in an image, each point once.

        Args:
            name: Name of the image.

        Returns:
            Pixels [N, 2] in this package's convention, and ids [N] of the points.
        """
        image = self.model.image(name)
        usable = (self.points.find(image.point_ids) >= 0) & np.isfinite(image.pixels).all(axis=1)
        # of several observations of a point, the last one, at the place of the first
        observed = dict(zip(image.point_ids[usable].tolist(), image.pixels[usable].tolist()))
        pixels = np.array(list(observed.values()), dtype=np.float64).reshape(-1, 2) - HALF_PIXEL
        return pixels, np.array(list(observed), dtype=np.int64)

    def _check_references(self) -> tuple[str, ...]:
        """A note if observations name points that the model lacks; an error if none names a point that it has."""
        named = dangling = 0
        for image in self.model.images.values():
            ids = image.point_ids[image.point_ids != NO_POINT]
            named += len(ids)
            dangling += int((self.points.find(ids) < 0).sum())
        if named == dangling:
            raise ImportSourceError(
                f"the COLMAP model in {self.sparse} has no 3D point that an image shows ({len(self.points.rows)} points, "
                f"{named} observations of points): use `nre_ros map build posed`, which triangulates points"
            )
        if not dangling:
            return ()
        return (
            f"{dangling} of {named} observations name points that points3D of {self.sparse} lacks, and are left out",
        )


def _inverse_pose(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """``T_map_cam`` [4, 4] of COLMAP's world-to-camera pose [7] qw qx qy qz tx ty tz.

    The order of the operations is that of Eigen, which pycolmap uses: to the bit, keyframes are those of maps that were
    made with it.
    """
    pose_from_wxyz(values[:4], values[4:])  # raises an error for numbers that are no pose
    w, x, y, z, *t = values.tolist()
    norm = (x * x + z * z) + (y * y + w * w)
    w, x, y, z = w / norm, -x / norm, -y / norm, -z / norm
    uv = [2 * value for value in _cross((x, y, z), t)]
    position = [-(t[i] + w * uv[i] + value) for i, value in enumerate(_cross((x, y, z), uv))]
    wx, wy, wz, xx, xy, xz = 2 * x * w, 2 * y * w, 2 * z * w, 2 * x * x, 2 * y * x, 2 * z * x
    yy, yz, zz = 2 * y * y, 2 * z * y, 2 * z * z
    return np.array(
        [
            [1 - (yy + zz), xy - wz, xz + wy, position[0]],
            [xy + wz, 1 - (xx + zz), yz - wx, position[1]],
            [xz - wy, yz + wx, 1 - (xx + yy), position[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def _cross(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]
