# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes the report of a check of a map."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nre_ros.errors import NreError
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.map_check.check import CheckResult
from nre_ros.map_check.repair import RepairResult
from nre_ros.map_check.report import areas, entries
from nre_ros.map_check.report.outcomes import Outcome, View, keyframe_views, viewing_distance
from nre_ros.map_check.report.plan import draw_accuracy, draw_recall
from nre_ros.map_check.report.weak_spots import WeakSpot, advice, find_weak_spots
from nre_ros.pictures import page
from nre_ros.pictures.top_view import project_map

_GOOD_RECALL, _USABLE_RECALL = 0.95, 0.8
_MOST_AREAS = 24
_INDENT = "\N{EM SPACE}"


def write_report(path: Path, result: CheckResult, repair: RepairResult | None = None) -> None:
    """Writes the report.

    Args:
        path: HTML file to write.
        result: What the check found; the map is read for its points and thumbnails.
        repair: What a repair of the map achieved; None without one.

    Raises:
        NreError: The map cannot be read, or the file cannot be written.
    """
    map_view = project_map(result.path)
    positions = np.array([T[:3, 3] for T in result.poses.values()]).reshape(-1, 3)
    grid = areas.area_grid(positions, map_view.plane, viewing_distance(result))
    views = keyframe_views(result)
    spots = find_weak_spots(result, views, grid)
    with KeyframeStore.open(result.path, cache_bytes=0) as store:
        thumbnails = entries.Thumbnails(store)
        weak = entries.weak_entries(result, spots, thumbnails)
        alike = entries.alike_entries(result, thumbnails)
        suspicious = entries.suspicious_entries(result, thumbnails)
    parts = [
        page.statement(verdict(result, views)),
        page.cards(_headline(result, views)),
        page.table(
            ["", ""],
            [[label.replace("  ", _INDENT), str(value)] for label, value in result.summary() if value is not None],
        ),
        page.heading("Plan of the map: expected accuracy"),
        page.figure(
            draw_accuracy(result, views, map_view, grid),
            "Keyframes with their viewing directions, over the map's points (grey). The colour is the median error of the "
            "nearest views that were localized without their own keyframe, measured against its pose in the map. Letters "
            "and numbers name areas.",
        ),
        page.heading("Plan of the map: recall"),
        page.figure(
            draw_recall(result, views, spots, map_view, grid),
            "Green: localized without its own keyframe, and right. Red: no accepted pose, or a wrong one. Numbers are "
            "those of the weak spots below, S1, S2, ... those of the suspicious keyframes.",
        ),
        page.heading("By area and by viewing direction"),
        *_tables(views, grid),
        page.heading("Weak spots"),
        *(weak or [page.paragraph("There are none: every localized keyframe has a right pose.")]),
        *_more(len(spots), len(weak), "weak spots"),
        page.heading("Places that look alike"),
        *(alike or [page.paragraph("There are none: no view is explained by another place.")]),
        page.heading("Suspicious keyframes"),
        *(suspicious or [page.paragraph("There are none: all keyframes fit each other.")]),
        *_more(len(result.suspicious), len(suspicious), "suspicious keyframes"),
    ]
    parts += _cures(result)
    if repair is not None:
        parts += [page.heading("Repair"), page.table(["", ""], [[label, str(value)] for label, value in repair.rows()])]
    parts += [page.heading("What to record next"), *_advice(result, spots, len(views))]
    if result.skipped:
        parts += [
            page.heading("Keyframes without an image"),
            page.table([f"{len(result.skipped)} keyframes"], [[line] for line in result.skipped[:20]]),
        ]
    subtitle = f"{len(result.names)} keyframes, frame {result.frame_id}, {result.path}"
    text = page.page(f"Check of {result.path.name}", subtitle, parts)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NreError(f"{path} cannot be written: {error.strerror}") from error


def verdict(result: CheckResult, views: Sequence[View]) -> str:
    """Says in one sentence how good the map is.

    Args:
        result: The check.
        views: Its ``keyframe_views``.
    """
    count = len(result.suspicious)
    if count:
        fits, them = ("does", "it") if count == 1 else ("do", "them")
        return (
            f"{count} of {len(result.names)} keyframes {fits} not fit the rest of the map: remove or repair {them} before "
            "you use the map."
        )
    if result.expected is None or not views:
        return "The check localized too few views to say how good the map is."
    recall = sum(view.outcome is Outcome.RIGHT for view in views) / len(views)
    error = f"with a median error of {areas.length_text(result.expected.position)}"
    if recall >= _GOOD_RECALL:
        return f"The map is good: images from its viewpoints get a right pose in {recall:.0%} of the cases, {error}."
    quality = "usable, with gaps" if recall >= _USABLE_RECALL else "weak"
    return f"The map is {quality}: images from its viewpoints get a right pose in {recall:.0%} of the cases, {error}."


def _headline(result: CheckResult, views: Sequence[View]) -> list[tuple[str, str, bool]]:
    cards = []
    if views:
        right, wrong = (sum(view.outcome is kind for view in views) for kind in (Outcome.RIGHT, Outcome.WRONG))
        recall = right / len(views)
        text = f"of {len(views)} keyframes get a right pose without themselves"
        cards += [(f"{recall:.0%}", text, recall < _USABLE_RECALL), (str(wrong), "wrong poses", wrong > 0)]
    if result.expected is not None:
        text = f"and {areas.angle_text(result.expected.rotation)}: median error to expect"
        cards.append((areas.length_text(result.expected.position), text, False))
    cards.append((str(len(result.suspicious)), "suspicious keyframes", bool(result.suspicious)))
    return cards


def _tables(views: Sequence[View], grid: areas.AreaGrid) -> list[str]:
    if not views:
        return [page.paragraph("No keyframe was localized.")]
    rows = areas.area_rows(views, grid)
    return [
        page.paragraph(
            f"Recall is the share of views with a right pose. Areas are {grid.side:g} m wide; only areas with views "
            "are listed, the weakest first. Directions are those of the plan. Suspicious keyframes are left out."
        ),
        page.table(["area", *areas.HEAD], rows[:_MOST_AREAS]),
        *_more(len(rows), min(len(rows), _MOST_AREAS), "areas, none of them weaker,"),
        page.table(["looking", *areas.HEAD], areas.direction_rows(views, grid.plane)),
    ]


def _cures(result: CheckResult) -> list[str]:
    """The commands that remove all suspicious keyframes, and that write a map with better poses."""
    parts = []
    if len(result.suspicious) > 1:
        command = entries.removal(result.path, [each.name for each in result.suspicious])
        parts += [page.paragraph("This command removes all of them:"), page.command(command)]
    if any(each.found is not None for each in result.suspicious):
        repaired = result.path.with_name(f"{result.path.stem}_repaired.db")
        text = "This command writes a map whose keyframes are moved to where the others see them, as far as that helps:"
        command = shlex.join(["nre_ros", "map", "check", str(result.path), "--repair-to", str(repaired)])
        parts += [page.paragraph(text), page.command(command)]
    return parts


def _advice(result: CheckResult, spots: Sequence[WeakSpot], views: int) -> list[str]:
    lines = advice(result, spots, views)
    if not lines:
        return [
            page.paragraph(
                "Nothing: every localized keyframe is found by the others. The check says nothing about places and "
                "directions that no keyframe shows."
            )
        ]
    return [page.paragraph("What would improve the map most comes first."), page.ordered_list(lines)]


def _more(total: int, shown: int, what: str) -> list[str]:
    return [page.paragraph(f"{total - shown} more {what} are not shown.")] if total > shown else []
