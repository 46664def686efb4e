# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Fits ``nre_ros/localization/confidence.json`` to the queries for fitting of ``confidence_queries``.

The weights maximize the likelihood (with a small ridge term) that a pose is right within the bounds, over all queries
with a pose. Other rooms with the map's pictures count half: with full weight they, of which an ordinary map has few, would
decide what the confidence of ordinary hard images is. The numbers of the covariance are fitted to how often its
ellipsoids contain the errors of right poses.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
from common import Options, Table
from confidence_data import Rows, collect, joined
from confidence_queries import FIT, sets
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import chi2

from nre_ros.features import DEFAULT_BACKBONE
from nre_ros.localization.confidence import MODEL_FILE, ConfidenceModel
from nre_ros.localization.evidence import NUMBERS

LEVELS = (0.5, 0.9, 0.99)
_RIDGE = 1e-3
_OUTLIER_INFLATION, _POSITION_FLOOR, _ROTATION_FLOOR = 0.8, 1e-4, 1e-4
"""Fixed, near the greatest likelihood over all fitting sets (Student-t): a free fit of the exponent depends on how many
covered images the sets have. The floors are millimetre-sized: what camera models and ground truth leave open."""
_FITTED_LEVELS = (0.5, 0.9)
_OTHER_ROOMS, _OTHER_ROOMS_COUNT = "other rooms", 0.5
_ALTERNATIVE = NUMBERS.index("alternative_score")


def run(options: Options):
    """Yields the fitted numbers; with ``--write`` they are written into the package."""
    found = {name: (collect(options, FIT, name, trials), trials) for name, trials in sets(FIT).items()}
    rows = joined([part for part, _ in found.values()])
    counts = np.concatenate(
        [np.full(len(part), _OTHER_ROOMS_COUNT if name == _OTHER_ROOMS else 1.0) for name, (part, _) in found.items()]
    )
    model = fit_covariance(
        fit_weights(rows[rows.posed], counts[rows.posed]),
        [exact(part) for part, trials in found.values() if trials.mixed],
    )
    table = Table("Fitted numbers", ("evidence", "mean", "scale", "weight"))
    table.rows += list(zip(NUMBERS, model.mean.tolist(), model.scale.tolist(), model.weights.tolist()))
    table.notes.append(
        f"bias {model.bias:.3g}, exponent of the alternative {model.alternative_exponent:.3g}; standard deviations times {model.inflation:.3g} x "
        f"exp({model.outlier_inflation:.3g} (1 - inlier ratio)), at least {model.position_floor:g} of the distance and "
        f"{model.rotation_floor:g} rad. "
        f"{len(rows)} queries, {int(rows.posed.sum())} with a pose, {int(rows.right.sum())} of them right."
    )
    path = MODEL_FILE if options.write else options.folder / MODEL_FILE.name
    path.write_text(json.dumps(model.to_json(), indent=1) + "\n", encoding="utf-8")
    table.notes.append(f"Written to {path.name}, {'the package' if options.write else 'the working folder'}'s.")
    yield table


def fit_weights(rows: Rows, counts: np.ndarray) -> ConfidenceModel:
    """Fits the weights to rows with a pose, each with its count [Q]; the covariance stays the estimator's."""
    mean, scale = rows.numbers.mean(0), rows.numbers.std(0) + 1e-9
    x = (rows.numbers - mean) / scale
    right, alternative = rows.right, rows.numbers[:, _ALTERNATIVE]

    def negative_log_likelihood(parameters):
        bias, log_exponent, *weights = parameters
        weights = np.array(weights)
        alone = 1 / (1 + np.exp(-(x @ weights + bias)))
        p = (alone / (1 + alternative ** np.exp(log_exponent))).clip(1e-9, 1 - 1e-9)
        likelihood = np.average(np.where(right, np.log(p), np.log1p(-p)), weights=counts)
        return -likelihood + _RIDGE * (weights @ weights)

    # the alternative counts by its relative score alone
    free = [(0, 0) if k == _ALTERNATIVE else (None, None) for k in range(len(NUMBERS))]
    bounds = [(None, None), (np.log(2), np.log(16)), *free]
    start = np.r_[0.0, np.log(4), np.zeros(len(NUMBERS))]
    best = minimize(negative_log_likelihood, start, method="L-BFGS-B", bounds=bounds).x
    return ConfidenceModel(
        DEFAULT_BACKBONE, mean, scale, best[2:], float(best[0]), float(np.exp(best[1])), 1.0, 0.0, 0.0, 0.0
    )


def exact(rows: Rows) -> Rows:
    """Selects the right poses of a set of hard queries with the true camera (every fourth query has a wrong one)."""
    return rows[rows.right & (np.arange(len(rows)) % 4 != 3)]


def distances(model: ConfidenceModel, rows: Rows) -> np.ndarray:
    """Computes the Mahalanobis distances [Q] of the true errors."""
    covariances = model.covariance(rows.covariances, rows.numbers, rows.distance)
    solved = np.linalg.solve(covariances, rows.deltas[..., None])[..., 0]
    return np.sqrt((rows.deltas * solved).sum(-1))


def contained(model: ConfidenceModel, rows: Rows, level: float) -> float:
    """Computes the share of true errors inside the ellipsoids that should contain the share ``level``."""
    return float((distances(model, rows) <= np.sqrt(chi2.ppf(level, 6))).mean())


def fit_covariance(model: ConfidenceModel, parts: list[Rows]) -> ConfidenceModel:
    """Fits the inflation so that the 50 % and 90 % ellipsoids of all sets contain about as many of the true errors.

    Least squares of the logarithms of the distances' quantiles.
    """

    def tried(log_inflation):
        return replace(
            model,
            inflation=float(np.exp(log_inflation)),
            outlier_inflation=_OUTLIER_INFLATION,
            position_floor=_POSITION_FLOOR,
            rotation_floor=_ROTATION_FLOOR,
        )

    def misfit(log_inflation):
        found = [np.quantile(distances(tried(log_inflation), part), _FITTED_LEVELS) for part in parts]
        return float(np.square(np.log(found / np.sqrt(chi2.ppf(_FITTED_LEVELS, 6)))).sum())

    return tried(minimize_scalar(misfit, bounds=(-1.0, 2.0), method="bounded").x)
