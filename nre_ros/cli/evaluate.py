# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros evaluate``: evaluates a map and the localizer on a bag or on a list of images."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nre_ros.cli.arguments import (
    add_command,
    add_deprecated_name,
    add_localizer_options,
    add_node_parameter_option,
    add_pose_convention,
    positive_float,
    positive_int,
)
from nre_ros.packages import ESTIMATOR, PICTURES

if TYPE_CHECKING:
    from nre_ros.evaluation.evaluate import Evaluation
    from nre_ros.evaluation.inputs import EvaluationInput
    from nre_ros.evaluation.options import EvaluationOptions

_DESCRIPTION = """\
Localizes the images of a rosbag2 (sqlite3 or MCAP, read from the file as fast as the machine allows) or of a list,
compares the poses with the ground truth if there is one, and writes into DIR:

  report.html    one page with tables, charts, a top view and the worst images
  summary.json   all figures
  outcomes.csv   one row per image: pose, ground truth, errors, confidence, covariance, durations, reason
  poses.tum      the accepted poses, for evo and other tools
  records.jsonl  one line per image, written while the images are localized

The same command continues an interrupted run. docs/evaluation.md defines every figure.
"""

_EXAMPLE = """\
  nre_ros evaluate --map kitchen.db --bag kitchen/bag -o kitchen_evaluation
  nre_ros evaluate --map kitchen.db --images images --list query.txt --camera cameras.txt \\
      --ground-truth query_poses.txt -o kitchen_evaluation
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    summary = "evaluate a map on a bag or on images with known poses, and write a report"
    parser = add_command(subparsers, "evaluate", summary, _DESCRIPTION, _EXAMPLE)
    parser.add_argument("--map", required=True, metavar="MAP.db", help="map to localize in")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="output folder")
    add_inputs(parser)
    add_ground_truth(parser)
    _add_localizer(parser)
    _add_ros(parser)
    _add_baselines(parser)
    parser.add_argument(
        "--worst",
        type=int,
        default=10,
        metavar="N",
        help="number of the worst images that the report shows with pictures (default 10)",
    )
    parser.set_defaults(func=run, usage_error=parser.error, packages=(*ESTIMATOR, *PICTURES))


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the query images, for ``query_source``.

    Args:
        parser: The parser of the command.
    """
    group = parser.add_argument_group("images")
    group.add_argument("--bag", metavar="BAG", help="folder of a rosbag2, or one .mcap or .db3 file")
    group.add_argument("--image", default="", metavar="TOPIC", help="image topic of the bag (default: the only one)")
    group.add_argument("--camera-info", default="", metavar="TOPIC", help="CameraInfo topic (default: the only one)")
    group.add_argument("--images", metavar="DIR", help="folder that the names in LIST are relative to")
    group.add_argument("--list", metavar="LIST", help="file of image names, one per line (default: all images in DIR)")
    group.add_argument(
        "--camera",
        metavar="CAMERAS.txt",
        help="COLMAP's cameras.txt; of several cameras, each image takes the camera of its size",
    )
    group.add_argument("--every", type=positive_int, default=1, metavar="N", help="only every Nth image (default 1)")


def add_ground_truth(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the ground truth, for ``evaluation_options``.

    Args:
        parser: The parser of the command.
    """
    group = parser.add_argument_group("ground truth: poses of the camera's optical frame in the map")
    group.add_argument(
        "--ground-truth",
        default="",
        metavar="TOPIC|TUM.txt",
        help="topic of type PoseStamped, PoseWithCovarianceStamped or Odometry, or a file of lines "
        "'t x y z qx qy qz qw' or with a header; with --images, line i is the pose of image i (default: the bag's "
        "/ground_truth, or its only PoseStamped topic)",
    )
    add_pose_convention(group, "--truth-format", "--truth-direction", "the poses of a ground-truth file")
    group.add_argument(
        "--truth-frame",
        default="",
        metavar="FRAME",
        help="name of the map's frame in the ground truth, if it differs from the name in the map",
    )
    group.add_argument(
        "--max-gap",
        type=positive_float,
        default=0.1,
        metavar="S",
        help="largest time in seconds between two ground-truth poses that are interpolated (default 0.1)",
    )
    group.add_argument(
        "--wrong-beyond",
        type=positive_float,
        nargs=2,
        default=(0.5, 5.0),
        metavar=("M", "DEG"),
        help="an accepted pose with a larger position or rotation error is wrong (default 0.5 m, 5 degrees)",
    )


def _add_localizer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("localizer", "--min-confidence can be changed without localizing again")
    add_localizer_options(group)
    group.add_argument("--config", metavar="FILE.yml", help="settings of the estimator, under their published names")
    group.add_argument("--force", action="store_true", help="replace the records of an earlier evaluation in DIR")


def _add_ros(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("through the ROS node")
    group.add_argument(
        "--through-ros", action="store_true", help="play the bag over DDS to the node instead of reading it directly"
    )
    group.add_argument("--rate", type=positive_float, default=1.0, help="speed relative to real time (default 1)")
    add_node_parameter_option(group)


def _add_baselines(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "baselines: other methods on the same retrieved keyframes (requirements/baselines.txt)"
    )
    baselines = group.add_argument(
        "--baselines",
        nargs="?",
        const="all",
        default="",
        metavar="NAME,NAME",
        help="sift, xfeat, lighterglue, disk_lightglue (default, without names: all that are installed)",
    )
    add_deprecated_name(group, "--peers", baselines)
    group.add_argument("--map-images", metavar="DIR", help="folder of the map's images, by the names of the keyframes")
    group.add_argument(
        "--map-depth",
        metavar="DIR",
        help="folder of the map's depth images (.png, 16 bit, mm); without it, the points of the baselines' keypoints "
        "are triangulated",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the evaluation and prints the most important figures.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code.
    """
    from nre_ros.evaluation.evaluate import evaluate

    baselines, source = _baselines(arguments), query_source(arguments)
    options = replace(
        evaluation_options(arguments),
        through_ros=arguments.through_ros,
        rate=arguments.rate,
        parameters=dict(arguments.param),
        baselines=baselines,
        map_images=_path(arguments.map_images),
        map_depth=_path(arguments.map_depth),
    )
    _print_summary(evaluate(source, options))
    return 0


def evaluation_options(arguments: argparse.Namespace) -> EvaluationOptions:
    """Returns the options of an evaluation without ROS and without baselines.

    Args:
        arguments: Parsed arguments, with ``--map``, ``-o``, ``--config``, ``--worst``, ``--force`` and the options of
            ground truth and localizer.

    Raises:
        NreError: The file of settings cannot be read.
    """
    from nre_ros.evaluation.options import EvaluationOptions
    from nre_ros.keyframes.importers.pose_columns import PoseConvention
    from nre_ros.nre import EstimatorConfig, load_config

    metres, degrees = arguments.wrong_beyond
    return EvaluationOptions(
        map_file=Path(arguments.map),
        output=Path(arguments.output),
        ground_truth=arguments.ground_truth,
        ground_truth_frame=arguments.truth_frame,
        convention=PoseConvention(arguments.truth_format, arguments.truth_direction),
        max_gap=arguments.max_gap,
        device=arguments.device,
        seed=arguments.seed,
        retrieve=arguments.retrieve,
        min_confidence=arguments.min_confidence,
        wrong_beyond=(metres, degrees),
        config=load_config(arguments.config) if arguments.config else EstimatorConfig(),
        worst=max(arguments.worst, 0),
        force=arguments.force,
    )


def query_source(arguments: argparse.Namespace) -> EvaluationInput:
    """Opens the query images that the options name.

    Args:
        arguments: Parsed arguments, with the options of ``add_inputs``.

    Raises:
        NreError: The images cannot be used.
    """
    from nre_ros.evaluation.inputs import ImageListInput

    through_ros = getattr(arguments, "through_ros", False)
    if (arguments.bag is None) == (arguments.images is None):
        arguments.usage_error("give either --bag BAG or --images DIR")
    if arguments.bag is not None:
        from nre_ros.evaluation.bag_input import BagInput

        if through_ros and (arguments.config or arguments.every != 1):
            option = "--config" if arguments.config else "--every"
            arguments.usage_error(
                f"--through-ros and {option} exclude each other: the node receives all images and has its own estimator"
            )
        return BagInput(arguments.bag, arguments.image, arguments.camera_info, arguments.every)
    if arguments.camera is None:
        arguments.usage_error("--images needs --camera CAMERAS.txt")
    if through_ros:
        arguments.usage_error("--through-ros needs --bag")
    return ImageListInput(arguments.images, arguments.list, arguments.camera, arguments.every)


def _baselines(arguments: argparse.Namespace) -> tuple[str, ...]:
    if not arguments.baselines:
        return ()
    from nre_ros.evaluation.baselines import BASELINES

    if arguments.map_images is None:
        arguments.usage_error("--baselines needs --map-images DIR: a map file does not contain its images")
    if arguments.through_ros:
        arguments.usage_error("--baselines and --through-ros exclude each other: baselines read images from files")
    names = tuple(BASELINES) if arguments.baselines == "all" else tuple(arguments.baselines.split(","))
    unknown = [name for name in names if name not in BASELINES]
    if unknown:
        arguments.usage_error(f"unknown baseline {unknown[0]!r}, known: {', '.join(BASELINES)}")
    return names


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _print_summary(done: Evaluation) -> None:
    from nre_ros.cli.output import print_table
    from nre_ros.evaluation.report import tables

    summaries = {"nre_ros": done.summary, **done.summary.get("baselines", {})}
    rows = tables.main_rows(summaries)
    if len(summaries) > 1:
        rows.insert(0, ["", *summaries])
    total = tables.latency_rows(summaries)[-1]
    print_table(
        *tables.join_columns(rows),
        ("time per image", "  ".join(f"{cell} ms (median, 99%)" for cell in total[1:])),
        *(("no pose", f"{number} x {reason}") for reason, number in done.summary["reasons"].items()),
        ("report", done.report),
    )
