# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The published networks in the trainer: falling losses, fixed statistics, and checkpoints that the backbone loads."""

import math

import cv2
import numpy as np
import pytest
import torch
from checkpoint_samples import checkpoint, formula_network
from skimage import data

from nre_ros.cli import main
from nre_ros.errors import TrainingError, WeightsError
from nre_ros.features.checkpoint import checkpoint_bytes, parse_checkpoint, read_checkpoint
from nre_ros.features.inception import fuse_batch_norms
from nre_ros.features.nre_backbone import NREBackbone, max_coarse_side, network_features, normalised_rgb
from nre_ros.learning.pair_sources import PhotographPairs, TrainingPairs
from nre_ros.learning.published import PublishedObjective, random_network
from nre_ros.learning.trainer import Trainer, TrainingConfig
from nre_ros.learning.training_folder import read_losses

CONFIG = TrainingConfig(steps=8, pairs_per_step=1, learning_rate=1e-3, warm_up=2)
LAYERS = {"coarse": "Conv2d_4a_3x3", "fine": "Conv2d_2b_3x3"}


class TwoPairs(TrainingPairs):
    """The same two pairs again and again."""

    def pair(self, index):
        return super().pair(index % 2)


@pytest.fixture(scope="module")
def pairs() -> TrainingPairs:
    return TwoPairs([PhotographPairs({"coffee": data.coffee(), "chelsea": data.chelsea()}, (112, 96), 120)])


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(pairs) -> list[np.ndarray]:
    return [image for i in range(2) for image in (pairs.pair(i).image_a, pairs.pair(i).image_b)]


def mean_loss(objective, pairs) -> float:
    with torch.no_grad():
        found = [objective.pair_losses(pairs.pair(i), draws(i)) for i in range(2)]
    return float(np.mean([float(losses["nre"]) for losses in found]))


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory) -> dict[str, tuple[PublishedObjective, float]]:
    """Level -> the objective after a few steps from random weights, and its loss before."""
    found = {}
    for level, layer in LAYERS.items():
        objective = PublishedObjective(random_network(level, layer, images(pairs)), 16 if level == "coarse" else None)
        before = mean_loss(objective, pairs)
        result = Trainer(objective, pairs, CONFIG, tmp_path_factory.mktemp(level)).run()
        assert (result.step, result.skipped) == (8, 0)
        found[level] = objective, before
    return found


@pytest.mark.parametrize("level", LAYERS)
def test_the_published_loss_falls(trained, pairs, level):
    objective, before = trained[level]
    assert mean_loss(objective, pairs) < before - 0.1


def test_a_trained_pair_of_networks_is_imported_and_gives_the_same_features(trained, pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    files = [tmp_path / f"{level}.pth" for level in LAYERS]
    for file, (objective, _) in zip(files, trained.values()):
        objective.save(file, step=8)
    assert main(["weights", "import", *map(str, files), "--allow-unpublished"]) == 0
    backbone, image = NREBackbone(torch.device("cpu")), pairs.pair(500).image_a
    assert backbone.max_coarse_imsize == 8 * 15 + 1
    features = backbone.extract(image)
    for level, found in (("coarse", features.coarse), ("fine", features.fine)):
        network = trained[level][0].network
        with torch.no_grad():
            expected = network(normalised_rgb(image, torch.device("cpu")))[0]
        torch.testing.assert_close(found.data, expected, atol=1e-4, rtol=1e-3)


def test_a_checkpoint_has_the_published_layout(trained, tmp_path):
    """Read without this package: names of the entries and of the settings, and containers of Python alone."""
    trained["coarse"][0].save(tmp_path / "coarse.pth", step=8)
    content = torch.load(tmp_path / "coarse.pth", weights_only=True)
    published = checkpoint()
    assert content.keys() == published.keys() and content["global_step"] == 8
    assert content["hyper_parameters"].keys() - {"no_maxpool"} == published["hyper_parameters"].keys()
    assert content["hyper_parameters"]["image"] == {"resize": 16}
    assert list(content["state_dict"]) == list(formula_network("coarse", LAYERS["coarse"]).state_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["coarse.pth"]


def test_training_continues_from_a_checkpoint_of_any_origin(pairs, tmp_path):
    torch.save(checkpoint("fine", "Conv2d_2a_3x3"), tmp_path / "fine.pth")
    objective = PublishedObjective(read_checkpoint(tmp_path / "fine.pth").network())
    before = mean_loss(objective, pairs)
    Trainer(objective, pairs, CONFIG, tmp_path / "training").run()
    assert mean_loss(objective, pairs) < before
    objective.save(tmp_path / "fine.pth")
    read = read_checkpoint(tmp_path / "fine.pth")
    assert all(torch.equal(read.state[name], value) for name, value in objective.network.state_dict().items())


def test_statistics_stay_and_all_weights_move(trained, pairs):
    for level, (objective, _) in trained.items():
        start = random_network(level, LAYERS[level], images(pairs)).state_dict()
        end = objective.network.state_dict()
        fixed = {name for name in start if "running" in name or "batches" in name}
        assert fixed and all(torch.equal(start[name], end[name]) for name in fixed)
        assert not any(torch.equal(start[name], end[name]) for name in start.keys() - fixed)


def test_random_networks_depend_on_the_seed_and_have_the_statistics_of_the_images(pairs):
    before = torch.random.get_rng_state()
    a, b, other = (random_network("fine", "Conv2d_2a_3x3", images(pairs), seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert not torch.equal(a.cnn[0].conv.weight, other.cnn[0].conv.weight)
    with torch.no_grad():
        first = [a.cnn[0].conv(normalised_rgb(image, torch.device("cpu"))) for image in images(pairs)]
        features = [a(normalised_rgb(image, torch.device("cpu")))[0].flatten(1) for image in images(pairs)]
    means = torch.stack([part.mean((0, 2, 3)) for part in first])
    torch.testing.assert_close(a.cnn[0].bn.running_mean, means.mean(0), atol=1e-4, rtol=1e-3)
    products = torch.cat([(part[:, ::7].T @ part[:, 3::11]).flatten() for part in features])
    assert 0.8 < products.std() < 1.2


def test_large_images_are_reduced_as_the_backbone_reduces_them(pairs):
    image = np.ascontiguousarray(data.coffee()[:200, :300, ::-1])
    network = formula_network("coarse", "Conv2d_3b_1x1")
    objective = PublishedObjective(network, resize=33)
    read = parse_checkpoint(checkpoint_bytes(objective.network, 33), "x")
    assert max_coarse_side(read) == 4 * 32 + 1
    features = network_features(fuse_batch_norms(read.network()), normalised_rgb(image, torch.device("cpu")), 129)
    assert features.data.shape[1:] == (22, 33) and features.grid.stride == pytest.approx(4 * 300 / 129)


def test_unusable_networks_and_settings_are_refused(pairs, tmp_path):
    network = formula_network("fine", "Conv2d_1a_3x3")
    with pytest.raises(TrainingError, match="resize=20 of the fine network"):
        PublishedObjective(network, resize=20)
    with pytest.raises(TrainingError, match="outside_weight=-1"):
        PublishedObjective(formula_network("coarse", "Conv2d_1a_3x3"), outside_weight=-1.0)
    with pytest.raises(TrainingError, match="needs images"):
        random_network("fine", "Conv2d_1a_3x3", [])
    with pytest.raises(TrainingError, match="no layer 'Mixed_7a'"):
        random_network("fine", "Mixed_7a", images(pairs))
    objective = PublishedObjective(network)
    objective.save(tmp_path / "fine.pth")
    good = (tmp_path / "fine.pth").read_bytes()
    with torch.no_grad():
        network.cnn[0].conv.weight[0, 0, 0, 0] = math.inf
    assert math.isnan(float(objective.pair_losses(pairs.pair(0), draws())["total"]))
    with pytest.raises(WeightsError, match="the fine network: tensor 'cnn.0.conv.weight' is not finite"):
        objective.save(tmp_path / "fine.pth")
    assert (tmp_path / "fine.pth").read_bytes() == good
    with pytest.raises(WeightsError, match="cannot write"):
        PublishedObjective(formula_network("fine", "Conv2d_1a_3x3")).save(tmp_path / "absent" / "fine.pth")
    with pytest.raises(WeightsError, match="lacks tensor 'cnn.0.bn"):
        PublishedObjective(fuse_batch_norms(formula_network("fine", "Conv2d_1a_3x3"))).save(tmp_path / "fine.pth")


# the published networks by the command


def small(folder, *options: str) -> list[str]:
    return (
        f"train -o {folder} --room-share 0 --photographs {folder.parent}/photographs --size 112x96 --points 120 --steps 20 "
        "--pairs 1 --workers 0 --validation-pairs 3 --validate-every 4 --learning-rate 0.003 --device cpu"
    ).split() + list(options)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a training beside a folder of photographs; the picture of the losses takes long."""
    monkeypatch.setattr("nre_ros.learning.run_training.draw_losses", lambda losses, path: None)
    (tmp_path / "photographs").mkdir()
    for k, name in enumerate(("coffee", "chelsea", "astronaut") * 2):  # of six photographs, one is held out
        image = cv2.resize(getattr(data, name)()[::-1][:: 1 - 2 * (k % 2)], (300, 240))
        cv2.imwrite(str(tmp_path / f"photographs/{k}.png"), image)
    return tmp_path / "training"


@pytest.mark.parametrize("level", LAYERS)
def test_the_command_trains_a_published_network_and_resumes(level, folder, capsys):
    words = small(folder, "--published", level, "--layer", LAYERS[level])
    assert main(words) == 0
    assert f"{folder}/{level}.pth" in capsys.readouterr().out
    found = read_losses(folder / "losses.csv")["validation_total"][3::4]
    assert found[-2:].min() < found[0] - 0.1, "the loss of pairs that were not trained on falls"
    read = read_checkpoint(folder / f"{level}.pth")
    assert (read.level, read.extraction_layer) == (level, LAYERS[level])
    assert torch.load(folder / f"{level}.pth", weights_only=True)["global_step"] == 4 * (1 + int(found.argmin()))
    assert main([*words, "--resume"]) == 0 and read_checkpoint(folder / f"{level}.pth").data == read.data


def test_the_command_begins_with_the_weights_of_a_file(folder, tmp_path):
    torch.save(checkpoint("coarse", "Conv2d_2b_3x3", resize=24), tmp_path / "start.pth")
    words = small(
        folder,
        "--published",
        "coarse",
        "--start",
        str(tmp_path / "start.pth"),
        "--learning-rate",
        "1e-9",
        "--steps",
        "2",
    )
    assert main(words) == 0
    start, read = (read_checkpoint(path) for path in (tmp_path / "start.pth", folder / "coarse.pth"))
    assert (read.extraction_layer, read.resize) == ("Conv2d_2b_3x3", 24)
    for name, tensor in start.state.items():
        torch.testing.assert_close(read.state[name], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ("--published", "fine", "--layer", "Mixed_7a"),
            "the fine network has no layer 'Mixed_7a', known: Conv2d_1a_3x3",
        ),
        (("--published", "fine", "--start", "/nowhere.pth"), "cannot read /nowhere.pth"),
        (("--published", "fine", "--start", "{folder}/start.pth"), "start.pth holds a coarse network, not a fine one"),
    ],
)
def test_the_command_refuses_unusable_networks_before_it_reads_data(options, message, folder, tmp_path, capsys):
    torch.save(checkpoint("coarse", "Conv2d_1a_3x3"), tmp_path / "start.pth")
    assert main(small(folder, *(option.format(folder=tmp_path) for option in options))) == 2
    printed = capsys.readouterr().err
    assert message in printed and "photographs" not in printed and not folder.exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (("--published", "fine", "--head", "coarse"), "not allowed with argument"),
        (("--published", "fine", "--head-width", "8"), "--head-width is possible without --published only"),
        (("--layer", "Mixed_5d"), "--layer is possible with --published only"),
        (("--published", "fine", "--layer", "Mixed_5d", "--start", "x.pth"), "the file says where its network is cut"),
    ],
)
def test_options_of_heads_and_of_published_networks_exclude_each_other(options, message, folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(small(folder, *options))
    assert stopped.value.code == 2 and message in capsys.readouterr().err
