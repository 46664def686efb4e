# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The worst images of a run, what went wrong with each in words, and a sheet about it."""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from nre_ros.errors import NreError
from nre_ros.evaluation.metrics.outcomes import Outcomes
from nre_ros.geometry import pose_error
from nre_ros.localization.localizer import Localizer

_MISSED = 0.5
"""Of those shown, so many may be images without a pose, as long as there are poses to show."""
_WIDTH = 1100
_NEAR_METRES, _NEAR_DEGREES = 2.0, 45.0
"""A keyframe within both of the truth probably shows the same scene."""


@dataclass(frozen=True)
class Worst:
    """index: of the image in the run; why: a line each; picture: JPEG in base64, or empty."""

    index: int
    why: tuple[str, ...]
    picture: str = ""


def choose(outcomes: Outcomes, count: int) -> list[int]:
    """Indices of the worst images: wrong poses first, then images without one and the largest errors.

    Without truth: no pose first, then the least confidence.
    """
    missed = np.flatnonzero(~outcomes.accepted)
    if not outcomes.known.any():
        rest = np.flatnonzero(outcomes.accepted)
        rest = rest[np.argsort(outcomes.confidence[rest], kind="stable")]
        return [*missed[:count], *rest][:count]
    missed = missed[np.argsort(~outcomes.known[missed], kind="stable")]  # those with truth first
    judged = np.flatnonzero(outcomes.accepted & outcomes.known)
    judged = judged[np.argsort(-outcomes.position_errors[judged], kind="stable")]
    wrong = [k for k in judged if outcomes.wrong[k]]
    right = [k for k in judged if not outcomes.wrong[k]]
    chosen = wrong[:count]
    room = count - len(chosen)
    take = min(len(missed), max(min(room, round(_MISSED * count)), room - len(right)))
    return [*chosen, *missed[:take], *right[: room - take]]


def explain(outcomes: Outcomes, k: int, keyframes: dict[int, np.ndarray]) -> tuple[str, ...]:
    """What is known about the image: its error and the covariance's view of it, support, and what retrieval found."""
    lines = []
    if outcomes.posed[k] and outcomes.known[k]:
        metres, degrees = outcomes.position_errors[k], np.degrees(outcomes.rotation_errors[k])
        sigma = np.sqrt(np.trace(outcomes.covariances[k][:3, :3]))
        lines.append(f"{100 * metres:.2f} cm and {degrees:.2f} degrees off; by its covariance {100 * sigma:.2f} cm")
    if outcomes.reasons[k]:
        lines.append(f"no accepted pose: {outcomes.reasons[k]}")
    lines.append(f"confidence {outcomes.confidence[k]:.2f}, {outcomes.points_used[k]} points agree")
    if outcomes.known[k] and keyframes:
        lines.append(_about_retrieval(outcomes.truth[k], outcomes.keyframes[k], keyframes))
    return tuple(lines)


def _about_retrieval(truth: np.ndarray, retrieved: tuple[int, ...], keyframes: dict[int, np.ndarray]) -> str:
    away = {i: pose_error(T, truth) for i, T in keyframes.items()}
    nearest = min(away, key=lambda i: away[i][0] / _NEAR_METRES + np.degrees(away[i][1]) / _NEAR_DEGREES)
    metres, degrees = away[nearest][0], np.degrees(away[nearest][1])
    words = f"the map's nearest keyframe is {metres:.2f} m and {degrees:.0f} degrees away"
    if metres > _NEAR_METRES or degrees > _NEAR_DEGREES:
        return f"{words}: the map hardly shows this view"
    if retrieved:
        there = [away[i] for i in retrieved if i in away]
        near = [d for d, angle in there if d < _NEAR_METRES and np.degrees(angle) < _NEAR_DEGREES]
        if not near:
            return f"{words}, but none of the {len(retrieved)} that were retrieved is near: retrieval went wrong"
        return f"{words}; {len(near)} of the {len(retrieved)} retrieved are near"
    return words


def worst_queries(source, options, outcomes: Outcomes) -> list[Worst]:
    """The worst images with sheets; each is localized once more for what the records do not keep."""
    chosen = choose(outcomes, options.worst)
    if not chosen:
        return []
    pictures: dict[str, str] = {}
    with (
        Localizer(options.map_file, options.device, options.seed, options.retrieve, 0.0, options.config) as localizer,
        tempfile.TemporaryDirectory() as folder,
    ):
        ids, poses, _ = localizer.store.global_descriptors()
        keyframes = dict(zip(ids.tolist(), poses))
        for name, image, camera in source.find({outcomes.names[k] for k in chosen}):
            pictures[name] = _sheet(localizer, image, camera, keyframes, Path(folder) / "sheet.png")
    return [Worst(k, explain(outcomes, k, keyframes), pictures.get(outcomes.names[k], "")) for k in chosen]


def _sheet(localizer: Localizer, image, camera, keyframes, path: Path) -> str:
    from nre_ros.pictures.sheet import write_sheet

    try:
        write_sheet(path, image, localizer.localize(image, camera), keyframes)
    except NreError:
        return ""
    sheet = cv2.imread(str(path))
    height = round(sheet.shape[0] * _WIDTH / sheet.shape[1])
    sheet = cv2.resize(sheet, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    return base64.b64encode(cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]).decode()
