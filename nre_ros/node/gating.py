# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The gate's settings by the node's parameters, which may change while it runs."""

from __future__ import annotations

from dataclasses import fields, replace

from rclpy.node import Node

from nre_ros.gate.gate import Gate
from nre_ros.gate.motion import MotionModel
from nre_ros.gate.settings import GateSettings
from nre_ros.node.declarations import DECLARATIONS
from nre_ros.node.parameters import value_of

_NAMES = {declaration.name for declaration in DECLARATIONS}
_SETTINGS = sorted(_NAMES & {field.name for field in fields(GateSettings)})
_MOTION = sorted(_NAMES & {field.name for field in fields(MotionModel)})


def settings_of(node: Node) -> GateSettings:
    """The settings that the parameters of the same names give; raises ``SettingsError``."""
    motion = replace(MotionModel(), **{name: value_of(node, name) for name in _MOTION})
    return GateSettings(**{name: value_of(node, name) for name in _SETTINGS}, motion=motion)


def refresh(gate: Gate, node: Node) -> None:
    """Brings the gate up to date with the parameters."""
    settings = settings_of(node)
    if settings != gate.settings:
        gate.settings = settings
