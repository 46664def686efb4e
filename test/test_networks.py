# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The published networks: their outputs are the published code's, and their cells lie where they say."""

import json

import numpy as np
import pytest
import torch
from checkpoint_samples import formula_network

from nre_ros.features.inception import InceptionNetwork, fuse_batch_norms, layer_names

CONFIGURATIONS = {
    "coarse_mixed_7a": ("coarse", "Mixed_7a", True),
    "coarse_mixed_6e_nomaxpool": ("coarse", "Mixed_6e", False),
    "fine_mixed_5d": ("fine", "Mixed_5d", True),
    "fine_conv2d_4a": ("fine", "Conv2d_4a_3x3", True),
}


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def published(request, shared):
    """Name of a configuration, its network, and the published code's numbers."""
    return request.param, formula_network(*CONFIGURATIONS[request.param]), shared / "reference"


def test_parameters_have_the_published_names_and_shapes_in_order(published):
    name, network, folder = published
    expected = json.loads((folder / "network_state_dict.json").read_text())[name]
    assert [(key, list(value.shape)) for key, value in network.state_dict().items()] == list(expected.items())


@pytest.mark.parametrize("prepare", [lambda network: network, fuse_batch_norms], ids=["as_is", "fused"])
def test_outputs_are_the_published_ones(published, prepare):
    name, network, folder = published
    with np.load(folder / "network.npz") as numbers, torch.inference_mode():
        found = prepare(network)(torch.from_numpy(numbers["image"]))[0]
        assert found.shape == tuple(numbers[f"{name}_shape"])
        scale = found.abs().mean()
        samples = found.flatten()[torch.from_numpy(numbers[f"{name}_sample_index"])]
        assert (samples - torch.from_numpy(numbers[f"{name}_sample_value"])).abs().max() < 1e-3 * scale
        means = torch.from_numpy(numbers[f"{name}_mean_per_channel"])
        assert (found.mean((1, 2)) - means).abs().max() < 1e-3 * scale


@pytest.mark.parametrize(
    "configuration, channels, stride, tensors",
    [
        (("coarse", "Mixed_7a", True), 1280, 16, 462),
        (("coarse", "Mixed_6e", False), 768, 8, 426),
        (("fine", "Mixed_5d", True), 288, 2, 162),
        (("fine", "Conv2d_4a_3x3", True), 192, 2, 36),
        (("coarse", "Conv2d_2b_3x3", True), 64, 4, 24),
        (("coarse", "Conv2d_1a_3x3", True), 32, 2, 12),
    ],
)
def test_sizes_and_strides(configuration, channels, stride, tensors):
    with torch.device("meta"):
        network = InceptionNetwork(*configuration).eval()
        features = network(torch.zeros(1, 3, 96, 128))
    assert (network.channels, network.stride) == (channels, stride)
    assert features.shape == (1, channels, 96 // stride, 128 // stride)
    assert len(network.state_dict()) == tensors


@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_cells_are_centred_at_multiples_of_the_stride(level):
    """A mirrored network on a mirrored image gives the mirrored map: only if the geometry is symmetric.

    Cell i at pixel stride * i + offset has its mirror image at width - 1 - (stride * i + offset),
    which is a cell's centre for the offset tested here alone.
    """
    network = formula_network(level, layer_names(level)[-1])
    cells, offset = 4, 0
    width = network.stride * (cells - 1) + 2 * offset + 1
    image = torch.rand(1, 3, width, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network(image)
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.data = module.weight.data.flip(-1, -2)
        mirrored = network(image.flip(-1, -2)).flip(-1, -2)
    assert features.shape[-2:] == (cells, cells)
    assert (features - mirrored).abs().max() < 1e-4 * features.abs().mean()
    assert (features - features.flip(-1, -2)).abs().mean() > 0.01 * features.abs().mean()  # or it would prove nothing


def test_moving_the_image_by_the_stride_moves_the_map_by_a_cell():
    network = formula_network("coarse", "Mixed_5d")
    image = torch.rand(1, 3, 48, 208, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        left, right = network(image[..., :-8]), network(image[..., 8:])
    reach = 8  # cells at the ends see the border
    difference = (left[..., 1:] - right[..., :-1])[..., reach:-reach]
    assert difference.shape[-1] == 8 and difference.abs().max() < 1e-4 * left.abs().mean()


@pytest.mark.parametrize(
    "level, layer, named",
    [("medium", "Mixed_5b", "medium"), ("fine", "Mixed_6a", "Mixed_6a"), ("coarse", "fc", "fc")],
)
def test_unknown_names_are_refused(level, layer, named):
    with pytest.raises(ValueError, match=named):
        InceptionNetwork(level, layer)
