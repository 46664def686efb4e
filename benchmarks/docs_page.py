# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The tables of a run as a page of the documentation."""

from __future__ import annotations

from pathlib import Path

from common import ROOT, Table

PAGE = ROOT / "docs/benchmarks.md"
_HEAD = """\
# Benchmarks

Written by `make bench` (`benchmarks/run.py NAMES --write-docs`);
`benchmarks/README.md` says what each measures, and what the other methods are given. How the
figures of an evaluation are defined: [evaluation.md](evaluation.md). The tables of `accuracy` differ from it: a pose of
ours counts if its confidence is at least 0.5, one of the others whatever its inliers; median and 90% are over all
queries, infinite without a pose, and the 90% is the next larger of the queries' errors.
"""


def write_page(path: Path, report: dict) -> None:
    """Writes a run's report, as ``run.py --json`` has it, as markdown: the machine, then the benchmarks' tables."""
    lines = [_HEAD, "| | |", "| --- | --- |"]
    lines += [f"| {key} | {value} |" for key, value in report["environment"].items()]
    for name, benchmark in report["benchmarks"].items():
        lines += ["", f"## {name}", ""]
        lines += [Table(**{**table, "columns": tuple(table["columns"])}).to_text() for table in benchmark["tables"]]
        lines += [f"{what.capitalize()}: {benchmark[what]}" for what in ("skipped", "broken off") if what in benchmark]
    path.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
