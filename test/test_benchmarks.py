# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The runner of the benchmarks: what has been measured is kept, and where maps come from is told."""

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


def test_a_page_is_not_replaced_by_one_without_its_data(runner, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("as it was")
    assert runner.main(["good", "absent", "--json", str(tmp_path / "a.json"), "--write-docs", str(page)]) == 0
    assert page.read_text() == "as it was" and "skipped were: absent (needs data)" in capsys.readouterr().err
    assert json.loads((tmp_path / "a.json").read_text())["benchmarks"]["absent"]["skipped"] == "needs data"
    assert runner.main(["good", "--write-docs", str(page)]) == 0 and "sheep" in page.read_text()


def test_maps_of_another_state_or_seed_are_told(runner, tmp_path, capsys):
    def header(*more):
        assert runner.main(["good", "--work", str(tmp_path / "work"), *more]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith("work folder: "))

    assert "WARNING" not in header() and "WARNING" not in header()
    assert "WARNING" in header("--seed", "1") and "seed 0" in header("--seed", "1")
    (tmp_path / "work/made_by.json").write_text('{"commit of nre_ros": "0000000", "seed": 0}')
    assert "WARNING: maps that are there are of commit of nre_ros 0000000" in header()
    (tmp_path / "work/made_by.json").unlink()
    (tmp_path / "work/kitchen_1.db").touch()
    assert "WARNING: maps that are there are of an unknown state" in header()


def test_a_set_without_its_data_does_not_keep_the_others_from_being_measured(runner, tmp_path, monkeypatch):
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
