# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that are no map, or a damaged one: a clear error of one line, never a wrong keyframe."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from keyframe_samples import random_keyframe

from nre_ros.errors import MapError, MapFormatError, NreError
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.keyframes.retrieval.retriever import Retriever
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import describe_map
from nre_ros.keyframes.tools.verify import salvage_map, verify_map

NAMES = [f"frame-{i}" for i in range(4)]


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.db"
    with KeyframeStore.create(path, "xfeat", "abc123") as store:
        for i, name in enumerate(NAMES):
            store.add(random_keyframe(name, i, points=30, background=16, dimensions=100))
    return path


@pytest.fixture
def path(good, tmp_path):
    return Path(shutil.copy(good, tmp_path / "map.db"))


def contents(path):
    """Everything that can be read from a map, as plain values."""
    with KeyframeStore.open(path) as store:
        metadata = store.metadata()
        describe_map(store)
        ids, poses, descriptors = store.global_descriptors()
        keyframes = [store.get(i) for i in ids]
    fields = [
        (k.name, k.stamp, k.camera, k.background_cells, k.thumbnail)
        + tuple(getattr(k, f).tobytes() for f in ("T_map_cam", "points", "coarse", "fine", "background", "point_ids"))
        for k in keyframes
    ]
    return metadata, ids.tobytes(), poses.tobytes(), descriptors.tobytes(), fields


def refused(path, kind=MapFormatError, match="map"):
    with pytest.raises(kind, match=match) as error:
        contents(path)
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def test_a_missing_map_is_reported_and_not_created(tmp_path):
    for readonly in (True, False):
        with pytest.raises(MapError, match="does not exist"):
            KeyframeStore.open(tmp_path / "none.db", readonly=readonly)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_a_folder_that_is_not_there(tmp_path):
    refused(tmp_path, MapError, "not a file")
    with pytest.raises(MapError, match="cannot be created"):
        KeyframeStore.create(tmp_path / "no" / "m.db", "xfeat", "abc")


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "empty"),
        (b"SQ", "not an SQLite"),
        (b"just some text\n" * 100, "not an SQLite"),
        (b"SQLite format 3\0", "damaged"),
        (b"SQLite format 3\0" + b"\xff" * 5000, "damaged"),
        (os.urandom(3000), "not an SQLite"),
    ],
)
def test_files_that_are_no_database(tmp_path, content, match, readonly):
    path = tmp_path / "map.db"
    path.write_bytes(content)
    with pytest.raises(MapFormatError, match=match):
        KeyframeStore.open(path, readonly=readonly)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["map.db"]


def test_a_database_of_another_program(tmp_path):
    path = tmp_path / "map.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE keyframes (id INTEGER)")
    db.close()
    before = path.read_bytes()
    for readonly in (True, False):
        with pytest.raises(MapFormatError, match="another program"):
            KeyframeStore.open(path, readonly=readonly)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statements, named",
    [
        (["CREATE TRIGGER t AFTER INSERT ON keyframes BEGIN DELETE FROM points; END"], "the trigger 't'"),
        (["ALTER TABLE points RENAME TO p", "CREATE VIEW points AS SELECT * FROM p"], "the view 'points'"),
        (["DROP TABLE thumbnails", "CREATE VIRTUAL TABLE thumbnails USING fts5(a, b, c)"], "the virtual table 'thumb"),
    ],
)
def test_a_map_in_which_sqlite_would_run_something_is_refused(path, statements, named):
    """Nothing of nre_ros makes such a file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()
    before = path.read_bytes()
    for readonly in (True, False):
        with pytest.raises(MapFormatError, match=named):
            KeyframeStore.open(path, readonly=readonly)
    assert path.read_bytes() == before


@pytest.mark.parametrize("readonly", [True, False])
def test_a_map_is_opened_as_a_file_of_unknown_origin(path, readonly):
    with KeyframeStore.open(path, readonly=readonly) as store:
        for pragma, value in (("trusted_schema", 0), ("cell_size_check", 1), ("mmap_size", 0)):
            assert store.database.rows(f"PRAGMA {pragma}") in ([(value,)], [])


@pytest.mark.parametrize("content", [b"my notes", b"SQLite format 3\0" + bytes(84)])
def test_creating_a_map_replaces_no_file_of_another_kind(tmp_path, content):
    from nre_ros.keyframes.importers.build_map import build_map

    path = tmp_path / "name"
    path.write_bytes(content)
    with pytest.raises(MapError, match="another kind, it is not replaced"):
        KeyframeStore.create(path, "xfeat", "abc", overwrite=True)
    with pytest.raises(MapError, match="another kind, it is not replaced"):
        build_map(None, None, path, force=True)
    assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 1
    KeyframeStore.create(tmp_path / "m.db", "xfeat", "abc").close()
    with KeyframeStore.create(tmp_path / "m.db", "toy", "abc", overwrite=True) as store:
        assert store.metadata()["backbone"] == "toy"


def test_a_demo_removes_only_what_a_demo_has_made(tmp_path):
    from nre_ros.demo import _clear

    precious = tmp_path / "bag" / "mine.mcap"
    precious.parent.mkdir()
    precious.write_bytes(b"hours of driving")
    with pytest.raises(NreError, match="bag exists and is not known to be of an earlier demo"):
        _clear(tmp_path)
    assert precious.exists()
    made = tmp_path / "demo"
    for _ in range(2):
        _clear(made)
        assert not (made / "bag").exists()
        (made / "bag").mkdir()


def test_a_newer_version(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    refused(path, match="version 7.*update")


@pytest.mark.parametrize("share", [0.002, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file(path, share):
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(int(size * share))
    refused(path)


def change(path, statement, *parameters):
    with sqlite3.connect(path) as db:
        assert db.execute(statement, parameters).rowcount >= 1
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE points SET coarse = SUBSTR(coarse, 1, LENGTH(coarse) - 3) WHERE keyframe_id = 2",
        "UPDATE points SET xyz = ZEROBLOB(LENGTH(xyz)) WHERE keyframe_id = 2",
        "UPDATE points SET background_cells = 1 WHERE keyframe_id = 2",
        "DELETE FROM points WHERE keyframe_id = 3",
        "DELETE FROM cameras",
        "UPDATE cameras SET width = 641",
        "UPDATE keyframes SET stamp = stamp + 1 WHERE id = 4",
        "UPDATE keyframes SET pose = (SELECT pose FROM keyframes WHERE id = 1) WHERE id = 4",
        "UPDATE metadata SET value = 'other' WHERE key = 'backbone'",
        "DELETE FROM metadata",
        "UPDATE thumbnails SET jpeg = X'00' WHERE keyframe_id = 1",
    ],
)
def test_a_changed_row_is_noticed(path, statement):
    change(path, statement)
    assert "damaged" in refused(path)


def test_undamaged_rows_of_a_damaged_map_stay_readable(path):
    change(path, "UPDATE points SET xyz = X'00' WHERE keyframe_id = 2")
    with KeyframeStore.open(path) as store:
        assert store.get(1).name == NAMES[0]
        with pytest.raises(MapFormatError):
            store.get(2)
        assert store.get(3).name == NAMES[2]


def test_a_damaged_keyframe_is_left_out_where_the_others_will_do(path, caplog):
    change(path, "UPDATE points SET xyz = X'00' WHERE keyframe_id = 2")
    with KeyframeStore.open(path) as store:
        assert [keyframe.id for keyframe in store.load_readable([1, 2, 3])] == [1, 3]
        assert "is left out: " in caplog.text
        descriptor = store.get(1).global_descriptor
        retriever = Retriever(store)
        for prior in (None, PosePrior(store.get(1).T_map_cam, np.eye(6))):
            assert 1 in retriever.query(descriptor, 3, prior)[0]


def test_a_camera_that_was_taken_back_is_not_remembered(tmp_path):
    first, second = (random_keyframe(f"k{i}", i) for i in range(2))
    cameras = [replace(first.camera, fx=fx) for fx in (600.0, 700.0)]
    with KeyframeStore.create(tmp_path / "map.db", "toy", "0" * 64) as store:
        with pytest.raises(KeyError):
            with store.batch():
                assert store.get(store.add(replace(first, camera=cameras[0]))).camera == cameras[0]
                raise KeyError
        assert store.get(store.add(replace(second, camera=cameras[1]))).camera == cameras[1]
        with pytest.raises(MapError, match="stamp"):
            store.add(replace(first, stamp=2**63))


def plain(keyframe):
    """A keyframe as plain values."""
    arrays = ("T_map_cam", "points", "coarse", "fine", "background", "point_ids", "global_descriptor")
    exact = (keyframe.id, keyframe.name, keyframe.stamp, keyframe.camera, keyframe.background_cells, keyframe.thumbnail)
    return exact + tuple(getattr(keyframe, key).tobytes() for key in arrays)


def answer(function, *arguments):
    """What a call gives, or None for a map's error of one line."""
    try:
        return function(*arguments)
    except MapError as error:
        assert "\n" not in str(error)
        return None


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A map of 24 kB, in which a flipped byte is likely to matter, and what it holds."""
    path = tmp_path_factory.mktemp("small") / "small.db"
    with KeyframeStore.create(path, "xfeat", "abc123") as store:
        for i, name in enumerate(NAMES):
            store.add(random_keyframe(name, i, points=4, background=2, channels=16, dimensions=40, thumbnail=b"x" * 40))
    with KeyframeStore.open(path) as store:
        return path, store.metadata(), [plain(store.get(i)) for i in range(1, 5)], store.global_descriptors()


@pytest.mark.parametrize("seed", range(5))
def test_flipped_bytes_give_an_error_or_the_intact_map(small, tmp_path, seed):
    """100 files a seed, one to four bytes each: what is answered is right, and verify knows when not all is."""
    good, metadata, keyframes, descriptors = small
    rng, data, path = np.random.default_rng(seed), good.read_bytes(), tmp_path / "map.db"
    noticed = 0
    for _ in range(100):
        torn = bytearray(data)
        for place in rng.integers(len(torn), size=rng.integers(1, 5)):
            torn[place] ^= rng.integers(1, 256)
        path.write_bytes(torn)
        whole = False
        store = answer(KeyframeStore.open, path)
        if store is not None:
            with store:
                assert answer(store.metadata) in (None, metadata)
                names = answer(store.names)
                assert names in (None, dict(zip(NAMES, range(1, 5))))
                scanned = answer(store.global_descriptors)
                if scanned is not None:
                    assert all(np.array_equal(a, b) for a, b in zip(scanned, descriptors))
                got = [answer(store.get, i) for i in range(1, 5)]
                got = [k and plain(k) for k in got]
                for values, expected in zip(got, keyframes):  # a picture may be missing, never another one
                    assert values in (None, expected, (*expected[:5], b"", *expected[6:]))
                whole = None not in (names, scanned) and got == keyframes
        noticed += not whole
        check = answer(verify_map, path, False)
        if not whole:
            assert check is None or not check.good
        if check is not None and check.intact and answer(salvage_map, check, tmp_path / "new.db", True, False):
            with KeyframeStore.open(tmp_path / "new.db") as new:
                assert len(new) == len(check.intact)
                written = {k[1]: k[2:] for k in keyframes}
                for keyframe_id in new.names().values():
                    _, name, *values = plain(new.get(keyframe_id))
                    assert (*values[:3], *values[4:]) == (*written[name][:3], *written[name][4:])
                    assert values[3] in (b"", written[name][3])
        for side in tmp_path.glob("map.db-*"):
            side.unlink()
    assert noticed > 30


def test_a_close_that_was_cut_short_is_finished_by_the_next_reader(path, tmp_path):
    """What a kill leaves while the writer's close leaves WAL mode: a rollback journal that is to be played back."""
    before = contents(path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE points SET xyz = ZEROBLOB(20000)")  # more than the cache: parts of it are in the file by now
    crashed = tmp_path / "crashed.db"
    shutil.copy(path, crashed)
    shutil.copy(path.with_name("map.db-journal"), tmp_path / "crashed.db-journal")
    db.execute("ROLLBACK")
    db.close()
    assert crashed.read_bytes() != path.read_bytes()
    assert contents(crashed) == before and verify_map(crashed, progress=False).good


def test_a_full_file_keeps_what_it_had(path):
    """SQLite's own limit stands for the disk's: the next keyframe is refused; with room again the map goes on."""
    with KeyframeStore.open(path, readonly=False) as store:
        ((pages,),) = store.database.rows("PRAGMA page_count")
        store.database.rows(f"PRAGMA max_page_count = {pages + 60}")
        added = 0
        with pytest.raises(MapError, match="map.db: database or disk is full"):
            for i in range(100):
                store.add(random_keyframe(f"new-{i}", i, points=30, background=16, dimensions=100))
                added += 1
        assert added > 0 and len(store) == 4 + added
        with pytest.raises(MapError, match="full"), store.batch():
            store.remove(1)
            store.add(random_keyframe("large", 1, points=3000, background=16, dimensions=100))
        assert len(store) == 4 + added and store.get(1).name == "frame-0"
        store.database.rows("PRAGMA max_page_count = 1000000")
        store.add(random_keyframe("after", 1, points=30, background=16, dimensions=100))
    check = verify_map(path, progress=False)
    assert check.good and check.keyframes == 5 + added


_LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from keyframe_samples import random_keyframe
from nre_ros.errors import MapError
from nre_ros.keyframes.storage.store import KeyframeStore
store = KeyframeStore.open(sys.argv[1], readonly=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
try:
    for i in range(100):
        store.add(random_keyframe(f"new-{i}", i, points=30, background=16, dimensions=100))
        print(i, flush=True)
except MapError as error:
    print(error)
store.close()
"""


def test_a_file_that_the_system_does_not_let_grow(path):
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    *added, message = done.stdout.splitlines()
    assert done.returncode == 0 and len(added) > 2 and message.startswith(f"map {path}: "), done.stderr
    check = verify_map(path, progress=False)
    assert check.good and check.keyframes == 4 + len(added)
    with KeyframeStore.open(path) as store:
        assert set(store.names()) == {*NAMES, *(f"new-{i}" for i in added)}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_removed_or_replaced_while_it_is_open(path, tmp_path, replaced):
    """A reader goes on with what it has open; a writer is told, for what it writes would be lost."""
    new = random_keyframe("new", 9, points=30, background=16, dimensions=100)
    with KeyframeStore.open(path) as reader, KeyframeStore.open(path, readonly=False) as writer:
        writer.add(new)
        assert len(reader) == 5
        if replaced:
            shutil.copy(path, tmp_path / "other.db")
            (tmp_path / "other.db").rename(path)
        else:
            path.unlink()
        assert reader.get(5).name == "new" and len(reader) == 5
        with pytest.raises(MapError, match="was replaced by another" if replaced else "was removed"):
            writer.remove(1)
        assert reader.get(1).name == "frame-0"


def test_a_writer_that_waits_too_long_gets_an_error_with_the_reason(path):
    """Changes of two writers take turns; one that waits for too long is told why."""
    new = [random_keyframe(f"new-{i}", i, points=30, background=16, dimensions=100) for i in range(2)]
    with KeyframeStore.open(path, readonly=False) as first, KeyframeStore.open(path, readonly=False) as second:
        first.add(new[0])
        second.add(new[1])
        assert len(first) == len(second) == 6
        second.database.rows("PRAGMA busy_timeout = 50")
        with first.batch():
            first.remove(1)
            with pytest.raises(MapError, match="being written by another process"):
                second.remove(2)
        second.remove(2)
    with KeyframeStore.open(path) as store:
        assert list(store.names()) == ["frame-2", "frame-3", "new-0", "new-1"]
    assert verify_map(path, progress=False).good


_READ_ONLY = """
import os, sys
import nre_ros.keyframes.storage.store as store
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)  # the superuser may write anywhere
assert not os.access(os.path.dirname(sys.argv[1]), os.W_OK)
with store.KeyframeStore.open(sys.argv[1]) as opened:
    print(len(opened), opened.get(4).name)
try:
    store.KeyframeStore.open(sys.argv[1], readonly=False)
except store.MapError as error:
    print(error)
"""


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_map_in_a_read_only_folder(good, mode):
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to other users
    try:
        path = Path(shutil.copy(good, folder / "map.db"))
        db = sqlite3.connect(path)
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.close()
        path.chmod(0o444)
        folder.chmod(0o555)
        before = path.read_bytes()
        done = subprocess.run(
            [sys.executable, "-c", _READ_ONLY, str(path)], capture_output=True, text=True, timeout=300
        )
        read, refused_writer = done.stdout.splitlines()
        assert read == "4 frame-3" and refused_writer.startswith(f"map {path}: "), done.stderr
        assert path.read_bytes() == before
        assert [file.name for file in folder.iterdir()] == ["map.db"]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
