# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Geometry from several posed views: which of them see the same surfaces, and how far away the surfaces are."""
