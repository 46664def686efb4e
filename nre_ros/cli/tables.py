# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Tables on the terminal."""

from __future__ import annotations


def print_table(*rows) -> None:
    """Label and value, one pair a line; rows without a value are left out."""
    rows = [(str(label), value) for label, value in rows if value is not None]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")
