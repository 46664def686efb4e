"""``nre_ros map build``: a keyframe map from a COLMAP model or an RGB-D folder."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from nre_ros.cli.tables import print_table
from nre_ros.features import BACKBONES

_BUILD_HELP = """The map is written to MAP.db.partial and takes its name when it is complete. An interrupted
build goes on where it stopped when the same command is given again. Images that cannot be imported
are named with the reason and counted, the rest is imported."""


def add_parser(commands) -> None:
    """Registers ``map build colmap|rgbd``."""
    build = commands.add_parser("build", help="build a map", description="Build a map. " + _BUILD_HELP)
    sources = build.add_subparsers(dest="source", required=True, metavar="SOURCE")
    _add_colmap(sources)
    _add_rgbd(sources)


def _add_colmap(sources) -> None:
    parser = sources.add_parser(
        "colmap", help="from a COLMAP model with its images",
        description="Build a map from a COLMAP sparse model (text or binary) and its images. " + _BUILD_HELP,
    )
    parser.add_argument("sparse", metavar="SPARSE_DIR", help="folder with cameras, images and points3D (.txt or .bin)")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that the image names are relative to")
    parser.add_argument("--list", metavar="LIST", help="file of image names, one a line: only these")
    _add_build_options(parser)
    parser.set_defaults(func=_build_colmap)


def _add_rgbd(sources) -> None:
    parser = sources.add_parser(
        "rgbd", help="from colour and depth images with poses",
        description="Build a map from colour images, depth images of the same names (.png, 16 bit, aligned "
        "with the colour images) and poses. " + _BUILD_HELP,
    )
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of the colour images")
    parser.add_argument("--depth", required=True, metavar="DIR", help="folder of the depth images")
    parser.add_argument(
        "--poses", required=True, metavar="TUM.txt",
        help="poses, camera to map, 't x y z qx qy qz qw'; line i belongs to line i of LIST",
    )
    parser.add_argument("--list", required=True, metavar="LIST", help="file of image names, one a line")
    parser.add_argument("--camera", required=True, metavar="CAMERAS.txt", help="COLMAP's cameras.txt with one camera")
    parser.add_argument(
        "--depth-scale", type=float, default=1000.0, metavar="N", help="depth value of one metre (default 1000)"
    )
    _add_build_options(parser)
    parser.set_defaults(func=_build_rgbd)


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="MAP.db", help="the map file to write")
    parser.add_argument(
        "--features", choices=sorted(BACKBONES), default="xfeat",
        help="xfeat (default), or nre: the published networks, once `nre_ros weights import` has them",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs")
    parser.add_argument("--points", type=_positive, default=500, metavar="N", help="points a keyframe (default 500)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random draws (default 0)")
    parser.add_argument("--force", action="store_true", help="replace an existing map once the new one is complete")


def _positive(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _build_colmap(args) -> int:
    from nre_ros.keyframes.importers.colmap import ColmapSource

    return _build(args, lambda: ColmapSource(args.sparse, args.images, args.list))


def _build_rgbd(args) -> int:
    from nre_ros.keyframes.importers.rgbd import RgbdSource

    return _build(
        args,
        lambda: RgbdSource(args.images, args.depth, args.poses, args.list, args.camera, args.depth_scale),
    )


def _build(args, make_source) -> int:
    from nre_ros.features import choose_device, load_backbone
    from nre_ros.keyframes.builder import KeyframeBuilder
    from nre_ros.keyframes.importers.common import build_map

    source = make_source()  # before the network is loaded: a mistyped folder is told at once
    builder = KeyframeBuilder(load_backbone(args.features, choose_device(args.device)), args.points, seed=args.seed)
    try:
        report = build_map(source, builder, args.output, force=args.force)
    except KeyboardInterrupt:
        print(f"interrupted; the same command goes on from {args.output}.partial", file=sys.stderr)
        return 130
    print_table(
        ("map", report.path), ("keyframes", report.keyframes), ("points", report.points),
        ("resumed", report.resumed or None), ("skipped", len(report.skipped)),
        *((f"  {count}", reason) for reason, count in _reasons(report.skipped)),
        ("size", f"{report.file_bytes / 2**20:.1f} MiB"), ("seconds", f"{report.seconds:.1f}"),
    )
    return 0


def _reasons(skipped: dict[str, str]) -> list[tuple[str, int]]:
    """The reasons without the names of files, so that like ones are counted together."""
    general = [" ".join(word for word in reason.split() if "/" not in word) for reason in skipped.values()]
    return Counter(general).most_common(8)
