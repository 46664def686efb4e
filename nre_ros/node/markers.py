# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topics ``markers/map`` and ``markers/fix``: the map's cameras, and what the last image saw of it, for RViz."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Point
from rclpy.node import Node
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from nre_ros.gate.decision import Decision
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.conversions import stamp_message
from nre_ros.node.parameters import value_of
from nre_ros.node.topics import Pace, Topic
from nre_ros.pictures.view_3d import camera_size

MAX_CAMERAS = 2000
MAX_POINTS = 2000
"""Drawn at most, evenly chosen: a message of more takes RViz, and this node, too long."""
_CORNERS = np.array([[0, 0, 0], [-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1]])
_EDGES = [0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1]
_BLUE, _ORANGE, _RED = (0.18, 0.44, 0.87, 0.7), (1.0, 0.6, 0.1, 1.0), (0.85, 0.2, 0.3, 1.0)


class Markers:
    """Publishes where somebody subscribes; both topics are latched.  For the thread that may use the map."""

    def __init__(self, node: Node, frame: str):
        self._node, self._frame = node, frame
        self._map = Topic(node, MarkerArray, "markers/map", latched=True)
        self._fix = Topic(node, MarkerArray, "markers/fix", latched=True)
        self._pace = Pace()
        self._shown: tuple | None = None  # the map and its revision that was published
        self._size = 0.1

    @property
    def wanted(self) -> bool:
        return self._map.wanted or self._fix.wanted

    def update(self, result: LocalizationResult, decision: Decision | None, stamp: int, store: KeyframeStore) -> None:
        """Shows the map, where it has changed, and what the image at ``stamp`` ns saw of it."""
        if not self.wanted or not self._pace.allows(value_of(self._node, "debug_rate")):
            return
        self.show_map(store, stamp)
        if self._fix.wanted:
            header = Header(frame_id=self._frame, stamp=stamp_message(stamp))
            self._fix.publish(MarkerArray(markers=self._of_fix(result, decision, store, header)))

    def show_map(self, store: KeyframeStore, stamp: int = 0) -> None:
        """Publishes the map's cameras, where somebody subscribes who has not got them."""
        shown = str(store.path), store.revision
        if not self._map.wanted or shown == self._shown:
            return
        poses = np.concatenate([np.zeros((0, 4, 4)), *(scan.poses for scan in store.scan())])
        poses = poses[np.linspace(0, len(poses) - 1, min(len(poses), MAX_CAMERAS)).astype(int)]
        self._size = camera_size(poses, np.zeros((0, 3))) if len(poses) else 0.1
        header = Header(frame_id=self._frame, stamp=stamp_message(stamp))
        self._map.publish(MarkerArray(markers=[self._cameras(header, "keyframes", poses, _BLUE)]))
        self._shown = shown

    def close(self) -> None:
        self._map.close()
        self._fix.close()

    def _of_fix(self, result, decision, store, header) -> list[Marker]:
        poses = np.concatenate([np.zeros((0, 4, 4)), *(scan.poses for scan in store.scan_ids(result.keyframes))])
        markers = [self._cameras(header, "retrieved", poses, _ORANGE)]
        if not result.success:
            return [*markers, *(_nothing(header, namespace) for namespace in ("camera", "points"))]
        believed = decision is not None and decision.accepted
        markers.append(self._cameras(header, "camera", result.T_map_cam[None], _RED if believed else (*_RED[:3], 0.3)))
        return [*markers, _points(header, result, 0.05 * self._size)]

    def _cameras(self, header, namespace: str, poses: np.ndarray, colour) -> Marker:
        """Cameras [K, 4, 4] as pyramids, one list of lines."""
        if not len(poses):
            return _nothing(header, namespace)
        corners = self._size * _CORNERS @ poses[:, :3, :3].transpose(0, 2, 1) + poses[:, None, :3, 3]
        marker = _marker(header, namespace, Marker.LINE_LIST, 0.03 * self._size)
        marker.color = _colour(colour)
        marker.points = _messages(corners[:, _EDGES].reshape(-1, 3))
        return marker


def _points(header, result: LocalizationResult, size: float) -> Marker:
    """The map points in view, from green (the image agrees) to red."""
    shown = np.flatnonzero(result.losses < 1)
    shown = shown[np.linspace(0, len(shown) - 1, min(len(shown), MAX_POINTS)).astype(int)]
    if not len(shown):
        return _nothing(header, "points")
    marker = _marker(header, "points", Marker.POINTS, size)
    marker.scale.y = size
    marker.points = _messages(result.points[shown])
    marker.colors = [_colour((loss, 1 - loss, 0.2, 1.0)) for loss in result.losses[shown].clip(0, 1).tolist()]
    return marker


def _marker(header, namespace: str, kind: int, scale: float) -> Marker:
    marker = Marker(header=header, ns=namespace, type=kind, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    marker.scale.x = scale
    return marker


def _nothing(header, namespace: str) -> Marker:
    return Marker(header=header, ns=namespace, action=Marker.DELETE)


def _messages(points: np.ndarray) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in points.astype(float).tolist()]


def _colour(rgba) -> ColorRGBA:
    r, g, b, a = rgba
    return ColorRGBA(r=r, g=g, b=b, a=a)
