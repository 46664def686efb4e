# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Damaged files in every reader of the package: each is read, or refused with an error of the package.

Any other exception, a crash of the process and a reader that takes longer than ``LIMIT_SECONDS`` is a fault. The table
has the damage of the first fault of each kind: ``python benchmarks/fuzz_readers.py READER NUMBER`` repeats it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import ROOT, Options, Table, check_names
from mutations import mutate
from reader_samples import SAMPLES, Sample

from nre_ros.errors import NreError

INPUTS = 10_000
"""Damaged files of each reader, unless ``--queries`` gives another number."""
LIMIT_SECONDS = 20.0
_MEMORY = 6 << 30
"""Bytes that a reader may take on top of what the process has."""


class _TimeoutError(BaseException):
    """Raised in a reader that takes too long; no ``except Exception`` catches this."""


@dataclass
class Outcome:
    """What became of the damaged files of a reader.

    Attributes:
        read: Number of files that were read.
        refused: Number of files that were refused with an error of the package.
        faults: Kind of a fault -> the number of the first damaged file that shows it, and the number of such files.
    """

    read: int = 0
    refused: int = 0
    faults: dict[str, list[int]] = field(default_factory=dict)

    def add(self, fault: str, number: int) -> None:
        """Counts a fault."""
        self.faults.setdefault(fault, [number, 0])[1] += 1


def run(options: Options) -> Iterator[Table]:
    """Yields the table of all readers, and one of the faults if there are any."""
    check_names("set", options.sets, SAMPLES)
    count = options.queries or INPUTS
    rows, faults = [], []
    for name in options.sets or SAMPLES:
        outcome = _in_child(name, count, options.seed)
        rows.append((name, count, outcome.read, outcome.refused, sum(times for _, times in outcome.faults.values())))
        faults += [(name, first, times, fault) for fault, (first, times) in outcome.faults.items()]
        print(f"{rows[-1]}", file=sys.stderr, flush=True)
    yield Table("Damaged files", ("reader", "files", "read", "refused", "faults"), rows)
    if faults:
        yield Table("Faults", ("reader", "first file", "files", "fault"), faults)


def fuzz(sample: Sample, numbers: range, seed: int, folder: Path, progress: Path | None = None) -> Outcome:
    """Reads damaged files.

    Args:
        sample: The reader and its valid files.
        numbers: Numbers of the damaged files; number and seed decide the damage.
        seed: Of the damage.
        folder: Where the files are written.
        progress: File that always has the number of the file that is being read.

    Returns:
        What became of the files.
    """
    outcome = Outcome()
    sample.write(folder)
    sample.read(folder)  # the valid files are read
    for number in numbers:
        damaged = damage(sample, number, seed)
        for name, data in damaged.items():
            (folder / name).write_bytes(data)
        if progress is not None:
            progress.write_text(str(number))
        try:
            with _time_limit():
                sample.read(folder)
            outcome.read += 1
        except NreError as error:
            outcome.refused += 1
            if "\n" in str(error):
                outcome.add(f"message of several lines: {type(error).__name__}", number)
        except (Exception, _TimeoutError) as error:
            outcome.add(_describe(error), number)
        for name in damaged:
            (folder / name).write_bytes(sample.files[name])
        for path in sample.leftovers(folder):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return outcome


def damage(sample: Sample, number: int, seed: int) -> dict[str, bytes]:
    """Returns the damaged files of a number, name -> content."""
    rng = random.Random(f"{sample.name} {seed} {number}")
    name = rng.choice(list(sample.damaged))
    change = sample.damaged[name]
    data = sample.files[name]
    return {name: mutate(data, rng, change) if isinstance(change, str) else change(data, rng)}


def _describe(error: BaseException) -> str:
    """The exception and the place in the package where it came from."""
    places = [f for f in traceback.extract_tb(error.__traceback__) if f"{os.sep}nre_ros{os.sep}" in f.filename]
    where = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "?"
    what = "takes too long" if isinstance(error, _TimeoutError) else type(error).__name__
    return f"{what} at {where}: {' '.join(str(error).split())[:80]}" if where != "?" else f"{what}: {error!r:.80}"


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _in_child(name: str, count: int, seed: int) -> Outcome:
    """Fuzzes a reader in processes of their own; after a crash the next one goes on behind the file."""
    outcome, start = Outcome(), 0
    memory = Path("/dev/shm")  # a file system in memory: most of the time goes into small files
    where = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="nre_ros_fuzz_", dir=where) as folder:
        progress = Path(folder) / "progress"
        while start < count:
            task = {"reader": name, "start": start, "stop": count, "seed": seed, "folder": folder}
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            command = [sys.executable, __file__, json.dumps(task)]
            child = subprocess.run(command, env=environment, capture_output=True, text=True)
            lines = child.stdout.splitlines()
            part: dict[str, Any] = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
            if child.returncode or not part:
                if not progress.exists():
                    raise RuntimeError(f"{name}: the valid files are not read: {child.stderr[-2000:]}")
                crashed = int(progress.read_text())
                outcome.add(f"the process ended with {child.returncode}: {child.stderr.strip()[-80:]}", crashed)
                start = crashed + 1
                continue
            outcome.read += part["read"]
            outcome.refused += part["refused"]
            for fault, (first, times) in part["faults"].items():
                outcome.faults.setdefault(fault, [first, 0])[1] += times
            start = count
    return outcome


def _child(task: dict[str, Any]) -> None:
    import resource

    import torch

    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    folder = Path(task["folder"]) / "files"
    shutil.rmtree(folder, ignore_errors=True)
    numbers = range(task["start"], task["stop"])
    with open(os.devnull, "w") as nothing:
        out, sys.stdout = sys.stdout, nothing
        outcome = fuzz(SAMPLES[task["reader"]](), numbers, task["seed"], folder, Path(task["folder"]) / "progress")
        sys.stdout = out
    print(json.dumps({"read": outcome.read, "refused": outcome.refused, "faults": outcome.faults}))


def _repeat(name: str, number: int, seed: int = 0) -> None:
    """Reads one damaged file; its errors are shown whole."""
    sample = SAMPLES[name]()
    folder = Path(tempfile.mkdtemp(prefix="nre_ros_fuzz_"))
    sample.write(folder)
    for file, data in damage(sample, number, seed).items():
        (folder / file).write_bytes(data)
        print(f"damaged: {folder / file}", flush=True)
    sample.read(folder)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        _repeat(sys.argv[1], *map(int, sys.argv[2:]))
    else:
        _child(json.loads(sys.argv[1]))
