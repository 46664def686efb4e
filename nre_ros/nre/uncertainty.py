# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Covariance of a pose from the curvature of the smoothed loss and the scatter of its gradients.

The refined pose minimises a sum of per-point losses, so it is an M-estimate and its covariance
the sandwich H^-1 S H^-1 (Huber, "Robust Statistics", section 6.3) with S = sum_n g_n g_n', the
scatter of the per-point gradients, and H the Hessian of the sum.  For the Gaussian kernel

    g_n = J_n' sum_x w_nx r_nx,   H_n = J_n' A_n J_n

with w_nx, r_nx and A_n as in ``gnc``; the curvature of the projection itself is left out.  Points
are no independent witnesses: several keyframes bring the same spot of the scene, with the same
error of features and depth.  So the gradients are first summed over blocks of the image, and S is
the scatter of those sums (the cluster-robust estimate of econometrics, Cameron and Miller, "A
Practitioner's Guide to Cluster-Robust Inference", 2015).

Few, badly spread or disagreeing points thus give a large covariance by themselves.  What all
points share (a wrong calibration, a bent map) it cannot know.
"""

from __future__ import annotations

import torch

from nre_ros.geometry import Camera, skew
from nre_ros.nre.gnc import LocalMaps, curvature, window_moments

_BLOCKS_ACROSS = 10
"""Image blocks along its longer side within which points count as one witness."""
_FEWEST_WITNESSES = 7
"""Six numbers are estimated: fewer sums than that, and one more, have no full scatter."""


def pose_covariance(T, points, camera: Camera, maps: LocalMaps, sigma: float) -> torch.Tensor | None:
    """Covariance [6, 6] of the camera's pose in the map, or None where it has none.

    That is where the loss has no minimum at T, or where the points lie in too few blocks.

    T: [4, 4] refined T_cam_map; points [N, 3]; maps, sigma: those of the last refinement.
    The order is (x, y, z, rotation about x, y, z), all in the map's axes, metres and radians,
    as geometry_msgs/PoseWithCovariance asks.
    """
    moments, J, pixels = (tensor[0] for tensor in window_moments(T[None], points, camera, maps, sigma))
    moments = moments.to(points.dtype)
    pull = torch.stack([moments[:, 0, 1], moments[:, 1, 0]], -1) / sigma**2
    g = (J.mT @ pull[..., None])[..., 0]
    H = (J.mT @ curvature(moments, sigma) @ J).sum(0)
    scaled, scale = _balanced(H)
    eigenvalues = torch.linalg.eigvalsh(scaled)
    witnesses = _sum_over_blocks(g, pixels, camera)
    if len(witnesses) < _FEWEST_WITNESSES or not bool(eigenvalues[0] > 1e-9 * eigenvalues[-1]):
        return None
    inverse = scale * torch.linalg.inv(scaled) * scale[:, None]
    scatter = witnesses.T @ witnesses * (len(witnesses) / (len(witnesses) - 1))
    left = inverse @ scatter @ inverse
    M = _left_to_map(T)
    covariance = M @ left @ M.T
    return (covariance + covariance.T) / 2


def _sum_over_blocks(g, pixels, camera: Camera) -> torch.Tensor:
    """Gradients [N, 6] summed over the blocks of the image that hold points which pull, [W, 6]."""
    pulling = (g != 0).any(-1)
    side = max(camera.width, camera.height) / _BLOCKS_ACROSS
    blocks = (pixels[pulling] / side).floor().long()
    _, index = torch.unique(blocks, dim=0, return_inverse=True)
    sums = g.new_zeros(int(index.max()) + 1 if len(index) else 0, 6)
    return sums.index_add_(0, index, g[pulling])


def _balanced(H):
    """H scaled to a unit diagonal (angles and metres differ by orders of magnitude), and the scale."""
    scale = H.diagonal().abs().clamp_min(1e-30).rsqrt()
    return scale[:, None] * H * scale, scale


def _left_to_map(T):
    """d (centre, rotation in map axes) / d (omega, t) of the left increment, [6, 6].

    centre = -R't and R_map_cam = R', so d centre = -R' (d t + [t]x omega), d rotation = -R' omega.
    """
    R, t = T[:3, :3], T[:3, 3]
    M = T.new_zeros(6, 6)
    M[:3, :3] = -R.T @ skew(t)
    M[:3, 3:] = -R.T
    M[3:, :3] = -R.T
    return M
