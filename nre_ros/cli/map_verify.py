# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map verify``: checks a map for damage, and saves what is intact."""

from __future__ import annotations

import argparse
import sys

from nre_ros.cli.arguments import Subparsers
from nre_ros.cli.output import print_table

EXIT_DAMAGED = 1
_MOST_LISTED = 50
"""Problems that are listed one by one."""


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map verify``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    parser = commands.add_parser(
        "verify",
        help="check a map for damage",
        description="Check everything in a map: SQLite's structure and references, the checksum of every row, shapes, "
        "finite values, rigid poses. All damage is listed. Exit code 0: intact; 1: damaged; 2: no map at all.",
    )
    parser.add_argument("map", metavar="MAP.db")
    parser.add_argument("--repair-to", metavar="NEW.db", help="write all intact keyframes into a new map")
    parser.add_argument("--force", action="store_true", help="replace an existing NEW.db")
    parser.set_defaults(func=_verify)


def _verify(args: argparse.Namespace) -> int:
    from nre_ros.keyframes.tools.verify import salvage_map, verify_map

    check = verify_map(args.map, progress=sys.stderr.isatty())
    for problem in check.problems[:_MOST_LISTED]:
        print(problem)
    if len(check.problems) > _MOST_LISTED:
        print(f"... and {len(check.problems) - _MOST_LISTED} more")
    saved = None
    if args.repair_to:
        saved = f"{salvage_map(check, args.repair_to, args.force, sys.stderr.isatty())} keyframes in {args.repair_to}"
    print_table(
        ("map", check.path),
        ("keyframes", check.keyframes),
        ("intact", len(check.intact)),
        ("problems", len(check.problems)),
        ("saved", saved),
        ("verdict", "intact" if check.good else "damaged"),
    )
    return 0 if check.good else EXIT_DAMAGED
