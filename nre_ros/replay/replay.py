# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole replay: session, figures, picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nre_ros.replay.bag import BagTopics, read_image, read_truth
from nre_ros.replay.report import ReplayFigures, figures, print_table
from nre_ros.replay.session import Session, run_session


def replay(
    map_file: Path,
    bag: Path,
    topics: BagTopics,
    output: Path,
    rate: float = 1.0,
    parameters: dict[str, str] | None = None,
) -> ReplayFigures:
    """Plays a bag to the node, prints the table and writes ``replay.png`` into ``output``."""
    session = run_session(map_file, bag, topics, output, rate, parameters)
    truth = read_truth(bag, topics.truth) if topics.truth else {}
    result = figures(session, truth)
    print_table(result.rows())
    picture = output / "replay.png"
    _draw(picture, session, truth, map_file, bag, topics)
    print(f"  {'picture':<18}  {picture}")
    return result


def _draw(path: Path, session: Session, truth, map_file: Path, bag: Path, topics: BagTopics) -> None:
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.replay.picture import write_picture

    with KeyframeStore.open(map_file) as store:
        _, keyframes, _ = store.global_descriptors()
    write_picture(path, session, truth, keyframes, _typical_query(session, map_file, bag, topics.image))


def _typical_query(session: Session, map_file: Path, bag: Path, topic: str) -> np.ndarray | None:
    """The posed image of median support, localized once more for its points."""
    from nre_ros.localization.localizer import Localizer
    from nre_ros.pictures.query import draw_query

    posed = sorted((status for status in session.statuses if status["success"]), key=lambda s: s["points_used"])
    if not posed or session.camera is None:
        return None
    image = read_image(bag, topic, posed[len(posed) // 2]["stamp"])
    if image is None:
        return None
    with Localizer(map_file) as localizer:
        return draw_query(image, localizer.localize(image, session.camera))
