# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and prints their tables: ``python benchmarks/run.py [NAMES...]``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

# measure the package of this checkout, not an installed one
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# before torch is imported, as the node and the commands have it (nre_ros/process.py)
os.environ["OMP_WAIT_POLICY"] = os.environ.get("OMP_WAIT_POLICY", "PASSIVE")

from common import ROOT, Options, Skip, UsageError, commit, environment, prepare_process
from docs_page import PAGE, write_page

BENCHMARKS = {
    "accuracy": "pose errors on real images, beside SIFT, XFeat, LighterGlue and DISK + LightGlue with PoseLib",
    "speed": "time and memory of one query, beside other methods, the previous release and other work",
    "counters": "what one query asks of a GPU: launched operations, host waits and copies, counted without a GPU",
    "gpu": "a GPU in four minutes: operators against the CPU, times, throughput, memory (--device cuda; else a dry run)",
    "extraction": "time of an image's features in one pass, beside the two passes up to version 0.2",
    "published_comparison": "time and cost of consensus and refinement, beside the published algorithm",
    "p3p": "errors and time of the batched P3P solver, beside PoseLib's",
    "ablation": "pose errors of alternatives of the fine stage and of hypothesis generation",
    "retrieval": "how often retrieval finds a keyframe that overlaps with the query, step by step",
    "map_scaling": "time and memory of opening, retrieval and a whole query, 1,000 to 100,000 keyframes",
    "storage": "bytes of a keyframe, time to add one, and accuracy with stored and float32 descriptors",
    "training_pairs": "training pairs a second of each kind of data, and the errors of those without depth",
    "training_ablation": "heads of other training data, widths and losses: held-out losses and pose errors",
    "import_speed": "keyframes a second of the importers, and the time of their stages",
    "import_accuracy": "pose errors in maps from each kind of input: COLMAP, posed images, kapture",
    "pose_mistakes": "how many mistakes in poses, depth and intrinsics `map build` notices, and its false alarms",
    "map_check": "what `map check` predicts and names, and covariances in maps with errors",
    "kidnapped_robot": "seconds until a robot that was carried to another room is localized again",
    "perceptual_aliasing": "accepted poses in the wrong one of two identical rooms, with and without odometry",
    "node": "the node over DDS: delay, memory and threads over minutes, and its poses on bags",
    "fuzz_readers": "damaged files in every reader: read, refused or a fault",
    "confidence_fit": "fits confidence and covariance to queries with known answers",
    "confidence_validation": "how well confidence and covariance agree with the errors of other queries",
}
"""Name of the module -> what it measures. ``run(options)`` of each module yields tables as they are finished."""

_RENAMED = {
    "published": "published_comparison",
    "designs": "ablation",
    "scale": "map_scaling",
    "imports": "import_speed",
    "maps": "import_accuracy",
    "calibration": "confidence_fit",
    "confidence": "confidence_validation",
    "kidnap": "kidnapped_robot",
    "lookalike": "perceptual_aliasing",
}
"""Names of benchmarks up to version 0.1 -> their names now."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmarks that the command line names; returns the exit code."""
    args = _parse(arguments)
    if args.list:
        print("\n".join(f"{name:<21}  {what}" for name, what in BENCHMARKS.items()))
        return 0
    # import all of them first, so that a run of many minutes measures one state of the sources
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
                args.descriptor_head,
                args.steps,
                args.before,
                args.write_docs.parent if args.write_docs else args.work,
            )
            for name, module in modules.items():
                _run(name, module, options, report["benchmarks"].setdefault(name, {"tables": []}))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:  # keep what was measured when a benchmark fails or is interrupted
        _write(args, report)
    return 0


def _write(args, report: dict) -> None:
    """Writes the requested files if anything was measured; the page only if no benchmark was skipped."""
    if not any(benchmark["tables"] for benchmark in report["benchmarks"].values()):
        return
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    skipped = [f"{name} ({found['skipped']})" for name, found in report["benchmarks"].items() if "skipped" in found]
    if args.write_docs and skipped:
        print(f"{args.write_docs}: not written, because benchmarks were skipped: {'; '.join(skipped)}", file=sys.stderr)
    elif args.write_docs:
        write_page(args.write_docs, report)


def _folder(work: Path | None):
    """Opens the folder for maps and rendered views: one that is kept, or a temporary one."""
    if work is None:
        return tempfile.TemporaryDirectory(prefix="nre_ros_bench_")
    work.mkdir(parents=True, exist_ok=True)
    return nullcontext(work)


def _made_at(work: Path, seed: int) -> str:
    """Describes the commit and the seed with which the maps in a folder were made, with a warning if they differ.

    An empty folder is marked with those of this run.
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
    return words if made == now else f"WARNING: the maps in it are from {words}; this run has another commit or seed"


def _run(name: str, module, options: Options, found: dict) -> None:
    """Runs one benchmark; ``found`` gets its tables as they are finished, and the reason if it ends early."""
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
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)} (default: all, which takes hours)"
    )
    parser.add_argument("--list", action="store_true", help="list the benchmarks and end")
    parser.add_argument(
        "--shared",
        type=Path,
        default=ROOT.parent / "shared",
        metavar="DIR",
        help="folder of shared data (default: shared/ beside the repository)",
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="folder that keeps maps and rendered views for the next run"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write tables and machine as JSON as well")
    parser.add_argument(
        "--write-docs",
        type=Path,
        nargs="?",
        const=PAGE,
        metavar="FILE",
        help=f"write the tables as a Markdown page (default: {PAGE.relative_to(ROOT)})",
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (default: 2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all random draws (default: 0)")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="device of accuracy; p3p and speed use a GPU if there is one (default: cpu)",
    )
    parser.add_argument(
        "--write", action="store_true", help="confidence_fit: write the fitted numbers into the package"
    )
    parser.add_argument(
        "--descriptor-head",
        type=Path,
        metavar="FILE",
        help="retrieval: also compare this learned global descriptor (.safetensors)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=0,
        metavar="N",
        help="training_ablation: steps of each training (default: the benchmark's own number)",
    )
    parser.add_argument(
        "--before",
        default="",
        metavar="REV",
        help="speed: also measure this revision (default: the newest tag of a release, where there is one)",
    )
    parser.add_argument(
        "--queries",
        type=int,
        default=0,
        metavar="N",
        help="use only N evenly spaced queries of each set (default: all)",
    )
    parser.add_argument("--sets", type=_names, default=(), metavar="A,B", help="run only these sets (default: all)")
    parser.add_argument(
        "--methods",
        type=_names,
        default=(),
        metavar="A,B",
        help="accuracy: run only these methods; ablation: only these tables (default: all)",
    )
    args = parser.parse_args(arguments)
    for old in [name for name in args.names if name in _RENAMED and name not in BENCHMARKS]:
        print(f"benchmark {old}: renamed, use {_RENAMED[old]}", file=sys.stderr)
    args.names = [name if name in BENCHMARKS else _RENAMED.get(name, name) for name in args.names]
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"benchmark {unknown[0]!r}: unknown (known: {', '.join(BENCHMARKS)})")
    return args


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


if __name__ == "__main__":
    sys.exit(main())
