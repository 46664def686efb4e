# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The parameters that the command line and its parameter files give, in their order: the last value counts.

rclpy keeps a place for each type of a parameter.  A later value of another type goes into another place, and a fixed
order of the places decides which value rclpy sees (ros2/rclpy; rcl_yaml_param_parser's ``rcl_variant_t``).  This module
reads the same arguments and keeps their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from nre_ros.node.parameter_file import ParameterFileError, matches, parse_yaml, read_parameter_file

_OPTIONS = {"-p": "-p", "--param": "-p", "-r": "-r", "--remap": "-r", "--params-file": "--params-file"}
"""Options with a value, and the short form of each."""


def node_name(arguments: Sequence[str], default: str) -> str:
    """Returns the full name of a node by the remappings of a command line.

    Args:
        arguments: The command line, with ``--ros-args``.
        default: The node's name without remappings.

    Returns:
        The name with its namespace, such as ``/robot1/localize_node``.
    """
    names = {"__ns": "/", "__node": default}
    for option, text in reversed(list(_ros_options(arguments))):  # of several rules the first one counts
        rule, _, value = text.partition(":=")
        node, _, rule = rule.rpartition(":")
        rule = "__node" if rule == "__name" else rule
        if option == "-r" and rule in names and node in ("", default):
            names[rule] = value
    return f"/{names['__ns'].strip('/')}/{names['__node']}".replace("//", "/")


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
                for pattern, parameters in read_parameter_file(text):
                    if matches(pattern, node_name):
                        values.update(parameters)
            elif option == "-p" and ":=" in text:
                name, _, value = text.partition(":=")
                node, _, name = name.rpartition(":")
                if not node or matches(node, node_name):
                    values[name] = parse_yaml(value)
        except (yaml.YAMLError, ParameterFileError):
            continue
    return values


def parameter_files(arguments: Sequence[str]) -> list[str]:
    """Returns the parameter files that a command line names.

    Args:
        arguments: The command line, with ``--ros-args``.
    """
    return [text for option, text in _ros_options(arguments) if option == "--params-file"]


def files_for_other_nodes(arguments: Sequence[str], node_name: str) -> dict[str, list[str]]:
    """Returns the parameter files that give nothing to a node.

    Args:
        arguments: The command line, with ``--ros-args``.
        node_name: The node's full name, with its namespace.

    Returns:
        File -> names of the nodes that it has parameters for.
    """
    files = {}
    for text in parameter_files(arguments):
        try:
            patterns = [pattern for pattern, _ in read_parameter_file(text)]
        except ParameterFileError:
            continue
        if patterns and not any(matches(pattern, node_name) for pattern in patterns):
            files[text] = patterns
    return files


def _ros_options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options about parameters and names, each in its short form and with its value."""
    in_ros = False
    words = iter(arguments)
    for word in words:
        if word == "--ros-args":
            in_ros = True
        elif word == "--":
            in_ros = False
        elif in_ros and word in _OPTIONS:
            yield _OPTIONS[word], next(words, "")
