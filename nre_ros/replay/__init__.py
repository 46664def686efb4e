# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Plays a bag over DDS to the real node and measures how good and how fast its poses are.

Three processes take part, on a DDS domain of their own:

- the player (``player``) publishes the bag's messages at their own pace and logs when each image was sent;
- the node (``nre_ros node``) localizes the images, as on a robot;
- the listener (``listener``) writes the node's messages to a file, with the time at which each arrived.

``session`` starts and stops them, ``summary`` turns what they logged into numbers, ``picture`` and ``animation`` draw
it, and ``replay_bag`` does all of this.
"""
