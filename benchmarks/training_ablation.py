# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Ablation of the training: heads that differ from the default recipe in one thing each, with two seeds.

The heads are trained as ``nre_ros train`` trains them, for fewer steps. All are measured on the same held-out pairs, in
the same rendered rooms, which no training has seen, and on the kitchen with 3 keyframes. With ``--work`` an interrupted run
is continued: heads, maps and figures are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from time import monotonic
from unittest.mock import patch

import numpy as np
import torch
from common import Options, Skip, Table
from scenes import THIN, kitchen

from nre_ros import features
from nre_ros.evaluation.datasets.rendered_rooms import RenderedRooms
from nre_ros.evaluation.fine_heads import PACKAGED, compare_on_dataset
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.features.coarse_head import CoarseHead
from nre_ros.features.fine_head import PACKAGED_HEAD, FineHead
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.geometry import pose_error
from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.learning.losses import CoarseNRELoss, FineNRELoss
from nre_ros.learning.objectives import CoarseHeadObjective, FineHeadObjective, Objective
from nre_ros.learning.open_pairs import PairOptions
from nre_ros.learning.pair_sources import PairSource
from nre_ros.learning.pairs import TrainingPair
from nre_ros.learning.run_training import RunOptions, run_training
from nre_ros.learning.trainer import TrainingConfig
from nre_ros.learning.training_data import TrainingData
from nre_ros.learning.validation import Validation
from nre_ros.localization.localizer import Localizer

STEPS = 200
"""Steps of each training, four pairs each, unless ``--steps`` says otherwise."""
SEEDS = 2
"""Trainings of each design."""
HELD_OUT = 32
"""Held-out pairs of rooms, and as many of photographs."""
ROOMS, KEYFRAMES, QUERIES = (900, 901), 14, 25
"""Seeds of the rooms in which poses are measured, and keyframes and queries in each of them."""
SOURCES = ("rooms", "photographs")


@dataclass(frozen=True)
class Design:
    """One way to train a head.

    Attributes:
        name: name of its folders.
        label: name in the table.
        kind: fine or coarse.
        data: the data, of ``SOURCES``.
        width: channels inside the head; None for the default.
        subpixel_weight: weight of the sub-pixel term of the fine loss; None for the default.
        outside: whether the coarse loss has the category "not in the image".
        trained: whether the head is trained at all.
    """

    name: str
    label: str
    kind: str = "fine"
    data: tuple[str, ...] = SOURCES
    width: int | None = None
    subpixel_weight: float | None = None
    outside: bool = True
    trained: bool = True


FINE = (
    Design("default", "default: rooms and photographs, width 32"),
    Design("rooms", "rooms only (photographs on their walls)", data=("rooms",)),
    Design("photographs", "photographs only", data=("photographs",)),
    Design("width_16", "width 16", width=16),
    Design("width_64", "width 64", width=64),
    Design("no_subpixel", "without the sub-pixel term", subpixel_weight=0.0),
    Design("untrained", "no training", trained=False),
)
COARSE = (
    Design("coarse", "coarse head", kind="coarse"),
    Design("coarse_no_outside", 'coarse head, trained without "not in the image"', kind="coarse", outside=False),
)


class RememberedPairs:
    """The pairs of a source, each of which is made once: most designs train on the same ones."""

    def __init__(self, source: PairSource):
        self._source, self._made = source, {}

    def pair(self, seed: int, index: int) -> TrainingPair:
        """Returns one pair."""
        if (seed, index) not in self._made:
            self._made[seed, index] = self._source.pair(seed, index)
        return self._made[seed, index]


@dataclass(frozen=True)
class Errors:
    """Errors of poses, accepted or not; without a pose they are infinite.

    Attributes:
        median: median distance, centimetres.
        within_5: share within 5 cm and 5 degrees, percent.
        within_25: share within 25 cm and 5 degrees, percent.
    """

    median: float
    within_5: float
    within_25: float

    @classmethod
    def of(cls, metres: Sequence[float], degrees: Sequence[float]) -> Errors:
        """Summarizes the errors of queries."""
        metres, degrees = (np.nan_to_num(np.array(x, dtype=float), nan=np.inf) for x in (metres, degrees))
        shares = [100 * float(((metres <= limit) & (degrees <= 5)).mean()) for limit in (0.05, 0.25)]
        return cls(100 * float(np.median(metres)), *shares)


@dataclass
class Measured:
    """The figures of one head.

    Attributes:
        settings: hash of the features that were measured, and how.
        parameters: number of weights of the head.
        losses: source of the held-out pairs -> name -> mean loss.
        rooms: errors in the rendered rooms.
        kitchen: errors on the kitchen, None where its images are absent.
    """

    settings: str
    parameters: int
    losses: dict[str, dict[str, float]]
    rooms: Errors
    kitchen: Errors | None = field(default=None)


def run(options: Options) -> Iterator[Table]:
    """Yields the table of fine heads and the one of coarse heads."""
    study = _Study(options)
    packaged = study.measure_packaged()
    found: dict[str, list[Measured]] = {design.name: [] for design in (*FINE, *COARSE)}
    for seed in range(options.seed, options.seed + SEEDS):
        for design in FINE:
            found[design.name].append(study.measure(design, seed))
        study.forget_pairs()
    yield _table("fine head", FINE, found, "packaged: 2500 steps, one seed", packaged, "nre", "offset", study)
    for seed in range(options.seed, options.seed + SEEDS):
        for design in COARSE:
            found[design.name].append(study.measure(design, seed))
        study.forget_pairs()
    none = study.measure_no_coarse()
    yield _table("coarse head", COARSE, found, "no coarse head: XFeat's own map", none, "nre", None, study)


def _table(title, designs, found, fixed_label, fixed: Measured, loss: str, offset: str | None, study: _Study) -> Table:
    losses = (*(f"loss, {source} [nats]" for source in SOURCES), *(("offset [cells]",) if offset else ()))
    poses = [
        f"{scene}: {what}" for scene in ("rooms", "kitchen") for what in ("median [cm]", "< 5 cm [%]", "< 25 cm [%]")
    ]
    table = Table(f"Training of the {title}, {study.steps} steps", ("training", "parameters", *losses, *poses))
    for label, runs in [(fixed_label, [fixed]), *((design.label, found[design.name]) for design in designs)]:
        cells = [_mean([run.losses[source][loss] for run in runs]) for source in SOURCES]
        if offset:
            cells.append(_mean([np.mean([part[offset] for part in run.losses.values()]) for run in runs]))
        for errors in ([run.rooms for run in runs], [run.kitchen for run in runs]):
            if None in errors:
                cells += [None] * 3
                continue
            cells.append(_mean([part.median for part in errors]))
            cells += [_mean([getattr(part, name) for part in errors], 0) for name in ("within_5", "within_25")]
        table.rows.append((label, runs[0].parameters, *cells))
    table.notes += [
        f"Mean of {SEEDS} seeds, +- half the difference between the seeds. Each row differs from the default in one thing. Losses: "
        f"{HELD_OUT} held-out pairs of rooms and {HELD_OUT} of photographs, the same for all rows, with the loss of the default "
        "recipe without its sub-pixel term."
        if offset
        else f"Mean of {SEEDS} seeds, +- half the difference between the seeds. Losses: visible points of {HELD_OUT} held-out "
        f'pairs of rooms and {HELD_OUT} of photographs, without the category "not in the image". All rows have the packaged '
        "fine head.",
        f"Poses: all, also those of low confidence. Rooms {', '.join(map(str, ROOMS))} of `nre_ros train evaluate`, "
        f"{KEYFRAMES} keyframes and {QUERIES} queries each; kitchen with 3 keyframes, 62 queries unless --queries says otherwise.",
    ]
    return table


def _mean(values: Sequence[float], digits: int = 2) -> str:
    middle, spread = float(np.mean(values)), (max(values) - min(values)) / 2
    text = f"{middle:.{digits}f}" if np.isfinite(middle) else "no pose"
    return f"{text} +- {spread:.{digits}f}" if len(values) > 1 and np.isfinite(spread) else text


class _Study:
    """Trains and measures heads in one folder."""

    def __init__(self, options: Options):
        self.steps = options.steps or STEPS
        self._options = options
        self._folder = options.folder / f"training_ablation_{self.steps}"
        self._device = torch.device(options.device)
        self._backbone = XFeatBackbone(self._device, head=FineHead())  # whose own head takes no part
        self._remembered: list[RememberedPairs] = []
        self._open = cache(self._open_data)  # photographs are read once
        self._held_out = {}

    def measure(self, design: Design, seed: int) -> Measured:
        """Trains a head, or continues to, and measures it."""
        folder = self._folder / f"{design.name}_{seed}"
        objective = self._objective(design, seed)
        path = folder / f"{design.kind}_head.safetensors"
        begun = monotonic()
        if design.trained:
            self._train(design, objective, path, seed)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            objective.head.save(path, self._backbone.network_hash, "without training")
        print(f"{design.label}, seed {seed}: trained in {monotonic() - begun:.0f} s", flush=True)
        return self._measured(folder, objective.head, design.kind, path)

    def measure_packaged(self) -> Measured:
        """Measures the packaged fine head."""
        head = FineHead.load(PACKAGED_HEAD, self._backbone.network_hash).to(self._device)
        return self._measured(self._folder / PACKAGED, head, "fine", PACKAGED_HEAD)

    def measure_no_coarse(self) -> Measured:
        """Measures XFeat's own coarse map with the packaged fine head: the map of a coarse head without training."""
        losses = self._losses(CoarseHead().to(self._device))
        return replace(self.measure_packaged(), losses=losses, parameters=0)

    def forget_pairs(self) -> None:
        """Frees the memory of the training pairs."""
        for pairs in self._remembered:
            pairs._made.clear()

    def _open_data(self, names: tuple[str, ...]) -> TrainingData:
        data = TrainingData.open(
            [name for name in names if name != "rooms"], PairOptions(), float("rooms" in names), "photographs"
        )
        sources = []
        for source in data.sources:
            pairs = RememberedPairs(source.opened.pairs)
            self._remembered.append(pairs)
            sources.append(replace(source, opened=replace(source.opened, pairs=pairs)))
        return replace(data, sources=sources)

    def _objective(self, design: Design, seed: int) -> FineHeadObjective | CoarseHeadObjective:
        width = {} if design.width is None else {"width": design.width}
        if design.kind == "coarse":
            loss = None if design.outside else CoarseNRELoss(outside=False)
            return CoarseHeadObjective(CoarseHead(seed=seed, **width).to(self._device), self._backbone, loss)
        head = FineHead(seed=seed, **width).to(self._device)
        weight = {} if design.subpixel_weight is None else {"subpixel_weight": design.subpixel_weight}
        return FineHeadObjective(head, self._backbone, FineNRELoss(enlarge=head.enlarge, **weight))

    def _train(self, design: Design, objective: Objective, path: Path, seed: int) -> None:
        def save(to: Path, description: str, _: int) -> None:
            objective.head.save(to, self._backbone.network_hash, description)

        done = run_training(
            objective,
            save,
            path.name,
            self._open(design.data),
            TrainingConfig(self.steps, seed=seed, checkpoint_every=50),
            path.parent,
            RunOptions(resume=True, progress=False),
            validation_pairs=0,
        )
        if done.interrupted:
            raise KeyboardInterrupt

    def _measured(self, folder: Path, head: FineHead | CoarseHead, kind: str, path: Path) -> Measured:
        """The figures of a head, from its folder if they were measured before."""
        kept, begun = folder / "measured.json", monotonic()
        heads = {"head": path} if kind == "fine" else {"coarse_head": path}
        with patch.dict(features.BACKBONES, xfeat=lambda device, _: XFeatBackbone(device, **heads)):
            weights = features.load_backbone("xfeat").weights_hash
            how = HELD_OUT, ROOMS, KEYFRAMES, QUERIES, self._options.queries, self._options.seed
            settings = f"{weights} {how}"
            known = _read(kept)
            if known is not None and known.settings == settings:
                return known
            losses = self._losses(head.eval())
            parameters = sum(parameter.numel() for parameter in head.parameters())
            measured = Measured(settings, parameters, losses, self._rooms(folder), self._kitchen(folder))
        kept.write_text(json.dumps(measured, default=vars) + "\n")
        print(f"  {folder.name}: measured in {monotonic() - begun:.0f} s: {measured}", flush=True)
        return measured

    def _losses(self, head: FineHead | CoarseHead) -> dict[str, dict[str, float]]:
        """Losses of held-out pairs, computed alike for all heads of a kind."""
        if isinstance(head, FineHead):
            objective: Objective = FineHeadObjective(head, self._backbone)
        else:
            objective = CoarseHeadObjective(head, self._backbone, CoarseNRELoss(outside=False))
        return {source: self._held_out_pairs(source).losses(objective) for source in SOURCES}

    def _held_out_pairs(self, source: str) -> Validation:
        if source not in self._held_out:
            pairs = self._open((source,)).held_out_pairs(0)
            if pairs is None:
                raise Skip("needs photographs: pip install scikit-image")
            self._held_out[source] = Validation(pairs, HELD_OUT)
        return self._held_out[source]

    def _rooms(self, folder: Path) -> Errors:
        """Errors in rendered rooms, measured as `nre_ros train evaluate --rooms` does."""
        options = EvaluationOptions(
            folder, folder / "rooms", device=self._options.device, seed=self._options.seed, worst=0, progress=False
        )
        dataset = RenderedRooms(ROOMS, KEYFRAMES, QUERIES)
        found = compare_on_dataset(
            dataset, self._options.folder / "rooms", {PACKAGED: None}, replace(options, force=True)
        )
        results = [runs[PACKAGED].results for runs in found.values()]
        metres = np.concatenate([part.position_errors for part in results])
        degrees = np.degrees(np.concatenate([part.rotation_errors for part in results]))
        return Errors.of(metres, degrees)

    def _kitchen(self, folder: Path) -> Errors | None:
        options = replace(self._options, folder=folder)
        try:
            scene = kitchen(
                options,
                THIN,
                builder=KeyframeBuilder(features.load_backbone("xfeat", options.device), seed=options.seed),
            )
        except Skip:
            return None
        metres, degrees = [], []
        with Localizer(scene.map_path, device=options.device, seed=options.seed, min_confidence=0.0) as localizer:
            localizer.warm_up()
            for query in scene.queries():
                estimated = localizer.localize(query.image, query.camera).T_map_cam
                error = (np.inf, np.inf) if estimated is None else pose_error(estimated, query.T_map_cam)
                metres.append(error[0])
                degrees.append(np.degrees(error[1]))
        return Errors.of(metres, degrees)


def _read(path: Path) -> Measured | None:
    try:
        content: Mapping = json.loads(path.read_text())
        poses = {name: content[name] and Errors(**content[name]) for name in ("rooms", "kitchen")}
        return Measured(content["settings"], content["parameters"], content["losses"], **poses)
    except (OSError, ValueError, KeyError, TypeError):
        return None
