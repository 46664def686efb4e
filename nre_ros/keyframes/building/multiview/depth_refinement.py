# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Refinement of a depth sensor's depths against other posed views.

The noise of a depth camera is correlated over tens of pixels and has a bias, which smoothing does not remove. In views
from other places the error appears as a shift along the epipolar line. The patch around a pixel is compared with the
other views over the plausible range of its depth. The sum of the correlations is the log-likelihood, the sensor's depth
is the prior. Since the noise is correlated, each result also corrects the pixels around it (Gaussian process
regression: Rasmussen and Williams 2006, equation 2.23).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from nre_ros.keyframes.building.multiview.plane_sweep import Patches, inverse_depth_planes, plane_sweep
from nre_ros.keyframes.building.multiview.views import View

NOISE = 0.015
"""Standard deviation of a depth camera's depth, as a fraction of the depth."""
NEIGHBOURS = 6
"""Views that a depth is compared with."""
_RANGE = 3.0
"""Half of the searched range, in standard deviations."""
_DEPTH_HYPOTHESES = 17
"""Hypotheses in the range: half a pixel apart along the epipolar line at 10 degrees. Twice as many gain nothing."""
_SHARPNESS = 20.0
"""Log-likelihood of a full correlation with one view. From 10 to 80 the depths are equally good: the peak of a view
that fits is far narrower than the prior."""
_CHANCE_CORRELATION = 0.5
"""Correlations up to this value occur by chance and are ignored."""

_CORRELATED = 0.8
"""Share of the noise's variance that neighbouring pixels have in common."""
_LENGTH = 1 / 16
"""Distance over which this share falls to exp(-1/2), as a fraction of the image's longer side (40 pixels of 640)."""
_SAME_SURFACE = 0.1
"""Difference of depth over which this share falls to exp(-1/2), as a fraction of the depth."""


@dataclass(frozen=True)
class RefinedDepth:
    """Refined depths and their precision.

    Attributes:
        depth: [N] metres along z, 0 where there is none.
        deviation: [N] standard deviation as a fraction of the depth, at most ``NOISE``.
    """

    depth: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]

    @property
    def weight(self) -> npt.NDArray[np.float64]:
        """Factors [N] on the points' scores: 1 for a precise depth, 1/6 if the other views showed nothing."""
        return 1.0 - self.deviation / NOISE / 1.2


def refine_depth(
    view: View, depth: npt.NDArray[np.float32], pixels: npt.NDArray[np.float64], others: Sequence[View]
) -> RefinedDepth:
    """Refines depths of an image against other views.

    The sensor's depth remains where the other views show nothing: no texture, hidden, little parallax.

    Args:
        view: The image; it may be smaller than the depth image (``View.from_image``).
        depth: [H, W] metres along z, 0 where there is none.
        pixels: [N, 2] where depths are refined.
        others: The other views.

    Returns:
        The depths at the pixels.
    """
    planes = inverse_depth_planes(depth, pixels)
    scale = view.camera.width / depth.shape[1]
    planes[:, 1:] /= scale
    places = (torch.from_numpy(np.asarray(pixels, dtype=np.float64)) + 0.5) * scale - 0.5
    known = torch.nonzero(planes[:, 0] > 0)[:, 0]
    if not len(known):
        return RefinedDepth(np.zeros(len(pixels)), np.full(len(pixels), NOISE))
    relative = torch.linspace(-_RANGE * NOISE, _RANGE * NOISE, _DEPTH_HYPOTHESES, dtype=torch.float64)
    patches = Patches.from_view(view, places[known], planes[known])
    log_likelihood = torch.zeros(len(known), _DEPTH_HYPOTHESES, dtype=torch.float64)
    for other in others:
        correlation = plane_sweep(patches, relative, other)
        log_likelihood += _SHARPNESS * (correlation - _CHANCE_CORRELATION).clamp_min(0) / (1 - _CHANCE_CORRELATION)
    change, deviation = _peak(log_likelihood - 0.5 * (relative / NOISE).square(), relative)
    change = _regress(change, deviation, places[known] / max(view.grey.shape), planes[known, 0])
    refined, deviations = np.zeros(len(pixels)), np.full(len(pixels), NOISE)
    refined[known.numpy()] = (1 / (planes[known, 0] * (1 + change))).numpy()
    deviations[known.numpy()] = deviation.clamp_max(NOISE).numpy()
    return RefinedDepth(refined, deviations)


def _peak(posterior: torch.Tensor, relative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Place [N] and standard deviation [N] of the parabola through the maximum of [N, D] and its neighbours."""
    step = float(relative[1] - relative[0])
    top = posterior.argmax(dim=1).clamp(1, len(relative) - 2)
    before, peak, after = (posterior.gather(1, (top + k)[:, None])[:, 0] for k in (-1, 0, 1))
    curvature = (2 * peak - before - after).clamp_min(1e-9)
    offset = (0.5 * (after - before) / curvature).clamp(-1, 1)
    return relative[top] + offset * step, step / curvature.sqrt()


def _regress(
    change: torch.Tensor, deviation: torch.Tensor, places: torch.Tensor, inverse: torch.Tensor
) -> torch.Tensor:
    """Corrects each change of depth by the changes around it (Gaussian process regression).

    Args:
        change: [N] means of the posteriors; their single priors are replaced by the joint prior of all points.
        deviation: [N] standard deviations of the posteriors.
        places: [N, 2] pixels as fractions of the image's longer side.
        inverse: [N] inverse depths.

    Returns:
        [N] changes.
    """
    precision = (deviation.pow(-2) - NOISE**-2).clamp_min(1e-2 * NOISE**-2)
    measured = change * deviation.pow(-2) / precision
    log_depth = inverse.log()[:, None] / _SAME_SURFACE
    # in units of the noise's variance the system is well conditioned, and single precision enough
    place = torch.cat([places / _LENGTH, log_depth], dim=1).float()
    prior = torch.cdist(place, place).square_().mul_(-0.5).exp_().mul_(_CORRELATED)
    prior.diagonal().add_(1 - _CORRELATED)
    observed = prior.clone()
    observed.diagonal().add_((NOISE**-2 / precision).float())
    solved = torch.cholesky_solve(measured.float()[:, None], torch.linalg.cholesky(observed))
    return (prior @ solved)[:, 0].double()
