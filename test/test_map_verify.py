# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Verify names what is damaged, and saves the rest; merge, prune: nothing is lost that was not asked to go."""

import json
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from keyframe_samples import random_keyframe
from test_store import assert_same

from nre_ros.cli import main
from nre_ros.errors import MapError
from nre_ros.keyframes.storage.blobs import encode_array, row_checksum
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import describe_map
from nre_ros.keyframes.tools.merge import merge_maps
from nre_ros.keyframes.tools.verify import salvage_map, verify_map

SIZES = {"points": 30, "background": 8, "dimensions": 60}


def sample(i, **changes):
    return random_keyframe(f"frame-{i}", i, **{**SIZES, **changes})


def write_map(path, keyframes, weights="0" * 64, **options):
    with KeyframeStore.create(path, "place", weights, **options) as store:
        for keyframe in keyframes:
            store.add(keyframe)
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = write_map(tmp_path_factory.mktemp("good") / "good.db", map(sample, range(6)))
    with KeyframeStore.open(path, readonly=False) as store:
        store.update_pose(6, np.eye(4))
        store.update_pose(6, sample(5).T_map_cam, sample(5).points)
        store.write_index(b"index")
    return path


@pytest.fixture
def path(good, tmp_path):
    return shutil.copy(good, tmp_path / "map.db")


def change(path, *statements):
    db = sqlite3.connect(path)
    for statement in statements:
        assert db.execute(*statement if isinstance(statement, tuple) else (statement,)).rowcount >= 1
    db.commit()
    db.close()


def check(path):
    return verify_map(path, progress=False)


def contents(path):
    with KeyframeStore.open(path) as store:
        return {name: store.get(i) for name, i in store.names().items()}


def assert_exact(found, keyframe):
    """Descriptors too are as they were stored."""
    assert (found.name, found.stamp, found.camera, found.background_cells) == (
        keyframe.name,
        keyframe.stamp,
        keyframe.camera,
        keyframe.background_cells,
    )
    for key in ("T_map_cam", "points", "point_ids", "coarse", "fine", "background", "global_descriptor"):
        np.testing.assert_array_equal(getattr(found, key), getattr(keyframe, key))
    assert found.thumbnail == keyframe.thumbnail


def test_a_good_map_is_good_and_stays_as_it_is(path):
    before = path.read_bytes()
    found = check(path)
    assert found.good and found.problems == [] and (found.keyframes, found.intact) == (6, [1, 2, 3, 4, 5, 6])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement, named, intact",
    [
        ("UPDATE points SET xyz = ZEROBLOB(LENGTH(xyz)) WHERE keyframe_id = 2", "frame-1", [1, 3, 4, 5, 6]),
        ("UPDATE keyframes SET stamp = 7 WHERE id = 3", "keyframe 3", [1, 2, 4, 5, 6]),
        ("DELETE FROM points WHERE keyframe_id = 4", "frame-3", [1, 2, 3, 5, 6]),
        ("UPDATE thumbnails SET jpeg = X'00' WHERE keyframe_id = 5", "thumbnail of keyframe 5", [1, 2, 3, 4, 5, 6]),
        ("UPDATE cameras SET width = 641", "camera 1", []),
        ("DELETE FROM keyframes WHERE id = 2", "the map has 5 keyframes, 6 were written", [1, 3, 4, 5, 6]),
        ("UPDATE metadata SET value = 'x' WHERE key = 'source'", "metadata 'source'", [1, 2, 3, 4, 5, 6]),
        ("UPDATE retrieval_index SET data = X'01'", "retrieval index", [1, 2, 3, 4, 5, 6]),
        ("UPDATE changes SET revision = 77", "changes", [1, 2, 3, 4, 5, 6]),
        ("DELETE FROM cameras", "no row in cameras", []),
    ],
)
def test_what_is_damaged_is_named(path, tmp_path, statement, named, intact):
    change(path, statement)
    found = check(path)
    assert not found.good and any(named in problem for problem in found.problems), found.problems
    assert all("\n" not in problem for problem in found.problems)
    assert (found.intact, found.keyframes) == (intact, 5 if "DELETE FROM keyframes" in statement else 6)
    new = tmp_path / "new.db"
    if not intact:
        with pytest.raises(MapError, match="no keyframe is left"):
            salvage_map(found, new, progress=False)
        assert not new.exists()
        return
    assert salvage_map(found, new, progress=False) == len(intact)
    assert check(new).good
    for i, keyframe in zip(intact, contents(new).values()):
        bare = "thumbnails" in statement and i == 5
        assert_same(keyframe, sample(i - 1))
        assert keyframe.thumbnail == (b"" if bare else sample(i - 1).thumbnail)


@pytest.mark.parametrize(
    "column, value, named",
    [
        ("pose", encode_array(np.diag([1.0, 1, -1, 1]), "<f8"), "rigid"),
        ("pose", encode_array(np.full((4, 4), np.nan), "<f8"), "finite"),
        ("pose", encode_array(np.eye(3), "<f8"), "shape"),
        ("global_scale", float("inf"), "finite"),
        ("point_count", 31, "different lengths"),
    ],
)
def test_values_that_no_writer_writes_are_named(path, column, value, named):
    """Rows whose checksum is right and whose values are not."""
    db = sqlite3.connect(path)
    names = [row[1] for row in db.execute("PRAGMA table_info(keyframes)")]
    row = list(db.execute("SELECT * FROM keyframes WHERE id = 2").fetchone())
    row[names.index(column)] = value
    row[-1] = row_checksum(*row[:-1])
    db.execute("DELETE FROM keyframes WHERE id = 2")
    db.execute(f"INSERT INTO keyframes VALUES ({', '.join('?' * len(row))})", row)
    db.commit()
    db.close()
    found = check(path)
    assert found.intact == [1, 3, 4, 5, 6] and named in " ".join(found.problems)


def test_keyframes_around_a_destroyed_page_are_saved(tmp_path):
    """Pages of the keyframes' own table are overwritten: what lies on the others is found."""
    path = write_map(tmp_path / "map.db", (sample(i, dimensions=1500) for i in range(40)))
    data = bytearray(path.read_bytes())
    for i in (12, 13, 25):
        start = data.index(sample(i, dimensions=1500).T_map_cam.tobytes()) // 2048 * 2048
        data[start : start + 2048] = bytes(2048)
    path.write_bytes(data)
    found = check(path)
    assert not found.good and 30 <= len(found.intact) < 40
    salvage_map(found, tmp_path / "new.db", progress=False)
    saved = contents(tmp_path / "new.db")
    assert len(saved) == len(found.intact)
    for name, keyframe in saved.items():
        assert_same(keyframe, sample(int(name[6:]), dimensions=1500))


def test_a_keyframe_that_is_listed_and_cannot_be_found_is_reported(path, monkeypatch):
    """As a damaged inner page leaves it: the table's walk shows an id that its look-up does not."""
    scan_ids = KeyframeStore.scan_ids
    monkeypatch.setattr(
        KeyframeStore, "scan_ids", lambda self, ids: iter(()) if list(ids) == [2] else scan_ids(self, ids)
    )
    found = verify_map(path)
    assert any("its row cannot be found" in problem for problem in found.problems)
    assert 2 not in found.intact and 1 in found.intact


def test_verify_from_the_command_line(path, tmp_path, capsys):
    assert main(["map", "verify", str(path)]) == 0 and "intact" in capsys.readouterr().out
    change(path, "UPDATE points SET xyz = X'00' WHERE keyframe_id = 2")
    new = tmp_path / "new.db"
    assert main(["map", "verify", str(path), "--repair-to", str(new)]) == 1
    out = capsys.readouterr().out
    assert "keyframe 2 ('frame-1')" in out and "5 keyframes in" in out and "damaged" in out
    assert main(["map", "verify", str(path), "--repair-to", str(new)]) == 2  # not overwritten
    assert main(["map", "verify", str(path), "--repair-to", str(new), "--force"]) == 1
    assert main(["map", "verify", str(tmp_path / "none.db")]) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["map.db", "new.db"]


# merging


def test_a_merged_map_has_the_warnings_of_all_maps_once(tmp_path):
    paths = [write_map(tmp_path / f"{i}.db", [sample(i)]) for i in range(4)]
    for path, text in zip(paths[1:], ("poses disagree", "few points", "poses disagree")):
        with KeyframeStore.open(path, readonly=False) as store:
            store.set_warning(text)
    merge_maps(paths, tmp_path / "all.db", progress=False)
    with KeyframeStore.open(tmp_path / "all.db") as store:
        assert describe_map(store).warning == "poses disagree; few points"


def test_maps_are_merged_as_they_are_stored(tmp_path):
    a = write_map(tmp_path / "a.db", map(sample, range(3)), source="first")
    b = write_map(tmp_path / "b.db", [*map(sample, (2, 5)), sample(6, point_ids=None, thumbnail=b"")])
    before = a.read_bytes(), b.read_bytes()
    report = merge_maps([a, b], tmp_path / "c.db", progress=False)
    assert (report.keyframes, report.same, report.clashes) == (5, 1, ())
    expected = contents(a) | contents(b)
    found = contents(tmp_path / "c.db")
    assert list(found) == ["frame-0", "frame-1", "frame-2", "frame-5", "frame-6"]
    for name in found:
        assert_exact(found[name], expected[name])
    assert check(tmp_path / "c.db").good and (a.read_bytes(), b.read_bytes()) == before
    with KeyframeStore.open(tmp_path / "c.db") as store:
        assert [origin["source"] for origin in json.loads(store.metadata()["source"])["maps"]] == ["first", ""]
        assert len(describe_map(store).cameras) == 1


@pytest.mark.parametrize(
    "rule, names",
    [
        ("first", {"frame-0": 0, "frame-1": 1}),
        ("last", {"frame-0": 0, "frame-1": 8}),
        ("both", {"frame-0": 0, "frame-1": 1, "b/frame-1": 8}),
    ],
)
def test_names_that_clash(tmp_path, rule, names):
    a = write_map(tmp_path / "a.db", map(sample, range(2)))
    b = write_map(tmp_path / "b.db", [replace(sample(8), name="frame-1")])
    with pytest.raises(MapError, match="1 keyframes.*'frame-1'.*--on-clash"):
        merge_maps([a, b], tmp_path / "c.db", progress=False)
    assert not (tmp_path / "c.db").exists()
    assert merge_maps([a, b], tmp_path / "c.db", rule, progress=False).clashes == ("frame-1",)
    found = contents(tmp_path / "c.db")
    assert list(found) == list(names)
    for name, seed in names.items():
        assert_same(found[name], replace(sample(seed), name=name))


@pytest.mark.parametrize(
    "options, keyframe, match",
    [
        ({"weights": "1" * 64}, sample(9), "weights_hash"),
        ({"frame_id": "odom"}, sample(9), "frame_id.*'map'.*'odom'"),
        ({"retrieval": "netvlad"}, sample(9), "retrieval"),
        ({}, sample(9, background=9), "background"),
    ],
)
def test_maps_that_do_not_belong_together(tmp_path, options, keyframe, match):
    a, b = write_map(tmp_path / "a.db", [sample(0)]), write_map(tmp_path / "b.db", [keyframe], **options)
    with pytest.raises(MapError, match=match):
        merge_maps([a, b], tmp_path / "c.db", progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "b.db"]


def test_merge_from_the_command_line(tmp_path, capsys):
    a, b = write_map(tmp_path / "a.db", [sample(0)]), write_map(tmp_path / "b.db", [sample(1)])
    words = ["map", "merge", str(a), str(b), "-o", str(tmp_path / "c.db")]
    assert main(words) == 0 and list(contents(tmp_path / "c.db")) == ["frame-0", "frame-1"]
    assert main(words) == 2 and "--force" in capsys.readouterr().err
    assert main([*words[:-1], str(a), "--force"]) == 0  # over one that is merged
    assert list(contents(a)) == ["frame-0", "frame-1"]


def test_a_damaged_map_is_not_merged(tmp_path):
    a, b = write_map(tmp_path / "a.db", [sample(0)]), write_map(tmp_path / "b.db", [sample(1)])
    change(b, "UPDATE points SET xyz = X'00'")
    with pytest.raises(MapError, match="b.db is damaged"):
        merge_maps([a, b], tmp_path / "c.db", progress=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", "b.db"]
