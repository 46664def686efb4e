# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros benchmark``: public data sets as their owners define them."""

from __future__ import annotations

import argparse
from pathlib import Path

from nre_ros.cli.arguments import positive_int

_DESCRIPTION = """\
Reads a public data set as it is downloaded, builds the map with the official split, localizes the queries and
prints the official table, or writes the submission file, beside published figures of others. Maps and reports
are in DIR; an interrupted run goes on when the same command is given again.

  7scenes     folders chess, fire, ... with seq-XX and TrainSplit.txt (or one of them)
  cambridge   folders KingsCollege, ... with dataset_train.txt and reconstruction.nvm (or one of them)
  aachen      v1.1: images/images_upright, 3D-models/aachen_v_1_1, queries; writes submission.txt
  inloc       database/cutouts, database/alignments, query/iphone7; writes submission.txt
  tum         folders of RGB-D sequences: --scenes MAP,QUERY,... or each one's halves
  euroc       folders V1_01_easy, ... with mav0: the first of each room is the map
"""


def add_parser(subparsers) -> None:
    """Registers the sub-command."""
    from nre_ros.evaluation.datasets import DATASETS

    parser = subparsers.add_parser(
        "benchmark",
        help="run a public benchmark (7-Scenes, Cambridge, Aachen, InLoc, TUM, EuRoC)",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=sorted(DATASETS), metavar="NAME", help=", ".join(DATASETS))
    parser.add_argument("--root", required=True, metavar="DIR", help="where the data set lies")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where maps, reports and the table go")
    parser.add_argument("--scenes", default="", metavar="A,B", help="only these")
    parser.add_argument(
        "--queries", type=positive_int, default=0, metavar="N", help="only N evenly spaced queries of each scene"
    )
    parser.add_argument("--features", default="xfeat", metavar="NAME", help="of the maps (default xfeat)")
    parser.add_argument("--points", type=positive_int, default=500, metavar="N", help="points a keyframe (default 500)")
    parser.add_argument("--retrieve", type=positive_int, default=5, metavar="K", help="keyframes a query (default 5)")
    parser.add_argument(
        "--min-confidence", type=float, default=0.5, metavar="P", help="poses of less are not accepted (default 0.5)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--seed", type=int, default=0, help="of all random draws (default 0)")
    parser.add_argument("--worst", type=int, default=10, metavar="N", help="images that each report shows (default 10)")
    parser.add_argument(
        "--force",
        action="store_true",
        help="localize anew, whatever DIR holds, and make maps anew that were made of something else",
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the benchmark and prints its table."""
    from nre_ros.evaluation.datasets import make_dataset
    from nre_ros.evaluation.datasets.benchmark import run_benchmark
    from nre_ros.evaluation.evaluate import Options
    from nre_ros.features import choose_device, load_backbone
    from nre_ros.keyframes.building.builder import KeyframeBuilder

    output = Path(arguments.output)
    options = Options(
        map_file=output,
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
    scenes = tuple(name for name in arguments.scenes.split(",") if name)
    dataset, root = make_dataset(arguments.name), Path(arguments.root)
    done = run_benchmark(dataset, root, options, builder, scenes, arguments.queries)
    print("\n".join(done.lines))
    if done.submission:
        print(f"submission file: {done.submission}")
    return 0
