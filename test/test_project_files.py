# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The files around the code: one version everywhere, files that parse, and paths that exist."""

import json
import re
import subprocess
from xml.etree import ElementTree

import pytest
import yaml
from conftest import ROOT

import nre_ros

if not (ROOT / ".github").is_dir():
    pytest.skip("needs the whole repository", allow_module_level=True)

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
YAML_FILES = [*sorted(ROOT.glob(".github/**/*.yml")), ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml"]


def test_every_file_names_the_version_of_the_package():
    version = nre_ros.__version__
    assert ElementTree.parse(ROOT / "package.xml").findtext("version") == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    newest = re.search(r"^(\d+\.\d+\.\d+) \(", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE)
    assert newest and newest[1] == version
    assert 'attr = "nre_ros.__version__"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_files_parse(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_development_container_runs_a_script_that_parses():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    script = container["postCreateCommand"].split()[-1]
    subprocess.run(["bash", "-n", ROOT / script], check=True, timeout=60)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_limits_and_scripts_that_parse(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            script = re.sub(r"\$\{\{.*?\}\}", "value", step.get("run", ""))
            subprocess.run(["bash", "-n", "-c", script], check=True, timeout=60)


def test_one_workflow_runs_the_kernels_of_the_gpu_and_the_ordinary_environment_has_no_triton():
    steps = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["gpu_kernels"]["steps"]
    scripts = " && ".join(step["run"] for step in steps if "run" in step)
    assert scripts.index("-r requirements/triton.txt") < scripts.index("pytest test/test_gpu_kernels.py")
    assert "triton" not in (ROOT / "Makefile").read_text()
    others = [path for path in (ROOT / "requirements").glob("*.txt") if path.name != "triton.txt"]
    assert others and not any(re.search(r"^triton", path.read_text(), re.MULTILINE) for path in others)


def test_the_workflows_cover_the_supported_pythons_and_distributions():
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["wheels"]["strategy"]["matrix"]
    assert tests["python"] == ["3.10", "3.11", "3.12", "3.13"]
    colcon = yaml.safe_load((ROOT / ".github/workflows/colcon.yml").read_text())["jobs"]["colcon"]
    assert colcon["strategy"]["matrix"]["distribution"] == ["humble", "jazzy", "kilted"]


def test_paths_in_contributing_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:nre_ros|test|docs|benchmarks|\.github)/[\w./]*)`", text) + re.findall(
        r"\]\(([\w./]+)\)", text
    )
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []
