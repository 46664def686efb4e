# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The keyframe store: what goes in comes out, in one file, whoever reads or kills whom."""

import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from child_process import child_process
from keyframe_samples import PlaceBackbone, random_keyframe

from nre_ros.errors import FeatureMismatchError, MapError
from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.keyframe_cache import keyframe_bytes
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.info import describe_map

KEYFRAME_BYTES = keyframe_bytes(random_keyframe("frame-0", 0, points=40, thumbnail=b""))


def create(path, **options):
    return KeyframeStore.create(path, "xfeat", "abc123", **options)


@pytest.fixture
def map_path(tmp_path):
    """A closed map of five keyframes."""
    path = tmp_path / "map.db"
    with create(path) as store:
        for i in range(5):
            store.add(random_keyframe(f"frame-{i}", i, points=40))
    return path


def assert_same(found, keyframe):
    """Everything exact but descriptors, which lie within the step of their quantisation."""
    assert (found.name, found.stamp, found.camera) == (keyframe.name, keyframe.stamp, keyframe.camera)
    assert found.background_cells == keyframe.background_cells
    np.testing.assert_array_equal(found.T_map_cam, keyframe.T_map_cam)
    np.testing.assert_array_equal(found.points, keyframe.points)
    np.testing.assert_array_equal(found.point_ids, keyframe.point_ids)
    for field in ("coarse", "fine", "background", "global_descriptor"):
        rows, back = (np.atleast_2d(getattr(k, field)) for k in (keyframe, found))
        assert back.dtype == np.float32
        step = np.abs(rows).max(axis=1, keepdims=True) / (127 if field == "global_descriptor" else 63)
        # half a step of rounding, and the scale that makes the length exact moves a value by less again
        assert (np.abs(back - rows) <= step).all()
        np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1.0, atol=5e-4)  # the scale's half precision


def test_a_keyframe_comes_back_as_it_went_in(tmp_path):
    keyframe = random_keyframe("folder/ä frame.jpg", 3)
    with create(tmp_path / "m.db") as store:
        keyframe_id = store.add(keyframe)
        found = store.get(keyframe_id)
    assert found.id == keyframe_id
    assert found.thumbnail == keyframe.thumbnail
    assert_same(found, keyframe)
    with KeyframeStore.open(tmp_path / "m.db") as store:
        assert_same(store.get(keyframe_id), keyframe)
        assert store.get(keyframe_id).thumbnail == keyframe.thumbnail


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e6])
def test_descriptors_of_any_length_come_back(tmp_path, factor):
    """Also those whose scales half precision cannot hold."""
    keyframe = random_keyframe("long", 0, points=30)
    names = ("coarse", "fine", "background")
    keyframe = replace(keyframe, **{name: getattr(keyframe, name) * factor for name in names})
    with create(tmp_path / "m.db") as store:
        back = store.get(store.add(keyframe))
    for name in names:
        rows = getattr(keyframe, name)
        step = np.abs(rows).max(axis=1, keepdims=True) / (127 if name == "global_descriptor" else 63)
        assert (np.abs(getattr(back, name) - rows) <= step).all()


def test_every_camera_model_and_large_ids_come_back(tmp_path):
    cameras = [
        Camera(10, 20, 1.1, 2.2, 3.3, 4.4),
        Camera(10, 20, 1.1, 2.2, 3.3, 4.4, "equidistant", (0.1, 0.2, 0.3, 0.4)),
        Camera(10, 20, 1.1, 2.2, 3.3, 4.4, "radial_tangential", tuple(np.linspace(0.01, 0.08, 8))),
    ]
    ids = np.array([-1, 2**40, 7])
    with create(tmp_path / "m.db") as store:
        for i, camera in enumerate(cameras + cameras):
            store.add(random_keyframe(str(i), i, points=3, camera=camera, point_ids=ids))
        assert [k.camera for k in store.load(range(1, 7))] == cameras + cameras
        np.testing.assert_array_equal(store.get(1).point_ids, ids)
        assert len(describe_map(store).cameras) == 3


def test_points_without_ids_stay_without_ids(tmp_path):
    with create(tmp_path / "m.db") as store:
        assert store.get(store.add(random_keyframe("a", 1, point_ids=None))).point_ids is None


def test_global_descriptors_of_the_whole_map(map_path):
    keyframes = [random_keyframe(f"frame-{i}", i, points=40) for i in range(5)]
    with KeyframeStore.open(map_path) as store:
        ids, poses, descriptors = store.global_descriptors()
        assert len(store) == 5
        assert store.names() == {k.name: i for k, i in zip(keyframes, ids)}
    np.testing.assert_array_equal(poses, [k.T_map_cam for k in keyframes])
    cosine = (descriptors * [k.global_descriptor for k in keyframes]).sum(1)
    assert (cosine > 0.9995).all()


def test_an_empty_map_opens(tmp_path):
    create(tmp_path / "m.db").close()
    with KeyframeStore.open(tmp_path / "m.db") as store:
        assert len(store) == 0 and len(store.global_descriptors()[0]) == 0
        assert describe_map(store).positions is None


def test_info_reports_the_values_of_the_map(map_path):
    with KeyframeStore.open(map_path) as store:
        info = describe_map(store)
    assert (info.frame_id, info.backbone, info.weights_hash) == ("map", "xfeat", "abc123")
    assert (info.keyframes, info.points, info.schema_version) == (5, 200, 4)
    assert info.file_bytes == map_path.stat().st_size
    assert info.thumbnail_bytes == 25000
    assert info.dimensions == {
        "coarse_channels": 64,
        "fine_channels": 32,
        "background": 128,
        "global_channels": 2080,
    }
    centres = np.array([random_keyframe("", i).T_map_cam[:3, 3] for i in range(5)])
    np.testing.assert_array_equal(info.positions, [centres.min(0), centres.max(0)])


def test_a_keyframe_of_500_points_takes_at_most_64_kib(tmp_path):
    with create(tmp_path / "m.db") as store:
        for i in range(40):
            store.add(random_keyframe(f"{i}", i))
    with KeyframeStore.open(tmp_path / "m.db") as store:
        info = describe_map(store)
    assert (info.file_bytes - info.thumbnail_bytes) / 40 <= 64 * 1024


def test_a_name_is_taken_once(map_path):
    with KeyframeStore.open(map_path, readonly=False) as store:
        with pytest.raises(MapError, match="frame-2"):
            store.add(random_keyframe("frame-2", 9))
        assert len(store) == 5
        assert_same(store.get(3), random_keyframe("frame-2", 2, points=40))
        store.add(random_keyframe("frame-9", 9))  # the writer is still good


@pytest.mark.parametrize(
    "changes",
    [
        {"coarse": np.ones((500, 32), np.float32)},
        {"fine": np.ones((499, 64), np.float32)},
        {"background": np.ones((100, 64), np.float32)},
        {"global_descriptor": np.ones(10, np.float32)},
        {"T_map_cam": np.full((4, 4), np.nan)},
        {"T_map_cam": np.diag([2.0, 1, 1, 1])},
        {"T_map_cam": np.eye(3)},
        {"points": np.zeros((7, 3), np.float32)},
        {"points": np.full((500, 3), np.inf, np.float32)},
        {"point_ids": np.arange(3)},
        {"global_descriptor": np.full(2080, np.nan, np.float32)},
        {"name": ""},
    ],
)
def test_a_keyframe_that_does_not_fit_is_refused(map_path, changes):
    with KeyframeStore.open(map_path, readonly=False) as store:
        with pytest.raises(MapError) as error:
            store.add(replace(random_keyframe("new", 9), **changes))
        assert "\n" not in str(error.value)
        assert len(store) == 5


def test_other_features_are_refused(tmp_path):
    backbone = PlaceBackbone()
    for name, weights, fits in [("place", "0" * 64, True), ("place", "1" * 64, False), ("xfeat", "0" * 64, False)]:
        with KeyframeStore.create(tmp_path / "m.db", name, weights, overwrite=True) as store:
            if fits:
                store.check_features(backbone)
            else:
                with pytest.raises(FeatureMismatchError, match=r"m\.db .*nre_ros map rebuild .*m\.db --images"):
                    store.check_features(backbone)


def test_an_existing_map_is_not_overwritten(map_path):
    before = map_path.read_bytes()
    with pytest.raises(MapError, match="exists"):
        create(map_path)
    assert map_path.read_bytes() == before


def test_one_file_is_left_that_can_be_copied(map_path, tmp_path):
    assert [file.name for file in tmp_path.iterdir()] == ["map.db"]
    shutil.copy(map_path, tmp_path / "copy.db")
    with KeyframeStore.open(tmp_path / "copy.db") as store:
        assert_same(store.get(5), random_keyframe("frame-4", 4, points=40))


def test_reading_changes_nothing(map_path, tmp_path):
    before = (map_path.read_bytes(), map_path.stat().st_mtime_ns)
    with KeyframeStore.open(map_path) as store:
        store.load([1, 2, 3, 4, 5])
        assert [file.name for file in tmp_path.iterdir()] == ["map.db"]
        with pytest.raises(MapError, match="reading"):
            store.add(random_keyframe("new", 9))
    assert (map_path.read_bytes(), map_path.stat().st_mtime_ns) == before
    assert [file.name for file in tmp_path.iterdir()] == ["map.db"]


def test_a_reader_sees_what_a_writer_adds(map_path):
    with KeyframeStore.open(map_path) as reader:
        revision = reader.revision
        assert len(reader) == 5 and reader.revision == revision
        with KeyframeStore.open(map_path, readonly=False) as writer:
            new = writer.add(random_keyframe("new", 9, points=40))
            assert len(reader) == 6 and reader.revision != revision
            assert_same(reader.get(new), random_keyframe("new", 9, points=40))
        assert_same(reader.get(new), random_keyframe("new", 9, points=40))


def test_a_cached_keyframe_is_the_same_and_the_cache_is_bounded(map_path):
    with KeyframeStore.open(map_path, cache_bytes=2 * KEYFRAME_BYTES) as store:
        first = store.load([1])[0]
        assert store.load([1, 2])[0] is first
        store.load([3, 4, 5])
        assert store.load([1])[0] is not first
        assert len(store._cache) == 2


def test_threads_other_than_the_opening_one(map_path):
    found = []
    with KeyframeStore.open(map_path, cache_bytes=KEYFRAME_BYTES) as store:

        def read(i):
            for _ in range(20):
                found.extend(keyframe.name for keyframe in store.load([i, i % 5 + 1]))

        threads = [threading.Thread(target=read, args=(i,)) for i in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 200
    assert all(found.count(f"frame-{i}") == 40 for i in range(5))


def test_unknown_ids_and_a_closed_map_are_reported(map_path):
    store = KeyframeStore.open(map_path)
    with pytest.raises(MapError, match="no keyframe 99"):
        store.get(99)
    store.close()
    store.close()
    with pytest.raises(MapError, match="closed"):
        store.get(1)


def test_exclusive_writers_keep_others_out(map_path):
    with KeyframeStore.open(map_path, readonly=False, exclusive=True) as store:
        store.add(random_keyframe("new", 9))
        reading = (
            "import sys; from nre_ros.keyframes.storage.store import KeyframeStore\n"
            f"try: KeyframeStore.open({str(map_path)!r})\n"
            "except Exception as error: sys.exit(f'{type(error).__name__}: {error}')"
        )
        other = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True, timeout=300)
    assert other.returncode == 1 and other.stderr.startswith("MapError") and "another process" in other.stderr


_WRITER = """
import sys
sys.path.insert(0, {folder!r})
from keyframe_samples import random_keyframe
from nre_ros.keyframes.storage.store import KeyframeStore
store = KeyframeStore.create(sys.argv[1], "xfeat", "abc123", exclusive=sys.argv[2] == "exclusive")
for i in range(10000):
    store.add(random_keyframe(f"frame-{{i}}", i, points=40))
    print(i, flush=True)
"""


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
@pytest.mark.parametrize("count", [1, 7, 23])
def test_a_killed_writer_loses_no_committed_keyframe(tmp_path, count, mode):
    path = tmp_path / "m.db"
    code = _WRITER.format(folder=str(Path(__file__).parent))
    with child_process([sys.executable, "-c", code, str(path), mode], stdout=subprocess.PIPE, text=True) as writer:
        committed = [int(writer.stdout.readline()) for _ in range(count)]
        writer.send_signal(signal.SIGKILL)
        committed += [int(line) for line in writer.stdout]
    assert writer.returncode == -signal.SIGKILL
    with KeyframeStore.open(path) as store:
        names = store.names()
        assert set(names) >= {f"frame-{i}" for i in committed}
        assert len(names) <= len(committed) + 1  # the one being reported
        for name, keyframe_id in names.items():
            seed = int(name.split("-")[1])
            assert_same(store.get(keyframe_id), random_keyframe(name, seed, points=40))
    with KeyframeStore.open(path, readonly=False) as store:  # and it can be gone on with
        store.add(random_keyframe("after", 1, points=40))
    assert [file.name for file in tmp_path.iterdir()] == ["m.db"]
