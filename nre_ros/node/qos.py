# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Quality of service and names of the topics that sensors publish."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy


def sensor_qos() -> QoSProfile:
    """Returns best effort, as in REP-2003 for sensors, one message deep."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def transport_topic(node: Node, image: str, transport: str) -> str:
    """Returns the topic of the encoded images of an image topic, by the rules of image_transport.

    This is ``<image>/<transport>``, also below the name that ``image`` is remapped to.

    Args:
        node: The node whose remappings apply.
        image: Name of the image topic, relative to the node's namespace.
        transport: ``compressed`` or ``compressedDepth``.
    """
    own = node.resolve_topic_name(f"{image}/{transport}")
    if own != node.resolve_topic_name(f"{image}/{transport}", only_expand=True):
        return own
    return node.resolve_topic_name(image) + f"/{transport}"
