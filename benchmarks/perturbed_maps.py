# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Copies of maps without a keyframe, or with known errors: of all keyframes' poses, of depth and focal length, and of single keyframes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.keyframes.types import Keyframe, compact_points

DRIFT_LENGTH = 12.0
"""Keyframes along which the drift changes (a Gaussian process with a squared exponential of this length)."""


@dataclass(frozen=True)
class Perturbation:
    """Errors of a map.

    Attributes:
        random: whether each keyframe errs by itself; otherwise the error drifts slowly along the recording.
        metres: root mean square of the error of the position.
        degrees: root mean square of the error of the rotation.
        depth: factor of the depth of all points.
        focal: factor of the focal length, of the map and of the queries.
    """

    random: bool = True
    metres: float = 0.0
    degrees: float = 0.0
    depth: float = 1.0
    focal: float = 1.0

    def camera(self, camera: Camera) -> Camera:
        """Returns the camera with its wrong focal length."""
        return replace(camera, fx=camera.fx * self.focal, fy=camera.fy * self.focal)

    def errors(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draws the errors [count, 6] of positions (metres) and rotation vectors (radians).

        Drift has no mean: a motion of the whole map moves its frame, and is no error of any pose in it.
        """
        xi = rng.normal(size=(count, 6))
        if not self.random:
            apart = np.arange(count)[:, None] - np.arange(count)
            xi = np.linalg.cholesky(np.exp(-0.5 * (apart / DRIFT_LENGTH) ** 2) + 1e-8 * np.eye(count)) @ xi
            xi -= xi.mean(0)
        return xi * np.repeat([self.metres, np.radians(self.degrees)], 3) / np.sqrt(3)


def perturb(source: Path, target: Path, perturbation: Perturbation, seed: int) -> None:
    """Writes a copy of a map with errors."""
    rng = np.random.default_rng([seed, 16])
    with KeyframeStore.open(source) as store:
        ids = list(store.names().values())
        errors = perturbation.errors(len(ids), rng)
        _write(store, target, (_moved(store.get(i), xi, perturbation) for i, xi in zip(ids, errors)))


def perturb_single(source: Path, target: Path, share: float, seed: int) -> dict[str, str]:
    """Writes a copy of a map in which some keyframes are wrong by more than 10 cm or 3 degrees.

    Returns the wrong keyframes and what is wrong with them.
    """
    rng = np.random.default_rng([seed, 17])
    wrong: dict[str, str] = {}
    with KeyframeStore.open(source) as store:
        keyframes = [store.get(i) for i in store.names().values()]
        count = max(1, round(share * len(keyframes)))
        chosen = rng.choice(len(keyframes), count, replace=False)
        for number, i in enumerate(chosen):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            if number % 2:
                size = np.radians(np.exp(rng.uniform(np.log(3), np.log(30))))
                xi = np.concatenate([np.zeros(3), size * direction])
                wrong[keyframes[i].name] = f"{np.degrees(size):.1f} degrees"
            else:
                size = np.exp(rng.uniform(np.log(0.1), np.log(1.0)))
                xi = np.concatenate([size * direction, np.zeros(3)])
                wrong[keyframes[i].name] = f"{size:.2f} m"
            keyframes[i] = _moved(keyframes[i], xi, Perturbation())
        _write(store, target, keyframes)
    return wrong


def without(source: Path, target: Path, name: str) -> None:
    """Writes a copy of a map without the keyframe of that name."""
    with KeyframeStore.open(source) as store:
        _write(store, target, (replace(store.get(i), id=-1) for other, i in store.names().items() if other != name))


def _moved(keyframe: Keyframe, xi: np.ndarray, perturbation: Perturbation) -> Keyframe:
    """A keyframe with its camera moved by xi, together with its points, and with wrong depth and focal length."""
    T = keyframe.T_map_cam.copy()
    local = (keyframe.points - T[:3, 3]) @ T[:3, :3] * perturbation.depth
    local = local / [perturbation.focal, perturbation.focal, 1.0]
    T[:3, :3] = Rotation.from_rotvec(xi[3:]).as_matrix() @ T[:3, :3]
    T[:3, 3] += xi[:3]
    points = compact_points((local @ T[:3, :3].T + T[:3, 3]).astype(keyframe.points.dtype))
    return replace(keyframe, T_map_cam=T, points=points, camera=perturbation.camera(keyframe.camera), id=-1)


def _write(store: KeyframeStore, target: Path, keyframes) -> None:
    metadata = store.metadata()
    with KeyframeStore.create(
        target,
        metadata["backbone"],
        metadata["weights_hash"],
        metadata["frame_id"],
        overwrite=True,
        retrieval=metadata["retrieval"],
    ) as copy:
        for keyframe in keyframes:
            copy.add(keyframe)
