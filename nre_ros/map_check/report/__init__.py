# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The report of a check of a map: one HTML file without external requests.

``write`` assembles the page from ``outcomes`` (which views get a right pose), ``areas`` (the same by place and viewing
direction), ``plan`` (the map from above), ``weak_spots`` (where it fails and why) and ``entries`` (keyframes with pictures).
"""
