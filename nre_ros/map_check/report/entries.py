# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The entries of the report that show keyframes: weak spots, places that look alike, suspicious keyframes."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import MapError
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.thumbnail import decode_thumbnail
from nre_ros.map_check.aliasing import AliasedView
from nre_ros.map_check.check import CheckResult
from nre_ros.map_check.report.areas import angle_text, length_text
from nre_ros.map_check.report.outcomes import Outcome, nearest_keyframe
from nre_ros.map_check.report.weak_spots import WeakSpot, explain
from nre_ros.map_check.suspicious import SuspiciousKeyframe
from nre_ros.pictures import page

MOST_WEAK, MOST_ALIKE, MOST_SUSPICIOUS = 10, 6, 20
"""Largest numbers of entries with pictures."""
_MOST_NAMES = 5


class Thumbnails:
    """Thumbnails of a map's keyframes for an HTML page.

    Args:
        store: The map.
    """

    def __init__(self, store: KeyframeStore) -> None:
        self._store = store

    def of(self, keyframe: int) -> str:
        """Returns a thumbnail in base64; empty if there is none, or if it is no picture.

        Args:
            keyframe: Id of the keyframe.
        """
        try:
            jpeg = self._store.thumbnail(keyframe)
        except MapError:
            return ""
        return "" if decode_thumbnail(jpeg) is None else base64.b64encode(jpeg).decode()


def weak_entries(result: CheckResult, spots: Sequence[WeakSpot], thumbnails: Thumbnails) -> list[str]:
    """Creates the entries of the weak spots, with the reasons.

    Args:
        result: The check.
        spots: Its weak spots.
        thumbnails: Pictures of the keyframes.

    Returns:
        HTML elements, at most ``MOST_WEAK``.
    """
    entries = []
    for number, spot in enumerate(spots[:MOST_WEAK], start=1):
        view = spot.views[0].result.view
        lines = explain(spot.views[0], result.min_confidence)
        if len(spot.views) > 1:
            others = _names(each.result.view.name for each in spot.views[1:])
            lines.append(f"The same holds for {len(spot.views) - 1} more here: {others}.")
        pictures = [(view.name, thumbnails.of(view.keyframe))]
        if spot.views[0].outcome is Outcome.WRONG and view.estimated is not None:
            pictures += _nearest(result, view.estimated, {view.keyframe}, "nearest to the estimated pose", thumbnails)
        entries.append(
            page.entry(f"{number}. {view.name}: area {spot.area}, looking {spot.direction}", lines, pictures)
        )
    return entries


def alike_entries(result: CheckResult, thumbnails: Thumbnails) -> list[str]:
    """Creates the entries of places that look alike, each pair of keyframes once.

    Args:
        result: The check.
        thumbnails: Pictures of the keyframes.

    Returns:
        HTML elements, at most ``MOST_ALIKE``.
    """
    ids = {name: keyframe for keyframe, name in result.names.items()}
    pairs: dict[frozenset[str], AliasedView] = {}
    for each in result.aliased:
        pairs.setdefault(frozenset((each.name, each.twin)), each)
    entries = []
    for each in list(pairs.values())[:MOST_ALIKE]:
        better = "better than" if each.score > 1 else f"{each.score:.0%} as well as"
        lines = [
            f"A pose {length_text(each.distance)} away explains the image {better} its own. The keyframe nearest to that "
            f"pose is {each.twin}."
        ]
        pictures = [(name, thumbnails.of(ids.get(name, -1))) for name in dict.fromkeys((each.name, each.twin))]
        entries.append(page.entry(f"{each.name} and {each.twin}", lines, pictures))
    return entries


def suspicious_entries(result: CheckResult, thumbnails: Thumbnails) -> list[str]:
    """Creates the entries of the suspicious keyframes: cause, evidence, and the command that removes the keyframe.

    Args:
        result: The check.
        thumbnails: Pictures of the keyframes.

    Returns:
        HTML elements, at most ``MOST_SUSPICIOUS``.
    """
    suspicious = {each.keyframe for each in result.suspicious}
    entries = []
    for number, each in enumerate(result.suspicious[:MOST_SUSPICIOUS], start=1):
        pictures = [(f"{each.name}: its image", thumbnails.of(each.keyframe))]
        pictures += _comparison(result, each, suspicious, thumbnails)
        command = removal(result.path, [each.name])
        entries.append(page.entry(f"S{number}. {each.name}: {each.cause}", [_evidence(each)], pictures, command))
    return entries


def removal(path: Path, names: Iterable[str]) -> str:
    """Returns the command that removes keyframes from a map.

    Args:
        path: The map.
        names: Names of the keyframes.
    """
    return shlex.join(["nre_ros", "map", "prune", str(path), *(f"--remove={name}" for name in names)])


def _evidence(each: SuspiciousKeyframe) -> str:
    if each.found is None:
        return "Its own image is localized, but images near it find none of its points."
    return (
        f"Without itself, its image is localized {length_text(each.position)} and {angle_text(each.rotation)} from the pose "
        f"that the map has for it, with confidence {each.confidence:.2f}."
    )


def _comparison(
    result: CheckResult, each: SuspiciousKeyframe, exclude: set[int], thumbnails: Thumbnails
) -> list[tuple[str, str]]:
    """What other keyframes see from the pose that the image shows and from the pose in the map."""
    shown, stored = each.found, result.poses.get(each.keyframe)
    if shown is None or stored is None:
        return []
    if nearest_keyframe(result, shown, exclude) == nearest_keyframe(result, stored, exclude):
        return _nearest(result, stored, exclude, "nearest to both poses", thumbnails)
    return [
        *_nearest(result, shown, exclude, "nearest to the pose that its image shows", thumbnails),
        *_nearest(result, stored, exclude, "nearest to its pose in the map", thumbnails),
    ]


def _nearest(
    result: CheckResult, T_map_cam: npt.NDArray[np.float64], exclude: set[int], caption: str, thumbnails: Thumbnails
) -> list[tuple[str, str]]:
    found = nearest_keyframe(result, T_map_cam, exclude)
    return [] if found is None else [(f"{result.names[found]}: {caption}", thumbnails.of(found))]


def _names(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(known[:_MOST_NAMES]) + (", ..." if len(known) > _MOST_NAMES else "")
