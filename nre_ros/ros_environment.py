# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The environment that ROS needs, where no setup file of a ROS installation has provided it.

After ``pip install`` the message libraries lie in the ``lib`` folder of the Python environment,
and with the ROS wheels all of ROS does.  Two variables have to say so:

* ``LD_LIBRARY_PATH``: rosidl opens a message's type support by its bare file name.  The loader
  reads the variable when a program starts, so that Python has to be started once more.  The ROS
  wheels do that by themselves and mark it with ``_ROS_WHEELS_BOOTSTRAP_COMPLETE``; a program of
  another environment that inherits the mark believes it done, and ``import rclpy`` fails there.
* ``AMENT_PREFIX_PATH``: what ``get_package_share_directory`` searches; the wheels leave it unset.

A sourced ROS installation with a colcon workspace has set both, and nothing is changed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_WHEELS_MARK = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
_RESTARTED = "_NRE_ROS_RESTARTED"


def install_prefix() -> Path | None:
    """The prefix that our messages are installed below; None where they have not been generated."""
    spec = importlib.util.find_spec("nre_ros.msg")
    if spec is None or spec.origin is None:
        return None
    # <prefix>/lib/python3.x/site-packages/nre_ros/msg/__init__.py
    return Path(spec.origin).absolute().parents[5]


def set_prefix_path() -> None:
    """Completes ``AMENT_PREFIX_PATH``: enough where the loader finds the libraries already."""
    _complete("AMENT_PREFIX_PATH", "")


def config_file(name: str) -> Path | None:
    """A file of config/, in the source tree or the installed package; None where there is none."""
    candidates = [Path(__file__).resolve().parents[1] / "config" / name]
    try:
        from ament_index_python.packages import get_package_share_directory

        set_prefix_path()
        candidates.append(Path(get_package_share_directory("nre_ros")) / "config" / name)
    except (ImportError, LookupError, OSError):  # no ROS; not installed; no prefix is known
        pass
    return next((path for path in candidates if path.is_file()), None)


def prepare() -> None:
    """Call before the first ``import rclpy`` of a program, from its entry point.

    Sets ``AMENT_PREFIX_PATH`` and, where the message libraries are out of the loader's sight, starts
    this very command once more with ``LD_LIBRARY_PATH`` set (it does not return then).  Does
    nothing where no messages are installed: the import that follows says what is missing.
    """
    set_prefix_path()
    if _complete("LD_LIBRARY_PATH", "lib") and _RESTARTED not in os.environ:
        os.environ[_RESTARTED] = "1"
        # without the mark the wheels look for their own library folders once more
        os.environ.pop(_WHEELS_MARK, None)
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    os.environ.pop(_RESTARTED, None)


def clean_environment(**changes: str | None) -> dict[str, str]:
    """This process's environment without what the wheels and ``prepare`` have put into it.

    For child processes: a Python of this environment sets up what it needs by itself, and other
    programs are not to find our libraries.  ``changes`` are set on top; None removes a variable.
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
    """Adds our prefix and that of the wheels, each with ``folder``, to a search path; False if it has both.

    Ours goes to the front and the wheels to the end: a workspace overlays the ROS that it was built on.
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
