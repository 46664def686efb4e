# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``nre_ros``: build maps, localize images, run the node, replay bags, evaluate, see a demo."""

from __future__ import annotations

import argparse
import sys

from nre_ros import __version__
from nre_ros.errors import NreError
from nre_ros.process import prepare

_DESCRIPTION = """\
Tells where a camera is from one image, in a map of keyframes, by the Neural Reprojection Error.

  nre_ros demo                          see it work in a synthetic room, through ROS 2
  nre_ros map build rgbd|colmap ...     make a map from what you have
  nre_ros localize --map MAP.db ...     localize image files, no ROS needed
  nre_ros node --map MAP.db ...         localize a camera's topic in ROS 2
  nre_ros replay --map MAP.db BAG       play a bag through ROS 2 to the node, and tell how well it did
  nre_ros evaluate --map MAP.db ...     how well it does on a bag or on images with known poses: a report
  nre_ros compare DIR DIR               two evaluations laid over each other
  nre_ros benchmark 7scenes --root DIR  a public benchmark as its owners define it
  nre_ros weights import FILE ...       take the published NRE networks into use
"""

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """The parser with all sub-commands; each sets ``func``, which takes the arguments and returns an exit code."""
    from nre_ros.cli import benchmark, compare, demo, evaluate, localize, map, node, replay, weights

    parser = argparse.ArgumentParser(
        prog="nre_ros", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"nre_ros {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in (demo, map, localize, node, replay, evaluate, compare, benchmark, weights):
        module.add_parser(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; errors that a user can act on are one line and exit code 2."""
    prepare()
    arguments = build_parser().parse_args(argv)
    try:
        return arguments.func(arguments)
    except NreError as error:
        print(f"nre_ros: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("nre_ros: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
