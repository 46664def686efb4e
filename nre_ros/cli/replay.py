# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros replay``: a bag, played over DDS to the real node."""

from __future__ import annotations

import argparse
from pathlib import Path

from nre_ros.cli.arguments import (
    Subparsers,
    add_animate_option,
    add_command,
    add_node_parameter_option,
    positive_float,
)
from nre_ros.cli.output import print_replay
from nre_ros.packages import BAGS, ESTIMATOR, PICTURES, ROS

_DESCRIPTION = """\
Plays a rosbag2 (sqlite3 or MCAP) over DDS to the ROS 2 node, as a robot would send its images.

Player, node and listener are three processes with a DDS domain of their own. At the end the command prints a table:
how many images were sent, processed and localized, how long an image took, and, if the bag has a topic of the camera's
true poses, the errors. The folder DIR contains a picture (replay.png), the logs, and the messages of the node
(heard.jsonl).

`nre_ros evaluate` measures every image of a bag, without ROS and without dropping images.
"""
_EXAMPLE = """\
  nre_ros replay --map kitchen.db kitchen/bag -o kitchen_replay
  nre_ros replay --map kitchen.db kitchen/bag --param retrieve:=3
"""


def add_parser(subparsers: Subparsers) -> None:
    """Registers the command.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    parser = add_command(subparsers, "replay", "play a bag to the ROS 2 node", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("bag", metavar="BAG", help="folder of the rosbag2")
    parser.add_argument("--map", required=True, metavar="MAP.db", help="map to localize in")
    parser.add_argument("-o", "--output", default="replay", metavar="DIR", help="folder to write to (default: replay)")
    parser.add_argument(
        "--rate", type=positive_float, default=1.0, metavar="X", help="speed, as a multiple of real time (default: 1)"
    )
    parser.add_argument(
        "--image", default="", metavar="TOPIC", help="image topic (default: the only image topic of the bag)"
    )
    parser.add_argument(
        "--camera-info", default="", metavar="TOPIC", help="CameraInfo topic (default: the only one of the bag)"
    )
    parser.add_argument(
        "--ground-truth",
        default="",
        metavar="TOPIC",
        help="topic of the camera's true poses in the map, PoseStamped (default: /ground_truth, or the only one)",
    )
    add_node_parameter_option(parser)
    add_animate_option(parser)
    parser.set_defaults(func=run, packages=(*ROS, *ESTIMATOR, *BAGS, *PICTURES))


def run(arguments: argparse.Namespace) -> int:
    """Replays the bag and prints the table.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code.
    """
    from nre_ros.replay.bag import find_topics
    from nre_ros.replay.replay_bag import replay_bag

    topics = find_topics(arguments.bag, arguments.image, arguments.camera_info, arguments.ground_truth)
    result = replay_bag(
        Path(arguments.map),
        Path(arguments.bag),
        topics,
        Path(arguments.output),
        arguments.rate,
        dict(arguments.param),
        animate=arguments.animate,
    )
    print_replay(result)
    return 0
