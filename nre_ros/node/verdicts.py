# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An image message and its CameraInfo in, a verdict out, whatever the two contain."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.errors import ImageError, MapError, NreError
from nre_ros.geometry import Camera
from nre_ros.images import check_image_size
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.localization.result import LocalizationResult
from nre_ros.messages.camera_info import camera_from_info
from nre_ros.messages.images import image_array
from nre_ros.node.engine import Engine
from nre_ros.node.parameters import value_of


@dataclass(frozen=True, eq=False)
class Seen:
    """What an image shows: the result, and the image (BGR or grey) and its camera where they could be read.

    trouble: what keeps any image from being localized, in words; empty: nothing.
    """

    result: LocalizationResult
    image: np.ndarray | None = None
    camera: Camera | None = None
    trouble: str = ""


class Verdicts:
    """Localizes messages; for the worker's thread alone, as the engine is.

    report: told of the errors that nobody foresaw.
    """

    def __init__(self, node: Node, engine: Engine, report: Callable[[Exception], None]):
        self._node, self._engine, self._report = node, engine, report
        self._cameras: dict[str, Camera] = {}

    def verdict(
        self, message: Image | CompressedImage, info: CameraInfo | None, name: str = "", prior: PosePrior | None = None
    ) -> Seen:
        """A pose, or a reason in one line; raises nothing.  name: of the camera."""
        try:
            if info is None:
                raise ImageError("no camera_info has come yet")
            started = time.perf_counter()
            image = image_array(message)
            camera = self._same(name, camera_from_info(info, value_of(self._node, "rectified")))
            check_image_size(image, camera)
            decoded = time.perf_counter()
            result = self._engine.localize(image, camera, prior)
            result = replace(result, milliseconds={"decode": (decoded - started) * 1e3, **result.milliseconds})
            return Seen(_acceptable(result), image, camera)
        except NreError as error:
            return Seen(
                LocalizationResult(reason=str(error)), trouble=str(error) if isinstance(error, MapError) else ""
            )
        except Exception as error:  # the node outlives whatever one image does to the estimator
            self._report(error)
            words = " ".join(str(error).split())
            return Seen(LocalizationResult(reason=f"internal error, {type(error).__name__}: {words}"))

    def _same(self, name: str, camera: Camera) -> Camera:
        """The camera of the images before, where nothing has changed: it keeps what it has computed."""
        if camera != self._cameras.get(name):
            self._cameras[name] = camera
        return self._cameras[name]


def _acceptable(result: LocalizationResult) -> LocalizationResult:
    """NaN is never published: it spreads through the filters that fuse our pose."""
    if result.success and not (np.isfinite(result.T_map_cam).all() and np.isfinite(result.covariance).all()):
        return replace(result, T_map_cam=None, covariance=None, reason="pose or covariance is not finite")
    return result
