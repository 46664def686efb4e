# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The worst images of a run: which they are, what is known about each, and a picture of each."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.errors import NreError
from nre_ros.evaluation.inputs import EvaluationInput
from nre_ros.evaluation.metrics import QueryResults
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.geometry import Camera, pose_error
from nre_ros.localization.localizer import Localizer

_SHARE_WITHOUT_POSE = 0.5
"""Largest share of images without a pose among the images shown, if there are enough images with a pose."""
_PICTURE_WIDTH = 1100
_NEAR_METRES, _NEAR_DEGREES = 2.0, 45.0
"""A keyframe within both of the ground-truth pose probably shows the same scene."""


@dataclass(frozen=True)
class WorstQuery:
    """One of the worst images of a run.

    Attributes:
        index: Index of the image in the results.
        explanation: What is known about the image, one line each.
        picture: JPEG in base64, empty without a picture.
    """

    index: int
    explanation: tuple[str, ...]
    picture: str = ""


def worst_queries(source: EvaluationInput, options: EvaluationOptions, results: QueryResults) -> list[WorstQuery]:
    """Finds, explains and draws the worst images of a run.

    Each image is localized once more, because the records do not contain what the pictures show.

    Args:
        source: Query images.
        options: Options of the evaluation.
        results: Results of the run.

    Returns:
        At most ``options.worst`` images, the worst first.
    """
    chosen = choose_worst(results, options.worst)
    if not chosen:
        return []
    pictures: dict[str, str] = {}
    with (
        Localizer(options.map_file, options.device, options.seed, options.retrieve, 0.0, options.config) as localizer,
        tempfile.TemporaryDirectory() as folder,
    ):
        ids, poses, _ = localizer.store.global_descriptors()
        keyframes = dict(zip(ids.tolist(), poses))
        for name, image, camera in source.load_images({results.names[k] for k in chosen}):
            pictures[name] = _draw_sheet(localizer, image, camera, keyframes, Path(folder) / "sheet.png")
    return [WorstQuery(k, explain(results, k, keyframes), pictures.get(results.names[k], "")) for k in chosen]


def choose_worst(results: QueryResults, count: int) -> list[int]:
    """Chooses the worst images: wrong poses, images without an accepted pose, and the largest errors, in this order.

    Without ground truth, images without an accepted pose come first, followed by the least confident poses.

    Args:
        results: Results of a run.
        count: Number of images.

    Returns:
        Indices of at most ``count`` images.
    """
    known = results.has_ground_truth
    missed = np.flatnonzero(~results.accepted)
    if not known.any():
        rest = np.flatnonzero(results.accepted)
        rest = rest[np.argsort(results.confidence[rest], kind="stable")]
        return [*missed[:count], *rest][:count]
    missed = missed[np.argsort(~known[missed], kind="stable")]  # images with ground truth first
    evaluated = np.flatnonzero(results.evaluated)
    evaluated = evaluated[np.argsort(-results.position_errors[evaluated], kind="stable")]
    wrong = [k for k in evaluated if results.wrong[k]]
    right = [k for k in evaluated if not results.wrong[k]]
    chosen = wrong[:count]
    remaining = count - len(chosen)
    take = min(len(missed), max(min(remaining, round(_SHARE_WITHOUT_POSE * count)), remaining - len(right)))
    return [*chosen, *missed[:take], *right[: remaining - take]]


def explain(results: QueryResults, k: int, keyframes: dict[int, npt.NDArray[np.float64]]) -> tuple[str, ...]:
    """Describes an image: its error and its standard deviation, why it has no pose, its inliers, and the retrieval.

    Args:
        results: Results of a run.
        k: Index of the image.
        keyframes: Keyframe identifier to T_map_cam ``[4, 4]``.

    Returns:
        The description, one line each.
    """
    lines = []
    if results.posed[k] and results.has_ground_truth[k]:
        metres, degrees = results.position_errors[k], np.degrees(results.rotation_errors[k])
        sigma = np.sqrt(np.trace(results.covariances[k][:3, :3]))
        lines.append(
            f"The error is {100 * metres:.2f} cm and {degrees:.2f} degrees. The reported standard deviation of the "
            f"position is {100 * sigma:.2f} cm."
        )
    if results.reasons[k]:
        lines.append(f"There is no accepted pose: {results.reasons[k]}.")
    lines.append(f"The confidence is {results.confidence[k]:.2f}, with {results.points_used[k]} inliers.")
    if results.has_ground_truth[k] and keyframes:
        lines.append(_explain_retrieval(results.ground_truth[k], results.keyframe_ids[k], keyframes))
    return tuple(lines)


def _explain_retrieval(
    T_map_cam: npt.NDArray[np.float64], retrieved: Sequence[int], keyframes: dict[int, npt.NDArray[np.float64]]
) -> str:
    errors = {i: pose_error(T, T_map_cam) for i, T in keyframes.items()}
    nearest = min(errors, key=lambda i: errors[i][0] / _NEAR_METRES + np.degrees(errors[i][1]) / _NEAR_DEGREES)
    metres, degrees = errors[nearest][0], np.degrees(errors[nearest][1])
    text = f"The nearest keyframe is {metres:.2f} m and {degrees:.0f} degrees away from the ground truth."
    if metres > _NEAR_METRES or degrees > _NEAR_DEGREES:
        return f"{text} The map hardly covers this view."
    if not retrieved:
        return text
    distances = [errors[i] for i in retrieved if i in errors]
    near = sum(d < _NEAR_METRES and np.degrees(angle) < _NEAR_DEGREES for d, angle in distances)
    if not near:
        return f"{text} None of the {len(retrieved)} retrieved keyframes is near: the retrieval failed."
    return f"{text} Near it are {near} of the {len(retrieved)} retrieved keyframes."


def _draw_sheet(
    localizer: Localizer,
    image: npt.NDArray[np.uint8],
    camera: Camera,
    keyframes: dict[int, npt.NDArray[np.float64]],
    path: Path,
) -> str:
    """JPEG in base64 of the sheet about one image, empty if the image cannot be localized."""
    from nre_ros.pictures.sheet import write_sheet

    try:
        write_sheet(path, image, localizer.localize(image, camera), keyframes)
    except NreError:
        return ""
    sheet = cv2.imread(str(path))
    if sheet is None:
        return ""
    height = round(sheet.shape[0] * _PICTURE_WIDTH / sheet.shape[1])
    sheet = cv2.resize(sheet, (_PICTURE_WIDTH, height), interpolation=cv2.INTER_AREA)
    return base64.b64encode(cv2.imencode(".jpg", sheet, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes()).decode()
