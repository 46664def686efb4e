# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Making keyframes: choice of points, depth and its refinement, triangulation, culling of near-duplicates."""
