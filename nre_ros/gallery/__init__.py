# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A synthetic world with exact ground truth: rooms with photographs on their walls, rendered for any camera.

    gallery = Gallery(build_room(seed=0))
    view = gallery.render(camera, T_map_cam)        # image, depth and their pose
    rgbd.write_rgbd(folder, gallery, camera, mapping_poses())     # input of ``nre_ros map build rgbd``
    bag.write_bag(folder, gallery, camera, robot_loop())          # a rosbag2 to play to the node

Import the modules ``rgbd`` and ``bag`` by themselves: they need more libraries than rendering does.
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
