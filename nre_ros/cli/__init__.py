# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The command ``nre_ros``, one module for each of its commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nre_ros import __version__
from nre_ros.errors import NreError
from nre_ros.packages import missing_package, require
from nre_ros.process import exit_at_signals, prepare, use_threads

_USAGE = "nre_ros [-h] [--version] COMMAND ..."
_DESCRIPTION = """\
Estimates the pose of a camera from one image in a map of keyframes, by the Neural Reprojection Error.

See it work:
  demo         localize a robot in a synthetic room, through ROS 2

Make a map:
  map          build a map; look at, verify, merge, prune and export map files
  weights      verify, import and show weights of networks (optional)

Localize:
  localize     localize image files, without ROS
  node         run the ROS 2 node, which localizes the images of a camera
  replay       play a bag to the ROS 2 node and print how good its poses are

Evaluate:
  evaluate     compare the poses of a bag or of image files with ground truth, and write a report
  compare      compare evaluations with each other
  benchmark    run a public benchmark: 7-Scenes, Cambridge, Aachen, InLoc, TUM, EuRoC

Train:
  train        train features for your own domain, and evaluate them (optional)

Inspect the installation:
  info         print versions, devices, operators and threads
"""
_EPILOG = "`nre_ros COMMAND --help` explains a command and its options."

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Makes the parser of the command line with all its commands.

    Returns:
        The parser. The attribute ``func`` of parsed arguments runs the command and returns its exit code; without
        a command there is no such attribute. The attribute ``packages``, where there is one, names the modules that
        have to be installed before anything is computed.
    """
    from nre_ros.cli import benchmark, compare, demo, evaluate, info, localize, map, node, replay, train, weights

    parser = argparse.ArgumentParser(
        prog="nre_ros",
        usage=_USAGE,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"nre_ros {__version__}")
    # the description lists the commands in groups, which argparse cannot do
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", help=argparse.SUPPRESS, prog="nre_ros")
    for module in (demo, map, weights, localize, node, replay, evaluate, compare, benchmark, train, info):
        module.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Errors that a user can act on are printed as one line.

    Args:
        argv: The arguments after the program's name; by default those of this process.

    Returns:
        The exit code, that of the command; 2 after an error or without a command, 130 when interrupted.
    """
    prepare()
    if argv is None and sys.argv[1:2] == ["node"]:
        exit_at_signals()  # Ctrl-C during the imports is no error of a node
    try:
        return _run(argv)
    except NreError as error:
        print(f"nre_ros: {error}", file=sys.stderr)
        return EXIT_ERROR
    except ImportError as error:
        missing = missing_package(error)
        if missing is None:
            raise
        print(f"nre_ros: {missing}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("nre_ros: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return EXIT_ERROR
    require(*getattr(arguments, "packages", ()))
    use_threads(getattr(arguments, "threads", 0))
    exit_code: int = arguments.func(arguments)
    return exit_code
