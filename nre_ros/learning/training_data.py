# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a training is made of: named sources of pairs, their shares, and pairs that are held out for validation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nre_ros.errors import TrainingError
from nre_ros.learning.augmentation import Augmentation
from nre_ros.learning.open_pairs import OpenedPairs, PairOptions, open_pair_source
from nre_ros.learning.pair_sources import TrainingPairs

HELD_OUT_SEEDS = 1_000_000
"""The seed of the held-out pairs is that of the training plus this number: other rooms, other views."""
_PLACES = ("folder", "images_folder", "depth", "bag", "map")
"""Keys of folders and files in ``OpenedPairs.about``: data that was moved is the same data."""


@dataclass(frozen=True)
class DataSource:
    """A source of training pairs.

    Attributes:
        name: What the user typed, for messages.
        opened: The pairs.
        share: How often a pair comes from this source, any positive number.
    """

    name: str
    opened: OpenedPairs
    share: float = 1.0


@dataclass(frozen=True)
class TrainingData:
    """The sources of a training.

    Attributes:
        sources: At least one.
        options: Settings of the pairs.
        augmentation: Of all images.

    Raises:
        TrainingError: There is no source.
    """

    sources: Sequence[DataSource]
    options: PairOptions = PairOptions()
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        if not self.sources:
            raise TrainingError("nothing to train on: rendered rooms are switched off, and no other data is named")

    @classmethod
    def open(
        cls,
        names: Sequence[str],
        options: PairOptions = PairOptions(),
        room_share: float = 1.0,
        room_pictures: str = "",
    ) -> TrainingData:
        """Opens sources by their names or paths.

        Args:
            names: As for ``open_pair_source``.
            options: Settings of the pairs.
            room_share: Share of the rendered rooms, where every other source has 1; 0: no rooms.
            room_pictures: What hangs on their walls: a folder, or ``photographs`` for those of installed packages;
                empty: those of the demo.

        Raises:
            TrainingError: A source cannot be opened, or there is none.
        """
        sources = [DataSource(name, open_pair_source(name, options)) for name in dict.fromkeys(names)]
        if room_share > 0:
            rooms = f"rooms:{room_pictures}" if room_pictures else "rooms"
            sources.insert(0, DataSource(rooms, open_pair_source(rooms, options), room_share))
        return cls(sources, options)

    def training_pairs(self, seed: int) -> TrainingPairs:
        """Returns the pairs to train on.

        Args:
            seed: Of the training.
        """
        shares = [source.share for source in self.sources]
        pairs = TrainingPairs([source.opened.pairs for source in self.sources], shares, self.augmentation, seed)
        abouts = [{key: value for key, value in entry.items() if key not in _PLACES} for entry in self.describe()]
        settings = repr((replace(self.options, images=None), self.augmentation))
        digest = hashlib.sha256(json.dumps([abouts, settings], sort_keys=True).encode()).hexdigest()
        kinds = ", ".join(str(about.get("importer", "recording")) for about in abouts)
        pairs.identity = f"{kinds} ({digest[:8]})"
        return pairs

    def held_out_pairs(self, seed: int) -> TrainingPairs | None:
        """Returns pairs that are not trained on; None where no source has any.

        Args:
            seed: Of the training.
        """
        found = [(s.opened.held_out, s.share) for s in self.sources if s.opened.held_out is not None]
        if not found:
            return None
        sources, shares = zip(*found)
        return TrainingPairs(sources, shares, self.augmentation, seed + HELD_OUT_SEEDS)

    def summary(self) -> str:
        """Returns one line about all sources."""
        return ", ".join(f"{source.opened.summary} x {source.share:g}" for source in self.sources)

    def describe(self) -> list[dict[str, Any]]:
        """Returns what the pairs depend on, as plain JSON values, one entry a source."""
        return [{"share": source.share, **source.opened.about} for source in self.sources]
