# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The bag through DDS to the real node (``nre_ros.replay``) instead of read from the file."""

from __future__ import annotations

from pathlib import Path

from nre_ros.evaluation.bag_input import BagInput
from nre_ros.evaluation.records import RecordFile
from nre_ros.messages.stamps import seconds_text
from nre_ros.replay.bag import BagTopics
from nre_ros.replay.session import read_session, run_session

SESSION = "session"


def node_parameters(options) -> dict[str, str]:
    """The node's parameters in a session: those of the ``Options``, and over them ``Options.parameters``."""
    return {
        "seed": str(options.seed),
        "retrieve": str(options.retrieve),
        "device": options.device,
        "min_confidence": str(float(options.min_confidence)),
        **options.parameters,
        "use_prior": "false",  # the pose of an image by itself, as it is found without the node
    }


def record_session(
    source: BagInput,
    map_file: Path,
    folder: Path,
    path: Path,
    rate: float,
    parameters: dict[str, str],
    progress: bool = True,
) -> None:
    """Plays the bag at ``rate`` times real time and writes a record of each image that the node took.

    A session cannot be continued, only repeated: records of a whole one are kept, others replaced.
    """
    done = folder / SESSION / "done"
    if done.exists() and path.exists():
        return
    done.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    topics = BagTopics(source.image, source.compressed, source.camera_info, "", source.images)
    run_session(map_file, source.path, topics, folder / SESSION, rate, parameters, progress)
    session = read_session(folder / SESSION)
    with RecordFile(path) as records:
        for status in session.statuses:
            if seconds_text(status["stamp"]) not in records.done:
                records.write(_record(status))
    done.write_text(f"{len(session.sent)} images sent\n", encoding="utf-8")


def images_sent(folder: Path) -> int:
    """How many images the player sent in the session of this folder."""
    return len(read_session(folder / SESSION).sent)


def _record(status: dict) -> dict:
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
