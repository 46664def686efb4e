# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a process of ours asks of the C library: it keeps memory, unless it is told otherwise, and can give it back."""

import ctypes
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

if not hasattr(ctypes.CDLL(None), "mallopt"):
    pytest.skip("needs glibc's malloc", allow_module_level=True)

BLOCK = 40 * 2**20
SCRIPT = f"""
import json, os
import numpy as np
from nre_ros import process

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

process.prepare()
before = resident()
np.ones({BLOCK}, np.uint8)  # freed at once
kept = resident() - before
process.return_memory()
print(json.dumps(dict(kept=kept, left=resident() - before, policy=os.environ["OMP_WAIT_POLICY"])))
"""


def run(**settings) -> dict:
    """Bytes that stay resident after a large block was freed, and after ``return_memory``."""
    ours = ("MALLOC_", "GLIBC_TUNABLES", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PYTHONPATH": str(ROOT), **settings}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return json.loads(run.stdout)


def test_large_blocks_are_kept_and_returned_on_request():
    measured = run()
    assert measured["kept"] > BLOCK / 2 > measured["left"]
    assert measured["policy"] == "PASSIVE"


@pytest.mark.parametrize("settings", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": ""}])
def test_settings_in_the_environment_are_respected(settings):
    measured = run(**settings, OMP_WAIT_POLICY="ACTIVE")
    assert measured["kept"] < BLOCK / 2 and measured["policy"] == "ACTIVE"


THREADS = """
import ctypes, threading
import torch
from nre_ros.process import adopt_threads, use_threads

library = next(line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line or "iomp" in line)
openmp = ctypes.CDLL(library)
use_threads(3)

def check():
    adopt_threads()
    print(openmp.omp_get_max_threads())

thread = threading.Thread(target=check)
thread.start()
thread.join()
"""


def test_a_thread_adopts_the_number_of_threads_of_the_process():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "7"}
    run = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout.strip() == "3", run.stderr
