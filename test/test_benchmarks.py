# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The runner of the benchmarks: it keeps what was measured, and reports where maps come from."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nre_ros.keyframes.importers.text_files import read_list
from nre_ros.nre import EstimatorConfig
from nre_ros.pose_faults import pose_fault

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def runner(monkeypatch):
    """benchmarks/run.py with the benchmarks ``good``, which has a table, ``absent`` and ``broken``."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    run, common = (importlib.import_module(name) for name in ("run", "common"))

    def ending(error):
        def measure(options):
            yield common.Table("counted", ("what", "how many"), [("sheep", 7)])
            if error:
                raise error

        return SimpleNamespace(run=measure)

    modules = {"good": ending(None), "absent": ending(common.Skip("needs data")), "broken": ending(KeyError("lost"))}
    monkeypatch.setattr(run, "BENCHMARKS", dict.fromkeys(modules, "what it measures"))
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return run


def test_what_was_measured_before_an_error_is_kept(runner, tmp_path):
    with pytest.raises(KeyError):
        runner.main(["good", "broken", "--json", str(tmp_path / "a.json"), "--write-docs", str(tmp_path / "a.md")])
    found = json.loads((tmp_path / "a.json").read_text())["benchmarks"]
    assert found["good"]["tables"][0]["rows"] == found["broken"]["tables"][0]["rows"] == [["sheep", 7]]
    page = (tmp_path / "a.md").read_text()
    assert page.count("| sheep | 7 ") == 2 and "Broken off: 'lost'" in page


def test_a_page_is_not_replaced_when_a_benchmark_was_skipped(runner, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("as it was")
    assert runner.main(["good", "absent", "--json", str(tmp_path / "a.json"), "--write-docs", str(page)]) == 0
    assert page.read_text() == "as it was" and "benchmarks were skipped: absent (needs data)" in capsys.readouterr().err
    assert json.loads((tmp_path / "a.json").read_text())["benchmarks"]["absent"]["skipped"] == "needs data"
    assert runner.main(["good", "--write-docs", str(page)]) == 0 and "sheep" in page.read_text()


def test_maps_of_another_commit_or_seed_cause_a_warning(runner, tmp_path, capsys):
    def header(*more):
        assert runner.main(["good", "--work", str(tmp_path / "work"), *more]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("work folder: "))

    assert "WARNING" not in header() and "WARNING" not in header()
    assert "WARNING" in header("--seed", "1") and "seed 0" in header("--seed", "1")
    (tmp_path / "work/made_by.json").write_text('{"commit of nre_ros": "0000000", "seed": 0}')
    assert "WARNING: the maps in it are from commit of nre_ros 0000000" in header()
    (tmp_path / "work/made_by.json").unlink()
    (tmp_path / "work/kitchen_1.db").touch()
    assert "WARNING: the maps in it are from an unknown state" in header()


def test_sets_with_data_are_measured_when_another_has_none(runner, tmp_path, monkeypatch):
    accuracy, common = (importlib.import_module(name) for name in ("accuracy", "common"))
    table = common.Table("measured", ("what",))

    def measure(options, title, make, methods, goal):
        if title == "fountain":
            raise common.Skip("needs data/fountain")
        return table

    monkeypatch.setattr(accuracy, "_table", measure)
    tables = accuracy.run(common.Options(tmp_path, tmp_path, sets=("fountain", "kitchen")))
    assert next(tables) is table
    with pytest.raises(common.Skip, match="fountain needs data/fountain"):
        next(tables)


def test_every_benchmark_can_be_imported_and_run(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    run = importlib.import_module("run")
    assert all(callable(importlib.import_module(name).run) for name in run.BENCHMARKS)
    assert set(run._RENAMED.values()) <= set(run.BENCHMARKS)


def test_an_old_name_of_a_benchmark_runs_it_with_a_note(runner, monkeypatch, capsys):
    monkeypatch.setattr(runner, "_RENAMED", {"well": "good"})
    assert runner.main(["well"]) == 0
    printed = capsys.readouterr()
    assert "counted" in printed.out and "benchmark well: renamed, use good" in printed.err


def test_errors_of_queries_without_a_pose_are_infinite(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    ablation = importlib.import_module("training_ablation")
    errors = ablation.Errors.of([0.01, 0.2, np.nan, 0.03, 0.04], [1.0, 1.0, np.nan, 9.0, 1.0])
    assert errors == ablation.Errors(pytest.approx(4.0), 40.0, 60.0)
    assert ablation._mean([1.0, 1.5]) == "1.25 +- 0.25" and ablation._mean([2.0]) == "2.00"
    assert ablation._mean([1.0, np.inf]) == "no pose"


@pytest.mark.parametrize("name", ["fountain", "gallery"])
def test_queries_of_posed_images_come_with_their_poses_and_cameras(name, monkeypatch, shared, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    common, scenes = (importlib.import_module(module) for module in ("common", "scenes"))
    (tmp_path / f"{name}.db").touch()  # no map is needed
    scene = getattr(scenes, name)(common.Options(shared, tmp_path))
    query = next(scene.queries())
    assert query.image.shape[:2] == (query.camera.height, query.camera.width)
    assert pose_fault("pose", query.T_map_cam) == ""


def test_keypoints_of_baselines_get_points_of_the_kitchens_depth(monkeypatch, shared, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    common, scenes = (importlib.import_module(module) for module in ("common", "scenes"))
    (tmp_path / "kitchen_21.db").touch()  # no map is needed
    scene = scenes.kitchen(common.Options(shared, tmp_path), every=21)
    name = read_list(shared / "data/kitchen/map.txt")[0]
    pixels = np.array([[320.0, 240.0], [200.0, 300.0]])
    points, known = scene.lifter(None)(name, SimpleNamespace(pixels=pixels))
    assert points.shape == (2, 3) and known.any() and np.isfinite(points[known]).all()


def test_designs_of_the_ablation_differ_from_the_default_in_one_thing(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    ablation = importlib.import_module("training_ablation")
    for default, *others in (ablation.FINE, ablation.COARSE):
        for design in others:
            changed = [key for key, value in vars(design).items() if value != vars(default)[key]]
            assert len(set(changed) - {"name", "label"}) == 1, design
    names = [design.name for design in (*ablation.FINE, *ablation.COARSE)]
    assert len(set(names)) == len(names)


def test_designs_of_the_estimator_change_settings_that_exist(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    ablation = importlib.import_module("ablation")
    designs = (*ablation.FINE, *ablation.HYPOTHESES)
    assert len({design.label for design in designs}) == len(designs)
    for design in designs:
        assert replace(EstimatorConfig(), **design.config) == EstimatorConfig(**design.config)
        assert all(hasattr(ablation.consensus, name) for name in design.patches)
    assert [design.second_search for design in ablation.OTHER_PLACES] == [True, False]


def test_figures_of_a_head_are_read_back_and_damaged_ones_are_measured_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    ablation = importlib.import_module("training_ablation")
    errors = ablation.Errors(1.5, 90.0, 100.0)
    for kitchen in (errors, None):
        measured = ablation.Measured("hash", 7, {"rooms": {"nre": 2.5}}, errors, kitchen)
        (tmp_path / "measured.json").write_text(json.dumps(measured, default=vars))
        assert ablation._read(tmp_path / "measured.json") == measured
    (tmp_path / "measured.json").write_text('{"settings": "hash", "rooms": {"median": 1}}')
    assert ablation._read(tmp_path / "measured.json") is None and ablation._read(tmp_path / "absent.json") is None


def test_backbones_extract_the_same_image_in_turns(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    extraction = importlib.import_module("extraction")
    asked = []
    backbones = [SimpleNamespace(extract=lambda image, k=k: asked.append((k, image))) for k in range(2)]
    seconds = extraction.measure(backbones, ["a", "b"], 2)
    assert seconds.shape == (4, 2) and (seconds >= 0).all()
    turns = [asked[k : k + 2] for k in range(2, len(asked), 2)]
    assert [{image for _, image in turn} for turn in turns] == [{"a"}, {"b"}, {"a"}, {"b"}]
    assert [turn[0][0] for turn in turns] == [1, 0, 1, 0]


def test_an_unknown_set_is_an_error(runner, tmp_path):
    common = importlib.import_module("common")
    options = common.Options(tmp_path, tmp_path, sets=("kitchen", "garden"))
    with pytest.raises(common.UsageError, match="set 'garden': unknown .known: kitchen, hall."):
        options.selected_sets({"kitchen": 1, "hall": 2})
