# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs player, node and listener as three processes and reads what they logged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from nre_ros.errors import NreError
from nre_ros.replay import listener
from nre_ros.replay.bag import BagTopics
from nre_ros.ros_environment import clean_environment, config_file

_READY_SECONDS = 120.0
_QUIET_SECONDS = 3.0
"""The session ends when the node has sent nothing for so long after the last image."""
_EVENTS_FILE = "heard.jsonl"
_Event = dict[str, Any]


@dataclass(frozen=True)
class Session:
    """What player and listener logged. Times are of the machine's monotonic clock, in seconds; stamps in nanoseconds.

    Attributes:
        sent: Stamp of each image -> time at which it was sent.
        statuses: Fields of the status messages, in the order of their arrival.
        poses: The same of the pose messages.
        transforms: The same of the transforms from the map frame.
    """

    sent: dict[int, float]
    statuses: list[_Event] = field(repr=False)
    poses: list[_Event] = field(repr=False)
    transforms: list[_Event] = field(repr=False)


def run_session(
    map_file: Path | str,
    bag: Path | str,
    topics: BagTopics,
    folder: Path | str,
    rate: float = 1.0,
    parameters: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Session:
    """Plays a bag to a node and records the node's messages.

    The three processes have a DDS domain of their own on this machine, unless ROS_DOMAIN_ID is set.

    Args:
        map_file: Map that the node localizes in.
        bag: Bag to play.
        topics: Topics of the bag.
        folder: Where logs and records are written.
        rate: Speed, as a multiple of real time.
        parameters: Parameters of the node, name -> value.
        progress: Whether to show a progress bar.

    Returns:
        What was recorded.

    Raises:
        NreError: One of the processes failed or did not become ready.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(folder)
    node_arguments = ["-p", "use_sim_time:=true", "-r", f"camera_info:={topics.camera_info}"]
    node_arguments += ["-r", f"{'image/compressed' if topics.compressed else 'image'}:={topics.image}"]
    for name, value in (parameters or {}).items():
        node_arguments += ["-p", f"{name}:={value}"]
    events = folder / _EVENTS_FILE
    with ExitStack() as stack:
        stack.enter_context(_interrupted_by_sigterm())

        def start(name: str, module: str, *arguments: str) -> _ChildProcess:
            return stack.enter_context(_ChildProcess(name, ["-m", module, *arguments], folder, environment))

        listening = start("listener", "nre_ros.replay.listener", str(events))
        node = start("node", "nre_ros", "node", "--map", str(map_file), "--ros-args", *node_arguments)
        listening.wait_for(listener.READY)
        node.wait_for("localizing in")
        player_arguments = ["--rate", str(rate), "--image", topics.image, "--wait-for", topics.image]
        player = start("player", "nre_ros.replay.player", str(bag), *player_arguments, topics.camera_info)
        _watch(player, (node, listening), topics.image_count, events, progress)
        node.stop()
        listening.stop()
    return read_session(folder)


def read_session(folder: Path | str) -> Session:
    """Reads the session that ``run_session`` recorded.

    Args:
        folder: Folder of the logs.

    Returns:
        What the three processes logged.
    """
    folder = Path(folder)
    sent = {line["stamp"]: line["monotonic"] for line in _lines(folder / "player.log") if line["event"] == "image"}
    events = _lines(folder / _EVENTS_FILE)
    return Session(
        sent,
        *([line for line in events if line["event"] == event] for event in ("status", "pose", "transform")),
    )


def _lines(path: Path) -> list[_Event]:
    """The JSON objects of a log, which may contain other lines."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{") and line.endswith("}")]


def _environment(folder: Path) -> dict[str, str]:
    """Environment of the three processes: a DDS domain without robots, and a profile with which large images arrive."""
    changes = {"ROS_LOG_DIR": str(folder / "ros_log"), "PYTHONUNBUFFERED": "1"}
    if "ROS_DOMAIN_ID" not in os.environ:
        changes.update(ROS_DOMAIN_ID=str(1 + os.getpid() % 100), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    profile = config_file("fastdds_large_images.xml")
    if profile is not None and "FASTRTPS_DEFAULT_PROFILES_FILE" not in os.environ:
        changes["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(profile)
    return clean_environment(**changes)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM end this process as SIGINT does: its children are ended before."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _watch(
    player: _ChildProcess, others: Sequence[_ChildProcess], image_count: int, events: Path, progress: bool
) -> None:
    """Waits until the bag was played and the node is quiet; shows how many images were sent and processed."""
    from tqdm import tqdm

    ended = None
    with tqdm(
        total=image_count,
        unit="image",
        desc="    replay",
        disable=not progress,
        mininterval=0.2 if sys.stderr.isatty() else 5.0,
    ) as bar:
        while ended is None or time.time() - max(ended, events.stat().st_mtime) < _QUIET_SECONDS:
            for child in others:
                child.check()
            if ended is None and player.process.poll() is not None:
                player.check(may_have_ended=True)
                ended = time.time()
            bar.set_postfix(processed=events.read_text().count('"event": "status"'), refresh=False)
            bar.update(player.read_log().count('"event": "image"') - bar.n)
            time.sleep(0.5)


class _ChildProcess:
    """A Python process that logs to ``NAME.log``; it is ended when the context is left."""

    def __init__(self, name: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]):
        self.name = name
        self.log = folder / f"{name}.log"
        self._file = self.log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=self._file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
        )

    def read_log(self) -> str:
        return self.log.read_text(errors="replace")

    def check(self, may_have_ended: bool = False) -> None:
        """Raises ``NreError`` with the last line of the log if the process failed, or ended where it must not."""
        code = self.process.poll()
        if code is None or (may_have_ended and code == 0):
            return
        lines = self.read_log().strip().splitlines() or ["no output"]
        raise NreError(f"{self.name}: ended with exit code {code}: {lines[-1]} (log: {self.log})")

    def wait_for(self, text: str) -> None:
        """Waits until the log contains ``text``; raises ``NreError`` if that takes too long."""
        deadline = time.monotonic() + _READY_SECONDS
        while text not in self.read_log():
            self.check()
            if time.monotonic() > deadline:
                raise NreError(f"{self.name}: not ready after {_READY_SECONDS:.0f} s (log: {self.log})")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the process: by SIGINT, then by SIGTERM, then by SIGKILL."""
        for number, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            if self.process.poll() is not None:
                return
            self.process.send_signal(number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue

    def __enter__(self) -> _ChildProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._file.close()
