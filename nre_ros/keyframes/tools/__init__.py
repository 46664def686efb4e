# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the commands ``nre_ros map ...`` do with map files.

* ``info``: a description in figures.
* ``verify``: finds damage, and saves what is intact.
* ``merge``, ``prune``: a map of several maps, a map with fewer keyframes.
* ``export``: COLMAP model, trajectory and point cloud.
* ``derived_map``: how these tools write a new map.
"""
