# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: declared from their table, and validated when they are set."""

from __future__ import annotations

from collections.abc import Callable

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node

from nre_ros.errors import NreError
from nre_ros.node.declarations import DECLARATIONS

_BY_NAME = {declaration.name: declaration for declaration in DECLARATIONS}


class ParameterError(NreError):
    """A parameter whose value cannot be used."""


def declare(node: Node, configured: Callable[[], bool]):
    """Declares all parameters; from then on, values that cannot be are refused in words.

    configured: whether the node has read those that it reads when it is configured.
    Raises ``ParameterError`` or rclpy's error on a value that cannot be.
    """
    node.declare_parameters(
        "", [(declaration.name, declaration.default, declaration.descriptor()) for declaration in DECLARATIONS]
    )
    for declaration in DECLARATIONS:
        refusal = declaration.refusal(value_of(node, declaration.name))
        if refusal:
            raise ParameterError(refusal)
    node.add_on_set_parameters_callback(lambda parameters: _judge(parameters, configured()))


def _judge(parameters, configured: bool) -> SetParametersResult:
    for parameter in parameters:
        declaration = _BY_NAME.get(parameter.name)
        if declaration is None:
            continue
        if configured and not declaration.runtime:
            words = f"parameter {declaration.name} is read when the node is configured: clean it up first"
        else:
            words = declaration.refusal(parameter.value)
        if words:
            return SetParametersResult(successful=False, reason=words)
    return SetParametersResult(successful=True)


def value_of(node: Node, name: str):
    """The present value of a parameter."""
    return node.get_parameter(name).value
