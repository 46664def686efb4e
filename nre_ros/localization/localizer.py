# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One image in, a verdict out: retrieval, the estimator, and whether to believe it.

Usable without ROS:

    localizer = Localizer("office.db")
    result = localizer.localize(image, camera)
    if result.success:
        print(result.T_map_cam, result.confidence)
    else:
        print(result.reason)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch

from nre_ros.errors import FeatureMismatchError, ImageError
from nre_ros.features import BACKBONES, choose_device, load_backbone
from nre_ros.features.base import check_image
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.global_descriptor import global_descriptor
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.keyframes.retrieval.retriever import Retriever
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import KeyframeStack, stack_keyframes
from nre_ros.localization.result import LocalizationResult
from nre_ros.localization.verdict import judge
from nre_ros.nre import Estimate, EstimatorConfig, NREEstimator


@dataclass(frozen=True)
class Attempt:
    """What one image led to, before it is judged; all None where the map is empty."""

    estimate: Estimate | None = None
    keyframes: KeyframeStack | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)


class Localizer:
    """A map, a network and an estimator, ready to localize images.

    map_file: a map made by ``nre_ros map build``.  device: auto, cpu or cuda.  seed: of the
    consensus; the same image and map then give the same pose.  retrieve: keyframes a query.
    min_confidence: results below it have no pose.

    Not thread-safe.  Raises the errors of ``nre_ros.errors`` for a map that cannot be used.
    """

    def __init__(
        self,
        map_file: str | Path,
        device: str = "auto",
        seed: int = 0,
        retrieve: int = 5,
        min_confidence: float = 0.5,
        config: EstimatorConfig = EstimatorConfig(),
    ):
        self.seed = seed
        self.retrieve = retrieve
        self.min_confidence = min_confidence
        self.store = KeyframeStore.open(map_file)  # before the network: a wrong path is told at once
        try:
            self.device = choose_device(device)
            self.retriever = Retriever(self.store)
            self.backbone = self._load_backbone()
            self.store.check_features(self.backbone)
        except BaseException:
            self.store.close()
            raise
        self.estimator = NREEstimator(self.backbone, config)

    def _load_backbone(self):
        name = self.store.metadata()["backbone"]
        if name not in BACKBONES:
            raise FeatureMismatchError(
                f"map {self.store.path} was made with the features {name!r}, known here: {', '.join(sorted(BACKBONES))}"
            )
        return load_backbone(name, self.device)

    @property
    def frame_id(self) -> str:
        """Name of the map's frame."""
        return self.store.metadata()["frame_id"]

    def warm_up(self) -> None:
        """Goes the whole way once, so that the first real image is not the slow one.

        On a keyframe's own picture, which (other than noise) gets as far as the last stage.
        """
        ids = self.retriever.ids
        if not len(ids):
            return
        keyframe = self.store.get(int(ids[0]))
        if not keyframe.thumbnail:
            return
        size = (keyframe.camera.width, keyframe.camera.height)
        thumbnail = cv2.imdecode(np.frombuffer(keyframe.thumbnail, np.uint8), cv2.IMREAD_COLOR)
        self.localize(cv2.resize(thumbnail, size, interpolation=cv2.INTER_CUBIC), keyframe.camera)

    def localize(self, image: np.ndarray, camera: Camera, prior: PosePrior | None = None) -> LocalizationResult:
        """Where the camera was when it took ``image``, uint8 BGR [H, W, 3] or grey [H, W].

        prior: where it may have been; keyframes that see what is seen from there are preferred, and
        its pose is tried beside those that the image suggests.  It decides nothing by itself.
        Raises ``ImageError`` for an image that is none, or whose size is not the camera's.
        """
        if check_image(image).shape[:2] != (camera.height, camera.width):
            raise ImageError(
                f"image has {image.shape[1]}x{image.shape[0]} pixels, its camera {camera.width}x{camera.height}"
            )
        attempt = self.attempt(image, camera, prior)
        if attempt.keyframes is None:
            return LocalizationResult(reason=f"map {self.store.path} holds no keyframes")
        estimate, keyframes = attempt.estimate, attempt.keyframes
        started = perf_counter()
        verdict = judge(estimate, keyframes, camera, self.min_confidence)
        common = dict(
            confidence=verdict.confidence,
            alternatives=verdict.alternatives,
            evidence=verdict.evidence,
            points_considered=len(keyframes),
            keyframes=keyframes.ids,
            cost=estimate.cost,
        )
        if verdict.reason:
            result = LocalizationResult(reason=verdict.reason, **common)
        else:
            seen = estimate.valid
            result = LocalizationResult(
                T_map_cam=invert(estimate.T_cam_map).cpu().numpy(),
                covariance=verdict.covariance,
                points_used=estimate.support,
                points=keyframes.points[seen].cpu().numpy(),
                pixels=estimate.pixels[seen].cpu().numpy(),
                losses=estimate.losses[seen].cpu().numpy(),
                sample_maps=estimate.sample_maps.cpu().numpy(),
                sample_pixels=estimate.pixels[estimate.sample_points].cpu().numpy(),
                sample_grid=estimate.grid,
                **common,
            )
        judged = attempt.milliseconds.get("verdict", 0.0) + (perf_counter() - started) * 1e3
        return replace(result, milliseconds={**attempt.milliseconds, "verdict": judged})

    def attempt(self, image: np.ndarray, camera: Camera, prior: PosePrior | None = None) -> Attempt:
        """``localize`` without its verdict: what was retrieved, and what the estimator makes of it."""
        started = perf_counter()
        features = self.backbone.extract(image)
        extracted = perf_counter()
        with self.store.snapshot():  # a keyframe that is found cannot be gone before it is loaded
            ids, _ = self.retriever.query(
                global_descriptor(features.coarse),
                self.retrieve,
                prior,
                features.coarse,
                self.backbone.coarse_temperature,
            )
            found = self.store.load_readable(ids)
            if not found:
                return Attempt()
            keyframes = stack_keyframes(found, self.device)
        retrieved = perf_counter()
        start = None if prior is None else torch.as_tensor(invert(prior.T_map_cam), device=self.device)
        estimate = self.estimator.localize(features, keyframes, camera, self.seed, start)
        milliseconds = {"features": (extracted - started) * 1e3, "retrieval": (retrieved - extracted) * 1e3}
        return Attempt(estimate, keyframes, {**milliseconds, **estimate.milliseconds})

    def close(self) -> None:
        """Closes the map file."""
        self.store.close()

    def __enter__(self) -> Localizer:
        return self

    def __exit__(self, *_) -> None:
        self.close()
