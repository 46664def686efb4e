# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Localizes the queries of ``confidence_queries``: evidence, poses and errors, kept in the benchmark's folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from time import perf_counter

import numpy as np
from common import Options
from confidence_queries import Trials
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from nre_ros.evaluation.inputs import evenly_spaced
from nre_ros.geometry import invert, pose_error
from nre_ros.localization.confidence import POSITION_BOUND, ROTATION_BOUND, VERSION
from nre_ros.localization.evidence import NUMBERS, gather
from nre_ros.localization.localizer import Localizer


@dataclass(frozen=True)
class Rows:
    """The results of one set, one row for each query. Without a pose the numbers are NaN.

    Attributes:
        shown: whether the image shows the map [Q].
        posed: whether there is a pose with a covariance [Q].
        numbers: evidence [Q, F].
        metres: errors of the position [Q].
        radians: errors of the rotation [Q].
        deltas: errors of position and rotation in the map's axes [Q, 6].
        covariances: covariances as the estimator computes them [Q, 6, 6].
        distance: distance of the scene [Q], metres.
        seconds: time of the whole query [Q].
        extra_seconds: time of gathering the evidence [Q].
    """

    shown: np.ndarray
    posed: np.ndarray
    numbers: np.ndarray
    metres: np.ndarray
    radians: np.ndarray
    deltas: np.ndarray
    covariances: np.ndarray
    distance: np.ndarray
    seconds: np.ndarray
    extra_seconds: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Whether there is a pose with errors within the bounds of the confidence [Q]."""
        return self.posed & (self.metres <= POSITION_BOUND * self.distance) & (self.radians <= ROTATION_BOUND)

    def __len__(self) -> int:
        return len(self.shown)

    def __getitem__(self, which) -> Rows:
        return Rows(*(getattr(self, field.name)[which] for field in fields(self)))


def joined(parts: list[Rows]) -> Rows:
    """Concatenates several sets."""
    return Rows(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Rows)))


def collect(options: Options, part: str, name: str, trials: Trials) -> Rows:
    """Returns the rows of a set; they are computed if the benchmark's folder does not contain them.

    ``options.queries`` bounds the sets of other places alone: the variants of a hard query belong together.
    """
    count = 0 if trials.mixed else options.queries
    of_set = f"{name}_{count}" if count else name
    path = options.folder / f"evidence{VERSION}_{part}_{re.sub('[^a-z0-9]+', '_', of_set)}.npz"
    options = replace(options, queries=0)
    if not path.exists():
        rows = []
        with Localizer(trials.map_path(options), options.device, options.seed) as localizer:
            queries = evenly_spaced(list(trials.queries(options)), count) if count else trials.queries(options)
            for trial in tqdm(queries, desc=f"{name} ({part})", unit="query", mininterval=5.0):
                rows.append(_row(localizer, trial))
        arrays = {field.name: np.array([row[field.name] for row in rows]) for field in fields(Rows)}
        np.savez(path, **arrays)
    stored = np.load(path)
    return Rows(*(stored[field.name] for field in fields(Rows)))


def _row(localizer: Localizer, trial) -> dict:
    row = {
        "shown": trial.T_map_cam is not None,
        "posed": False,
        "numbers": np.full(len(NUMBERS), np.nan),
        "metres": np.nan,
        "radians": np.nan,
        "deltas": np.full(6, np.nan),
        "covariances": np.full((6, 6), np.nan),
        "distance": np.nan,
        "extra_seconds": 0.0,
    }
    started = perf_counter()
    estimate = localizer.estimate(trial.image, trial.camera)
    row["seconds"] = perf_counter() - started
    if estimate.T_cam_map is None or estimate.covariance is None:
        return row
    started = perf_counter()
    evidence = gather(estimate)
    row["extra_seconds"] = perf_counter() - started
    row.update(
        posed=True,
        numbers=evidence.numbers(),
        distance=evidence.distance,
        covariances=estimate.covariance.cpu().numpy(),
    )
    if trial.T_map_cam is not None:
        T, truth = invert(estimate.T_cam_map).cpu().numpy(), trial.T_map_cam
        row["metres"], row["radians"] = pose_error(T, truth)
        rotation = Rotation.from_matrix(T[:3, :3] @ truth[:3, :3].T).as_rotvec()
        row["deltas"] = np.concatenate([T[:3, 3] - truth[:3, 3], rotation])
    return row
