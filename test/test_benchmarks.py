# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The runner of the benchmarks: it keeps what was measured, and reports where maps come from."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

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


def test_an_unknown_set_is_an_error(runner, tmp_path):
    common = importlib.import_module("common")
    options = common.Options(tmp_path, tmp_path, sets=("kitchen", "garden"))
    with pytest.raises(common.UsageError, match="set 'garden': unknown .known: kitchen, hall."):
        options.selected_sets({"kitchen": 1, "hall": 2})
