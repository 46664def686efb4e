"""``nre_ros map``: build a keyframe map, and look at one."""

from __future__ import annotations

from nre_ros.cli import map_build, map_info


def add_parser(subparsers) -> None:
    """Registers the commands about map files, one module each."""
    parser = subparsers.add_parser("map", help="build a keyframe map, or look at one", description=__doc__)
    commands = parser.add_subparsers(dest="map_command", required=True, metavar="COMMAND")
    for module in (map_build, map_info):
        module.add_parser(commands)
