# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Localizes keyframes of a map in the map without themselves.

Most views are left out with their near-duplicates alone: what a query of this place would find. The others are left out
with all that was recorded shortly before and after them. They find the place only where the recording came back to it,
and show how far the map has drifted meanwhile, which neighbours in time share and hide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from nre_ros.errors import NreError
from nre_ros.keyframes.importers.rebuild_source import NamedImages, image_of_keyframe
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.localization.localizer import Localizer
from nre_ros.map_check.neighbours import ViewNeighbours
from nre_ros.map_check.view_result import ViewResult, checked_count, localize_view
from nre_ros.sampling import evenly_spaced_indices

MOST_VIEWS = 200
"""Views of a map that are localized unless the user asks for another number."""
ELSEWHERE = 0.5
"""A pose that is farther off than this many distances of the scene is at another place."""
_SOME_CONFIDENCE = 0.25
_REVISIT_EVERY = 3
"""Every third view is left out with its neighbours in time."""
_REVISIT_SPANS = (4, 8)
"""These views are left out with a fourth or an eighth of the recording on either side."""
_FEWEST_FOR_REVISITS = 8
"""Recordings with fewer keyframes are not long enough."""


@dataclass(frozen=True)
class LeftOut:
    """One view to localize.

    Attributes:
        keyframe: Id of its keyframe.
        span: Number of keyframes before and after it in the recording that are left out as well; 0: only its
            near-duplicates.
    """

    keyframe: int
    span: int = 0


@dataclass(frozen=True)
class LeftOutResult:
    """The result of one view.

    Attributes:
        view: What the localizer found.
        span: See ``LeftOut``.
        near_duplicates: Number of keyframes that were left out since they show nearly the same.
        again: Where the image is found without the keyframes near the pose, if that was at another place; else None.
    """

    view: ViewResult
    span: int
    near_duplicates: int
    again: ViewResult | None = None

    def to_json(self) -> list[Any]:
        """Returns the result as plain values; ``from_json`` reads them."""
        again = None if self.again is None else self.again.to_json()
        return [self.span, self.near_duplicates, self.view.to_json(), again]

    @classmethod
    def from_json(cls, values: Any) -> LeftOutResult:
        """Reads what ``to_json`` returned.

        Args:
            values: Plain values, maybe from a file that anybody wrote.

        Raises:
            ValueError: They are no result of a view.
        """
        if not isinstance(values, list) or len(values) != 4:
            raise ValueError("no result of a view: it has not four parts")
        span, duplicates, view, again = values
        return cls(
            ViewResult.from_json(view),
            checked_count(span),
            checked_count(duplicates),
            None if again is None else ViewResult.from_json(again),
        )


def plan(ids: npt.NDArray[np.int64], most: int = MOST_VIEWS) -> list[LeftOut]:
    """Chooses the views, evenly over the recording.

    Args:
        ids: [M] ids of the map's keyframes in the order of the recording.
        most: Largest number of views.

    Returns:
        The views, in the order of the recording.
    """
    chosen = ids[evenly_spaced_indices(len(ids), most)].tolist()
    views = []
    for i, keyframe in enumerate(chosen):
        revisit = len(ids) >= _FEWEST_FOR_REVISITS and i % _REVISIT_EVERY == 1
        span = len(ids) // _REVISIT_SPANS[(i // _REVISIT_EVERY) % len(_REVISIT_SPANS)] if revisit else 0
        views.append(LeftOut(keyframe, span))
    return views


def localize_left_out(
    localizer: Localizer, images: Sequence[NamedImages], views: Sequence[LeftOut], ids: npt.NDArray[np.int64]
) -> Iterator[LeftOutResult | str]:
    """Localizes views of a map without their keyframes.

    Args:
        localizer: The map.
        images: Where the map's images are; the first that has an image counts.
        views: The views.
        ids: [M] ids of the map's keyframes in the order of the recording.

    Yields:
        For each view its result, or one line that says why it has none: its image is missing or another one, or another
        process has removed its keyframe.
    """
    neighbours = ViewNeighbours(localizer.store, ids)
    place = {int(keyframe): i for i, keyframe in enumerate(ids)}
    for view in views:
        name = f"keyframe {view.keyframe}"
        try:
            keyframe = localizer.store.get(view.keyframe)
            name = keyframe.name
            image = image_of_keyframe(images, keyframe)
        except NreError as error:
            yield f"{name}: {error}"
            continue
        around = neighbours.of(keyframe)
        exclude = {keyframe.id, *around.near_duplicates}
        if view.span:
            i = place[keyframe.id]
            exclude.update(ids[max(0, i - view.span) : i + view.span + 1].tolist())
        localize = partial(
            localize_view,
            localizer,
            keyframe.name,
            image,
            keyframe.camera,
            keyframe.T_map_cam,
            keyframe.id,
            exclude,
            around.gap,
        )
        found = localize(search_further=not view.span)  # a revisit that is hard to see is worth no second search
        again = None
        if _is_elsewhere(found):
            exclude.update(_near(found, neighbours))
            again = localize(prior=PosePrior(keyframe.T_map_cam, np.zeros((6, 6))))
        yield LeftOutResult(found, view.span, len(around.near_duplicates), again)


def _is_elsewhere(view: ViewResult) -> bool:
    """Whether a view was localized at another place, with some confidence."""
    return view.posed and view.confidence >= _SOME_CONFIDENCE and view.position_error > ELSEWHERE * view.distance


def _near(view: ViewResult, neighbours: ViewNeighbours) -> list[int]:
    """Ids of the keyframes at the place where a view was localized."""
    assert view.estimated is not None
    return neighbours.within(view.estimated[:3, 3], min(view.distance, 0.5 * view.position_error))
