# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Perspective-three-point in closed form for any number of triplets at once.

The three distances d along the viewing rays fulfil ``d'M12 d = |X1-X2|^2`` and so on, three quadrics. Two combinations
of them are homogeneous, conics in the plane of (d1 : d2 : d3), and the common points of these conics are the solutions.
Some member of the pencil of the two conics is a pair of lines, and each line meets a conic in two points (Persson and
Nordberg, "Lambda Twist", ECCV 2018; the splitting into lines without eigenvectors after Ding et al., "Revisiting the
P3P Problem", CVPR 2023). Newton steps on the three distance equations polish the closed form's result.
"""

from __future__ import annotations

import math

import torch

from nre_ros.device_constants import device_constant
from nre_ros.nre.operators import operator

_PAIRS = ((0, 1), (0, 2), (1, 2))


@operator
def solve_p3p(rays: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes all poses that see three points along three rays.

    Degenerate triplets (collinear or coincident points or rays) have no valid candidate, and nothing is ever NaN.

    Args:
        rays: ``[B, 3, 3]`` float64 unit viewing directions in the camera frame, one a row.
        points: ``[B, 3, 3]`` float64 points in the map frame, one a row.

    Returns:
        ``T_cam_map`` ``[B, 4, 4, 4]``, four candidates a triplet, and their validity ``[B, 4]``. Candidates that are
        not valid hold the identity.
    """
    scale = _triangle_size(points)
    usable = scale > 0
    points = points / torch.where(usable, scale, 1.0)[:, None, None]
    quadrics, squared = _distance_quadrics(rays, points)
    distances, valid = _intersect(quadrics, squared)
    cosines = torch.stack([-quadrics[:, k, i, j] for k, (i, j) in enumerate(_PAIRS)], -1)
    distances = _polish(distances, cosines, squared)
    T, rigid = _pose_from_distances(distances, rays, points)
    T[..., :3, 3] *= scale[:, None, None]
    residual = _residual(distances, cosines, squared).abs().amax(-1)
    valid = valid & rigid & usable[:, None] & (distances > 0).all(-1) & (residual < 1e-6)
    valid &= torch.isfinite(T).all(-1).all(-1)
    identity = torch.eye(4, dtype=T.dtype, device=T.device)
    return torch.where(valid[..., None, None], T, identity), valid


def _triangle_size(points: torch.Tensor) -> torch.Tensor:
    """Longest side [B]; 0 for collinear or coincident points."""
    a, b = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    size = torch.stack([a.norm(dim=-1), b.norm(dim=-1), (a - b).norm(dim=-1)], -1).amax(-1)
    area = torch.linalg.cross(a, b).norm(dim=-1)
    return torch.where(area > 1e-9 * size.square(), size, torch.zeros_like(size))


def _distance_quadrics(rays: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """M [B, 3, 3, 3] and squared sides s [B, 3] with d'M_k d = s_k for the pairs 12, 13, 23."""
    M = rays.new_zeros(len(rays), 3, 3, 3)
    squared = []
    for k, (i, j) in enumerate(_PAIRS):
        M[:, k, i, i] = M[:, k, j, j] = 1.0
        M[:, k, i, j] = M[:, k, j, i] = -(rays[:, i] * rays[:, j]).sum(-1)
        squared.append((points[:, i] - points[:, j]).square().sum(-1))
    return M, torch.stack(squared, -1)


def _intersect(M: torch.Tensor, squared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distances [B, 4, 3] at which the two homogeneous conics meet, and which are real [B, 4]."""
    s12, s13, s23 = (squared[:, k, None, None] for k in range(3))
    C1 = M[:, 0] * s23 - M[:, 2] * s12
    C2 = M[:, 1] * s23 - M[:, 2] * s13
    lines, real = _split(_degenerate_member(C1, C2))
    directions, meets = _meet(lines, C1)
    # the scale of the direction from the sum of the three distance equations
    quadric = torch.einsum("bsi,bij,bsj->bs", directions, M.sum(1), directions)
    length = (squared.sum(-1)[:, None] / quadric.clamp_min(1e-30)).sqrt()
    length = torch.where(directions.sum(-1) < 0, -length, length)
    valid = real[:, None] & meets & (quadric > 1e-12)
    return directions * length[..., None], valid


def _degenerate_member(C1: torch.Tensor, C2: torch.Tensor) -> torch.Tensor:
    """The member C1 + g C2 of the pencil that is a pair of real lines, [B, 3, 3]."""
    # det(C1 + g C2) = c0 + c1 g + c2 g^2 + c3 g^3
    adj1, adj2 = _adjugate(C1), _adjugate(C2)
    c0 = (adj1 * C1.mT).sum((-1, -2)) / 3
    c1 = (adj1 * C2.mT).sum((-1, -2))
    c2 = (adj2 * C1.mT).sum((-1, -2))
    c3 = (adj2 * C2.mT).sum((-1, -2)) / 3
    roots = _cubic_roots(c3, c2, c1, c0)
    members = C1[:, None] + roots[..., None, None] * C2[:, None]
    members = members / members.flatten(-2).norm(dim=-1).clamp_min(1e-30)[..., None, None]
    # A pair of real lines has a negative semidefinite adjugate; take the clearest such root.
    realness = -_adjugate(members).diagonal(dim1=-2, dim2=-1).amin(-1)
    best = torch.nan_to_num(realness, nan=-1.0).argmax(-1)
    return members[torch.arange(len(members), device=C1.device), best]


def _cubic_roots(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Real roots [B, 3] of a x^3 + b x^2 + c x + d (one root thrice where only one is real)."""
    a = torch.where(a.abs() < 1e-14, torch.full_like(a, 1e-14), a)
    b, c, d = b / a, c / a, d / a
    shift = b / 3
    p = c - b * shift
    q = 2 * shift**3 - shift * c + d
    discriminant = (q / 2) ** 2 + (p / 3) ** 3
    # one real root: Cardano in the form without cancellation
    u = -torch.sign(q) * (q.abs() / 2 + discriminant.clamp_min(0).sqrt()) ** (1 / 3)
    single = u - torch.where(u == 0, torch.zeros_like(p), p / (3 * torch.where(u == 0, torch.ones_like(u), u)))
    # three: trigonometric
    radius = 2 * (-p / 3).clamp_min(0).sqrt()
    cosine = (3 * q / (p * radius).where(p * radius != 0, torch.ones_like(p))).clamp(-1, 1)
    angle = torch.acos(cosine) / 3
    turns = device_constant((0.0, 2 * math.pi / 3, 4 * math.pi / 3), angle.dtype, angle.device)
    triple = radius[:, None] * torch.cos(angle[:, None] - turns)
    x = torch.where((discriminant > 0)[:, None], single[:, None].expand(-1, 3), triple) - shift[:, None]
    for _ in range(2):
        value = ((x + b[:, None]) * x + c[:, None]) * x + d[:, None]
        slope = (3 * x + 2 * b[:, None]) * x + c[:, None]
        x = x - torch.where(slope.abs() > 1e-12, value / slope, torch.zeros_like(x))
    return x


def _split(C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Splits line pairs C [B, 3, 3] into lines [B, 2, 3]; which pairs are real [B].

    Adding the skew matrix of the lines' common point to C leaves a matrix of rank one,
    line1 line2' (Richter-Gebert, "Perspectives on Projective Geometry", section 11.1).
    """
    B = -_adjugate(C)
    diagonal = B.diagonal(dim1=-2, dim2=-1)
    largest = diagonal.argmax(-1)
    rows = torch.arange(len(C), device=C.device)
    pivot = diagonal[rows, largest]
    point = B[rows, :, largest] / pivot.clamp_min(1e-30).sqrt()[:, None]
    x, y, z = point.unbind(-1)
    o = torch.zeros_like(x)
    N = C + torch.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(-1, 3, 3)
    flat = N.abs().flatten(1).argmax(-1)
    i, j = flat // 3, flat % 3
    return torch.stack([N[rows, i], N[rows, :, j]], 1), pivot > -1e-12


def _meet(lines: torch.Tensor, C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where lines [B, 2, 3] meet conics C [B, 3, 3]: points [B, 4, 3] and which are real [B, 4]."""
    lines = lines / lines.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    axis = torch.nn.functional.one_hot(lines.abs().argmin(-1), 3).to(lines)
    u = torch.linalg.cross(lines, axis)
    u = u / u.norm(dim=-1, keepdim=True).clamp_min(1e-30)
    v = torch.linalg.cross(lines, u)
    quadratic = [torch.einsum("bli,bij,blj->bl", p, C, q) for p, q in ((u, u), (u, v), (v, v))]
    a, b, c = quadratic  # a s^2 + 2 b s t + c t^2 = 0 for the point s u + t v
    discriminant = b * b - a * c
    # nearly tangent lines count as real: the polish decides
    real = discriminant > -1e-9 * (b * b + (a * c).abs())
    root = discriminant.clamp_min(0).sqrt()
    w = -(b + torch.where(b < 0, -root, root))
    first = w[..., None] * u + a[..., None] * v
    second = c[..., None] * u + w[..., None] * v
    points = torch.stack([first, second], 2).flatten(1, 2)
    norm = points.norm(dim=-1, keepdim=True)
    return points / norm.clamp_min(1e-30), real.repeat_interleave(2, dim=1) & (norm[..., 0] > 1e-30)


def _residual(distances: torch.Tensor, cosines: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
    """d_i^2 + d_j^2 - 2 cos_ij d_i d_j - s_ij of the three pairs, [B, 4, 3] (law of cosines)."""
    d = distances.unbind(-1)
    di, dj = (torch.stack([d[pair[side]] for pair in _PAIRS], -1) for side in (0, 1))
    return di * di + dj * dj - 2 * cosines[:, None] * di * dj - squared[:, None]


def _polish(distances: torch.Tensor, cosines: torch.Tensor, squared: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Newton's method on the three distance equations.

    Each of them holds two distances, so that half of the Jacobian is zero and Cramer's rule is short; a
    batched LU would take most of the solver's time.
    """
    c12, c13, c23 = (cosines[:, None, k] for k in range(3))
    for _ in range(steps):
        d1, d2, d3 = distances.unbind(-1)
        r1, r2, r3 = _residual(distances, cosines, squared).unbind(-1)
        # rows of the Jacobian: (a1, a2, 0), (b1, 0, b3), (0, e2, e3)
        a1, a2 = 2 * (d1 - c12 * d2), 2 * (d2 - c12 * d1)
        b1, b3 = 2 * (d1 - c13 * d3), 2 * (d3 - c13 * d1)
        e2, e3 = 2 * (d2 - c23 * d3), 2 * (d3 - c23 * d2)
        lower = r2 * e3 - b3 * r3
        step = torch.stack(
            [-r1 * b3 * e2 - a2 * lower, a1 * lower - r1 * b1 * e3, r1 * b1 * e2 - a1 * r2 * e2 - a2 * b1 * r3], -1
        )
        step = step / -(a1 * b3 * e2 + a2 * b1 * e3)[..., None]
        step = torch.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0)
        # no step may throw a distance to the other side of the camera
        limit = 0.5 * distances.norm(dim=-1, keepdim=True)
        step = step * (limit / step.norm(dim=-1, keepdim=True).clamp_min(1e-30)).clamp_max(1.0)
        distances = distances - step
    return distances


def _pose_from_distances(
    distances: torch.Tensor, rays: torch.Tensor, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Motion [B, 4, 4, 4] that takes points onto distances along rays, and where it is rigid."""
    seen = distances[..., None] * rays[:, None]
    frame_cam, ok = _triangle_frame(seen)
    frame_map, _ = _triangle_frame(points[:, None])
    R = frame_cam @ frame_map.mT
    T = torch.eye(4, dtype=rays.dtype, device=rays.device).repeat(*distances.shape[:2], 1, 1)
    T[..., :3, :3] = R
    T[..., :3, 3] = seen.mean(-2) - (R @ points.mean(-2)[:, None, :, None])[..., 0]
    return T, ok


def _triangle_frame(triangle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal axes [..., 3, 3] (columns) spanned by a triangle [..., 3, 3] (corners in rows)."""
    a = triangle[..., 1, :] - triangle[..., 0, :]
    b = triangle[..., 2, :] - triangle[..., 0, :]
    normal = torch.linalg.cross(a, b)
    length_a, length_n = a.norm(dim=-1), normal.norm(dim=-1)
    x = a / length_a.clamp_min(1e-30)[..., None]
    z = normal / length_n.clamp_min(1e-30)[..., None]
    return torch.stack([x, torch.linalg.cross(z, x), z], -1), (length_a > 1e-12) & (length_n > 1e-12)


def _adjugate(A: torch.Tensor) -> torch.Tensor:
    """Adjugate of [..., 3, 3]: A adj(A) = det(A) I."""
    r0, r1, r2 = A.unbind(-2)
    cofactor_rows = [torch.linalg.cross(r1, r2), torch.linalg.cross(r2, r0), torch.linalg.cross(r0, r1)]
    return torch.stack(cofactor_rows, -1)
