# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The cameras of a map; keyframes with the same intrinsics share one."""

from __future__ import annotations

from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.database import MapDatabase
from nre_ros.keyframes.storage.rows import camera_columns, decode_camera


class CameraTable:
    """The table ``cameras``; those that were read stay in memory."""

    def __init__(self, database: MapDatabase):
        self._database = database
        self._cameras: dict[int, Camera] = {}

    def get(self, camera_id: int) -> Camera:
        """Returns the camera of a row.

        Args:
            camera_id: Id of the camera.

        Raises:
            MapFormatError: The row is missing or damaged.
        """
        camera = self._cameras.get(camera_id)
        if camera is None:
            columns = self._database.row("cameras", "id", camera_id)[1:]
            with self._database.decoding():
                camera = decode_camera(columns)
            if not self._database.writing:  # a rollback may remove the row, and its id is given again
                self._cameras[camera_id] = camera
        return camera

    def all(self) -> tuple[Camera, ...]:
        """Returns all cameras in the order of their ids."""
        return tuple(self.get(row[0]) for row in self._database.rows("SELECT id FROM cameras ORDER BY id"))

    def id_of(self, camera: Camera) -> int:
        """Returns the id of a camera, which is added if the map has none with the same values.

        Only inside a transaction.

        Args:
            camera: The camera.
        """
        columns = camera_columns(camera)
        same = "SELECT id FROM cameras WHERE model = ? AND width = ? AND height = ? AND intrinsics = ?"
        found = self._database.rows(same, columns)
        if found:
            return int(found[0][0])
        camera_id = int(self._database.rows("SELECT COALESCE(MAX(id), 0) + 1 FROM cameras")[0][0])
        self._database.insert("cameras", camera_id, *columns)
        return camera_id
