# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros compare``: two evaluations laid over each other."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(subparsers) -> None:
    """Registers the sub-command."""
    parser = subparsers.add_parser(
        "compare",
        help="lay two evaluations over each other",
        description="Prints the figures of two (or more) evaluations side by side and writes a page with both in every "
        "figure. Each is a folder that `nre_ros evaluate -o` wrote; bag and map need not be there any more.",
    )
    parser.add_argument("runs", nargs="+", metavar="DIR", help="folders of evaluations, at least two")
    parser.add_argument("-o", "--output", default="compare.html", metavar="PAGE.html", help="default: compare.html")
    parser.set_defaults(func=run, usage_error=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Compares."""
    from nre_ros.cli.output import print_table
    from nre_ros.evaluation.compare import read_runs
    from nre_ros.evaluation.report import tables
    from nre_ros.evaluation.report.write import write_comparison

    if len(arguments.runs) < 2:
        arguments.usage_error("give two folders")
    runs, summaries = read_runs([Path(run) for run in arguments.runs])
    write_comparison(Path(arguments.output), runs, summaries)
    rows = [["", *runs], *tables.main_rows(summaries), *tables.calibration_rows(summaries)]
    widths = [max(len(row[k]) for row in rows) for k in range(1, len(rows[0]))]
    print_table(
        *((row[0], "  ".join(cell.ljust(width) for cell, width in zip(row[1:], widths)).rstrip()) for row in rows),
        ("page", arguments.output),
    )
    return 0
