# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What images of elsewhere look like against a map: wrong poses, to which the map's confidence is fitted.

Images of elsewhere are those of other places, which travel with the package, and the map's own: the image of a keyframe is
localized in the parts of the map that do not show its place. These look more like the place than photographs of somewhere
else: same camera, same light, same kind of rooms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from nre_ros.errors import NreError
from nre_ros.keyframes.importers.rebuild_source import NamedImages, image_of_keyframe
from nre_ros.keyframes.types import Keyframe
from nre_ros.localization.evidence import gather
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.other_places import negative_images
from nre_ros.map_check.leave_one_out import ELSEWHERE, LeftOutResult
from nre_ros.map_check.neighbours import ViewNeighbours
from nre_ros.map_check.partial import PartialCheck
from nre_ros.map_check.view_result import ViewResult, localize_view
from nre_ros.sampling import evenly_spaced_indices

_VIEWS_FOR_ONE, _MOST = 8, 40
"""One image of elsewhere is localized for so many views; and the most."""
_FEWEST_FAR = 5
"""Far parts have so many keyframes, as many as a query retrieves: with fewer, wrong poses would have other evidence."""
_TRIED = 4
"""So many times as many keyframes as wanted are looked at for far parts."""
_OWN_VIEW = np.radians(45.0)
"""A pose near the keyframe's own place, turned by less, shows that the keyframe's place is seen after all."""
_ALIKE_CONFIDENCE, _ALIKE_INLIERS = 0.5, 0.6
"""A place that explains the image with this confidence and this share of the inliers looks like the keyframe's own."""


@dataclass(frozen=True)
class Negatives:
    """Wrong poses of a map.

    Attributes:
        places: ``[F]`` evidence of each pose that an image of another place got.
        far: What images of keyframes found in the parts of the map that do not show their place.
    """

    places: Sequence[npt.NDArray[np.float64]] = ()
    far: Sequence[ViewResult] = ()


def localize_elsewhere(
    localizer: Localizer,
    images: Sequence[NamedImages],
    ids: npt.NDArray[np.int64],
    views: Sequence[LeftOutResult],
    seed: int,
    results: PartialCheck,
    progress: bool = True,
) -> Negatives:
    """Localizes images of elsewhere in a map. Half of them are the map's own if it has far parts.

    Args:
        localizer: The map.
        images: Where its images are.
        ids: [M] ids of the map's keyframes.
        views: The left-out views of the map.
        seed: Of the choice of the images of other places.
        results: Those of an interrupted run, which are not computed again; new ones are added.
        progress: Whether to show a progress bar.
    """
    count = min(len(views) // _VIEWS_FOR_ONE, _MOST)
    neighbours = ViewNeighbours(localizer.store, ids)
    chosen = _with_far_parts(localizer, views, neighbours, count // 2)
    found: list[npt.NDArray[np.float64]] = []
    far: list[ViewResult] = []
    with tqdm(total=count, desc="localizing images of elsewhere", unit="image", disable=not progress) as bar:
        for keyframe, overlapping in chosen:
            if keyframe.id not in results.far:
                view = _localized_far(localizer, images, keyframe, overlapping)
                if view is not None:
                    results.add_far(view)
            if keyframe.id in results.far:
                far.append(results.far[keyframe.id])
            bar.update()
        for index, place in enumerate(negative_images(count - len(chosen), seed)):
            if index not in results.places:
                estimate = localizer.estimate(place.image, place.camera)
                posed = estimate.T_cam_map is not None and estimate.uncertainty is not None
                results.add_place(index, gather(estimate, localizer.retrieve).numbers() if posed else None)
            evidence = results.places[index]
            if evidence is not None:
                found.append(evidence)
            bar.update()
    return Negatives(found, far)


def sort_far(
    far: Sequence[ViewResult], views: Sequence[LeftOutResult], suspicious: set[int]
) -> tuple[list[ViewResult], list[ViewResult]]:
    """Finds the wrong poses among what images found in the far parts of a map, and the places that look alike.

    A pose near the keyframe's own place is neither: something there is seen from afar. A place that explains the image
    about as well as the keyframe's own place is no example of a wrong pose: in a query the two poses share the confidence.

    Args:
        far: What images of keyframes found in the parts of the map that do not show their place.
        views: The left-out views of the map.
        suspicious: Ids of keyframes that do not fit the rest: where their place is, is not known.

    Returns:
        The wrong poses, and those at places that look alike.
    """
    inliers = {result.view.keyframe: result.view.inliers for result in views if not result.span and result.view.right}
    wrong: list[ViewResult] = []
    alike: list[ViewResult] = []
    for view in far:
        if not view.posed or view.keyframe in suspicious or view.keyframe not in inliers:
            continue
        if view.position_error <= ELSEWHERE * view.distance and view.rotation_error <= _OWN_VIEW:
            continue
        explains = view.inliers >= _ALIKE_INLIERS * inliers[view.keyframe]
        (alike if explains and view.confidence >= _ALIKE_CONFIDENCE else wrong).append(view)
    return wrong, alike


def _with_far_parts(
    localizer: Localizer, views: Sequence[LeftOutResult], neighbours: ViewNeighbours, count: int
) -> list[tuple[Keyframe, list[int]]]:
    """Chooses keyframes whose place is not seen by some part of the map, and the keyframes that see it.

    Keyframes count that were found where they are: with a wrong pose nobody knows what sees their place.
    """
    known = [result.view.keyframe for result in views if not result.span and result.view.right]
    candidates = []
    for i in evenly_spaced_indices(len(known), _TRIED * count).tolist():
        try:
            keyframe = localizer.store.get(known[i])
            overlapping = neighbours.overlapping(keyframe)
        except NreError:  # another process has removed the keyframe
            continue
        if neighbours.count - len(overlapping) >= _FEWEST_FAR:
            candidates.append((keyframe, overlapping))
    return [candidates[i] for i in evenly_spaced_indices(len(candidates), count).tolist()]


def _localized_far(
    localizer: Localizer, images: Sequence[NamedImages], keyframe: Keyframe, overlapping: Sequence[int]
) -> ViewResult | None:
    """Localizes a keyframe's image without the keyframes that see its place; None where its image cannot be used."""
    try:
        image = image_of_keyframe(images, keyframe)
    except NreError:
        return None
    return localize_view(
        localizer,
        keyframe.name,
        image,
        keyframe.camera,
        keyframe.T_map_cam,
        keyframe.id,
        set(overlapping),
    )
