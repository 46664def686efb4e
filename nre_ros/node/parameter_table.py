# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters as one Markdown table, docs/parameters.md: ``nre_ros node --parameters``."""

from __future__ import annotations

from nre_ros.node.declarations import SECTIONS

_HEAD = """\
# Parameters of the node

Made by `nre_ros node --parameters > docs/parameters.md` from their declarations, which `ros2 param describe` tells as well.
Those with * may be set while the node runs; the others are read when it is configured. Every one goes into
a parameter file (`config/localize.yaml` has them all) or on the command line, `--ros-args -p name:=value`.
"""


def markdown() -> str:
    """All of docs/parameters.md."""
    parts = [_HEAD]
    for title, declarations in SECTIONS.items():
        parts.append(f"## {title[0].upper() + title[1:]}\n")
        parts.append("| parameter | default | values | |\n| --- | --- | --- | --- |")
        parts += [_row(declaration) for declaration in declarations]
        parts.append("")
    return "\n".join(parts)


def _row(declaration) -> str:
    name = f"`{declaration.name}`" + (" *" if declaration.runtime else "")
    description = " ".join(declaration.description.split()).replace("|", "\\|").replace("<", "\\<")
    return f"| {name} | {_value(declaration.default)} | {_values(declaration)} | {description} |"


def _values(declaration) -> str:
    if declaration.choices:
        return ", ".join(_value(choice) for choice in declaration.choices)
    if declaration.range:
        low, high = declaration.range
        kind = type(declaration.default)
        return f"{kind(low)} to {kind(high)}"
    return {bool: "true, false", list: "list of text"}.get(type(declaration.default), "text")


def _value(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    if isinstance(value, list):
        return "[" + ", ".join(_value(entry) for entry in value) + "]"
    return str(value)  # 0.0 keeps its point: ROS takes no integer for a double
