# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs player, node and listener as three processes and collects what they wrote down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from nre_ros.errors import NreError
from nre_ros.geometry import Camera
from nre_ros.replay.bag import BagTopics
from nre_ros.ros_environment import clean_environment, config_file

_READY_SECONDS = 120.0
_QUIET_SECONDS = 3.0
"""The node has nothing left to say when it has been silent for so long after the last image."""


@dataclass(frozen=True)
class Session:
    """What the three processes told; times are of the monotonic clock, stamps nanoseconds.

    sent: stamp -> when that image went out.  camera: of the images, None if it never came.
    statuses, poses, transforms: the listener's lines, in their order.
    """

    sent: dict[int, float]
    camera: Camera | None
    statuses: list[dict] = field(repr=False)
    poses: list[dict] = field(repr=False)
    transforms: list[dict] = field(repr=False)


def run_session(
    map_file: Path | str,
    bag: Path | str,
    topics: BagTopics,
    folder: Path | str,
    rate: float = 1.0,
    parameters: dict[str, str] | None = None,
    progress: bool = True,
) -> Session:
    """Plays ``bag`` to a node that localizes in ``map_file``; logs and records go to ``folder``.

    parameters: of the node, on top of its parameter file.  The three have a DDS domain of their
    own on this machine, unless ROS_DOMAIN_ID is set.  Raises ``NreError`` when one of them fails.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(folder)
    node_arguments = ["-p", "use_sim_time:=true", "-r", f"camera_info:={topics.camera_info}"]
    node_arguments += ["-r", f"{'image/compressed' if topics.compressed else 'image'}:={topics.image}"]
    for name, value in (parameters or {}).items():
        node_arguments += ["-p", f"{name}:={value}"]
    with ExitStack() as stack:

        def start(name: str, *arguments: str) -> _Child:
            return stack.enter_context(_Child(name, arguments, folder, environment))

        listener = start(
            "listener",
            "-m",
            "nre_ros.replay.listener",
            str(folder / "heard.jsonl"),
            "--camera-info",
            topics.camera_info,
        )
        node = start("node", "-m", "nre_ros", "node", "--map", str(map_file), "--ros-args", *node_arguments)
        listener.wait_for("listening")
        node.wait_for("localizing in")
        player = start(
            "player",
            "-m",
            "nre_ros.replay.player",
            str(bag),
            "--rate",
            str(rate),
            "--image",
            topics.image,
            "--wait-for",
            topics.image,
            topics.camera_info,
        )
        _watch(player, (node, listener), topics.images, folder / "heard.jsonl", progress)
        node.stop()
        listener.stop()
    return read_session(folder)


def read_session(folder: Path | str) -> Session:
    """The session that was recorded in ``folder``."""
    folder = Path(folder)
    sent = {line["stamp"]: line["monotonic"] for line in _lines(folder / "player.log") if line["event"] == "image"}
    heard = _lines(folder / "heard.jsonl")
    cameras = [line for line in heard if line["event"] == "camera"]
    kinds = ([line for line in heard if line["event"] == event] for event in ("status", "pose", "transform"))
    return Session(sent, _camera(cameras[0]) if cameras else None, *kinds)


def _camera(line: dict) -> Camera:
    fields = {name: line[name] for name in ("width", "height", "fx", "fy", "cx", "cy", "model")}
    return Camera(**fields, distortion=tuple(line["distortion"]))


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{") and line.endswith("}")]


def _environment(folder: Path) -> dict[str, str]:
    """Of the three processes: a domain that no robot nearby is in, and large images get through."""
    changes = {"ROS_LOG_DIR": str(folder / "ros_log"), "PYTHONUNBUFFERED": "1"}
    if "ROS_DOMAIN_ID" not in os.environ:
        changes.update(ROS_DOMAIN_ID=str(1 + os.getpid() % 100), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    profile = config_file("fastdds_large_images.xml")
    if profile is not None and "FASTRTPS_DEFAULT_PROFILES_FILE" not in os.environ:
        changes["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(profile)
    return clean_environment(**changes)


def _watch(player: _Child, others: tuple[_Child, ...], images: int, heard: Path, progress: bool) -> None:
    """Waits until the bag is played and the node is quiet, with a bar of the images sent."""
    from tqdm import tqdm

    ended = None
    with tqdm(
        total=images,
        unit="image",
        desc="    replay",
        disable=not progress,
        mininterval=0.2 if sys.stderr.isatty() else 5.0,
    ) as bar:
        while ended is None or time.time() - max(ended, heard.stat().st_mtime) < _QUIET_SECONDS:
            for child in others:
                child.check()
            if ended is None and player.process.poll() is not None:
                player.check(may_have_ended=True)
                ended = time.time()
            bar.set_postfix(answered=heard.read_text().count('"event": "status"'), refresh=False)
            bar.update(player.words.count('"event": "image"') - bar.n)
            time.sleep(0.5)


class _Child:
    """A Python process of ours whose words go to ``NAME.log``; ended when the context is left."""

    def __init__(self, name: str, arguments, folder: Path, environment: dict[str, str]):
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

    @property
    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def check(self, may_have_ended: bool = False) -> None:
        """``NreError`` with its last words if the process has ended with an error, or at all."""
        code = self.process.poll()
        if code is None or (may_have_ended and code == 0):
            return
        words = self.words.strip().splitlines()
        raise NreError(f"the {self.name} ended with code {code}: {words[-1] if words else 'no word'} (see {self.log})")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while text not in self.words:
            self.check()
            if time.monotonic() > deadline:
                raise NreError(f"the {self.name} was not ready after {_READY_SECONDS:.0f} s (see {self.log})")
            time.sleep(0.05)

    def stop(self) -> None:
        """Asks the process to end, and insists after a while."""
        for number, patience in ((signal.SIGINT, 10), (signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            if self.process.poll() is not None:
                return
            self.process.send_signal(number)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        self._file.close()
