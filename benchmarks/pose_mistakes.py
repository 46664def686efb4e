# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How many mistakes in poses, depth and intrinsics ``map build`` notices, and how often it warns about good input.

The mistakes are made with the poses as they are read, after the text formats: what the readers recognise by headers and
numbers is not counted. Good input is a random part of a scene (5 to all images, every 1st to 4th), as it is and with the
noise of SLAM.
The limits of the check follow from ``CALIBRATION``; ``VALIDATION`` has scenes that did not decide about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import Options, Table
from rendered_rooms import CAMERA
from scenes import virtual_gallery_sources
from scipy.spatial.transform import Rotation

from nre_ros.demo import CAMERA as DEMO_CAMERA
from nre_ros.gallery.render import Gallery
from nre_ros.gallery.rgbd import write_rgbd
from nre_ros.gallery.room import build_room
from nre_ros.gallery.sensor import Sensor
from nre_ros.gallery.trajectory import mapping_poses
from nre_ros.geometry import Camera, invert
from nre_ros.keyframes.importers.colmap.model_source import ColmapSource
from nre_ros.keyframes.importers.colmap.poses_source import ColmapPosesSource
from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.pose_agreement.check import PoseCheck, judge
from nre_ros.keyframes.importers.pose_agreement.pairs import ImagePair, PairFinder
from nre_ros.keyframes.importers.pose_frames import POSE_FRAMES
from nre_ros.keyframes.importers.rgbd.folder import RgbdFolderSource

Poses = npt.NDArray[np.float64]

GOOD_PARTS, MISTAKEN_PARTS = 150, 4
"""Random parts of a scene that are checked as they are, and parts in which every mistake is made."""
_MIN_IMAGES = 5
_POSE_NOISE = (0.01, np.radians(0.3))
"""Standard deviation of the noise of each pose: metres (or half a percent of the extent, if that is less) and radians."""
_DEPTH_ERRORS = 0.02
"""Largest error of the scale of depth."""


@dataclass
class _Scene:
    """A source whose matches are kept, so that a check of other poses takes no time.

    Attributes:
        name: Name of the scene.
        source: Images, poses and cameras.
        metric: Whether a wrong scale of the poses can be seen: with depth or 3D points.
    """

    name: str
    source: MapSource
    metric: bool
    names: list[str] = field(init=False)
    poses: Poses = field(init=False)
    _finder: PairFinder = field(init=False)
    _matched: dict[tuple[int, int], ImagePair | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = self.source.names()
        known = [self.source.pose_and_camera(name) for name in self.names]
        self.poses = np.array([T for T, _ in (pair for pair in known if pair is not None)])
        self._finder = PairFinder(self.source, self.names, self.poses)

    def match(self, first: int, second: int) -> ImagePair | None:
        """The pair of two images, matched once."""
        if first > second:
            pair = self.match(second, first)
            return None if pair is None else replace(pair, rays=pair.rays[::-1], depths=pair.depths[::-1])
        if (first, second) not in self._matched:
            self._matched[first, second] = self._finder.match(first, second)
        return self._matched[first, second]

    def check(self, part: Sequence[int], poses: Poses, depth_scale: float = 1.0, explain: bool = False) -> PoseCheck:
        """The verdict about some images with other poses and another unit of depth."""
        finder = _PartFinder(self, part, poses, depth_scale)
        return judge(finder.find(), poses, explain)


class _PartFinder(PairFinder):
    """Finds pairs of a part of a scene."""

    def __init__(self, scene: _Scene, part: Sequence[int], poses: Poses, depth_scale: float) -> None:
        super().__init__(scene.source, [scene.names[i] for i in part], poses)
        self._scene, self._part, self._depth_scale = scene, part, depth_scale

    def match(self, first: int, second: int) -> ImagePair | None:
        pair = self._scene.match(self._part[first], self._part[second])
        return (
            None if pair is None else replace(pair, first=first, second=second, depths=pair.depths * self._depth_scale)
        )


class _OtherCamera(MapSource):
    """A source with other intrinsics."""

    def __init__(self, source: MapSource, factor: float) -> None:
        self._source, self._factor = source, factor

    def names(self) -> list[str]:
        return self._source.names()

    def describe(self) -> dict[str, object]:
        return {}

    def keyframe(self, name, builder):
        raise NotImplementedError

    def pose_and_camera(self, name: str) -> tuple[Poses, Camera]:
        T, camera = self._source.pose_and_camera(name)
        return T, replace(camera, fx=camera.fx * self._factor, fy=camera.fy * self._factor)

    def image_to_check(self, name: str):
        return self._source.image_to_check(name)

    def depth_to_check(self, name: str):
        return self._source.depth_to_check(name)


# --- mistakes ---------------------------------------------------------------------------------------


def _quaternions(poses: Poses, order: list[int]) -> Poses:
    out = poses.copy()
    out[:, :3, :3] = Rotation.from_quat(Rotation.from_matrix(poses[:, :3, :3]).as_quat()[:, order]).as_matrix()
    return out


def _scaled(poses: Poses, factor: float) -> Poses:
    out = poses.copy()
    out[:, :3, 3] *= factor
    return out


def _transposed(poses: Poses) -> Poses:
    out = poses.copy()
    out[:, :3, :3] = np.swapaxes(poses[:, :3, :3], 1, 2)
    return out


def _left_handed(poses: Poses) -> Poses:
    mirror = np.diag([1.0, -1.0, 1.0, 1.0])
    return np.array([mirror @ T @ mirror for T in poses])


def _body(poses: Poses, place: Sequence[float] = (0, 0, 0)) -> Poses:
    T_body_cam = POSE_FRAMES["body"][0].copy()
    T_body_cam[:3, 3] = place
    return poses @ invert(T_body_cam)


_Mistake = Callable[[Poses, np.random.Generator], Poses]
MISTAKES: dict[str, tuple[str, _Mistake]] = {
    "shuffled": ("shuffled", lambda T, rng: T[rng.permutation(len(T))]),
    "inverted": ("inverted", lambda T, rng: invert(T)),
    "rotation inverted": ("inverted", lambda T, rng: _transposed(T)),
    "scaled x 0.1": ("scaled", lambda T, rng: _scaled(T, 0.1)),
    "scaled x 0.5": ("scaled", lambda T, rng: _scaled(T, 0.5)),
    "scaled x 2": ("scaled", lambda T, rng: _scaled(T, 2.0)),
    "scaled x 10": ("scaled", lambda T, rng: _scaled(T, 10.0)),
    "shifted by 1": ("shifted", lambda T, rng: np.roll(T, 1, axis=0)),
    "shifted by -1": ("shifted", lambda T, rng: np.roll(T, -1, axis=0)),
    "w first (EuRoC)": ("convention", lambda T, rng: _quaternions(T, [3, 0, 1, 2])),
    "w last read as first": ("convention", lambda T, rng: _quaternions(T, [1, 2, 3, 0])),
    "robot's body": ("convention", lambda T, rng: _body(T)),
    "base_link": ("convention", lambda T, rng: _body(T, (0.2, 0.0, 0.6))),
    "OpenGL axes": ("convention", lambda T, rng: T @ np.diag([1.0, -1.0, -1.0, 1.0])),
    "left-handed": ("convention", lambda T, rng: _left_handed(T)),
}
"""Name -> kind, and what becomes of the poses."""
DEPTH_UNITS = (0.001, 0.1, 0.2, 5.0, 10.0, 1000.0)
FOCAL_LENGTHS = (0.5, 0.75, 1.5, 2.0)


# --- scenes -----------------------------------------------------------------------------------------


def _room(folder: Path, seed: int, camera: Camera, keyframes: int) -> MapSource:
    path = folder / f"room_{seed}"
    if not (path / "cameras.txt").exists():
        poses = mapping_poses(keyframes=keyframes, seed=seed)
        write_rgbd(path, Gallery(build_room(seed)), camera, poses, sensor=Sensor(noise=3.0), seed=seed)
    return RgbdFolderSource(
        path / "images", path / "depth", path / "poses.txt", path / "list.txt", path / "cameras.txt"
    )


def _kitchen(options: Options) -> MapSource:
    folder = options.data("data/kitchen")
    lists = [folder / name for name in ("images", "depth", "map_poses.txt", "map.txt", "sparse/cameras.txt")]
    return RgbdFolderSource(*lists)


def _fountain(options: Options, points: bool) -> MapSource:
    folder = options.data("data/fountain")
    kind = ColmapSource if points else ColmapPosesSource
    return kind(folder / "sparse", folder / "images")


def _lund_door(options: Options) -> MapSource:
    folder = options.data("data/lund_door")
    return ColmapSource(folder / "sparse", folder / "images")


CALIBRATION: dict[str, Callable[[Options], _Scene]] = {
    "virtual_gallery": lambda options: _Scene("virtual_gallery", virtual_gallery_sources(options)[0], False),
    "lund_door": lambda options: _Scene("lund_door", _lund_door(options), True),
    "room_11": lambda options: _Scene("room_11", _room(options.folder, 11, CAMERA, 48), True),
    "room_12": lambda options: _Scene("room_12", _room(options.folder, 12, CAMERA, 80), True),
}
VALIDATION: dict[str, Callable[[Options], _Scene]] = {
    "kitchen": lambda options: _Scene("kitchen", _kitchen(options), True),
    "gallery": lambda options: _Scene("gallery", _room(options.folder, 0, DEMO_CAMERA, 60), True),
    "fountain": lambda options: _Scene("fountain", _fountain(options, points=False), False),
}
SETS = {**CALIBRATION, **VALIDATION}


def run(options: Options) -> Iterator[Table]:
    """Yields one table for each scene."""
    for name in options.selected_sets(SETS):
        yield _measure(SETS[name](options), name in CALIBRATION, options.seed)


def _measure(scene: _Scene, calibration: bool, seed: int) -> Table:
    rng = np.random.default_rng(seed)
    use = "the limits follow from this scene and others" if calibration else "no limit was chosen with this scene"
    table = Table(
        f"{scene.name}, {len(scene.names)} images ({use})",
        ("input", "checked", "noticed", "refused", "not comparable", "share of agreeing pairs"),
    )
    parts = [_part(len(scene.names), rng) for _ in range(GOOD_PARTS)]
    noisy = [
        scene.check(part, _noisy(scene.poses[part], rng), rng.uniform(1 - _DEPTH_ERRORS, 1 + _DEPTH_ERRORS))
        for part in parts
    ]
    good = [scene.check(part, scene.poses[part]) for part in parts]
    table.rows.append(_row("good", good))
    table.rows.append(
        _row(f"good, with noise ({100 * _POSE_NOISE[0]:g} cm, {np.degrees(_POSE_NOISE[1]):g} degrees)", noisy)
    )
    kinds: dict[str, list[PoseCheck]] = {}
    parts = [list(range(len(scene.names))), *(_part(len(scene.names), rng) for _ in range(MISTAKEN_PARTS - 1))]
    for name, (kind, mistake) in MISTAKES.items():
        mistaken = [(part, mistake(scene.poses[part], rng)) for part in parts]
        checks = [scene.check(part, poses) for part, poses in mistaken if not _equivalent(scene.poses[part], poses)]
        visible = scene.metric or kind != "scaled"
        table.rows.append(_row(name if visible else f"{name} (no depth: the map is as good)", checks))
        kinds.setdefault(kind if visible else "invisible", []).extend(checks)
    for factor in DEPTH_UNITS if _has_depth(scene) else ():
        checks = [scene.check(part, scene.poses[part], factor) for part in parts]
        table.rows.append(_row(f"depth x {factor:g}", checks))
        kinds.setdefault("depth", []).extend(checks)
    for factor in FOCAL_LENGTHS:
        other = _Scene(scene.name, _OtherCamera(scene.source, factor), scene.metric)
        checks = [other.check(part, scene.poses[part]) for part in parts[:2]]
        table.rows.append(_row(f"focal length x {factor:g} (not in the sum)", checks))
    visible_checks = [check for kind, found in kinds.items() if kind != "invisible" for check in found]
    table.rows.append(_row("all mistakes", visible_checks))
    if kinds.get("invisible"):
        table.rows.append(
            _row("all mistakes, invisible ones too", [check for found in kinds.values() for check in found])
        )
    alarms, noisy_alarms, noticed = (sum(not check.good for check in found) for found in (good, noisy, visible_checks))
    table.notes.append(
        f"{noticed} of {len(visible_checks)} mistakes noticed ({noticed / len(visible_checks):.1%}; to reach: 95%), "
        f"{alarms} of {len(good)} good inputs warned about ({alarms / len(good):.1%}; to reach: at most 1%), "
        f"{noisy_alarms} of {len(noisy)} with noise ({noisy_alarms / len(noisy):.1%})."
    )
    return table


def _part(count: int, rng: np.random.Generator) -> list[int]:
    """Random part of a scene: consecutive images, or every 2nd to 4th of them."""
    strides = [stride for stride in (1, 2, 3, 4) if count // stride >= _MIN_IMAGES]
    stride = int(rng.choice(strides))
    length = int(rng.integers(_MIN_IMAGES, count // stride + 1))
    start = int(rng.integers(0, count - (length - 1) * stride))
    return list(range(start, start + length * stride, stride))[:length]


def _noisy(poses: Poses, rng: np.random.Generator) -> Poses:
    """Poses with the noise of SLAM."""
    out = poses.copy()
    spread = np.linalg.norm(np.ptp(poses[:, :3, 3], axis=0))
    out[:, :3, 3] += rng.normal(scale=min(_POSE_NOISE[0], 0.005 * spread), size=(len(poses), 3))
    out[:, :3, :3] @= Rotation.from_rotvec(rng.normal(scale=_POSE_NOISE[1], size=(len(poses), 3))).as_matrix()
    return out


def _equivalent(poses: Poses, mistaken: Poses) -> bool:
    """Whether a mistake only moved the map's frame: mirroring level cameras upside down changes no relative pose."""
    relative, found = (invert(T[0]) @ T for T in (poses, mistaken))
    return bool(np.allclose(relative, found, atol=2e-3))


def _has_depth(scene: _Scene) -> bool:
    return isinstance(scene.source, RgbdFolderSource)


def _row(name: str, checks: Sequence[PoseCheck]) -> tuple[object, ...]:
    shares = [check.agreeing / check.pairs for check in checks if check.pairs]
    return (
        name,
        len(checks),
        sum(not check.good for check in checks),
        sum(check.refused for check in checks),
        sum(not check.pairs for check in checks),
        f"{min(shares):.2f} to {max(shares):.2f}" if shares else None,
    )
