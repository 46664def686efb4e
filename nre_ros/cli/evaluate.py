# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros evaluate``: how well a map and the localizer do on a recording or a list of images."""

from __future__ import annotations

import argparse
from pathlib import Path

from nre_ros.cli.arguments import count
from nre_ros.cli.replay import parameter, positive

_DESCRIPTION = """\
Localizes the images of a rosbag2 (sqlite3 or MCAP, read directly and as fast as the machine allows) or of a
list, compares the poses with the ground truth where there is one, and writes into DIR:

  report.html    one page to show to others: figures, the way from above, the worst images
  summary.json   all figures
  outcomes.csv   one row an image: pose, truth, errors, confidence, covariance, times, reason
  poses.tum      the accepted poses, for evo and others
  records.jsonl  one line an image as they were localized; an interrupted run goes on there when the same
                 command is given again

docs/evaluation.md defines every figure.
"""

_EXAMPLES = """\
examples:
  nre_ros evaluate --map kitchen.db --bag kitchen/bag -o kitchen_evaluation
  nre_ros evaluate --map kitchen.db --images images --list query.txt --camera cameras.txt \\
      --ground-truth query_poses.txt -o kitchen_evaluation
"""


def add_parser(subparsers) -> None:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "evaluate",
        help="how well it does on a bag or on images with known poses: figures and a report",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--map", required=True, metavar="MAP.db", help="map to localize in")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where to write")
    _add_inputs(parser)
    _add_truth(parser)
    _add_localizer(parser)
    _add_ros(parser)
    _add_peers(parser)
    parser.add_argument(
        "--worst",
        type=int,
        default=10,
        metavar="N",
        help="images that the report shows with pictures, the worst of all (default 10)",
    )
    parser.set_defaults(func=run, usage_error=parser.error)


def _add_inputs(parser) -> None:
    group = parser.add_argument_group("images")
    group.add_argument("--bag", metavar="BAG", help="folder of a rosbag2, or one .mcap or .db3 file")
    group.add_argument("--image", default="", metavar="TOPIC", help="image topic of the bag (default: the only one)")
    group.add_argument("--camera-info", default="", metavar="TOPIC", help="its CameraInfo (default: the only one)")
    group.add_argument("--images", metavar="DIR", help="folder that the names in LIST are relative to")
    group.add_argument("--list", metavar="LIST", help="file of image names, one a line (default: all images in DIR)")
    group.add_argument(
        "--camera",
        metavar="CAMERAS.txt",
        help="COLMAP's cameras.txt; of several cameras each image takes the one of its size",
    )
    group.add_argument("--every", type=count, default=1, metavar="N", help="only every Nth image (default 1)")


def _add_truth(parser) -> None:
    group = parser.add_argument_group("ground truth: poses of the camera's optical frame in the map")
    group.add_argument(
        "--ground-truth",
        default="",
        metavar="TOPIC|TUM.txt",
        help="topic of PoseStamped, PoseWithCovarianceStamped or Odometry, or a file 't x y z qx qy qz "
        "qw'; of a list, line i belongs to image i (default: the bag's /ground_truth, or its only "
        "PoseStamped)",
    )
    group.add_argument(
        "--truth-frame", default="", metavar="FRAME", help="the truth's name for the map's frame, if it has another"
    )
    group.add_argument(
        "--max-gap",
        type=positive,
        default=0.1,
        metavar="S",
        help="seconds between two true poses beyond which nothing is interpolated (default 0.1)",
    )
    group.add_argument(
        "--wrong-beyond",
        type=positive,
        nargs=2,
        default=(0.5, 5.0),
        metavar=("M", "DEG"),
        help="an accepted pose that is off by more than either is wrong (default 0.5 m, 5 degrees)",
    )


def _add_localizer(parser) -> None:
    group = parser.add_argument_group("localizer")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    group.add_argument("--seed", type=int, default=0, help="of the random draws: same seed, same poses (default 0)")
    group.add_argument("--retrieve", type=count, default=5, metavar="K", help="keyframes a query (default 5)")
    group.add_argument(
        "--min-confidence",
        type=float,
        default=0.5,
        metavar="P",
        help="poses of less are not accepted (default 0.5); may be changed without localizing anew",
    )
    group.add_argument("--config", metavar="FILE.yml", help="settings of the estimator, under their published names")
    group.add_argument("--force", action="store_true", help="start afresh, whatever DIR holds")


def _add_ros(parser) -> None:
    group = parser.add_argument_group("through the real node")
    group.add_argument(
        "--through-ros", action="store_true", help="play the bag over DDS to the node instead of reading it"
    )
    group.add_argument("--rate", type=positive, default=1.0, help="times real time (default 1)")
    group.add_argument(
        "--param",
        action="append",
        default=[],
        type=parameter,
        metavar="NAME:=VALUE",
        help="a parameter of the node; may be given several times",
    )


def _add_peers(parser) -> None:
    group = parser.add_argument_group(
        "peers: other methods on the same retrieved keyframes (requirements/baselines.txt)"
    )
    group.add_argument(
        "--peers",
        nargs="?",
        const="all",
        default="",
        metavar="NAME,NAME",
        help="sift, xfeat, lighterglue, disk_lightglue (default, without names: all that are installed)",
    )
    group.add_argument("--map-images", metavar="DIR", help="folder of the map's images, by the keyframes' names")
    group.add_argument(
        "--map-depth",
        metavar="DIR",
        help="folder of their depth images (.png, 16 bit, mm), if there "
        "are some: else the peers' points are triangulated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluates and prints the most important figures."""
    from nre_ros.evaluation.evaluate import Options, evaluate
    from nre_ros.nre import EstimatorConfig, load_config

    peers, source = _peers(arguments), _source(arguments)
    options = Options(
        map_file=Path(arguments.map),
        output=Path(arguments.output),
        truth=arguments.ground_truth,
        truth_frame=arguments.truth_frame,
        max_gap=arguments.max_gap,
        device=arguments.device,
        seed=arguments.seed,
        retrieve=arguments.retrieve,
        min_confidence=arguments.min_confidence,
        wrong_beyond=tuple(arguments.wrong_beyond),
        config=load_config(arguments.config) if arguments.config else EstimatorConfig(),
        through_ros=arguments.through_ros,
        rate=arguments.rate,
        parameters=dict(arguments.param),
        peers=peers,
        map_images=_path(arguments.map_images),
        map_depth=_path(arguments.map_depth),
        worst=max(arguments.worst, 0),
        force=arguments.force,
    )
    done = evaluate(source, options)
    _print(done)
    return 0


def _source(arguments):
    from nre_ros.evaluation.inputs import ImageListInput

    if (arguments.bag is None) == (arguments.images is None):
        arguments.usage_error("give --bag BAG, or --images DIR")
    if arguments.bag is not None:
        from nre_ros.evaluation.bag_input import BagInput

        if arguments.through_ros and (arguments.config or arguments.every != 1):
            option = "--config" if arguments.config else "--every"
            arguments.usage_error(
                f"--through-ros and {option} exclude each other: the node has all images and its own estimator"
            )
        return BagInput(arguments.bag, arguments.image, arguments.camera_info, arguments.every)
    if arguments.camera is None:
        arguments.usage_error("--images needs --camera CAMERAS.txt")
    if arguments.through_ros:
        arguments.usage_error("--through-ros plays a --bag")
    return ImageListInput(arguments.images, arguments.list, arguments.camera, arguments.every)


def _peers(arguments) -> tuple[str, ...]:
    if not arguments.peers:
        return ()
    from nre_ros.evaluation.baselines import PEERS

    if arguments.map_images is None:
        arguments.usage_error("--peers needs --map-images DIR: a map holds no images")
    if arguments.through_ros:
        arguments.usage_error("--peers and --through-ros exclude each other: peers take images from files")
    names = tuple(PEERS) if arguments.peers == "all" else tuple(arguments.peers.split(","))
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        arguments.usage_error(f"there is no peer {unknown[0]!r}, known: {', '.join(PEERS)}")
    return names


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _print(done) -> None:
    from nre_ros.cli.tables import print_table
    from nre_ros.evaluation.report import tables

    summaries = {"nre_ros": done.summary, **done.summary.get("peers", {})}
    rows = tables.main_rows(summaries)
    if len(summaries) > 1:
        rows.insert(0, ["", *summaries])
    widths = [max(len(row[k]) for row in rows) for k in range(1, len(rows[0]))]
    latency = tables.latency_rows(summaries)[-1]
    print_table(
        *((row[0], "  ".join(cell.ljust(width) for cell, width in zip(row[1:], widths)).rstrip()) for row in rows),
        ("time an image", "  ".join(f"{cell} ms (median, 99%)" for cell in latency[1:])),
        *(("no pose", f"{number} x {reason}") for reason, number in done.summary["reasons"].items()),
        ("report", done.report),
    )
