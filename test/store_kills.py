# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Imports that are killed: run as a script by ``test_store_kills``, once for all rounds.

    python store_kills.py FOLDER ROUNDS SEED

Each round a child imports synthetic keyframes into FOLDER/m.db and is killed after a random time;
the parent then opens what is there and checks it against what the child said was committed.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from keyframe_samples import PlaceBackbone, random_keyframe
from test_store import assert_same

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


def tell_what_is_committed(pipe):
    """Has the store of this process write the name of each keyframe to the pipe once it is in."""
    add = KeyframeStore.add

    def add_and_tell(store, keyframe):
        keyframe_id = add(store, keyframe)
        os.write(pipe, f"{keyframe.name}\n".encode())
        return keyframe_id

    KeyframeStore.add = add_and_tell


def import_and_kill(path, seconds):
    """Names that a child, which imports until it is killed, has committed, and whether it finished before."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            tell_what_is_committed(writing)
            build_map(Source(), KeyframeBuilder(PlaceBackbone(), 10), path, progress=False)
            os._exit(0)
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            os._exit(3)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reading) as pipe:
        told = pipe.read().split()
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0, "the import failed"
    return told, not os.WIFSIGNALED(status)


def check(path, committed):
    """Every committed keyframe is there, equal to what went in; the file is intact.  Returns the names."""
    found = verify_map(path, progress=False)
    assert found.good, found.problems
    with KeyframeStore.open(path) as store:
        names = store.names()
        assert list(names) == list(KEYFRAMES)[: len(names)] and len(names) == len(store)
        assert set(names) >= committed, committed - set(names)
        for name, keyframe_id in names.items():
            assert_same(store.get(keyframe_id), KEYFRAMES[name])
    return set(names)


def main(folder, rounds, seed):
    draw = random.Random(seed)
    path, partial = folder / "m.db", folder / "m.db.partial"
    committed, counts = set(), {"killed": 0, "finished": 0, "before_the_file": 0, "resumed": 0}
    done = 0
    while done < rounds:
        counts["resumed"] += bool(committed)
        told, finished = import_and_kill(path, draw.uniform(0.0, 0.25))
        assert not set(told) & committed, "imported twice"
        committed |= set(told)
        done += not finished
        counts["finished" if finished else "killed"] += 1
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
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
