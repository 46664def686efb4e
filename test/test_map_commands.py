# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Prune, export, view: other programs read what is written, and only what was asked for goes."""

import base64
import json

import cv2
import numpy as np
import pytest
from keyframe_samples import CAMERA, random_keyframe, unit
from scipy.spatial.transform import Rotation

from nre_ros.cli import main
from nre_ros.errors import MapError
from nre_ros.geometry import Camera
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
from nre_ros.keyframes.importers.text_trajectory import parse_tum_pose
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.tools.export import export_colmap, export_ply, export_tum
from nre_ros.keyframes.tools.prune import select_in_box, select_named, select_near_duplicates, select_surplus

FISHEYE = Camera(320, 240, 150.0, 151.0, 160.0, 121.0, "equidistant", (0.02, -0.01, 0.003, 0.0))
JPEG = cv2.imencode(".jpg", np.full((12, 16, 3), 90, np.uint8))[1].tobytes()


def looking_along_z(name, position, degrees=0.0, camera=CAMERA, scale=1.0, **changes):
    """A keyframe that sees a wall at z = 4 * scale: the same 900 points for all, those in its image."""
    x, y = np.meshgrid(np.linspace(-3, 3, 30), np.linspace(-2.5, 2.5, 30))
    wall = np.stack([x, y, np.full_like(x, 4.0)], -1).reshape(-1, 3) * scale
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    T[:3, 3] = np.array(position) * scale
    ids = np.flatnonzero(in_image(wall, T, camera)[1])
    rng = np.random.default_rng(len(ids))
    values = dict(
        points=len(ids),
        background=4,
        channels=4,
        dimensions=10,
        T_map_cam=T,
        camera=camera,
        thumbnail=JPEG,
        stamp=0,
    )
    keyframe = random_keyframe(name, 0, **values)
    return type(keyframe)(
        **{
            **vars(keyframe),
            "points": wall[ids].astype(np.float32),
            "point_ids": ids,
            "coarse": unit(rng.normal(size=(len(ids), 4))),
            **changes,
        }
    )


def in_image(points, T_map_cam, camera):
    """OpenCV's pixels [N, 2] of points of the map, and whether they are in the image."""
    rotation, _ = cv2.Rodrigues(T_map_cam[:3, :3].T)
    translation = -T_map_cam[:3, :3].T @ T_map_cam[:3, 3]
    project = cv2.fisheye.projectPoints if camera.model == "equidistant" else cv2.projectPoints
    pixels = project(np.float64(points)[:, None], rotation, translation, camera.K, np.array(camera.distortion))[0]
    pixels = pixels.reshape(-1, 2)
    return pixels, (pixels > -0.5).all(1) & (pixels < np.array([camera.width, camera.height]) - 0.5).all(1)


def write_map(path, keyframes):
    with KeyframeStore.create(path, "place", "0" * 64) as store:
        for keyframe in keyframes:
            store.add(keyframe)
    return path


@pytest.fixture
def path(tmp_path):
    """A video that stands still, moves on by two metres, and turns; a fisheye beside it."""
    return write_map(
        tmp_path / "map.db",
        [
            looking_along_z("a0", (0, 0, 0)),
            looking_along_z("a1", (0.02, 0, 0)),
            looking_along_z("a2", (0, 0.02, 0), 1),
            looking_along_z("b 0", (2.0, 0, 0)),
            looking_along_z("b1", (2.0, 0.02, 0)),
            looking_along_z("c0", (0, 0, 0), 35),
            looking_along_z("fish/0", (0, 0, 0.5), camera=FISHEYE),
        ],
    )


@pytest.mark.parametrize("scale", [1.0, 0.01, 300.0])
def test_near_duplicates_need_no_metric_scale(tmp_path, scale):
    poses = [((0, 0, 0), 0), ((0.02, 0, 0), 0), ((2, 0, 0), 0), ((2, 0.02, 0), 1), ((0, 0, 0), 35)]
    path = write_map(
        tmp_path / "m.db", [looking_along_z(f"{i}", p, degrees, scale=scale) for i, (p, degrees) in enumerate(poses)]
    )
    with KeyframeStore.open(path) as store:
        assert select_near_duplicates(store, 0.9, progress=False) == [2, 4]
        assert select_near_duplicates(store, 1.0, progress=False) == [2]  # sees the very same points of the wall
        with pytest.raises(MapError, match="overlap 1.5"):
            select_near_duplicates(store, 1.5, progress=False)


def test_choices_of_keyframes(path):
    with KeyframeStore.open(path) as store:
        names = {i: name for name, i in store.names().items()}
        kept = set(names) - set(select_surplus(store, 3))
        assert {names[i] for i in kept} == {"a0", "b1", "c0"} or {names[i] for i in kept} == {"a0", "b 0", "c0"}
        assert select_surplus(store, 7) == select_surplus(store, 100) == []
        assert select_in_box(store, [[1, -1, -1], [3, 1, 1]]) == [4, 5]
        assert select_in_box(store, [[1, -1, -1], [3, 1, 1]], outside=True) == [1, 2, 3, 6, 7]
        assert select_named(store, ["c0", "a1"]) == [2, 6]
        for call in (
            lambda: select_named(store, ["c0", "zz"]),
            lambda: select_surplus(store, 0),
            lambda: select_in_box(store, np.ones(6) * np.nan),
        ):
            with pytest.raises(MapError):
                call()


def test_prune_from_the_command_line(path, tmp_path, capsys):
    before = path.read_bytes()
    assert main(["map", "prune", str(path), "--overlap", "0.9", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "would remove  3 of 7 keyframes" in out and "a1, a2, b1" in out and path.read_bytes() == before
    assert main(["map", "prune", str(path), "--count", "3", "-o", str(tmp_path / "new.db")]) == 0
    assert path.read_bytes() == before
    with KeyframeStore.open(tmp_path / "new.db") as store:
        assert len(store.names()) == 3
    (tmp_path / "list.txt").write_text("a1\nb 0\n")
    assert main(["map", "prune", str(path), "--list", str(tmp_path / "list.txt")]) == 0
    assert main(["map", "prune", str(path), "--box", *"-9 -9 -9 9 9 9".split()]) == 2
    assert "all 5 keyframes" in capsys.readouterr().err
    with KeyframeStore.open(path) as store:
        assert list(store.names()) == ["a0", "a2", "b1", "c0", "fish/0"]
        assert store.get(7).camera == FISHEYE
    assert main(["map", "verify", str(path)]) == 0 and path.stat().st_size < len(before)


def test_colmap_reads_the_model(path, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    with KeyframeStore.open(path) as store:
        report = export_colmap(store, tmp_path / "model", progress=False)
        keyframes = {"_".join(name.split()): store.get(i) for name, i in store.names().items()}
        with pytest.raises(MapError, match="exists already"):
            export_colmap(store, tmp_path / "model", progress=False)
    model = pycolmap.Reconstruction(str(tmp_path / "model"))
    assert (report.keyframes, report.renamed, report.outside_image) == (7, 1, 0)
    assert len(model.images) == 7 and len(model.points3D) == report.points
    assert report.points == len({int(i) for k in keyframes.values() for i in k.point_ids})  # shared points are one
    for image in model.images.values():
        keyframe = keyframes[image.name]
        pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
        np.testing.assert_allclose(pose.inverse().matrix(), keyframe.T_map_cam[:3], atol=1e-12)
        seen = [p for p in image.points2D if p.has_point3D()]
        assert len(seen) == len(keyframe.points)
        points = np.array([model.points3D[p.point3D_id].xyz for p in seen])
        np.testing.assert_array_equal(points.astype(np.float32), keyframe.points)
        xy = np.array([p.xy for p in seen])
        np.testing.assert_allclose(xy - 0.5, in_image(points, keyframe.T_map_cam, keyframe.camera)[0], atol=1e-5)
        # COLMAP's own projection, with the exported camera
        projected = np.array([image.project_point(point) for point in points])
        np.testing.assert_allclose(projected, xy, atol=1e-4)
        assert all(any(e.image_id == image.image_id for e in model.points3D[p.point3D_id].track.elements) for p in seen)


def test_our_importer_reads_the_model(path, tmp_path):
    pytest.importorskip("pycolmap")
    with KeyframeStore.open(path) as store:
        export_colmap(store, tmp_path / "model", progress=False)
    source = ColmapSource(tmp_path / "model", tmp_path)
    assert source.names() == ["a0", "a1", "a2", "b1", "b_0", "c0", "fish/0"]


def test_points_that_moved_apart_are_no_longer_one(path, tmp_path):
    with KeyframeStore.open(path, readonly=False) as store:
        before = export_ply(store, tmp_path / "a.ply", progress=False).points
        T = store.get(2).T_map_cam.copy()
        T[0, 3] += 0.5
        count = len(store.get(2).points)
        store.update_pose(2, T)
        assert export_ply(store, tmp_path / "b.ply", progress=False).points == before + count


def test_the_trajectory_and_the_points(path, tmp_path):
    with KeyframeStore.open(path) as store:
        export_tum(store, tmp_path / "t.txt", tmp_path / "names.txt")
        export_ply(store, tmp_path / "p.ply", progress=False)
        keyframes = [store.get(i) for i in store.names().values()]
    lines = [line for line in (tmp_path / "t.txt").read_text().splitlines() if not line.startswith("#")]
    assert [float(line.split()[0]) for line in lines] == list(range(7))  # the map has no stamps
    assert (tmp_path / "names.txt").read_text().splitlines() == [k.name for k in keyframes]
    for line, keyframe in zip(lines, keyframes):
        np.testing.assert_allclose(parse_tum_pose(line)[1], keyframe.T_map_cam, atol=1e-12)
    header, _, body = (tmp_path / "p.ply").read_bytes().partition(b"end_header\n")
    points = np.frombuffer(body, "<f4").reshape(-1, 3)
    assert f"element vertex {len(points):012d}" in header.decode()
    expected = np.unique(np.concatenate([k.points for k in keyframes]), axis=0)
    np.testing.assert_array_equal(np.unique(points, axis=0), expected)
    assert len(points) == len(expected)


def test_stamps_are_kept_to_the_nanosecond_and_in_order(tmp_path):
    stamps = {"late": 1_700_000_002_000_000_007, "early": 1_700_000_001_123_456_789}
    path = write_map(tmp_path / "m.db", [looking_along_z(n, (0, 0, 0), stamp=s) for n, s in stamps.items()])
    with KeyframeStore.open(path) as store:
        export_tum(store, tmp_path / "t.txt", tmp_path / "names.txt")
    lines = (tmp_path / "t.txt").read_text().splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["1700000001.123456789", "1700000002.000000007"]
    assert (tmp_path / "names.txt").read_text().split() == ["early", "late"]


def test_export_from_the_command_line(path, tmp_path, capsys):
    words = ["map", "export", str(path), "--tum", str(tmp_path / "t.txt"), "--ply", str(tmp_path / "p.ply")]
    assert main([*words, "--colmap", str(tmp_path / "model")]) == 0
    assert "7 images" in capsys.readouterr().out and (tmp_path / "model/points3D.txt").exists()
    assert main(["map", "export", str(path), "--ply", str(tmp_path / "no/p.ply")]) == 2
    for wrong in ([], ["--list", "x"]):
        with pytest.raises(SystemExit):
            main(["map", "export", str(path), *wrong])


def test_the_view_holds_keyframes_points_and_pictures(path, tmp_path):
    pytest.importorskip("plotly")
    pytest.importorskip("matplotlib")
    page = tmp_path / "view.html"
    assert main(["map", "view", str(path), "-o", str(page)]) == 0
    text = page.read_text()
    assert "7 keyframes" in text and base64.b64encode(JPEG).decode() in text and "b 0" in text
    assert "<script src=" not in text and "<link" not in text.split("<body")[0]
    assert cv2.imread(str(tmp_path / "view.png")).std() > 5
    assert main(["map", "view", str(path), "-o", str(tmp_path / "no/view.html")]) == 2


def test_the_view_of_a_large_map_is_a_sample_and_its_title_states_the_share(path, tmp_path, monkeypatch):
    pytest.importorskip("plotly")
    from nre_ros.pictures import map_view

    monkeypatch.setattr(map_view, "_MAX_MAP_PAGE_CAMERAS", 4)
    monkeypatch.setattr(map_view, "_MAX_MAP_PAGE_POINTS", 500)
    monkeypatch.setattr(map_view, "_MAX_THUMBNAIL_BYTES", 4 * len(JPEG))
    with KeyframeStore.open(path) as store:
        sample = map_view.sample_map(store)
        assert len(sample.ids) == 4 and 300 < len(sample.points) < 700
        assert sample.title.startswith("4 of 7 keyframes") and f"of {sample.point_count} points" in sample.title
        map_view.write_map_html(tmp_path / "view.html", store, sample)
    assert "1 pictures" in (tmp_path / "view.html").read_text()


def test_an_empty_map_is_looked_at_and_exported(tmp_path, capsys):
    path = write_map(tmp_path / "m.db", [])
    for words in (
        ["info", path],
        ["verify", path],
        ["view", path, "-o", tmp_path / "v.html"],
        ["export", path, "--tum", tmp_path / "t.txt", "--ply", tmp_path / "p.ply"],
        ["prune", path, "--overlap", "0.9"],
    ):
        assert main(["map", *map(str, words)]) == 0


def test_info_reports_sizes(path, capsys):
    assert main(["map", "info", str(path), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["thumbnail_bytes"] == info["table_bytes"]["thumbnails"] == 7 * len(JPEG)
    assert info["table_bytes"]["points"] > 0 and info["bytes_per_keyframe"] > 0
    with KeyframeStore.open(path, readonly=False) as store:
        store.write_index(bytes(100_000))
    main(["map", "info", str(path), "--json"])
    grown = json.loads(capsys.readouterr().out)
    assert grown["table_bytes"]["retrieval_index"] == 100_000
    assert abs(grown["bytes_per_keyframe"] - info["bytes_per_keyframe"]) < 2000
