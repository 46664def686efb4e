# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros compare``: compares evaluations."""

from __future__ import annotations

import argparse
from pathlib import Path

from nre_ros.packages import PICTURES


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the command.

    Args:
        subparsers: The commands of ``nre_ros``.
    """
    parser = subparsers.add_parser(
        "compare",
        help="compare evaluations",
        description="Prints the figures of two or more evaluations side by side, and writes a page with all runs in "
        "every chart. Each run is a folder that `nre_ros evaluate -o` wrote. The bag and the map are not needed.",
    )
    parser.add_argument("runs", nargs="+", metavar="DIR", help="folders of evaluations, at least two")
    parser.add_argument("-o", "--output", default="compare.html", metavar="PAGE.html", help="default: compare.html")
    parser.set_defaults(func=run, usage_error=parser.error, packages=PICTURES)


def run(arguments: argparse.Namespace) -> int:
    """Compares the evaluations, prints the figures and writes the page.

    Args:
        arguments: Parsed arguments.

    Returns:
        The exit code.
    """
    from nre_ros.cli.output import print_table
    from nre_ros.evaluation.output_folder import read_evaluations
    from nre_ros.evaluation.report import tables
    from nre_ros.evaluation.report.write import write_comparison

    if len(arguments.runs) < 2:
        arguments.usage_error("at least two folders are needed")
    runs, summaries = read_evaluations([Path(folder) for folder in arguments.runs])
    write_comparison(Path(arguments.output), runs, summaries)
    rows = [["", *runs], *tables.main_rows(summaries), *tables.calibration_rows(summaries)]
    print_table(*tables.join_columns(rows), ("page", arguments.output))
    return 0
