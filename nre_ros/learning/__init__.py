# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Learns features with the Neural Reprojection Error: losses, networks, training pairs and a trainer."""
