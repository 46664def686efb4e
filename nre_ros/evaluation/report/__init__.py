# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The report of one run, or of several runs compared: one HTML file without external requests.

``write`` assembles the page from ``nre_ros.pictures.page`` (HTML elements), ``tables`` (figures as text), ``figures`` and
``top_view`` (plots as SVG) and ``worst_queries`` (the worst images with pictures).
"""
