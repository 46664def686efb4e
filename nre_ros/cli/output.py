# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What the commands print on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nre_ros.replay.replay_bag import ReplayResult


def print_table(*rows: tuple[str, object]) -> None:
    """Prints a table of two columns, one pair of label and value a line.

    Args:
        *rows: Label and value. A row whose value is None is left out.
    """
    shown = [(label, value) for label, value in rows if value is not None]
    width = max(len(label) for label, _ in shown)
    for label, value in shown:
        print(f"{label:<{width}}  {value}")


def print_replay(result: ReplayResult) -> None:
    """Prints the table of a replay and where its pictures are.

    Args:
        result: What ``replay_bag`` returned.
    """
    print_table(*result.summary.rows(), ("picture", result.picture), ("animation", result.animation))
