# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros weights``, and the whole way from a checkpoint to features and a map."""

import cv2
import numpy as np
import pytest
import torch
from checkpoint_samples import checkpoint, formula_network, write_pair
from scipy.interpolate import CubicHermiteSpline

from nre_ros.cli import main
from nre_ros.errors import ImageError, WeightsError
from nre_ros.features import FineHead, load_backbone
from nre_ros.features import checkpoint as checkpoint_module
from nre_ros.features.checkpoint import git_blob_id, parse_checkpoint
from nre_ros.features.nre_backbone import max_coarse_side
from nre_ros.features.xfeat import installed_network_hash
from nre_ros.geometry import Camera
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR, global_descriptor
from nre_ros.keyframes.retrieval.retriever import Retriever
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import stack_keyframes
from nre_ros.localization.localizer import Localizer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the weights of this test's user go."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data/nre_ros/weights"


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path)


@pytest.fixture
def imported(folder, pair, capsys):
    assert main(["weights", "import", "--allow-unpublished", *map(str, pair)]) == 0
    capsys.readouterr()


@pytest.fixture
def image():
    """Texture of many sizes, 160x120."""
    rng = np.random.default_rng(0)
    noise = [rng.random((120 // n, 160 // n, 3)) for n in (4, 8, 20)]
    layers = [cv2.resize(layer, (160, 120), interpolation=cv2.INTER_CUBIC) for layer in noise]
    return (np.clip(np.mean(layers, axis=0), 0, 1) * 255).astype(np.uint8)


def test_verify_distinguishes_the_published_file_from_others(pair, capsys, monkeypatch):
    assert main(["weights", "verify", str(pair[0])]) == 1
    told = capsys.readouterr().out
    blob = git_blob_id(pair[0].read_bytes())
    assert "a usable coarse network, not the published one" in told and blob in told
    assert "Mixed_5b, 256 channels, stride 8" in told
    monkeypatch.setitem(checkpoint_module.PUBLISHED, "coarse", blob)
    assert main(["weights", "verify", str(pair[0])]) == 0
    assert "the published coarse network" in capsys.readouterr().out


def test_verify_reports_why_a_file_cannot_be_used(tmp_path, capsys):
    torn = tmp_path / "torn.pth"
    torn.write_bytes(b"PK\x03\x04torn")
    assert main(["weights", "verify", str(torn)]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and str(torn) in told.err


def test_import_accepts_unpublished_files_only_with_its_option(folder, pair, capsys, monkeypatch):
    assert main(["weights", "import", *map(str, pair)]) == 2
    assert "--allow-unpublished" in capsys.readouterr().err and not folder.exists()
    for level, path in zip(("coarse", "fine"), pair):
        monkeypatch.setitem(checkpoint_module.PUBLISHED, level, git_blob_id(path.read_bytes()))
    assert main(["weights", "import", *map(str, pair)]) == 0
    assert [(folder / name).read_bytes() for name in ("coarse.pth", "fine.pth")] == [p.read_bytes() for p in pair]
    assert sorted(p.name for p in folder.iterdir()) == ["coarse.pth", "fine.pth"]


def test_an_import_that_fails_leaves_what_was_there(folder, pair, imported, tmp_path, capsys, monkeypatch):
    before = (folder / "coarse.pth").read_bytes()
    torch.save(checkpoint(state_dict={}), tmp_path / "bad.pth")
    assert main(["weights", "import", "--allow-unpublished", str(tmp_path / "bad.pth")]) == 2
    torch.save(checkpoint(resize=33), tmp_path / "other.pth")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert main(["weights", "import", "--allow-unpublished", str(tmp_path / "other.pth")]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (folder / "coarse.pth").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["coarse.pth", "fine.pth"]


def test_list_reports_present_absent_and_unusable_weights(folder, pair, capsys):
    assert main(["weights", "list"]) == 0
    told = capsys.readouterr().out
    assert str(folder) in told and told.count("absent") == 2 and "nre_ros weights import" in told
    main(["weights", "import", "--allow-unpublished", str(pair[1])])
    (folder / "coarse.pth").write_bytes(b"torn")
    capsys.readouterr()
    assert main(["weights", "list"]) == 0
    told = capsys.readouterr().out
    assert "coarse unusable" in told and "fine   a usable fine network" in told


def test_list_shows_imported_heads_with_the_hash_of_their_weights(folder, tmp_path, capsys):
    head = FineHead(16, 16)
    head.save(tmp_path / "head.safetensors", installed_network_hash())
    main(["weights", "import", str(tmp_path / "head.safetensors")])
    (folder / "fine_head_0.safetensors").write_bytes(b"torn")
    capsys.readouterr()
    assert main(["weights", "list"]) == 0
    torn, found = capsys.readouterr().out.splitlines()[-2:]
    assert found.endswith(f": a fine head for xfeat, 16 channels, weights {head.weights_hash[:12]}")
    assert torn.startswith("fine_head_0.safetensors: unusable: ")


def test_without_weights_the_error_names_their_source(folder, pair):
    with pytest.raises(WeightsError, match="no coarse weights .*germain-hug/NRE.*nre_ros weights import"):
        load_backbone("nre")
    main(["weights", "import", "--allow-unpublished", str(pair[0])])
    with pytest.raises(WeightsError, match="no fine weights"):
        load_backbone("nre")
    (folder / "fine.pth").write_bytes((folder / "coarse.pth").read_bytes())
    with pytest.raises(WeightsError, match="holds a coarse network"):
        load_backbone("nre")


def test_features_are_the_networks(imported, image):
    backbone = load_backbone("nre")
    features = backbone.extract(image)
    rgb = (image[:, :, ::-1] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    rgb = torch.from_numpy(rgb.transpose(2, 0, 1)).float()
    for found, level, layer, shape in (
        (features.coarse, "coarse", "Mixed_5b", (256, 15, 20)),
        (features.fine, "fine", "Conv2d_4a_3x3", (192, 60, 80)),
    ):
        with torch.inference_mode():
            expected = formula_network(level, layer)(rgb[None])[0]
        assert found.data.shape == shape and found.data.dtype == torch.float32
        assert (found.data - expected).abs().max() < 1e-3 * expected.abs().mean()
    assert (features.coarse.grid.stride, features.coarse.grid.offset) == (8, 0)
    assert (features.fine.grid.stride, features.fine.grid.offset) == (2, 0)
    assert (backbone.coarse_channels, backbone.fine_channels) == (256, 192)
    assert (backbone.coarse_temperature, backbone.fine_temperature, backbone.unit_length) == (1, 1, False)
    assert features.detection is None
    assert backbone.extract(image, detect=True).detection.shape == (120, 160)
    assert backbone.extract(image[:, :, 0], fine=False).coarse.data.shape == (256, 15, 20)


def test_large_images_are_reduced_and_their_cells_stay_in_place(imported, image):
    """Cells lie where the same scene's cells lie when it is photographed at the reduced size."""
    backbone = load_backbone("nre")
    assert backbone.max_coarse_imsize == 8 * 31 + 1
    small = backbone.extract(image).coarse
    backbone.max_coarse_imsize = 160
    large = cv2.resize(image, (640, 480), interpolation=cv2.INTER_CUBIC)
    reduced = backbone.extract(large).coarse
    assert reduced.data.shape == small.data.shape
    assert torch.nn.functional.cosine_similarity(reduced.data, small.data, dim=0).mean() > 0.98
    pixels = torch.tensor([[300.0, 200.0]])
    # OpenCV's convention, too: pixel x of the large image is (x + 0.5) / 4 - 0.5 of the small one
    np.testing.assert_allclose(reduced.grid.to_cells(pixels), small.grid.to_cells((pixels + 0.5) / 4 - 0.5), atol=1e-5)


@pytest.mark.parametrize("resize, side", [(32, 249), (None, 1024), ("60", 1024), (-1, 1024)])
def test_the_checkpoint_limits_the_coarse_image(tmp_path, resize, side):
    torch.save(checkpoint(resize=resize), tmp_path / "x.pth")
    assert max_coarse_side(parse_checkpoint((tmp_path / "x.pth").read_bytes(), "x")) == side


def test_images_that_are_none_are_refused(imported):
    backbone = load_backbone("nre")
    for image in (None, np.zeros((20, 20, 3), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64))):
        with pytest.raises(ImageError):
            backbone.extract(image)


def test_the_weights_hash_follows_the_weights(folder, imported, tmp_path):
    before = load_backbone("nre").weights_hash
    assert before == load_backbone("nre").weights_hash
    torch.save(checkpoint(resize=33), tmp_path / "other.pth")
    main(["weights", "import", "--allow-unpublished", str(tmp_path / "other.pth")])
    assert load_backbone("nre").weights_hash != before


def catmull_rom(plane, cells):
    """SciPy's Hermite splines with central differences as tangents, along x and then along y; not at the border."""
    columns, rows = np.arange(plane.shape[1]), np.arange(plane.shape[0])
    along_x = CubicHermiteSpline(columns, plane, np.gradient(plane, axis=1), axis=1)(cells[:, 0])
    along_y = CubicHermiteSpline(rows, along_x, np.gradient(along_x, axis=0), axis=0)(cells[:, 1])
    return along_y.diagonal()


def test_a_map_keeps_the_features_as_they_are(imported, image, tmp_path):
    """Through builder, store and retrieval; and a localizer reads the map with its own backbone."""
    backbone = load_backbone("nre")
    camera = Camera(160, 120, 150.0, 150.0, 79.5, 59.5)
    depth = np.full((120, 160), 2.0, np.float32)
    keyframe = KeyframeBuilder(backbone, 50).build_rgbd("a", 0, image, depth, camera, np.eye(4))
    assert len(keyframe.points) == 50
    features = backbone.extract(image)
    path = tmp_path / "map.db"
    with KeyframeStore.create(path, backbone.name, backbone.weights_hash, retrieval=GLOBAL_DESCRIPTOR) as store:
        store.add(keyframe)
        stack = stack_keyframes(store.load([1]))
        ids, similarity = Retriever(store).query(global_descriptor(features.coarse))
    assert ids == [1] and similarity[0] > 0.99 and keyframe.global_descriptor.shape == (64 * 65 // 2,)
    pixels = cv2.projectPoints(keyframe.points, np.zeros(3), np.zeros(3), camera.K, None)[0][:, 0]
    cells = pixels / 8
    inside = ((cells >= 1) & (cells <= (18, 13))).all(1)
    assert inside.sum() > 20
    for channel in (0, 100, 255):
        expected = catmull_rom(features.coarse.data[channel].numpy(), cells[inside])
        difference = stack.coarse[:, channel].numpy()[inside] - expected
        assert np.abs(difference).mean() < 0.03 * np.abs(expected).mean()
    with Localizer(path, device="cpu") as localizer:
        assert localizer.backbone.name == "nre"
        result = localizer.localize(image, camera)
    assert result.success or result.reason  # what untrained features find is chance


def test_map_build_takes_the_features_by_name(folder, capsys, tmp_path):
    sparse = tmp_path / "sparse"
    with pytest.raises(SystemExit):
        main(["map", "build", "colmap", str(sparse), "--images", ".", "-o", "map.db", "--features", "sift"])
    assert "'sift'" in capsys.readouterr().err
