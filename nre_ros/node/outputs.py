# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""All that people look at, as one thing that the node tells about each image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rclpy.node import Node

from nre_ros.errors import MapError
from nre_ros.gate.decision import Decision, State
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.debug_image import DebugImage
from nre_ros.node.diagnostics import Diagnostics
from nre_ros.node.entities import Entities
from nre_ros.node.markers import Markers
from nre_ros.node.parameters import value_of
from nre_ros.node.path import PathOutput
from nre_ros.node.seldom import SeldomLog

_PATH_SECONDS = 0.5


class Outputs:
    """Diagnostics, path, debug image and markers.

    frame: the map's.  facts: more values for the diagnostics, asked for once a period.
    """

    def __init__(self, node: Node, frame: str, facts: Callable[[], dict[str, str]] = dict):
        self.diagnostics = Diagnostics(node, facts)
        self.path = PathOutput(node, frame)
        self.debug_image = DebugImage(node)
        self.markers = Markers(node, frame)
        self._log = SeldomLog(node.get_logger())
        self._entities = Entities(node)
        self._entities.timer(value_of(node, "diagnostics_period"), self.diagnostics.publish, steady=True)
        self._entities.timer(_PATH_SECONDS, self.path.publish, steady=True)

    def update(
        self,
        result: LocalizationResult,
        decision: Decision | None,
        state: State,
        *,
        stamp: int,
        camera_frame: str,
        image: np.ndarray | None,
        store: KeyframeStore,
        milliseconds: float,
        trouble: str = "",
    ) -> None:
        """What became of one image; for the thread that may use the map, after pose and status have gone out.

        stamp: nanoseconds.  image: BGR or grey, None where it could not be read.  trouble: as of ``Seen``.
        """
        self.diagnostics.update(result, decision, state, milliseconds, trouble)
        try:
            if image is not None:
                self.debug_image.update(image, result, decision, camera_frame, stamp, store.thumbnail)
            self.markers.update(result, decision, stamp, store)
        except MapError as error:  # nobody's pose depends on a picture
            self._log.warning(f"no debug image or markers: {error}")

    def close(self) -> None:
        """Ends the topics and timers."""
        self._entities.close()
        for part in (self.diagnostics, self.path, self.debug_image, self.markers):
            part.close()
