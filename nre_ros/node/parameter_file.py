# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which parameters of a ROS parameter file reach a node: ROS ignores a file for other nodes without a message.

Imports neither ROS nor torch; the launch files use this module before they start a process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nre_ros.errors import NreError


class ParameterFileError(NreError):
    """A parameter file is missing, cannot be read, or has no parameter for the node."""


def parameters_for(path: str | Path, node: str) -> dict[str, Any]:
    """Reads the parameters that a file has for a node.

    Keys match as in rcl: ``*`` is one part of a name, ``**`` any number of parts, and a key without a leading slash is
    in the root namespace.

    Args:
        path: The YAML file.
        node: The node's name with its namespace, such as ``/robot1/localize_node``.

    Returns:
        Name -> value, of all matching keys; of two values of a parameter the last one.

    Raises:
        ParameterFileError: The file is missing, is no parameter file, or has no parameter for the node.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParameterFileError(f"parameter file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterFileError(f"parameter file {path} cannot be read: {_one_line(error)}") from None
    except yaml.YAMLError as error:
        raise ParameterFileError(f"parameter file {path} is no YAML: {_one_line(error)}") from None
    if content is None:  # a file of comments
        return {}
    sections = list(_sections(content, ""))
    if not sections:
        raise ParameterFileError(f"parameter file {path} has no ros__parameters: write /**: {{ros__parameters: ...}}")
    matching = [values for key, values in sections if _pattern(key).fullmatch(node)]
    if not matching:
        keys = ", ".join(key for key, _ in sections)
        raise ParameterFileError(
            f"parameter file {path} has no parameters for {node}, only for {keys}: use the key /** for any node"
        )
    return {name: value for values in matching for name, value in values.items()}


def parameter_files(arguments: Sequence[str]) -> list[str]:
    """Returns the parameter files that a command line names.

    Args:
        arguments: Words of the command line, such as ``sys.argv``.
    """
    return [value for word, value in zip(arguments, arguments[1:], strict=False) if word == "--params-file"]


def _sections(content: object, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Pairs of a node's key and its parameters; keys may be nested."""
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        if name == "ros__parameters":
            yield key, value if isinstance(value, dict) else {}
        else:
            yield from _sections(value, f"{key}/{str(name).strip('/')}")


def _pattern(key: str) -> re.Pattern[str]:
    parts = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    return re.compile("".join(parts.get(part, "/" + re.escape(part)) for part in key.strip("/").split("/")))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
