# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Plays the bag over DDS to the real node (``nre_ros.replay``) instead of reading the bag from its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nre_ros.evaluation.bag_input import BagInput
from nre_ros.evaluation.options import EvaluationOptions
from nre_ros.evaluation.output_folder import RECORDS
from nre_ros.evaluation.records import RecordFile
from nre_ros.messages.stamps import seconds_text
from nre_ros.replay.bag import BagTopics
from nre_ros.replay.session import read_session, run_session

_SESSION = "session"


def node_parameters(options: EvaluationOptions) -> dict[str, str]:
    """Returns the parameters of the node in a session.

    Args:
        options: Options of the evaluation. ``options.parameters`` override the other options.

    Returns:
        Parameter name to value.
    """
    return {
        "seed": str(options.seed),
        "retrieve": str(options.retrieve),
        "device": options.device,
        "min_confidence": str(float(options.min_confidence)),
        **options.parameters,
        "use_prior": "false",  # each image is localized independently, as without the node
    }


def record_session(source: BagInput, options: EvaluationOptions) -> None:
    """Plays the bag to the node and records the result of each image that the node processed.

    A session cannot be continued: the records of a complete session are kept, an incomplete session is repeated.

    Args:
        source: Bag to play.
        options: Options of the evaluation.

    Raises:
        NreError: The player, the node or the listener failed.
    """
    folder, path = options.output / _SESSION, options.output / RECORDS
    done = folder / "done"
    if done.exists() and path.exists():
        return
    done.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    topics = BagTopics(source.image, source.compressed, source.camera_info, "", source.images)
    parameters = node_parameters(options)
    session = run_session(options.map_file, source.path, topics, folder, options.rate, parameters, options.progress)
    with RecordFile(path) as records:
        for status in session.statuses:
            if seconds_text(status["stamp"]) not in records.done:
                records.write(_record(status))
    done.write_text(f"{len(session.sent)} images sent\n", encoding="utf-8")


def count_sent_images(output: Path) -> int:
    """Counts the images that the player sent in a session.

    Args:
        output: Output folder of the evaluation.

    Returns:
        Number of images.
    """
    return len(read_session(output / _SESSION).sent)


def _record(status: dict[str, Any]) -> dict[str, Any]:
    covariance = status["covariance"]
    return {
        "image": seconds_text(status["stamp"]),
        "stamp": status["stamp"],
        "success": status["success"],
        "position": status["position"],
        "quaternion": status["quaternion"],
        "covariance": [covariance[6 * i : 6 * i + 6] for i in range(6)] if status["success"] else None,
        "confidence": status["confidence"],
        "reason": status["reason"],
        "points_used": status["points_used"],
        "keyframes": [],
        "milliseconds": status["milliseconds"],
    }
