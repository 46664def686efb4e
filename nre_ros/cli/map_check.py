# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map check``: how good a map is, found out by localizing its keyframes without themselves."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack, closing
from pathlib import Path

from nre_ros.cli.arguments import (
    Subparsers,
    add_device_option,
    add_image_places,
    add_seed_option,
    add_threads_option,
    positive_int,
)
from nre_ros.cli.output import print_table
from nre_ros.errors import NreError
from nre_ros.packages import ESTIMATOR, PICTURES, require

EXIT_SUSPICIOUS = 1
_DESCRIPTION = """Localize keyframes of a map in the map without themselves. That shows how far the keyframes disagree
with each other, which of them do not fit the rest, which places look alike, and what recall and accuracy images can
expect. The map keeps the outcome, and the localizer uses it: its covariances then include the errors of the map. After an
interruption the same command continues. Exit code 0: no keyframe is suspicious; 1: some are; 2: no check was possible."""


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map check``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    parser = commands.add_parser(
        "check", help="find out how good a map is, and store that in it", description=_DESCRIPTION
    )
    parser.add_argument("map", metavar="MAP.db")
    parser.add_argument("-o", "--output", metavar="DIR", help="write DIR/check.html and DIR/check.json")
    add_image_places(parser)
    parser.add_argument("--views", type=positive_int, metavar="N", help="localize N keyframes at most (default: 200)")
    parser.add_argument(
        "--repair-to",
        metavar="NEW.db",
        help="write a copy of the map whose keyframes are moved to where the others see them, as far as the left-out "
        "keyframes are then localized better",
    )
    parser.add_argument(
        "--rounds", type=positive_int, default=2, metavar="N", help="rounds of the repair at most (default: 2)"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing NEW.db")
    parser.add_argument("--dry-run", action="store_true", help="do not store the outcome in the map")
    add_device_option(parser)
    add_threads_option(parser)
    add_seed_option(parser, "the consensus")
    parser.set_defaults(func=_check, packages=(*ESTIMATOR, "tqdm"))


def _check(args: argparse.Namespace) -> int:
    if args.output:
        require(*PICTURES)
    from nre_ros.keyframes.importers.rebuild_source import named_images, recorded_images
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.map_check.check import PARTIAL, check_map
    from nre_ros.map_check.leave_one_out import MOST_VIEWS
    from nre_ros.map_check.repair import check_target, repair_map

    if args.repair_to:
        check_target(args.map, args.repair_to, args.force)
    folder = None if args.output is None else _created(Path(args.output))
    with KeyframeStore.open(args.map, cache_bytes=0) as store:
        places = args.images or recorded_images(store)
    with ExitStack() as stack:
        images = [stack.enter_context(closing(named_images(place, args.topic))) for place in places]
        result = None
        try:
            result = check_map(
                args.map,
                images,
                args.views or MOST_VIEWS,
                args.device,
                args.seed,
                store_result=not args.dry_run,
                progress=sys.stderr.isatty(),
            )
            repair = None
            if args.repair_to:
                repair = repair_map(
                    result,
                    images,
                    args.repair_to,
                    args.rounds,
                    args.device,
                    args.seed,
                    args.force,
                    progress=sys.stderr.isatty(),
                    most=args.views or MOST_VIEWS,
                )
        except KeyboardInterrupt:
            partial = args.map + PARTIAL
            kept = f"the same command continues {partial}" if Path(partial).is_file() else "the map is as it was"
            print(f"interrupted; {kept if result is None else 'no repaired map was written'}", file=sys.stderr)
            return 130
    report = None
    if folder is not None:
        from nre_ros.map_check.report.write import write_report

        try:
            (folder / "check.json").write_text(json.dumps(result.to_json(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise NreError(f"{folder / 'check.json'} cannot be written: {error.strerror}") from error
        report = folder / "check.html"
        write_report(report, result, repair)
    print_table(*result.summary(), *([] if repair is None else repair.rows()), ("report", report))
    return EXIT_SUSPICIOUS if result.suspicious else 0


def _created(folder: Path) -> Path:
    """Creates the folder of the report before the check, which takes minutes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NreError(f"--output {folder}: cannot be a folder: {error.strerror}") from error
    return folder
