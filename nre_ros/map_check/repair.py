# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Better poses of a map's keyframes, from the views that were localized without them.

The error of a left-out view is, to first order, a linear function of the errors of the keyframes (``map_check/noise.py``):
e = A xi + epsilon. With the fitted errors as the prior, the most probable xi is that of linear Gaussian estimation (Kalman's
gain; in geostatistics kriging), the linear form of a pose graph:

    xi = S A' (A S A' + R)^-1 e

Views that contradict the rest get less weight. Every keyframe is moved back by its xi, together with its points, so that
the scale of what it sees stays. The mean motion of all keyframes is zero, so that the frame and its vertical stay.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.transform import Rotation

from nre_ros.errors import MapError
from nre_ros.geometry import pose_error
from nre_ros.keyframes.importers.rebuild_source import NamedImages
from nre_ros.keyframes.storage.map_file import check_replaceable
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.confidence import ConfidenceModel, load_model
from nre_ros.localization.map_noise import MapNoise, mixed_correlation
from nre_ros.map_check.check import CheckResult, check_map
from nre_ros.map_check.leave_one_out import MOST_VIEWS
from nre_ros.map_check.view_result import ViewResult

_DEGREES_OF_FREEDOM = 6.0
"""Of the Student-t distribution by which contradicting views lose weight."""
_REWEIGHTINGS = 5
_BEST = "best.db"
"""Name of the best map so far."""
_LEAST_GAIN = 0.03
"""The median error of the left-out views must become smaller by this share, or the poses stay."""


@dataclass(frozen=True)
class RepairResult:
    """What a repair achieved.

    Attributes:
        before: The check of the map as it was.
        after: The check with moved keyframes.
        kept: Whether the moved keyframes are better.
        rounds: Number of rounds that made the map better.
        largest: Largest motion of a keyframe, metres and radians.
    """

    before: CheckResult
    after: CheckResult
    kept: bool
    rounds: int
    largest: tuple[float, float]

    def rows(self) -> list[tuple[str, object]]:
        """Returns rows of label and value for the terminal."""
        if not self.kept:
            return [("repair", "no better poses found: the new map is a copy")]
        before, after = (_median_error(check) for check in (self.before, self.after))
        return [
            (
                "repair",
                f"keyframes moved by up to {100 * self.largest[0]:.2g} cm, {np.degrees(self.largest[1]):.2g} degrees",
            ),
            ("median error of left-out views", f"{100 * before:.2g} cm before, {100 * after:.2g} cm after"),
        ]


def pose_errors(views: Sequence[ViewResult], noise: MapNoise, model: ConfidenceModel) -> npt.NDArray[np.float64]:
    """Estimates the errors of a map's keyframes.

    Args:
        views: Left-out views with a pose.
        noise: The fitted errors of the map, which name its keyframes.
        model: Gives the covariance that the image explains.

    Returns:
        [M, 6] errors of position (metres) and rotation vector (radians) in the map's axes, in the order of ``noise.ids``.
    """
    count = len(noise.ids)
    if noise.position <= 0 and noise.rotation <= 0:
        return np.zeros((count, 6))
    place = {int(keyframe): i for i, keyframe in enumerate(noise.ids)}
    # keyframes that another process added during the check have no place
    views = [view for view in views if place.keys() >= {view.keyframe, *view.keyframes}]
    if not views:
        return np.zeros((count, 6))
    A = np.zeros((len(views), 6, count, 6))
    for row, view in zip(A, views):
        assert view.influence is not None
        for keyframe, influence in zip(view.keyframes, view.influence):
            row[:, place[keyframe]] += influence
        row[:, place[view.keyframe]] -= np.eye(6)
    order = np.arange(count, dtype=np.float64)
    rho = mixed_correlation(order, noise.drift, noise.length, noise.power) * noise.factors[:, None] * noise.factors
    variances = np.repeat([noise.position, noise.rotation], 3) ** 2
    spread = np.einsum("ab,vibj->viaj", rho, A) * variances  # A S
    errors = np.concatenate([view.error() for view in views])
    flat = A.reshape(6 * len(views), -1)
    explained = spread.reshape(6 * len(views), -1) @ flat.T
    image = [noise.scale**2 * model.covariance(*_evidence(view)) for view in views]
    weights = np.ones(len(views))
    gain = np.zeros(6 * len(views))
    for _ in range(_REWEIGHTINGS):
        total = explained.copy()
        for i, covariance in enumerate(image):
            total[6 * i : 6 * i + 6, 6 * i : 6 * i + 6] += covariance / weights[i]
        gain = cho_solve(cho_factor(total), errors)
        residuals = (errors - explained @ gain).reshape(-1, 6)
        squared = np.array([r @ np.linalg.solve(covariance, r) for r, covariance in zip(residuals, image)])
        weights = (_DEGREES_OF_FREEDOM + 6) / (_DEGREES_OF_FREEDOM + squared)
    xi = (spread.reshape(6 * len(views), -1).T @ gain).reshape(count, 6)
    found: npt.NDArray[np.float64] = xi - xi.mean(0)
    return found


def moved_back(T_map_cam: npt.NDArray[np.float64], xi: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Removes an error from a pose.

    Args:
        T_map_cam: [4, 4] pose with the error.
        xi: [6] error of its position and rotation vector, in the map's axes.
    """
    T = T_map_cam.copy()
    T[:3, :3] = Rotation.from_rotvec(-xi[3:]).as_matrix() @ T[:3, :3]
    T[:3, 3] -= xi[:3]
    return T


def repair_map(
    before: CheckResult,
    images: Sequence[NamedImages],
    target: Path | str,
    rounds: int = 2,
    device: str = "auto",
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
    most: int = MOST_VIEWS,
) -> RepairResult:
    """Writes a copy of a map with better poses, as far as the left-out views agree that they are better.

    Args:
        before: The check of the map.
        images: Where the map's images are.
        target: The map to write. Without a gain it is the map as it was.
        rounds: Largest number of times that poses are estimated and checked again.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: Of the consensus.
        force: Whether to replace an existing map.
        progress: Whether to show progress bars.
        most: Largest number of views, that of the check: both checks then localize the same views.

    Returns:
        What was achieved.

    Raises:
        MapError: The target exists and ``force`` is not set, is the map itself, or cannot be written.
    """
    target = Path(target)
    check_target(before.path, target, force)
    try:
        with TemporaryDirectory(prefix=target.name + ".", dir=target.parent) as folder:
            best, done = _repaired(before, images, Path(folder), rounds, device, seed, progress, most)
            with KeyframeStore.open(Path(folder) / _BEST, cache_bytes=0) as store:
                store.save_copy(target, overwrite=force)
    except OSError as error:
        raise MapError(f"map {target} cannot be written: {error.strerror}") from error
    after = replace(best, path=target) if done else best
    return RepairResult(before, after, done > 0, done, _largest_motion(before, after))


def check_target(path: Path | str, target: Path | str, force: bool) -> None:
    """Checks that a repaired map may be written.

    Args:
        path: The map to repair.
        target: The map to write.
        force: Whether to replace an existing map.

    Raises:
        MapError: The target exists and ``force`` is not set, is the map itself, or is no map.
    """
    path, target = Path(path), Path(target)
    if target.resolve() == path.resolve() or (target.exists() and path.exists() and target.samefile(path)):
        raise MapError(f"map {target} cannot be repaired in place: name another file")
    check_replaceable(target)
    if target.exists() and not force:
        raise MapError(f"map {target} exists already, it is not overwritten")
    if not target.parent.is_dir():
        raise MapError(f"map {target} cannot be written: there is no folder {target.parent}")


def _repaired(
    before: CheckResult,
    images: Sequence[NamedImages],
    folder: Path,
    rounds: int,
    device: str,
    seed: int,
    progress: bool,
    most: int,
) -> tuple[CheckResult, int]:
    """Writes the best map to a folder; returns its check and the number of rounds that made it better."""
    best, done = before, 0
    target, partial = folder / _BEST, folder / "next.db"
    with KeyframeStore.open(before.path, cache_bytes=0) as store:
        store.save_copy(target)  # whatever another process is writing meanwhile
    for _ in range(rounds):
        shutil.copyfile(target, partial)
        with KeyframeStore.open(partial, readonly=False, cache_bytes=0) as store:
            model = load_model(store.metadata()["backbone"])
            bad = {each.keyframe for each in best.suspicious}
            views = [result.view for result in best.views if result.view.right and result.view.keyframe not in bad]
            errors = pose_errors(views, best.noise, model)
            with store.batch():
                for keyframe, xi in zip(best.noise.ids.tolist(), errors):
                    store.update_pose(keyframe, moved_back(best.poses[keyframe], xi))
        after = check_map(
            partial,
            images,
            most,
            device,
            seed,
            before.min_confidence,
            progress=progress,
        )
        if not _is_better(best, after):
            break
        partial.replace(target)
        best, done = after, done + 1
    return best, done


def _largest_motion(before: CheckResult, after: CheckResult) -> tuple[float, float]:
    """Metres and radians by which the keyframe that moved most has moved, over all rounds."""
    motions = [pose_error(T, before.poses[keyframe]) for keyframe, T in after.poses.items()]
    return max(motion[0] for motion in motions), max(motion[1] for motion in motions)


def _median_error(check: CheckResult) -> float:
    return float(np.median([result.view.position_error for result in check.views if result.view.right] or [np.nan]))


def _is_better(before: CheckResult, after: CheckResult) -> bool:
    """Whether the same views have smaller errors, and not fewer of them are right."""
    earlier = {(result.view.keyframe, result.span): result.view for result in before.views}
    pairs = [
        (earlier[key], result.view) for result in after.views if (key := (result.view.keyframe, result.span)) in earlier
    ]
    if not pairs or sum(new.right for _, new in pairs) < sum(old.right for old, _ in pairs):
        return False
    both = [(old, new) for old, new in pairs if old.right and new.right]
    if not both:
        return False
    for error in ("position_error", "rotation_error"):
        old, new = (np.median([getattr(view, error) for view in side]) for side in zip(*both))
        if new > (1 - _LEAST_GAIN) * old:
            return False
    return True


def _evidence(view: ViewResult) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    assert view.covariance is not None and view.evidence is not None
    return view.covariance, view.evidence, view.distance
