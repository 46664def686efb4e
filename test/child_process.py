# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Child processes of tests that never outlive their test."""

import contextlib
import subprocess

TIMEOUT = 300.0
"""Seconds that a child process of a test may take; far more than any needs on a busy machine."""


@contextlib.contextmanager
def child_process(command, **options):
    """Runs ``command`` and kills it if the block fails.

    ``subprocess.Popen`` used as a context manager waits for the child instead, for ever if the child hangs.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
            if process.stdin is not None:
                process.stdin.close()
            process.wait(TIMEOUT)
        except BaseException:
            process.kill()
            raise
