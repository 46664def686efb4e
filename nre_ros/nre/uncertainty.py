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
"""

from __future__ import annotations

import torch

from nre_ros.geometry import Camera, skew
from nre_ros.nre.gnc import LocalMaps, curvature, window_moments

_COVARIANCE_BLOCKS_ACROSS = 10
"""Image blocks along the longer side; the points of a block count as one independent observation."""
_FEWEST_BLOCKS = 7
"""Six numbers are estimated: the scatter of fewer sums than one more has no full rank."""


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
    moments, J, pixels = (tensor[0] for tensor in window_moments(T[None], points, camera, maps, sigma))
    moments = moments.to(points.dtype)
    pull = torch.stack([moments[:, 0, 1], moments[:, 1, 0]], -1) / sigma**2
    g = (J.mT @ pull[..., None])[..., 0]
    H = (J.mT @ curvature(moments, sigma) @ J).sum(0)
    scaled, scale = _balanced(H)
    eigenvalues = torch.linalg.eigvalsh(scaled)
    sums = _sum_over_blocks(g, pixels, camera)
    if len(sums) < _FEWEST_BLOCKS or not bool(eigenvalues[0] > 1e-9 * eigenvalues[-1]):
        return None
    inverse = scale * torch.linalg.inv(scaled) * scale[:, None]
    scatter = sums.T @ sums * (len(sums) / (len(sums) - 1))
    left = inverse @ scatter @ inverse
    M = _left_to_map(T)
    covariance = M @ left @ M.T
    return (covariance + covariance.T) / 2


def _sum_over_blocks(g: torch.Tensor, pixels: torch.Tensor, camera: Camera) -> torch.Tensor:
    """Gradients [N, 6] summed over the image blocks that hold points with a gradient, [W, 6]."""
    pulling = (g != 0).any(-1)
    side = max(camera.width, camera.height) / _COVARIANCE_BLOCKS_ACROSS
    blocks = (pixels[pulling] / side).floor().long()
    _, index = torch.unique(blocks, dim=0, return_inverse=True)
    totals = g.new_zeros(int(index.max()) + 1 if len(index) else 0, 6)
    return totals.index_add_(0, index, g[pulling])


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
