# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Sets the environment variables that ROS needs, if no setup file of a ROS installation has done so.

After ``pip install`` the message libraries are in the ``lib`` folder of the Python environment; with the ROS wheels
all of ROS is.  Two variables must name that folder:

* ``LD_LIBRARY_PATH``: rosidl opens a message's type support by its file name without a folder.  The loader reads the
  variable when a program starts, so that Python must be started once more.  The ROS wheels do that by themselves and
  set ``_ROS_WHEELS_BOOTSTRAP_COMPLETE``.  A program of another environment that inherits this variable is not started
  once more, and ``import rclpy`` fails there.
* ``AMENT_PREFIX_PATH``: searched by ``get_package_share_directory``; the wheels leave it unset.

A sourced ROS installation with a colcon workspace has set both, and nothing is changed.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

_WHEELS_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
_RESTARTED = "_NRE_ROS_RESTARTED"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def install_prefix() -> Path | None:
    """Returns the prefix below which our messages are installed, None where they have not been generated."""
    spec = importlib.util.find_spec("nre_ros.msg")
    if spec is None or spec.origin is None:
        return None
    # <prefix>/lib/python3.x/site-packages/nre_ros/msg/__init__.py
    return Path(spec.origin).absolute().parents[5]


def set_prefix_path() -> None:
    """Completes ``AMENT_PREFIX_PATH``, which is enough where the loader finds the libraries already."""
    _complete("AMENT_PREFIX_PATH", "")


def config_file(name: str) -> Path | None:
    """Finds a file of config/, in the source tree or in the installed package.

    Args:
        name: Name of the file.

    Returns:
        The path; None where there is no such file.
    """
    candidates = [Path(__file__).resolve().parents[1] / "config" / name]
    try:
        from ament_index_python.packages import get_package_share_directory

        set_prefix_path()
        candidates.append(Path(get_package_share_directory("nre_ros")) / "config" / name)
    except (ImportError, LookupError, OSError):  # no ROS; not installed; no prefix is known
        pass
    return next((path for path in candidates if path.is_file()), None)


def prepare() -> None:
    """Sets both variables; a program calls it at its entry point, before the first ``import rclpy``.

    If the loader cannot find the message libraries, the same command is started once more with ``LD_LIBRARY_PATH``
    set, and the call does not return.  Nothing is done where no messages are installed: the import that follows
    reports what is missing.
    """
    set_prefix_path()
    if _complete("LD_LIBRARY_PATH", "lib") and _RESTARTED not in os.environ:
        os.environ[_RESTARTED] = "1"
        # without the mark the wheels look for their own library folders once more
        os.environ.pop(_WHEELS_MARK, None)
        sys.stdout.flush()
        sys.stderr.flush()
        # a signal that comes while Python starts waits for the handlers of the program
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    if os.environ.pop(_RESTARTED, None) is not None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def clean_environment(**changes: str | None) -> dict[str, str]:
    """Returns the environment of this process without what the wheels and ``prepare`` have added, for child processes.

    A Python of this environment sets what it needs by itself, and other programs must not find our libraries.

    Args:
        **changes: Variables to set; None removes a variable.

    Returns:
        The variables for a child process.
    """
    environment = dict(os.environ)
    environment.pop(_WHEELS_MARK, None)
    environment.pop(_RESTARTED, None)
    own = Path(sys.prefix).resolve()
    for name in ("LD_LIBRARY_PATH", "AMENT_PREFIX_PATH"):
        entries = [entry for entry in environment.pop(name, "").split(os.pathsep) if entry]
        kept = [entry for entry in entries if not Path(entry).resolve().is_relative_to(own)]
        if kept:
            environment[name] = os.pathsep.join(kept)
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


def _complete(name: str, folder: str) -> bool:
    """Adds our prefix and that of the wheels, each with ``folder``, to a search path.

    Ours goes to the front and that of the wheels to the end: a workspace overlays the ROS that it was built on.

    Returns:
        False if the path has both already.
    """
    before = [entry for entry in os.environ.get(name, "").split(os.pathsep) if entry]
    entries = list(before)
    known = {os.path.realpath(entry) for entry in entries}
    ours, wheels = install_prefix(), Path(sys.prefix)
    if ours is not None and os.path.realpath(ours / folder) not in known:
        entries.insert(0, str(ours / folder))
    if wheels != ours and (wheels / "share/ament_index").is_dir() and os.path.realpath(wheels / folder) not in known:
        entries.append(str(wheels / folder))
    if entries == before:
        return False
    os.environ[name] = os.pathsep.join(entries)
    return True
