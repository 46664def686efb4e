# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Choice of image pairs of a recording that show enough of the same scene, and from different places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.errors import TrainingError
from nre_ros.sampling import evenly_spaced_indices

_MAX_POSE_MOTION = 1.5
"""Largest motion of a partner that is compared by its images: metres / depth + radians."""
_MIN_FACING = 0.3
"""Least cosine between the optical axes of partners."""
_MIN_AGREEMENT = 0.7
"""Least share of the points with depth in both views whose depths agree in a pair that is used."""
_MAX_DISAGREEING = 0.5
"""A source is refused if the depths disagree in more than this share of the pairs."""


@dataclass(frozen=True)
class PairSelection:
    """Which images make pairs.

    Attributes:
        anchors: Largest number of images for which partners are sought, evenly spaced over the recording.
        partners: Largest number of partners of each, from near ones to far ones.
        min_overlap: Smallest share of one image's points that the other one shows.
        min_motion: Smallest median motion of these points, as a fraction of the image's width.

    Raises:
        TrainingError: A value is out of its range.
    """

    anchors: int = 200
    partners: int = 6
    min_overlap: float = 0.2
    min_motion: float = 0.03

    def __post_init__(self) -> None:
        if self.anchors < 1 or self.partners < 1 or not 0 < self.min_overlap <= 1 or not self.min_motion >= 0:
            raise TrainingError(
                f"choice of pairs: anchors={self.anchors} and partners={self.partners} must be at least 1, "
                f"min_overlap={self.min_overlap} within (0, 1], min_motion={self.min_motion} at least 0"
            )


@dataclass(frozen=True)
class ViewOverlap:
    """What two images share.

    Attributes:
        overlap: Share of one image's points that the other one shows.
        motion: Median motion of these points, as a fraction of the image's width; 0 without such points.
        agreement: Share of the points at places with depth that have this depth or are hidden; 1 where depths are not
            compared.
    """

    overlap: float
    motion: float
    agreement: float = 1.0


def pose_candidates(
    poses: npt.NDArray[np.float64], scene_depth: float, selection: PairSelection
) -> list[tuple[int, int]]:
    """Proposes partners by the poses alone: in a similar direction, from the nearest to the farthest that may do.

    Args:
        poses: ``[V, 4, 4]`` ``T_map_cam``.
        scene_depth: Typical depth of the scene in metres.
        selection: The numbers of images.

    Returns:
        Pairs of indices, at most twice the wanted number.
    """
    found = []
    for i in evenly_spaced_indices(len(poses), selection.anchors):
        distance = np.linalg.norm(poses[:, :3, 3] - poses[i, :3, 3], axis=1)
        relative = np.einsum("ij,vik->vjk", poses[i, :3, :3], poses[:, :3, :3])
        angle = np.arccos(np.clip((np.trace(relative, axis1=1, axis2=2) - 1) / 2, -1, 1))
        facing = poses[:, :3, 2] @ poses[i, :3, 2]
        motion = distance / scene_depth + angle
        fit = (motion <= _MAX_POSE_MOTION) & (motion >= selection.min_motion / 4) & (facing >= _MIN_FACING)
        fit[i] = False
        near = np.flatnonzero(fit)[np.argsort(motion[fit], kind="stable")]
        found += [(int(i), int(j)) for j in near[evenly_spaced_indices(len(near), 2 * selection.partners)]]
    return found


def choose_pairs(
    candidates: Sequence[tuple[int, int]],
    overlap_of: Callable[[int, int], ViewOverlap | None],
    selection: PairSelection,
    name: str,
) -> list[tuple[int, int]]:
    """Compares candidates and chooses the pairs to train on.

    Args:
        candidates: Pairs of indices of images; those of one first image from near ones to far ones.
        overlap_of: What two images share; None if one of them cannot be used.
        selection: The limits.
        name: Name of the recording, for messages.

    Returns:
        Pairs of indices, each once.

    Raises:
        TrainingError: No two images overlap enough or differ enough, or depths disagree between the views.
    """
    overlaps = {pair: overlap for pair in candidates if (overlap := overlap_of(*pair)) is not None}
    _check_depths(list(overlaps.values()), selection, name)
    good: dict[int, list[int]] = {}
    for (i, j), found in overlaps.items():
        if found.overlap >= selection.min_overlap and found.motion >= selection.min_motion:
            if found.agreement >= _MIN_AGREEMENT:
                good.setdefault(i, []).append(j)
    chosen: dict[tuple[int, int], None] = {}
    for i, others in good.items():
        for k in evenly_spaced_indices(len(others), selection.partners):
            if (others[k], i) not in chosen:
                chosen[i, others[k]] = None
    if not chosen:
        best = max((found.overlap for found in overlaps.values()), default=0.0)
        most = max((found.motion for found in overlaps.values()), default=0.0)
        raise TrainingError(
            f"{name}: no two images overlap enough from different places: {len(overlaps)} pairs were compared, the "
            f"largest overlap is {best:.0%} (needed {selection.min_overlap:.0%}), the largest motion "
            f"{most:.1%} of the width (needed {selection.min_motion:.1%})"
        )
    return list(chosen)


def _check_depths(overlaps: Sequence[ViewOverlap], selection: PairSelection, name: str) -> None:
    """Refuses depths of which most pairs of views disagree."""
    agreements = np.array([found.agreement for found in overlaps if found.motion >= selection.min_motion])
    wrong = int((agreements < _MIN_AGREEMENT).sum())
    if wrong > _MAX_DISAGREEING * len(agreements):
        raise TrainingError(
            f"{name}: depths disagree between the views in {wrong} of {len(agreements)} image pairs: the median share "
            f"of points that agree is {np.median(agreements):.0%}, needed {_MIN_AGREEMENT:.0%} (wrong depth scale, "
            "poses or camera?)"
        )
