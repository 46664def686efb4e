# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole replay: plays a bag to the node, computes the numbers, draws the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from nre_ros.replay.bag import BagTopics, read_cameras, read_ground_truth, read_images
from nre_ros.replay.session import Session, run_session
from nre_ros.replay.summary import ReplaySummary, summarize


@dataclass(frozen=True)
class ReplayResult:
    """What a replay leaves.

    Attributes:
        summary: The numbers.
        picture: The picture that was written (PNG).
        animation: The animated picture that was written (GIF), None if there is none.
    """

    summary: ReplaySummary
    picture: Path
    animation: Path | None = None


def replay_bag(
    map_file: Path,
    bag: Path,
    topics: BagTopics,
    output: Path,
    rate: float = 1.0,
    parameters: Mapping[str, str] | None = None,
    animate: bool = False,
) -> ReplayResult:
    """Plays a bag to the node, compares its poses with the ground truth and draws them.

    Args:
        map_file: Map to localize in.
        bag: Bag to play.
        topics: Topics of the bag, from ``find_topics``.
        output: Folder for logs, records and pictures.
        rate: Speed, as a multiple of real time.
        parameters: Parameters of the node, name -> value.
        animate: Whether to write an animated picture as well. It localizes all its images once more.

    Returns:
        The numbers and the pictures.

    Raises:
        NreError: One of the processes failed.
    """
    session = run_session(map_file, bag, topics, output, rate, parameters)
    ground_truth = read_ground_truth(bag, topics.ground_truth) if topics.ground_truth else {}
    picture = output / "replay.png"
    _draw_picture(picture, session, ground_truth, map_file, bag, topics)
    animation = output / "replay.gif" if animate else None
    if animation is not None and not _draw_animation(animation, session, ground_truth, map_file, bag, topics):
        animation = None
    return ReplayResult(summarize(session, ground_truth), picture, animation)


def _draw_picture(
    path: Path,
    session: Session,
    ground_truth: Mapping[int, npt.NDArray[np.float64]],
    map_file: Path,
    bag: Path,
    topics: BagTopics,
) -> None:
    """Draws the trajectory, and the localized image with the median number of used points."""
    from nre_ros.localization.localizer import Localizer
    from nre_ros.pictures.query import draw_query
    from nre_ros.replay.picture import write_picture

    localized = sorted((s for s in session.statuses if s["success"]), key=lambda s: float(s["points_used"]))
    query = None
    with Localizer(map_file) as localizer:
        _, keyframes, _ = localizer.store.global_descriptors()
        if localized:
            cameras = read_cameras(bag, topics.camera_info)
            for stamp, image in read_images(bag, topics.image, {localized[len(localized) // 2]["stamp"]}):
                query = draw_query(image, localizer.localize(image, cameras.at(stamp, stamp)))
    write_picture(path, session, ground_truth, keyframes, query)


def _draw_animation(
    path: Path,
    session: Session,
    ground_truth: Mapping[int, npt.NDArray[np.float64]],
    map_file: Path,
    bag: Path,
    topics: BagTopics,
) -> bool:
    """Draws the animated picture; returns False, and writes nothing, if no image was localized."""
    from nre_ros.localization.localizer import Localizer
    from nre_ros.pictures.query import draw_points
    from nre_ros.replay.animation import POINT_RADIUS, Frame, write_animation

    poses = {status["stamp"]: status for status in session.statuses if status["success"]}
    if not poses:
        return False
    cameras = read_cameras(bag, topics.camera_info)
    frames = []
    with Localizer(map_file) as localizer:
        _, keyframes, _ = localizer.store.global_descriptors()
        for stamp, image in read_images(bag, topics.image, poses):
            result = localizer.localize(image, cameras.at(stamp, stamp))
            denoised = np.asarray(cv2.medianBlur(image, 3), dtype=np.uint8)
            frames.append(Frame(stamp, draw_points(denoised, result, POINT_RADIUS), poses[stamp]))
    write_animation(path, frames, ground_truth, keyframes)
    return True
