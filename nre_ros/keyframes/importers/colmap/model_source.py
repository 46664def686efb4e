# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from COLMAP sparse models, text or binary, with their points.

pycolmap reads the model. It is imported here alone, when a model is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

# before pycolmap: loaded in the other order, OpenCV's PNG writer aborts the process (two zlibs)
import cv2  # noqa: F401
import numpy as np
import numpy.typing as npt

from nre_ros.errors import CameraError, ImportSourceError, PoseError
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import WITHOUT_SUPPORT, KeyframeBuilder
from nre_ros.keyframes.building.point_selection import select_distributed
from nre_ros.keyframes.importers.colmap.cameras import HALF_PIXEL, camera_from_colmap
from nre_ros.keyframes.importers.image_files import read_image
from nre_ros.keyframes.importers.lookup import look_up
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.text_files import check_folder, digest, read_list
from nre_ros.keyframes.types import Keyframe

if TYPE_CHECKING:
    import pycolmap


class ColmapSource(MapSource):
    """The registered images of a COLMAP model, with the model's points. The stamps are 0.

    Args:
        sparse: Folder of the model, with cameras, images and points3D (.txt or .bin).
        images: Folder that the model's image names are relative to.
        list_path: File of image names, to import only these.

    Raises:
        ImportSourceError: The model cannot be read.
    """

    def __init__(self, sparse: Path | str, images: Path | str, list_path: Path | str | None = None) -> None:
        self.sparse = check_folder(sparse)
        self.images = check_folder(images)
        self.list = None if list_path is None else read_list(list_path)
        self.model = _read_model(self.sparse)
        self.points = self.model.points3D
        self.by_name = {image.name: image for image in self.model.images.values() if image.has_pose}

    def names(self) -> list[str]:
        """Returns the names of the images; see ``MapSource``."""
        return sorted(self.by_name) if self.list is None else self.list

    def describe(self) -> dict[str, Any]:
        """Returns what the keyframes depend on; see ``MapSource``."""
        files = sorted(file for file in self.sparse.iterdir() if file.suffix in (".txt", ".bin"))
        return {"importer": "colmap", "images_folder": str(self.images.resolve()), "model": digest(*files)}

    def pose_and_camera(self, name: str) -> tuple[npt.NDArray[np.float64], Camera]:
        """Returns pose and camera of an image; see ``MapSource``."""
        image = look_up(self.by_name, name, f"the model in {self.sparse} has no image of that name with a pose")
        colmap_camera = self.model.cameras[image.camera_id]
        try:
            camera = camera_from_colmap(
                colmap_camera.model.name, colmap_camera.width, colmap_camera.height, colmap_camera.params
            )
        except CameraError as error:
            raise CameraError(f"camera {image.camera_id}: {error}") from None
        T_map_cam = _pose(image)
        if not np.isfinite(T_map_cam).all():
            raise PoseError("the model's pose of this image is not finite")
        return T_map_cam, camera

    def keyframe(self, name: str, builder: KeyframeBuilder) -> Keyframe:
        """Makes the keyframe of an image; see ``MapSource``."""
        T_map_cam, camera = self.pose_and_camera(name)
        pixels, ids = self.observations(name)
        if not len(ids):
            raise ImportSourceError("the model has no 3D point in this image")
        scores, views = self._scores(ids)
        chosen = select_distributed(pixels, scores, builder.points_per_keyframe, camera.width, camera.height)
        points = np.array([self.points[i].xyz for i in ids[chosen]])
        builder.tally[WITHOUT_SUPPORT] += int((views[chosen] < 2).sum())
        return builder.build(
            name, 0, read_image(self.images / name), camera, T_map_cam, pixels[chosen], points, ids[chosen]
        )

    def image_to_check(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``MapSource``."""
        return read_image(self.images / name)

    def depth_to_check(self, name: str) -> npt.NDArray[np.float32] | None:
        """Returns the depths of the model's points around the places where the image shows them; see ``MapSource``."""
        T_map_cam, camera = self.pose_and_camera(name)
        pixels, ids = self.observations(name)
        depth = np.zeros((camera.height, camera.width), dtype=np.float32)
        points = np.array([self.points[i].xyz for i in ids]).reshape(-1, 3)
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
        points = self.by_name[name].points2D
        observed = {point.point3D_id: point.xy for point in points if point.has_point3D()}
        pixels = np.array(list(observed.values()), dtype=np.float64).reshape(-1, 2) - HALF_PIXEL
        return pixels, np.array(list(observed), dtype=np.int64)

    def _scores(self, ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Scores [N] (points of many views first; among equal ones the more precise) and numbers of views [N]."""
        points = [self.points[i] for i in ids]
        views = np.array([point.track.length() for point in points])
        return views + np.array([1.0 / (1.0 + max(point.error, 0.0)) for point in points]), views


def _read_model(sparse: Path) -> pycolmap.Reconstruction:
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


def _pose(image: pycolmap.Image) -> npt.NDArray[np.float64]:
    """``T_map_cam`` [4, 4] of COLMAP's world-to-camera pose."""
    cam_from_world: Any = image.cam_from_world
    # a property up to pycolmap 3.11, a method since
    cam_from_world = cam_from_world() if callable(cam_from_world) else cam_from_world
    matrix = np.asarray(cam_from_world.inverse().matrix(), dtype=np.float64)
    return np.vstack([matrix, [0.0, 0.0, 0.0, 1.0]])
