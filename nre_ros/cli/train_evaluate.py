# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros train evaluate``: how accurate the poses are with trained weights, on a map that they were not trained on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nre_ros.cli import evaluate
from nre_ros.cli.arguments import Subparsers, add_command, add_localizer_options, non_negative_int, positive_int
from nre_ros.cli.output import print_table
from nre_ros.packages import ESTIMATOR, PICTURES

if TYPE_CHECKING:
    from nre_ros.evaluation.fine_heads import Comparison

_DESCRIPTION = """\
Builds a map with each fine head and with the packaged one, localizes the same queries in each, and prints the pose
errors side by side. The images must be other ones than those of the training. They come from one of these:

  --rooms SEED ...       rendered rooms, for a first impression
  --dataset NAME --root  a public benchmark, as for `nre_ros benchmark`
  --map MAP.db --bag ... a map whose images are at hand, and queries as for `nre_ros evaluate`

Maps, reports, a page that compares the heads (SCENE_comparison.html) and all figures (figures.json) are written into
DIR. The same command continues an interrupted run.
"""
_EXAMPLE = """\
  nre_ros train evaluate training/fine_head.safetensors -o evaluation --rooms 900 901
  nre_ros train evaluate training/fine_head.safetensors -o evaluation --map hall.db --bag hall_second_run
"""


def add_parser(commands: Subparsers) -> None:
    """Registers the command.

    Args:
        commands: The commands of ``nre_ros train``.
    """
    summary = "compare trained heads with the packaged one by pose error"
    parser = add_command(commands, "evaluate", summary, _DESCRIPTION, _EXAMPLE)
    parser.add_argument("heads", nargs="+", metavar="FILE", help="fine heads (.safetensors)")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")
    _add_rooms(parser)
    _add_dataset(parser)
    group = parser.add_argument_group("a map and queries of your own")
    group.add_argument("--map", metavar="MAP.db", help="map whose keyframes and points are used, with new descriptors")
    group.add_argument(
        "--map-images",
        action="append",
        default=[],
        metavar="FOLDER_OR_BAG",
        help="images of the map; may be given several times (default: where they were when the map was built)",
    )
    group.add_argument(
        "--map-topic", default="", metavar="TOPIC", help="topic of the map's images in a bag (default: the only one)"
    )
    evaluate.add_inputs(parser)
    evaluate.add_ground_truth(parser)
    group = parser.add_argument_group("localizer")
    add_localizer_options(group)
    group.add_argument("--config", metavar="FILE.yml", help="settings of the estimator, under their published names")
    group.add_argument(
        "--worst",
        type=non_negative_int,
        default=10,
        metavar="N",
        help="number of the worst images that each report shows with pictures (default 10)",
    )
    group.add_argument(
        "--force", action="store_true", help="replace records and maps of other images or options in DIR"
    )
    parser.set_defaults(func=run, usage_error=parser.error, packages=(*ESTIMATOR, *PICTURES))


def _add_rooms(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("rendered rooms")
    group.add_argument("--rooms", type=non_negative_int, nargs="+", default=[], metavar="SEED", help="seeds of rooms")
    group.add_argument(
        "--keyframes", type=positive_int, default=80, metavar="N", help="views in the map of each room (default 80)"
    )
    group.add_argument(
        "--room-queries", type=positive_int, default=40, metavar="N", help="queries in each room (default 40)"
    )


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    from nre_ros.evaluation.datasets import DATASETS

    group = parser.add_argument_group("public benchmark")
    group.add_argument("--dataset", choices=sorted(DATASETS), metavar="NAME", help=", ".join(DATASETS))
    group.add_argument("--root", metavar="DIR", help="folder of the data set")
    group.add_argument("--scenes", default="", metavar="A,B", help="only these scenes")
    group.add_argument(
        "--queries", type=non_negative_int, default=0, metavar="N", help="only N evenly spaced queries of each scene"
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates the heads and prints the figures.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code.
    """
    chosen = [name for name in ("rooms", "dataset", "map") if getattr(arguments, name)]
    if len(chosen) != 1:
        arguments.usage_error("give either --rooms SEED, or --dataset NAME, or --map MAP.db")
    found = _compare(arguments)
    from nre_ros.evaluation.fine_heads import PAGE
    from nre_ros.evaluation.report import tables

    for scene, runs in found.items():
        summaries = {name: done.summary for name, done in runs.items()}
        total = tables.latency_rows(summaries)[-1]
        rows = [[scene, *runs], *tables.main_rows(summaries), ["time per image [ms] (median, 99%)", *total[1:]]]
        print_table(*tables.join_columns(rows), ("page", Path(arguments.output) / f"{scene}_{PAGE}"))
        print()
    return 0


def _compare(arguments: argparse.Namespace) -> Comparison:
    from nre_ros.evaluation.fine_heads import compare_on_dataset, compare_on_map, name_heads

    heads = name_heads([Path(file) for file in arguments.heads])
    output = Path(arguments.output)
    if arguments.map:
        source = evaluate.query_source(arguments)
        options = evaluate.evaluation_options(arguments)
        return compare_on_map(source, heads, options, arguments.map_images, arguments.map_topic)
    arguments.map = output  # replaced by the map of each scene
    options = evaluate.evaluation_options(arguments)
    if arguments.rooms:
        from nre_ros.evaluation.datasets.rendered_rooms import RenderedRooms

        dataset = RenderedRooms(arguments.rooms, arguments.keyframes, arguments.room_queries)
        return compare_on_dataset(dataset, output / "rooms", heads, options)
    if arguments.root is None:
        arguments.usage_error("--dataset needs --root DIR")
    from nre_ros.evaluation.datasets import make_dataset

    names = tuple(name for name in arguments.scenes.split(",") if name)
    return compare_on_dataset(
        make_dataset(arguments.dataset), Path(arguments.root), heads, options, names, arguments.queries
    )
