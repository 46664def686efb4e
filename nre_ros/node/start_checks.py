# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What is checked before the node imports ROS and torch, which takes seconds: packages, parameter files and the map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nre_ros.errors import MapError
from nre_ros.node.parameter_file import read_parameter_file
from nre_ros.node.parameter_sources import given_parameters, node_name, parameter_files
from nre_ros.packages import ESTIMATOR, ROS, require


def check_start(arguments: Sequence[str], default_name: str) -> None:
    """Checks what the node will need.

    The map is not checked where the node stays unconfigured, or creates the map.

    Args:
        arguments: The command line, with ``--ros-args``.
        default_name: The node's name without remappings.

    Raises:
        NreError: A package is not installed, or a parameter file or the map cannot be used.
    """
    require(*ROS, *ESTIMATOR)
    for file in parameter_files(arguments):
        read_parameter_file(file)
    given = given_parameters(arguments, node_name(arguments, default_name))
    map_file = given.get("map_file")
    if not map_file or not isinstance(map_file, str) or given.get("create_map") or not given.get("autostart", True):
        return  # the node reports a parameter that is missing or has another type
    from nre_ros.keyframes.storage.database import MapDatabase

    MapDatabase(user_path(map_file), readonly=True).close()


def user_path(text: str) -> Path:
    """Returns the path that a parameter or a request names; ``~`` is the home folder of the node's user.

    Args:
        text: The path as it was given.

    Raises:
        MapError: The user after ``~`` is not known.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise MapError(f"{text}: {error}") from None
