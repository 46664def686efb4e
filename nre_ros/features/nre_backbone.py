# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The published NRE networks (Germain et al., CVPR 2021) as one backbone: coarse and fine Inception.

The weights must be imported before (``nre_ros weights import``). The features are not of unit length: their plain dot
product is the logit of the correspondence maps.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nre_ros.features.base import FeatureBackbone, FeatureGrid, FeatureMap, ImageFeatures, check_image
from nre_ros.features.checkpoint import Checkpoint
from nre_ros.features.inception import InceptionNetwork, fuse_batch_norms
from nre_ros.features.weights import load_weights

_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colours, RGB in [0, 1]."""
_CENTRE = 0.0
"""Cell i is centred at pixel stride * i of the network's input.

It is derived (see ``inception``), not measured, for a measurement needs the trained weights. The published code samples
descriptors at pixel * cells / pixels, which agrees for image sides that the stride divides. It scales its intrinsics,
however, as for cells centred (stride - 1) / 2 farther right and down.
"""
_MAX_COARSE_SIDE = 1024
"""Where the checkpoint does not say."""


class NREBackbone(FeatureBackbone):
    """The imported coarse and fine networks on one device.

    Args:
        device: Where the networks run.
        max_fine_imsize: Images whose longer side has more pixels are reduced to it before the fine network (the
            published setting). The limit of the coarse network comes from the checkpoint.

    Raises:
        WeightsError: The weights are absent or unusable.
    """

    name = "nre"
    coarse_temperature = 1.0
    fine_temperature = 1.0
    unit_length = False

    def __init__(self, device: torch.device, max_fine_imsize: int = 1600):
        self.device = device
        coarse, fine = load_weights("coarse"), load_weights("fine")
        self.weights_hash = hashlib.sha256((coarse.sha256 + fine.sha256).encode()).hexdigest()
        self.max_coarse_imsize = max_coarse_side(coarse)
        self.max_fine_imsize = max_fine_imsize
        self.coarse = _prepared(coarse, device)
        self.fine = _prepared(fine, device)
        self.coarse_channels = self.coarse.channels
        self.fine_channels = self.fine.channels

    @torch.inference_mode()
    def extract(self, image: npt.NDArray[np.uint8], detect: bool = False, fine: bool = True) -> ImageFeatures:
        image = check_image(image)
        detection = self._detect(image) if detect else None
        rgb = normalised_rgb(image, self.device)
        coarse = network_features(self.coarse, rgb, self.max_coarse_imsize)
        return ImageFeatures(
            coarse, network_features(self.fine, rgb, self.max_fine_imsize) if fine else coarse, detection
        )

    def _detect(self, image: npt.NDArray[np.uint8]) -> torch.Tensor:
        """The smaller eigenvalue of the gradients' covariance (Shi and Tomasi, CVPR 1994).

        The networks have no detector: the published code takes the points from elsewhere.
        """
        grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        return torch.from_numpy(cv2.cornerMinEigenVal(grey, blockSize=5, ksize=3)).to(self.device)


def normalised_rgb(image: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Makes the input of the networks.

    Args:
        image: BGR ``[H, W, 3]`` or grey ``[H, W]``, uint8.
        device: Where the input goes.

    Returns:
        ``[1, 3, H, W]`` RGB, normalised with the mean and the deviation of ImageNet's colours.
    """
    colours = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)
    mean, deviation = (255 * torch.tensor(values, device=device)[:, None, None] for values in (_MEAN, _DEVIATION))
    return ((torch.from_numpy(colours).to(device).permute(2, 0, 1) - mean) / deviation)[None]


def max_coarse_side(checkpoint: Checkpoint) -> int:
    """Computes the longer side of the image at which the published code runs its coarse network.

    It is the side whose feature map has ``resize`` cells, as the published code computes it: back through the layers
    that halve, n cells come from 2 n - 1, and Mixed_7a counts although it halves nothing.

    Args:
        checkpoint: The coarse network's checkpoint.

    Returns:
        Pixels.
    """
    if checkpoint.resize is None:
        return _MAX_COARSE_SIDE
    return image_side(checkpoint.network(), checkpoint.resize)


def image_side(network: InceptionNetwork, resize: int) -> int:
    """Computes ``max_coarse_side`` of a network and a setting.

    Args:
        network: The coarse network.
        resize: Side of its feature map, in cells.

    Returns:
        Pixels.
    """
    factor = network.stride * (2 if network.extraction_layer == "Mixed_7a" else 1)
    return factor * (resize - 1) + 1


def _prepared(checkpoint: Checkpoint, device: torch.device) -> InceptionNetwork:
    network = fuse_batch_norms(checkpoint.network()).to(device)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stub


def network_features(network: InceptionNetwork, rgb: torch.Tensor, max_side: int) -> FeatureMap:
    """Computes the features of an image that is reduced where its longer side is above a limit.

    Args:
        network: The network.
        rgb: ``[1, 3, H, W]`` of ``normalised_rgb``.
        max_side: The limit, pixels.
    """
    scale = min(1.0, max_side / max(rgb.shape[2:]))
    if scale < 1.0:
        rgb = F.interpolate(rgb, scale_factor=scale, mode="bilinear", antialias=True, recompute_scale_factor=False)
    features = network(rgb.contiguous(memory_format=torch.channels_last))[0].contiguous()
    # pixel x of the image is pixel (x + 0.5) scale - 0.5 of the network's input
    return FeatureMap(features, FeatureGrid(network.stride / scale, (_CENTRE + 0.5) / scale - 0.5))
