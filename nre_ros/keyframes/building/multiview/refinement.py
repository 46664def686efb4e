# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Depths of a sensor, refined by what other posed views show.

A depth camera's noise is correlated over tens of pixels and has a bias that smoothing does not
see; views from elsewhere see it as a shift along the epipolar line.  The patch around a pixel is
compared with the other views over the plausible range of its depth; the sum of the correlations is
taken for a log-likelihood, the sensor's depth for a prior.  What is found corrects the pixels around it, too,
by the correlation of the noise (Gaussian process regression: Rasmussen and Williams 2006, equation 2.23).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nre_ros.keyframes.building.multiview.sweep import Patches, inverse_depth_planes, sweep
from nre_ros.keyframes.building.multiview.views import View

NOISE = 0.015
"""Standard deviation of a depth camera's depth, as a fraction of it."""
NEIGHBOURS = 6
"""Views that a depth is compared with."""
_RANGE = 3.0
"""Standard deviations on either side that are searched."""
_STEPS = 17
"""Half a pixel apart along the line at 10 degrees; with twice as many the depths are no better."""
_SHARPNESS = 20.0
"""Log-likelihood of a full correlation with one view.  From 10 to 80 the depths are equally good: a view
that fits has a peak far narrower than the prior."""
_ACCIDENT = 0.5
"""Correlations up to this come about by accident, and tell nothing."""

_CORRELATED = 0.8
"""Share of the noise's variance that neighbouring pixels have in common."""
_LENGTH = 1 / 16
"""Distance over which that falls to exp(-1/2): a fraction of the image's longer side (40 pixels of 640)."""
_SAME_SURFACE = 0.1
"""The same for differences of depth, as a fraction of it."""


@dataclass(frozen=True)
class Refined:
    """depth: [N] metres along z, 0 where there is none.

    deviation: [N] how precisely the other views tell it, a fraction of the depth, at most ``NOISE``.
    """

    depth: np.ndarray
    deviation: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """[N] factors on the points' scores, 1 for those told precisely, 1/6 for those not told at all."""
        return 1.0 - self.deviation / NOISE / 1.2


def refine_depth(view: View, depth: np.ndarray, pixels: np.ndarray, others: list[View]) -> Refined:
    """Depths at pixels [N, 2] of an image whose depth is [H, W] in metres (0: none), against other views.

    view: of the image; it may be smaller than the depth (``View.of``).  Where nothing is to be
    seen in the others (no texture, hidden, little parallax) the sensor's depth remains.
    """
    planes = inverse_depth_planes(depth, pixels)
    scale = view.camera.width / depth.shape[1]
    planes[:, 1:] /= scale
    where = (torch.from_numpy(np.asarray(pixels, dtype=np.float64)) + 0.5) * scale - 0.5
    known = torch.nonzero(planes[:, 0] > 0)[:, 0]
    if not len(known):
        return Refined(np.zeros(len(pixels)), np.full(len(pixels), NOISE))
    relative = torch.linspace(-_RANGE * NOISE, _RANGE * NOISE, _STEPS, dtype=torch.float64)
    patches = Patches.of(view, where[known], planes[known])
    log_likelihood = torch.zeros(len(known), _STEPS, dtype=torch.float64)
    for other in others:
        correlation = sweep(patches, relative, other)
        log_likelihood += _SHARPNESS * (correlation - _ACCIDENT).clamp_min(0) / (1 - _ACCIDENT)
    change, deviation = _peak(log_likelihood - 0.5 * (relative / NOISE).square(), relative)
    change = _regress(change, deviation, where[known] / max(view.grey.shape), planes[known, 0])
    refined, deviations = np.zeros(len(pixels)), np.full(len(pixels), NOISE)
    refined[known.numpy()] = (1 / (planes[known, 0] * (1 + change))).numpy()
    deviations[known.numpy()] = deviation.clamp_max(NOISE).numpy()
    return Refined(refined, deviations)


def _peak(posterior: torch.Tensor, relative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Place [N] and width (standard deviation) [N] of the parabola through the highest of [N, D] and its neighbours."""
    step = float(relative[1] - relative[0])
    top = posterior.argmax(dim=1).clamp(1, len(relative) - 2)
    before, peak, after = (posterior.gather(1, (top + k)[:, None])[:, 0] for k in (-1, 0, 1))
    curvature = (2 * peak - before - after).clamp_min(1e-9)
    offset = (0.5 * (after - before) / curvature).clamp(-1, 1)
    return relative[top] + offset * step, step / curvature.sqrt()


def _regress(change, deviation, where, inverse) -> torch.Tensor:
    """Changes [N], each with what those around it tell.

    change, deviation: [N] of the posteriors, whose prior is taken out here for the one of all points
    together; where: [N, 2] places as fractions of the image's longer side; inverse: [N] inverse depths.
    """
    precision = (deviation.pow(-2) - NOISE**-2).clamp_min(1e-2 * NOISE**-2)
    told = change * deviation.pow(-2) / precision
    log_depth = inverse.log()[:, None] / _SAME_SURFACE
    # in units of the noise's variance the system is well conditioned, and single precision enough
    place = torch.cat([where / _LENGTH, log_depth], dim=1).float()
    prior = torch.cdist(place, place).square_().mul_(-0.5).exp_().mul_(_CORRELATED)
    prior.diagonal().add_(1 - _CORRELATED)
    observed = prior.clone()
    observed.diagonal().add_((NOISE**-2 / precision).float())
    solved = torch.cholesky_solve(told.float()[:, None], torch.linalg.cholesky(observed))
    return (prior @ solved)[:, 0].double()
