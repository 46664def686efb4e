# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Keyframes to database columns and back, and what makes a keyframe fit to be stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nre_ros.errors import MapError
from nre_ros.geometry import Camera
from nre_ros.keyframes.storage.blobs import decode_array, decode_stack, dequantise, encode_array, quantise
from nre_ros.keyframes.types import Keyframe
from nre_ros.pose_faults import pose_fault

DIMENSIONS = ("coarse_channels", "fine_channels", "background", "global_channels")
"""The lengths that all keyframes of one map share, as metadata names them."""


@dataclass(frozen=True)
class KeyframeScan:
    """What the table ``keyframes`` holds about several keyframes, for retrieval and overviews.

    ids [M] int64; names; stamps [M] int64 ns; camera_ids [M] rows of ``cameras``; poses [M, 4, 4]
    float64 camera to map; descriptors [M, D] int8, which times scales [M] float32 are the global
    descriptors; point_counts [M].
    """

    ids: np.ndarray
    names: tuple[str, ...]
    stamps: np.ndarray
    camera_ids: np.ndarray
    poses: np.ndarray
    descriptors: np.ndarray
    scales: np.ndarray
    point_counts: np.ndarray


def check_keyframe(keyframe: Keyframe) -> dict[str, int]:
    """The keyframe's ``DIMENSIONS``; ``MapError`` when it is not fit to be stored."""
    name = keyframe.name
    if not name or not isinstance(name, str):
        raise MapError(f"a keyframe needs a name, got {name!r}")
    n = len(keyframe.points)
    ids = keyframe.point_ids
    shapes = {
        "pose": (np.shape(keyframe.T_map_cam), (4, 4)),
        "points": (np.shape(keyframe.points), (n, 3)),
        "point ids": (np.shape(keyframe.points)[:1] if ids is None else np.shape(ids), (n,)),
        "coarse descriptors": (np.shape(keyframe.coarse), (n, *np.shape(keyframe.coarse)[1:2])),
        "fine descriptors": (np.shape(keyframe.fine), (n, *np.shape(keyframe.fine)[1:2])),
        "background": (np.shape(keyframe.background)[1:], np.shape(keyframe.coarse)[1:]),
        "global descriptor": (np.shape(keyframe.global_descriptor), (np.size(keyframe.global_descriptor),)),
    }
    for what, (shape, expected) in shapes.items():
        if shape != expected:
            raise MapError(f"keyframe {name!r}: {what} have shape {shape}, expected {expected}")
    for what in ("T_map_cam", "points", "coarse", "fine", "background", "global_descriptor"):
        if not np.isfinite(getattr(keyframe, what)).all():
            raise MapError(f"keyframe {name!r}: {what} is not finite")
    if pose_fault("", keyframe.T_map_cam):
        raise MapError(f"keyframe {name!r}: its pose is not a rigid motion")
    if not -(2**63) <= keyframe.stamp < 2**63:
        raise MapError(f"keyframe {name!r}: its stamp {keyframe.stamp} is no number of nanoseconds of 64 bits")
    return {
        "coarse_channels": keyframe.coarse.shape[1],
        "fine_channels": keyframe.fine.shape[1],
        "background": len(keyframe.background),
        "global_channels": keyframe.global_descriptor.size,
    }


def moved_columns(columns: tuple, point_row: tuple, T_map_cam, points) -> tuple[bytes, bytes]:
    """The columns pose and xyz of a keyframe at another pose, see ``KeyframeStore.update_pose``.

    columns, point_row: its rows as they are.  Raises ``MapError`` for what is not fit to be stored.
    """
    name, T_old, old = columns[1], decode_array(columns[4]), decode_array(point_row[1])
    T_new = np.asarray(T_map_cam, dtype=np.float64)
    if pose_fault("", T_new):
        raise MapError(f"keyframe {name!r}: its new pose is not a rigid motion")
    if points is None:
        T = T_new @ np.linalg.inv(T_old)
        points = old @ T[:3, :3].T + T[:3, 3]
    if np.shape(points) != old.shape:
        raise MapError(f"keyframe {name!r}: points have shape {np.shape(points)}, expected {old.shape}")
    if not np.isfinite(points).all():
        raise MapError(f"keyframe {name!r}: points is not finite")
    return encode_array(T_new, "<f8"), encode_array(points, "<f4")


def point_columns(keyframe: Keyframe) -> tuple:
    """The columns of ``points`` after the keyframe's id."""
    descriptors = []
    for rows in (keyframe.coarse, keyframe.fine, keyframe.background):
        values, scales = quantise(rows)
        descriptors += [encode_array(values, "|i1"), _encode_scales(scales)]
    return (
        encode_array(keyframe.points, "<f4"),
        _encode_ids(keyframe.point_ids),
        *descriptors,
        int(keyframe.background_cells),
    )


def keyframe_columns(keyframe: Keyframe, camera_id: int) -> tuple:
    """The columns of ``keyframes`` after the id: name, stamp, camera, pose, descriptor, scale, points."""
    values, scales = quantise(np.reshape(keyframe.global_descriptor, (1, -1)))
    return (
        keyframe.name,
        int(keyframe.stamp),
        camera_id,
        encode_array(keyframe.T_map_cam, "<f8"),
        encode_array(values[0], "|i1"),
        float(scales[0]),
        len(keyframe.points),
    )


def keyframe_of(keyframe_id: int, columns: tuple, points: tuple, camera: Camera) -> Keyframe:
    """The keyframe of the columns of ``keyframe_columns`` and ``point_columns``.

    Raises ``ValueError`` for blobs that do not decode or do not fit together.
    """
    name, stamp, _, pose, global_descriptor, global_scale, point_count = columns
    xyz, source_ids, *descriptors, background_cells = points
    coarse, fine, background = (
        dequantise(decode_array(values), decode_array(scales))
        for values, scales in zip(descriptors[::2], descriptors[1::2])
    )
    xyz = decode_array(xyz)
    ids = None if source_ids is None else decode_array(source_ids).astype(np.int64)
    lengths = {len(xyz), len(coarse), len(fine), len(xyz if ids is None else ids), point_count}
    if xyz.shape != (len(xyz), 3) or len(lengths) != 1:
        raise ValueError(f"keyframe {name!r} has columns of different lengths")
    global_descriptor = decode_array(global_descriptor) * np.float32(global_scale)
    return Keyframe(
        name=name,
        stamp=stamp,
        T_map_cam=decode_array(pose),
        camera=camera,
        points=xyz,
        coarse=coarse,
        fine=fine,
        background=background,
        background_cells=background_cells,
        global_descriptor=global_descriptor,
        point_ids=ids,
        id=keyframe_id,
    )


def scan_of(rows: list[tuple]) -> KeyframeScan:
    """Rows of ``keyframes``, without their checksums; ``ValueError`` for blobs that do not decode."""
    ids, names, stamps, cameras, poses, descriptors, scales, counts = zip(*rows)
    descriptors, poses = decode_stack(list(descriptors)), decode_stack(list(poses))
    if poses.shape[1:] != (4, 4) or descriptors.ndim != 2:
        raise ValueError(f"poses of shape {poses.shape[1:]}, descriptors of shape {descriptors.shape[1:]}")
    return KeyframeScan(
        np.array(ids, np.int64),
        names,
        np.array(stamps, np.int64),
        np.array(cameras, np.int64),
        poses,
        descriptors,
        np.array(scales, np.float32),
        np.array(counts, np.int64),
    )


def camera_columns(camera: Camera) -> tuple:
    """The columns of ``cameras`` after the id."""
    values = np.array((camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion))
    return camera.model, camera.width, camera.height, encode_array(values, "<f8")


def camera_of(columns: tuple) -> Camera:
    """The camera of the columns of ``camera_columns``; ``ValueError`` if they hold none."""
    model, width, height, intrinsics = columns
    fx, fy, cx, cy, *distortion = decode_array(intrinsics).tolist()
    return Camera(width, height, fx, fy, cx, cy, model, tuple(distortion))


def _encode_scales(scales: np.ndarray) -> bytes:
    """Half precision, a twentieth of an int8's step, unless a scale lies outside its range."""
    least, most = (scales.min(), scales.max()) if len(scales) else (1.0, 1.0)
    half = np.finfo(np.float16)
    return encode_array(scales, "<f2" if half.tiny <= least and most <= half.max else "<f4")


def _encode_ids(ids: np.ndarray | None) -> bytes | None:
    if ids is None:
        return None
    ids = np.asarray(ids, dtype=np.int64)
    narrow = np.iinfo(np.int32)
    fits = ids.size == 0 or (ids.min() >= narrow.min and ids.max() <= narrow.max)
    return encode_array(ids, "<i4" if fits else "<i8")
