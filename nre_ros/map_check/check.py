# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The check of a map: its keyframes are localized without themselves, and what that shows is stored in the map.

result = check_map("office.db", images=[named_images("office/images")])
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nre_ros.errors import MapError
from nre_ros.keyframes.importers.rebuild_source import NamedImages
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.confidence import ConfidenceModel, load_model
from nre_ros.localization.defaults import DEFAULT_MIN_CONFIDENCE
from nre_ros.localization.evidence import NUMBERS
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.map_calibration import ConfidenceCalibration, fit_confidence
from nre_ros.localization.map_noise import MapNoise
from nre_ros.localization.map_quality import Expected, MapQuality
from nre_ros.map_check.aliasing import AliasedView, find_aliased
from nre_ros.map_check.leave_one_out import MOST_VIEWS, LeftOut, LeftOutResult, localize_left_out, plan
from nre_ros.map_check.negatives import Negatives, localize_elsewhere, sort_far
from nre_ros.map_check.noise import fit_noise
from nre_ros.map_check.partial import PartialCheck
from nre_ros.map_check.suspicious import SuspiciousKeyframe, find_suspicious
from nre_ros.map_check.view_result import ViewResult

PARTIAL = ".check.partial"
"""What the name of the map's file is followed by in that of the results so far."""
_ALTERNATIVE = NUMBERS.index("alternative_score")
_DENSER_FACTOR = 0.5**0.5
_FEWEST_VIEWS = 5
"""With fewer views nothing is said about what images can expect."""


@dataclass(frozen=True)
class CheckResult:
    """What a check of a map found.

    Attributes:
        path: The map.
        frame_id: Name of the map's frame.
        names: Id -> name of all keyframes, in the order of the recording.
        poses: Id -> ``T_map_cam`` [4, 4] of all keyframes.
        views: The left-out views, with the confidence that the localizer gives them after the check.
        skipped: Views without a result, one line each.
        noise: Errors of the keyframes.
        expected: What images of the place can expect; None with too few views.
        suspicious: Keyframes that do not fit the rest.
        aliased: Views that another place explains.
        min_confidence: The confidence from which a pose counts as accepted.
        confidence: What the map changes in the general fit of the confidence.
        seconds: Duration of the check.
    """

    path: Path
    frame_id: str
    names: dict[int, str]
    poses: dict[int, npt.NDArray[np.float64]]
    views: list[LeftOutResult]
    skipped: list[str]
    noise: MapNoise
    expected: Expected | None
    suspicious: list[SuspiciousKeyframe]
    aliased: list[AliasedView]
    min_confidence: float
    confidence: ConfidenceCalibration = ConfidenceCalibration()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns what ``check.json`` has, as plain values."""
        expected = None if self.expected is None else dict(self.expected.__dict__)
        noise = self.noise.to_json()
        del noise["ids"], noise["factors"]
        factors = dict(zip(self.noise.ids.tolist(), self.noise.factors.tolist()))
        return {
            "map": str(self.path),
            "frame_id": self.frame_id,
            "keyframes": len(self.names),
            "seconds": round(self.seconds, 1),
            "min_confidence": self.min_confidence,
            "expected": expected,
            "noise": noise,
            "confidence": asdict(self.confidence),
            "suspicious": [
                {
                    "name": each.name,
                    "cause": each.cause,
                    "position": _number(each.position),
                    "rotation": _number(each.rotation),
                    "confidence": each.confidence,
                }
                for each in self.suspicious
            ],
            "aliased": [
                {"name": each.name, "twin": each.twin, "distance": each.distance, "score": each.score}
                for each in self.aliased
            ],
            "views": [
                {
                    "name": result.view.name,
                    "left_out_before_and_after": result.span,
                    "near_duplicates": result.near_duplicates,
                    "pose_found": result.view.posed,
                    "accepted": accepted(result, self.min_confidence),
                    "right": result.view.right,
                    "confidence": result.view.confidence,
                    "position_error": _number(result.view.position_error),
                    "rotation_error": _number(result.view.rotation_error),
                    "inliers": result.view.inliers,
                    "noise_factor": factors.get(result.view.keyframe, 1.0),
                    "reason": result.view.reason,
                }
                for result in self.views
            ],
            "skipped": self.skipped,
        }

    def summary(self) -> list[tuple[str, object]]:
        """Returns rows of label and value for the terminal."""
        accepted_views = sum(accepted(result, self.min_confidence) for result in self.views)
        expected, noise = self.expected, self.noise
        rows: list[tuple[str, object]] = [
            ("map", self.path),
            ("keyframes", len(self.names)),
            ("localized without themselves", f"{len(self.views)} keyframes, {accepted_views} accepted"),
            ("without an image", len(self.skipped) or None),
        ]
        if expected is None:
            rows.append(("expected", f"unknown: fewer than {_FEWEST_VIEWS} views"))
        else:
            rows.append(("expected of an image", expected.text()))
        rows.append(("errors of the keyframes' poses", noise.text()))
        rows.append(("views that two places explain", len(self.aliased) or None))
        rows.append(("suspicious keyframes", len(self.suspicious)))
        rows += [(f"  {each.name}", each.cause) for each in self.suspicious[:10]]
        if len(self.suspicious) > 10:
            rows.append(("  ...", f"{len(self.suspicious) - 10} more"))
        rows.append(("seconds", f"{self.seconds:.1f}"))
        return rows


def accepted(result: LeftOutResult, min_confidence: float) -> bool:
    """Returns whether a view gets a pose.

    Args:
        result: The view.
        min_confidence: The lowest accepted confidence.
    """
    return result.view.posed and result.view.confidence >= min_confidence


def check_map(
    path: Path | str,
    images: Sequence[NamedImages],
    most: int = MOST_VIEWS,
    device: str = "auto",
    seed: int = 0,
    min_confidence: float = DEFAULT_MIN_CONFIDENCE,
    store_result: bool = True,
    progress: bool = True,
) -> CheckResult:
    """Checks a map and stores the outcome in it.

    After an interruption the same call continues.

    Args:
        path: The map.
        images: Where its images are; the first that has an image counts.
        most: Largest number of views to localize.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: Of the consensus.
        min_confidence: The confidence from which a pose counts as accepted.
        store_result: Whether to store the outcome in the map.
        progress: Whether to show a progress bar.

    Returns:
        What was found.

    Raises:
        MapError: The map has fewer than two keyframes, cannot be written, or none of its images is at hand.
        NreError: The map or the device cannot be used.
    """
    started = time.perf_counter()
    path = Path(path)
    if store_result:  # a map that cannot be written is reported at once, not after the views
        KeyframeStore.open(path, readonly=False, cache_bytes=0).close()
    with Localizer(path, device, seed) as localizer:
        store = localizer.store
        names, poses = recording_order(store)
        if len(names) < 2:
            raise MapError(f"map {path} has {len(names)} keyframes: a check needs two at least")
        ids = np.array(list(names), dtype=np.int64)
        position = store.changes().position
        results = PartialCheck(path.with_name(path.name + PARTIAL), store.content_hash(), seed, required=store_result)
        results.read()
        results.keep_views_of(names, poses)
        results.begin()
        found, skipped = localize_views(localizer, images, ids, most, results, progress)
        if not found:
            raise MapError(f"map {path} cannot be checked: no keyframe has its image; the first: {skipped[0]}")
        elsewhere = localize_elsewhere(localizer, images, ids, found, seed, results, progress)
        result = evaluate_views(store, found, skipped, min_confidence, elsewhere)
    result = replace(result, seconds=time.perf_counter() - started)
    if store_result:
        named = tuple(each.name for each in result.suspicious)
        quality = MapQuality(len(found), len(names), position, result.noise, result.confidence, result.expected, named)
        with KeyframeStore.open(path, readonly=False, cache_bytes=0) as writer:
            writer.set_quality(quality.to_json())
    results.remove()
    return result


def evaluate_views(
    store: KeyframeStore,
    views: list[LeftOutResult],
    skipped: list[str],
    min_confidence: float,
    elsewhere: Negatives = Negatives(),
) -> CheckResult:
    """Concludes from left-out views how good a map is.

    Args:
        store: The map.
        views: Its left-out views.
        skipped: Views without a result, one line each.
        min_confidence: The confidence from which a pose counts as accepted.
        elsewhere: What images of elsewhere found in the map.
    """
    names, poses = recording_order(store)
    removed = {result.view.name for result in views if result.view.keyframe not in names}
    skipped = [*skipped, *(f"{name}: another process has removed it during the check" for name in sorted(removed))]
    views = [result for result in views if result.view.keyframe in names]
    ids = np.array(list(names), dtype=np.int64)
    metadata = store.metadata()
    ordered = all((scan.stamps != 0).all() for scan in store.scan())
    model = load_model(metadata["backbone"])
    noise = fit_noise([result.view for result in views], ids, model)
    suspicious = find_suspicious(views, noise, model, names, poses)
    if suspicious:  # their errors are not those of the rest
        bad = {each.keyframe for each in suspicious}
        noise = fit_noise([result.view for result in views if result.view.keyframe not in bad], ids, model)
        suspicious = find_suspicious(views, noise, model, names, poses)
    wrong, alike = sort_far(elsewhere.far, views, {each.keyframe for each in suspicious})
    calibration = _calibration(views, [*elsewhere.places, *evidence_of(wrong)], suspicious, model)
    views = [_calibrated(result, calibration.of_model(model)) for result in views]
    return CheckResult(
        path=store.path,
        frame_id=metadata["frame_id"],
        names=names,
        poses=poses,
        views=views,
        skipped=skipped,
        noise=noise,
        confidence=calibration,
        expected=expectation(views, min_confidence, ordered, noise, model),
        suspicious=suspicious,
        aliased=find_aliased(views, names, poses, alike),
        min_confidence=min_confidence,
    )


def evidence_of(views: Sequence[ViewResult]) -> list[npt.NDArray[np.float64]]:
    """Returns the evidence [F] of the views that have a pose.

    Args:
        views: The views.
    """
    return [view.evidence for view in views if view.evidence is not None]


def _calibrated(result: LeftOutResult, model: ConfidenceModel) -> LeftOutResult:
    """A result with the confidence of the map's own calibration, by which the localizer accepts poses after the check."""
    if result.view.evidence is None:
        return result
    return replace(result, view=replace(result.view, confidence=float(model.probability(result.view.evidence))))


def _calibration(
    views: Sequence[LeftOutResult],
    elsewhere: Sequence[npt.NDArray[np.float64]],
    suspicious: Sequence[SuspiciousKeyframe],
    model: ConfidenceModel,
) -> ConfidenceCalibration:
    """Fits the confidence to left-out views and images of elsewhere; suspicious keyframes do not count."""
    bad = {each.keyframe for each in suspicious}
    counted = [result.view for result in views if result.view.evidence is not None and result.view.keyframe not in bad]
    evidence = np.array(evidence_of(counted) + list(elsewhere))
    if not len(evidence):
        return ConfidenceCalibration()
    right = np.array([view.right for view in counted] + [False] * len(elsewhere))
    return fit_confidence(model.logit(evidence), right, model.share(evidence[:, _ALTERNATIVE]))


def expectation(
    results: Sequence[LeftOutResult], min_confidence: float, ordered: bool, noise: MapNoise, model: ConfidenceModel
) -> Expected | None:
    """Computes what images of the place can expect.

    Of images without a time, leaving one out doubles the distance to the next, which real images do not have: their
    errors are taken to grow with the square root of it. In a recording, the neighbours in time flatter a view: the views
    that were left out with these count as well. The error of a view is measured against the stored pose of its own
    keyframe, which errs itself: it is scaled to what a query without this error would have.

    Args:
        results: Left-out views.
        min_confidence: The confidence from which a pose counts as accepted.
        ordered: Whether the keyframes are a recording, with a time each.
        noise: Errors of the keyframes.
        model: Gives the covariance that the image explains.

    Returns:
        The expectation; None with too few views.
    """
    usual = [result for result in results if not result.span]
    # a view that is found without its neighbours in time is found with them, too
    of_keyframe: dict[int, list[LeftOutResult]] = {}
    for result in results:
        of_keyframe.setdefault(result.view.keyframe, []).append(result)
    if len(usual) < _FEWEST_VIEWS:
        return None
    factor = 1.0 if ordered else _DENSER_FACTOR
    views = [result.view for result in (results if ordered else usual) if result.view.right]
    scales = [_query_scale(view, noise, model) for view in views]
    position = [scale[0] * view.position_error for view, scale in zip(views, scales)]
    rotation = [scale[1] * view.rotation_error for view, scale in zip(views, scales)]
    return Expected(
        recall=float(np.mean([any(accepted(each, min_confidence) for each in own) for own in of_keyframe.values()])),
        right=float(np.mean([any(each.view.right for each in own) for own in of_keyframe.values()])),
        position=factor * float(np.median(position)) if views else 0.0,
        rotation=factor * float(np.median(rotation)) if views else 0.0,
    )


def _query_scale(view: ViewResult, noise: MapNoise, model: ConfidenceModel) -> tuple[float, float]:
    """Ratio of the expected errors of a query and of a left-out view, of position and rotation."""
    assert view.covariance is not None and view.evidence is not None and view.influence is not None
    image = noise.scale**2 * model.covariance(view.covariance, view.evidence, view.distance)
    query = np.diag(image + noise.covariance(view.influence, view.keyframes))
    own = np.concatenate([view.influence, -np.eye(6)[None]])
    left_out = np.diag(image + noise.covariance(own, (*view.keyframes, view.keyframe)))
    ratios = [float(np.sqrt(query[part].sum() / left_out[part].sum())) for part in (slice(3), slice(3, 6))]
    return ratios[0], ratios[1]


def localize_views(
    localizer: Localizer,
    images: Sequence[NamedImages],
    ids: npt.NDArray[np.int64],
    most: int = MOST_VIEWS,
    results: PartialCheck | None = None,
    progress: bool = True,
) -> tuple[list[LeftOutResult], list[str]]:
    """Localizes keyframes without themselves, and those again that find nothing without their neighbours in time.

    Args:
        localizer: The map.
        images: Where its images are.
        ids: [M] ids of the map's keyframes in the order of the recording.
        most: Largest number of views, apart from those that are localized again.
        results: Those of an interrupted run, which are not computed again; new ones are added.
        progress: Whether to show a progress bar.

    Returns:
        The results, and one line for each view whose image cannot be used.
    """
    views = plan(ids, most)
    results = PartialCheck() if results is None else results
    known = dict(results.views)
    found, skipped = list[LeftOutResult](), list[str]()
    total = len(views)
    bar = tqdm(total=total, desc="localizing keyframes", unit="keyframe", disable=not progress)
    waiting = list(views)
    with bar:
        while waiting:
            missing = [view for view in waiting if view not in known]
            fresh = localize_left_out(localizer, images, missing, ids)
            failed = []
            for view in waiting:
                result = known.get(view) or next(fresh)
                bar.update()
                if isinstance(result, str):
                    skipped.append(result)
                    continue
                if view not in known:
                    results.add_view(result)
                found.append(result)
                if view.span and not result.view.right:
                    failed.append(LeftOut(view.keyframe))
            total += len(failed)
            bar.total = total
            waiting = failed
    return found, skipped


def recording_order(store: KeyframeStore) -> tuple[dict[int, str], dict[int, npt.NDArray[np.float64]]]:
    """Reads names and poses of all keyframes in the order of the recording.

    Args:
        store: The map.

    Returns:
        Id -> name, and id -> ``T_map_cam`` [4, 4]; in the order of the stamps where all are known, else of the ids.
    """
    scans = list(store.scan())
    if not scans:
        return {}, {}
    ids = np.concatenate([scan.ids for scan in scans])
    stamps = np.concatenate([scan.stamps for scan in scans])
    poses = np.concatenate([scan.poses for scan in scans])
    texts = [name for scan in scans for name in scan.names]
    order = np.argsort(stamps, kind="stable") if (stamps != 0).all() else np.arange(len(ids))
    names = {int(ids[i]): texts[i] for i in order}
    return names, {int(ids[i]): poses[i] for i in order}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
