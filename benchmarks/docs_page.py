# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of a run as a page of the documentation."""

from __future__ import annotations

from pathlib import Path

from common import ROOT, Table

PAGE = ROOT / "docs/benchmarks.md"
_HEAD = """\
# Benchmarks

`make bench` writes this page (`benchmarks/run.py NAMES --write-docs`). `benchmarks/README.md` describes each benchmark
and what the other methods are given. [Evaluation](evaluation.md) defines the figures of an evaluation.

The tables of `accuracy` differ from these definitions. A pose of ours counts if its confidence is at least 0.5. A pose of
another method counts whatever its number of inliers. Median and 90% are over all queries, and a query without a pose is
infinitely far off. The 90% value is the next larger one of the errors.
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
