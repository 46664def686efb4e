# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""An import killed at a random moment loses no committed keyframe (see ``store_kills``)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = int(os.environ.get("NRE_ROS_KILLS", "40"))


@pytest.mark.timeout(120 + 12 * ROUNDS)
def test_killed_imports_lose_no_committed_keyframe_and_go_on(tmp_path):
    script = Path(__file__).with_name("store_kills.py")
    run = subprocess.run(
        [sys.executable, str(script), "check", str(tmp_path), str(ROUNDS), "0"],
        capture_output=True,
        text=True,
        timeout=60 + 12 * ROUNDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # a process computes next to nothing, and 40 of them start
    )
    assert run.returncode == 0, run.stderr[-2000:]
    counts = json.loads(run.stdout)
    assert counts["killed"] == ROUNDS and counts["resumed"] > 0
