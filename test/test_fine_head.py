# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The fine head on XFeat's first pass: sizes, places, determinism, and files of its weights."""

import json
import struct

import numpy as np
import pytest
import torch
from skimage import data

from nre_ros.errors import WeightsError
from nre_ros.features.fine_head import STACKED_CHANNELS, FineHead, stack_maps
from nre_ros.features.tensor_file import parse_tensors, read_tensors, write_tensors
from nre_ros.features.xfeat import XFeatBackbone

NETWORK = "ab" * 32


@pytest.fixture(scope="module")
def xfeat() -> XFeatBackbone:
    return XFeatBackbone(torch.device("cpu"), max_imsize=256)


def photograph(width: int, height: int) -> np.ndarray:
    return np.ascontiguousarray(data.coffee()[40 : 40 + height, 100 : 100 + width, ::-1])


@pytest.mark.parametrize("width, height", [(160, 128), (161, 127), (33, 32), (45, 98)])
def test_features_cover_images_of_any_size(xfeat, width, height):
    features = FineHead().feature_map(xfeat.first_pass(photograph(width, height)))
    _, rows, columns = features.data.shape
    assert (len(features.data), features.grid.stride, features.grid.offset) == (32, 4, 1.5)
    assert (columns - 1) * 4 < width <= columns * 4 and (rows - 1) * 4 < height <= rows * 4
    torch.testing.assert_close(features.data.norm(dim=0), torch.ones(rows, columns), atol=1e-5, rtol=0)


def test_the_head_has_26_thousand_parameters():
    assert sum(parameter.numel() for parameter in FineHead().parameters()) == 26_241
    assert STACKED_CHANNELS == 208


def test_the_first_pass_is_what_the_backbone_extracts(xfeat):
    image = photograph(150, 100)
    maps, features = xfeat.first_pass(image), xfeat.extract(image)
    torch.testing.assert_close(xfeat.head(stack_maps(maps))[0], features.fine.data, atol=1e-5, rtol=0)
    assert maps.grid == features.fine.grid and maps.size == features.fine.data.shape[1:]
    coarse = torch.nn.functional.normalize(maps.coarse[0], dim=0)[:, : features.coarse.data.shape[1]]
    assert torch.equal(coarse[:, :, : features.coarse.data.shape[2]], features.coarse.data)


def test_large_images_are_reduced_and_the_grid_says_so(xfeat):
    maps = xfeat.first_pass(photograph(320, 240))
    assert maps.size == (48, 64) and maps.grid.stride == pytest.approx(5.0)
    assert maps.grid.offset == pytest.approx((1.5 + 0.5) / 0.8 - 0.5)


def test_stacked_maps_lie_on_one_grid(xfeat):
    """Where a bright dot is drawn, each of the maps changes most."""
    plain, dotted = photograph(128, 96), photograph(128, 96)
    dotted[48:52, 84:88] = 250  # the cell in row 12 and column 21
    change = (stack_maps(xfeat.first_pass(dotted)) - stack_maps(xfeat.first_pass(plain)))[0].abs()
    for channels in (slice(0, 32), slice(32, 56), slice(56, 80), slice(80, 144)):
        response = change[channels].sum(0)
        row, column = divmod(int(response.argmax()), response.shape[1])
        assert abs(row - 12) <= 1 and abs(column - 21) <= 1


def test_gradients_reach_every_parameter_but_not_the_network(xfeat):
    head = FineHead()
    features = head.feature_map(xfeat.first_pass(photograph(64, 64))).data
    (features[:, 3, 4] @ features[:, 5, 6] / head.temperature).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters())
    assert all(parameter.grad is None for parameter in xfeat.network.parameters())


def test_a_seed_gives_one_head_and_leaves_the_global_generator_alone(xfeat):
    before = torch.random.get_rng_state()
    a, b, other = FineHead(seed=1), FineHead(seed=1), FineHead(seed=2)
    assert torch.equal(before, torch.random.get_rng_state())
    maps = xfeat.first_pass(photograph(96, 64))
    assert torch.equal(a.feature_map(maps).data, b.feature_map(maps).data)
    assert not torch.equal(a.reduce.weight, other.reduce.weight)


def test_batches_are_single_images(xfeat):
    head = FineHead()
    stacked = torch.cat([stack_maps(xfeat.first_pass(photograph(96, 64)[::flip])) for flip in (1, -1)])
    torch.testing.assert_close(head(stacked)[1], head(stacked[1:])[0], atol=1e-5, rtol=1e-4)


# files


def test_a_saved_head_is_read_bit_for_bit(tmp_path):
    head = FineHead(channels=16, width=24, seed=3)
    head.save(tmp_path / "head.safetensors", NETWORK, "made by a test")
    read = FineHead.load(tmp_path / "head.safetensors", NETWORK)
    assert (read.channels, read.width) == (16, 24)
    assert all(torch.equal(a, b) for a, b in zip(head.state_dict().values(), read.state_dict().values()))
    assert read_tensors(tmp_path / "head.safetensors")[1]["description"] == "made by a test"
    assert [path.name for path in tmp_path.iterdir()] == ["head.safetensors"]


def test_a_file_states_the_hash_of_its_weights_and_other_weights_are_refused(tmp_path):
    path, head = tmp_path / "head.safetensors", FineHead(seed=2)
    head.save(path, NETWORK)
    assert read_tensors(path)[1]["weights"] == head.weights_hash
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # one bit of a weight, which stays finite
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"is damaged: it states the hash '{head.weights_hash[:12]}'.*copy the file"):
        FineHead.load(path, NETWORK)
    former = {"format": "nre_ros fine head 1", "network": NETWORK, "channels": "32", "width": "32"}
    write_tensors(path, head.state_dict(), former)  # as files up to version 0.2, which state no hash
    assert FineHead.load(path, NETWORK).weights_hash == head.weights_hash


def test_files_are_those_of_the_safetensors_package(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    FineHead().save(tmp_path / "head.safetensors", NETWORK)
    theirs = safetensors.load_file(tmp_path / "head.safetensors")
    assert all(torch.equal(theirs[key], value) for key, value in FineHead().state_dict().items())


def test_the_file_has_the_layout_of_the_format(tmp_path):
    """Read by hand: the format's own description."""
    write_tensors(tmp_path / "a", {"w": torch.tensor([[1.0, 2.5]]), "b": torch.tensor(3.0)}, {"k": "v"})
    content = (tmp_path / "a").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    assert length % 8 == 0
    assert json.loads(content[8 : 8 + length]) == {
        "__metadata__": {"k": "v"},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
        "w": {"dtype": "F32", "shape": [1, 2], "data_offsets": [4, 12]},
    }
    assert struct.unpack("<3f", content[8 + length :]) == (3.0, 1.0, 2.5)


def packed(header: object, numbers: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


def entry(shape=(2,), offsets=(0, 8), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "0 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", "truncated"),
        (packed(b"{"), "cannot be read"),
        (packed(b"\xff\xfe"), "cannot be read"),
        (packed(b"[" * 200_000), "nested too deeply|cannot be read"),
        (packed([1]), "header is a list"),
        (packed(b'{"w": {}, "w": {}}'), "occurs twice"),
        (packed({"__metadata__": {"k": 1}}), "dictionary of strings"),
        (packed({"w": 1}), "expected 'F32'"),
        (packed({"w": entry(dtype="I64")}, bytes(8)), "type 'I64'"),
        (packed({"w": entry(shape=(-2,))}, bytes(8)), "no valid shape"),
        (packed({"w": entry(shape=(True,), offsets=(0, 4))}, bytes(8)), "no valid shape"),
        (packed({"w": entry(shape=(2**20, 2**20))}, bytes(8)), "has 8 bytes"),
        (packed({"w": entry(offsets=(8, 16))}, bytes(16)), "does not lie"),
        (packed({"w": entry(), "v": entry()}, bytes(8)), "does not lie"),
        (packed({"w": entry()}, bytes(7)), "beyond the end"),
        (packed({"w": entry()}, bytes(9)), "1 bytes behind"),
        (packed({"w": entry()}, struct.pack("<2f", 1.0, float("nan"))), "not finite"),
    ],
)
def test_damaged_files_are_refused(content, message):
    with pytest.raises(WeightsError, match=message):
        parse_tensors(content, "x")


def test_heads_that_do_not_fit_are_refused(tmp_path):
    path, state = tmp_path / "head.safetensors", FineHead().state_dict()
    right = {"format": "nre_ros fine head 1", "network": NETWORK, "channels": "32", "width": "32"}

    def refused(message, tensors=state, **changes):
        write_tensors(path, tensors, {**right, **changes})
        with pytest.raises(WeightsError, match=message):
            FineHead.load(path, NETWORK)

    refused("no fine head", format="something")
    refused("other weights of XFeat", network="cd" * 32)
    refused("channels is '1e9'", channels="1e9")
    refused("width 0", width="0")
    refused(r"tensor 'expand.bias' is \[32\], expected \[16\]", channels="16")
    refused("lacks tensor 'expand.bias'", {k: v for k, v in state.items() if k != "expand.bias"})
    refused("unknown tensor 'more'", {**state, "more": torch.zeros(1)})
    refused("temperature of", {**state, "log_temperature": torch.tensor(60.0)})
    with pytest.raises(WeightsError, match="cannot read"):
        FineHead.load(tmp_path / "absent", NETWORK)
    with pytest.raises(WeightsError, match="no file"):
        FineHead.load(tmp_path, NETWORK)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    head = FineHead()
    head.save(tmp_path / "head", NETWORK)
    good = (tmp_path / "head").read_bytes()
    with torch.no_grad():
        head.expand.bias[0] = float("nan")
    with pytest.raises(WeightsError, match=r"expand\.bias"):
        head.save(tmp_path / "head", NETWORK)
    assert (tmp_path / "head").read_bytes() == good
    with pytest.raises(WeightsError, match="cannot write"):
        FineHead().save(tmp_path / "absent" / "head", NETWORK)


def test_impossible_heads_are_refused():
    for channels, width in ((0, 32), (32, 0), (10**6, 32)):
        with pytest.raises(WeightsError, match="are possible"):
            FineHead(channels, width)
