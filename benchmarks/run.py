# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and prints their tables: ``python benchmarks/run.py [NAMES...]``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

# the package of this checkout is measured, not one that happens to be installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import ROOT, Options, Skip, UsageError, commit, environment, prepare_process
from docs_page import PAGE, write_page

BENCHMARKS = {
    "published": "consensus and refinement against the published way, on the published code's numbers",
    "p3p": "the batched P3P solver against PoseLib on random problems",
    "designs": "designs of the fine stage and of the hypotheses, on the same scenes",
    "accuracy": "position and angle errors on real images, against SIFT, XFeat, LighterGlue and DISK with PoseLib",
    "retrieval": "how often a keyframe that truly overlaps is found, and what each step of retrieval brings",
    "scale": "opening, retrieval and a whole query on maps of 1,000 to 100,000 keyframes",
    "speed": "milliseconds and memory of one query",
    "imports": "keyframes a second of the importers, by stages",
    "maps": "queries in whole maps of each kind of input",
    "calibration": "fits the confidence and the covariance to trials whose answers are known",
    "confidence": "whether the confidence and the covariance are what they say, on other trials",
    "kidnap": "seconds until a robot that was carried to another room is found, with odometry that lies",
    "lookalike": "poses believed in the wrong one of two equal rooms, in ten minutes, with odometry and without",
    "node": "the node through DDS: delay, memory and threads over minutes, a bag in real time, a kidnap",
    "storage": "bytes a keyframe, what adding one costs, and int8 descriptors against float32 on the kitchen",
}
"""Name of the module -> what it measures; ``run(options)`` of each yields tables as they are done."""


def main(arguments: list[str] | None = None) -> int:
    args = _parse(arguments)
    if args.list:
        print("\n".join(f"{name:10} {what}" for name, what in BENCHMARKS.items()))
        return 0
    # all at once: a run of many minutes is of one state of the sources
    modules = {name: importlib.import_module(name) for name in args.names or BENCHMARKS}
    prepare_process(args.threads)
    about = environment()
    if args.work:
        about["work folder"] = _made_at(args.work, args.seed)
    print("\n".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    report = {"environment": about, "benchmarks": {}}
    try:
        with _folder(args.work) as folder:
            options = Options(
                args.shared,
                Path(folder),
                args.device,
                args.threads,
                args.seed,
                args.queries,
                args.sets,
                args.methods,
                args.write,
            )
            for name, module in modules.items():
                _run(name, module, options, report["benchmarks"].setdefault(name, {"tables": []}))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:  # hours of measuring are not lost with the benchmark that fails, or when it is interrupted
        _write(args, report)
    return 0


def _write(args, report: dict) -> None:
    """The files that were asked for, if anything was measured; the page not without what the data would have told."""
    if not any(benchmark["tables"] for benchmark in report["benchmarks"].values()):
        return
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    skipped = [f"{name} ({found['skipped']})" for name, found in report["benchmarks"].items() if "skipped" in found]
    if args.write_docs and skipped:
        print(f"{args.write_docs} is not written, skipped were: {'; '.join(skipped)}", file=sys.stderr)
    elif args.write_docs:
        write_page(args.write_docs, report)


def _folder(work: Path | None):
    """Where maps and rendered views lie: a folder that is kept, or one that goes at the end."""
    if work is None:
        return tempfile.TemporaryDirectory(prefix="nre_ros_bench_")
    work.mkdir(parents=True, exist_ok=True)
    return nullcontext(work)


def _made_at(work: Path, seed: int) -> str:
    """By which state of the sources and with which seed the maps in the folder were made; a warning if by another.

    A folder without maps is marked as of this run.
    """
    now = {"commit of nre_ros": commit("nre_ros"), "seed": seed}
    mark = work / "made_by.json"
    if not mark.exists() and (not work.is_dir() or not any(work.iterdir())):
        work.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(now) + "\n", encoding="utf-8")
    try:
        made = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made = "an unknown state of the sources"
    words = ", ".join(f"{key} {value}" for key, value in made.items()) if isinstance(made, dict) else made
    return words if made == now else f"WARNING: maps that are there are of {words}; measured is another state or seed"


def _run(name: str, module, options: Options, found: dict) -> None:
    """found: gets the tables as they are done, and why there are no more."""
    print(f"\n## {name}: {BENCHMARKS[name]}\n", flush=True)
    try:
        for table in module.run(options):
            print(table.to_text(), flush=True)
            found["tables"].append(table.to_json())
    except Skip as reason:
        print(f"skipped: {reason}", flush=True)
        found["skipped"] = str(reason)
    except BaseException as error:
        found["broken off"] = str(error) or type(error).__name__
        raise


def _parse(arguments):
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--list", action="store_true", help="what there is, and nothing else")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", metavar="DIR", help="the shared data")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep maps and rendered views there for the next run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the tables and the machine as JSON, too")
    parser.add_argument(
        "--write-docs",
        type=Path,
        nargs="?",
        const=PAGE,
        metavar="FILE",
        help=f"the tables of this run as a page, by default {PAGE.relative_to(ROOT)}",
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (default 2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all random draws (default 0)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="of p3p and accuracy; speed takes all that there are"
    )
    parser.add_argument("--write", action="store_true", help="calibration: put the fitted numbers into the package")
    parser.add_argument("--queries", type=int, default=0, metavar="N", help="evenly spaced queries a set (default all)")
    parser.add_argument("--sets", type=_names, default=(), metavar="A,B", help="of benchmarks with sets (default all)")
    parser.add_argument("--methods", type=_names, default=(), metavar="A,B", help="methods of accuracy (default all)")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]!r}, known: {', '.join(BENCHMARKS)}")
    return args


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


if __name__ == "__main__":
    sys.exit(main())
