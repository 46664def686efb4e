# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topics ``map_points`` and ``fix_points``: the map's points, and those of the last accepted pose, as PointCloud2."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from nre_ros.errors import MapFormatError
from nre_ros.gate.decision import Decision
from nre_ros.keyframes.storage.map_origin import NO_ORIGIN
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.display_frame import DisplayFrame
from nre_ros.node.interfaces import DisplayTopic, MapVersion, RateLimiter, displayed
from nre_ros.node.parameters import value_of
from nre_ros.node.ros_libraries import LIBRARIES
from nre_ros.pictures.point_colours import point_colours

MAX_CLOUD_POINTS = 200_000
"""Points of the map that are sent at most: 3.2 MB, which RViz draws smoothly."""
MAX_CLOUD_KEYFRAMES = 300
"""Keyframes whose points are sent at most, evenly chosen; reading one takes about a millisecond."""
MAP_CLOUD_SECONDS = 10.0
"""Between two clouds of a map that grows."""


class PointClouds:
    """Publishes point clouds where somebody subscribes; they cost nothing otherwise.

    ``map_points`` is latched and has no stamp, so that RViz shows it at any time.  It has the fields x, y, z (metres, in
    the frame of ``DisplayFrame``) and rgb.  ``fix_points`` has the map points in view of the last image whose pose was
    accepted; its field ``residual`` is the point's Neural Reprojection Error as a fraction of ln|Omega|: 0 is a perfect
    match and 1 is no match.  An image without an accepted pose gives an empty cloud.

    For the thread that may use the map.
    """

    def __init__(self, node: Node, frame: DisplayFrame):
        self._node, self._frame = node, frame
        self._map = DisplayTopic(node, PointCloud2, "map_points", latched=True)
        self._fix = DisplayTopic(node, PointCloud2, "fix_points")
        self._rate = RateLimiter()
        self._published = MapVersion()
        self._next_map = 0.0  # monotonic seconds

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody subscribes to one of the topics."""
        return self._map.has_subscribers or self._fix.has_subscribers

    @property
    def map_has_subscribers(self) -> bool:
        """Whether somebody subscribes to ``map_points``."""
        return self._map.has_subscribers

    def update(self, result: LocalizationResult, decision: Decision, stamp: int, store: KeyframeStore) -> None:
        """Publishes the points of one image, at most ``debug_rate`` times a second.

        Args:
            result: What the localizer found in the image.
            decision: What the gate decided about it.
            stamp: The image's stamp in nanoseconds.
            store: The open map.

        Raises:
            MapError: The map cannot be read.
        """
        if self._fix.has_subscribers and self._rate.allows(value_of(self._node, "debug_rate")):
            self._fix.publish(fix_cloud(result, decision, *self._frame.header(store, stamp)))

    def publish_map(self, store: KeyframeStore) -> None:
        """Publishes the map's points, where somebody subscribes and they are not published yet.

        Args:
            store: The open map.

        Raises:
            MapError: The map cannot be read.
        """
        if not self._map.has_subscribers or self._published.is_of(store):
            return
        now = time.monotonic()
        if self._published.is_same_map(store) and now < self._next_map:
            return
        version = MapVersion.of(store)
        self._map.publish(map_cloud(store, *self._frame.header(store)))
        self._published, self._next_map = version, now + MAP_CLOUD_SECONDS

    def close(self) -> None:
        """Ends the topics."""
        self._map.close()
        self._fix.close()


def fix_cloud(
    result: LocalizationResult,
    decision: Decision,
    header: Header,
    origin: npt.NDArray[np.float64] = NO_ORIGIN,
) -> PointCloud2:
    """Returns the map points in view of an image, from green (the image agrees) to red.

    The cloud is empty if the gate accepted no pose, or an alternative pose, at which the points were not compared.

    Args:
        result: What the localizer found in the image.
        decision: What the gate decided about it.
        header: Stamp and frame of the message.
        origin: [3] origin of this frame in the map.
    """
    points, losses = np.zeros((0, 3)), np.zeros(0, np.float32)
    if decision.accepted and result.points is not None and result.losses is not None:
        in_view = np.flatnonzero(result.losses < 1)
        points, losses = result.points[in_view] - origin, result.losses[in_view].clip(0, 1).astype(np.float32)
    shade = (255 * losses).astype(np.uint8)
    colours = np.stack([shade, 255 - shade, np.full_like(shade, 51)], axis=1)
    return _cloud(header, points, colours, residual=losses)


def map_cloud(store: KeyframeStore, header: Header, origin: npt.NDArray[np.float64] = NO_ORIGIN) -> PointCloud2:
    """Returns the points of a map, at most ``MAX_CLOUD_POINTS`` of them, in the colours of the keyframes' pictures.

    Args:
        store: The open map.
        header: Stamp and frame of the message.
        origin: [3] origin of this frame in the map.

    Raises:
        MapError: The map cannot be read.
    """
    ids = np.concatenate([np.zeros(0, np.int64), *(scan.ids for scan in store.scan())])
    ids = ids[displayed(len(ids), MAX_CLOUD_KEYFRAMES)]
    points, colours = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)]
    # a reader of its own, without a cache: the cache of the localizer keeps what localization needs
    with KeyframeStore.open(store.path, cache_bytes=0) as reader:
        for keyframe_id in ids.tolist():
            try:
                keyframe = reader.get(keyframe_id)
            except MapFormatError:  # damaged; localization reports it
                continue
            shown = displayed(len(keyframe.points), max(MAX_CLOUD_POINTS // len(ids), 1))
            points.append(keyframe.points[shown] - origin)
            colours.append(point_colours(keyframe)[shown])
    return _cloud(header, np.concatenate(points), np.concatenate(colours))


def _cloud(header: Header, points: npt.NDArray, colours: npt.NDArray[np.uint8], **more: npt.NDArray) -> PointCloud2:
    """Points [N, 3] with colours [N, 3], as PCL and RViz pack them: red, green, blue in the bits of one float."""
    red, green, blue = colours.astype(np.uint32).T
    packed = (red << 16 | green << 8 | blue).astype(np.uint32).view(np.float32)
    x, y, z = np.ascontiguousarray(points.T, dtype=np.float32)
    return LIBRARIES.point_cloud(header, {"x": x, "y": y, "z": z, "rgb": packed, **more})
