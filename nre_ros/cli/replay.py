# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros replay``: a bag through DDS to the real node, and how well it did."""

from __future__ import annotations

import argparse
from pathlib import Path

_DESCRIPTION = """\
Plays a rosbag2 (sqlite3 or MCAP) over DDS to the node, in three processes: player, node and
listener.  Prints a table (images sent, taken, posed; errors where the bag has a PoseStamped topic of
the camera's true pose; times) and writes a picture, the logs and what the listener heard.
"""

_EXAMPLE = """\
example:
  nre_ros replay --map kitchen.db kitchen/bag -o kitchen_replay
"""


def add_parser(subparsers) -> None:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "replay",
        help="play a bag through ROS 2 to the node",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bag", metavar="BAG", help="folder of the rosbag2")
    parser.add_argument("--map", required=True, metavar="MAP.db", help="map to localize in")
    parser.add_argument("-o", "--output", default="replay", metavar="DIR", help="where to write (default: replay)")
    parser.add_argument("--rate", type=positive, default=1.0, help="times real time (default 1)")
    parser.add_argument("--image", default="", metavar="TOPIC", help="image topic (default: the only one)")
    parser.add_argument("--camera-info", default="", metavar="TOPIC", help="CameraInfo topic (default: the only one)")
    parser.add_argument(
        "--ground-truth",
        default="",
        metavar="TOPIC",
        help="PoseStamped of the camera in the map (default: /ground_truth, or the only one)",
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        type=parameter,
        metavar="NAME:=VALUE",
        help="a parameter of the node; may be given several times",
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Replays, prints, draws."""
    from nre_ros.replay.bag import find_topics
    from nre_ros.replay.replay import replay

    topics = find_topics(arguments.bag, arguments.image, arguments.camera_info, arguments.ground_truth)
    replay(
        Path(arguments.map),
        Path(arguments.bag),
        topics,
        Path(arguments.output),
        arguments.rate,
        dict(arguments.param),
    )
    return 0


def positive(text: str) -> float:
    """A number above 0, for argparse."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def parameter(text: str) -> tuple[str, str]:
    """``NAME:=VALUE`` as a pair, for argparse."""
    name, separator, value = text.partition(":=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:=VALUE")
    return name, value
