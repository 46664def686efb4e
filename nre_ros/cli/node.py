# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros node``: starts the ROS node from the command line, without a launch system."""

from __future__ import annotations

import argparse
import json

DESCRIPTION = """\
Starts the ROS 2 node that localizes camera images in a map, as launch/localize.launch.py does.

The node subscribes to image (sensor_msgs/Image), image/compressed and camera_info.  It publishes pose,
pose_with_covariance, status and the transform map -> odom.  Ctrl-C ends it.
"""

EXAMPLES = """\
examples:
  nre_ros node --map kitchen.db --ros-args -r image:=/camera/color/image_raw \\
      -r camera_info:=/camera/color/camera_info
  nre_ros node --map kitchen.db --params-file my.yaml --ros-args -p odom_frame:='""'

--ros-args takes the arguments of every ROS 2 node: -r old:=new renames a topic, -p name:=value sets a
parameter (--parameters lists all), --log-level debug.

exit codes: 0 after Ctrl-C or SIGTERM; 2 when the map, a parameter or an argument cannot be used
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Registers the command.

    Args:
        subparsers: The commands of ``nre_ros``.

    Returns:
        The parser of the command.
    """
    parser = subparsers.add_parser(
        "node",
        help="run the ROS node that localizes camera images",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--map", metavar="MAP.db", help="map to localize in (the parameter map_file)")
    parser.add_argument(
        "--params-file",
        metavar="FILE",
        help="YAML file of parameters (config/localize.yaml has all with their defaults)",
    )
    parser.add_argument(
        "--parameters",
        action="store_true",
        help="print all parameters with their defaults as a Markdown table, then exit",
    )
    parser.add_argument(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="...",
        help="all arguments that follow are passed to ROS",
    )
    parser.set_defaults(func=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Runs the node until a signal ends it, or prints its parameters.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code.
    """
    if arguments.parameters:
        return _print_parameters()
    from nre_ros.node.localize_node import main

    return main(["nre_ros", *ros_arguments(arguments)])


def _print_parameters() -> int:
    from nre_ros import ros_environment

    ros_environment.prepare()
    from nre_ros.node.parameters import markdown_table

    print(markdown_table(), end="")
    return 0


def ros_arguments(arguments: argparse.Namespace) -> list[str]:
    """Returns the arguments in the form of ROS.

    Of two values of a parameter the last one counts.

    Args:
        arguments: Parsed arguments.

    Returns:
        ``--ros-args``, the parameter file and the map, then the user's own ROS arguments.
    """
    given = ["--ros-args"]
    if arguments.params_file:
        given += ["--params-file", arguments.params_file]
    if arguments.map is not None:
        # quoted as a YAML string: a map called 1 or true stays text
        given += ["-p", f"map_file:={json.dumps(arguments.map)}"]
    return given + arguments.ros_args
