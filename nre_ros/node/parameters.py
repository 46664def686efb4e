"""The node's parameters: name, default, range and meaning, in one table.

``config/localize.yaml`` shows them all with these defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from nre_ros.errors import NreError


class ParameterError(NreError):
    """A parameter whose value cannot be used."""


@dataclass(frozen=True)
class Declaration:
    """One parameter.  ``range``: smallest and largest number; ``choices``: all allowed words;
    ``runtime``: may be set while the node runs."""

    name: str
    default: str | bool | int | float
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    runtime: bool = False

    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(description=self.description, read_only=not self.runtime)
        if self.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.range and isinstance(self.default, int):
            low, high = self.range
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=0)]
        elif self.range:
            low, high = map(float, self.range)
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
        return descriptor


DECLARATIONS = (
    Declaration("map_file", "", "Map file (made by `nre_ros map build`) to localize in."),
    Declaration(
        "device", "auto", "Where the network and the estimator run; auto: the GPU if there is one.",
        choices=("auto", "cpu", "cuda"),
    ),
    Declaration("seed", 0, "Seed of the random draws: same image, same seed, same pose.", range=(0, 2**31 - 1)),
    Declaration("retrieve", 5, "Keyframes of the map that an image is compared with.", range=(1, 100)),
    Declaration(
        "min_confidence", 0.5, "Images localized with a lower confidence (0 to 1) get no pose.",
        range=(0.0, 1.0), runtime=True,
    ),
    Declaration(
        "image_transport", "auto",
        "Images to listen to: raw (topic image), compressed (topic image/compressed) or auto, whichever comes.",
        choices=("auto", "raw", "compressed"),
    ),
    Declaration("rectified", False, "The images are undistorted already: camera_info's P counts, not its K and D."),
    Declaration("map_frame", "", "Name of the map's frame in messages and TF; empty: the one in the map file."),
    Declaration(
        "odom_frame", "odom",
        "Odometry frame: TF must connect it with the camera, and map->odom is broadcast.  Empty: there is no "
        "odometry, map->base_frame (or map->camera) is broadcast at the image's stamp.",
    ),
    Declaration(
        "base_frame", "",
        "Without odometry: the frame whose pose is broadcast; TF must connect it with the camera.  Empty: the camera.",
    ),
    Declaration("camera_frame", "", "The camera's optical frame; empty: frame_id of the image, or of camera_info."),
    Declaration(
        "pose_frame", "",
        "Frame whose pose is published on pose and pose_with_covariance; TF must connect it with the camera.  "
        "Empty: the camera's optical frame.",
    ),
    Declaration("publish_tf", True, "Broadcast on /tf; false: only the pose topics.", runtime=True),
    Declaration(
        "transform_rate", 20.0, "How often the latest map->odom is broadcast, in Hz.", range=(1.0, 200.0)
    ),
    Declaration(
        "transform_tolerance", 0.1, "Seconds by which map->odom is dated into the future, so that it holds until "
        "the next one.", range=(0.0, 5.0), runtime=True,
    ),
    Declaration(
        "transform_timeout", 0.2, "Seconds to wait for the transform at the image's stamp to arrive.",
        range=(0.0, 1.5), runtime=True,
    ),
)


def declare(node: Node):
    """Declares all parameters; raises ``ParameterError`` or rclpy's error on a value out of range."""
    node.declare_parameters(
        "", [(entry.name, entry.default, entry.descriptor()) for entry in DECLARATIONS]
    )
    for entry in DECLARATIONS:
        value = value_of(node, entry.name)
        if entry.choices and value not in entry.choices:
            raise ParameterError(f"parameter {entry.name} is {value!r}, expected one of: {', '.join(entry.choices)}")


def value_of(node: Node, name: str):
    """The present value of a parameter."""
    return node.get_parameter(name).value
