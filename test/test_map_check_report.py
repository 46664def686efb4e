# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The report of a check of a map: what was found is on the page, in words, with pictures, and safe to open."""

import json
import math
import re
import shlex
from dataclasses import replace
from html import unescape

import cv2
import numpy as np
import pytest
from keyframe_samples import random_keyframe
from scipy.spatial.transform import Rotation

from nre_ros.cli import main
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.evidence import NUMBERS
from nre_ros.localization.map_noise import MapNoise
from nre_ros.localization.map_quality import Expected, MapQuality
from nre_ros.map_check.aliasing import AliasedView
from nre_ros.map_check.check import CheckResult
from nre_ros.map_check.leave_one_out import LeftOutResult
from nre_ros.map_check.report.areas import DIRECTIONS, STEEP, area_grid, area_rows, direction_name, direction_rows
from nre_ros.map_check.report.outcomes import expected_errors, keyframe_views
from nre_ros.map_check.report.weak_spots import Weakness, advice, find_weak_spots
from nre_ros.map_check.report.write import verdict, write_report
from nre_ros.map_check.suspicious import SuspiciousKeyframe
from nre_ros.map_check.view_result import ViewResult

EVIL = '-<script>alert("x")</script> & $a_b^{c}$\'\\.jpg'
NAMES = {i: f"image{i}.jpg" for i in range(1, 9)} | {7: EVIL}
PLANE = np.eye(3)[:2]


def pose(x, y, degrees):
    """T_map_cam of a level camera at (x, y) that looks along an angle in the plan, counter-clockwise from +x."""
    T = np.eye(4)
    turn = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    T[:3, :3] = turn @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    T[:3, 3] = x, y, 1.0
    return T


POSES = {i: pose(float(i), 0.5 * (i % 2), 45.0 * (i - 1)) for i in NAMES}


def left_out(i, error=0.01, confidence=0.9, gap=0.1, posed=True, span=0, alternative=0.0, reason="", distance=4.0):
    """The result of a view whose pose is off by ``error`` metres along x."""
    view = ViewResult(NAMES[i], i, POSES[i], (1, 2), reason, distance=distance, inliers=123, gap=gap)
    if posed:
        estimated = POSES[i].copy()
        estimated[0, 3] += error
        evidence = np.zeros(len(NUMBERS))
        evidence[NUMBERS.index("alternative_score")] = alternative
        view = replace(view, estimated=estimated, confidence=confidence, evidence=evidence)
    return LeftOutResult(view, span, 0)


VIEWS = [
    left_out(1, 0.01),
    left_out(2, 0.03),
    left_out(3, posed=False, gap=math.pi, reason="too few inliers"),
    left_out(4, 0.02, confidence=0.2, gap=math.radians(40)),
    left_out(5, 6.0, confidence=0.8),
    left_out(6, 0.02, confidence=0.1),
    left_out(7, 1.5),
]
SUSPICIOUS = [SuspiciousKeyframe(EVIL, 7, "its pose is off by <1.50> m", 1.5, 0.1, 0.93, POSES[1])]


def check_result(path, **changes):
    values = {
        "path": path,
        "frame_id": "map",
        "names": NAMES,
        "poses": POSES,
        "views": VIEWS,
        "skipped": [],
        "noise": MapNoise(0.002, 0.001),
        "expected": Expected(0.75, 0.7, 0.0123, 0.002),
        "suspicious": SUSPICIOUS,
        "aliased": [AliasedView(NAMES[2], 2, POSES[6], NAMES[6], 3.25, 0.8)],
        "min_confidence": 0.5,
    }
    return CheckResult(**{**values, **changes})


@pytest.fixture(scope="module")
def map_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "a map.db"
    with KeyframeStore.create(path, "place", "0" * 64) as store:
        for i, name in NAMES.items():
            jpeg = cv2.imencode(".jpg", np.full((12, 16, 3), 20 * i, np.uint8))[1].tobytes()
            broken = {8: b"<svg onload=alert(1)>", 4: b""}
            sizes = {"points": 20, "channels": 4, "background": 4, "dimensions": 10}
            store.add(random_keyframe(name, i, T_map_cam=POSES[i], thumbnail=broken.get(i, jpeg), **sizes))
    return path


@pytest.fixture(scope="module")
def page(map_file):
    path = map_file.with_name("check.html")
    write_report(path, check_result(map_file, skipped=["lost.jpg: no such <file>"]))
    return path.read_text()


def text_of(page):
    """The text of a page without its pictures and markup."""
    return unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL)))


def section(page, heading):
    return page.split(f"<h2>{heading}</h2>")[1].split("<h2>")[0]


def test_the_page_is_one_file_without_scripts_and_requests(page):
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", page)
    assert "<script" not in page and "@import" not in page and "url(http" not in page and "onload" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) and page.count("<svg") == 2


def test_names_are_escaped_everywhere(page):
    assert EVIL not in page and EVIL in unescape(page)
    assert "<1.50>" not in page and "<file>" not in page


def test_the_verdict_and_the_summary_come_first(page, map_file):
    first = text_of(page.split("<h2>")[0])
    assert "1 of 8 keyframes does not fit the rest of the map" in first
    for label, value in check_result(map_file).summary():
        if value is not None:
            assert label.strip() in first and str(value) in first


@pytest.mark.parametrize(
    "right, words",
    [(20, "The map is good"), (17, "The map is usable, with gaps"), (3, "The map is weak")],
)
def test_the_verdict_follows_the_recall(right, words):
    views = [LeftOutResult(replace(VIEWS[0 if i < right else 2].view, keyframe=i), 0, 0) for i in range(20)]
    result = check_result("m.db", views=views, suspicious=[])
    assert verdict(result, keyframe_views(result)).startswith(words)


def test_weak_spots_have_a_reason_in_words_and_a_picture(page):
    weak = section(page, "Weak spots")
    text = text_of(weak)
    assert weak.count('class="entry"') == 4 and weak.count("data:image/jpeg;base64,") >= 3
    assert "No other keyframe looks at this part of the scene." in text and "too few inliers" in text
    assert "The nearest other view is 40° away." in text
    assert "The pose is wrong by 6.00 m" in text and "another place looks alike" in text
    assert "matches it weakly" in text and "its confidence is 0.10 and 0.5 is needed" in text
    assert EVIL not in text  # the suspicious keyframe has its own section


def test_places_that_look_alike_are_shown_as_a_pair(page):
    alike = section(page, "Places that look alike")
    assert "image2.jpg and image6.jpg" in alike and alike.count("data:image/jpeg;base64,") == 2
    assert "3.25 m away explains the image 80% as well" in text_of(alike)


def test_the_page_ends_with_advice(page):
    advised = section(page, "What to record next")
    assert advised.count("<li>") == 5 and "Record images near image3.jpg" in advised


def test_suspicious_keyframes_have_evidence_and_a_command_that_removes_them(page, map_file, tmp_path):
    suspicious = section(page, "Suspicious keyframes")
    text = text_of(suspicious)
    assert "localized 1.50 m and 5.7° from the pose that the map has for it, with confidence 0.93" in text
    assert "nearest to the pose that its image shows" in text and "data:image/jpeg;base64," in suspicious
    command = shlex.split(unescape(re.search(r"<pre>(.*?)</pre>", suspicious)[1]))
    assert command[:3] == ["nre_ros", "map", "prune"] and command[3] == str(map_file)
    output = tmp_path / "pruned.db"
    assert main([*command[1:], "-o", str(output)]) == 0
    with KeyframeStore.open(output) as store:
        assert set(store.names()) == set(NAMES.values()) - {EVIL}


def test_advice_begins_with_suspicious_keyframes_then_the_most_weak_views():
    lonely = [
        LeftOutResult(replace(VIEWS[2].view, keyframe=i, name=f"lonely{i}", T_map_cam=pose(20 + 0.1 * i, 0, 90)), 0, 0)
        for i in range(30, 33)
    ]
    result = check_result("m.db", views=[*VIEWS, *lonely])
    views = keyframe_views(result)
    grid = area_grid(np.array([view.position for view in views]), PLANE, 4.0)
    items = advice(result, find_weak_spots(result, views, grid), len(views))
    assert "Remove or repair the suspicious keyframe" in items[0]
    assert "near lonely" in items[1] and "looking ↑ up" in items[1] and "3 views there have no neighbour" in items[1]
    assert "Up to 33.3% of the views would gain." in items[1]  # 3 of 9
    assert len(items) == 6 and "has no other view within 40°" in " ".join(items)


@pytest.mark.parametrize("count, views", [(0, False), (1, True), (8, False)])
def test_a_report_is_written_whatever_was_found(tmp_path, map_file, count, views):
    names, poses = ({i: values[i] for i in list(NAMES)[:count]} for values in (NAMES, POSES))
    chosen = [each for each in VIEWS if each.view.keyframe in names] if views else []
    result = check_result(
        map_file, names=names, poses=poses, views=chosen, suspicious=[], aliased=[], expected=None, noise=MapNoise()
    )
    write_report(tmp_path / "c.html", result)
    text = text_of((tmp_path / "c.html").read_text())
    assert "all keyframes fit each other" in text and "no view is explained by another place" in text
    if not chosen:
        assert "too few views to say how good the map is" in text and "No keyframe was localized." in text


def test_the_report_of_a_map_that_needs_nothing_advises_nothing(tmp_path, map_file):
    write_report(tmp_path / "c.html", check_result(map_file, views=VIEWS[:2], suspicious=[], aliased=[]))
    text = text_of((tmp_path / "c.html").read_text())
    assert "The map is good" in text and "Nothing: every localized keyframe is found" in text


# --- areas, directions, outcomes ----------------------------------------------------------------------------


def test_each_view_counts_once_and_suspicious_keyframes_do_not_count():
    views = keyframe_views(check_result("m.db", views=[left_out(1, posed=False, span=4), *VIEWS]))
    assert [view.result.view.keyframe for view in views] == [1, 2, 3, 4, 5, 6]
    assert views[0].result.span == 0


def test_areas_have_the_names_of_a_chess_board():
    grid = area_grid(np.array([[0.2, 0.1, 5.0], [9.8, 4.9, 1.0]]), PLANE, 4.0)
    assert (grid.side, grid.columns, grid.rows) == (1.0, 10, 5)
    assert grid.name(np.array([0.5, 0.5, 0.0])) == "A1" and grid.name(np.array([9.9, 3.5, 7.0])) == "J4"
    large = area_grid(np.array([[0.0, 0, 0], [900.0, 10, 0]]), PLANE, 2.0)
    assert large.side == 100.0 and large.columns == 10  # a large map has larger areas


@pytest.mark.parametrize("k", range(8))
def test_eight_viewing_directions(k):
    assert direction_name(pose(0, 0, 45 * k + 20)[:3, 2], PLANE) == DIRECTIONS[k]
    assert direction_name(np.array([0.1, 0.1, -0.99]), PLANE) == STEEP


def test_the_tables_have_recall_and_median_error_of_their_views():
    result = check_result("m.db")
    views = keyframe_views(result)
    grid = area_grid(np.array([T[:3, 3] for T in POSES.values()]), PLANE, 40.0)
    assert area_rows(views, grid) == [["A1", "6", "33%", "1", "2 cm, 0°"]]
    rows = {row[0]: row[1:] for row in direction_rows(views, PLANE)}
    assert rows["→ right"] == ["1", "100%", "0", "1 cm, 0°"] and rows["↑ up"] == ["1", "0%", "0", "-"]


def test_the_expected_error_is_the_median_of_the_nearest_right_views():
    result = check_result("m.db", poses={1: POSES[1], 9: pose(1.1, 0.5, 20.0)})
    # of the right views 1 and 2, view 1 alone is near keyframe 1; both are near the camera between them
    assert np.allclose(expected_errors(result, keyframe_views(result)), [0.01, 0.02])
    assert np.isnan(expected_errors(check_result("m.db", views=[]), [])).all()


def test_views_of_one_place_and_reason_are_one_weak_spot():
    near = [left_out(3, posed=False, gap=math.pi), left_out(6, 0.02, confidence=0.1)]
    beside = replace(near[0], view=replace(near[0].view, keyframe=30, T_map_cam=pose(3.2, 0.5, 100.0)))
    alike = left_out(8, 0.02, confidence=0.1, alternative=0.9)
    result = check_result("m.db", views=[*near, beside, alike], suspicious=[])
    spots = find_weak_spots(result, keyframe_views(result), area_grid(np.zeros((1, 3)), PLANE, 4.0))
    found = [(spot.weakness, len(spot.views)) for spot in spots]
    assert found[0] == (Weakness.NO_NEIGHBOUR, 2)
    assert sorted(weakness.name for weakness, _ in found[1:]) == ["FEW_INLIERS", "LOOKS_ALIKE"]


# --- the commands around the report -----------------------------------------------------------------------


def test_keyframes_are_pruned_by_name(map_file, tmp_path, capsys):
    command = ["map", "prune", str(map_file), "-o", str(tmp_path / "new.db")]
    assert main([*command, "--remove", "image1.jpg", "--remove=image3.jpg", "--dry-run"]) == 0
    assert "would remove  2 of 8 keyframes" in capsys.readouterr().out
    assert main([*command, "--remove", "nothing.jpg"]) == 2
    assert "no keyframe 'nothing.jpg' (1 of 1 names are unknown)" in capsys.readouterr().err


def test_info_has_the_stored_quality_and_whether_the_map_has_changed_since(map_file, tmp_path, capsys):
    path = tmp_path / "map.db"
    with KeyframeStore.open(map_file) as store:
        store.save_copy(path)
    assert main(["map", "info", str(path)]) == 0 and "not known: run `nre_ros map check`" in capsys.readouterr().out
    with KeyframeStore.open(path, readonly=False) as store:
        ids = np.array(sorted(store.names().values()))
        noise = MapNoise(0.02 / 3**0.5, 0.0, ids=ids, factors=np.ones(len(ids)))
        position = store.changes().position
        store.set_quality(
            MapQuality(9, 8, position, noise, expected=Expected(0.75, 0.7, 0.0123, 0.002), suspicious=(EVIL,)).to_json()
        )
    main(["map", "info", str(path)])
    out = capsys.readouterr().out
    assert "a pose in 75%; median error 1.2 cm, 0.11 degrees" in out and "2 cm and 0 degrees" in out
    assert (
        re.search(r"suspicious keyframes +1\n", out) and "9 views of 8 keyframes" in out and "changed since" not in out
    )
    with KeyframeStore.open(path, readonly=False) as store:
        store.remove(store.names()[EVIL])
    main(["map", "info", str(path)])
    assert re.search(r"changed since +1 keyframe: run", capsys.readouterr().out)
    main(["map", "info", str(path), "--json"])
    quality = json.loads(capsys.readouterr().out)["quality"]
    assert quality["changed_keyframes"] == 1 and quality["suspicious"] == [EVIL]
    assert quality["expected"]["recall"] == 0.75
