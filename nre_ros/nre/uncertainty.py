# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Covariance of a pose from the curvature of the smoothed loss and the scatter of its gradients.

The refined pose minimises a sum of per-point losses. It is an M-estimate, and its covariance is the sandwich
H^-1 S H^-1 (Huber, "Robust Statistics", section 6.3) with S = sum_n g_n g_n', the scatter of the per-point gradients,
and H the Hessian of the sum. For the Gaussian kernel

    g_n = J_n' sum_x w_nx r_nx,   H_n = J_n' A_n J_n

with w_nx, r_nx and A_n as in ``gnc``; the curvature of the projection itself is left out. Points are not independent:
several keyframes bring the same spot of the scene, with the same error of features and depth. The gradients are
therefore summed over blocks of the image first, and S is the scatter of these sums (the cluster-robust estimate of
econometrics, Cameron and Miller, "A Practitioner's Guide to Cluster-Robust Inference", 2015).

Few, badly spread or disagreeing points thus give a large covariance. An error that all points share (a wrong
calibration, a bent map) does not show in it.

The pose of a keyframe in the map has an error, too, which moves all points of the keyframe together. To first order the
estimate follows by H^-1 H_k times this motion, where H_k is the part of H from the points of keyframe k
(``PoseUncertainty.influence``): every keyframe alone would move the estimate along with it, and together they move it
by their average, weighed by their information.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

import torch

from nre_ros.device_constants import device_constant
from nre_ros.geometry import Camera, invert, skew
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.gnc import LocalMaps, RefinedPose, curvature, window_moments

_COVARIANCE_BLOCKS_ACROSS = 10
"""Image blocks along the longer side; the points of a block count as one independent observation."""
_FEWEST_BLOCKS = 7
"""Six numbers are estimated: the scatter of fewer sums than one more has no full rank."""


@dataclass(frozen=True)
class PoseUncertainty:
    """How far a pose may be off.

    Both are of (x, y, z, rotation about x, y, z) in the map's axes, metres and radians.

    Attributes:
        covariance: ``[6, 6]`` of the estimate, as if the keyframes' poses were exact (``pose_covariance``).
        influence: ``[K, 6, 6]`` how the estimate moves with each keyframe: a keyframe whose camera, and with it its
            points, is moved by epsilon moves the estimate by ``influence[k] @ epsilon``.
        disagreement: ``[6, 6]`` the covariance with all points of a keyframe as one independent observation. It is larger
            than ``covariance`` where the keyframes pull the estimate apart. Its rank is at most K - 1.
    """

    covariance: torch.Tensor
    influence: torch.Tensor
    disagreement: torch.Tensor


def pose_uncertainty(refined: RefinedPose, camera: Camera, keyframes: KeyframeStack) -> PoseUncertainty | None:
    """Computes the covariance of a refined pose, and the influence of each keyframe's pose on it.

    Args:
        refined: The pose.
        camera: Intrinsics of the query.
        keyframes: The keyframes whose points took part.

    Returns:
        The uncertainty; None where ``pose_covariance`` has none.
    """
    expansion = _Expansion(refined.T, refined.points, camera, refined.windows, refined.sigma)
    covariance = expansion.covariance(camera)
    if covariance is None:
        return None
    count = len(keyframes.counts)
    ends = device_constant(tuple(accumulate(keyframes.counts)), torch.long, refined.rows.device)
    owners = torch.searchsorted(ends, refined.rows, right=True)
    influence = expansion.influence(owners, keyframes.centres)
    return PoseUncertainty(covariance, influence, expansion.disagreement(owners, count))


def pose_covariance(
    T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigma: float
) -> torch.Tensor | None:
    """Computes the covariance of the camera's pose in the map.

    Args:
        T: ``[4, 4]`` refined pose ``T_cam_map``.
        points: ``[N, 3]`` in the map.
        camera: Intrinsics of the query.
        maps: Loss windows of the last refinement.
        sigma: Scale of the last refinement, in cells.

    Returns:
        ``[6, 6]`` of (x, y, z, rotation about x, y, z), all in the map's axes, metres and radians, as
        geometry_msgs/PoseWithCovariance asks. None where the loss has no minimum at T, or where the points lie in too
        few blocks.
    """
    return _Expansion(T, points, camera, maps, sigma).covariance(camera)


class _Expansion:
    """Gradients and Hessians of the points' losses at a pose; the arguments are those of ``pose_covariance``."""

    def __init__(self, T: torch.Tensor, points: torch.Tensor, camera: Camera, maps: LocalMaps, sigma: float):
        moments, J, self._pixels = (tensor[0] for tensor in window_moments(T[None], points, camera, maps, sigma))
        moments = moments.to(points.dtype)
        pull = torch.stack([moments[:, 0, 1], moments[:, 1, 0]], -1) / sigma**2
        self._T = T
        self._gradients = (J.mT @ pull[..., None])[..., 0]
        self._hessians = J.mT @ curvature(moments, sigma) @ J
        self._inverse: torch.Tensor | None = None
        scaled, scale = _balanced(self._hessians.sum(0))
        eigenvalues = torch.linalg.eigvalsh(scaled)
        if bool(eigenvalues[0] > 1e-9 * eigenvalues[-1]):
            self._inverse = scale * torch.linalg.inv(scaled) * scale[:, None]

    def covariance(self, camera: Camera) -> torch.Tensor | None:
        """The sandwich estimate ``[6, 6]`` in the map's axes; None without a minimum or with too few blocks."""
        sums = _sum_over_blocks(self._gradients, self._pixels, camera)
        if len(sums) < _FEWEST_BLOCKS or self._inverse is None:
            return None
        return self._sandwich(sums)

    def disagreement(self, owners: torch.Tensor, count: int) -> torch.Tensor:
        """``PoseUncertainty.disagreement``, from each point's keyframe ``[M]`` and the number of keyframes."""
        return self._sandwich(self._gradients.new_zeros(count, 6).index_add_(0, owners, self._gradients))

    def _sandwich(self, sums: torch.Tensor) -> torch.Tensor:
        """H^-1 S H^-1 in the map's axes, with the scatter S of the gradients' sums over independent groups."""
        assert self._inverse is not None
        scatter = sums.T @ sums * (len(sums) / max(len(sums) - 1, 1))
        left = self._inverse @ scatter @ self._inverse
        M = _left_to_map(self._T)
        covariance = M @ left @ M.T
        return (covariance + covariance.T) / 2

    def influence(self, owners: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
        """``PoseUncertainty.influence``, from each point's keyframe ``[M]`` and the keyframes' centres ``[K, 3]``."""
        assert self._inverse is not None
        parts = self._hessians.new_zeros(len(centres), 6, 6).index_add_(0, owners, self._hessians)
        M = _left_to_map(self._T)
        levers = torch.eye(6, dtype=parts.dtype, device=parts.device).repeat(len(centres), 1, 1)
        levers[:, :3, 3:] = -skew(invert(self._T)[:3, 3] - centres.to(parts))
        return M @ self._inverse @ parts @ torch.linalg.inv(M) @ levers


def _sum_over_blocks(g: torch.Tensor, pixels: torch.Tensor, camera: Camera) -> torch.Tensor:
    """Gradients [N, 6] summed over the image blocks that hold points with a gradient, [W, 6]."""
    pulling = (g != 0).any(-1)
    side = max(camera.width, camera.height) / _COVARIANCE_BLOCKS_ACROSS
    blocks = (pixels[pulling] / side).floor().long()
    if not len(blocks):
        return g.new_zeros(0, 6)
    first = blocks.amin(0)
    across, down = (blocks.amax(0) - first + 1).tolist()
    index = ((blocks - first) * blocks.new_tensor([down, 1])).sum(1)
    held = torch.bincount(index, minlength=across * down) > 0
    return g.new_zeros(across * down, 6).index_add_(0, index, g[pulling])[held]


def _balanced(H: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """H scaled to a unit diagonal (angles and metres differ by orders of magnitude), and the scale."""
    scale = H.diagonal().abs().clamp_min(1e-30).rsqrt()
    return scale[:, None] * H * scale, scale


def _left_to_map(T: torch.Tensor) -> torch.Tensor:
    """d (centre, rotation in map axes) / d (omega, t) of the left increment, [6, 6].

    centre = -R't and R_map_cam = R', so d centre = -R' (d t + [t]x omega), d rotation = -R' omega.
    """
    R, t = T[:3, :3], T[:3, 3]
    M = T.new_zeros(6, 6)
    M[:3, :3] = -R.T @ skew(t)
    M[:3, 3:] = -R.T
    M[3:, :3] = -R.T
    return M
