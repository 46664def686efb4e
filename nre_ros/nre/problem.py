# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The problem that consensus and refinement solve: map points, their NRE maps in the query, and the query's camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nre_ros.features import FeatureGrid, ImageFeatures
from nre_ros.geometry import Camera, transform
from nre_ros.keyframes.types import KeyframeStack
from nre_ros.nre.gnc import LocalMaps, cut_windows, project_cells, project_points
from nre_ros.nre.maps import NREMaps, sample_loss
from nre_ros.nre.operators import operator

MIN_POINTS = 4
"""A pose needs three points, and a fourth one to choose among the solutions."""
_SAMPLES_AT_ONCE = 2_000_000
"""Pose-point pairs scored in one go; bounds the memory, not the result."""


@dataclass(frozen=True)
class PoseProblem:
    """Map points and where the query may show them.

    Attributes:
        points: ``[N, 3]`` float64, map frame, metres.
        maps: Coarse NRE maps of the points in the query.
        camera: Intrinsics of the query.
    """

    points: torch.Tensor
    maps: NREMaps
    camera: Camera

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: torch.Tensor) -> PoseProblem:
        """The problem of some of the points, by their indices ``[M]``."""
        return PoseProblem(self.points[rows], self.maps[rows], self.camera)

    def project(self, T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projects all points into the query.

        Args:
            T: ``[..., 4, 4]`` poses ``T_cam_map``.

        Returns:
            Pixels ``[..., N, 2]``, and ``[..., N]`` whether the point lies in front of the camera.
        """
        return project_points(T, self.points, self.camera)

    def losses_at(self, pixels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Samples each point's map at a pixel.

        Args:
            pixels: ``[B, N, 2]`` pixels of the query.
            valid: ``[B, N]`` whether the point lies in front of the camera.

        Returns:
            ``[B, N]`` losses in nats.
        """
        return sample_loss(self.maps.stored, self.maps.grid.to_cells(pixels), valid, self.maps.rows)

    def relative_losses(self, T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Projects the points under one pose and samples their losses there.

        Args:
            T: ``[4, 4]`` pose ``T_cam_map``.

        Returns:
            Pixels ``[N, 2]``, whether each point lies in front of the camera ``[N]``, and the losses ``[N]`` as
            fractions of ln|Omega|.
        """
        pixels, valid = self.project(T)
        return pixels, valid, self.losses_at(pixels[None], valid[None])[0] / self.maps.outlier_loss

    def mean_losses(self, T: torch.Tensor) -> torch.Tensor:
        """Scores poses by the mean loss of all points.

        Args:
            T: ``[B, 4, 4]`` poses ``T_cam_map``.

        Returns:
            ``[B]`` float64, nats.
        """
        maps = self.maps
        return mean_losses(T, self.points, maps.stored, maps.rows, maps.outlier_loss, maps.grid, self.camera)

    def cells(self, T: torch.Tensor) -> torch.Tensor:
        """Projects all points into the cells of the maps.

        Args:
            T: ``[B, 4, 4]`` poses ``T_cam_map``.

        Returns:
            ``[B, N, 2]`` cells (x, y), far away for points behind the camera.
        """
        return project_cells(T, self.points, self.camera, self.maps.grid)

    def windows(self, cells: torch.Tensor, radius: int, rows: torch.Tensor | None = None) -> LocalMaps:
        """Cuts windows of (2 radius + 1)^2 cells out of the maps.

        Args:
            cells: ``[B, M, 2]`` centres of the windows.
            radius: In cells.
            rows: ``[M]`` indices of the points; None: all N.
        """
        maps = self.maps
        chosen = maps.rows if rows is None else maps.rows[rows]
        return cut_windows(maps.stored, maps.outlier_loss, maps.grid, cells, radius, chosen)


@operator
def mean_losses(
    T: torch.Tensor,
    points: torch.Tensor,
    loss: torch.Tensor,
    rows: torch.Tensor,
    outlier_loss: float,
    grid: FeatureGrid,
    camera: Camera,
) -> torch.Tensor:
    """Scores poses by the mean loss of points at their projections.

    A single-precision projection, which is good to a hundredth of a cell, is used where the maps have it.

    Args:
        T: ``[B, 4, 4]`` float64 poses ``T_cam_map``.
        points: ``[N, 3]`` float64, map frame, metres.
        loss: ``[M, H, W]`` loss maps.
        rows: ``[N]`` int64 which of the maps are those of the points.
        outlier_loss: ln|Omega| of the maps.
        grid: Where the maps' cells lie in the image.
        camera: Intrinsics of the image.

    Returns:
        ``[B]`` float64, nats.
    """
    step = max(1, _SAMPLES_AT_ONCE // max(1, len(points)))
    costs = [T.new_zeros(0)]
    T, points = T.to(loss.dtype), points.to(loss.dtype)
    for start in range(0, len(T), step):
        pixels, valid, _ = camera.project(transform(T[start : start + step], points))
        losses = sample_loss(loss, grid.to_cells(pixels), valid, rows, outlier_loss)
        costs.append(losses.mean(dim=1, dtype=torch.float64))
    return torch.cat(costs)


def input_fault(query: ImageFeatures, keyframes: KeyframeStack) -> str:
    """Checks that features and keyframes fit together.

    Args:
        query: Features of the image.
        keyframes: The retrieved keyframes.

    Returns:
        Why no pose can be computed from them (too few points, shapes that do not fit, values that are not finite), in
        words; empty where nothing is wrong.
    """
    if len(keyframes) < MIN_POINTS:
        return f"the retrieved keyframes have only {len(keyframes)} points"
    count, views = sum(keyframes.counts), len(keyframes.counts)
    coarse, fine = query.coarse.data, query.fine.data
    expected: dict[str, tuple[torch.Tensor, tuple[int | None, ...]]] = {
        "query features": (coarse, (None, None, None)),
        "fine query features": (fine, (None, None, None)),
        "keyframe points": (keyframes.points, (count, 3)),
        "keyframe descriptors": (keyframes.coarse, (count, len(coarse))),
        "fine keyframe descriptors": (keyframes.fine, (count, len(fine))),
        "keyframe directions": (keyframes.directions, (count, 3)),
        "background descriptors": (keyframes.background, (views, None, len(coarse))),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.dim() != len(shape) or any(a not in (None, b) for a, b in zip(shape, tensor.shape)):
            wanted = ", ".join("any" if side is None else str(side) for side in shape)
            return f"{name} have shape {list(tensor.shape)}, expected [{wanted}]"
    # a sum is finite only where all numbers are, and takes a tenth of the time of looking at each
    tensors = {name: tensor for name, (tensor, _) in expected.items()}
    if bool(torch.isfinite(torch.stack([tensor.sum().double() for tensor in tensors.values()])).all()):
        return ""
    finite = torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()]).tolist()
    faulty = [name for name, fits in zip(tensors, finite) if not fits]
    return f"{' and '.join(faulty)} are not finite" if faulty else ""
