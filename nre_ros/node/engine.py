# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Map and network of the node on their device: loaded, warmed up, and working with less when memory runs out."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rclpy.node import Node

from nre_ros.errors import MapError, NreError
from nre_ros.features import DEFAULT_BACKBONE, FeatureBackbone, choose_device, load_backbone
from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.map_file import sidecars
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.localizer import Depth, Localizer, Prior
from nre_ros.localization.result import LocalizationResult
from nre_ros.messages.frame_ids import frame_name
from nre_ros.node.diagnostics import device_facts
from nre_ros.node.parameters import ParameterError, value_of
from nre_ros.node.start_checks import user_path
from nre_ros.process import return_memory, use_threads

_RETRY_SECONDS = 60.0
"""After memory ran out, the full number of keyframes and the wanted device are tried again so much later."""


class DeviceError(NreError):
    """The device cannot compute any more; a process cannot recover it."""


class Engine:
    """Localizes images in the map of the parameter ``map_file``.

    For one thread at a time; the keyframe writer uses ``backbone`` and ``store.path`` beside it.

    Attributes:
        limitation: What was reduced because memory ran out; empty: nothing.
        loss: Error of a device that is lost and was not left for the CPU; empty: the device works.
    """

    def __init__(self, node: Node) -> None:
        """Loads map and network and warms them up, so that the first image is as fast as the others.

        Args:
            node: Has the parameters of ``nre_ros.node.parameters``.

        Raises:
            NreError: A parameter or the map cannot be used.
        """
        self._node, self._logger = node, node.get_logger()
        self.limitation = self.loss = ""
        self._retry_at = 0.0
        if value_of(node, "create_map"):
            _create_map(node)
        self._localizer = self._load(value_of(node, "map_file"))
        self._retrieve = value_of(node, "retrieve")

    def __str__(self) -> str:
        localizer = self._localizer
        features = localizer.store.metadata()["backbone"]  # the network itself may have left the device
        return f"{len(localizer.store)} keyframes, {features} features, on {localizer.device}"

    @property
    def map_frame(self) -> str:
        """Name of the map's frame in the map file."""
        return frame_name(self._localizer.frame_id)

    @property
    def store(self) -> KeyframeStore:
        """The open map, for reading."""
        return self._localizer.store

    @property
    def backbone(self) -> FeatureBackbone:
        """The network."""
        return self._localizer.backbone

    @property
    def device(self) -> torch.device:
        """Device of network and estimator."""
        return self._localizer.device

    def facts(self) -> dict[str, str]:
        """Returns the values of the diagnostics about map and device, name -> value; may be called by any thread."""
        facts = {"map": str(self.store.path), "keyframes": str(self._count), **device_facts(self.device)}
        return {**facts, "limitation": self.limitation} if self.limitation else facts

    def localize(
        self, image: npt.NDArray[np.uint8], camera: Camera, prior: Prior = None, depth: Depth = None
    ) -> LocalizationResult:
        """Localizes an image; when memory runs out, with fewer keyframes and at last on the CPU, which is logged.

        Args:
            image: uint8 BGR [H, W, 3] or grey [H, W].
            camera: Its intrinsics.
            prior: Predicted pose, None without; a function is called once the features are computed, and again after
                every time that memory has run out.
            depth: Depth of the image as of ``Localizer.localize``.

        Returns:
            The result of ``Localizer.localize``.

        Raises:
            DeviceError: The device is lost.
            NreError: Image or map cannot be used.
        """
        self._try_all_again()
        self._count = len(self.store)
        while True:
            try:
                with _reporting_loss(self.device):
                    return self._localizer.localize(
                        image,
                        camera,
                        prior,
                        retrieve=self._retrieve,
                        min_confidence=value_of(self._node, "min_confidence"),
                        depth=depth,
                    )
            except DeviceError as error:
                fault = str(error)
                if value_of(self._node, "lost_device") != "cpu":
                    self.loss = fault
                    raise
            except (RuntimeError, MemoryError) as error:
                fault = ""
                if not _is_out_of_memory(error) or not self._can_do_with_less():
                    raise
            # outside of the handler, which holds all that the failed attempt has allocated
            if fault:
                self._continue_on_cpu(fault)
            else:
                self._do_with_less()

    def load(self, map_file: str, frame: str = "") -> None:
        """Opens another map in place of the present one.

        Args:
            map_file: The map.
            frame: Frame that the map must have; empty: any.

        Raises:
            NreError: The map cannot be used; the present one stays.
        """
        loaded = self._load(map_file)
        other = frame_name(loaded.frame_id)
        if frame and other != frame:
            loaded.close()
            raise MapError(
                f"map {map_file} has the frame {other!r}, all that is published is in {frame!r}: configure "
                "the node anew for it, or name its frame by the parameter map_frame"
            )
        self._localizer.close()
        self._localizer = loaded
        self._retrieve = value_of(self._node, "retrieve")
        self.limitation = ""
        self._free()

    def save(self, map_file: str, overwrite: bool) -> None:
        """Writes a copy of the open map.

        Args:
            map_file: Where to.
            overwrite: Whether to replace a file of that name.

        Raises:
            MapError: The copy cannot be written.
        """
        self.store.save_copy(user_path(map_file), overwrite)

    def release(self) -> None:
        """Frees the device; ``acquire`` must be called before the next image."""
        self._localizer.release_device()
        self._free()

    def acquire(self) -> None:
        """Loads the network on the device of the parameter ``device``, if it was released.

        Raises:
            NreError: The device cannot be used, or is lost.
        """
        if not self._localizer.has_device:
            self.limitation = ""
            self._retrieve = value_of(self._node, "retrieve")
            device = choose_device(value_of(self._node, "device"))
            try:
                with _reporting_loss(device):
                    self._localizer.move_to(device)
                    self._localizer.warm_up()
            except DeviceError as error:
                self.loss = str(error)
                raise

    def close(self) -> None:
        """Closes the map; one that has grown is left as one plain file."""
        path, written = self.store.path, _has_log(self.store.path)
        self._localizer.close()
        if written:
            with suppress(MapError):
                KeyframeStore.open(path, readonly=False, cache_bytes=0).close()
        self._localizer.release_device()
        self._free()

    # --- loading ------------------------------------------------------------------------------------

    def _load(self, map_file: str) -> Localizer:
        if not map_file:
            raise ParameterError("parameter map_file is empty: name a map made by `nre_ros map build`")
        self._logger.info(f"loading {map_file}")
        use_threads(value_of(self._node, "threads"))  # before the worker's thread computes anything
        settings = {name: value_of(self._node, name) for name in ("device", "seed", "retrieve")}
        with _reporting_loss(choose_device(settings["device"])):
            localizer = Localizer(user_path(map_file), **settings)
            localizer.warm_up()
        self._count = len(localizer.store)
        return localizer

    @staticmethod
    def _free() -> None:
        gc.collect()
        return_memory()
        with suppress(RuntimeError):  # of a device that is lost
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _continue_on_cpu(self, fault: str) -> None:
        """Leaves a lost device for good: no call in this process can use it again."""
        self._localizer.move_to("cpu")
        self.limitation, self._retry_at = f"{fault}: on cpu", math.inf
        self._logger.error(self.limitation)

    # --- memory -------------------------------------------------------------------------------------

    def _can_do_with_less(self) -> bool:
        return self._retrieve > 1 or self.device.type != "cpu"

    def _do_with_less(self) -> None:
        """Halves the number of keyframes and so of points; after the last one, moves to the CPU with all of them."""
        wanted = value_of(self._node, "retrieve")
        where = self.device
        if self._retrieve > 1:
            self._retrieve //= 2
            self.limitation = f"out of memory on {where}: {self._retrieve} of {wanted} keyframes an image"
        else:
            self._retrieve = wanted
            self._localizer.move_to("cpu")
            self.limitation = f"out of memory on {where}: on cpu"
        self._free()
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        self._logger.warning(f"{self.limitation}, for {_RETRY_SECONDS:.0f} s")

    def _try_all_again(self) -> None:
        if not self.limitation or time.monotonic() < self._retry_at:
            return
        self.limitation = ""
        self._retrieve = value_of(self._node, "retrieve")
        wanted = choose_device(value_of(self._node, "device"))
        if wanted != self.device:
            try:
                self._localizer.move_to(wanted)
            except RuntimeError as error:  # it stays where it is, on the CPU
                self.limitation, self._retry_at = f"{wanted}: {error}", time.monotonic() + _RETRY_SECONDS


def _has_log(path: Path) -> bool:
    """Whether a writer has left its log beside the map, because a reader had it open."""
    return sidecars(path)[0].exists()


_OUT_OF_MEMORY = (
    "out of memory",  # CUDA, torch's allocator
    "can't allocate memory",  # torch on the CPU, Linux
    "cannot allocate memory",  # the system, through torch
    "not enough memory",  # torch on the CPU, Windows
    "bad_alloc",  # C++
    "memoryallocation",  # cudaErrorMemoryAllocation
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSOLVER, cuSPARSE
    "allocation_failed",  # cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, ..._HOST_...
    "insufficient_resources",  # cuSPARSE
    "cublas_status_not_initialized",  # no memory for the handle's workspace
    "cudnn_status_not_initialized",
    "unable to find an engine to execute",  # cuDNN: no algorithm fits into the memory that is left
    "cufft_alloc_failed",
)
"""What the messages contain by which torch and the libraries below it report that memory has run out."""


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def device_works(device: torch.device) -> bool:
    """Returns whether a device still computes: after some errors (a lost GPU, an illegal access) all calls fail.

    Args:
        device: A torch device.
    """
    if device.type != "cuda":
        return True
    try:
        torch.zeros(1, device=device).add_(1).item()  # waits for all that was queued
    except RuntimeError as error:
        return _is_out_of_memory(error)
    return True


@contextmanager
def _reporting_loss(device: torch.device) -> Iterator[None]:
    """Raises ``DeviceError`` in place of an error of a device that does not compute any more."""
    try:
        yield
    except RuntimeError as error:
        if device_works(device):
            raise
        first_line = str(error).strip().partition("\n")[0]
        raise DeviceError(f"the device {device} is lost, start the node again: {first_line}") from error


def _create_map(node: Node) -> None:
    """Creates an empty map with the default features if ``map_file`` does not exist."""
    path = user_path(value_of(node, "map_file"))
    if not path.name or path.exists():
        return
    backbone = load_backbone(DEFAULT_BACKBONE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MapError(f"map {path} cannot be created: {error.strerror}") from error
    frame = frame_name(value_of(node, "map_frame")) or "map"
    KeyframeStore.create(path, backbone.name, backbone.weights_hash, frame, source="keyframes by topic").close()
    node.get_logger().info(f"created an empty map {path}")
