# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The linter, the formatter, the spelling checker and the type checker report nothing (settings in pyproject.toml)."""

import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest
import yaml
from conftest import ROOT

COMMANDS = {
    "lint": ("ruff", "check", "--no-cache", "."),
    "format": ("ruff", "format", "--no-cache", "--check", "."),
    "spelling": ("codespell", "."),
    "types": ("mypy",),
}


def pinned_versions() -> dict[str, str]:
    """Name and version of every ``name==version`` in requirements/test.txt."""
    return dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "requirements/test.txt").read_text(), re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_checker_reports_nothing(command):
    tool, *arguments = command
    needed = pinned_versions()[tool]
    try:
        found = version(tool)
    except PackageNotFoundError:
        pytest.skip(f"needs {tool} {needed} (requirements/test.txt)")
    if found != needed:  # another version has other rules
        pytest.skip(f"needs {tool} {needed} (requirements/test.txt), {found} is installed")
    run = subprocess.run(
        [sys.executable, "-m", {"codespell": "codespell_lib"}.get(tool, tool), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_pre_commit_runs_the_same_tools_in_the_same_versions():
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = {hook["id"]: repository for repository in configuration["repos"] for hook in repository["hooks"]}
    versions = pinned_versions()
    assert hooks["ruff-check"]["rev"] == hooks["ruff-format"]["rev"] == f"v{versions['ruff']}"
    assert hooks["codespell"]["rev"] == f"v{versions['codespell']}"
    assert hooks["mypy"]["repo"] == "local", "mypy needs the libraries of the environment"
