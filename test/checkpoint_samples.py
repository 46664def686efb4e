# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as PyTorch Lightning wrote them in 2021, with weights from a formula instead of training."""

import math

import torch

from nre_ros.features.inception import InceptionNetwork

LIGHTNING = {"epoch": 12, "global_step": 34567, "pytorch-lightning_version": "1.2.10"}


def formula_state(network):
    """The state_dict of ``network`` with the weights that ../shared/reference/README.md describes."""
    state = {}
    for k, (name, tensor) in enumerate(network.state_dict().items()):
        s = torch.sin(0.7 * torch.arange(1, tensor.numel() + 1, dtype=torch.float64) + 0.3 * k).reshape(tensor.shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.int64)
            continue
        if tensor.ndim == 4:
            value = s * math.sqrt(2 / tensor[0].numel())
        elif name.endswith("running_mean"):
            value = 0.02 * s
        elif name.endswith("running_var"):
            value = 1 + 0.2 * s.abs()
        elif name.endswith("weight"):
            value = 1 + 0.1 * s
        else:
            value = 0.05 * s
        state[name] = value.float()
    return state


def formula_network(level, extraction_layer, second_pool=True):
    network = InceptionNetwork(level, extraction_layer, second_pool).eval()
    network.load_state_dict(formula_state(network))
    return network


def checkpoint(level="coarse", extraction_layer="Mixed_5b", resize=32, **changes):
    """What torch.save wrote: a dictionary; ``changes`` replace its entries."""
    return {
        **LIGHTNING,
        "state_dict": formula_state(InceptionNetwork(level, extraction_layer)),
        "hparams_name": "kwargs",
        "hyper_parameters": {
            "level": level,
            "extraction_layer": extraction_layer,
            "image": {"resize": resize},
            "minibatch_size": 50,
        },
        **changes,
    }


def write_pair(folder):
    """Small networks as ``folder``/coarse.ckpt and fine.ckpt; the paths."""
    paths = folder / "coarse.ckpt", folder / "fine.ckpt"
    torch.save(checkpoint(), paths[0])
    torch.save(checkpoint("fine", "Conv2d_4a_3x3"), paths[1])
    return paths
