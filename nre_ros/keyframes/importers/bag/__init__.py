# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps from rosbag2 recordings (sqlite3 or MCAP), without playback and without ROS.

``options`` are the user's choices, ``topics`` chooses the topics, ``index`` reads the bag once for stamps and poses,
``recording`` reads single images, and ``source`` makes them a ``MapSource``.
"""
