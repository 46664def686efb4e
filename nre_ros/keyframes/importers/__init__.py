# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Importers: sources of keyframes (``map_source``) and the loop that builds a map from them (``build_map``)."""
