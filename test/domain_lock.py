# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""DDS domains that no two test sessions of one machine use at the same time."""

import fcntl
import itertools
import os
import tempfile
from pathlib import Path

# domains above 101 use ports that the system may hand out to others
_domains = itertools.cycle(range(1, 102))
# sessions that start together begin at different numbers
for _ in range(os.getpid() % 101):
    next(_domains)


class DomainLock:
    """A DDS domain that belongs to this session until the lock is closed or the process ends.

    The lock is that of a file in the folder of temporary files, which all sessions of the machine share.

    Attributes:
        number: The domain.
    """

    def __init__(self) -> None:
        for self.number in itertools.islice(_domains, 101):
            self._file = _open(Path(tempfile.gettempdir()) / f"nre_ros_test_domain_{self.number}.lock")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                os.close(self._file)
        raise RuntimeError("all 101 DDS domains are in use by tests on this machine")

    def close(self) -> None:
        """Leaves the domain to other sessions."""
        os.close(self._file)


def _open(path: Path) -> int:
    """Opens a lock file, which may belong to another user.

    With ``O_CREAT`` the kernel refuses another user's file in a shared folder (``fs.protected_regular``).
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY)
