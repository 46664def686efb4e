# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The end of a test run: a thread that a failed test has left behind must not keep the process alive."""

import faulthandler
import sys

EXIT_SECONDS = 60.0


def pytest_unconfigure(config):
    """Ends the process with the stacks of its threads if it has not exited after ``EXIT_SECONDS``.

    A worker of pytest-xdist waits for the other workers first, and is then ended by the main process.
    """
    if hasattr(config, "workerinput"):
        return
    faulthandler.dump_traceback_later(EXIT_SECONDS, exit=True, file=sys.__stderr__)
