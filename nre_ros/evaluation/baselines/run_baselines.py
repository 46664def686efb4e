# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Peers on the images of an evaluation, each given the keyframes that the project retrieved for the same image."""

from __future__ import annotations

import sys

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.baselines import make_peer
from nre_ros.evaluation.baselines.keyframes import MapImages
from nre_ros.evaluation.baselines.keypoints import PeerMissing
from nre_ros.evaluation.baselines.localizer import FEWEST_INLIERS, PeerLocalizer
from nre_ros.evaluation.metrics.outcomes import Outcomes, collect
from nre_ros.evaluation.recording import RECORDS, localize_all
from nre_ros.evaluation.records import read_records
from nre_ros.features import choose_device
from nre_ros.geometry import position_quaternion
from nre_ros.localization.result import LocalizationResult


def run_peers(source, options, truth_of, images: MapImages) -> dict[str, Outcomes]:
    """Label of each peer of ``options.peers`` -> its outcomes; records are kept beside ours, and gone on with.

    A pose is accepted with at least ``FEWEST_INLIERS``; peers tell no confidence.  Peers that are not installed are
    told on stderr and left out.  Raises ``EvaluationError`` when our records do not say which keyframes were retrieved.
    """
    retrieved = {record["image"]: record["keyframes"] for record in read_records(options.output / RECORDS)}
    if not any(retrieved.values()):
        raise EvaluationError("no record says which keyframes were retrieved, which peers are given")
    outcomes = {}
    for name in options.peers:
        try:
            peer = make_peer(name, str(choose_device(options.device)))
            localizer = PeerLocalizer(peer, images.image, images.lifter(peer), options.seed)
        except PeerMissing as missing:
            print(f"note: {name} is left out: {missing} (requirements/baselines.txt)", file=sys.stderr)
            continue
        path = options.output / f"{name}.jsonl"
        localize_all(
            _with_peer(localizer, images, retrieved), source.queries(), path, len(source), name, options.progress
        )
        outcomes[peer.label] = collect(read_records(path), truth_of, 0.0, options.wrong_beyond)
    return outcomes


def _with_peer(localizer: PeerLocalizer, images: MapImages, retrieved: dict[str, list[int]]):
    def localize(query) -> dict:
        ids = retrieved.get(query.name, [])
        try:
            image, camera = query.load()
            found = localizer.localize(image, camera, [images.names[i] for i in ids])
        except NreError as error:
            return LocalizationResult(reason=str(error)).to_json()
        posed = found.T_map_cam is not None
        position, quaternion = position_quaternion(found.T_map_cam) if posed else (None, None)
        good = posed and found.inliers >= FEWEST_INLIERS
        return {
            "success": posed,
            "position": position.tolist() if posed else None,
            "quaternion": quaternion.tolist() if posed else None,
            "covariance": None,
            "confidence": None,
            "accepted": good,
            "reason": "" if good else f"{found.inliers} inliers of {found.matches} matches",
            "points_used": found.inliers,
            "keyframes": list(ids),
            "milliseconds": found.milliseconds,
        }

    return localize
