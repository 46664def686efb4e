# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The ROS node.  Where to begin reading: ``pipeline`` (an image's way), ``active`` (its parts), ``lifecycle``."""
