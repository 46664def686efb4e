# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros map build``: a keyframe map from a COLMAP model, posed images, RGB-D or kapture folders, or a bag."""

from __future__ import annotations

import argparse
import re
import sys

from nre_ros.cli.arguments import non_negative_float, positive_int
from nre_ros.cli.output import print_table
from nre_ros.features import BACKBONES

_BUILD_HELP = """The map is written to MAP.db.partial and takes its name when it is complete. An interrupted
build goes on where it stopped when the same command is given again. Images that cannot be imported
are named with the reason and counted, the rest is imported."""


def add_parser(commands) -> None:
    """Registers ``map build colmap|posed|rgbd|kapture|bag``."""
    build = commands.add_parser("build", help="build a map", description="Build a map. " + _BUILD_HELP)
    sources = build.add_subparsers(dest="source", required=True, metavar="SOURCE")
    _add_colmap(sources)
    _add_posed(sources)
    _add_rgbd(sources)
    _add_kapture(sources)
    _add_bag(sources)


def _add_colmap(sources) -> None:
    parser = sources.add_parser(
        "colmap",
        help="from a COLMAP model with its images",
        description="Build a map from a COLMAP sparse model (text or binary) and its images. " + _BUILD_HELP,
    )
    parser.add_argument("sparse", metavar="SPARSE_DIR", help="folder with cameras, images and points3D (.txt or .bin)")
    _add_images(parser)
    add_build_options(parser)
    parser.set_defaults(func=_build_colmap)


def _add_posed(sources) -> None:
    parser = sources.add_parser(
        "posed",
        help="from images with known poses and cameras, without depth",
        description="Build a map from the poses and cameras of a COLMAP sparse model (text or binary), whose points "
        "may be absent, and its images: points are triangulated between images that overlap. " + _BUILD_HELP,
    )
    parser.add_argument("sparse", metavar="SPARSE_DIR", help="folder with cameras and images (.txt or .bin)")
    _add_images(parser)
    add_build_options(parser)
    parser.set_defaults(func=_build_posed)


def _add_images(parser: argparse.ArgumentParser) -> None:
    """The images of a COLMAP model."""
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that the image names are relative to")
    parser.add_argument("--list", metavar="LIST", help="file of image names, one a line: only these")


def _add_kapture(sources) -> None:
    parser = sources.add_parser(
        "kapture",
        help="from a kapture folder, rigs included",
        description="Build a map from the camera records of a kapture folder (format 1.1): poses from "
        "trajectories.txt and rigs.txt, points triangulated between images that overlap. " + _BUILD_HELP,
    )
    parser.add_argument("folder", metavar="DIR", help="folder with sensors/ in it")
    parser.add_argument("--list", metavar="LIST", help="file of image names as in records_camera.txt: only these")
    add_build_options(parser)
    parser.set_defaults(func=_build_kapture)


def _add_rgbd(sources) -> None:
    parser = sources.add_parser(
        "rgbd",
        help="from colour and depth images with poses",
        usage="nre_ros map build rgbd FOLDER -o MAP.db [options]\n"
        "       nre_ros map build rgbd --images DIR --depth DIR --poses TUM.txt --list LIST --camera CAMERAS.txt "
        "-o MAP.db [options]",
        description="Build a map from a sequence of TUM RGB-D or a scene of 7-Scenes as they are downloaded, or from "
        "colour images, depth images of the same names (.png, 16 bit, aligned with the colour images) and poses. "
        + _BUILD_HELP,
    )
    parser.add_argument(
        "folder",
        nargs="?",
        metavar="FOLDER",
        help="of TUM RGB-D, 7-Scenes, or written by `nre_ros demo`: recognised by its files",
    )
    parser.add_argument("--sequences", metavar="train|test|all|SEQ,SEQ", help="of 7-Scenes (default train)")
    parser.add_argument("--images", metavar="DIR", help="folder of the colour images")
    parser.add_argument("--depth", metavar="DIR", help="folder of the depth images")
    parser.add_argument(
        "--poses",
        metavar="TUM.txt",
        help="poses, camera to map, 't x y z qx qy qz qw'; line i belongs to line i of LIST",
    )
    parser.add_argument("--list", metavar="LIST", help="file of image names, one a line")
    parser.add_argument(
        "--camera",
        metavar="CAMERAS.txt",
        help="COLMAP's cameras.txt with one camera (with FOLDER: instead of the data set's own)",
    )
    parser.add_argument(
        "--depth-scale", type=float, metavar="N", help="depth value of one metre (default 1000, TUM RGB-D 5000)"
    )
    _add_refine(parser)
    add_build_options(parser)
    parser.set_defaults(func=_build_rgbd, usage_error=parser.error)


def _add_bag(sources) -> None:
    parser = sources.add_parser(
        "bag",
        help="from a rosbag2 with camera images and poses",
        description="Build a map from a rosbag2 (sqlite3 or MCAP), without playing it and without ROS. A topic that is "
        "not named is the only fitting one of the bag. Poses are looked up in /tf and /tf_static, or come from a topic "
        "of PoseStamped, PoseWithCovarianceStamped or Odometry. " + _BUILD_HELP,
    )
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
        "--mono",
        action="store_true",
        help="do not use depth: points are triangulated, as they are from a bag without it",
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
        help="the map's frame (default: map, or odom where /tf does not lead to map; of --poses their own)",
    )
    _add_refine(parser)
    add_build_options(parser)
    parser.set_defaults(func=_build_bag)


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """The options that all sources share."""
    parser.add_argument("-o", "--output", required=True, metavar="MAP.db", help="the map file to write")
    parser.add_argument(
        "--features",
        choices=sorted(BACKBONES),
        default="xfeat",
        help="xfeat (default), or nre: the published networks, once `nre_ros weights import` has them",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs")
    parser.add_argument("--points", type=positive_int, default=500, metavar="N", help="points a keyframe (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random draws (default 0)")
    parser.add_argument("--force", action="store_true", help="replace an existing map once the new one is complete")
    parser.add_argument("--keep-all", action="store_true", help="keep views that repeat an earlier one, too")
    parser.add_argument(
        "--thin-motion",
        type=non_negative_float,
        metavar="RAD",
        help="a view whose scene moved less than "
        "this angle in the image repeats an earlier one (default 0.004; of recordings 0.05)",
    )
    parser.add_argument(
        "--thin-overlap",
        type=non_negative_float,
        metavar="SHARE",
        help="... if it shows this share of the earlier one's points, too (default 0.95; of recordings 0.8)",
    )


def _add_refine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-refine",
        action="store_true",
        help="take the depth as the sensor gives it, and do not refine it against the other images",
    )


def _build_colmap(args) -> int:
    from nre_ros.keyframes.importers.colmap import ColmapSource

    return build(args, lambda: ColmapSource(args.sparse, args.images, args.list))


def _build_posed(args) -> int:
    from nre_ros.keyframes.importers.posed.colmap_poses import PosedSource

    return build(args, lambda: PosedSource(args.sparse, args.images, args.list))


def _build_kapture(args) -> int:
    from nre_ros.keyframes.importers.posed.kapture import KaptureSource

    return build(args, lambda: KaptureSource(args.folder, args.list))


def _build_rgbd(args) -> int:
    from nre_ros.keyframes.importers.rgbd.folder import RgbdSource
    from nre_ros.keyframes.importers.rgbd.layouts import rgbd_folder

    lists = {"--images": args.images, "--depth": args.depth, "--poses": args.poses, "--list": args.list}
    if args.folder is not None:
        given = [option for option, value in lists.items() if value is not None]
        if given:
            args.usage_error(f"FOLDER and {given[0]} exclude each other")
        return build(args, lambda: rgbd_folder(args.folder, args.camera, args.sequences, args.depth_scale))
    missing = [option for option, value in {**lists, "--camera": args.camera}.items() if value is None]
    if missing:
        args.usage_error(f"FOLDER or {', '.join(missing)} is missing")
    scale = 1000.0 if args.depth_scale is None else args.depth_scale
    return build(args, lambda: RgbdSource(args.images, args.depth, args.poses, args.list, args.camera, scale))


def _build_bag(args) -> int:
    from nre_ros.keyframes.importers.bag.source import bag_source

    return build(
        args,
        lambda: bag_source(
            args.bag,
            args.image,
            args.camera_info,
            None if args.mono else args.depth,
            args.depth_info,
            args.poses,
            args.pose_of,
            args.frame,
        ),
    )


def build(args, make_source) -> int:
    """Builds the map that the options of ``add_build_options`` ask for, and prints the closing table."""
    from nre_ros.features import choose_device, load_backbone
    from nre_ros.keyframes.building.builder import KeyframeBuilder
    from nre_ros.keyframes.importers.common import build_map

    source = make_source()  # before the network is loaded: a mistyped folder is told at once
    if getattr(args, "no_refine", False):
        source.refine = False
    for note in source.notes:
        print(note, file=sys.stderr)
    builder = KeyframeBuilder(load_backbone(args.features, choose_device(args.device)), args.points, seed=args.seed)
    try:
        report = build_map(source, builder, args.output, force=args.force, thinning=_thinning(args, source))
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on from {args.output}.partial", file=sys.stderr)
        return 130
    _print_report(report)
    return 0


def _thinning(args, source):
    from nre_ros.keyframes.building.culling import ThinningRule

    usual = source.usual_thinning
    motion = usual.motion if args.thin_motion is None else args.thin_motion
    overlap = usual.overlap if args.thin_overlap is None else args.thin_overlap
    return ThinningRule(0.0 if args.keep_all else motion, overlap)


def _print_report(report) -> None:
    of_this_run = f" (of the {report.keyframes - report.resumed} keyframes of this run)" if report.resumed else ""
    print_table(
        ("map", report.path),
        ("keyframes", report.keyframes),
        ("points", report.points),
        *((what, f"{count} points{of_this_run}") for what, count in sorted(report.tally.items())),
        ("resumed", report.resumed or None),
        ("duplicates left out", len(report.thinned)),
        ("skipped", len(report.skipped)),
        *((f"  {count}", reason) for reason, count in reasons(report.skipped)),
        ("size", f"{report.file_bytes / 2**20:.1f} MiB"),
        ("seconds", f"{report.seconds:.1f}"),
    )


def reasons(skipped: dict[str, str]) -> list[tuple[str, int]]:
    """The most frequent reasons; those that differ in names of files and numbers alone are counted together."""
    alike: dict[str, list[str]] = {}
    for reason in skipped.values():
        words = [word for word in reason.split() if "/" not in word]
        alike.setdefault(re.sub(r"\d[\d.]*", "#", " ".join(words)), []).append(" ".join(words))
    counted = sorted(alike.values(), key=len, reverse=True)[:8]
    return [(examples[0], len(examples)) for examples in counted]
