# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: their table, declaration, validation, deprecated names and documentation.

``config/localize.yaml`` shows all of them with their defaults; docs/parameters.md is made from the table.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from nre_ros.errors import NreError
from nre_ros.gate.motion import MotionModel
from nre_ros.gate.settings import GateSettings
from nre_ros.localization.defaults import DEFAULT_MIN_CONFIDENCE
from nre_ros.node.parameter_sources import files_for_other_nodes, given_parameters

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
    list: ParameterType.PARAMETER_STRING_ARRAY,
}

Value = bool | int | float | str | list[str]
"""What a parameter can be."""

_EXPECTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text, in the quotes of YAML where it looks like another value: '\"1\"'",
    list: "a list of text, such as ['front', 'rear']",
}


class ParameterError(NreError):
    """A parameter whose value cannot be used."""


@dataclass(frozen=True)
class Declaration:
    """One parameter.

    Attributes:
        name: Name in ROS.
        default: Default, which also gives the type.
        description: What it means, for ``ros2 param describe`` and docs/parameters.md.
        range: Smallest and largest number.
        choices: All allowed texts, where they are limited.
        runtime: Whether it can be set at any time; the others are read when the node is configured.
    """

    name: str
    default: Value
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    runtime: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """Returns the parameter as ROS describes it."""
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

    def converted(self, value: Any) -> Value:
        """Converts a value of a neighbouring type: 5 for 5.0, 3.0 for 3, 0 and 1 for false and true, one text for a list.

        Args:
            value: The value as it was given.

        Returns:
            The value in the type of the default.

        Raises:
            ParameterError: The value has a type that does not stand for one of these.
        """
        wanted = type(self.default)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(value, (list, tuple)) and wanted is list and all(isinstance(entry, str) for entry in value):
            return list(value)
        if type(value) is wanted and wanted is not list:
            return value
        if wanted is float and is_number:
            return float(value)
        if wanted is int and is_number and float(value).is_integer():
            return int(value)
        if wanted is bool and is_number and value in (0, 1):
            return bool(value)
        if wanted is list and isinstance(value, str):
            return [value]
        raise ParameterError(f"parameter {self.name} is {value!r}, expected {_EXPECTED[wanted]}")

    def fault(self, value: Value) -> str:
        """Checks whether the parameter can have a value; ROS itself checks ranges.

        Args:
            value: The value.

        Returns:
            Why the value cannot be used, empty if it can.
        """
        if isinstance(value, float) and not math.isfinite(value):
            return f"parameter {self.name} is {value}, expected a finite number"
        if self.choices and value not in self.choices:
            return f"parameter {self.name} is {value!r}, expected one of: {', '.join(self.choices)}"
        return ""


# --- the table ----------------------------------------------------------------------------------------

_START = (
    Declaration(
        "autostart", True, "Configure and activate the node when it starts; false: a lifecycle manager does it."
    ),
)

_MAP = (
    Declaration("map_file", "", "Map file to localize in, made by `nre_ros map build`; required."),
    Declaration("create_map", False, "Create an empty map if map_file does not exist; the topic keyframes fills it."),
    Declaration(
        "device",
        "auto",
        "Device of the network and the estimator; auto: the GPU if there is one.",
        choices=("auto", "cpu", "cuda"),
    ),
    Declaration(
        "lost_device",
        "report",
        "After an unrecoverable error of the GPU: report (no poses, and an ERROR of the diagnostics), cpu (go on there), or "
        "exit (end the process with exit code 3, for a supervisor that starts it again).",
        choices=("report", "cpu", "exit"),
    ),
    Declaration(
        "threads",
        0,
        "Number of CPU threads that localize an image; 0: one for each core.  Fewer leave cores to other nodes.",
        range=(0, 256),
    ),
    Declaration(
        "seed", 0, "Seed of the random numbers; the same image and seed give the same pose.", range=(0, 2**31 - 1)
    ),
    Declaration("retrieve", 5, "Number of keyframes that are retrieved for each image.", range=(1, 100)),
    Declaration(
        "min_confidence",
        DEFAULT_MIN_CONFIDENCE,
        "Smallest confidence (0 to 1) of a pose.  Where several poses explain the image, all of them together must reach "
        "it, and min_alternative_confidence is the smallest of the one that odometry confirms.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "use_prior",
        True,
        "Use the predicted pose (from an initial pose, or from the last accepted pose and odometry) as a prior: for "
        "retrieval, and as one more start of the estimator; false: the image alone.",
        runtime=True,
    ),
)

_IMAGES = (
    Declaration(
        "mode",
        "continuous",
        "Which images are localized: continuous (as many as the machine can process), until_localized (until a pose "
        "has been accepted) or on_request (while a call of ~/relocalize waits).",
        choices=("continuous", "until_localized", "on_request"),
        runtime=True,
    ),
    Declaration(
        "max_rate",
        0.0,
        "Largest number of images of each camera that are localized in a second; 0: no limit.  The others are dropped, "
        "but count as received.",
        range=(0.0, 1000.0),
        runtime=True,
    ),
    Declaration(
        "cameras",
        [""],
        "Names of the robot's cameras.  Each has the topics <name>/image and <name>/camera_info; with an empty name "
        "they are image and camera_info.",
    ),
    Declaration(
        "image_transport",
        "auto",
        "Images to subscribe to: raw (topic image), compressed (topic image/compressed) or auto (the one that brings images, "
        "raw before compressed; both until that is known and after a loss).",
        choices=("auto", "raw", "compressed"),
    ),
    Declaration(
        "depth_transport",
        "none",
        "Depth images, registered to the images, that may refuse a pose: none, raw (topic depth or <name>/depth) or "
        "compressedDepth (depth/compressedDepth).",
        choices=("none", "raw", "compressedDepth"),
    ),
    Declaration(
        "rectified", False, "Whether the images are undistorted; true: P of camera_info is used instead of K and D."
    ),
)

_FRAMES = (
    Declaration("map_frame", "", "Name of the map's frame in messages and TF; empty: the one in the map file."),
    Declaration(
        "odom_frame",
        "odom",
        "Odometry frame: TF must connect it with the camera, and map->odom is broadcast.  Empty: there is no "
        "odometry, map->base_frame (or map->camera) is broadcast at the image's stamp.",
    ),
    Declaration(
        "base_frame",
        "",
        "The robot's base: the frame of initialpose and, without odometry, of the broadcast transform; TF must connect "
        "it with the camera.  Empty: the camera.",
    ),
    Declaration(
        "camera_frame",
        "",
        "The camera's optical frame, for a robot with one camera; empty: frame_id of the image, or of camera_info.",
    ),
    Declaration(
        "pose_frame",
        "",
        "Frame whose pose is published on pose and pose_with_covariance; TF must connect it with the camera.  "
        "Empty: the camera's optical frame; of several cameras, base_frame.",
    ),
)

_TF = (
    Declaration("publish_tf", True, "Broadcast on /tf; false: only the pose topics.", runtime=True),
    Declaration("transform_rate", 20.0, "How often the latest map->odom is broadcast, in Hz.", range=(1.0, 200.0)),
    Declaration(
        "transform_tolerance",
        0.1,
        "Seconds by which map->odom is dated into the future, so that it is valid until the next one.",
        range=(0.0, 5.0),
        runtime=True,
    ),
    Declaration(
        "transform_timeout",
        0.2,
        "Longest wait for the transform at the image's stamp, seconds.",
        range=(0.0, 1.5),
        runtime=True,
    ),
)

_GATE = (
    Declaration(
        "gate_probability",
        0.999,
        "Probability with which a correct pose passes the chi-square test against the pose predicted by odometry.",
        range=(0.5, 0.999999),
        runtime=True,
    ),
    Declaration(
        "first_fixes",
        2,
        "Consecutive poses (fixes) that must agree with each other before the first one is accepted.",
        range=(1, 100),
        runtime=True,
    ),
    Declaration("first_seconds", 0.2, "Time that these fixes must span, seconds.", range=(0.0, 60.0), runtime=True),
    Declaration(
        "jump_fixes",
        3,
        "Consecutive fixes that must agree before one is accepted that odometry does not explain (a kidnapped robot).",
        range=(1, 100),
        runtime=True,
    ),
    Declaration("jump_seconds", 1.5, "Time that these fixes must span, seconds.", range=(0.0, 60.0), runtime=True),
    Declaration(
        "single_confidence",
        0.0,
        "A first fix of at least this confidence is accepted alone; 0: never.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "max_alternative_share",
        0.35,
        "An image whose alternative pose has a larger share of the probability is evidence for neither pose, unless "
        "odometry confirms one of them.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "min_alternative_share",
        0.1,
        "Alternative poses with a smaller share are not compared with odometry.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "min_alternative_confidence",
        0.0,
        "Smallest confidence (0 to 1) of a pose that odometry chooses among several poses of the image; at least "
        "min_confidence: no pose with a lower confidence is ever accepted.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "covariance_inflation",
        1.0,
        "Factor on the reported standard deviations.",
        range=(0.1, 100.0),
        runtime=True,
    ),
    Declaration(
        "min_position_stddev",
        0.02,
        "Smallest standard deviation of a position, metres; added in squares.",
        range=(1e-4, 10.0),
        runtime=True,
    ),
    Declaration(
        "min_rotation_stddev_deg",
        0.5,
        "Smallest standard deviation of a rotation, degrees; added in squares.",
        range=(1e-4, 90.0),
        runtime=True,
    ),
    Declaration(
        "max_position_stddev",
        0.5,
        "Poses with a larger standard deviation of the position are rejected, metres.",
        range=(0.001, 1000.0),
        runtime=True,
    ),
    Declaration(
        "max_rotation_stddev_deg",
        10.0,
        "Poses with a larger standard deviation of the rotation are rejected, degrees.",
        range=(0.01, 180.0),
        runtime=True,
    ),
    Declaration(
        "max_prediction_stddev",
        2.0,
        "Agreement with a predicted position that has a larger standard deviation is no evidence, metres.",
        range=(0.01, 1000.0),
        runtime=True,
    ),
    Declaration(
        "lost_seconds",
        10.0,
        "Time without an accepted pose after which the robot is lost, seconds.",
        range=(0.1, 86400.0),
        runtime=True,
    ),
    Declaration(
        "lost_metres",
        10.0,
        "Path length by odometry without an accepted pose after which the robot is lost, metres.",
        range=(0.1, 1e6),
        runtime=True,
    ),
    Declaration(
        "max_speed",
        2.0,
        "Largest speed of the robot, m/s; odometry that is faster has jumped.",
        range=(0.01, 100.0),
        runtime=True,
    ),
    Declaration(
        "drift_per_metre",
        0.05,
        "Drift of odometry, metres for each metre (one standard deviation).",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "drift_per_radian",
        0.05,
        "Drift of odometry, radians for each radian (one standard deviation).",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "drift_per_second",
        0.01,
        "Drift of odometry, metres for each second, also at rest (one standard deviation).",
        range=(0.0, 1.0),
        runtime=True,
    ),
)

_POSES = (
    Declaration(
        "odometry_propagation",
        False,
        "Also publish the pose between images, propagated by odometry, with a covariance that grows; false: only poses "
        "of images.",
        runtime=True,
    ),
    Declaration(
        "last_pose_file",
        "",
        "File in which the last accepted pose is kept, as the initial pose of the next start; empty: none.",
    ),
)

_VIEWS = (
    Declaration("diagnostics_period", 1.0, "Seconds between two messages on /diagnostics.", range=(0.1, 60.0)),
    Declaration(
        "stale_after",
        5.0,
        "Seconds without an image after which /diagnostics reports STALE.",
        range=(0.1, 3600.0),
        runtime=True,
    ),
    Declaration(
        "low_confidence",
        0.7,
        "An accepted pose with a lower confidence (0 to 1) makes /diagnostics warn.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration(
        "path_length", 1000, "Number of poses on the topic path, the newest.", range=(1, 100_000), runtime=True
    ),
    Declaration(
        "path_spacing",
        0.05,
        "Smallest distance between two poses of the path, metres.",
        range=(0.0, 100.0),
        runtime=True,
    ),
    Declaration(
        "debug_rate",
        5.0,
        "Debug images, markers and fix_points a second, at most; only for topics with a subscriber.",
        range=(0.1, 100.0),
        runtime=True,
    ),
)

SECTIONS = {
    "start": _START,
    "map and estimator": _MAP,
    "images": _IMAGES,
    "frames (REP-105)": _FRAMES,
    "TF": _TF,
    "which poses are accepted": _GATE,
    "poses": _POSES,
    "diagnostics and views": _VIEWS,
}
"""Title -> parameters, in the order of the parameter file."""

DECLARATIONS = tuple(declaration for section in SECTIONS.values() for declaration in section)
_BY_NAME = {declaration.name: declaration for declaration in DECLARATIONS}
_SIM_TIME = Declaration("use_sim_time", False, "Use the time of /clock.")
"""The parameter that every node has."""

DEPRECATED_NAMES = {
    "agreement": "gate_probability",
    "max_rival": "max_alternative_share",
    "inflation": "covariance_inflation",
    "floor_metres": "min_position_stddev",
    "max_metres": "max_position_stddev",
    "follow_odometry": "odometry_propagation",
}
"""Names of the version before -> present names; accepted until the next version, with a warning."""


# --- declaration and validation -----------------------------------------------------------------------


def declare(node: Node, configured: Callable[[], bool], arguments: Sequence[str] = ()) -> None:
    """Declares all parameters; from then on, values that cannot be used are refused with a reason.

    Args:
        node: The node.
        configured: Whether the node has read the parameters that it reads when it is configured.
        arguments: The command line, whose last value of a parameter counts; what rclpy makes of it without.

    Raises:
        ParameterError: A value cannot be used.
        rclpy.exceptions.ParameterException: A value is out of range.
    """
    given = _given(node, arguments)
    values = {
        declaration.name: declaration.converted(given[declaration.name])
        if declaration.name in given
        else declaration.default
        for declaration in DECLARATIONS
    }
    for old in DEPRECATED_NAMES:
        if old in given:
            _take_deprecated(node, old, given[old], values)
    for declaration in DECLARATIONS:
        value = values[declaration.name]
        fault = declaration.fault(value)
        if fault:
            raise ParameterError(fault)
        node.declare_parameter(declaration.name, value, declaration.descriptor(), ignore_override=True)
    if "use_sim_time" in given:  # which rclpy has declared already
        node.set_parameters([Parameter("use_sim_time", value=_SIM_TIME.converted(given["use_sim_time"]))])
    _warn_unknown(node, given, arguments)
    node.add_on_set_parameters_callback(lambda parameters: _check(parameters, configured()))
    if hasattr(node, "add_pre_set_parameters_callback"):  # not in Humble
        node.add_pre_set_parameters_callback(lambda parameters: _as_declared(node, parameters))


def _given(node: Node, arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters that were given to the node, by any name."""
    given = {name: parameter.value for name, parameter in node._parameter_overrides.items()}
    return {**given, **given_parameters(arguments, node.get_fully_qualified_name())}


def _take_deprecated(node: Node, old: str, value: Any, values: dict[str, Value]) -> None:
    """Puts the value of a deprecated name, with a warning, under the present name."""
    _warn_deprecated(node, old)
    declaration = _BY_NAME[DEPRECATED_NAMES[old]]
    # a default in a copy of config/localize.yaml is no reason to ignore the old name on the command line
    if values[declaration.name] != declaration.default:
        node.get_logger().warning(f"parameter {old} is ignored: its present name, {declaration.name}, is set as well")
        return
    try:
        converted = declaration.converted(value)
    except ParameterError as error:
        raise ParameterError(f"parameter {old} (now {declaration.name}): {error}") from None
    fault = declaration.fault(converted)
    if declaration.range and not declaration.range[0] <= float(converted) <= declaration.range[1]:  # type: ignore[arg-type]  # a number
        low, high = declaration.range
        fault = f"{converted} is not between {low:g} and {high:g}"
    if fault:
        raise ParameterError(f"parameter {old} (now {declaration.name}): {fault}")
    values[declaration.name] = converted


def _warn_unknown(node: Node, given: Mapping[str, Any], arguments: Sequence[str]) -> None:
    """Warns about parameters that the node does not have, and about files that are for other nodes."""
    known = [*_BY_NAME, *DEPRECATED_NAMES, "use_sim_time"]
    for name in given:
        if name in known or name.startswith("qos_overrides.") or node.has_parameter(name):
            continue
        similar = difflib.get_close_matches(name, known, n=1)
        advice = f", did you mean {similar[0]}?" if similar else " (docs/parameters.md has all)"
        node.get_logger().warning(f"parameter {name} is unknown and ignored{advice}")
    full_name = node.get_fully_qualified_name()
    for file, others in files_for_other_nodes(arguments, full_name).items():
        node.get_logger().warning(
            f"parameter file {file} gives nothing to {full_name}, only to {', '.join(others)}: begin it with /**: "
            "for a node of any name and namespace"
        )


def value_of(node: Node, name: str) -> Any:
    """Returns the present value of a parameter, of the type of its default.

    Args:
        node: The node.
        name: Name of the parameter.
    """
    return node.get_parameter(name).value


def _check(parameters: Sequence[Parameter], configured: bool) -> SetParametersResult:
    for parameter in parameters:
        declaration = _BY_NAME.get(parameter.name)
        if declaration is None:
            continue
        if configured and not declaration.runtime:
            fault = f"parameter {declaration.name} is read when the node is configured: clean it up first"
        else:
            fault = declaration.fault(parameter.value)
        if fault:
            return SetParametersResult(successful=False, reason=fault)
    return SetParametersResult(successful=True)


def _as_declared(node: Node, parameters: Sequence[Parameter]) -> list[Parameter]:
    """The parameters that are about to be set, under their present names and in their declared types."""
    declared = []
    for parameter in parameters:
        name = DEPRECATED_NAMES.get(parameter.name, parameter.name)
        if name != parameter.name:
            _warn_deprecated(node, parameter.name)
        value = parameter.value
        if name in _BY_NAME:
            with suppress(ParameterError):  # rclpy refuses it with the two types
                value = _BY_NAME[name].converted(value)
        kind = parameter.type_ if value is parameter.value else None
        declared.append(Parameter(name, kind, value))
    return declared


def _warn_deprecated(node: Node, old: str) -> None:
    node.get_logger().warning(f"parameter {old} is deprecated: its name is now {DEPRECATED_NAMES[old]}")


# --- the gate's settings ------------------------------------------------------------------------------

_IN_DEGREES = {"min_rotation_stddev_deg": "min_rotation_stddev", "max_rotation_stddev_deg": "max_rotation_stddev"}
"""Parameters in degrees -> settings in radians."""
_GATE_NAMES = sorted(set(_BY_NAME) & {field.name for field in fields(GateSettings)})
_MOTION_NAMES = sorted(set(_BY_NAME) & {field.name for field in fields(MotionModel)})


def gate_settings(node: Node) -> GateSettings:
    """Returns the gate's settings by the parameters of the same names.

    Args:
        node: The node.

    Raises:
        SettingsError: A value is out of range.
    """
    motion = replace(MotionModel(), **{name: value_of(node, name) for name in _MOTION_NAMES})
    settings = {name: value_of(node, name) for name in _GATE_NAMES}
    settings |= {setting: math.radians(value_of(node, name)) for name, setting in _IN_DEGREES.items()}
    return GateSettings(**settings, motion=motion)


def fixed_gate_settings() -> dict[str, float]:
    """Returns the gate's settings that are no parameters of the node, with their values."""
    named = {*_GATE_NAMES, *_IN_DEGREES.values(), *_MOTION_NAMES, "motion"}
    values = {**vars(GateSettings()), **vars(MotionModel())}
    return {name: value for name, value in values.items() if name not in named}


# --- documentation ------------------------------------------------------------------------------------

_HEAD = """\
# Parameters of the node

This page is made by `nre_ros node --parameters > docs/parameters.md` from the declarations that `ros2 param describe`
shows as well. Parameters with * can be set while the node runs; the others are read when the node is configured. Every
parameter can be given in a parameter file (`config/localize.yaml` has all of them) or on the command line:
`--ros-args -p name:=value`.

Of several values of a parameter the last one counts. A number without a fraction is accepted in place of a whole number or
a decimal one, 0 and 1 in place of false and true, and one text in place of a list. A value of any other type ends the start
with a message. Text that YAML would read as another value needs quotes of its own: `-p map_file:='"1"'`. An unknown name is
ignored with a warning.
"""


def markdown_table() -> str:
    """Returns the text of docs/parameters.md."""
    parts = [_HEAD]
    for title, declarations in SECTIONS.items():
        parts.append(f"## {title[0].upper() + title[1:]}\n")
        parts.append("| parameter | default | values | |\n| --- | --- | --- | --- |")
        parts += [_row(declaration) for declaration in declarations]
        parts.append("")
        if declarations is _GATE:
            fixed = ", ".join(f"`{name}` {value:.5g}" for name, value in fixed_gate_settings().items())
            parts.append(f"Settings of the gate that are no parameters of the node (radians): {fixed}.\n")
    parts.append("## Deprecated names\n")
    parts.append("These names are accepted in this version, with a warning.\n")
    parts.append("| deprecated | now |\n| --- | --- |")
    parts += [f"| {old} | `{new}` |" for old, new in DEPRECATED_NAMES.items()]
    parts.append("")
    return "\n".join(parts)


def _row(declaration: Declaration) -> str:
    name = f"`{declaration.name}`" + (" *" if declaration.runtime else "")
    description = " ".join(declaration.description.split()).replace("|", "\\|").replace("<", "\\<")
    return f"| {name} | {_cell(declaration.default)} | {_values(declaration)} | {description} |"


def _values(declaration: Declaration) -> str:
    if declaration.choices:
        return ", ".join(_cell(choice) for choice in declaration.choices)
    if declaration.range:
        low, high = declaration.range
        kind = int if isinstance(declaration.default, int) else float
        return f"{kind(low)} to {kind(high)}"
    return {bool: "true, false", list: "list of text"}.get(type(declaration.default), "text")


def _cell(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"`{value}`" if value else '`""`'
    if isinstance(value, list):
        return "[" + ", ".join(_cell(entry) for entry in value) + "]"
    return str(value)
