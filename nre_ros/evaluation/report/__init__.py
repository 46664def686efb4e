# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The report of one run, or of two laid over each other: one HTML file without external requests."""
