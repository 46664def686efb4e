# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The map and the network on their device: loaded, warmed up, and still going when memory runs out."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from rclpy.node import Node

from nre_ros.errors import MapError
from nre_ros.features import choose_device, load_backbone
from nre_ros.geometry import Camera
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.keyframes.storage.map_file import sidecars
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.diagnostics import device_facts
from nre_ros.node.parameters import ParameterError, value_of
from nre_ros.nre import NREEstimator
from nre_ros.process import return_memory

_AGAIN_SECONDS = 60.0
"""After so long the estimator is given all that it could not have for want of memory once more."""


class Engine:
    """Localizes in the map ``map_file``; for one thread at a time.

    node: has the parameters of ``nre_ros.node.parameters``.  Raises ``NreError`` when a parameter
    or the map cannot be used.  Map and network are loaded and warmed up, so that the first image is
    as fast as the others.
    limitation: what is done without for want of memory, in words; empty: nothing.
    """

    def __init__(self, node: Node):
        self._node, self._logger = node, node.get_logger()
        self.limitation = ""
        self._again = 0.0
        if value_of(node, "create_map"):
            _create_map(node)
        self._localizer = self._load(value_of(node, "map_file"))

    def __str__(self) -> str:
        localizer = self._localizer
        features = localizer.store.metadata()["backbone"]  # the network itself may have left the device
        return f"{len(localizer.store)} keyframes, {features} features, on {localizer.device}"

    @property
    def map_frame(self) -> str:
        """The frame named in the map file."""
        return self._localizer.frame_id

    @property
    def store(self) -> KeyframeStore:
        """The open map, for reading."""
        return self._localizer.store

    @property
    def backbone(self):
        """The network."""
        return self._localizer.backbone

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._localizer.device

    def facts(self) -> dict[str, str]:
        """What there is to tell about map and device, name -> value; from any thread."""
        facts = {"map": str(self.store.path), "keyframes": str(self._count), **device_facts(self.device)}
        return {**facts, "limitation": self.limitation} if self.limitation else facts

    def localize(self, image: np.ndarray, camera: Camera, prior: PosePrior | None = None) -> LocalizationResult:
        """As ``Localizer.localize``; out of memory it takes fewer keyframes, and at last the CPU, and says so."""
        self._try_all_again()
        self._count = len(self.store)
        self._localizer.min_confidence = value_of(self._node, "min_confidence")
        while True:
            try:
                return self._localizer.localize(image, camera, prior)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error) or not self._can_do_with_less():
                    raise
            # outside of the handler, which holds on to all that the failed attempt had allocated
            self._do_with_less()

    def load(self, map_file: str, frame: str = "") -> None:
        """Opens another map in place of the present one, which stays when that fails with ``NreError``.

        frame: that of the map; empty: any.
        """
        loaded = self._load(map_file)
        other = loaded.frame_id
        if frame and other != frame:
            loaded.close()
            raise MapError(
                f"map {map_file} has the frame {other!r}, all that is published is in {frame!r}: configure "
                "the node anew for it, or name its frame by the parameter map_frame"
            )
        self._localizer.close()
        self._localizer = loaded
        self.limitation = ""
        self._free()

    def save(self, map_file: str, overwrite: bool) -> None:
        """Writes a copy of the open map; raises ``MapError``."""
        self.store.save_copy(Path(map_file), overwrite)

    def release(self) -> None:
        """Frees the device; ``acquire`` has to come before the next image."""
        self._localizer.backbone = self._localizer.estimator = None
        self._free()

    def acquire(self) -> None:
        """Takes the device (again), the one that was asked for; raises ``NreError``."""
        if self._localizer.backbone is None:
            self.limitation = ""
            self._localizer.retrieve = value_of(self._node, "retrieve")
            self._move(choose_device(value_of(self._node, "device")))
            self._localizer.warm_up()

    def close(self) -> None:
        """Closes the map, and leaves one plain file where keyframes have been added to it."""
        path, written = self.store.path, _has_log(self.store.path)
        self._localizer.close()
        if written:
            with suppress(MapError):
                KeyframeStore.open(path, readonly=False, cache_bytes=0).close()
        self._localizer.backbone = self._localizer.estimator = None
        self._free()

    # --- loading ------------------------------------------------------------------------------------

    def _load(self, map_file: str) -> Localizer:
        if not map_file:
            raise ParameterError("parameter map_file is empty: name a map made by `nre_ros map build`")
        self._logger.info(f"loading {map_file}")
        settings = {name: value_of(self._node, name) for name in ("device", "seed", "retrieve")}
        localizer = Localizer(map_file, **settings)
        localizer.warm_up()
        self._count = len(localizer.store)
        return localizer

    def _move(self, device: torch.device) -> None:
        localizer = self._localizer
        localizer.device = device
        localizer.backbone = load_backbone(localizer.store.metadata()["backbone"], device)
        localizer.estimator = NREEstimator(localizer.backbone)

    @staticmethod
    def _free() -> None:
        gc.collect()
        return_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # --- memory -------------------------------------------------------------------------------------

    def _can_do_with_less(self) -> bool:
        return self._localizer.retrieve > 1 or self.device.type != "cpu"

    def _do_with_less(self) -> None:
        """Half the keyframes, hence half the points; when it is down to one, the CPU with all of them."""
        localizer, wanted = self._localizer, value_of(self._node, "retrieve")
        where = self.device
        if localizer.retrieve > 1:
            localizer.retrieve //= 2
            self.limitation = f"out of memory on {where}: {localizer.retrieve} of {wanted} keyframes an image"
        else:
            localizer.retrieve = wanted
            self._move(torch.device("cpu"))
            self.limitation = f"out of memory on {where}: on cpu"
        self._free()
        self._again = time.monotonic() + _AGAIN_SECONDS
        self._logger.warning(f"{self.limitation}, for {_AGAIN_SECONDS:.0f} s")

    def _try_all_again(self) -> None:
        if not self.limitation or time.monotonic() < self._again:
            return
        self.limitation = ""
        self._localizer.retrieve = value_of(self._node, "retrieve")
        wanted = choose_device(value_of(self._node, "device"))
        if wanted != self.device:
            try:
                self._move(wanted)
            except RuntimeError as error:
                self._move(torch.device("cpu"))
                self.limitation, self._again = f"{wanted}: {error}", time.monotonic() + _AGAIN_SECONDS


def _has_log(path: Path) -> bool:
    """Whether a writer has left its log beside the map, for a reader held it."""
    return sidecars(path)[0].exists()


def _is_out_of_memory(error: Exception) -> bool:
    words = str(error).lower()
    # torch's words for a GPU's memory and for the CPU's
    return isinstance(error, MemoryError) or "out of memory" in words or "can't allocate memory" in words


def _create_map(node: Node) -> None:
    """An empty map of the default features where ``map_file`` does not exist."""
    path = Path(value_of(node, "map_file"))
    if not path.name or path.exists():
        return
    backbone = load_backbone("xfeat")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MapError(f"map {path} cannot be created: {error.strerror}") from error
    frame = value_of(node, "map_frame") or "map"
    KeyframeStore.create(path, backbone.name, backbone.weights_hash, frame, source="keyframes by topic").close()
    node.get_logger().info(f"made an empty map {path}")
