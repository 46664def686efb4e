# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Maps of an older version: read as they are, brought forward by a writer, all or nothing."""

import shutil
import sqlite3
import threading

import numpy as np
import pytest
from keyframe_samples import random_keyframe

from nre_ros.errors import MapError, MapFormatError
from nre_ros.keyframes.retrieval.retriever import Retriever
from nre_ros.keyframes.storage import schema
from nre_ros.keyframes.storage.blobs import decode_array, encode_array, is_packed, quantise, row_checksum
from nre_ros.keyframes.storage.rows import camera_columns
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import describe_map
from nre_ros.keyframes.tools.verify import verify_map

VERSION_1 = """
PRAGMA page_size = 2048;
PRAGMA application_id = 1314014541;
PRAGMA user_version = 1;
CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE cameras (
    id INTEGER PRIMARY KEY, model TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    intrinsics BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE keyframes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, stamp INTEGER NOT NULL,
    camera_id INTEGER NOT NULL REFERENCES cameras (id), pose BLOB NOT NULL,
    global_descriptor BLOB NOT NULL, global_scale REAL NOT NULL, point_count INTEGER NOT NULL,
    checksum INTEGER NOT NULL);
CREATE TABLE points (
    keyframe_id INTEGER PRIMARY KEY REFERENCES keyframes (id) ON DELETE CASCADE,
    xyz BLOB NOT NULL, source_ids BLOB, coarse BLOB NOT NULL, coarse_scale BLOB NOT NULL,
    fine BLOB NOT NULL, fine_scale BLOB NOT NULL, background BLOB NOT NULL,
    background_scale BLOB NOT NULL, background_cells INTEGER NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE thumbnails (
    keyframe_id INTEGER PRIMARY KEY REFERENCES keyframes (id) ON DELETE CASCADE,
    jpeg BLOB NOT NULL, checksum INTEGER NOT NULL);
"""
KEYFRAMES = [random_keyframe(f"frame-{i}", i, points=20, background=8, dimensions=60) for i in range(3)]


def write_version_1(path):
    """A map as the first version of the package wrote it."""
    db = sqlite3.connect(path)
    db.executescript(VERSION_1)

    def insert(table, *columns):
        marks = ", ".join("?" * (len(columns) + 1))
        db.execute(f"INSERT INTO {table} VALUES ({marks})", (*columns, row_checksum(*columns)))

    metadata = {
        "frame_id": "map",
        "backbone": "place",
        "weights_hash": "0" * 64,
        "retrieval": "covariance-sqrt-1",
        "created": "2026-11-22T10:00:00+00:00",
        "source": "",
        "coarse_channels": "64",
        "fine_channels": "32",
        "background": "8",
        "global_channels": "60",
    }
    for item in metadata.items():
        insert("metadata", *item)
    insert("cameras", 1, *camera_columns(KEYFRAMES[0].camera))
    for i, k in enumerate(KEYFRAMES, start=1):
        values, scale = quantise(k.global_descriptor[None])
        insert(
            "keyframes",
            i,
            k.name,
            k.stamp,
            1,
            encode_array(k.T_map_cam, "<f8"),
            encode_array(values[0], "|i1"),
            float(scale[0]),
            len(k.points),
        )
        descriptors = []
        for rows in (k.coarse, k.fine, k.background):
            values, scales = quantise(rows)
            descriptors += [encode_array(values, "|i1"), encode_array(scales, "<f4")]
        insert("points", i, encode_array(k.points, "<f4"), encode_array(k.point_ids, "<i4"), *descriptors, 4800)
        insert("thumbnails", i, k.thumbnail)
    db.commit()
    db.close()
    return path


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return write_version_1(tmp_path_factory.mktemp("old") / "old.db")


@pytest.fixture
def path(old, tmp_path):
    return shutil.copy(old, tmp_path / "map.db")


def version(path):
    db = sqlite3.connect(path)
    found = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return found


def check_contents(store, names=("frame-0", "frame-1", "frame-2")):
    assert tuple(store.names()) == names and len(store) == len(names)
    for k, keyframe in zip(KEYFRAMES, store.load(store.names().values())):
        np.testing.assert_array_equal(keyframe.points, k.points)
        np.testing.assert_array_equal(keyframe.T_map_cam, k.T_map_cam)
        np.testing.assert_allclose(keyframe.coarse, k.coarse, atol=0.005)
        assert store.get(keyframe.id).thumbnail == k.thumbnail


def test_a_reader_takes_version_1_as_it_is(path):
    before = path.read_bytes()
    with KeyframeStore.open(path) as store:
        check_contents(store)
        assert describe_map(store).schema_version == 1 and store.read_index() is None
        assert store.changes().added == (1, 2, 3) and store.changes((0, 3)).added == ()
        assert Retriever(store).query(KEYFRAMES[1].global_descriptor, 1)[0] == [2]
    assert path.read_bytes() == before


def test_a_writer_brings_version_1_forward(path):
    with KeyframeStore.open(path, readonly=False) as store:
        check_contents(store)
        assert store.add(random_keyframe("new", 9, points=20, background=8, dimensions=60)) == 4
        store.write_index(b"index")
        store.remove(2)
    assert version(path) == schema.PACKED_VERSION
    with KeyframeStore.open(path) as store:
        assert list(store.names()) == ["frame-0", "frame-2", "new"] and len(store) == 3
        assert store.read_index() == b"index" and store.changes((0, 3)).removed == (2,)


def test_a_writer_that_adds_no_keyframe_keeps_the_descriptors_readable_for_older_programs(path, tmp_path):
    """Also in a map that is derived from the old one: copied descriptors stay as they are stored."""
    with KeyframeStore.open(path, readonly=False) as store:
        store.update_pose(1, np.eye(4))
        with KeyframeStore.create(tmp_path / "copy.db", "place", "0" * 64) as copied:
            copied.copy_from(store, 2)
            expected = store.database.row("points", "keyframe_id", 2)[1:]
            assert copied.database.row("points", "keyframe_id", 1)[1:] == expected
    assert version(path) == version(tmp_path / "copy.db") == 2


def test_packed_descriptors_make_a_map_that_older_programs_refuse(path, tmp_path, monkeypatch):
    new = random_keyframe("new", 9, points=20, background=8, dimensions=60)
    with KeyframeStore.open(path, readonly=False) as store:
        with pytest.raises(KeyError), store.batch():
            store.add(new)
            raise KeyError
        assert version(path) == 2 and "origin" not in store.metadata()
        with KeyframeStore.create(tmp_path / "packed.db", "place", "0" * 64) as packed:
            packed.add(new)
            store.copy_from(packed, 1)
        store.replace(1, random_keyframe("again", 3, points=20, background=8, dimensions=60))
        np.testing.assert_allclose(store.load([4])[0].fine, new.fine, atol=0.006)
    with KeyframeStore.open(path) as store:
        assert list(store.names()) == ["again", "frame-1", "frame-2", "new"] and not store.origin.any()
        assert verify_map(path, progress=False).problems == []
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
    with pytest.raises(MapError, match="has format version 4, this nre_ros reads up to 3: update nre_ros"):
        KeyframeStore.open(path)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (3, 5), (0, 4), (4, 0), (500, 64)])
def test_packed_numbers_are_read_as_they_were(shape):
    numbers = np.random.default_rng(0).integers(-63, 64, shape).astype(np.int8)
    blob = encode_array(numbers, "|i7")
    found = decode_array(blob)
    assert found.dtype == np.int8 and found.shape == shape and is_packed(blob)
    np.testing.assert_array_equal(found, numbers)
    assert len(blob) == 8 + 4 * len(shape) + 7 * -(-numbers.size // 8)


def test_packed_numbers_have_the_layout_of_the_format():
    """By hand: the eighth number's bits are the highest ones of seven bytes."""
    numbers = [-63, -1, 0, 1, 2, 63, 5, 21]
    body = encode_array(numbers, "|i7")[12:]
    assert [byte & 127 for byte in body] == [number + 64 for number in numbers[:7]]
    assert sum((byte >> 7) << bit for bit, byte in enumerate(body)) == 21 + 64


def test_what_is_no_packed_array_is_refused():
    with pytest.raises(ValueError, match="up to 64 cannot be packed"):
        encode_array([-64], "|i7")
    blob = encode_array(np.zeros((3, 5), np.int8), "|i7")
    for broken in (blob[:-1], blob + b"x", blob[:10], b"|i7 ", b"|i7 \xff\xff\xff\x7f"):
        with pytest.raises(ValueError):
            decode_array(broken)


def test_a_reader_that_was_there_before_follows_a_writer_that_brings_it_forward(path):
    with KeyframeStore.open(path) as reader:
        check_contents(reader)
        first = reader.load([1, 2])
        position = reader.changes().position
        with KeyframeStore.open(path, readonly=False) as writer:
            writer.update_pose(2, np.eye(4))
            new = writer.add(random_keyframe("new", 9, points=20, background=8, dimensions=60))
            again = reader.load([1, 2])
            assert again[0] is first[0] and (again[1].T_map_cam == np.eye(4)).all()
            changes = reader.changes(position)
            assert (changes.added, changes.changed) == ((new,), (2,))


def test_an_interrupted_migration_leaves_version_1(path, monkeypatch):
    step = schema.UPGRADES[1]

    def interrupted(db):
        step(db)
        raise KeyboardInterrupt

    monkeypatch.setitem(schema.UPGRADES, 1, interrupted)
    with pytest.raises(KeyboardInterrupt):
        KeyframeStore.open(path, readonly=False)
    monkeypatch.undo()
    assert version(path) == 1
    with KeyframeStore.open(path) as store:
        check_contents(store)
    with KeyframeStore.open(path, readonly=False) as store:
        check_contents(store)
    assert version(path) == 2


def test_of_two_writers_one_brings_it_forward(path):
    failed = []

    def write(i):
        try:
            with KeyframeStore.open(path, readonly=False) as store:
                store.add(random_keyframe(f"new-{i}", i, points=20, background=8, dimensions=60))
        except MapError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    with KeyframeStore.open(path) as store:
        assert len(store) == 7 and set(store.names()) >= {f"new-{i}" for i in range(4)}


@pytest.mark.parametrize("size", [0, 5, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20])
def test_an_index_comes_back_as_it_was(tmp_path, size):
    data = np.random.default_rng(size).bytes(size)
    with KeyframeStore.create(tmp_path / "m.db", "place", "0" * 64) as store:
        assert store.read_index() is None
        store.write_index(b"x" * (12 << 20))
        store.write_index(memoryview(data))
        assert store.read_index() == data
    with KeyframeStore.open(tmp_path / "m.db") as store:
        assert store.read_index() == data
        with pytest.raises(MapError, match="reading"):
            store.write_index(b"")
    with KeyframeStore.open(tmp_path / "m.db", readonly=False) as store:
        store.write_index(None)
        assert store.read_index() is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE retrieval_index SET data = X'00' WHERE part = 1",
        "DELETE FROM retrieval_index WHERE part = 1",
        "DELETE FROM retrieval_index WHERE part = 2",
        "UPDATE retrieval_index SET part = 7 WHERE part = 2",
    ],
)
def test_a_damaged_index_is_refused(tmp_path, statement):
    path = tmp_path / "m.db"
    with KeyframeStore.create(path, "place", "0" * 64) as store:
        store.write_index(bytes(9 << 20))
    with sqlite3.connect(path) as db:
        assert db.execute(statement).rowcount == 1
    db.close()
    with KeyframeStore.open(path) as store, pytest.raises(MapFormatError, match="damaged"):
        store.read_index()
