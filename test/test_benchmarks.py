# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The runner of the benchmarks: it keeps what was measured, and reports where maps come from."""

import importlib
import json
import subprocess
import sys
import time
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


# --- speed ----------------------------------------------------------------------------------------------


class _Stub:
    """Stands for ``turns.Method``: notes whose turn it was, and answers in a given time."""

    def __init__(self, name, asked, sparse=False):
        self.name, self.sparse, self._asked = name, sparse, asked

    def ask(self, queries, numbers, keep=True):
        self._asked.append((self.name, list(numbers)))
        return [{"seconds": 0.1} for _ in numbers]


def test_methods_take_turns_block_by_block(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    turns = importlib.import_module("turns")
    asked = []
    methods = [_Stub("ours", asked), _Stub("slow", asked, sparse=True)]
    turns.take_turns(methods, [None] * (turns.BLOCK + 2), rounds=2)
    first, last = list(range(turns.BLOCK)), [turns.BLOCK, turns.BLOCK + 1]
    ours, slow = ([numbers for name, numbers in asked if name == method] for method in ("ours", "slow"))
    assert ours == [first, last] * 2 and slow == [[0], [turns.BLOCK]] * 2
    assert [name for name, _ in asked[::2]] == ["ours", "slow"] * 2  # who begins a block changes


def test_ratios_are_of_the_queries_that_both_have_localized(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    turns = importlib.import_module("turns")

    def method(asked, seconds):
        return turns.Method("", {}, asked=asked, answers=[{"seconds": s, "stages": {"all": 1e3 * s}} for s in seconds])

    ours = method([0, 1, 2, 0, 1, 2], [0.1, 9.0, 0.3, 0.1, 9.0, 0.3])
    other = method([0, 2], [1.0, 3.0])
    assert turns.ratio_of_medians(ours, other) == pytest.approx(0.1)
    assert ours.milliseconds({0}).tolist() == [100.0, 100.0] and other.stages() == {"all": 2000.0}


def test_the_newest_release_is_the_highest_tag_before_the_present_commit(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    speed = importlib.import_module("speed")

    def git(*arguments):
        identity = [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "tag.gpgsign=false",
        ]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    assert speed.newest_release(tmp_path / "absent") == ""
    git("init", "--quiet")
    for tag in ("v0.9.0", "v0.10.0", "v0.10.1-rc1", "version-9", "v1.0.0"):  # the last one is the present commit
        git("commit", "--allow-empty", "-m", tag)
        assert speed.newest_release(tmp_path) in ("", "v0.9.0", "v0.10.0")
        git("tag", tag)
    assert speed.newest_release(tmp_path) == "v0.10.0"


def test_a_query_is_localized_in_a_process_of_its_own(monkeypatch, shared, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    common, scenes, turns = (importlib.import_module(name) for name in ("common", "scenes", "turns"))
    options = common.Options(shared, tmp_path, threads=1, queries=1)
    scene = scenes.kitchen(options, every=scenes.THIN)
    query = next(scene.queries())
    asked = [turns.described(query, shared / "data/kitchen/images" / query.name)]
    ours = turns.Method("ours", {"kind": "localizer", "map": str(scene.map_path)}, retrieve=2)
    floor = turns.Method("network alone", {"kind": "network"})
    with turns.running([ours, floor], options):
        turns.take_turns([ours, floor], asked, rounds=1)
        (answer,) = ours.ask(asked, [0], keep=False)
    assert ours.asked == floor.asked == [0] and floor.milliseconds()[0] > 0
    assert answer["posed"] and answer["keyframes"] == ours.answers[0]["keyframes"] and ours.peak > 100
    assert 0 < sum(ours.stages().values()) <= ours.milliseconds()[0]
    wrong = turns.Method("wrong", {})  # of no kind
    with (
        pytest.raises(RuntimeError, match="wrong: the process ended with exit code 1"),
        turns.running([wrong], options),
    ):
        pass


def test_other_work_stands_still_until_it_is_asked_for(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    busy = importlib.import_module("busy")
    asked, states = [], []

    class Method(_Stub):
        def ask(self, queries, numbers, keep=True):
            states.append({state(process) for process in work._processes})
            return super().ask(queries, numbers)

    def state(process):
        deadline = time.monotonic() + 5
        while True:  # a signal takes a moment
            found = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0]
            if (found == "T") == (len(states) % 2 == 0) or time.monotonic() > deadline:
                return "stopped" if found == "T" else "computing"

    with busy.other_work(2) as work:
        ((alone, beside),) = busy.measure([Method("ours", asked)], [None] * 3, work)
    assert alone == beside == [100.0] * 3 and asked == [("ours", [0, 1, 2])] * 2
    assert states == [{"stopped"}, {"computing"}] and all(process.poll() is not None for process in work._processes)
