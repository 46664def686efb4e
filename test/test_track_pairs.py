# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Training pairs of recordings without depth: tracks of COLMAP models, points of maps, and triangulated matches."""

import pickle
import re
import shutil
from functools import partial

import cv2
import numpy as np
import pytest
from keyframe_samples import random_keyframe
from recording_samples import CAMERA, POSES, model_folder, rgbd_folder, scene, true_places
from scipy.spatial.transform import Rotation

from nre_ros.errors import TrainingError
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource
from nre_ros.keyframes.importers.map_images import MapImagesSource
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.learning import track_pairs
from nre_ros.learning.open_pairs import PairOptions, open_pair_source
from nre_ros.learning.pairs import TrainingPair, inside_image
from nre_ros.learning.track_pairs import MapPairs, TrackPairs, TriangulatedPairs

K = np.array([[300.0, 0, 159.3], [0, 310.0, 121.7], [0, 0, 1]])  # in this package's pixel convention
DISTORTION = np.array([-0.1, 0.03, 0.002, -0.001])
SIZE = (320, 240)


def same(a: TrainingPair, b: TrainingPair) -> bool:
    names = ("image_a", "image_b", "pixels_a", "pixels_b", "visible")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


# tracks


class Model:
    """A COLMAP model by hand: points before three cameras; the first 60 have tracks in all images that show them."""

    def __init__(self, folder, noise: float = 0.0):
        rng = np.random.default_rng(0)
        self.points = rng.uniform([-1.2, -0.9, 2.5], [1.2, 0.9, 4], (120, 3))
        self.names = ["a.png", "b.png", "c.png"]
        self.pixels, self.inside, lines = {}, {}, []
        (folder / "sparse").mkdir(parents=True)
        (folder / "images").mkdir()
        for i, name in enumerate(self.names):
            rotation, t = Rotation.from_rotvec([0.02, 0.05 * i, 0.01 * i]), np.array([-0.3 * i, 0.02 * i, 0.0])
            pixels = cv2.projectPoints(self.points, rotation.as_rotvec(), t, K, DISTORTION)[0][:, 0]
            self.pixels[name], self.inside[name] = pixels, inside_image(pixels, *SIZE)
            # points 60 to 90 have no track in the second image, those from 90 on none in the first
            hidden = {"a.png": slice(90, 120), "b.png": slice(60, 90), "c.png": slice(0, 0)}[name]
            observed = self.inside[name].copy()
            observed[hidden] = False
            x, y, z, w = rotation.as_quat().tolist()
            lines.append(" ".join(map(repr, [i + 1, w, x, y, z, *t.tolist(), 3])) + f" {name}")
            shifted = pixels + 0.5 + rng.normal(scale=max(noise, 1e-12), size=pixels.shape)
            lines.append(" ".join(f"{shifted[j, 0]!r} {shifted[j, 1]!r} {j + 1}" for j in np.flatnonzero(observed)))
            cv2.imwrite(str(folder / "images" / name), rng.integers(0, 256, (240, 320, 3), dtype=np.uint8))
        parameters = f"300 310 {K[0, 2] + 0.5} {K[1, 2] + 0.5} -0.1 0.03 0.002 -0.001"
        (folder / "sparse/cameras.txt").write_text(f"3 OPENCV 320 240 {parameters}\n")
        (folder / "sparse/images.txt").write_text("\n".join(lines).replace("np.float64(", "").replace(")", "") + "\n")
        (folder / "sparse/points3D.txt").write_text(
            "".join(f"{j + 1} {x!r} {y!r} {z!r} 1 2 3 0.5 1 0\n" for j, (x, y, z) in enumerate(self.points.tolist()))
        )
        self.folder = folder

    def pairs(self, **changes) -> TrackPairs:
        opener = partial(ColmapSource, self.folder / "sparse", self.folder / "images")
        return TrackPairs(opener, "model", **{"check": False, **changes})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    return Model(tmp_path_factory.mktemp("model") / "colmap")


def test_places_of_shared_tracks_are_opencvs_projections(model):
    pairs = model.pairs()
    assert {frozenset(pair) for pair in pairs.image_pairs} == {frozenset(p) for p in ((0, 1), (1, 2), (0, 2))}
    for index in range(5):
        pair = pairs.pair(0, index)
        first, second = re.findall(r"[abc]\.png", pair.source)
        # which point each place is of
        distance = np.linalg.norm(pair.pixels_a[:, None] - model.pixels[first], axis=-1)
        rows = distance.argmin(1)
        assert distance.min(1).max() < 1e-4 and len(np.unique(rows)) == len(rows)
        np.testing.assert_allclose(pair.pixels_b[pair.visible], model.pixels[second][rows[pair.visible]], atol=1e-4)
        tracks = np.ones(120, np.bool_)
        for name in (first, second):
            tracks[{"a.png": slice(90, 120), "b.png": slice(60, 90), "c.png": slice(0, 0)}[name]] = False
        shared = tracks & model.inside[first] & model.inside[second]
        assert np.array_equal(np.sort(rows[pair.visible]), np.flatnonzero(shared))
        # a point without a track in the second image may be hidden there, or not have been found
        assert not model.inside[second][rows[~pair.visible]].any()


def test_points_outside_the_second_image_are_not_visible(model):
    pairs = model.pairs()
    assert sum(int((~pairs.pair(0, index).visible).sum()) for index in range(6)) > 5


def test_track_pairs_depend_on_seed_and_number_alone(model):
    pairs = model.pairs(points=30)
    made = [pairs.pair(1, index) for index in range(3)]
    assert all(len(pair.pixels_a) == 30 for pair in made)
    assert same(pickle.loads(pickle.dumps(pairs)).pair(1, 2), made[2]) and same(
        model.pairs(points=30).pair(1, 0), made[0]
    )


def test_observations_far_from_their_points_are_left_out_or_refused(tmp_path):
    noisy = Model(tmp_path / "noisy", noise=5.0)
    with pytest.raises(
        TrainingError, match=r"model: \d+ of \d+ observations lie farther than 0.3% of the focal length"
    ):
        noisy.pairs()


def test_models_whose_images_share_nothing_are_refused(model, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(model.folder, folder)
    lines = (folder / "sparse/images.txt").read_text().splitlines()
    for i in (1, 3, 5):  # each image keeps observations of its own
        numbers = lines[i].split()
        triples = [numbers[k : k + 3] for k in range(0, len(numbers), 3)]
        lines[i] = " ".join(" ".join(triple) for triple in triples if int(triple[2]) % 3 == i // 2)
    (folder / "sparse/images.txt").write_text("\n".join(lines) + "\n")
    pairs = partial(TrackPairs, partial(ColmapSource, folder / "sparse", folder / "images"), "model", check=False)
    with pytest.raises(TrainingError, match="model: no two images overlap enough"):
        pairs()


# posed images without points


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return model_folder(rgbd_folder(tmp_path_factory.mktemp("posed") / "recording"))


def test_triangulated_matches_lie_where_the_depth_says(recording):
    pairs = TriangulatedPairs(
        partial(ColmapPosesSource, recording / "sparse", recording / "images"), "posed", check=False
    )
    gallery, errors = scene(), []
    for index in range(5):
        pair = pairs.pair(0, index)
        first, second = (int(number) for number in re.findall(r"frame-(\d+)", pair.source))
        x, y = np.rint(pair.pixels_a).astype(int).T
        depth = gallery.render(CAMERA, POSES[first]).depth[y, x]
        expected = true_places(pair.pixels_a, depth, POSES[first], POSES[second])
        errors.append(np.linalg.norm(pair.pixels_b - expected, axis=1))
        assert pair.visible.all() and len(pair.visible) >= 40
    assert np.median(np.concatenate(errors)) < 0.3 and np.quantile(np.concatenate(errors), 0.9) < 1.0
    assert same(pickle.loads(pickle.dumps(pairs)).pair(0, 4), pairs.pair(0, 4))


def test_posed_images_that_show_different_things_are_refused(recording, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(recording, folder)
    rng = np.random.default_rng(0)
    for file in (folder / "images").iterdir():
        cv2.imwrite(str(file), cv2.resize(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), (240, 180)))
    with pytest.raises(TrainingError, match=r"posed: no two images overlap: of 8 images .* none has 40 points"):
        TriangulatedPairs(partial(ColmapPosesSource, folder / "sparse", folder / "images"), "posed", check=False)


def noise(folder, numbers) -> None:
    """Replaces images of a recording."""
    rng = np.random.default_rng(0)
    for number in numbers:
        image = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"images/frame-{number:06d}.png"), cv2.resize(image, (240, 180)))


def posed_pairs(folder) -> TriangulatedPairs:
    return TriangulatedPairs(partial(ColmapPosesSource, folder / "sparse", folder / "images"), "posed", check=False)


def test_a_recording_is_refused_when_it_is_opened_if_few_of_its_pairs_can_be_used(recording, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(recording, folder)
    noise(folder, (3, 4, 5, 6, 7))
    message = r"copy: only [1-9] of \d\d image pairs that were matched have 40 points .* needed 20% \(poses that drift"
    with pytest.raises(TrainingError, match=message):
        open_pair_source(f"posed:{folder}", PairOptions(check=False))


def test_a_recording_that_was_opened_has_a_pair_at_every_turn(recording, tmp_path, monkeypatch):
    folder = tmp_path / "copy"
    shutil.copytree(recording, folder)
    noise(folder, (1, 7))
    pairs = posed_pairs(folder)
    assert re.fullmatch(r"posed: \d+ of \d+ image pairs that were matched have 40 points .*", pairs.notes[-1])
    monkeypatch.setattr(track_pairs, "_MAX_TRIES", 0)  # as if none of the pairs that are drawn could be used
    training, held_out = pairs.split(4)
    assert held_out is not None
    for part in (pairs, training, held_out):
        for index in range(4):
            first, second = (int(number) for number in re.findall(r"frame-(\d+)", part.pair(0, index).source))
            assert (first, second) in part.image_pairs and not {first, second} & {1, 7}
        assert same(pickle.loads(pickle.dumps(part)).pair(0, 3), part.pair(0, 3))


def test_an_image_that_cannot_be_read_is_left_out_and_named(recording, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(recording, folder)
    (folder / "images/frame-000003.png").write_bytes(b"\x89PNG but no more")
    pairs = posed_pairs(folder)
    assert any("1 images cannot be read, the first: frame-000003.png" in note for note in pairs.notes)
    assert pairs.image_pairs and not any(3 in pair for pair in pairs.image_pairs)
    for index in range(8):
        assert "frame-000003" not in pairs.pair(0, index).source
    for file in (folder / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(TrainingError, match="posed: only 0 of 8 images can be used; 8 cannot be read, the first: "):
        posed_pairs(folder)


def test_an_image_that_breaks_after_the_opening_is_left_out_and_its_partners_stay(recording, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(recording, folder)
    pairs = posed_pairs(folder)
    (folder / "images/frame-000003.png").write_bytes(b"\x89PNG but no more")
    pairs = pickle.loads(pickle.dumps(pairs))  # as in another process, which has matched nothing
    pairs._reset_caches()
    found, anchors = {}, set()
    for index in range(20):
        pair = pairs.pair(0, index)
        assert "frame-000003" not in pair.source
        found |= pair.left_out
        anchors.add(pair.source.split()[1])
    assert list(found) == ["posed, frame-000003.png"] and "posed: image frame-000003.png: " in found[list(found)[0]]
    assert len(anchors) > 2
    shutil.rmtree(folder / "images")
    pairs._reset_caches()
    with pytest.raises(TrainingError, match="posed: none of 50 image pairs in a row can be read"):
        pairs.pair(0, 0)


# maps


@pytest.fixture(scope="module")
def map_file(recording):
    """A map with points on the surfaces that each image shows."""
    path, gallery, rng = recording / "sample.db", scene(), np.random.default_rng(0)
    with KeyframeStore.create(path, "place", "0" * 64) as store:
        for i, T in enumerate(POSES):
            depth = gallery.render(CAMERA, T).depth
            x, y = rng.integers(240, size=400), rng.integers(180, size=400)
            x, y = x[depth[y, x] > 0], y[depth[y, x] > 0]
            rays = np.c_[(x - CAMERA.cx) / CAMERA.fx, (y - CAMERA.cy) / CAMERA.fy, np.ones(len(x))]
            points = rays * depth[y, x][:, None] @ T[:3, :3].T + T[:3, 3]
            keyframe = random_keyframe(f"frame-{i:06d}.png", i, points=len(points), channels=4, dimensions=8)
            values = dict(T_map_cam=T, camera=CAMERA, points=points.astype(np.float32))
            store.add(type(keyframe)(**{**vars(keyframe), **values}))
    return path


def test_points_of_a_map_are_visible_where_the_other_image_has_their_depth(recording, map_file):
    pairs = MapPairs(partial(MapImagesSource, map_file, recording / "images"), "map", check=False)
    gallery, wrong, shown = scene(), 0, 0
    for index in range(8):
        pair = pairs.pair(0, index)
        first, second = (int(number) for number in re.findall(r"frame-(\d+)", pair.source))
        depths = [gallery.render(CAMERA, POSES[i]).depth for i in (first, second)]
        x, y = np.rint(pair.pixels_a).astype(int).T
        places, z = true_places(pair.pixels_a, depths[0][y, x], POSES[first], POSES[second], with_depth=True)
        np.testing.assert_allclose(pair.pixels_b[pair.visible], places[pair.visible], atol=0.1)
        column, row = np.rint(places[pair.visible]).astype(int).T
        true = np.abs(depths[1][row.clip(0, 179), column.clip(0, 239)] / z[pair.visible] - 1) < 0.04
        wrong, shown = wrong + int((~true).sum()), shown + len(true)
        assert not inside_image(pair.pixels_b[~pair.visible], 240, 180).any()
    assert shown > 500 and wrong < 0.02 * shown


def test_maps_whose_images_are_elsewhere_are_refused(map_file, tmp_path):
    opener = partial(MapImagesSource, map_file, tmp_path)
    with pytest.raises(
        TrainingError, match="map: only 0 of 8 images can be used; 8 cannot be read, the first: frame-0"
    ):
        MapPairs(opener, "map", check=False)
    with pytest.raises(TrainingError, match="map: .*: it names no images: give their folder or bag with --images"):
        MapPairs(partial(MapImagesSource, map_file), "map")
