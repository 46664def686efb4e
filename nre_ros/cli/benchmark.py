# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros benchmark``: runs a public benchmark with its official split."""

from __future__ import annotations

import argparse
from pathlib import Path

from nre_ros.cli.arguments import add_command, add_localizer_options, positive_int
from nre_ros.packages import ESTIMATOR, PICTURES

_DESCRIPTION = """\
Reads a public data set in the layout in which it is downloaded, builds the map from the official split, localizes
the queries, and prints the official table beside published figures, or writes the submission file. Maps and reports
are written into DIR. The same command continues an interrupted run.

  7scenes     folders chess, fire, ... with seq-XX and TrainSplit.txt (or one of these folders)
  cambridge   folders KingsCollege, ... with dataset_train.txt and reconstruction.nvm (or one of these folders)
  aachen      v1.1: images/images_upright, 3D-models/aachen_v_1_1, queries; writes submission.txt
  inloc       database/cutouts, database/alignments, query/iphone7; writes submission.txt
  tum         folders of RGB-D sequences: --scenes MAP,QUERY,... or the two halves of each sequence
  euroc       folders V1_01_easy, ... with mav0: the first sequence of each room is the map
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    from nre_ros.evaluation.datasets import DATASETS

    summary = "run a public benchmark (7-Scenes, Cambridge, Aachen, InLoc, TUM, EuRoC)"
    parser = add_command(subparsers, "benchmark", summary, _DESCRIPTION)
    parser.add_argument("name", choices=sorted(DATASETS), metavar="NAME", help=", ".join(DATASETS))
    parser.add_argument("--root", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for maps, reports and the table")
    parser.add_argument("--scenes", default="", metavar="A,B", help="only these scenes")
    parser.add_argument(
        "--queries", type=positive_int, default=0, metavar="N", help="only N evenly spaced queries of each scene"
    )
    parser.add_argument("--features", default="xfeat", metavar="NAME", help="features of the maps (default xfeat)")
    parser.add_argument(
        "--points", type=positive_int, default=500, metavar="N", help="map points per keyframe (default 500)"
    )
    add_localizer_options(parser)
    parser.add_argument(
        "--worst", type=int, default=10, metavar="N", help="number of images that each report shows (default 10)"
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the records in DIR, and build maps again that were built from other images or options",
    )
    parser.set_defaults(func=run, packages=(*ESTIMATOR, *PICTURES))


def run(arguments: argparse.Namespace) -> int:
    """Runs the benchmark and prints its table.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code.
    """
    from nre_ros.evaluation.datasets import make_dataset
    from nre_ros.evaluation.datasets.benchmark import run_benchmark
    from nre_ros.evaluation.options import EvaluationOptions
    from nre_ros.features import choose_device, load_backbone
    from nre_ros.keyframes.building.builder import KeyframeBuilder

    output = Path(arguments.output)
    options = EvaluationOptions(
        map_file=output,  # replaced by the map of each scene
        output=output,
        device=arguments.device,
        seed=arguments.seed,
        retrieve=arguments.retrieve,
        min_confidence=arguments.min_confidence,
        worst=max(arguments.worst, 0),
        force=arguments.force,
    )
    backbone = load_backbone(arguments.features, choose_device(arguments.device))
    builder = KeyframeBuilder(backbone, arguments.points, seed=arguments.seed)
    names = tuple(name for name in arguments.scenes.split(",") if name)
    dataset, root = make_dataset(arguments.name), Path(arguments.root)
    result = run_benchmark(dataset, root, options, builder, names, arguments.queries)
    print("\n".join(result.lines))
    if result.submission:
        print(f"submission file: {result.submission}")
    return 0
