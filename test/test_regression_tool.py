# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The tool that compares two states of the sources finds equal states equal, and the last bit of a number different."""

import copy
import importlib
import sys

import numpy as np
import pytest
from conftest import ROOT


@pytest.fixture
def regression(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("regression")


LINES = [
    {"image": "a.jpg", "success": True, "position": [0.1, 0.2, 0.3], "confidence": 0.9, "reason": "", "seconds": 1.0},
    {"image": "b.jpg", "success": False, "position": None, "confidence": 0.1, "reason": "too dark", "seconds": 2.0},
]


def test_times_and_words_may_differ(regression):
    after = copy.deepcopy(LINES)
    after[1].update(seconds=9.0, reason="the image is too dark")
    assert regression.differences(LINES, after) == []


def test_the_last_bit_of_a_number_is_a_difference(regression):
    after = copy.deepcopy(LINES)
    after[0]["position"][1] = float(np.nextafter(0.2, 1.0))
    assert regression.differences(LINES, after) == ["a.jpg: position"]


def test_a_missing_image_or_field_is_a_difference(regression):
    assert regression.differences(LINES, LINES[:1]) == ["2 images before, 1 after"]
    after = copy.deepcopy(LINES)
    del after[0]["confidence"]
    assert regression.differences(LINES, after) == ["a.jpg: confidence"]


def test_a_state_equals_itself(regression, tmp_path, capsys):
    """The whole tool with this checkout on both sides: the same numbers twice, in the other's map, too."""
    asked = [str(ROOT), "--only", "gallery", "--keyframes", "4", "--queries", "2", "--work", str(tmp_path)]
    assert regression.main(asked) == 0
    assert "All numbers are equal." in capsys.readouterr().out
    assert sys.modules["nre_ros"].__file__.startswith(str(ROOT))


def test_an_unknown_revision_is_refused_in_one_line(regression, tmp_path, capsys):
    asked = ["no-such-revision", "--only", "gallery", "--keyframes", "1", "--queries", "1", "--work", str(tmp_path)]
    assert regression.main(asked) == 2
    assert "no-such-revision is neither a folder nor a revision" in capsys.readouterr().err
