# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The model card describes the packaged fine head and no other."""

import hashlib
import re

import torch
from conftest import ROOT

from nre_ros.features.fine_head import PACKAGED_HEAD, STACKED_CHANNELS
from nre_ros.features.head_info import read_head_info
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.learning import photographs

CARD = (ROOT / "docs/model_card.md").read_text(encoding="utf-8")


def entry(name: str) -> str:
    """The second cell of the row that begins with this name."""
    (found,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", CARD, re.MULTILINE)
    return found


def test_hashes_parameters_and_temperature_are_those_of_the_packaged_file():
    info = read_head_info(PACKAGED_HEAD)
    assert info.fits and entry("parameters") == str(info.parameters)
    assert entry("temperature") == f"{info.head.temperature.item():.4f}"
    content = PACKAGED_HEAD.read_bytes()
    assert entry("file").startswith(f"{len(content)} bytes")
    assert entry("SHA-256 of the file") == hashlib.sha256(content).hexdigest()
    assert entry("hash of the weights") == info.head.weights_hash
    assert entry("XFeat's weights").endswith(info.network_hash)
    in_maps = XFeatBackbone(torch.device("cpu")).weights_hash
    assert entry("hash of the features in a map, with XFeat's weights") == in_maps
    assert entry("input").startswith(f"maps of XFeat's first pass, {STACKED_CHANNELS} channels")
    assert entry("output").startswith(f"{info.head.channels} features")


def test_steps_and_loss_are_those_that_the_file_names():
    description = read_head_info(PACKAGED_HEAD).description
    assert description.startswith(f"step {entry('steps').split()[0]} of {entry('steps').split()[0]}, 4 pairs")
    assert description.endswith(f"loss on held-out pairs {entry('loss on held-out pairs').split(' | ')[-1]}")


def test_every_photograph_is_named_with_the_author_and_licence_of_its_package():
    rows = re.findall(r"^\| (\S+\.(?:jpg|png)) \| (\S+) \| (.+) \| (.+) \|$", CARD, re.MULTILINE)
    known = {
        (file.rpartition("/")[2], package, *credit)
        for package, files in (
            ("scikit-image", photographs._SCIKIT_IMAGE),
            ("lomiri-wallpapers-16.04", photographs._LOMIRI_16),
            ("lomiri-wallpapers-20.04", photographs._LOMIRI_20),
            ("mate-backgrounds", photographs._MATE),
        )
        for file, credit in files.items()
    }
    assert set(rows) == known and len(rows) == 33
    assert "33 photographs of installed packages" in read_head_info(PACKAGED_HEAD).description
