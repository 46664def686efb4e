# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Which parameters of a ROS parameter file reach a node: ROS ignores a file for other nodes without a message.

Imports neither ROS nor torch; the launch files use this module before they start a process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from nre_ros.errors import NreError, one_line


class ParameterFileError(NreError):
    """A parameter file is missing, cannot be read, or has no parameter for the node."""


class _Loader(yaml.SafeLoader):
    """YAML as rcl reads it: ``1e5`` is a number and ``y`` true, but a date and ``1:30`` are text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_integer(self, node: yaml.ScalarNode) -> int | float:
        """An integer, or a float where 64 bits do not suffice."""
        try:
            value = int(self.construct_yaml_int(node))
            return value if abs(value) < 2**63 else float(value)
        except (ValueError, OverflowError):  # hundreds of digits
            return math.inf


for _kind, _pattern, _first in (
    ("bool", "y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", "[-+]?(0x[0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"({_pattern})$"), list(_first))
_Loader.add_constructor(
    "tag:yaml.org,2002:bool", lambda loader, node: node.value[:2].lower() in ("y", "ye", "tr", "on")
)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


def parse_yaml(text: str) -> Any:
    """Parses YAML as rcl does.

    Args:
        text: The YAML.

    Raises:
        yaml.YAMLError: The text is no YAML.
    """
    return yaml.load(text, _Loader)


def read_parameter_file(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Reads a parameter file.

    Args:
        path: The YAML file.

    Returns:
        Pairs of a node's key, such as ``/**``, and its parameters; those of nested keys have names with dots.

    Raises:
        ParameterFileError: The file is missing or is no parameter file.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterFileError(f"parameter file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterFileError(f"parameter file {path} cannot be read: {one_line(error)}") from None
    except yaml.YAMLError as error:
        raise ParameterFileError(f"parameter file {path} is no YAML: {one_line(error)}") from None
    sections = list(_sections(content, ""))
    if content is not None and not sections:  # None: a file of comments
        raise ParameterFileError(f"parameter file {path} has no ros__parameters: write /**: {{ros__parameters: ...}}")
    return sections


def parameters_for(path: str | Path, node: str) -> dict[str, Any]:
    """Reads the parameters that a file has for a node.

    Args:
        path: The YAML file.
        node: The node's name with its namespace, such as ``/robot1/localize_node``.

    Returns:
        Name -> value, of all matching keys; of two values of a parameter the last one.

    Raises:
        ParameterFileError: The file is missing, is no parameter file, or has no parameter for the node.
    """
    sections = read_parameter_file(path)
    matching = [values for key, values in sections if matches(key, node)]
    if sections and not matching:
        keys = ", ".join(key for key, _ in sections)
        raise ParameterFileError(
            f"parameter file {path} has no parameters for {node}, only for {keys}: use the key /** for any node"
        )
    return {name: value for values in matching for name, value in values.items()}


def matches(key: str, node: str) -> bool:
    """Returns whether a key of a parameter file names a node.

    Keys match as in rcl: ``*`` is one part of a name, ``**`` any number of parts, and a key without a leading slash is
    in the root namespace.

    Args:
        key: The key, with wildcards.
        node: The node's name with its namespace.
    """
    parts = {"*": "/[^/]+", "**": "(/[^/]+)*"}
    pattern = "".join(parts.get(part, "/" + re.escape(part)) for part in key.strip("/").split("/"))
    return re.fullmatch(pattern, node) is not None


def _sections(content: object, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Pairs of a node's key and its parameters; keys may be nested."""
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        if name == "ros__parameters":
            yield key, dict(_flat(value)) if isinstance(value, dict) else {}
        else:
            yield from _sections(value, f"{key}/{str(name).strip('/')}")


def _flat(parameters: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
