# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Defaults that the command line and the node name without importing torch."""

DEFAULT_MIN_CONFIDENCE = 0.85
"""Smallest confidence of an accepted pose, chosen on the queries that the confidence is fitted to (docs/confidence.md)."""
