# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Conversion of keyframes and cameras to the rows of a map file and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nre_ros.errors import MapError
from nre_ros.geometry import Camera, move_origin
from nre_ros.keyframes.storage.blobs import (
    PACKED,
    PACKED_LIMIT,
    decode_array,
    decode_stack,
    dequantise,
    encode_array,
    quantise,
)
from nre_ros.keyframes.storage.database import Row
from nre_ros.keyframes.storage.map_origin import NO_ORIGIN, decode_points, encode_points, encode_pose
from nre_ros.keyframes.types import Keyframe
from nre_ros.pose_faults import pose_fault


@dataclass(frozen=True)
class KeyframeScan:
    """Several keyframes without their points, for retrieval and overviews.

    Attributes:
        ids: [M] int64.
        names: M names.
        stamps: [M] int64, nanoseconds since the epoch, 0 where unknown.
        camera_ids: [M] int64, ids for ``KeyframeStore.camera``.
        poses: [M, 4, 4] float64, ``T_map_cam``.
        descriptors: [M, D] int8; times ``scales`` they are the global descriptors.
        scales: [M] float32.
        point_counts: [M] int64.
    """

    ids: npt.NDArray[np.int64]
    names: tuple[str, ...]
    stamps: npt.NDArray[np.int64]
    camera_ids: npt.NDArray[np.int64]
    poses: npt.NDArray[np.float64]
    descriptors: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    point_counts: npt.NDArray[np.int64]

    def global_descriptors(self) -> npt.NDArray[np.float32]:
        """Returns the global descriptors [M, D]."""
        return dequantise(self.descriptors, self.scales)


def moved_columns(
    columns: Row,
    point_columns: Row,
    T_map_cam: npt.ArrayLike,
    points: npt.ArrayLike | None,
    origin: npt.NDArray[np.float64] = NO_ORIGIN,
) -> tuple[bytes, bytes]:
    """Returns the columns ``pose`` and ``xyz`` of a keyframe at another pose.

    Args:
        columns: The keyframe's row of ``keyframes``.
        point_columns: The keyframe's row of ``points``.
        T_map_cam: The new pose [4, 4].
        points: New points [N, 3]; without them the points move with the camera.
        origin: [3] of the map.

    Raises:
        MapError: The pose is not rigid, or the points have another shape or are not finite.
    """
    name, T_old, old = columns[1], decode_array(columns[4]), decode_array(point_columns[1])
    T_new = np.asarray(T_map_cam, dtype=np.float64)
    if pose_fault("", T_new):
        raise MapError(f"keyframe {name!r}: its new pose is not a rigid motion")
    if points is None:
        T = (move_origin(T_new, origin) if origin.any() else T_new) @ np.linalg.inv(T_old)
        points = old @ T[:3, :3].T + T[:3, 3] + origin
    points = np.asarray(points)
    if np.shape(points) != old.shape:
        raise MapError(f"keyframe {name!r}: points have shape {np.shape(points)}, expected {old.shape}")
    if not np.isfinite(points).all():
        raise MapError(f"keyframe {name!r}: points is not finite")
    return encode_pose(T_new, origin), encode_points(points, origin)


def point_columns(keyframe: Keyframe, origin: npt.NDArray[np.float64] = NO_ORIGIN) -> Row:
    """Makes the row of ``points`` of a keyframe.

    Args:
        keyframe: The keyframe.
        origin: [3] of the map.

    Returns:
        The columns without the keyframe's id.
    """
    descriptors: list[bytes] = []
    for rows in (keyframe.coarse, keyframe.fine, keyframe.background):
        values, scales = quantise(rows, PACKED_LIMIT)
        descriptors += [encode_array(values, PACKED), _encode_scales(scales)]
    return (
        encode_points(keyframe.points, origin),
        _encode_ids(keyframe.point_ids),
        *descriptors,
        int(keyframe.background_cells),
    )


def keyframe_columns(keyframe: Keyframe, camera_id: int, origin: npt.NDArray[np.float64] = NO_ORIGIN) -> Row:
    """Makes the row of ``keyframes`` of a keyframe.

    Args:
        keyframe: The keyframe.
        camera_id: Id of its camera in the map.
        origin: [3] of the map.

    Returns:
        The columns without the id, namely name, stamp, camera, pose, descriptor, scale and point count.
    """
    values, scales = quantise(np.reshape(keyframe.global_descriptor, (1, -1)))
    return (
        keyframe.name,
        int(keyframe.stamp),
        camera_id,
        encode_pose(keyframe.T_map_cam, origin),
        encode_array(values[0], "|i1"),
        float(scales[0]),
        len(keyframe.points),
    )


def decode_keyframe(
    keyframe_id: int,
    columns: Row,
    points: Row,
    camera: Camera,
    origin: npt.NDArray[np.float64] = NO_ORIGIN,
) -> Keyframe:
    """Makes a keyframe of its rows, without the thumbnail.

    Args:
        keyframe_id: The keyframe's id.
        columns: As ``keyframe_columns`` returns them.
        points: As ``point_columns`` returns them.
        camera: The keyframe's camera.
        origin: [3] of the map.

    Raises:
        ValueError: A blob does not decode, or the blobs do not fit together.
    """
    name, stamp, _, pose, global_descriptor, global_scale, point_count = columns
    xyz, source_ids, *descriptors, background_cells = points
    coarse, fine, background = (
        dequantise(decode_array(values), decode_array(scales))
        for values, scales in zip(descriptors[::2], descriptors[1::2])
    )
    xyz = decode_points(xyz, origin)
    ids = None if source_ids is None else decode_array(source_ids).astype(np.int64)
    lengths = {len(xyz), len(coarse), len(fine), len(xyz if ids is None else ids), point_count}
    if xyz.shape != (len(xyz), 3) or len(lengths) != 1:
        raise ValueError(f"keyframe {name!r} has columns of different lengths")
    global_descriptor = decode_array(global_descriptor) * np.float32(global_scale)
    return Keyframe(
        name=name,
        stamp=stamp,
        T_map_cam=move_origin(decode_array(pose), -origin) if origin.any() else decode_array(pose),
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


def decode_scan(rows: list[Row], origin: npt.NDArray[np.float64] = NO_ORIGIN) -> KeyframeScan:
    """Makes a scan of rows of ``keyframes``.

    Args:
        rows: The rows without checksums, at least one.
        origin: [3] of the map.

    Returns:
        The scan, in the order of the rows.

    Raises:
        ValueError: A blob does not decode, or has another shape.
    """
    ids, names, stamps, cameras, pose_blobs, descriptor_blobs, scales, counts = zip(*rows)
    descriptors, poses = decode_stack(list(descriptor_blobs)), decode_stack(list(pose_blobs))
    if poses.shape[1:] != (4, 4) or descriptors.ndim != 2:
        raise ValueError(f"poses of shape {poses.shape[1:]}, descriptors of shape {descriptors.shape[1:]}")
    return KeyframeScan(
        np.array(ids, np.int64),
        names,
        np.array(stamps, np.int64),
        np.array(cameras, np.int64),
        move_origin(poses, -origin) if origin.any() else poses,
        descriptors,
        np.array(scales, np.float32),
        np.array(counts, np.int64),
    )


def camera_columns(camera: Camera) -> Row:
    """Makes the row of ``cameras`` of a camera.

    Args:
        camera: The camera.

    Returns:
        The columns without the id.
    """
    values = np.array((camera.fx, camera.fy, camera.cx, camera.cy, *camera.distortion))
    return camera.model, camera.width, camera.height, encode_array(values, "<f8")


def decode_camera(columns: Row) -> Camera:
    """Makes a camera of its row.

    Args:
        columns: As ``camera_columns`` returns them.

    Returns:
        The camera.

    Raises:
        ValueError: The columns are no camera.
    """
    model, width, height, intrinsics = columns
    fx, fy, cx, cy, *distortion = decode_array(intrinsics).tolist()
    return Camera(width, height, fx, fy, cx, cy, model, tuple(distortion))


def _encode_scales(scales: npt.NDArray[np.float32]) -> bytes:
    """Encodes in half precision, a fortieth of a descriptor's step, unless a scale lies outside its range."""
    least, most = (scales.min(), scales.max()) if len(scales) else (1.0, 1.0)
    half = np.finfo(np.float16)
    return encode_array(scales, "<f2" if half.tiny <= least and most <= half.max else "<f4")


def _encode_ids(ids: npt.NDArray[np.int64] | None) -> bytes | None:
    if ids is None:
        return None
    ids = np.asarray(ids, dtype=np.int64)
    narrow = np.iinfo(np.int32)
    fits = ids.size == 0 or (ids.min() >= narrow.min and ids.max() <= narrow.max)
    return encode_array(ids, "<i4" if fits else "<i8")
