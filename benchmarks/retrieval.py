# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How often retrieval finds a keyframe that overlaps with the query, and what each step of retrieval contributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import Options, Skip, Table, timed
from rendered_rooms import Views, rooms
from scenes import kitchen
from scipy.spatial.transform import Rotation
from view_overlap import ENOUGH, overlaps

from nre_ros.features import load_backbone
from nre_ros.features.base import FeatureGrid, FeatureMap
from nre_ros.features.descriptor_head import DescriptorHead
from nre_ros.features.xfeat import XFeatBackbone
from nre_ros.geometry import pose_matrix
from nre_ros.keyframes.global_descriptor import global_descriptor
from nre_ros.keyframes.importers.image_files import read_depth
from nre_ros.keyframes.retrieval.pose_prior import PosePrior
from nre_ros.keyframes.retrieval.retriever import RetrievalConfig, Retriever
from nre_ros.keyframes.storage.store import KeyframeStore

COUNT = 5
_PLAIN = RetrievalConfig(diversity=0.0)


@dataclass(frozen=True)
class Case:
    """A map and its queries.

    Attributes:
        map_path: the map file.
        features: coarse features of the queries.
        poses: true poses [Q, 4, 4] of the queries.
        overlap: how much each query sees of each keyframe [Q, M].
        columns: id of a keyframe -> its column in ``overlap``.
        keyframe_features: makes the coarse features of the keyframes, in the order of the columns.
    """

    map_path: Path
    features: list[FeatureMap]
    poses: np.ndarray
    overlap: np.ndarray
    columns: dict[int, int]
    keyframe_features: Callable[[], Iterator[FeatureMap]]


SETS: dict[str, tuple[str, Callable[[Options], Case]]] = {
    "kitchen": ("kitchen, 63 keyframes", lambda options: _kitchen(options, 1)),
    "thin": ("kitchen, 11 keyframes", lambda options: _kitchen(options, 6)),
    "degraded": ("kitchen, 11 keyframes, degraded queries", lambda options: _kitchen(options, 6, degraded=True)),
    "rooms": ("8 rooms, 2000 keyframes", lambda options: _rooms(options)),
}
"""Name -> title, and the function that makes the case."""

VARIANTS = {
    "similarity alone": (_PLAIN, False, None),
    "with diversity": (RetrievalConfig(), False, None),
    "with local re-ranking": (_PLAIN, True, None),
    "both (used)": (RetrievalConfig(), True, None),
    "used, prior of 0.5 m and 10 deg": (RetrievalConfig(), True, (0.5, 10.0)),
    "used, prior of 2 m and 30 deg": (RetrievalConfig(), True, (2.0, 30.0)),
    "used, prior of 100 m and 180 deg": (RetrievalConfig(), True, (100.0, 180.0)),
    "used, prior at another query's pose": (RetrievalConfig(), True, None),
}
"""Name -> configuration, whether local descriptors re-rank, the prior's standard deviations (m, deg) a direction."""
_WRONG = "used, prior at another query's pose"


def run(options: Options):
    """Yields one table for each set, and one that compares a learned descriptor where its file is given."""
    backbone = XFeatBackbone(torch.device(options.device))
    head = None
    if options.descriptor_head is not None:
        head = DescriptorHead.load(options.descriptor_head, backbone.network_hash)
    for name in options.selected_sets(SETS):
        title, make = SETS[name]
        try:
            case = make(options)
            yield _table(options, title, case, backbone.coarse_temperature)
            if head is not None:
                yield _descriptor_table(title, case, head)
        except Skip as reason:
            print(f"{title} skipped: {reason}", flush=True)


def _descriptor_table(title: str, case: Case, head: DescriptorHead) -> Table:
    """Compares descriptors by similarity alone; all keyframes are searched."""
    columns = f"one of {COUNT} overlaps [%]", "the first does [%]", f"of the {COUNT} do [%]"
    table = Table(f"{title}: descriptors by similarity alone", ("descriptor", "queries", *columns))
    enough = case.overlap >= ENOUGH
    for name, describe in (("without training (used)", global_descriptor), ("learned", head.describe)):
        queries = np.array([describe(features) for features in case.features])
        keyframes = np.array([describe(features) for features in case.keyframe_features()])
        nearest = np.argsort(-queries @ keyframes.T, axis=1, kind="stable")[:, :COUNT]
        hits = np.take_along_axis(enough, nearest, axis=1)
        shares = hits.any(1).mean(), hits[:, 0].mean(), hits.mean()
        table.rows.append((name, len(hits), *(100 * float(share) for share in shares)))
    return table


def _table(options: Options, title: str, case: Case, temperature: float) -> Table:
    table = Table(
        title,
        (
            "variant",
            "queries",
            f"one of {COUNT} overlaps [%]",
            "the first does [%]",
            f"of the {COUNT} do [%]",
            "median [ms]",
        ),
    )
    descriptors = [global_descriptor(features) for features in case.features]
    enough = case.overlap >= ENOUGH
    with KeyframeStore.open(case.map_path) as store:
        for variant, (config, rerank, deviations) in VARIANTS.items():
            retriever = Retriever(store, config)
            rng = np.random.default_rng(options.seed)
            found, seconds = [], []
            for query, (descriptor, features) in enumerate(zip(descriptors, case.features)):
                prior = None
                if variant == _WRONG:
                    prior = _prior(case.poses[(query + len(case.poses) // 2) % len(case.poses)], (0.5, 10.0), rng)
                elif deviations:
                    prior = _prior(case.poses[query], deviations, rng)
                taken, (ids, _) = timed(
                    retriever.query, descriptor, COUNT, prior, features if rerank else None, temperature
                )
                seconds.append(taken)
                found.append(enough[query, [case.columns[i] for i in ids]])
            hits = np.array(found)
            table.rows.append(
                (
                    variant,
                    len(hits),
                    *(100 * float(share.mean()) for share in (hits.any(1), hits[:, 0], hits)),
                    1e3 * float(np.median(seconds)),
                )
            )
    table.notes.append(
        f"Overlaps: at least {ENOUGH:.0%} of the keyframe's depth points are seen by the query. {enough.mean():.1%} of "
        f"all pairs do, and {np.median(enough.sum(1)):.0f} keyframes of a query's (median)."
    )
    return table


def _prior(T_map_cam: np.ndarray, deviations: tuple[float, float], rng: np.random.Generator) -> PosePrior:
    """Moves a pose by random errors of these deviations (metres, degrees) a direction, with their covariance."""
    metres, radians = deviations[0], np.radians(deviations[1])
    rotation = Rotation.from_rotvec(rng.normal(scale=radians, size=3)).as_matrix()
    T = pose_matrix(T_map_cam[:3, 3] + rng.normal(scale=metres, size=3), (0, 0, 0, 1))
    T[:3, :3] = rotation @ T_map_cam[:3, :3]
    return PosePrior(T, np.diag([metres**2] * 3 + [radians**2] * 3))


def _kitchen(options: Options, every: int, degraded: bool = False) -> Case:
    scene = kitchen(options, every, degraded)
    folder = options.data("data/kitchen") / "depth"
    backbone = load_backbone("xfeat", options.device)

    def depth(name):
        return read_depth((folder / name).with_suffix(".png"), 1000.0)

    with KeyframeStore.open(scene.map_path) as store:
        keyframes = [store.get(keyframe_id) for keyframe_id in store.names().values()]
    queries = list(scene.queries())
    seen = overlaps(
        [(keyframe.T_map_cam, depth(keyframe.name)) for keyframe in keyframes],
        [(query.T_map_cam, depth(query.name)) for query in queries],
        queries[0].camera,
    )
    return Case(
        scene.map_path,
        [backbone.extract(query.image, fine=False).coarse for query in queries],
        np.array([query.T_map_cam for query in queries]),
        seen,
        {keyframe.id: column for column, keyframe in enumerate(keyframes)},
        lambda: (backbone.extract(scene.image(keyframe.name), fine=False).coarse for keyframe in keyframes),
    )


def _rooms(options: Options) -> Case:
    gallery = rooms(options)
    views = [[(T, d / 1e3) for T, d in zip(part.poses, part.depth)] for part in (gallery.keyframes, gallery.queries)]

    def features(views: Views) -> Iterator[FeatureMap]:
        for coarse in views.coarse:
            yield FeatureMap(torch.from_numpy(np.array(coarse, np.float32)), FeatureGrid(8.0, 3.25))

    with KeyframeStore.open(gallery.map_path) as store:
        columns = {keyframe_id: column for column, keyframe_id in enumerate(store.names().values())}
    return Case(
        gallery.map_path,
        list(features(gallery.queries)),
        gallery.queries.poses,
        overlaps(*views, gallery.camera),
        columns,
        lambda: features(gallery.keyframes),
    )
