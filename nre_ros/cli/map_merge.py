# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map merge``: one map of several that share a frame."""

from __future__ import annotations

import argparse
import sys

from nre_ros.cli.arguments import Subparsers
from nre_ros.cli.output import print_table
from nre_ros.keyframes.tools.merge import NAME_CLASH_RULES, merge_maps


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map merge``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    parser = commands.add_parser(
        "merge",
        help="make one map of several that share a frame",
        description="Write the keyframes of several maps, made with the same features and with poses in the same "
        "frame, into a new one. Nothing is aligned: the poses must fit together already. Keyframes of the same name "
        "and content are taken once.",
    )
    parser.add_argument("maps", nargs="+", metavar="MAP.db")
    parser.add_argument("-o", "--output", required=True, metavar="MAP.db", help="the map file to write")
    parser.add_argument(
        "--on-clash",
        choices=NAME_CLASH_RULES,
        default="refuse",
        help="which of several different keyframes of one name to take: the first "
        "map's, the last map's, or both (the later one as <its map>/<name>); default: refuse to merge",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing map once the new one is complete")
    parser.set_defaults(func=_merge)


def _merge(args: argparse.Namespace) -> int:
    report = merge_maps(args.maps, args.output, args.on_clash, args.force, progress=sys.stderr.isatty())
    print_table(
        ("map", report.path),
        ("keyframes", report.keyframes),
        ("the same twice", report.same or None),
        ("names that clashed", f"{len(report.clashes)} (taken: {args.on_clash})" if report.clashes else None),
        ("size", f"{report.path.stat().st_size / 2**20:.1f} MiB"),
    )
    return 0
