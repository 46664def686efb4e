# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""ROS messages and recordings, read without ROS.

The functions take messages of rclpy and messages that rosbags has read from a recording alike (``protocols``).

* ``images``, ``depth_images``: pixels and depth of Image and CompressedImage messages.
* ``camera_info``: the camera model of a CameraInfo message.
* ``camera_history``: the camera of each image of a recording.
* ``stamps``: time stamps as integer nanoseconds.
* ``optical_frames``: what distinguishes a camera's optical frame from its body.
* ``transform_buffer``: a tree of transforms over time, like tf2's.
* ``bag``, ``damaged_bag``: rosbag2 recordings, whole ones and ones that broke off.
"""
