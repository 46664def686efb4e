# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The index of a large map: it finds what looking through all finds, follows changes, and is not trusted blindly."""

import contextlib
import sqlite3
import sys

import numpy as np
import pytest
from keyframe_samples import unit
from retrieval_samples import clusters, small_keyframe

from nre_ros.errors import MapFormatError
from nre_ros.keyframes.global_descriptor import GLOBAL_DESCRIPTOR
from nre_ros.keyframes.retrieval.descriptor_index import update_index
from nre_ros.keyframes.retrieval.retriever import RetrievalConfig, Retriever
from nre_ros.keyframes.storage.store import KeyframeStore

pytest.importorskip("faiss", reason="needs faiss-cpu")


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
