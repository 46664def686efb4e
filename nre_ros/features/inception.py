# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The published NRE networks: an Inception-v3 trunk, cut where the checkpoint says, and a 1x1 convolution.

Architecture: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, with torchvision's
order and names of layers, adapted as Germain et al. did (CVPR 2021). Every convolution and pooling is padded to keep
its input's size (divided by its stride), and

- coarse: max-pooling after Conv2d_2b and, unless left out, after Conv2d_4a; Mixed_7a at stride 1,
  its pooled branch passed through unpooled;
- fine: no pooling, Conv2d_3b with 3x3 kernels, cut at Mixed_5d at the latest.

Geometry: a k x k kernel padded by (k - 1) / 2 is centred on cell s i of its input, for a stride s (k is odd throughout,
in the pooling layers too). All receptive fields of cell i of the output are therefore centred at pixel ``stride * i``
of the input: stride 16 at Mixed_7a, 2 in the fine network, offset 0 in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

LEVELS = ("coarse", "fine")


@dataclass(frozen=True)
class Layer:
    """One layer of the trunk.

    Attributes:
        name: As in torchvision.
        make: Constructs the layer.
        channels: Of the output.
        stride: Of the layer.
        pooled: Whether pooling by 2 follows.
    """

    name: str
    make: Callable[[], nn.Module]
    channels: int
    stride: int = 1
    pooled: bool = False


class BasicConv2d(nn.Module):
    """Convolution of the input's size, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1):
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionA(nn.Module):
    """The 5x5 block (the paper's figure 5): Mixed_5b to 5d, 224 + ``pooled`` channels."""

    def __init__(self, inputs: int, pooled: int):
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 64, 1)
        self.branch5x5_1 = BasicConv2d(inputs, 48, 1)
        self.branch5x5_2 = BasicConv2d(48, 64, 5)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3)
        self.branch_pool = BasicConv2d(inputs, pooled, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = (
            self.branch1x1(x),
            self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1)),
        )
        return torch.cat(branches, dim=1)


class InceptionB(nn.Module):
    """The reduction by 2 (figure 10): Mixed_6a, 480 channels and the input's."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = BasicConv2d(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = BasicConv2d(inputs, 64, 1)
        self.branch3x3dbl_2 = BasicConv2d(64, 96, 3)
        self.branch3x3dbl_3 = BasicConv2d(96, 96, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = (
            self.branch3x3(x),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            F.max_pool2d(x, 3, stride=2, padding=1),
        )
        return torch.cat(branches, dim=1)


class InceptionC(nn.Module):
    """The factorised 7x7 block (figure 6): Mixed_6b to 6e, 768 channels."""

    def __init__(self, inputs: int, c7: int):
        super().__init__()
        self.branch1x1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7_1 = BasicConv2d(inputs, c7, 1)
        self.branch7x7_2 = BasicConv2d(c7, c7, (1, 7))
        self.branch7x7_3 = BasicConv2d(c7, 192, (7, 1))
        self.branch7x7dbl_1 = BasicConv2d(inputs, c7, 1)
        self.branch7x7dbl_2 = BasicConv2d(c7, c7, (7, 1))
        self.branch7x7dbl_3 = BasicConv2d(c7, c7, (1, 7))
        self.branch7x7dbl_4 = BasicConv2d(c7, c7, (7, 1))
        self.branch7x7dbl_5 = BasicConv2d(c7, 192, (1, 7))
        self.branch_pool = BasicConv2d(inputs, 192, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        branches = (
            self.branch1x1(x),
            self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(double)),
            self.branch_pool(F.avg_pool2d(x, 3, stride=1, padding=1)),
        )
        return torch.cat(branches, dim=1)


class InceptionD(nn.Module):
    """Mixed_7a without its reduction: 512 channels and the input's, as they are."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch3x3_2 = BasicConv2d(192, 320, 3)
        self.branch7x7x3_1 = BasicConv2d(inputs, 192, 1)
        self.branch7x7x3_2 = BasicConv2d(192, 192, (1, 7))
        self.branch7x7x3_3 = BasicConv2d(192, 192, (7, 1))
        self.branch7x7x3_4 = BasicConv2d(192, 192, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch7x7x3 = self.branch7x7x3_2(self.branch7x7x3_1(x))
        branches = (
            self.branch3x3_2(self.branch3x3_1(x)),
            self.branch7x7x3_4(self.branch7x7x3_3(branch7x7x3)),
            x,
        )
        return torch.cat(branches, dim=1)


def _layers(level: str, second_pool: bool) -> list[Layer]:
    coarse = level == "coarse"
    layers = [
        Layer("Conv2d_1a_3x3", lambda: BasicConv2d(3, 32, 3, stride=2), 32, stride=2),
        Layer("Conv2d_2a_3x3", lambda: BasicConv2d(32, 32, 3), 32),
        Layer("Conv2d_2b_3x3", lambda: BasicConv2d(32, 64, 3), 64, pooled=coarse),
        Layer("Conv2d_3b_1x1", lambda: BasicConv2d(64, 80, 1 if coarse else 3), 80),
        Layer("Conv2d_4a_3x3", lambda: BasicConv2d(80, 192, 3), 192, pooled=coarse and second_pool),
        Layer("Mixed_5b", lambda: InceptionA(192, 32), 256),
        Layer("Mixed_5c", lambda: InceptionA(256, 64), 288),
        Layer("Mixed_5d", lambda: InceptionA(288, 64), 288),
    ]
    if not coarse:
        return layers
    return layers + [
        Layer("Mixed_6a", lambda: InceptionB(288), 768, stride=2),
        Layer("Mixed_6b", lambda: InceptionC(768, 128), 768),
        Layer("Mixed_6c", lambda: InceptionC(768, 160), 768),
        Layer("Mixed_6d", lambda: InceptionC(768, 160), 768),
        Layer("Mixed_6e", lambda: InceptionC(768, 192), 768),
        Layer("Mixed_7a", lambda: InceptionD(768), 1280),
    ]


def layer_names(level: str) -> list[str]:
    """Lists the layers at which a network can be cut.

    Args:
        level: ``coarse`` or ``fine``.

    Returns:
        The names, in the order of the network.
    """
    return [layer.name for layer in _layers(level, second_pool=True)]


class InceptionNetwork(nn.Module):
    """The network of one level, up to its extraction layer.

    It turns a normalised RGB image ``[B, 3, H, W]`` into features ``[B, channels, ~H / stride, ~W / stride]``. The
    features are not of unit length: their dot products are the logits of a correspondence map.

    Args:
        level: ``coarse`` or ``fine``.
        extraction_layer: One of ``layer_names(level)``.
        second_pool: Whether there is max-pooling after Conv2d_4a (coarse only).

    Attributes:
        level: ``coarse`` or ``fine``.
        extraction_layer: Where the trunk is cut.
        second_pool: Whether there is max-pooling after Conv2d_4a.
        channels: Of the features.
        stride: Of the features, in pixels of the input.

    Raises:
        ValueError: A name is unknown.
    """

    def __init__(self, level: str, extraction_layer: str, second_pool: bool = True):
        super().__init__()
        if level not in LEVELS:
            raise ValueError(f"unknown level {level!r}, known: {', '.join(LEVELS)}")
        if extraction_layer not in layer_names(level):
            known = ", ".join(layer_names(level))
            raise ValueError(f"the {level} network has no layer {extraction_layer!r}, known: {known}")
        self.level, self.extraction_layer, self.second_pool = level, extraction_layer, second_pool
        modules: list[nn.Module] = []
        self.stride = 1
        for layer in _layers(level, second_pool):
            modules.append(layer.make())
            if layer.pooled:
                modules.append(nn.MaxPool2d(3, stride=2, padding=1))
            self.stride *= layer.stride * (2 if layer.pooled else 1)
            self.channels = layer.channels
            if layer.name == extraction_layer:
                break
        head = nn.Conv2d(self.channels, self.channels, 1, bias=False)
        self.cnn = nn.Sequential(*modules, head, nn.BatchNorm2d(self.channels))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.cnn(image)


def fuse_batch_norms(network: InceptionNetwork) -> InceptionNetwork:
    """Folds each batch normalisation into the convolution before it; the outputs stay the same.

    Args:
        network: The network, for inference; it is changed.

    Returns:
        The same network.
    """
    for module in network.modules():
        if isinstance(module, BasicConv2d) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
    head, norm = network.cnn[-2], network.cnn[-1]
    assert isinstance(head, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    network.cnn[-2] = fuse_conv_bn_eval(head, norm)
    network.cnn[-1] = nn.Identity()
    return network
