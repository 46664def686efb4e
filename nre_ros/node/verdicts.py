"""An image message and its CameraInfo in, a verdict out, whatever the two contain."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nre_ros.errors import ImageError, NreError
from nre_ros.geometry import Camera
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.result import LocalizationResult
from nre_ros.messages.camera_info import camera_of
from nre_ros.messages.images import check_size, image_array
from nre_ros.node.parameters import value_of


class Verdicts:
    """Localizes messages; for the worker's thread alone, as the localizer is.

    report: told of the errors that nobody foresaw.
    """

    def __init__(self, node: Node, localizer: Localizer, report: Callable[[Exception], None]):
        self._node = node
        self._localizer = localizer
        self._report = report
        self._camera: Camera | None = None

    def verdict(self, message: Image | CompressedImage, info: CameraInfo | None) -> LocalizationResult:
        """A pose that may be published, or a reason in one line; raises nothing."""
        try:
            if info is None:
                raise ImageError("no camera_info has come yet")
            return _acceptable(self._localize(message, info))
        except NreError as error:
            return LocalizationResult(reason=str(error))
        except Exception as error:  # the node outlives whatever one image does to the estimator
            self._report(error)
            words = " ".join(str(error).split())
            return LocalizationResult(reason=f"internal error, {type(error).__name__}: {words}")

    def _localize(self, message, info) -> LocalizationResult:
        started = time.perf_counter()
        image = image_array(message)
        camera = camera_of(info, value_of(self._node, "rectified"))
        if camera != self._camera:
            self._camera = camera
        check_size(image, camera)
        decoded = (time.perf_counter() - started) * 1e3
        self._localizer.min_confidence = value_of(self._node, "min_confidence")
        # the camera of the images before, where nothing has changed: it keeps what it has computed
        result = self._localizer.localize(image, self._camera)
        return replace(result, milliseconds={"decode": decoded, **result.milliseconds})


def _acceptable(result: LocalizationResult) -> LocalizationResult:
    """NaN is never published: it spreads through the filters that fuse our pose."""
    if result.success and not (np.isfinite(result.T_map_cam).all() and np.isfinite(result.covariance).all()):
        return replace(result, T_map_cam=None, covariance=None, reason="pose or covariance is not finite")
    return result
