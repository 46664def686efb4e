# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map build``: a keyframe map from a COLMAP model, posed images, RGB-D or kapture folders, or a bag."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nre_ros.cli.arguments import (
    add_deprecated_name,
    add_device_option,
    add_fine_head_option,
    add_pose_convention,
    add_seed_option,
    add_threads_option,
    non_negative_float,
    positive_int,
)
from nre_ros.cli.output import print_table
from nre_ros.errors import ImportSourceError
from nre_ros.features import BACKBONES, DEFAULT_BACKBONE
from nre_ros.packages import ESTIMATOR

if TYPE_CHECKING:
    from nre_ros.keyframes.building.culling import CullingRule
    from nre_ros.keyframes.importers.import_report import ImportReport
    from nre_ros.keyframes.importers.map_source import MapSource
    from nre_ros.keyframes.importers.pose_agreement.check import PoseCheck

_BUILD_HELP = """The map is written to MAP.db.partial and renamed when it is complete. After an interruption the same
command continues the build. Images that cannot be imported are reported with the reason and counted; the others are
imported."""


@dataclass(frozen=True)
class _Importer:
    """A sub-command of ``map build``.

    Attributes:
        name: What the user types.
        help: One line for the list of sub-commands.
        description: What it reads, for its own help.
        add_arguments: Adds its own arguments.
        make_source: Opens the source that the arguments name.
        usage: Usage lines, if the generated ones are not clear enough.
    """

    name: str
    help: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    make_source: Callable[[argparse.Namespace], MapSource]
    usage: str | None = None


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers ``map build colmap|posed|rgbd|kapture|bag``.

    Args:
        commands: The commands of ``nre_ros map``.
    """
    build = commands.add_parser("build", help="build a map", description="Build a map. " + _BUILD_HELP)
    sources = build.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for importer in _IMPORTERS:
        parser = sources.add_parser(
            importer.name,
            help=importer.help,
            description=f"{importer.description} {_BUILD_HELP}",
            usage=importer.usage,
        )
        importer.add_arguments(parser)
        if importer.name != "colmap":  # a model's points fix what its poses are of
            _add_pose_frame(parser)
        _add_build_options(parser)
        parser.set_defaults(
            func=_build, make_source=importer.make_source, usage_error=parser.error, packages=(*ESTIMATOR, "tqdm")
        )


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that all importers share."""
    parser.add_argument("-o", "--output", metavar="MAP.db", help="the map file to write")
    parser.add_argument(
        "--diagnose",
        action="store_true",
        help="write no map: compare poses, cameras and depth with the images, and try which mistake explains a "
        "disagreement; exit code 1 if they disagree",
    )
    parser.add_argument(
        "--accept-poses", action="store_true", help="build the map although the poses disagree with the images"
    )
    parser.add_argument(
        "--features",
        choices=sorted(BACKBONES),
        default=DEFAULT_BACKBONE,
        help="xfeat (default), or nre: the published networks, after `nre_ros weights import`",
    )
    add_fine_head_option(parser)
    add_device_option(parser)
    add_threads_option(parser)
    parser.add_argument(
        "--points", type=positive_int, default=500, metavar="N", help="points of a keyframe (default 500)"
    )
    add_seed_option(parser, "the random draws")
    parser.add_argument("--force", action="store_true", help="replace an existing map when the new one is complete")
    parser.add_argument(
        "--no-check", action="store_true", help="do not check the complete map (see `nre_ros map check`)"
    )
    parser.add_argument("--keep-all", action="store_true", help="keep near-duplicates of earlier views too")
    motion = parser.add_argument(
        "--cull-motion",
        type=non_negative_float,
        metavar="RAD",
        help="a view whose scene moved by less than this angle in the image is a near-duplicate of an earlier view "
        "(default 0.004; for recordings 0.05)",
    )
    overlap = parser.add_argument(
        "--cull-overlap",
        type=non_negative_float,
        metavar="SHARE",
        help="... if the view also shows this share of the earlier view's points (default 0.95; for recordings 0.8)",
    )
    add_deprecated_name(parser, "--thin-motion", motion)
    add_deprecated_name(parser, "--thin-overlap", overlap)


def _add_pose_frame(parser: argparse.ArgumentParser) -> None:
    """Adds what the poses of a source are of."""
    parser.add_argument(
        "--pose-frame",
        choices=("camera", "body", "opengl"),
        default="camera",
        help="what the poses are of: the camera's optical frame (z forward, x right, y down; default), a body frame "
        "(x forward, y left, z up), or an OpenGL camera (z backward, x right, y up)",
    )
    parser.add_argument(
        "--extrinsics",
        metavar="'X Y Z [QX QY QZ QW]'",
        help="the camera's place in the frame that the poses are of, in metres; a quaternion replaces the axes of "
        "--pose-frame",
    )


def _add_colmap_arguments(parser: argparse.ArgumentParser, files: str) -> None:
    """Adds the model and its images; ``files``: what the model's folder must contain."""
    parser.add_argument("sparse", metavar="SPARSE_DIR", help=f"folder with {files} (.txt or .bin)")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that the image names are relative to")
    parser.add_argument("--list", metavar="LIST", help="file of image names, one a line: import only these")


def _colmap_source(args: argparse.Namespace) -> MapSource:
    from nre_ros.keyframes.importers.colmap.model_source import ColmapSource

    return ColmapSource(args.sparse, args.images, args.list)


def _posed_source(args: argparse.Namespace) -> MapSource:
    from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource

    return ColmapPosesSource(args.sparse, args.images, args.list)


def _add_kapture_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="folder that contains sensors/")
    parser.add_argument(
        "--list", metavar="LIST", help="file of image names as in records_camera.txt: import only these"
    )


def _kapture_source(args: argparse.Namespace) -> MapSource:
    from nre_ros.keyframes.importers.kapture import KaptureSource

    return KaptureSource(args.folder, args.list)


def _add_rgbd_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="FOLDER",
        help="folder of TUM RGB-D, of 7-Scenes, or written by `nre_ros demo`: recognised by its files",
    )
    parser.add_argument("--sequences", metavar="train|test|all|SEQ,SEQ", help="sequences of 7-Scenes (default train)")
    parser.add_argument("--images", metavar="DIR", help="folder of the colour images")
    parser.add_argument("--depth", metavar="DIR", help="folder of the depth images")
    parser.add_argument(
        "--poses",
        metavar="TUM.txt",
        help="poses, 't x y z qx qy qz qw' or with a header; line i belongs to line i of LIST",
    )
    parser.add_argument("--list", metavar="LIST", help="file of image names, one a line")
    add_pose_convention(parser, "--pose-format", "--pose-direction", "the poses")
    parser.add_argument(
        "--camera",
        metavar="CAMERAS.txt",
        help="COLMAP's cameras.txt with one camera (with FOLDER: instead of the data set's own)",
    )
    parser.add_argument(
        "--depth-scale", type=float, metavar="N", help="depth value of one metre (default 1000, TUM RGB-D 5000)"
    )
    _add_no_refine(parser)


def _rgbd_source(args: argparse.Namespace) -> MapSource:
    from nre_ros.keyframes.importers.pose_columns import PoseConvention
    from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource
    from nre_ros.keyframes.importers.rgbd.layouts import rgbd_folder_source

    lists = {"--images": args.images, "--depth": args.depth, "--poses": args.poses, "--list": args.list}
    convention = PoseConvention(args.pose_format, args.pose_direction)
    if args.folder is not None:
        given = [option for option, value in lists.items() if value is not None]
        if given:
            args.usage_error(f"FOLDER and {given[0]} exclude each other")
        return rgbd_folder_source(args.folder, args.camera, args.sequences, args.depth_scale, convention)
    missing = [option for option, value in {**lists, "--camera": args.camera}.items() if value is None]
    if missing:
        args.usage_error(f"FOLDER or {', '.join(missing)} is missing")
    scale = 1000.0 if args.depth_scale is None else args.depth_scale
    return RgbdFolderSource(args.images, args.depth, args.poses, args.list, args.camera, scale, convention)


def _add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", metavar="BAG", help="folder of the bag, or one .mcap or .db3 file")
    parser.add_argument("--image", default="", metavar="TOPIC", help="colour or grey images, raw or compressed")
    parser.add_argument("--camera-info", default="", metavar="TOPIC", help="their camera")
    parser.add_argument("--depth", default="", metavar="TOPIC", help="depth images, raw, compressed or compressedDepth")
    parser.add_argument(
        "--depth-info",
        default="",
        metavar="TOPIC",
        help="the depth camera, where depth is not registered to the images",
    )
    parser.add_argument(
        "--depth-scale",
        type=float,
        metavar="N",
        help="depth value of one metre (default: 1000 for depth of 16 bits, 1 for depth of 32 bits)",
    )
    parser.add_argument(
        "--mono",
        action="store_true",
        help="do not use depth: points are triangulated, as from a bag without depth",
    )
    parser.add_argument("--poses", default="", metavar="TOPIC", help="poses instead of /tf")
    parser.add_argument(
        "--pose-of",
        default="",
        metavar="FRAME",
        help="the frame whose poses these are (default: child_frame_id of Odometry, else the camera)",
    )
    parser.add_argument(
        "--frame",
        default="",
        metavar="FRAME",
        help="the map's frame (default: map, or odom if /tf does not lead to map; with --poses the topic's own frame)",
    )
    _add_no_refine(parser)


def _bag_source(args: argparse.Namespace) -> MapSource:
    from nre_ros.keyframes.importers.bag.options import BagOptions
    from nre_ros.keyframes.importers.bag.source import bag_source

    options = BagOptions(
        image=args.image,
        camera_info=args.camera_info,
        depth=args.depth,
        depth_info=args.depth_info,
        depth_scale=args.depth_scale,
        use_depth=not args.mono,
        poses=args.poses,
        pose_of=args.pose_of,
        frame=args.frame,
    )
    return bag_source(args.bag, options)


def _add_no_refine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-refine",
        action="store_true",
        help="use the sensor's depth as it is, without refining it against the other images",
    )


_IMPORTERS = (
    _Importer(
        "colmap",
        "from a COLMAP model with its images",
        "Build a map from a COLMAP sparse model (text or binary) and its images.",
        lambda parser: _add_colmap_arguments(parser, "cameras, images and points3D"),
        _colmap_source,
    ),
    _Importer(
        "posed",
        "from images with known poses and cameras, without depth",
        "Build a map from the poses and cameras of a COLMAP sparse model (text or binary), whose points may be absent, "
        "and its images. Points are triangulated between images that overlap.",
        lambda parser: _add_colmap_arguments(parser, "cameras and images"),
        _posed_source,
    ),
    _Importer(
        "rgbd",
        "from colour and depth images with poses",
        "Build a map from a sequence of TUM RGB-D or a scene of 7-Scenes as they are downloaded, or from colour "
        "images, depth images of the same names (.png, 16 bit, aligned with the colour images) and poses.",
        _add_rgbd_arguments,
        _rgbd_source,
        usage="nre_ros map build rgbd FOLDER -o MAP.db [options]\n"
        "       nre_ros map build rgbd --images DIR --depth DIR --poses TUM.txt --list LIST --camera CAMERAS.txt "
        "-o MAP.db [options]",
    ),
    _Importer(
        "kapture",
        "from a kapture folder, rigs included",
        "Build a map from the camera records of a kapture folder (format 1.1): poses from trajectories.txt and "
        "rigs.txt. Points are triangulated between images that overlap.",
        _add_kapture_arguments,
        _kapture_source,
    ),
    _Importer(
        "bag",
        "from a rosbag2 with camera images and poses",
        "Build a map from a rosbag2 (sqlite3 or MCAP), without playback and without ROS. A topic that is not named is "
        "the only fitting one of the bag. Poses are looked up in /tf and /tf_static, or come from a topic of "
        "PoseStamped, PoseWithCovarianceStamped or Odometry.",
        _add_bag_arguments,
        _bag_source,
    ),
)


def _build(args: argparse.Namespace) -> int:
    """Builds the map, prints the closing table, and closes the source."""
    with ExitStack() as sources:
        return _build_map(args, sources)


def _build_map(args: argparse.Namespace, sources: ExitStack) -> int:
    """Builds the map and prints the closing table."""
    from nre_ros.features import choose_device, load_backbone
    from nre_ros.features.weights import import_fine_head
    from nre_ros.keyframes.building.builder import KeyframeBuilder
    from nre_ros.keyframes.importers.build_map import build_map
    from nre_ros.keyframes.importers.pose_agreement.check import LIKELY_CAUSES, check_poses
    from nre_ros.keyframes.importers.pose_agreement.pairs import ANCHORS, DIAGNOSIS_ANCHORS

    if args.output is None and not args.diagnose:
        args.usage_error("the following arguments are required: -o/--output")
    try:
        # before the network is loaded: a mistyped folder is reported at once
        source = sources.enter_context(closing(_open_source(args)))
        check = check_poses(source, DIAGNOSIS_ANCHORS if args.diagnose else ANCHORS)
        for line in check.lines():
            print(f"warning: {line}", file=sys.stderr)
        if not (check.good or check.refused or args.diagnose):
            print(f"warning: to compare more images: nre_ros {_diagnosis_command()}", file=sys.stderr)
        if args.diagnose:
            print_table(("pose check", check.summary()))
            return 0 if check.good else 1
        if check.refused and not args.accept_poses:
            raise ImportSourceError(
                f"map {args.output} is not written: {check.summary()}. Correct the source, compare more images (nre_ros "
                f"{_diagnosis_command()}), or give --accept-poses"
            )
        backbone = load_backbone(args.features, choose_device(args.device), args.fine_head)
        if args.fine_head is not None:
            import_fine_head(args.fine_head)
        builder = KeyframeBuilder(backbone, args.points, seed=args.seed)
        report = build_map(
            source,
            builder,
            args.output,
            force=args.force,
            culling=_culling_rule(args, source),
            warning="" if check.good else check.summary(),
        )
    except KeyboardInterrupt:
        continued = "" if args.diagnose else f"; the same command continues {args.output}.partial"
        print(f"interrupted{continued}", file=sys.stderr)
        return 130
    _print_report(report, source, check)
    interrupted = not args.no_check and not _check_new_map(args, source)
    if support_warning := report.support_warning():
        causes = f"Likely causes: {LIKELY_CAUSES}"
        if check.pairs and check.good:
            causes = "The poses agree with the images that were compared: these may be few, far apart or not in order"
        print(f"warning: {support_warning}. {causes}. To find out: nre_ros {_diagnosis_command()}", file=sys.stderr)
    return 130 if interrupted else 0


def _check_new_map(args: argparse.Namespace, source: MapSource) -> bool:
    """Checks the new map with the images of its source; the map is complete whatever comes of it.

    Returns whether the user let the check end.
    """
    from nre_ros.errors import NreError
    from nre_ros.keyframes.importers.source_images import SourceImages
    from nre_ros.map_check.check import check_map

    by_hand = f"to check it: nre_ros map check {shlex.quote(args.output)}"
    try:
        result = check_map(
            args.output, [SourceImages(source)], device=args.device, seed=args.seed, progress=sys.stderr.isatty()
        )
    except KeyboardInterrupt:
        print(f"interrupted while the map was being checked; the map is complete; {by_hand}", file=sys.stderr)
        return False
    except NreError as error:
        print(f"the map was not checked: {error}", file=sys.stderr)
        return True
    print_table(*result.summary()[2:])
    if result.suspicious:
        print(
            f"warning: {len(result.suspicious)} keyframes do not fit the rest; for a report with pictures: nre_ros map "
            f"check {shlex.quote(args.output)} -o DIR",
            file=sys.stderr,
        )
    return True


def _diagnosis_command() -> str:
    """This command with --diagnose in place of what concerns the map file."""
    arguments, kept = iter(sys.argv[1:]), []
    for argument in arguments:
        option = argument.partition("=")[0] if len(argument) > 2 else ""
        if argument == "-o" or argument == option and _abbreviates(option, "--output"):
            next(arguments, None)  # the map file
        elif not (
            _abbreviates(option, "--output", "--force", "--accept-poses")
            or (argument.startswith("-o") and not argument.startswith("--"))
        ):
            kept.append(argument)
    return shlex.join([*kept, "--diagnose"])


def _abbreviates(text: str, *options: str) -> bool:
    return len(text) > 2 and any(option.startswith(text) for option in options)


def _open_source(args: argparse.Namespace) -> MapSource:
    """Opens the source with the options that all sources share, and prints its notes."""
    from nre_ros.keyframes.importers.map_source import PosedImageSource
    from nre_ros.keyframes.importers.pose_frames import camera_in_pose_frame

    source: MapSource = args.make_source(args)
    if getattr(args, "no_refine", False):
        source.refine = False
    if isinstance(source, PosedImageSource) and hasattr(args, "pose_frame"):
        source.T_pose_cam = camera_in_pose_frame(args.pose_frame, args.extrinsics)
    for note in source.notes:
        print(note, file=sys.stderr)
    if isinstance(source, PosedImageSource) and source.frame_warning and source.T_pose_cam is None:
        print(f"warning: {source.frame_warning}", file=sys.stderr)
    return source


def _culling_rule(args: argparse.Namespace, source: MapSource) -> CullingRule:
    """The source's rule, with the limits that the options give."""
    from nre_ros.keyframes.building.culling import CullingRule

    motion = source.culling_rule.motion if args.cull_motion is None else args.cull_motion
    overlap = source.culling_rule.overlap if args.cull_overlap is None else args.cull_overlap
    return CullingRule(0.0 if args.keep_all else motion, overlap)


def _print_report(report: ImportReport, source: MapSource, check: PoseCheck) -> None:
    of_this_run = f" (of the {report.keyframes - report.resumed} keyframes of this run)" if report.resumed else ""
    print_table(
        ("map", report.path),
        ("poses", None if source.pose_columns is None else source.pose_columns.describe()),
        ("keyframes", report.keyframes),
        ("points", report.points),
        ("pose check", check.summary()),
        *((what, f"{count} points{of_this_run}") for what, count in sorted(report.tally.items())),
        ("named more than once", report.repeated or None),
        ("resumed", report.resumed or None),
        *source.counts,
        ("duplicates left out", len(report.near_duplicates)),
        ("skipped", len(report.skipped)),
        *((f"  {count}", reason) for reason, count in report.frequent_reasons()),
        ("size", f"{report.file_bytes / 2**20:.1f} MiB"),
        ("seconds", f"{report.seconds:.1f}"),
    )
