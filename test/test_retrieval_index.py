# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The index of a large map: it finds what looking through all finds, follows changes, and is not trusted blindly."""

import contextlib
import sqlite3
import struct
import sys

import numpy as np
import pytest
from keyframe_samples import unit
from retrieval_samples import clusters, make_map, small_keyframe

from nre_ros.errors import MapFormatError
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.retrieval.descriptor_index import (
    DescriptorIndex,
    IndexUnavailableError,
    build_index,
    update_index,
)
from nre_ros.keyframes.retrieval.inverted_lists import InvertedLists, read_serialized_lists
from nre_ros.keyframes.retrieval.retriever import RetrievalConfig, Retriever
from nre_ros.keyframes.storage.blobs import encode_array
from nre_ros.keyframes.storage.store import KeyframeStore

faiss = pytest.importorskip("faiss", reason="needs faiss-cpu")


def exhaustive(descriptors, query, count):
    return (np.argsort(-(descriptors @ query), kind="stable")[:count] + 1).tolist()


PLAIN = RetrievalConfig(diversity=0.0)


def indexed(store):
    assert "index of" in update_index(store)
    with KeyframeStore.open(store.path) as reader:
        assert reader.read_index() is not None
    return Retriever(store, PLAIN)


def test_the_index_finds_what_looking_through_all_finds(make_map, small_is_large, caplog):
    descriptors = clusters(400)
    store = make_map(descriptors)
    retriever = indexed(store)
    for query in unit(descriptors[::20] + 0.02 * np.random.default_rng(1).normal(size=(20, 60))):
        ids, similarities = retriever.query(query, count=5)
        wanted = exhaustive(descriptors, query, 5)
        assert ids[0] == wanted[0] and len(set(ids) & set(wanted)) >= 4
        np.testing.assert_allclose(similarities, descriptors[np.array(ids) - 1] @ query, atol=0.02)
        assert Retriever(store, PLAIN).query(query, count=5)[0] == ids
    assert not caplog.records
    assert list(retriever.ids) == list(range(1, 401))


def test_an_index_is_the_same_when_it_is_made_again(make_map, small_is_large):
    store = make_map(clusters(200))
    update_index(store)
    first = store.read_index()
    update_index(store)
    assert store.read_index() == first


def test_keyframes_added_changed_and_removed_since_the_index_was_made(make_map, small_is_large):
    descriptors, new = clusters(120), clusters(20, seed=7)
    store = make_map(descriptors)
    retriever = indexed(store)
    with KeyframeStore.open(store.path, readonly=False) as writer:
        writer.add(small_keyframe("new", 900, new[0]))
        writer.replace(30, small_keyframe("29", 901, new[1]))
        writer.remove(40)
    for looking in (retriever, Retriever(store, PLAIN)):  # one that was open, and one that finds the index behind
        assert looking.query(new[0], count=1)[0] == [121]
        assert looking.query(new[1], count=1)[0] == [30]
        assert looking.query(descriptors[39], count=1)[0] != [40]
        ids, similarities = looking.query(descriptors[29], count=5)
        assert 30 not in ids[:1] or similarities[0] < 0.9
        assert list(looking.ids) == [i for i in range(1, 122) if i != 40]


def test_most_keyframes_removed_since_the_index_was_made(make_map, small_is_large):
    descriptors = clusters(120)
    store = make_map(descriptors)
    update_index(store)
    kept = {3, 50, 77, 120}
    with store.batch():
        for keyframe_id in set(range(1, 121)) - kept:
            store.remove(keyframe_id)
    assert set(Retriever(store, PLAIN).query(descriptors[10], count=5)[0]) == kept


@pytest.mark.parametrize("harm", ["cut short", "other descriptor", "other keyframes", "none"])
def test_an_index_that_does_not_fit_is_reported_and_not_used(make_map, small_is_large, harm, caplog):
    descriptors = clusters(100)
    store = make_map(descriptors)
    update_index(store)
    good = store.read_index()
    other = make_map(clusters(130, seed=5))
    update_index(other)
    data = {
        "cut short": good[:-100],
        "none": None,
        "other keyframes": other.read_index(),
        "other descriptor": good.replace(GLOBAL_DESCRIPTOR.encode(), b"x" * len(GLOBAL_DESCRIPTOR)),
    }[harm]
    store.write_index(data)
    retriever = Retriever(store, PLAIN)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    for i in (0, 40, 90):
        assert retriever.query(descriptors[i], count=1)[0] == [i + 1]


def test_a_damaged_row_of_the_index_is_reported_and_not_used(make_map, small_is_large, caplog):
    descriptors = clusters(100)
    store = make_map(descriptors)
    update_index(store)
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        (data,) = db.execute("SELECT data FROM retrieval_index WHERE part = 0").fetchone()
        db.execute("UPDATE retrieval_index SET data = ? WHERE part = 0", (data[:-9] + b"\x00" + data[-8:],))
        db.commit()
    with KeyframeStore.open(store.path) as reader:
        assert Retriever(reader, PLAIN).query(descriptors[70], count=1)[0] == [71]
    assert "checksum" in caplog.text


def test_a_map_that_lost_rows_is_refused(make_map):
    store = make_map(clusters(20))
    store.close()
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        db.execute("DELETE FROM keyframes WHERE id = 7")
        db.commit()
    with KeyframeStore.open(store.path) as reader, pytest.raises(MapFormatError, match="19 keyframes where 20"):
        Retriever(reader)


def test_without_faiss_all_keyframes_are_looked_through(make_map, small_is_large, monkeypatch, caplog):
    descriptors = clusters(100)
    store = make_map(descriptors)
    update_index(store)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert Retriever(store, PLAIN).query(descriptors[70], count=1)[0] == [71]
    assert "faiss" in caplog.text
    assert "faiss" in update_index(store)


# --- what a file says is checked before faiss gets it ------------------------------------------------


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    with make_map(tmp_path_factory.mktemp("index") / "m.db", clusters(300)) as store:
        return build_index(store)


def older_format(index):
    """The index as versions 0.1 to 1.0 wrote it, with lists that faiss has serialized."""
    lists = faiss.serialize_index(index.lists).view(np.int8)
    arrays = {
        "|i1": [np.frombuffer(GLOBAL_DESCRIPTOR.encode(), np.int8), lists],
        "<i8": [np.array(index.position), index.ids],
        "<f4": [index.viewpoints, index.mean, index.components],
    }
    parts = [encode_array(array, dtype) for dtype, group in arrays.items() for array in group]
    return b"nre-index-1\n" + b"".join(struct.pack("<Q", len(part)) + part for part in parts)


@pytest.mark.parametrize("layout", [DescriptorIndex.to_bytes, lambda index, name: older_format(index)])
def test_an_index_is_read_as_it_was_written_without_faiss_parsing_it(index, layout, monkeypatch):
    monkeypatch.delattr(faiss, "deserialize_index")
    read = DescriptorIndex.from_bytes(layout(index, GLOBAL_DESCRIPTOR), GLOBAL_DESCRIPTOR, 60)
    assert bytes(faiss.serialize_index(read.lists)) == bytes(faiss.serialize_index(index.lists))
    queries = unit(np.random.default_rng(3).normal(size=(20, 60))).astype(np.float32)
    for query in queries:
        np.testing.assert_array_equal(read.search(query, 30), index.search(query, 30))


def test_lists_most_of_which_are_empty_are_read(index):
    """faiss serializes them in another way."""
    lists = InvertedLists.from_faiss(index.lists, faiss)
    sizes = np.zeros(20, np.int64)
    sizes[[3, 11]] = 200, 100
    centroids = np.random.default_rng(0).normal(size=(20, lists.components)).astype(np.float32)
    sparse = InvertedLists(centroids, lists.ranges, sizes, lists.rows, lists.codes)
    data = faiss.serialize_index(sparse.to_faiss(faiss)).tobytes()
    assert b"sprs" in data
    read = read_serialized_lists(data)
    for name in ("centroids", "ranges", "sizes", "rows", "codes"):
        np.testing.assert_array_equal(getattr(read, name), getattr(sparse, name))


@pytest.mark.parametrize(
    "harm",
    [
        {"sizes": lambda a: a + np.eye(1, len(a), dtype=int)[0]},
        {"sizes": lambda a: np.array([2**62] * 3 + [2**62 + 300] + [0] * (len(a) - 4))},
        {"sizes": lambda a: np.array([-1, 301] + [0] * (len(a) - 2))},
        {"rows": lambda a: a + 1},
        {"rows": lambda a: np.full_like(a, 7)},
        {"rows": lambda a: a[:-1]},
        {"codes": lambda a: a[:, :-1]},
        {"codes": lambda a: a[:0]},
        {"centroids": lambda a: a * np.float32(np.nan)},
        {"centroids": lambda a: a.astype(float)},
        {"centroids": lambda a: a[:, :5]},
        {"centroids": lambda a: a.ravel()},
        {"ranges": lambda a: a[:1]},
        {"ranges": lambda a: a * np.float32(np.inf)},
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_together_are_refused(index, harm):
    lists = InvertedLists.from_faiss(index.lists, faiss)
    arrays = {name: getattr(lists, name) for name in ("centroids", "ranges", "sizes", "rows", "codes")}
    if len(lists.sizes) < 4:
        pytest.fail("too few lists for this test")
    with pytest.raises(ValueError, match="^its |^it has"):
        InvertedLists(**{name: harm[name](array) if name in harm else array for name, array in arrays.items()})


@pytest.mark.parametrize("layout", [DescriptorIndex.to_bytes, lambda index, name: older_format(index)])
def test_a_damaged_or_malicious_index_never_reaches_faiss(index, layout):
    """Whatever is read can be searched, and all its rows are keyframes."""
    good = layout(index, GLOBAL_DESCRIPTOR)
    rng = np.random.default_rng(0)
    query = unit(rng.normal(size=(1, 60)))[0].astype(np.float32)
    numbers = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
    refused = 0
    for trial in range(600):
        data = bytearray(good)
        start = int(rng.integers(0, len(data) - 8)) if trial % 2 else int(rng.integers(0, min(2000, len(data) - 8)))
        if trial % 3 == 0:
            data[start : start + 8] = struct.pack("<Q", numbers[rng.integers(len(numbers))])
        elif trial % 3 == 1:
            data[start] ^= 1 << rng.integers(8)
        else:
            del data[start : None if trial % 2 else start + 4]
        try:
            read = DescriptorIndex.from_bytes(bytes(data), GLOBAL_DESCRIPTOR, 60)
        except IndexUnavailableError:
            refused += 1
            continue
        rows = read.search(query, 30)
        assert len(rows) <= 30 and (rows < 300).all()
    assert refused > 200
