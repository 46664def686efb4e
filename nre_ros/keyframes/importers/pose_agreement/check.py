# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The verdict of an import: whether poses, cameras and depths of a source agree with its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nre_ros.errors import NreError
from nre_ros.geometry import Camera, describe_unusual_cameras
from nre_ros.keyframes.building.builder import DEPTH_RANGE
from nre_ros.keyframes.importers.map_source import MapSource, PosedImageSource
from nre_ros.keyframes.importers.pose_agreement.agreement import AGREEING, agreements
from nre_ros.keyframes.importers.pose_agreement.hypotheses import INVERSE, W_FIRST, W_LAST, Hypothesis, best_hypothesis
from nre_ros.keyframes.importers.pose_agreement.pairs import ANCHORS, ImagePair, PairFinder
from nre_ros.keyframes.importers.pose_frames import extrinsics_option

GOOD = 0.8
"""Least share of the image pairs that agree with the poses in a good source (``benchmarks/pose_mistakes.py``)."""
BAD = 0.4
"""Largest share in a source that is refused."""
_FEW = 3
"""With fewer pairs a source is never refused."""
_EXPLAINS = 0.7
"""Least share of agreeing pairs with which a hypothesis explains a disagreement."""

LIKELY_CAUSES = (
    "poses of other images (shifted or shuffled lists), inverse poses, quaternions with w first, poses of the robot's "
    "body, depth in another unit, intrinsics of another resolution"
)
_CURES = {
    INVERSE: "the other --pose-direction (rgbd), or inverse poses",
    W_FIRST: "--pose-format wxyz (rgbd), or quaternions with w at the end",
    W_LAST: "--pose-format tum (rgbd), or quaternions with w at the beginning",
}


@dataclass(frozen=True)
class PoseCheck:
    """How well a source agrees with its images.

    Attributes:
        pairs: Number of image pairs that were compared.
        agreeing: Number of pairs that agree with the poses.
        cause: The mistakes that explain the disagreement; None if nothing disagrees, or nothing explains it.
        why_not: Why nothing was compared; empty if something was.
        median_depth: Median depth of the matches in metres; nan without depth.
        depth_unit: Depth value of one metre as the source was read; None if the user cannot choose it.
        T_pose_cam: [4, 4] pose of the camera in the frame of the poses, as the user gave it; None if not.
        has_pose_frame: Whether the user can say what the poses are of (``--pose-frame``, ``--extrinsics``).
        camera_warnings: What is unusual about the cameras, one line each.
    """

    pairs: int
    agreeing: int
    cause: Hypothesis | None = None
    why_not: str = ""
    median_depth: float = float("nan")
    depth_unit: float | None = None
    T_pose_cam: npt.NDArray[np.float64] | None = None
    has_pose_frame: bool = True
    camera_warnings: tuple[str, ...] = ()

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
        """Returns what the user should read and do, one line each; empty if nothing is wrong."""
        lines = list(self.camera_warnings)
        if self.good:
            return lines
        lines.append(f"{self.summary()}; of good sources at least {GOOD:.0%} do")
        if self.cause is not None:
            mistakes = "; ".join(self.cause.mistakes)
            lines.append(f"likely cause ({self.cause.agreeing:.0%} of the pairs then agree): {mistakes}")
            return lines + [f"to correct it: {cure}" for cure in self._cures(self.cause)]
        if not DEPTH_RANGE[0] <= self.median_depth <= DEPTH_RANGE[1] and np.isfinite(self.median_depth):
            unit = "" if self.depth_unit is None else f"; --depth-scale is {self.depth_unit:g} here"
            lines.append(
                f"likely cause: depth in another unit, since the median depth is {self.median_depth:.3g} m{unit}"
            )
        else:
            lines.append(f"likely causes: {LIKELY_CAUSES}. None of those tried explains the images")
        return lines

    def _cures(self, cause: Hypothesis) -> list[str]:
        """The options of ``map build`` that correct mistakes."""
        found = [cure for mistake, cure in _CURES.items() if mistake in cause.mistakes]
        if cause.T_pose_cam is not None:
            T = cause.T_pose_cam if self.T_pose_cam is None else self.T_pose_cam @ cause.T_pose_cam
            option = f"{extrinsics_option(T)} (as measured); or " if self.has_pose_frame else ""
            found.append(f"{option}poses of the camera's optical frame")
        if cause.depth_scale != 1.0:
            unit, factor = self.depth_unit, 1 / cause.depth_scale
            found.append(
                f"depth values {factor:.3g} times smaller" if unit is None else f"--depth-scale {unit * factor:.6g}"
            )
        return found


def check_poses(source: MapSource, anchors: int = ANCHORS) -> PoseCheck:
    """Compares a sample of a source's images with its poses, cameras and depths.

    Args:
        source: The source.
        anchors: Number of images that are compared with others.

    Returns:
        The outcome, with the likely cause of a disagreement.
    """
    names = list(dict.fromkeys(source.names()))
    poses, cameras = _poses_and_cameras(source, names)
    warnings = tuple(describe_unusual_cameras((name, camera) for camera, name in cameras.items()))
    if np.isfinite(poses).all((1, 2)).sum() < 2:
        return PoseCheck(0, 0, why_not="fewer than two images have a pose", camera_warnings=warnings)
    finder = PairFinder(source, names, poses)
    check = judge(finder.find(anchors), poses)
    if not check.pairs and finder.unusable:
        name, reason = next(iter(finder.unusable.items()))
        why_not = f"{len(finder.unusable)} images cannot be compared, the first: {name}: {reason}"
        check = replace(check, why_not=why_not)
    return replace(
        check,
        depth_unit=source.depth_unit(),
        T_pose_cam=source.T_pose_cam if isinstance(source, PosedImageSource) else None,
        has_pose_frame=isinstance(source, PosedImageSource),
        camera_warnings=warnings,
    )


def judge(pairs: Sequence[ImagePair], poses: npt.NDArray[np.float64], explain: bool = True) -> PoseCheck:
    """Compares image pairs with poses.

    Args:
        pairs: The pairs.
        poses: [V, 4, 4] poses of the images; nan for an image without a pose.
        explain: Whether the cause of a disagreement is sought.

    Returns:
        The outcome.
    """
    if not pairs:
        return PoseCheck(0, 0, why_not="no two of the images that were compared show the same scene")
    depths = np.concatenate([pair.depths.ravel() for pair in pairs])
    median = float(np.median(depths[depths > 0])) if (depths > 0).any() else float("nan")
    agreeing = int((agreements(pairs, poses) >= AGREEING).sum())
    check = PoseCheck(len(pairs), agreeing, median_depth=median)
    if check.good or not explain:
        return check
    best = best_hypothesis(pairs, poses)
    return replace(check, cause=best) if best.mistakes and best.agreeing >= _EXPLAINS else check


def _poses_and_cameras(source: MapSource, names: Sequence[str]) -> tuple[npt.NDArray[np.float64], dict[Camera, str]]:
    """``T_map_cam`` [V, 4, 4] of the images, nan for one without a pose; and the first image of each camera."""
    poses = np.full((len(names), 4, 4), np.nan)
    cameras: dict[Camera, str] = {}
    for i, name in enumerate(names):
        try:
            known = source.pose_and_camera(name)
        except NreError:
            continue  # reported when the image is imported
        if known is not None:
            poses[i] = known[0]
            cameras.setdefault(known[1], name)
    return poses, cameras
