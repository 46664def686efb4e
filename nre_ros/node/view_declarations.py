# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the outputs that people look at: diagnostics, path, debug image."""

from __future__ import annotations

from nre_ros.node.declaration import Declaration

VIEWS = (
    Declaration("diagnostics_period", 1.0, "Seconds from one message on /diagnostics to the next.", range=(0.1, 60.0)),
    Declaration(
        "stale_after",
        5.0,
        "Seconds without an image after which /diagnostics says stale.",
        range=(0.1, 3600.0),
        runtime=True,
    ),
    Declaration(
        "low_confidence",
        0.7,
        "A pose believed with a lower confidence (0 to 1) makes /diagnostics warn.",
        range=(0.0, 1.0),
        runtime=True,
    ),
    Declaration("path_length", 1000, "Poses that the topic path keeps, the newest.", range=(1, 100_000), runtime=True),
    Declaration(
        "path_spacing",
        0.05,
        "Metres from one pose of the path to the next, at least.",
        range=(0.0, 100.0),
        runtime=True,
    ),
    Declaration(
        "debug_rate",
        5.0,
        "Debug images and markers a second at most, of those that somebody subscribes to.",
        range=(0.1, 100.0),
        runtime=True,
    ),
)
