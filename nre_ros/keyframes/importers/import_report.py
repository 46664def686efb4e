# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What became of the images of an import."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


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
    tally: Counter[str] = field(default_factory=Counter)

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
