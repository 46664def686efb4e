# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What became of the images of an import."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from nre_ros.keyframes.building.builder import WITHOUT_SUPPORT

MAX_WITHOUT_SUPPORT = 0.3
"""Largest share of points without support by another view in a good map."""
_ENOUGH_KEYFRAMES = 5


@dataclass
class ImportReport:
    """What an import did.

    Attributes:
        path: The map file.
        keyframes: Number of keyframes in the map.
        points: Number of points in the map.
        resumed: Keyframes that an interrupted import had made before.
        file_bytes: Size of the map file.
        seconds: Duration of this run.
        skipped: Name of an image that was left out -> the reason.
        near_duplicates: Name of an image that was left out -> the keyframe that it repeats.
        repeated: Number of names that the source has more than once; each is imported once.
        points_of_run: Number of points of the keyframes of this run.
        tally: Points of this run's keyframes that lack something (``KeyframeBuilder.tally``).
    """

    path: Path
    keyframes: int = 0
    points: int = 0
    resumed: int = 0
    file_bytes: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    near_duplicates: dict[str, str] = field(default_factory=dict)
    repeated: int = 0
    points_of_run: int = 0
    tally: Counter[str] = field(default_factory=Counter)

    def support_warning(self) -> str:
        """Returns one line if more points than in good maps lack the support of another view; empty otherwise.

        A keyframe whose neighbours were not imported lacks support in a good map too: fewer than
        ``_ENOUGH_KEYFRAMES`` prove nothing.
        """
        made = self.keyframes - self.resumed
        share = self.tally[WITHOUT_SUPPORT] / max(self.points_of_run, 1)
        if made < _ENOUGH_KEYFRAMES or share <= MAX_WITHOUT_SUPPORT:
            return ""
        return f"{share:.0%} of the points are without support by another view (good maps: up to {MAX_WITHOUT_SUPPORT:.0%})"

    def frequent_reasons(self, count: int = 8) -> list[tuple[str, int]]:
        """Returns the most frequent reasons why images were skipped, and how often each occurred.

        Reasons that differ only in file names and numbers are counted together; the first of them is returned.

        Args:
            count: Largest number of reasons.
        """
        alike: dict[str, list[str]] = {}
        for reason in self.skipped.values():
            words = [word for word in reason.split() if "/" not in word]
            alike.setdefault(re.sub(r"\d[\d.]*", "#", " ".join(words)), []).append(" ".join(words))
        counted = sorted(alike.values(), key=len, reverse=True)[:count]
        return [(examples[0], len(examples)) for examples in counted]
