# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Localizes the query images of an input one after the other and records each result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nre_ros.errors import NreError
from nre_ros.evaluation.inputs import Query
from nre_ros.evaluation.records import RecordFile
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.result import LocalizationResult

LocalizeQuery = Callable[[Query], dict[str, Any]]
"""Function query -> record without the fields ``image`` and ``stamp``."""


def localize_queries(
    localize: LocalizeQuery,
    queries: Iterable[Query],
    path: Path,
    count: int,
    description: str = "localize",
    progress: bool = True,
) -> None:
    """Localizes every query that the record file does not contain yet, and appends its record.

    Besides the names of the images, memory does not grow with the number of queries.

    Args:
        localize: Method that is evaluated.
        queries: Query images.
        path: Record file.
        count: Number of queries, for the progress bar.
        description: Label of the progress bar.
        progress: Whether progress is reported on stderr.

    Raises:
        EvaluationError: The record file cannot be written.
    """
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 5.0
    with (
        RecordFile(path) as records,
        tqdm(total=count, unit="image", desc=description, disable=not progress, mininterval=interval) as bar,
    ):
        earlier = len(records.done)
        bar.update(earlier)
        if progress and earlier:
            bar.write(f"continuing {path}: {earlier} of {count} images are done", file=sys.stderr)
        for query in queries:
            if query.name not in records.done:
                records.write({"image": query.name, "stamp": query.stamp, **localize(query)})
                bar.update()


def nre_method(localizer: Localizer) -> LocalizeQuery:
    """Returns the function that localizes a query with this project's localizer.

    Every pose is recorded, whatever its confidence. Which poses are accepted is decided when the records are evaluated.

    Args:
        localizer: Localizer of the map.

    Returns:
        The function for ``localize_queries``. An image that cannot be read is recorded with the reason.
    """

    def localize(query: Query) -> dict[str, Any]:
        try:
            image, camera = query.load()
            result = localizer.localize(image, camera, min_confidence=0.0)
        except NreError as error:
            result = LocalizationResult(reason=str(error))
        return result.to_json()

    return localize
