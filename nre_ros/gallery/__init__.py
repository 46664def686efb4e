# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A synthetic world with exact truth: rooms with photographs on their walls, rendered for any camera.

    gallery = Gallery(build_room(seed=0))
    view = gallery.render(camera, T_map_cam)        # image, depth and the pose they belong to
    rgbd.write_rgbd(folder, gallery, camera, mapping_poses())     # input of ``nre_ros map build rgbd``
    bag.write_bag(folder, gallery, camera, robot_loop())          # a rosbag2 to play to the node

``rgbd`` and ``bag`` are modules to import on their own: they need more libraries than the pictures do.
"""

from nre_ros.gallery.render import Gallery, Rendering
from nre_ros.gallery.room import build_room
from nre_ros.gallery.scene import Quad, Texture, box
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import (
    CameraMount,
    OdometryNoise,
    PlanarTrajectory,
    camera_pose,
    drifting_odometry,
    mapping_poses,
    robot_loop,
)

__all__ = [
    "CameraMount",
    "Gallery",
    "OdometryNoise",
    "PlanarTrajectory",
    "Quad",
    "Rendering",
    "Sensor",
    "Texture",
    "box",
    "build_room",
    "camera_pose",
    "drifting_odometry",
    "mapping_poses",
    "robot_loop",
]
