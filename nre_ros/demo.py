# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The demo: a robot's way through a synthetic room, localized through real ROS 2.

Makes a map of the room from 80 RGB-D views, records a bag of a robot that drives round it on
another way, with odometry that drifts, and plays that bag over DDS to the node.  Every pose is
compared with the exact truth.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from nre_ros.gallery import Gallery, Sensor, build_room, mapping_poses, robot_loop
from nre_ros.gallery.bag import write_bag
from nre_ros.gallery.rgbd import write_rgbd
from nre_ros.geometry import RADIAL_TANGENTIAL, Camera
from nre_ros.replay.bag import find_topics
from nre_ros.replay.replay import replay

CAMERA = Camera(640, 480, 460.0, 460.0, 322.5, 237.0, RADIAL_TANGENTIAL, (-0.12, 0.05, 0.0005, -0.0004, 0.0))
"""A wide-angle lens with visible distortion."""
_SENSOR = Sensor(noise=2.0)


def run_demo(output: Path, keyframes: int = 80, duration: float = 30.0, seed: int = 0, device: str = "auto") -> None:
    """Runs the demo; everything it makes is in ``output`` (what an earlier demo left there goes)."""
    from nre_ros.features import DEFAULT_BACKBONE, choose_device, load_backbone
    from nre_ros.keyframes.building.builder import KeyframeBuilder
    from nre_ros.keyframes.importers.build_map import build_map
    from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource

    for name in ("rgbd", "bag", "replay"):
        shutil.rmtree(output / name, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    print("1/4 a room with photographs on its walls", flush=True)
    gallery = Gallery(build_room(seed))
    with _progress(keyframes, "views for the map") as bar:
        rgbd = write_rgbd(
            output / "rgbd",
            gallery,
            CAMERA,
            mapping_poses(keyframes=keyframes, seed=seed),
            sensor=_SENSOR,
            seed=seed,
            progress=lambda done, _: bar.update(done - bar.n),
        )
    print("2/4 the map: features, points and descriptors of every view", flush=True)
    source = RgbdFolderSource(rgbd.images, rgbd.depth, rgbd.poses, rgbd.list, rgbd.camera, 1000.0)
    builder = KeyframeBuilder(load_backbone(DEFAULT_BACKBONE, choose_device(device)), seed=seed)
    report = build_map(source, builder, output / "room.db", force=True)
    print(f"    {report.keyframes} keyframes, {report.points} points, {report.file_bytes / 2**20:.1f} MiB")
    print("3/4 a robot drives round the room on another way, with odometry that drifts", flush=True)
    with _progress(int(duration * 15) + 1, "images for the bag") as bar:
        write_bag(
            output / "bag",
            gallery,
            CAMERA,
            robot_loop(duration=duration, seed=seed),
            sensor=_SENSOR,
            seed=seed,
            progress=lambda done, _: bar.update(done - bar.n),
        )
    print("4/4 the bag is played over DDS: player, node and listener, a process each", flush=True)
    replay(
        output / "room.db",
        output / "bag",
        find_topics(output / "bag"),
        output / "replay",
        parameters={"device": device},
    )


def _progress(total: int, what: str) -> tqdm:
    interval = 0.2 if sys.stderr.isatty() else 5.0
    return tqdm(total=total, desc=f"    {what}", unit="image", mininterval=interval)
