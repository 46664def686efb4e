# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The parameters that the command line and its parameter files give, in their order: the last value counts.

rclpy keeps a place for each type of a parameter.  A later value of another type goes into another place, and a fixed
order of the places decides which value rclpy sees (ros2/rclpy; rcl_yaml_param_parser's ``rcl_variant_t``).  This module
reads the same arguments and keeps their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of rcl: ``1e5`` is one."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def given_parameters(arguments: Sequence[str], node_name: str) -> dict[str, Any]:
    """Returns the parameters that arguments give to a node.

    Args:
        arguments: The command line, with ``--ros-args``.
        node_name: The node's full name, with its namespace.

    Returns:
        Name -> value.  A source that cannot be read is left out: rcl reports it.
    """
    values: dict[str, Any] = {}
    for option, text in _ros_options(arguments):
        try:
            if option == "--params-file":
                values.update(_of_file(yaml.load(Path(text).read_text(encoding="utf-8"), _Loader), node_name))
            elif ":=" in text:
                name, _, value = text.partition(":=")
                node, _, name = name.rpartition(":")
                if not node or _is_for(node, node_name):
                    values[name] = yaml.load(value, _Loader)
        except (yaml.YAMLError, OSError, UnicodeDecodeError):
            continue
    return values


def files_for_other_nodes(arguments: Sequence[str], node_name: str) -> dict[str, list[str]]:
    """Returns the parameter files that give nothing to a node.

    Args:
        arguments: The command line, with ``--ros-args``.
        node_name: The node's full name, with its namespace.

    Returns:
        File -> names of the nodes that it has parameters for.
    """
    files = {}
    for option, text in _ros_options(arguments):
        if option != "--params-file":
            continue
        try:
            entries = dict(_entries(yaml.load(Path(text).read_text(encoding="utf-8"), _Loader)))
        except (yaml.YAMLError, OSError, UnicodeDecodeError):
            continue
        if entries and not any(_is_for(pattern, node_name) for pattern in entries):
            files[text] = list(entries)
    return files


def _ros_options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options about parameters, each with its value."""
    in_ros = False
    words = iter(arguments)
    for word in words:
        if word == "--ros-args":
            in_ros = True
        elif word == "--":
            in_ros = False
        elif in_ros and word in ("-p", "--param", "--params-file"):
            yield "--params-file" if word == "--params-file" else "-p", next(words, "")


def _of_file(content: Any, node_name: str) -> dict[str, Any]:
    values = {}
    for pattern, parameters in _entries(content):
        if _is_for(pattern, node_name):
            values.update(_flat(parameters))
    return values


def _entries(content: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The names of nodes in a parameter file, also in nested namespaces, with their parameters."""
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        if name == "ros__parameters" and isinstance(value, dict):
            yield prefix, value
        else:
            yield from _entries(value, f"{prefix}/{str(name).lstrip('/')}")


def _flat(parameters: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    values = {}
    for name, value in parameters.items():
        if isinstance(value, dict):
            values.update(_flat(value, f"{prefix}{name}."))
        else:
            values[f"{prefix}{name}"] = value
    return values


def _is_for(pattern: str, node_name: str) -> bool:
    """Whether a name in a parameter file, where ``**`` stands for any names and ``*`` for one, is that of a node."""
    tokens = re.split(r"(/\*\*|/\*)", "/" + pattern.lstrip("/"))
    expressions = {"/**": r"(/\w+)*", "/*": r"/\w+"}
    return re.fullmatch("".join(expressions.get(token, re.escape(token)) for token in tokens), node_name) is not None
