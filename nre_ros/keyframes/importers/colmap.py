# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""COLMAP sparse models, text or binary, with their images.

pycolmap reads the model and is imported here alone, when it is needed.
"""

from __future__ import annotations

from pathlib import Path

# before pycolmap: loaded in the other order, OpenCV's PNG writer aborts the process (two zlibs)
import cv2  # noqa: F401
import numpy as np

from nre_ros.errors import CameraError, ImportSourceError, PoseError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import WITHOUT_SUPPORT, KeyframeBuilder
from nre_ros.keyframes.building.point_selection import spread
from nre_ros.keyframes.importers.cameras import HALF_PIXEL, camera_from_colmap
from nre_ros.keyframes.importers.common import MapSource, check_folder, digest, read_image, read_list
from nre_ros.keyframes.types import Keyframe


class ColmapSource(MapSource):
    """The registered images of the model in folder ``sparse``, or those of ``list_path`` alone.

    images: folder that the model's image names are relative to.  The stamps are 0.
    Raises ``ImportSourceError`` when the model cannot be read.
    """

    def __init__(self, sparse, images, list_path=None):
        self.sparse = check_folder(sparse)
        self.images = check_folder(images)
        self.list = None if list_path is None else read_list(list_path)
        self.model = _read_model(self.sparse)
        self.points = self.model.points3D
        self.by_name = {image.name: image for image in self.model.images.values() if image.has_pose}

    def names(self) -> list[str]:
        return sorted(self.by_name) if self.list is None else self.list

    def describe(self) -> dict:
        files = sorted(file for file in self.sparse.iterdir() if file.suffix in (".txt", ".bin"))
        return {"importer": "colmap", "images_folder": str(self.images.resolve()), "model": digest(*files)}

    def where(self, name: str) -> tuple[np.ndarray, Camera]:
        if name not in self.by_name:
            raise ImportSourceError(f"the model in {self.sparse} has no image of that name with a pose")
        image = self.by_name[name]
        theirs = self.model.cameras[image.camera_id]
        try:
            camera = camera_from_colmap(theirs.model.name, theirs.width, theirs.height, theirs.params)
        except CameraError as error:
            raise CameraError(f"camera {image.camera_id}: {error}") from None
        T_map_cam = _pose(image)
        if not np.isfinite(T_map_cam).all():
            raise PoseError("the model's pose of this image is not finite")
        return T_map_cam, camera

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        T_map_cam, camera = self.where(name)
        pixels, ids = self.observations(name)
        if not len(ids):
            raise ImportSourceError("the model has no 3D point in this image")
        scores, tracks = self._scores(ids)
        chosen = spread(pixels, scores, builder.points_per_keyframe, camera.width, camera.height)
        points = np.array([self.points[i].xyz for i in ids[chosen]])
        builder.tally[WITHOUT_SUPPORT] += int((tracks[chosen] < 2).sum())
        return builder.build(
            name, 0, read_image(self.images / name), camera, T_map_cam, pixels[chosen], points, ids[chosen]
        )

    def observations(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Our pixels [N, 2] of the 3D points observed in an image and the points' ids [N], each point once."""
        points = self.by_name[name].points2D
        seen = {point.point3D_id: point.xy for point in points if point.has_point3D()}
        pixels = np.array(list(seen.values()), dtype=np.float64).reshape(-1, 2) - HALF_PIXEL
        return pixels, np.array(list(seen), dtype=np.int64)

    def _scores(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores [N] (points seen from many views first; of equal ones, the more precise) and the views of each [N]."""
        points = [self.points[i] for i in ids]
        tracks = np.array([point.track.length() for point in points])
        return tracks + np.array([1.0 / (1.0 + max(point.error, 0.0)) for point in points]), tracks


def _read_model(sparse: Path):
    try:
        import pycolmap
    except ImportError as error:
        raise ImportSourceError(f"reading COLMAP models needs pycolmap ({error}): pip install pycolmap") from error
    for stem in ("cameras", "images", "points3D"):
        if not any((sparse / f"{stem}{suffix}").is_file() for suffix in (".txt", ".bin")):
            raise ImportSourceError(f"{sparse} is no COLMAP model: it has neither {stem}.txt nor {stem}.bin")
    try:
        model = pycolmap.Reconstruction(str(sparse))
    except Exception as error:  # pycolmap's own, of several kinds, with source lines in front
        reason = " ".join(str(error).split())
        raise ImportSourceError(f"COLMAP model in {sparse} cannot be read: {reason[:200]}") from error
    if not len(model.images):
        raise ImportSourceError(f"COLMAP model in {sparse} has no image")
    return model


def _pose(image) -> np.ndarray:
    """T_map_cam [4, 4] of COLMAP's world-to-camera pose."""
    cam_from_world = image.cam_from_world
    # a property up to pycolmap 3.11, a method since
    cam_from_world = cam_from_world() if callable(cam_from_world) else cam_from_world
    matrix = np.asarray(cam_from_world.inverse().matrix(), dtype=np.float64)
    return np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
