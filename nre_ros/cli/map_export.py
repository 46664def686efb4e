# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map export``: writes a map for other programs."""

from __future__ import annotations

import argparse
import sys

from nre_ros.cli.arguments import Subparsers
from nre_ros.cli.output import print_table


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map export``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    parser = commands.add_parser(
        "export",
        help="write a COLMAP model, a trajectory, a point cloud",
        description="Write a map for other programs, in one or several formats.",
    )
    parser.add_argument("map", metavar="MAP.db")
    parser.add_argument(
        "--colmap", metavar="DIR", help="cameras.txt, images.txt, points3D.txt: poses, points and their observations"
    )
    parser.add_argument("--tum", metavar="FILE", help="the keyframes' poses, 't x y z qx qy qz qw', camera to map")
    parser.add_argument("--list", metavar="FILE", help="with --tum: the keyframes' names in the same order")
    parser.add_argument("--ply", metavar="FILE", help="the points")
    parser.set_defaults(func=_export, parser=parser)


def _export(args: argparse.Namespace) -> int:
    from nre_ros.keyframes.storage.store import KeyframeStore
    from nre_ros.keyframes.tools import export

    if not (args.colmap or args.tum or args.ply):
        args.parser.error("one of --colmap, --tum and --ply is needed")
    if args.list and not args.tum:
        args.parser.error("--list needs --tum")
    rows, progress = [("map", args.map)], sys.stderr.isatty()
    with KeyframeStore.open(args.map, cache_bytes=0) as store:
        if args.colmap:
            report = export.export_colmap(store, args.colmap, progress)
            rows += [
                ("COLMAP model", f"{args.colmap}: {report.keyframes} images, {report.points} points"),
                (
                    "  outside of the image",
                    f"{report.outside_image} points, left out" if report.outside_image else None,
                ),
                ("  names with spaces", f"{report.renamed}, written with _" if report.renamed else None),
            ]
        if args.tum:
            report = export.export_tum(store, args.tum, args.list)
            rows.append(("trajectory", f"{args.tum}: {report.keyframes} poses"))
        if args.ply:
            rows.append(("points", f"{args.ply}: {export.export_ply(store, args.ply, progress).points} points"))
    print_table(*rows)
    return 0
