# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The demo: a robot drives through a synthetic room and is localized through real ROS 2.

It makes a map of 80 rendered RGB-D views, records a bag of a robot on another trajectory, with drifting odometry, and
plays the bag over DDS to the node. The ground truth is exact.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from nre_ros.errors import NreError
from nre_ros.gallery import Gallery, Sensor, build_room, mapping_poses, robot_loop
from nre_ros.gallery.bag import write_bag
from nre_ros.gallery.rgbd import write_rgbd
from nre_ros.geometry import RADIAL_TANGENTIAL, Camera
from nre_ros.replay.bag import find_topics
from nre_ros.replay.replay_bag import ReplayResult, replay_bag

CAMERA = Camera(640, 480, 460.0, 460.0, 322.5, 237.0, RADIAL_TANGENTIAL, (-0.12, 0.05, 0.0005, -0.0004, 0.0))
"""A wide-angle lens with visible distortion."""
_SENSOR = Sensor(noise=2.0)
_IMAGE_RATE = 15.0
"""Images a second of the bag."""
_MARKER = ".nre_ros_demo"
"""File in the output folder from which the next demo knows that it may replace the folders there."""


def run_demo(
    output: Path,
    keyframes: int = 80,
    duration: float = 30.0,
    seed: int = 0,
    device: str = "auto",
    animate: bool = False,
) -> ReplayResult:
    """Runs the demo and prints its steps.

    Args:
        output: Folder for everything that the demo makes; the output of an earlier demo there is removed.
        keyframes: Number of views in the map.
        duration: Time that the robot drives, seconds.
        seed: Seed of the room, the trajectory and all noise.
        device: Where networks and estimator run: auto, cpu or cuda.
        animate: Whether to write an animated picture as well.

    Returns:
        The numbers and the pictures of the replay.

    Raises:
        NreError: The folder contains something else of the same name, or cannot be written.
    """
    from nre_ros.features import DEFAULT_BACKBONE, choose_device, load_backbone
    from nre_ros.keyframes.building.builder import KeyframeBuilder
    from nre_ros.keyframes.importers.build_map import build_map
    from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource

    _clear(output)
    print(f"1/4 rendering {keyframes} views of a room with photographs on its walls", flush=True)
    gallery = Gallery(build_room(seed))
    with _progress(keyframes) as report_progress:
        rgbd = write_rgbd(
            output / "rgbd",
            gallery,
            CAMERA,
            mapping_poses(keyframes=keyframes, seed=seed),
            sensor=_SENSOR,
            seed=seed,
            progress=report_progress,
        )
    print("2/4 building the map: features, points and descriptors of every view", flush=True)
    source = RgbdFolderSource(rgbd.images, rgbd.depth, rgbd.poses, rgbd.list, rgbd.camera, 1000.0)
    builder = KeyframeBuilder(load_backbone(DEFAULT_BACKBONE, choose_device(device)), seed=seed)
    report = build_map(source, builder, output / "room.db", force=True)
    print(f"    {report.keyframes} keyframes, {report.points} points, {report.file_bytes / 2**20:.1f} MiB")
    print("3/4 recording a bag: a robot drives through the room on another trajectory, its odometry drifts", flush=True)
    with _progress(int(duration * _IMAGE_RATE) + 1) as report_progress:
        write_bag(
            output / "bag",
            gallery,
            CAMERA,
            robot_loop(duration=duration, seed=seed),
            image_rate=_IMAGE_RATE,
            sensor=_SENSOR,
            seed=seed,
            progress=report_progress,
        )
    print("4/4 playing the bag over DDS: player, node and listener are three processes", flush=True)
    return replay_bag(
        output / "room.db",
        output / "bag",
        find_topics(output / "bag"),
        output / "replay",
        parameters={"device": device},
        animate=animate,
    )


def _clear(output: Path) -> None:
    """Removes what an earlier demo has written, and nothing else."""
    marker = output / _MARKER
    folders = [output / name for name in ("rgbd", "bag", "replay")]
    for folder in folders:
        if folder.exists() and not marker.exists():
            raise NreError(
                f"{folder} exists and is not known to be of an earlier demo ({_MARKER}): remove it, or choose another folder"
            )
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        output.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise NreError(f"{output} cannot be written: {error.strerror}") from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, int], None]]:
    """Shows a progress bar of images; yields the function (done, total) that moves it."""
    interval = 0.2 if sys.stderr.isatty() else 5.0
    with tqdm(total=total, desc="    rendered", unit="image", mininterval=interval) as bar:

        def report(done: int, _: int) -> None:
            bar.update(done - bar.n)

        yield report
