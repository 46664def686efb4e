# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros demo``: a robot in a rendered room, localized through ROS 2."""

from __future__ import annotations

import argparse
from pathlib import Path

from nre_ros.cli.arguments import (
    Subparsers,
    add_animate_option,
    add_command,
    add_device_option,
    add_seed_option,
    positive_float,
    positive_int,
)
from nre_ros.cli.output import print_replay
from nre_ros.packages import BAGS, ESTIMATOR, PICTURES, ROS

_DESCRIPTION = """\
Shows the whole package at work, without a camera and without data of your own.

The demo renders a room, builds a map of it, records a bag of a robot that drives through the room, and plays the bag
to the ROS 2 node. Then it prints how far the node's poses are from the ground truth, which is exact here.

The folder DIR contains the RGB-D images (rgbd), the map (room.db), the bag (bag), and the records and pictures of the
run (replay/replay.png). The demo takes two to five minutes on two CPU cores.
"""
_EXAMPLE = """\
  nre_ros demo -o demo_output
  nre_ros map view demo_output/room.db --show        # look at the map that the demo has built
"""


def add_parser(subparsers: Subparsers) -> None:
    """Registers the command.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    parser = add_command(subparsers, "demo", "localize a robot in a synthetic room", _DESCRIPTION, _EXAMPLE)
    parser.add_argument(
        "-o", "--output", default="demo_output", metavar="DIR", help="folder to write to (default: demo_output)"
    )
    parser.add_argument(
        "--keyframes", type=positive_int, default=80, metavar="N", help="number of views in the map (default: 80)"
    )
    parser.add_argument(
        "--duration", type=positive_float, default=30.0, metavar="S", help="seconds that the robot drives (default: 30)"
    )
    add_animate_option(parser)
    add_device_option(parser)
    add_seed_option(parser, "the room, the robot's path and all noise")
    parser.set_defaults(func=run, packages=(*ROS, *ESTIMATOR, *BAGS, *PICTURES))


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo and prints its table.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code.
    """
    from nre_ros.demo import run_demo

    result = run_demo(
        Path(arguments.output),
        arguments.keyframes,
        arguments.duration,
        arguments.seed,
        arguments.device,
        arguments.animate,
    )
    print_replay(result)
    return 0
