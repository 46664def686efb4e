# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The verdict of an import: whether poses, cameras and depths of a source agree with its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from nre_ros.errors import NreError
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.pose_agreement.agreement import AGREEING, agreements
from nre_ros.keyframes.importers.pose_agreement.hypotheses import Hypothesis, best_hypothesis
from nre_ros.keyframes.importers.pose_agreement.pairs import ANCHORS, ImagePair, PairFinder
from nre_ros.keyframes.importers.pose_frames import POSE_FRAMES

GOOD = 0.75
"""Least share of the image pairs that agree with the poses in a good source."""
BAD = 0.4
"""Largest share in a source that is refused."""
_FEW = 3
"""With fewer pairs a source is never refused."""
_EXPLAINS = 0.7
"""Least share of agreeing pairs with which a hypothesis explains a disagreement."""


@dataclass(frozen=True)
class PoseCheck:
    """How well a source agrees with its images.

    Attributes:
        pairs: Number of image pairs that were compared.
        agreeing: Number of pairs that agree with the poses.
        cause: The mistakes that explain the disagreement; None if nothing disagrees, or nothing explains it.
        why_not: Why nothing was compared; empty if something was.
    """

    pairs: int
    agreeing: int
    cause: Hypothesis | None = None
    why_not: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing speaks against the source."""
        return self.agreeing >= GOOD * self.pairs

    @property
    def refused(self) -> bool:
        """Whether a map of this source would be useless."""
        return self.pairs >= _FEW and self.agreeing <= BAD * self.pairs

    def summary(self) -> str:
        """Returns one phrase for tables."""
        if not self.pairs:
            return f"not possible: {self.why_not}"
        verdict = "" if self.good else "POSES, CAMERA OR DEPTH ARE PROBABLY WRONG: only "
        return f"{verdict}{self.agreeing} of {self.pairs} image pairs agree with the poses"

    def lines(self) -> list[str]:
        """Returns what the user should read and do, one line each; empty if the source is good."""
        if self.good:
            return []
        lines = [f"{self.summary()}; of good sources at least {GOOD:.0%} do"]
        if self.cause is None:
            lines.append(
                "likely causes: poses of other images (shifted or shuffled lists), inverse poses, quaternions with w "
                "first, poses of the robot's body, depth in another unit, intrinsics of another resolution. None of "
                "those tried explains the images"
            )
            return lines
        lines.append(
            f"likely cause ({self.cause.agreeing:.0%} of the pairs then agree): {'; '.join(self.cause.mistakes)}"
        )
        return lines + [f"to correct it: {cure}" for cure in cures(self.cause)]


def cures(cause: Hypothesis) -> list[str]:
    """Returns the options of ``map build`` that correct mistakes.

    Args:
        cause: The mistakes.
    """
    found = []
    if cause.T_pose_cam is not None:
        found.append(_extrinsics_option(cause.T_pose_cam))
    if cause.depth_scale != 1.0:
        found.append(f"--depth-scale with the scale used here times {1 / cause.depth_scale:.3g}")
    return found


def _extrinsics_option(T_pose_cam: npt.NDArray[np.float64]) -> str:
    for name, (axes, _) in POSE_FRAMES.items():
        if np.allclose(axes[:3, :3], T_pose_cam[:3, :3], atol=1e-3):
            place = T_pose_cam[:3, 3]
            at = "" if np.abs(place).max() < 0.02 else f" --extrinsics '{_numbers(place)}' (as measured)"
            return f"--pose-frame {name}{at}; or poses of the camera's optical frame"
    numbers = _numbers([*T_pose_cam[:3, 3], *Rotation.from_matrix(T_pose_cam[:3, :3]).as_quat()])
    return f"--extrinsics '{numbers}' (as measured); or poses of the camera's optical frame"


def _numbers(values: Sequence[float] | npt.NDArray[np.float64]) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def check_poses(source: MapSource, anchors: int = ANCHORS) -> PoseCheck:
    """Compares a sample of a source's images with its poses, cameras and depths.

    Args:
        source: The source.
        anchors: Number of images that are compared with others.

    Returns:
        The outcome, with the likely cause of a disagreement.
    """
    names = list(dict.fromkeys(source.names()))
    poses = known_poses(source, names)
    if np.isfinite(poses).all((1, 2)).sum() < 2:
        return PoseCheck(0, 0, why_not="fewer than two images have a pose")
    pairs = PairFinder(source, names, poses).find(anchors)
    if not pairs:
        return PoseCheck(0, 0, why_not="no two of the images that were compared show the same scene")
    check = PoseCheck(len(pairs), int((agreements(pairs, poses) >= AGREEING).sum()))
    return check if check.good else PoseCheck(check.pairs, check.agreeing, _cause(pairs, poses))


def known_poses(source: MapSource, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Collects the poses of a source's images.

    Args:
        source: The source.
        names: Names of the images.

    Returns:
        ``T_map_cam`` [V, 4, 4]; nan for an image without a pose.
    """
    poses = np.full((len(names), 4, 4), np.nan)
    for i, name in enumerate(names):
        try:
            known = source.pose_and_camera(name)
        except NreError:
            continue  # reported when the image is imported
        if known is not None:
            poses[i] = known[0]
    return poses


def _cause(pairs: Sequence[ImagePair], poses: npt.NDArray[np.float64]) -> Hypothesis | None:
    best = best_hypothesis(pairs, poses)
    return best if best.mistakes and best.agreeing >= _EXPLAINS else None
