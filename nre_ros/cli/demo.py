# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros demo``: see it work, in a room that is rendered."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers) -> None:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "demo",
        help="a robot is localized in a synthetic room, through ROS 2",
        description="Renders a room, builds its map, records a robot's run as a bag, plays it over DDS to the node, "
        "and prints how far the poses are from the exact truth. Writes a picture.",
    )
    parser.add_argument("-o", "--output", default="demo_output", metavar="DIR", help="(default: demo_output)")
    parser.add_argument("--keyframes", type=int, default=80, metavar="N", help="views in the map (default 80)")
    parser.add_argument("--duration", type=float, default=30.0, metavar="S", help="of the robot's run (default 30 s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to compute")
    parser.add_argument("--seed", type=int, default=0, help="of the room, the way and all noise (default 0)")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo."""
    from nre_ros.demo import run_demo

    run_demo(Path(arguments.output), arguments.keyframes, arguments.duration, arguments.seed, arguments.device)
    return 0
