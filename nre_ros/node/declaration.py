# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""One parameter of the node: its name, default, range and meaning."""

from __future__ import annotations

from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
    list: ParameterType.PARAMETER_STRING_ARRAY,
}


@dataclass(frozen=True)
class Declaration:
    """One parameter.  ``range``: smallest and largest number; ``choices``: all allowed words;
    ``runtime``: may be set while the node is configured; the others are read by configuring it."""

    name: str
    default: str | bool | int | float | list
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    runtime: bool = False

    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(description=self.description, type=_TYPES[type(self.default)])
        constraints = ["one of: " + ", ".join(self.choices)] if self.choices else []
        if not self.runtime:
            constraints.append("read when the node is configured")
        descriptor.additional_constraints = "; ".join(constraints)
        if self.range and isinstance(self.default, int):
            low, high = self.range
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
        elif self.range:
            low, high = map(float, self.range)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
        return descriptor

    def refusal(self, value) -> str:
        """Why this value cannot be; empty for one that can (ROS itself checks types and ranges)."""
        if self.choices and value not in self.choices:
            return f"parameter {self.name} is {value!r}, expected one of: {', '.join(self.choices)}"
        return ""
