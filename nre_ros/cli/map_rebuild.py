# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map rebuild``: a map's keyframes and points with other features."""

from __future__ import annotations

import argparse
import sys
from contextlib import closing

from nre_ros.cli.arguments import (
    Subparsers,
    add_device_option,
    add_fine_head_option,
    add_image_places,
    add_seed_option,
    add_threads_option,
)
from nre_ros.cli.output import print_table
from nre_ros.features import BACKBONES, DEFAULT_BACKBONE
from nre_ros.packages import ESTIMATOR

_DESCRIPTION = """Compute the descriptors of a map again from its images, for maps of other features or of an earlier
version of nre_ros. Poses, cameras and 3D points stay. The new map is written to NEW.db.partial and renamed when it is
complete. After an interruption the same command continues. Keyframes whose image is missing, or is another one than
that of the keyframe's thumbnail, are left out, reported and counted."""


def add_parser(commands: Subparsers) -> None:
    """Adds the command ``map rebuild``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    parser = commands.add_parser(
        "rebuild", help="compute a map's features again from its images", description=_DESCRIPTION
    )
    parser.add_argument("map", metavar="MAP.db")
    add_image_places(parser)
    parser.add_argument("-o", "--output", required=True, metavar="NEW.db", help="the map file to write")
    parser.add_argument("--force", action="store_true", help="replace an existing map when the new one is complete")
    parser.add_argument(
        "--features",
        choices=sorted(BACKBONES),
        default=DEFAULT_BACKBONE,
        help=f"the features of the new map (default: {DEFAULT_BACKBONE})",
    )
    add_fine_head_option(parser)
    add_device_option(parser)
    add_threads_option(parser)
    add_seed_option(parser, "the random draws")
    parser.set_defaults(func=_rebuild, packages=(*ESTIMATOR, "tqdm"))


def _rebuild(args: argparse.Namespace) -> int:
    from nre_ros.features import choose_device, load_backbone
    from nre_ros.features.weights import import_fine_head
    from nre_ros.keyframes.building.builder import KeyframeBuilder
    from nre_ros.keyframes.importers.build_map import build_map
    from nre_ros.keyframes.importers.rebuild_source import RebuildSource, named_images, recorded_images
    from nre_ros.keyframes.storage.store import KeyframeStore

    with KeyframeStore.open(args.map, cache_bytes=0) as store:
        places = args.images or recorded_images(store)
        # before the network is loaded: a mistyped folder is reported at once
        with closing(RebuildSource(store, [named_images(place, args.topic) for place in places])) as source:
            try:
                backbone = load_backbone(args.features, choose_device(args.device), args.fine_head)
                if args.fine_head is not None:
                    import_fine_head(args.fine_head)
                builder = KeyframeBuilder(backbone, seed=args.seed)
                warning = store.metadata().get("warning", "")
                report = build_map(source, builder, args.output, force=args.force, warning=warning)
            except KeyboardInterrupt:
                print(f"interrupted; the same command continues {args.output}.partial", file=sys.stderr)
                return 130
    print_table(
        ("map", report.path),
        ("images", ", ".join(map(str, places))),
        ("keyframes", report.keyframes),
        ("points", report.points),
        *((what, f"{count} points") for what, count in sorted(report.tally.items()) if count),
        ("resumed", report.resumed or None),
        ("skipped", len(report.skipped)),
        *((f"  {count}", reason) for reason, count in report.frequent_reasons()),
        ("size", f"{report.file_bytes / 2**20:.1f} MiB"),
        ("seconds", f"{report.seconds:.1f}"),
    )
    return 0
