# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Plane sweep: how well the patches around pixels fit other views, over a range of depths.

A patch moves through the other view along its epipolar line. The patch lies on the plane that the surface has at its
pixel, and is compared by normalised cross-correlation (Collins, "A Space-Sweep Approach to True Multi-Image Matching",
CVPR 1996). Patches with normals are those of Schoenberger et al., "Pixelwise View Selection for Unstructured Multi-View
Stereo", ECCV 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.building.multiview.views import View

_REACH, _SPACING = 3, 1.5
"""A patch has 2 reach + 1 samples a side, ``spacing`` pixels apart."""
_BORDER = 4.0
"""Least distance (pixels) of a patch's centre from the border of the other image."""
_MAX_ZOOM = 4.0
"""Largest ratio of the patch's areas in the two views."""
_MIN_CONTRAST = 2.0
"""Standard deviation (grey values) below which a patch shows only noise."""
_STEP = 2.0
"""Distance (pixels) from a patch's centre to the two places that define its plane."""
_PATCHES_AT_ONCE = 50_000
"""Patches times hypotheses that are compared at once; bounds the memory, not the result."""


def inverse_depth_planes(
    depth: npt.NDArray[np.floating], pixels: npt.NDArray[np.float64], reach: int = 10
) -> torch.Tensor:
    """Fits planes to a depth image.

    In a plane's image the inverse depth is linear in the (undistorted) pixel. The fit is least squares over a window,
    without depths that differ by more than a tenth, and with slopes drawn towards zero.

    Args:
        depth: [H, W] metres along z, 0 where there is none.
        pixels: [N, 2] centres of the windows.
        reach: Half of the window's side in pixels.

    Returns:
        [N, 3] float64, inverse depth at the pixel and its slopes along x and y; 0 for pixels without depth.
    """
    span = torch.arange(-reach, reach + 1)
    dy, dx = (grid.flatten() for grid in torch.meshgrid(span, span, indexing="ij"))
    x, y = np.rint(pixels).astype(np.int64).T
    x, y = x.clip(0, depth.shape[1] - 1), y.clip(0, depth.shape[0] - 1)
    side = 2 * reach + 1
    padded = np.pad(depth.astype(np.float64), reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))  # gathers rows, not single pixels
    window = torch.from_numpy(windows[y, x].reshape(-1, side * side))
    centre = torch.from_numpy(depth[y, x].astype(np.float64))
    known = (window > 0) & ((window - centre[:, None]).abs_() < 0.1 * centre[:, None])
    inverse = window.reciprocal_().masked_fill_(~known, 0.0)
    basis = torch.stack([torch.ones_like(dx), dx, dy], dim=1)
    # sums of small integers, exact in single precision
    normal = known.float() @ (basis[:, :, None] * basis[:, None, :]).flatten(1).float()
    normal = normal.double().reshape(-1, 3, 3) + torch.diag(torch.tensor([1e-9, 50.0, 50.0], dtype=torch.float64))
    planes = torch.linalg.solve(normal, inverse @ basis.double())
    planes[:, 0] = torch.where(centre > 0, 1 / centre.clamp_min(1e-9), 0.0)
    return torch.where(centre[:, None] > 0, planes, torch.zeros_like(planes))


@dataclass(frozen=True)
class Patches:
    """The patches around N pixels of a view, which are compared with several other views.

    Attributes:
        T_map_cam: [4, 4] pose of the view.
        values: [N, P] float32 grey values.
        corners: [N, 3, 3] rays with z = 1 at the pixel, right of it and below it.
        inverse: [N, 3] inverse depths at the corners.
    """

    T_map_cam: npt.NDArray[np.float64]
    values: torch.Tensor
    corners: torch.Tensor
    inverse: torch.Tensor

    @classmethod
    def from_view(cls, view: View, pixels: torch.Tensor, planes: torch.Tensor) -> Patches:
        """Cuts out the patches around pixels of a view.

        Args:
            view: The view.
            pixels: [N, 2] float64, centres of the patches.
            planes: [N, 3], from ``inverse_depth_planes``.

        Returns:
            N patches.
        """
        steps = pixels.new_tensor([[0, 0], [_STEP, 0], [0, _STEP]])
        rays = view.camera.rays(pixels[:, None] + steps)
        values = _sample(view.grey, pixels[:, None] + _offsets())
        inverse = planes[:, :1] + planes[:, 1:] @ steps.T
        return cls(view.T_map_cam, values, rays / rays[..., 2:], inverse)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, block: slice) -> Patches:
        return Patches(self.T_map_cam, self.values[block], self.corners[block], self.inverse[block])


def plane_sweep(patches: Patches, relative: torch.Tensor, other: View) -> torch.Tensor:
    """Compares patches with another view over a range of depths.

    Args:
        patches: The patches.
        relative: [D] evenly spaced, D >= 3; hypothesis d has the patches' inverse depths times 1 + relative[d].
        other: The other view.

    Returns:
        Correlations [N, D] float64 in [-1, 1]; 0 where the patch is out of view or shows no texture.
    """
    blocks = [torch.zeros(0, len(relative), dtype=torch.float64)]
    step = max(1, _PATCHES_AT_ONCE // len(relative))
    for start in range(0, len(patches), step):
        blocks.append(_sweep(patches[start : start + step], relative, other))
    return torch.cat(blocks)


def _sweep(patches: Patches, relative: torch.Tensor, other: View) -> torch.Tensor:
    T = torch.from_numpy(invert(other.T_map_cam) @ patches.T_map_cam)
    rays, t = patches.corners @ T[:3, :3].T, T[:3, 3]
    corners, valid, _ = other.camera.project(rays + patches.inverse[..., None] * t)
    affine = (corners[:, 1:] - corners[:, :1]).mT / _STEP  # from a patch's offsets to those in the other view
    zoom = torch.linalg.det(affine)
    fits = valid.all(1) & (zoom > 1 / _MAX_ZOOM) & (zoom < _MAX_ZOOM)
    centres, valid = _epipolar_line(other.camera, rays[:, 0], patches.inverse[:, :1], relative, t)
    size = centres.new_tensor([other.camera.width, other.camera.height])
    inside = valid[:, None] & ((centres >= _BORDER) & (centres <= size - 1 - _BORDER)).all(-1)
    other_values = _sample(other.grey, centres[:, :, None], _offsets() @ affine.mT)
    score, contrast = _correlation(patches.values, other_values)
    return torch.where(inside & fits[:, None] & contrast, score.double(), 0.0)


def _epipolar_line(
    camera: Camera, rays: torch.Tensor, inverse: torch.Tensor, relative: torch.Tensor, t: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [N, D, 2] of the hypotheses, and whether a point is in view at all of them [N].

    Three hypotheses are projected, and a parabola connects them: over a few percent of the depth it is right to a
    hundredth of a pixel.
    """
    ends = relative[[0, len(relative) // 2, -1]]
    scaled = inverse * (1 + ends)
    three, valid, _ = camera.project(rays[:, None] + scaled[..., None] * t)
    difference = relative[:, None] - ends
    a, b, c = (ends[k] - ends for k in range(3))
    weights = torch.stack(
        [
            difference[:, 1] * difference[:, 2] / (a[1] * a[2]),
            difference[:, 0] * difference[:, 2] / (b[0] * b[2]),
            difference[:, 0] * difference[:, 1] / (c[0] * c[1]),
        ],
        dim=1,
    )
    return weights @ three, valid.all(1)


def _offsets() -> torch.Tensor:
    """Offsets [P, 2] float64 of a patch's samples from its centre, in pixels."""
    span = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64) * _SPACING
    return torch.stack(torch.meshgrid(span, span, indexing="xy"), dim=-1).reshape(-1, 2)


def _sample(grey: npt.NDArray[np.uint8], centres: torch.Tensor, offsets: torch.Tensor | None = None) -> torch.Tensor:
    """Grey values [N, D, P] float32 at centres [N, D, 1, 2] + offsets [N, P, 2]; without offsets [N, P] at centres."""
    height, width = grey.shape
    scale = centres.new_tensor([2 / width, 2 / height])
    # of normalised coordinates single precision is enough; x and y apart are added and sampled sooner
    places = ((centres + 0.5) * scale - 1).float().unbind(-1)
    if offsets is None:
        grid = torch.stack(places)
    else:
        around = (offsets * scale).float()[:, None].unbind(-1)
        grid = torch.empty(2, *torch.broadcast_shapes(places[0].shape, around[0].shape))
        for axis in (0, 1):
            torch.add(places[axis], around[axis], out=grid[axis])
    # the mean is taken off so that sums of squares keep their digits
    image = torch.from_numpy(grey.astype(np.float32) - np.float32(128))[None, None]
    pairs = grid.flatten(2).permute(1, 2, 0)[None]
    return F.grid_sample(image, pairs, padding_mode="border", align_corners=False).reshape(grid.shape[1:])


def _correlation(values: torch.Tensor, other_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised cross-correlations [N, D] of patches [N, P] with [N, D, P], and where both have contrast."""
    count = values.shape[1]
    values = values - values.mean(1, keepdim=True)
    own_variance = values.square().mean(1)[:, None]
    product, mean = (other_values @ torch.stack([values, torch.ones_like(values)], dim=-1) / count).unbind(-1)
    other_variance = torch.linalg.vector_norm(other_values, dim=-1).square() / count - mean.square()
    least = _MIN_CONTRAST**2
    correlation = product / (own_variance * other_variance.clamp_min(least)).clamp_min(least**2).sqrt()
    return correlation, (own_variance > least) & (other_variance > least)
