# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Stand-in for sensor_msgs_py, written from its documented behaviour."""
