# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Writers that are killed at random moments of an import lose no committed keyframe (see ``store_kills``)."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROUNDS = int(os.environ.get("NRE_ROS_KILLS", "40"))


def test_killed_imports_lose_no_committed_keyframe_and_go_on(tmp_path):
    script = Path(__file__).with_name("store_kills.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(ROUNDS), "0"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["killed"] == ROUNDS and counts["resumed"] > 0
