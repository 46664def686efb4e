# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Fits the errors of a map's keyframes to views that were localized without their own keyframe.

The error of such a view is that of the image, of the keyframes that it was localized with, and of its own keyframe, whose
stored pose stands for the truth. To first order it is normally distributed with the covariance

    s^2 C + sum_ab G_a E[xi_a xi_b'] G_b',   G_own = -I

(``localization/map_noise.py``). The numbers of the model maximise the likelihood of the errors, with a Student-t
distribution so that a few wrong keyframes do not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve1d
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import chi2

from nre_ros.localization.confidence import POSITION_BOUND, ROTATION_BOUND, ConfidenceModel
from nre_ros.localization.map_noise import MapNoise, mixed_correlation
from nre_ros.map_check.view_result import ViewResult

_DEGREES_OF_FREEDOM = 8.0
"""Of the Student-t distribution."""
_LENGTHS = (3.0, 6.0, 12.0, 24.0, 48.0)
"""Lengths of the slow part that are tried, in keyframes."""
_START_FACTORS = (0.3, 1.0, 3.0, 10.0, 30.0)
_REFINED_STARTS = 4
"""Errors at which the search for the greatest likelihood begins, in units of the image's; and how many are refined."""
_PRIOR_VIEWS = 6.0
"""With so many views half of the fitted variance is believed; fewer leave the general fit nearly as it is."""
_LOCAL_PRIOR = 20.0
"""Degrees of freedom with which the factor of one keyframe is held at 1."""
_NEIGHBOURS = (0.25, 0.5, 1.0, 0.5, 0.25)
"""Weights with which a keyframe's neighbours in the recording count for its factor."""
_MAX_FACTOR = 3.0
_POSITION, _ROTATION = np.diag([1.0, 1, 1, 0, 0, 0]), np.diag([0.0, 0, 0, 1, 1, 1])
_MIN_CONFIDENCE = 0.5
"""A pose that is off counts from this confidence on: it shows an error of the map, not a wrong pose."""
_SAME_PLACE = 5.0
"""A pose with errors beyond this many times the bounds of a right pose says nothing about the map's errors."""


def fit_noise(views: Sequence[ViewResult], ids: npt.NDArray[np.int64], model: ConfidenceModel) -> MapNoise:
    """Fits the errors of a map's keyframes.

    Args:
        views: Left-out views. Those whose pose is accepted count, unless it is at another place.
        ids: [M] ids of the map's keyframes in the order of the recording.
        model: Gives the covariance that the image explains.

    Returns:
        The errors; a map without errors where no view counts.
    """
    used = [view for view in views if _counts(view, model)]
    if not used:
        return MapNoise(ids=ids, factors=np.ones(len(ids)))
    data = _Views(used, ids, model)
    best = data.fit()
    shrink = len(used) ** 2 / (len(used) ** 2 + _PRIOR_VIEWS**2)
    noise = MapNoise(
        position=best.position * shrink**0.5,
        rotation=best.rotation * shrink**0.5,
        drift=best.drift,
        length=best.length,
        power=best.power,
        scale=best.scale**shrink,
        ids=ids,
        factors=np.ones(len(ids)),
    )
    return replace(noise, factors=data.factors(noise))


def _counts(view: ViewResult, model: ConfidenceModel) -> bool:
    """Whether the error of a view says something about the errors of the map."""
    if not view.posed or view.evidence is None:
        return False
    if view.position_error > _SAME_PLACE * POSITION_BOUND * view.distance:
        return False
    if view.rotation_error > _SAME_PLACE * ROTATION_BOUND:
        return False
    return view.right or float(model.probability(view.evidence)) >= _MIN_CONFIDENCE


class _Views:
    """The left-out views as arrays."""

    def __init__(self, views: Sequence[ViewResult], ids: npt.NDArray[np.int64], model: ConfidenceModel) -> None:
        self._errors = np.array([view.error() for view in views])
        covariances, evidence = (
            np.array([getattr(view, name) for view in views]) for name in ("covariance", "evidence")
        )
        self._image = model.covariance(covariances, evidence, np.array([view.distance for view in views]))
        place = {int(keyframe): i for i, keyframe in enumerate(ids)}
        most = max(len(view.keyframes) for view in views) + 1
        self._influence = np.zeros((len(views), most, 6, 6))
        self._order = np.full((len(views), most), np.nan)
        for i, view in enumerate(views):
            assert view.influence is not None
            self._influence[i, 0] = -np.eye(6)
            self._influence[i, 1 : len(view.keyframes) + 1] = view.influence
            for k, keyframe in enumerate((view.keyframe, *view.keyframes)):
                self._order[i, k] = place.get(keyframe, np.nan)
        self._count = len(ids)

    def fit(self) -> MapNoise:
        """Returns the model of the greatest likelihood.

        The likelihood has several maxima: the few views that come back to a place are either explained by drift or taken
        for outliers. The best of a grid of parameters are therefore refined, for each length and power.
        """
        size = np.median(np.sqrt(np.einsum("nii->ni", self._image)), axis=0)
        grid = [
            np.array([np.log(position * size[:3].mean()), np.log(rotation * size[3:].mean()), drift, 0.0])
            for position in _START_FACTORS
            for rotation in _START_FACTORS
            for drift in (-3.0, 3.0)
        ]
        starts = []
        for length in _LENGTHS:
            for power in (1.0, 2.0):
                parts = self._parts(length, power)
                starts += [(self._negative_log_likelihood(x, parts), length, power, x) for x in grid]
        starts.sort(key=lambda start: start[:3])
        best = (np.inf, MapNoise())
        for _, length, power, x in starts[:_REFINED_STARTS]:
            parts = self._parts(length, power)
            bounds = [(x[0] - 5, x[0] + 3), (x[1] - 5, x[1] + 3), (-6, 6), (-2, 2)]
            found = minimize(self._negative_log_likelihood, x, (parts,), method="L-BFGS-B", bounds=bounds)
            if found.fun < best[0]:
                position, rotation, drift, scale = found.x.tolist()
                noise = MapNoise(
                    float(np.exp(position)),
                    float(np.exp(rotation)),
                    float(expit(drift)),
                    length,
                    power,
                    float(np.exp(scale)),
                )
                best = (found.fun, noise)
        return best[1]

    def _negative_log_likelihood(
        self, parameters: npt.NDArray[np.float64], parts: tuple[npt.NDArray[np.float64], ...]
    ) -> float:
        total = self._total(parameters, parts)
        _, log_determinant = np.linalg.slogdet(total)
        squared = np.einsum("ni,ni->n", self._errors, np.linalg.solve(total, self._errors[..., None])[..., 0])
        nu = _DEGREES_OF_FREEDOM
        each = 0.5 * log_determinant + 0.5 * (nu + 6) * np.log1p(squared / (nu - 2))
        # weak priors keep the parameters that the views leave open where they do no harm
        prior = 0.5 * (parameters[3] / 0.5) ** 2 + 0.5 * ((parameters[2] + 2.0) / 2.0) ** 2
        return float(each.sum() + prior)

    def _parts(self, length: float, power: float) -> tuple[npt.NDArray[np.float64], ...]:
        """Covariances of unit errors of position and rotation, independent and slow: four of [N, 6, 6]."""
        same, slow = (mixed_correlation(self._order, drift, length, power) for drift in (0.0, 1.0))
        same = np.broadcast_to(same, slow.shape)
        return tuple(
            np.einsum("naij,jl,nab,nbkl->nik", self._influence, which, rho, self._influence, optimize=True)
            for which in (_POSITION, _ROTATION)
            for rho in (same, slow)
        )

    def _total(
        self, parameters: npt.NDArray[np.float64], parts: tuple[npt.NDArray[np.float64], ...]
    ) -> npt.NDArray[np.float64]:
        position, rotation, drift, scale = parameters
        share = expit(drift)
        p_same, p_slow, r_same, r_slow = parts
        map_part = np.exp(2 * position) * ((1 - share) * p_same + share * p_slow)
        map_part = map_part + np.exp(2 * rotation) * ((1 - share) * r_same + share * r_slow)
        return np.exp(2 * scale) * self._image + map_part

    def factors(self, noise: MapNoise) -> npt.NDArray[np.float64]:
        """Returns the factors of all keyframes: where views err more than the model expects, keyframes are worse."""
        parameters = np.array(
            [
                np.log(max(noise.position, 1e-12)),
                np.log(max(noise.rotation, 1e-12)),
                np.log(max(noise.drift, 1e-9) / max(1 - noise.drift, 1e-9)),
                np.log(noise.scale),
            ]
        )
        total = self._total(parameters, self._parts(noise.length, noise.power))
        squared = np.einsum("ni,ni->n", self._errors, np.linalg.solve(total, self._errors[..., None])[..., 0])
        squared = np.minimum(squared, float(chi2.ppf(0.999, 6)))
        map_share = 1 - np.einsum("nii->n", noise.scale**2 * np.linalg.solve(total, self._image)) / 6
        # involvement: half for the view's own keyframe, half for the others by their influence
        weight = np.abs(np.einsum("nkii->nk", self._influence[:, :, :3, :3]))
        weight[:, 1:] /= np.maximum(weight[:, 1:].sum(1, keepdims=True), 1e-9)
        weight[:, 0] = 1.0
        weight *= 0.5 * map_share.clip(0, 1)[:, None]
        known = ~np.isnan(self._order)
        place = self._order[known].astype(int)
        freedom = np.bincount(place, 6 * weight[known], self._count)
        measured = np.bincount(place, (weight * squared[:, None])[known], self._count)
        # neighbours in the recording share an area
        shared = [convolve1d(each, _NEIGHBOURS, mode="constant") for each in (freedom.astype(float), measured)]
        factors: npt.NDArray[np.float64] = np.sqrt((_LOCAL_PRIOR + shared[1]) / (_LOCAL_PRIOR + shared[0]))
        return factors.clip(1 / _MAX_FACTOR, _MAX_FACTOR)
