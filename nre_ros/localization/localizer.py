# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Localizes one image in a map: features, retrieval, pose estimation, and the verdict on the pose.

Usable without ROS::

    localizer = Localizer("office.db")
    result = localizer.localize(image, camera)
    if result.success:
        print(result.T_map_cam, result.confidence)
    else:
        print(result.reason)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import TracebackType

import cv2
import numpy as np
import numpy.typing as npt
import torch

from nre_ros.errors import FeatureMismatchError, NreError
from nre_ros.features import (
    BACKBONES,
    FeatureBackbone,
    FineHeadSource,
    ImageFeatures,
    choose_device,
    load_backbone,
)
from nre_ros.features.base import check_image
from nre_ros.geometry import Camera, invert
from nre_ros.images import check_image_size
from nre_ros.keyframes.global_descriptor import global_descriptor
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.keyframes.retrieval.retriever import Retriever
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.thumbnail import decode_thumbnail
from nre_ros.keyframes.types import stack_keyframes
from nre_ros.localization.confidence import load_model
from nre_ros.localization.defaults import DEFAULT_MIN_CONFIDENCE
from nre_ros.localization.depth import QueryDepth
from nre_ros.localization.map_noise import MapNoise
from nre_ros.localization.map_quality import load_quality
from nre_ros.localization.result import LocalizationResult
from nre_ros.localization.verdict import reach_verdict
from nre_ros.nre import Estimate, EstimatorConfig, NREEstimator, native

Prior = PosePrior | None | Callable[[], PosePrior | None]
"""Where the camera may be: a pose, nothing, or a function that returns one of them once the features are computed."""
Depth = npt.NDArray[np.floating] | None | Callable[[], npt.NDArray[np.floating] | None]
"""Depth of an image, nothing, or a function that returns one of them once the pose is estimated."""
_FURTHER, _NEIGHBOURS = 2, 3
"""Keyframes that are retrieved besides where the search was cut: the next ones, and neighbours of the best one."""


class Localizer:
    """A map, a network and an estimator, ready to localize images.

    The methods must not be called from several threads at once. ``backbone`` may be used by a second thread at the
    same time, also while the localizer moves to another device (see ``FeatureBackbone``).

    Args:
        map_file: A map made by ``nre_ros map build``.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: Seed of the consensus. The same image, map and seed give the same pose.
        retrieve: Number of keyframes that are retrieved for an image, at least 1.
        min_confidence: A pose with a lower confidence is refused, in [0, 1].
        config: Settings of the estimator.
        fine_head: The fine head that made the map, for a head that is neither packaged nor imported.

    Attributes:
        store: The open map, for reading.
        quality: What ``nre_ros map check`` found out about the map; None if it was not checked.
        device: Where the network and the estimator compute. Use ``move_to`` to change it.

    Raises:
        NreError: The map or the device cannot be used (the subclass says why), or ``retrieve`` is below 1.
    """

    def __init__(
        self,
        map_file: str | Path,
        device: str = "auto",
        seed: int = 0,
        retrieve: int = 5,
        min_confidence: float = DEFAULT_MIN_CONFIDENCE,
        config: EstimatorConfig = EstimatorConfig(),
        fine_head: FineHeadSource = None,
    ):
        self.seed = seed
        self.retrieve = _checked_count(retrieve)
        self.min_confidence = min_confidence
        self._config = config
        self._fine_head = fine_head
        self._estimator: NREEstimator | None = None
        self.store = KeyframeStore.open(map_file)  # before the network, so that a wrong path is reported at once
        try:
            self.device = choose_device(device)
            self.retriever = Retriever(self.store)
            self.quality = load_quality(self.store)
            self.move_to(self.device)
            self.store.check_features(self.backbone)
        except BaseException:
            self.store.close()
            raise

    # --- device ---------------------------------------------------------------------------------------

    @property
    def estimator(self) -> NREEstimator:
        """The estimator on the present device.

        Raises:
            NreError: The device was released and ``move_to`` was not called since.
        """
        estimator = self._estimator  # read once: a thread that uses the backbone may ask while the device is released
        if estimator is None:
            raise NreError("the localizer has released its device: call move_to before localizing")
        return estimator

    @property
    def backbone(self) -> FeatureBackbone:
        """The network on the present device; raises as ``estimator`` does."""
        return self.estimator.backbone

    @property
    def has_device(self) -> bool:
        """Whether the network is loaded: false between ``release_device`` and ``move_to``."""
        return self._estimator is not None

    def move_to(self, device: torch.device | str) -> None:
        """Loads the network on a device; the estimator keeps its configuration.

        When the network cannot be loaded there, the localizer stays as it was.

        Args:
            device: A torch device, for example ``cpu`` or ``cuda``.

        Raises:
            FeatureMismatchError: The map was made with a backbone that is unknown here.
            WeightsError: The weights of the backbone are absent or damaged.
            RuntimeError: The device has too little memory (torch's error).
        """
        device = torch.device(device)
        metadata = self.store.metadata()
        name = metadata["backbone"]
        if name not in BACKBONES:
            raise FeatureMismatchError(
                f"map {self.store.path} was made with the features {name!r}, known here: {', '.join(sorted(BACKBONES))}"
            )
        backbone = load_backbone(name, device, self._fine_head, metadata["weights_hash"])
        if device.type == "cpu":
            native.warn_once()
        self._estimator = NREEstimator(backbone, self._config)
        self.device = device

    def release_device(self) -> None:
        """Drops the network, which frees the device's memory; ``move_to`` loads it again."""
        self._estimator = None

    # --- localization ---------------------------------------------------------------------------------

    @property
    def frame_id(self) -> str:
        """Name of the map's frame."""
        return self.store.metadata()["frame_id"]

    def warm_up(self) -> None:
        """Localizes a keyframe's own thumbnail, so that the first real image is as fast as the others.

        A thumbnail reaches the last stage, which an image of noise does not.
        """
        ids = self.retriever.ids
        if not len(ids):
            return
        keyframe = self.store.get(int(ids[0]))
        thumbnail = decode_thumbnail(keyframe.thumbnail)
        if thumbnail is None:
            return
        size = (keyframe.camera.width, keyframe.camera.height)
        image = cv2.resize(thumbnail, size, interpolation=cv2.INTER_CUBIC)
        self.localize(image.astype(np.uint8, copy=False), keyframe.camera)

    def localize(
        self,
        image: npt.NDArray[np.uint8],
        camera: Camera,
        prior: Prior = None,
        *,
        retrieve: int | None = None,
        min_confidence: float | None = None,
        depth: Depth = None,
    ) -> LocalizationResult:
        """Estimates the pose of the camera that took an image, and accepts or refuses the estimate.

        Args:
            image: uint8, BGR ``[H, W, 3]`` or grey ``[H, W]``.
            camera: Intrinsics of the image.
            prior: Where the camera may be. Keyframes that see the same part of the scene are preferred, and the
                prior's pose is scored beside the poses found from the image. The image alone decides. A function is
                called after the features have been computed: the node looks up the odometry as late as that.
            retrieve: Number of keyframes for this image; None: the localizer's.
            min_confidence: Lowest accepted confidence for this image; None: the localizer's.
            depth: Depth of the image, float ``[H, W]``, metres along the optical axis, registered to the image; 0 where
                none was measured. A pose that the depth contradicts is refused. A function is called after the pose has
                been estimated.

        Returns:
            A result with a pose, or with the reason why there is none.

        Raises:
            ImageError: The image or its depth has a wrong shape or type, or another size than the camera.
            NreError: ``retrieve`` is below 1.
        """
        estimate = self.estimate(image, camera, prior, retrieve=retrieve)
        depth = depth() if callable(depth) else depth
        query_depth = None if depth is None else QueryDepth(depth, camera)
        started = perf_counter()
        model, noise = load_model(self.backbone.name), MapNoise()
        if self.quality is not None:
            model, noise = self.quality.confidence.of_model(model), self.quality.noise
        wanted = self.min_confidence if min_confidence is None else min_confidence
        count = self.retrieve if retrieve is None else retrieve
        result = reach_verdict(estimate, model, wanted, noise, count, query_depth)
        milliseconds = dict(estimate.milliseconds)
        milliseconds["verdict"] = milliseconds.get("verdict", 0.0) + (perf_counter() - started) * 1e3
        return replace(result, milliseconds=milliseconds)

    def estimate(
        self,
        image: npt.NDArray[np.uint8],
        camera: Camera,
        prior: Prior = None,
        *,
        retrieve: int | None = None,
        exclude: Collection[int] = (),
        search_further: bool = True,
    ) -> Estimate:
        """Estimates the pose as ``localize`` does, without the verdict.

        Args:
            image: uint8, BGR ``[H, W, 3]`` or grey ``[H, W]``.
            camera: Intrinsics of the image.
            prior: As in ``localize``.
            retrieve: Number of keyframes for this image; None: the localizer's.
            exclude: Ids of keyframes that are ignored, as if the map did not have them.
            search_further: Whether a search that was cut continues in more keyframes.

        Returns:
            The estimate, with the retrieved keyframes and the time of each stage. ``reach_verdict`` turns it into a
            result.

        Raises:
            ImageError: The image has a wrong shape or type, or another size than the camera.
            NreError: ``retrieve`` is below 1.
        """
        check_image_size(check_image(image), camera)
        count = self.retrieve if retrieve is None else _checked_count(retrieve)
        started = perf_counter()
        features = self.backbone.extract(image)
        before = {"features": (perf_counter() - started) * 1e3}
        if callable(prior):
            prior = prior()
        started = perf_counter()
        with self.store.snapshot():  # a keyframe that is found cannot be removed before it is loaded
            ids = self._retrieved(features, count, prior, exclude)
            found = self.store.load_readable(ids)
            if not found:
                rest = " besides the excluded ones" if exclude else ""
                return Estimate(reason=f"map {self.store.path} holds no keyframes{rest}")
            keyframes = stack_keyframes(found, self.device)
        before["retrieval"] = (perf_counter() - started) * 1e3
        estimate = self.estimator.localize(
            features, keyframes, camera, self.seed, self._start(prior), stop_if_cut=search_further
        )
        if estimate.search_cut and search_further:
            estimate = self._search_further(estimate, features, camera, count, prior, exclude)
        return replace(estimate, milliseconds=_sums(before, estimate.milliseconds))

    def _retrieved(
        self, features: ImageFeatures, count: int, prior: PosePrior | None, exclude: Collection[int]
    ) -> list[int]:
        """Ids of the keyframes retrieved for an image."""
        descriptor, temperature = global_descriptor(features.coarse), self.backbone.coarse_temperature
        return self.retriever.query(descriptor, count, prior, features.coarse, temperature, exclude)[0]

    def _search_further(
        self,
        first: Estimate,
        features: ImageFeatures,
        camera: Camera,
        count: int,
        prior: PosePrior | None,
        exclude: Collection[int],
    ) -> Estimate:
        """Continues a search that was cut, in more keyframes.

        These are the next ones in the order of retrieval, and the neighbours of the keyframe that agrees best with the
        pose found. That pose is scored among the others, so that it is lost only to a better one.
        """
        started = perf_counter()
        assert first.keyframes is not None
        T_cam_map, _ = first.stages.get("P3P", (self._start(prior), math.nan))
        scores = dict(zip(first.keyframes.ids, first.keyframe_scores()))
        with self.store.snapshot():
            next_ones = self._retrieved(features, count + _FURTHER, prior, exclude)
            # the map may have changed since the first search: removed keyframes are left out
            earlier = np.array(first.keyframes.ids)
            ids = earlier[np.isin(earlier, self.retriever.ids)].tolist()
            neighbours: list[int] = []
            if "P3P" in first.stages and ids:
                for best in self.store.load_readable([max(ids, key=scores.__getitem__)]):
                    near_best = PosePrior(best.T_map_cam, np.zeros((6, 6)))
                    neighbours = self._retrieved(features, 1 + _NEIGHBOURS, near_best, exclude)
            found = self.store.load_readable(list(dict.fromkeys([*ids, *next_ones, *neighbours])))
            if not found:
                return Estimate(reason=f"map {self.store.path} holds no keyframes")
            keyframes = stack_keyframes(found, self.device)
        before = {"retrieval": (perf_counter() - started) * 1e3}
        second = self.estimator.localize(features, keyframes, camera, self.seed ^ 1, T_cam_map)  # other triplets
        return replace(second, milliseconds=_sums(first.milliseconds, before, second.milliseconds))

    def _start(self, prior: PosePrior | None) -> torch.Tensor | None:
        """The prior's pose ``T_cam_map``, which the estimator scores among the others."""
        return None if prior is None else torch.as_tensor(invert(prior.T_map_cam), device=self.device)

    # --- life -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes the map file."""
        self.store.close()

    def __enter__(self) -> Localizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _checked_count(retrieve: int) -> int:
    """The number of keyframes to retrieve, where it is one."""
    if retrieve < 1:
        raise NreError(f"retrieve={retrieve}: at least 1 keyframe must be retrieved for an image")
    return retrieve


def _sums(*rounds: dict[str, float]) -> dict[str, float]:
    """Adds up the milliseconds of each stage."""
    total: dict[str, float] = {}
    for milliseconds in rounds:
        for stage, spent in milliseconds.items():
            total[stage] = total.get(stage, 0.0) + spent
    return total
