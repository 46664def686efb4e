# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: an image with its map points, a sheet about it, all poses in 3D, a map; and the means of reports."""
