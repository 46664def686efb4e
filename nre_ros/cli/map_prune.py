# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map prune``: removes keyframes that a map does not need."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nre_ros.cli.arguments import Subparsers
from nre_ros.cli.output import print_table
from nre_ros.errors import MapError
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.prune import (
    overview,
    remove_keyframes,
    select_in_box,
    select_named,
    select_near_duplicates,
    select_surplus,
    write_pruned_map,
)

_MOST_SHOWN = 5
"""Names of removed keyframes in the output."""


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map prune``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    parser = commands.add_parser(
        "prune",
        help="remove keyframes: near-duplicates, by name, in a box, or all but N",
        description="Remove keyframes from a map (or, with -o, write a map without them). One of the choices:",
    )
    parser.add_argument("map", metavar="MAP.db")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="near-duplicates of an earlier view: at least this share of the points of each view (for example 0.9) "
        "projects into the image of the other, from directions less than 15 degrees apart",
    )
    choice.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="all but N keyframes, which are spread over places and viewing directions",
    )
    choice.add_argument("--list", metavar="LIST", help="the keyframes of a file of names, one in each line")
    choice.add_argument(
        "--remove",
        action="append",
        metavar="NAME",
        help="the keyframe with this name; the option may be given several times (--remove=NAME for a name with a dash "
        "in front)",
    )
    choice.add_argument(
        "--box",
        type=float,
        nargs=6,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="the keyframes whose camera is inside this box of the map",
    )
    parser.add_argument("--outside", action="store_true", help="with --box: the keyframes outside of the box")
    parser.add_argument("--dry-run", action="store_true", help="print what would be removed, and change nothing")
    parser.add_argument("-o", "--output", metavar="MAP.db", help="write here instead of changing the map")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.set_defaults(func=_prune, parser=parser)


def _prune(args: argparse.Namespace) -> int:
    if args.outside and not args.box:
        args.parser.error("--outside needs --box")
    readonly = args.dry_run or args.output is not None
    with KeyframeStore.open(args.map, readonly=readonly) as store:
        removed = _selected(args, store)
        ids, names, _ = overview(store)
        if removed and len(removed) == len(ids):
            raise MapError(f"map {args.map}: all {len(ids)} keyframes would be removed")
        before = store.path.stat().st_size
        if not args.dry_run and args.output is not None:
            write_pruned_map(store, removed, args.output, args.force)
        elif not args.dry_run and removed:
            remove_keyframes(store, removed)
    by_id = dict(zip(ids.tolist(), names))
    shown = ", ".join(by_id[i] for i in removed[:_MOST_SHOWN]) + (", ..." if len(removed) > _MOST_SHOWN else "")
    path = Path(args.output or args.map)
    print_table(
        ("map", path),
        ("would remove" if args.dry_run else "removed", f"{len(removed)} of {len(ids)} keyframes"),
        ("", shown or None),
        ("left", len(ids) - len(removed)),
        ("size", None if args.dry_run else f"{before / 2**20:.1f} -> {path.stat().st_size / 2**20:.1f} MiB"),
    )
    return 0


def _selected(args: argparse.Namespace, store: KeyframeStore) -> list[int]:
    """Returns the ids of the keyframes to remove."""
    from nre_ros.keyframes.importers.text_files import read_list

    if args.overlap is not None:
        return select_near_duplicates(store, args.overlap, progress=sys.stderr.isatty())
    if args.count is not None:
        return select_surplus(store, args.count)
    if args.list is not None:
        return select_named(store, read_list(args.list))
    if args.remove is not None:
        return select_named(store, args.remove)
    return select_in_box(store, [args.box[:3], args.box[3:]], args.outside)
