# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Changing a map: poses, whole keyframes, names, removal; several changes at once; who notices what."""

import os
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from child_process import child_process
from keyframe_samples import random_keyframe, random_pose
from scipy.spatial.transform import Rotation
from test_store import assert_same

from nre_ros.errors import MapError
from nre_ros.keyframes.retrieval.retriever import Retriever
from nre_ros.keyframes.storage.keyframe_cache import keyframe_bytes
from nre_ros.keyframes.storage.store import KeyframeStore

SIZES = {"points": 30, "background": 8, "dimensions": 60}


def sample(i, **changes):
    return random_keyframe(f"frame-{i}", i, **{**SIZES, **changes})


@pytest.fixture
def path(tmp_path):
    with KeyframeStore.create(tmp_path / "map.db", "place", "0" * 64) as store:
        for i in range(5):
            store.add(sample(i))
    return tmp_path / "map.db"


@pytest.fixture
def store(path):
    with KeyframeStore.open(path, readonly=False) as store:
        yield store


def test_points_move_along_with_their_camera(store):
    """What the camera sees stays what it saw: the points keep their coordinates in its frame."""
    T = random_pose(np.random.default_rng(5))
    store.update_pose(2, T)
    found, before = store.get(2), sample(1)
    np.testing.assert_array_equal(found.T_map_cam, T)

    def in_camera(keyframe):
        R = Rotation.from_matrix(keyframe.T_map_cam[:3, :3])
        return R.inv().apply(keyframe.points - keyframe.T_map_cam[:3, 3])

    np.testing.assert_allclose(in_camera(found), in_camera(before), atol=2e-6)
    assert_same(found, replace(before, T_map_cam=T, points=found.points))
    for i in (0, 2, 3, 4):
        assert_same(store.get(i + 1), sample(i))


def test_points_can_be_replaced_with_the_pose(store):
    T, points = random_pose(np.random.default_rng(5)), np.random.default_rng(6).normal(size=(30, 3)).astype(np.float32)
    store.update_pose(2, T, points)
    assert_same(store.get(2), replace(sample(1), T_map_cam=T, points=points))


@pytest.mark.parametrize(
    "T, points",
    [
        (np.diag([2.0, 1, 1, 1]), None),
        (np.full((4, 4), np.nan), None),
        (np.eye(3), None),
        (np.diag([1, 1, -1.0, 1]), None),
        (np.eye(4) + np.outer([0, 0, 0, 1], [1, 0, 0, 0]), None),
        (np.eye(4), np.zeros((29, 3))),
        (np.eye(4), np.full((30, 3), np.inf)),
    ],
)
def test_a_pose_that_does_not_fit_is_refused_and_nothing_changes(store, T, points):
    with pytest.raises(MapError, match="frame-1"):
        store.update_pose(2, T, points)
    assert_same(store.get(2), sample(1))
    assert store.changes().changed == ()


def test_a_keyframe_is_replaced_as_a_whole(store):
    new = sample(7, points=12, thumbnail=b"other")
    store.replace(2, new)
    assert list(store.names()) == ["frame-0", "frame-7", "frame-2", "frame-3", "frame-4"]
    assert_same(store.get(2), new)
    assert store.get(2).thumbnail == b"other"
    store.replace(2, replace(new, thumbnail=b""))
    assert store.get(2).thumbnail == b""
    with pytest.raises(MapError, match="'frame-3' already"):
        store.replace(2, sample(3))
    with pytest.raises(MapError, match="background"):
        store.replace(2, sample(7, background=9))


def test_a_keyframe_is_removed_and_its_id_not_given_again(store, path):
    store.remove(5)
    store.remove(2)
    with pytest.raises(MapError, match="no keyframe 2"):
        store.remove(2)
    assert list(store.names().values()) == [1, 3, 4] and len(store) == 3
    assert store.add(sample(9)) == 6
    assert list(store.global_descriptors()[0]) == [1, 3, 4, 6]
    for table in ("points", "thumbnails"):
        assert store.database.rows(f"SELECT COUNT(*) FROM {table}") == [(4,)]
    assert store.add(sample(1)) == 7  # the name is free again


def test_the_room_of_removed_keyframes_is_given_back(tmp_path):
    path = tmp_path / "m.db"
    with KeyframeStore.create(path, "place", "0" * 64) as store:
        for i in range(20):
            store.add(sample(i, points=200))
        for keyframe_id in range(1, 16):
            store.remove(keyframe_id)
    before = path.stat().st_size
    with KeyframeStore.open(path, readonly=False) as store:
        store.compact()
    assert path.stat().st_size < 0.35 * before
    with KeyframeStore.open(path) as store:
        assert_same(store.get(20), sample(19, points=200))


def test_a_renamed_keyframe_keeps_its_id(store):
    store.rename(3, "other")
    store.rename(3, "other")
    assert store.names()["other"] == 3
    assert_same(store.get(3), replace(sample(2), name="other"))
    for name, match in [("frame-0", "already"), ("", "needs a name")]:
        with pytest.raises(MapError, match=match):
            store.rename(3, name)
    assert store.add(sample(2)) == 6


def test_a_batch_is_all_or_nothing(store, path):
    with pytest.raises(MapError, match="frame-0"), store.batch():
        store.update_pose(1, np.eye(4))
        store.remove(2)
        store.add(sample(7))
        assert len(store) == 5 and (store.load([1])[0].T_map_cam == np.eye(4)).all()
        store.add(sample(0))
    for i in range(5):
        assert_same(store.get(i + 1), sample(i))
    assert len(store) == 5 and store.changes().changed == store.changes().removed == ()
    with store.batch():
        for i in range(7, 10):
            store.add(sample(i))
        with pytest.raises(MapError, match="frame-8"):  # the part that failed is taken back, the rest stands
            with store.batch():
                store.add(sample(20))
                store.add(sample(8))
    assert list(store.names())[5:] == ["frame-7", "frame-8", "frame-9"]


def test_others_see_a_batch_when_it_is_complete(store, path):
    with KeyframeStore.open(path) as reader:
        revision = reader.revision
        with store.batch():
            store.add(sample(7))
            store.add(sample(8))
            assert len(reader) == 5 and reader.revision == revision
        assert len(reader) == 7 and reader.revision != revision


def test_reading_alone_allows_no_change(path):
    with KeyframeStore.open(path) as store:
        for change in (
            lambda: store.update_pose(1, np.eye(4)),
            lambda: store.remove(1),
            lambda: store.rename(1, "x"),
            lambda: store.replace(1, sample(0)),
            lambda: store.write_index(b""),
        ):
            with pytest.raises(MapError, match="reading only"):
                change()


def test_changes_since_a_position(store):
    first = store.changes()
    assert first.added == (1, 2, 3, 4, 5) and first.changed == first.removed == ()
    assert store.changes(first.position) == replace(first, added=())
    store.update_pose(2, np.eye(4))
    store.update_pose(4, np.eye(4))
    store.update_pose(2, np.eye(4))
    store.remove(4)
    new = store.add(sample(8))
    store.update_pose(new, np.eye(4))
    changes = store.changes(first.position)
    assert (changes.added, changes.changed, changes.removed) == ((new,), (2,), (4,))
    assert store.changes(changes.position) == replace(changes, added=(), changed=(), removed=())
    gone = store.add(sample(9))
    store.remove(gone)
    assert store.changes(changes.position).removed == (gone,)


def test_only_what_changed_leaves_the_cache(path):
    with KeyframeStore.open(path) as reader, KeyframeStore.open(path, readonly=False) as writer:
        first = reader.load([1, 2, 3, 4, 5])
        writer.add(sample(7))
        writer.update_pose(2, np.eye(4))
        writer.remove(4)
        again = reader.load([1, 2, 3, 5, 6])
        assert [again[k] is first[j] for k, j in ((0, 0), (2, 2), (3, 4))] == [True] * 3
        assert (again[1].T_map_cam == np.eye(4)).all() and again[4].name == "frame-7"
        with pytest.raises(MapError, match="no keyframe 4"):
            reader.load([4])


def test_memory_does_not_grow_with_the_map(tmp_path):
    with KeyframeStore.create(tmp_path / "m.db", "place", "0" * 64) as store, store.batch():
        for i in range(60):
            store.add(sample(i, points=10 * (1 + i % 7)))
    size = keyframe_bytes(sample(0, points=70))
    with KeyframeStore.open(tmp_path / "m.db", cache_bytes=8 * size) as store:
        for ids in ([*range(1, 61)], [*range(60, 0, -1)], [*range(1, 61, 7)]):
            for keyframe_id in ids:
                assert store.load([keyframe_id])[0].name == f"frame-{keyframe_id - 1}"
                held = sum(keyframe_bytes(keyframe) for keyframe in store._cache._keyframes.values())
                assert held == store._cache.bytes <= 8 * size
    with KeyframeStore.open(tmp_path / "m.db", cache_bytes=1000) as store:
        assert len(store.load(range(1, 61))) == 60 and len(store._cache) == 0


def test_scanning_gives_every_keyframe_once(store):
    store.remove(3)
    for batch in (1, 2, 100):
        scans = list(store.scan(batch=batch))
        assert [i for scan in scans for i in scan.ids] == [1, 2, 4, 5]
        assert [name for scan in scans for name in scan.names] == ["frame-0", "frame-1", "frame-3", "frame-4"]
    (scan,) = store.scan_ids([5, 1, 3, 1])
    assert list(scan.ids) == [1, 5] and scan.descriptors.dtype == np.int8
    np.testing.assert_array_equal(scan.poses[1], sample(4).T_map_cam)
    np.testing.assert_allclose(scan.descriptors[0] * scan.scales[0], sample(0).global_descriptor, atol=0.01)


_GROW = """
import sys; sys.path.insert(0, sys.argv[2])
from test_store_changes import sample
from nre_ros.keyframes.storage.store import KeyframeStore
with KeyframeStore.open(sys.argv[1], readonly=False) as store:
    for line in sys.stdin:
        store.add(sample(int(line)))
        print("added", flush=True)
"""


def test_what_another_process_adds_is_found_by_the_next_query(path):
    with KeyframeStore.open(path) as store:
        retriever = Retriever(store)
        code = [sys.executable, "-c", _GROW, str(path), str(Path(__file__).parent)]
        with child_process(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
            for i in range(10, 14):
                writer.stdin.write(f"{i}\n")
                writer.stdin.flush()
                assert writer.stdout.readline() == "added\n"
                ids, _ = retriever.query(sample(i).global_descriptor, 1)
                assert_same(store.get(ids[0]), sample(i))
            writer.stdin.close()
        assert writer.returncode == 0


def test_what_another_thread_adds_is_found_by_the_next_query(path):
    """One store that is written by a thread while another queries it: nothing is lost, nothing is torn."""
    errors, added = [], []
    with KeyframeStore.open(path, readonly=False) as store:

        def grow():
            try:
                for i in range(10, 40):
                    added.append(store.add(sample(i)))
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=grow)
        retriever = Retriever(store)
        thread.start()
        checked = 0
        while thread.is_alive() or checked < 30:
            if len(added) > checked:
                i = 10 + checked
                ids, _ = retriever.query(sample(i).global_descriptor, 1)
                assert ids == [added[checked]] and store.load(ids)[0].name == f"frame-{i}"
                checked += 1
            elif errors:
                break
        thread.join()
    assert not errors and checked == 30


@pytest.mark.parametrize("what", ["text", "pipe", "folder", "other database"])
def test_only_a_map_is_replaced_by_a_copy(tmp_path, what):
    """Overwriting was asked for, of a name that happens to be something else's."""
    path = tmp_path / "name"
    if what == "text":
        path.write_text("my notes")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        sqlite3.connect(path).execute("CREATE TABLE mine (a)").connection.close()
    before = path.stat()
    with KeyframeStore.create(tmp_path / "map.db", "toy", "0" * 64) as store:
        with pytest.raises(MapError, match="not replaced|folder"):
            store.save_copy(path, overwrite=True)
        for nowhere in (Path(__file__) / "map.db", tmp_path / (300 * "x")):
            with pytest.raises(MapError, match="cannot be written"):
                store.save_copy(nowhere)
        copy = tmp_path / "copy.db"
        for _ in range(2):
            store.save_copy(copy, overwrite=True)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with KeyframeStore.open(copy) as copied:
        assert len(copied) == 0
