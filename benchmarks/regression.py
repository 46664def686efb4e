# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Compares two states of the sources: do they give the same poses, confidences and covariances, bit for bit?

    python benchmarks/regression.py BEFORE [--after CHECKOUT] [--work DIR]

BEFORE is a revision of this repository or the folder of a checkout.  Each state runs its own command line
(``nre_ros map build`` and ``nre_ros localize``) in processes of its own, with this Python's environment.  The state
AFTER also localizes in the maps that BEFORE has built, so that a map made yesterday still opens and answers alike.
The exit code is 0 when every number is equal, 1 when one differs, and 2 when something could not run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from common import Table  # noqa: E402  (the path has to be set first)

NUMBERS = (
    "success",
    "position",
    "quaternion",
    "covariance",
    "confidence",
    "keyframes",
    "points_used",
    "points_considered",
    "cost",
    "alternatives",
)
"""Fields of a line of ``nre_ros localize`` that have to be equal.  Times differ, and reasons are words."""
THIN = 21
"""The thin map of the kitchen has every 21st of its 63 map images."""
_TIMEOUT = 3600
_SEARCHED = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
"""PATH with the commands of this Python's environment first."""


class Failure(Exception):
    """A command that did not run, with the last lines that it printed."""


@dataclass(frozen=True)
class Inputs:
    """Files of one comparison: what a map is built of, and the images that are localized in it."""

    name: str
    images: Path
    depth: Path
    poses: Path
    map_list: Path
    query_images: Path
    query_list: Path
    camera: Path


def kitchen(shared: Path, work: Path) -> list[Inputs]:
    """The kitchen with all of its 63 map images, and with every 21st."""
    folder = shared / "data/kitchen"
    if not folder.is_dir():
        print(f"left out: the kitchen ({folder} is absent)", file=sys.stderr)
        return []
    thin_list, thin_poses = work / "thin.txt", work / "thin_poses.txt"
    for source, thin in ((folder / "map.txt", thin_list), (folder / "map_poses.txt", thin_poses)):
        lines = [line for line in source.read_text().splitlines() if line and not line.startswith("#")]
        thin.write_text("\n".join(lines[::THIN]) + "\n")
    common = (folder / "images", folder / "query.txt", folder / "sparse/cameras.txt")
    return [
        Inputs("kitchen", folder / "images", folder / "depth", folder / "map_poses.txt", folder / "map.txt", *common),
        Inputs("kitchen, 3 keyframes", folder / "images", folder / "depth", thin_poses, thin_list, *common),
    ]


def gallery(work: Path, keyframes: int, queries: int) -> Inputs:
    """The room of ``nre_ros demo``: its map's views, and images of the robot's way round it."""
    import numpy as np

    from nre_ros.demo import CAMERA
    from nre_ros.gallery import Gallery, Sensor, build_room, mapping_poses, robot_loop
    from nre_ros.gallery.rgbd import write_rgbd
    from nre_ros.gallery.trajectory import CameraMount

    for name in ("room", "room_queries"):  # of an earlier run
        shutil.rmtree(work / name, ignore_errors=True)
    room, sensor = Gallery(build_room(0)), Sensor(noise=2.0)
    mapped = write_rgbd(work / "room", room, CAMERA, mapping_poses(keyframes=keyframes, seed=0), sensor=sensor, seed=0)
    seconds = np.linspace(0.0, 30.0, queries, endpoint=False)
    T_map_cam = robot_loop(duration=30.0, seed=0).T_map_base(seconds) @ CameraMount().T_base_cam
    asked = write_rgbd(work / "room_queries", room, CAMERA, T_map_cam, sensor=sensor, seed=1)
    return Inputs(
        "gallery", mapped.images, mapped.depth, mapped.poses, mapped.list, asked.images, asked.list, mapped.camera
    )


def nre_ros(checkout: Path, *arguments: object) -> None:
    """Runs the command line of a checkout.  Raises ``Failure``."""
    # The checkout's sources come before an installed package, which brings the messages alone.
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "nre_ros", *map(str, arguments)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=_TIMEOUT)
    if done.returncode:
        raise Failure(f"nre_ros {' '.join(map(str, arguments[:2]))} in {checkout}: {done.stderr.strip()[-2000:]}")


def build(checkout: Path, inputs: Inputs, map_file: Path) -> None:
    """Builds the map of RGB-D images with a checkout's own importer."""
    nre_ros(
        checkout, "map", "build", "rgbd", "--images", inputs.images, "--depth", inputs.depth, "--poses", inputs.poses,
        "--list", inputs.map_list, "--camera", inputs.camera, "-o", map_file, "--force",
    )  # fmt: skip


def localize(checkout: Path, inputs: Inputs, map_file: Path, result: Path) -> list[dict]:
    """Localizes the query images with a checkout; returns the lines that it wrote."""
    nre_ros(
        checkout, "localize", "--map", map_file, "--images", inputs.query_images, "--list", inputs.query_list,
        "--camera", inputs.camera, "-o", result,
    )  # fmt: skip
    return [json.loads(line) for line in result.read_text(encoding="utf-8").splitlines()]


def differences(before: list[dict], after: list[dict]) -> list[str]:
    """Names each image and the fields of it that differ; JSON keeps every bit of a double."""
    if len(before) != len(after):
        return [f"{len(before)} images before, {len(after)} after"]
    found = []
    for old, new in zip(before, after):
        names = [name for name in ("image", *NUMBERS) if old.get(name) != new.get(name)]
        if names:
            found.append(f"{old['image']}: {', '.join(names)}")
    return found


def compare(before: Path, after: Path, every: list[Inputs], work: Path) -> tuple[Table, list[str]]:
    """Builds and localizes with both checkouts; returns the table and every difference."""
    table = Table("Same numbers before and after", ("images", "map built by", "queries", "posed", "equal"))
    told: list[str] = []
    for inputs in every:
        key = inputs.name.replace(", ", "_").replace(" ", "_")
        maps = {"before": work / f"{key}_before.db", "after": work / f"{key}_after.db"}
        build(before, inputs, maps["before"])
        build(after, inputs, maps["after"])
        reference = localize(before, inputs, maps["before"], work / f"{key}_before.jsonl")
        for builder, map_file in maps.items():
            lines = localize(after, inputs, map_file, work / f"{key}_after_in_{builder}.jsonl")
            found = differences(reference, lines)
            posed = sum(line["success"] for line in lines)
            table.rows.append((inputs.name, builder, len(lines), posed, max(len(lines) - len(found), 0)))
            told += [f"{inputs.name}, map built by {builder}: {line}" for line in found]
    return table, told


@contextlib.contextmanager
def checkout_of(revision: str, work: Path) -> Iterator[Path]:
    """The folder of a checkout; a revision is checked out beside the results while it is needed, with its own kernels."""
    if Path(revision).is_dir():
        yield Path(revision).resolve()
        return
    folder = work / "before"
    added = subprocess.run(
        ["git", "worktree", "add", "--detach", str(folder), revision],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if added.returncode:
        raise Failure(f"{revision} is neither a folder nor a revision: {added.stderr.strip()}")
    try:
        build_kernels(folder)
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True, timeout=300)


def build_kernels(checkout: Path) -> None:
    """Builds the CPU kernels of a checkout into its package, where it has any; installed ones are of another state.

    Raises ``Failure``.
    """
    if not (checkout / "src/CMakeLists.txt").is_file():
        return
    with tempfile.TemporaryDirectory() as folder:
        for arguments in (
            ["-S", checkout / "src", "-B", folder, f"-DPython3_EXECUTABLE={sys.executable}"],
            ["--build", folder, "--parallel", "2"],
        ):
            command = [shutil.which("cmake", path=_SEARCHED) or "cmake", *map(str, arguments)]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=_TIMEOUT, env={**os.environ, "PATH": _SEARCHED}
                )
            except OSError as error:
                raise Failure(f"kernels of {checkout}: cmake cannot run ({error})") from error
            if done.returncode:
                raise Failure(f"kernels of {checkout}: {done.stderr.strip()[-2000:]}")
        built = next(Path(folder).glob("_operators*"), None)
        if built is None:
            raise Failure(f"kernels of {checkout}: pybind11 or OpenMP is missing")
        shutil.copy(built, checkout / "nre_ros")


def main(arguments: list[str] | None = None) -> int:
    """Runs the comparison and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", metavar="BEFORE", help="revision, or folder of a checkout, to compare with")
    parser.add_argument("--after", type=Path, default=ROOT, metavar="CHECKOUT", help="default: this checkout")
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", metavar="DIR", help="folder of real images"
    )
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keeps maps and results here (default: nothing is kept)"
    )
    parser.add_argument("--keyframes", type=int, default=80, help="views in the gallery's map (default 80)")
    parser.add_argument("--queries", type=int, default=40, help="images of the gallery that are localized (default 40)")
    parser.add_argument("--only", choices=("kitchen", "gallery"), help="default: both")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        try:
            with checkout_of(args.before, work) as before:  # first: a wrong revision is reported at once
                every = [] if args.only == "gallery" else kitchen(args.shared, work)
                if args.only != "kitchen":
                    every.append(gallery(work, args.keyframes, args.queries))
                table, found = compare(before, args.after.resolve(), every, work)
        except Failure as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    print(table.to_text())
    print("\n".join(found) if found else "All numbers are equal.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
