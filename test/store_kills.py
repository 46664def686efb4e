# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Kills map imports at random moments and checks the files they leave.  ``test_store_kills`` runs this script.

    python store_kills.py check FOLDER ROUNDS SEED
    python store_kills.py import FILE

``check`` starts one ``import`` process per round and kills it after a random time.  It then opens the file
that is left and compares the file with the keyframes that the process has reported as committed.

The importing process is a fresh interpreter, not a fork.  A fork would share tqdm's write lock, a semaphore
between processes, and a process killed while holding the lock would block every other one for ever.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from keyframe_samples import PlaceBackbone, random_keyframe

from nre_ros.keyframes.building.builder import KeyframeBuilder
from nre_ros.keyframes.importers.build_map import build_map
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.verify import verify_map

COUNT = 40
SIZES = {"points": 60, "background": 8, "dimensions": 60}
KEYFRAMES = {f"frame-{i}": random_keyframe(f"frame-{i}", i, **SIZES) for i in range(COUNT)}


class Source(MapSource):
    """Keyframes that are there already."""

    def names(self):
        return list(KEYFRAMES)

    def describe(self):
        return {}

    def keyframe(self, name, builder):
        return KEYFRAMES[name]


class ImportProcess:
    """A fresh interpreter that imports every keyframe into ``path``, as often as it is asked to.

    The interpreter starts in the background, so that the next one loads while a file is checked.
    """

    def __init__(self, path):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "import", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._is_ready = False

    def run_or_kill(self, seconds):
        """Imports, and kills the process if the import takes longer than ``seconds``.

        Returns:
            The names of the committed keyframes, and whether the process has finished and can be asked again.
        """
        output = self._process.stdout
        if not self._is_ready:
            assert output.readline() == b"ready\n", "the importing process did not start"
            self._is_ready = True
        self._process.stdin.write(b"import\n")
        self._process.stdin.flush()
        time.sleep(seconds)
        os.set_blocking(output.fileno(), False)
        lines = output.read() or b""
        if lines.endswith(b"finished\n"):
            os.set_blocking(output.fileno(), True)
            return lines.decode().split()[:-1], True
        code = self._process.poll()
        assert code is None, f"the import failed with exit code {code}"
        self._process.kill()
        self._process.wait(60)
        lines += output.read() or b""
        return [name for name in lines.decode().split() if name != "finished"], False

    def close(self):
        self._process.kill()
        self._process.wait(60)
        self._process.stdin.close()
        self._process.stdout.close()


def import_on_request(path):
    """The importing process: imports once for every line on stdin and prints each committed keyframe's name."""
    add = KeyframeStore.add

    def add_and_report(store, keyframe):
        keyframe_id = add(store, keyframe)
        print(keyframe.name, flush=True)
        return keyframe_id

    KeyframeStore.add = add_and_report
    builder = KeyframeBuilder(PlaceBackbone(), 10)
    print("ready", flush=True)
    for _ in sys.stdin:
        build_map(Source(), builder, path, progress=False)
        print("finished", flush=True)


def check(path, committed):
    """Every committed keyframe is there, equal to what went in; the file is intact.  Returns the names."""
    from test_store import assert_same  # not above: pytest slows the start of every importing process

    found = verify_map(path, progress=False)
    assert found.good, found.problems
    with KeyframeStore.open(path) as store:
        names = store.names()
        assert list(names) == list(KEYFRAMES)[: len(names)] and len(names) == len(store)
        assert set(names) >= committed, committed - set(names)
        for name, keyframe_id in names.items():
            assert_same(store.get(keyframe_id), KEYFRAMES[name])
    return set(names)


def kill_and_check(folder, rounds, seed):
    """Prints how many imports were killed, finished, resumed, or killed before the file existed, as JSON."""
    draw = random.Random(seed)
    path, partial = folder / "m.db", folder / "m.db.partial"
    committed, counts = set(), {"killed": 0, "finished": 0, "before_the_file": 0, "resumed": 0}
    with contextlib.ExitStack() as processes:

        def start():
            process = ImportProcess(path)
            processes.callback(process.close)
            return process

        current, following = start(), start()
        while counts["killed"] < rounds:
            counts["resumed"] += bool(committed)
            names, finished = current.run_or_kill(draw.uniform(0.0, 0.25))
            if finished:
                counts["finished"] += 1
            else:
                counts["killed"] += 1
                current, following = following, start()
            assert not set(names) & committed, "imported twice"
            committed |= set(names)
            if path.exists():
                assert check(path, committed) == set(KEYFRAMES)
                path.unlink()
                committed = set()
            elif partial.exists():
                committed = check(partial, committed)
            else:
                counts["before_the_file"] += 1
                assert not committed
    print(json.dumps(counts))


if __name__ == "__main__":
    if sys.argv[1] == "import":
        import_on_request(Path(sys.argv[2]))
    else:
        kill_and_check(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
