"""Files that are no map, or a damaged one: a clear error of one line, never a wrong keyframe."""

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from keyframe_samples import random_keyframe

from nre_ros.errors import MapError, MapFormatError
from nre_ros.keyframes.store import KeyframeStore

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
        store.info()
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


def test_missing_file_is_told_and_not_made(tmp_path):
    for readonly in (True, False):
        with pytest.raises(MapError, match="does not exist"):
            KeyframeStore.open(tmp_path / "none.db", readonly=readonly)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_and_a_folder_that_is_not_there(tmp_path):
    refused(tmp_path, MapError, "not a file")
    with pytest.raises(MapError, match="cannot be created"):
        KeyframeStore.create(tmp_path / "no" / "m.db", "xfeat", "abc")


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("content, match", [
    (b"", "empty"), (b"SQ", "not an SQLite"), (b"just some text\n" * 100, "not an SQLite"),
    (b"SQLite format 3\0", "damaged"),
    (b"SQLite format 3\0" + b"\xff" * 5000, "damaged"), (os.urandom(3000), "not an SQLite"),
])
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


@pytest.mark.parametrize("statement", [
    "UPDATE points SET coarse = SUBSTR(coarse, 1, LENGTH(coarse) - 3) WHERE keyframe_id = 2",
    "UPDATE points SET xyz = ZEROBLOB(LENGTH(xyz)) WHERE keyframe_id = 2",
    "UPDATE points SET background_cells = 1 WHERE keyframe_id = 2",
    "DELETE FROM points WHERE keyframe_id = 3", "DELETE FROM cameras",
    "UPDATE cameras SET width = 641", "UPDATE keyframes SET stamp = stamp + 1 WHERE id = 4",
    "UPDATE keyframes SET pose = (SELECT pose FROM keyframes WHERE id = 1) WHERE id = 4",
    "UPDATE metadata SET value = 'other' WHERE key = 'backbone'", "DELETE FROM metadata",
    "UPDATE thumbnails SET jpeg = X'00' WHERE keyframe_id = 1",
])
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


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes_give_an_error_or_the_intact_map(good, tmp_path, seed):
    rng = np.random.default_rng(seed)
    intact, data = contents(good), good.read_bytes()
    path = tmp_path / "map.db"
    noticed = 0
    for _ in range(40):
        torn = bytearray(data)
        torn[rng.integers(len(torn))] ^= 1 << rng.integers(8)
        path.write_bytes(torn)
        try:
            assert contents(path) == intact
        except MapError as error:
            assert "\n" not in str(error)
            noticed += 1
        for side in tmp_path.glob("map.db-*"):
            side.unlink()
    assert noticed > 20


_READ_ONLY = """
import os, sys
import nre_ros.keyframes.store as store
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)  # the superuser may write anywhere
assert not os.access(os.path.dirname(sys.argv[1]), os.W_OK)
with store.KeyframeStore.open(sys.argv[1]) as opened:
    print(len(opened), opened.get(4).name)
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
        done = subprocess.run([sys.executable, "-c", _READ_ONLY, str(path)], capture_output=True, text=True)
        assert done.stdout.split() == ["4", "frame-3"], done.stderr
        assert path.read_bytes() == before
        assert [file.name for file in folder.iterdir()] == ["map.db"]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
