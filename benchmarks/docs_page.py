# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of a run as a page of the documentation."""

from __future__ import annotations

from pathlib import Path

from common import ROOT, Table

PAGE = ROOT / "docs/benchmarks.md"
_HEAD = """\
# Benchmarks

Written by `make bench` (`benchmarks/run.py NAMES --write-docs`);
[benchmarks/README.md](../benchmarks/README.md) describes what each benchmark measures, and what the baselines get as
input. [evaluation.md](evaluation.md) defines the figures of an evaluation. The tables of `accuracy` differ: a pose of
nre_ros counts if its confidence is at least 0.5, a pose of a baseline counts with any number of inliers. Median and
90 % are over all queries; a query without a pose has an infinite error, and the 90 % is the next larger error.
"""


def write_page(path: Path, report: dict) -> None:
    """Writes the report of a run (as in ``run.py --json``) as Markdown: the machine, then the tables."""
    lines = [_HEAD, "| | |", "| --- | --- |"]
    lines += [f"| {key} | {value} |" for key, value in report["environment"].items()]
    for name, benchmark in report["benchmarks"].items():
        lines += ["", f"## {name}", ""]
        lines += [Table(**{**table, "columns": tuple(table["columns"])}).to_text() for table in benchmark["tables"]]
        lines += [f"{what.capitalize()}: {benchmark[what]}" for what in ("skipped", "broken off") if what in benchmark]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
