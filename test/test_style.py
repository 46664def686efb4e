# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a linter finds: unused and shadowed names, tests hidden by others of the same name (rules in pyproject.toml)."""

import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip("ruff", reason="needs ruff (requirements/test.txt)")


def test_the_linter_has_nothing_to_say():
    run = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", ROOT], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
