# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map prune``: remove keyframes that a map can do without."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from nre_ros.cli.arguments import Subparsers
from nre_ros.cli.output import print_table

if TYPE_CHECKING:
    from nre_ros.keyframes.storage.store import KeyframeStore

_SHOWN = 5


def add_parser(commands: Subparsers) -> None:
    """Registers ``map prune``."""
    parser = commands.add_parser(
        "prune",
        help="remove keyframes: near-duplicates, of a list, in a box, or all but so many",
        description="Remove keyframes from a map (or, with -o, write a map without them). One of the choices:",
    )
    parser.add_argument("map", metavar="MAP.db")
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="views that an earlier one makes superfluous: at least this share "
        "of each one's points (0.9, say) projects into the other's image, from directions less than 15 degrees apart",
    )
    choice.add_argument("--count", type=int, metavar="N", help="all but N, which are spread over places and directions")
    choice.add_argument("--list", metavar="LIST", help="those of a file of names, one a line")
    choice.add_argument(
        "--box",
        type=float,
        nargs=6,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="those whose camera stands in this box of the map",
    )
    parser.add_argument("--outside", action="store_true", help="with --box: those that stand outside of it")
    parser.add_argument("--dry-run", action="store_true", help="say what would be removed, and change nothing")
    parser.add_argument("-o", "--output", metavar="MAP.db", help="write here instead of changing the map")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.set_defaults(func=_prune, parser=parser)


def _prune(args: argparse.Namespace) -> int:
    from nre_ros.errors import MapError
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.keyframes.tools.pruning import overview, remove_all, write_without

    if args.outside and not args.box:
        args.parser.error("--outside needs --box")
    readonly = args.dry_run or args.output is not None
    with KeyframeStore.open(args.map, readonly=readonly) as store:
        removed = _choose(args, store)
        ids, names, _ = overview(store)
        if removed and len(removed) == len(ids):
            raise MapError(f"map {args.map}: all {len(ids)} keyframes would be removed")
        before = store.path.stat().st_size
        if not args.dry_run and args.output is not None:
            write_without(store, removed, args.output, args.force)
        elif not args.dry_run and removed:
            remove_all(store, removed)
    by_id = dict(zip(ids.tolist(), names))
    shown = ", ".join(by_id[i] for i in removed[:_SHOWN]) + (", ..." if len(removed) > _SHOWN else "")
    path = Path(args.output or args.map)
    print_table(
        ("map", path),
        ("would remove" if args.dry_run else "removed", f"{len(removed)} of {len(ids)} keyframes"),
        ("", shown or None),
        ("left", len(ids) - len(removed)),
        ("size", None if args.dry_run else f"{before / 2**20:.1f} -> {path.stat().st_size / 2**20:.1f} MiB"),
    )
    return 0


def _choose(args: argparse.Namespace, store: KeyframeStore) -> list[int]:
    import numpy as np

    from nre_ros.keyframes.importers.text_files import read_list
    from nre_ros.keyframes.tools import pruning

    if args.overlap is not None:
        return pruning.near_duplicates(store, args.overlap, progress=sys.stderr.isatty())
    if args.count is not None:
        return pruning.all_but(store, args.count)
    if args.list is not None:
        return pruning.listed(store, read_list(args.list))
    return pruning.in_box(store, np.reshape(args.box, (2, 3)), args.outside)
