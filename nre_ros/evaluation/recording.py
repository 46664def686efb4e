# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Localizes all images of an input and writes a record of each as it goes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from nre_ros.errors import EvaluationError, NreError
from nre_ros.evaluation.inputs import Query
from nre_ros.evaluation.records import RecordFile
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.localizer import Localizer
from nre_ros.localization.result import LocalizationResult

ABOUT = "run.json"
RECORDS = "records.jsonl"


def begin(folder: Path, about: dict, force: bool = False) -> None:
    """Makes the folder of a run, or goes on with the one there.

    about: all that the records depend on, as plain JSON values; its ``peers`` are what the peers' records depend on
    besides, None without peers, which may be added to a run.  Raises ``EvaluationError`` when the folder holds a
    run of something else and ``force`` (which removes its records, and nothing else) is not set, or records of which
    no run.json tells what they are.
    """
    path = folder / ABOUT
    about = json.loads(json.dumps(about))
    records = _records(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
    except OSError as error:
        raise EvaluationError(f"{folder} cannot be used: {error.strerror}") from error
    except (ValueError, TypeError):
        earlier = {}
    if earlier is None and records:
        raise EvaluationError(
            f"{folder} holds {records[0].name}, but no {ABOUT} that tells of what: give another folder"
        )
    if earlier is not None and not force:  # peers may be added to a run, and left away again
        about = {**about, "peers": about.get("peers") or earlier.get("peers")}
        earlier = {**earlier, "peers": earlier.get("peers") or about["peers"]}
    if earlier not in (None, about) and not force:
        difference = _difference(earlier, about)
        raise EvaluationError(f"{folder} holds another evaluation ({difference}): --force replaces it")
    if force:
        for file in records:
            file.unlink()
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _records(folder: Path) -> list[Path]:
    """The files of records that an evaluation left in its folder."""
    from nre_ros.evaluation.baselines import PEERS

    return [path for path in (folder / RECORDS, *(folder / f"{name}.jsonl" for name in PEERS)) if path.exists()]


def _difference(earlier: dict, now: dict) -> str:
    for key in sorted(set(earlier) | set(now)):
        a, b = earlier.get(key), now.get(key)
        if a != b:
            if isinstance(a, dict) and isinstance(b, dict):
                return f"{key}: {_difference(a, b)}"
            return f"{key} {_short(a)}, now {_short(b)}"
    return "its run.json is damaged"


def _short(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def localize_all(
    localize: Callable[[Query], dict], queries, path: Path, count: int, what: str = "localize", progress: bool = True
) -> None:
    """Writes ``localize(query)`` of every query that ``path`` does not hold yet.

    Memory stays the same however many there are, but for the names of those done.
    """
    from tqdm import tqdm

    with (
        RecordFile(path) as records,
        tqdm(
            total=count, unit="image", desc=what, disable=not progress, mininterval=0.2 if sys.stderr.isatty() else 5.0
        ) as bar,
    ):
        earlier = len(records.done)
        bar.update(earlier)
        if progress and earlier:
            bar.write(f"going on with {path}: {earlier} of {count} images are there", file=sys.stderr)
        for query in queries:
            if query.name not in records.done:
                records.write({"image": query.name, "stamp": query.stamp, **localize(query)})
                bar.update()


def with_localizer(localizer: Localizer) -> Callable[[Query], dict]:
    """A function query -> record, for ``localize_all``.

    The localizer is told to give every pose that it has: which ones would have been accepted is a matter of
    their confidence, and is decided when the outcomes are looked at.
    """

    def localize(query: Query) -> dict:
        try:
            image, camera = query.load()
            result = localizer.localize(image, camera, min_confidence=0.0)
        except NreError as error:
            result = LocalizationResult(reason=str(error))
        return result.to_json()

    return localize


def about_map(store: KeyframeStore) -> dict:
    """What the records depend on of a map, and what a report tells of it."""
    metadata = store.metadata()
    return {
        "path": str(store.path.resolve()),
        "created": metadata["created"],
        "bytes": store.path.stat().st_size,
        "keyframes": len(store),
        "frame": metadata["frame_id"],
        "features": metadata["backbone"],
    }
