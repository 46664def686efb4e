# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A test that hangs fails with a stack dump, and a test run always ends (settings in pyproject.toml, conftest.py)."""

import ast
import re
import subprocess
import sys
import time

import pytest
from child_process import child_process
from conftest import ROOT

pytest.importorskip("pytest_timeout", reason="needs pytest-timeout (requirements/test.txt)")

SLEEPS = """
import threading, time
def sleep_for_ever():
    while True:
        time.sleep(1)
def test_that_sleeps():
    sleep_for_ever()
def test_that_waits_for_a_thread():
    thread = threading.Thread(target=sleep_for_ever, daemon=True)
    thread.start()
    thread.join()
def test_that_ends():
    pass
"""

IGNORES_ALARMS = """
import signal, time
def test_that_no_alarm_interrupts():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    while True:
        time.sleep(1)
"""

LEAVES_A_THREAD = """
import threading, time
def run_for_ever():
    while True:
        time.sleep(1)
def test_that_leaves_a_thread():
    threading.Thread(target=run_for_ever).start()
"""


def run_pytest(folder, text, *options):
    """The exit code and the output of pytest with this project's settings, changed by ``options``."""
    (folder / "test_sample.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        ROOT / "pyproject.toml",
        "--rootdir",
        folder,
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",  # with it, pytest-rerunfailures starts a thread, which gets the alarms that the main thread blocks
    ]
    run = subprocess.run([*command, *options, folder], capture_output=True, text=True, timeout=120)
    return run.returncode, run.stdout + run.stderr


def test_a_test_that_hangs_fails_with_the_stacks_of_its_threads(tmp_path):
    code, output = run_pytest(tmp_path, SLEEPS, "-o", "timeout=1")
    assert code == 1 and "2 failed, 1 passed" in output, output
    # Only the lines of the error reports: under CI=1, pytest repeats the messages in its summary.
    assert len(re.findall(r"^E +Failed: Timeout ", output, re.MULTILINE)) == 2, output
    assert "Stack of" in output and "in sleep_for_ever" in output


@pytest.mark.skipif(int(pytest.__version__.split(".")[0]) < 9, reason="needs pytest 9 (requirements/test.txt)")
def test_a_hang_that_no_signal_interrupts_ends_the_run_with_a_stack(tmp_path):
    code, output = run_pytest(tmp_path, IGNORES_ALARMS, "-o", "timeout=1", "-o", "faulthandler_timeout=3")
    assert code == 1 and "in test_that_no_alarm_interrupts" in output, output


def test_a_thread_that_is_left_running_does_not_keep_the_run_from_ending(tmp_path):
    (tmp_path / "conftest.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'test')!r})\n"
        "import time_limits; time_limits.EXIT_SECONDS = 2\n"
        "from time_limits import pytest_unconfigure\n"
    )
    code, output = run_pytest(tmp_path, LEAVES_A_THREAD)
    assert code == 1 and "1 passed" in output and "in run_for_ever" in output, output


def test_a_child_process_is_killed_when_its_test_fails():
    started = time.monotonic()
    with pytest.raises(RuntimeError), child_process([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        raise RuntimeError
    assert child.returncode < 0 and time.monotonic() - started < 300


def test_every_child_process_of_a_test_has_a_time_limit():
    unlimited = []
    for path in sorted((ROOT / "test").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("subprocess.run", "subprocess.check_output"):
                if "timeout" not in [keyword.arg for keyword in node.keywords]:
                    unlimited.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            if isinstance(node, ast.withitem) and "subprocess.Popen" in ast.unparse(node.context_expr):
                if path.name != "child_process.py":
                    unlimited.append(f"{path.relative_to(ROOT)}:{node.context_expr.lineno} (use child_process)")
    assert not unlimited
