# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the user chooses of a bag."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BagOptions:
    """Topics and frames that the user named; an empty one is found in the bag.

    Attributes:
        image: Topic of the images; empty: the only one.
        camera_info: Topic of their CameraInfo; empty: the one beside the images, or the only one.
        depth: Topic of the depth images; empty: the only one if there is any.
        depth_info: Topic of the depth camera's CameraInfo; empty: the one beside the depth images if there is any.
        depth_scale: Depth value of one metre; None: 1000 for depth of 16 bits and 1 for depth of 32 bits.
        use_depth: Whether depth is used at all.
        poses: Topic of the poses; empty: /tf, or the only pose topic of a bag without /tf.
        pose_of: Frame whose poses the pose topic contains; empty: the message's child frame, or the camera.
        frame: The map's frame; empty: ``map`` if transforms lead there from the camera, else ``odom``; the pose
            topic's own frame if there is a pose topic.
    """

    image: str = ""
    camera_info: str = ""
    depth: str = ""
    depth_info: str = ""
    depth_scale: float | None = None
    use_depth: bool = True
    poses: str = ""
    pose_of: str = ""
    frame: str = ""
