# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The topics ``markers/map`` and ``markers/fix``: the map's cameras and the last image's map points, for RViz."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import Point
from rclpy.node import Node
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from nre_ros.gate.decision import Decision
from nre_ros.keyframes.storage.store import KeyframeStore
from nre_ros.localization.result import LocalizationResult
from nre_ros.node.display_frame import DisplayFrame
from nre_ros.node.interfaces import DisplayTopic, MapVersion, RateLimiter, displayed
from nre_ros.node.parameters import value_of
from nre_ros.pictures.view_3d import camera_size

MAX_DRAWN_CAMERAS = 2000
MAX_DRAWN_POINTS = 2000
"""Largest numbers that are drawn, chosen evenly: larger messages take RViz, and this node, too long."""
_CORNERS = np.array([[0, 0, 0], [-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1]])
_EDGES = [0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1]
_Colour = tuple[float, float, float, float]
"""Red, green, blue, opacity, each 0 to 1."""
_BLUE, _ORANGE, _RED = (0.18, 0.44, 0.87, 0.7), (1.0, 0.6, 0.1, 1.0), (0.85, 0.2, 0.3, 1.0)
_RED_FAINT = (*_RED[:3], 0.3)


class Markers:
    """Publishes while somebody subscribes; both topics are latched.  For the thread that may use the map."""

    def __init__(self, node: Node, frame: DisplayFrame) -> None:
        """Creates the topics; ``frame`` is that of the markers."""
        self._node, self._frame = node, frame
        self._map = DisplayTopic(node, MarkerArray, "markers/map", latched=True)
        self._fix = DisplayTopic(node, MarkerArray, "markers/fix", latched=True)
        self._rate = RateLimiter()
        self._published_map = MapVersion()
        self._camera_size = 0.1

    @property
    def has_subscribers(self) -> bool:
        """Whether somebody subscribes to one of the topics."""
        return self._map.has_subscribers or self._fix.has_subscribers

    @property
    def map_has_subscribers(self) -> bool:
        """Whether somebody subscribes to ``markers/map``."""
        return self._map.has_subscribers

    def update(self, result: LocalizationResult, decision: Decision, stamp: int, store: KeyframeStore) -> None:
        """Publishes the cameras and map points of an image, at most ``debug_rate`` times a second.

        Args:
            result: What the localizer found in the image.
            decision: The gate's decision about it.
            stamp: Stamp of the image, nanoseconds.
            store: The open map.

        Raises:
            MapError: The map cannot be read.
        """
        if self._fix.has_subscribers and self._rate.allows(value_of(self._node, "debug_rate")):
            header, origin = self._frame.header(store, stamp)
            self._fix.publish(MarkerArray(markers=self._fix_markers(result, decision, store, header, origin)))

    def publish_map(self, store: KeyframeStore) -> None:
        """Publishes the map's cameras without a stamp, if somebody subscribes and they are not published yet.

        Args:
            store: The open map.

        Raises:
            MapError: The map cannot be read.
        """
        if not self._map.has_subscribers or self._published_map.is_of(store):
            return
        version = MapVersion.of(store)
        poses = np.concatenate([np.zeros((0, 4, 4)), *(scan.poses for scan in store.scan())])
        poses = poses[displayed(len(poses), MAX_DRAWN_CAMERAS)]
        self._camera_size = camera_size(poses, np.zeros((0, 3))) if len(poses) else 0.1
        header, origin = self._frame.header(store)
        self._map.publish(MarkerArray(markers=[self._cameras(header, "keyframes", poses, _BLUE, origin)]))
        self._published_map = version

    def close(self) -> None:
        """Destroys the topics."""
        self._map.close()
        self._fix.close()

    def _fix_markers(
        self,
        result: LocalizationResult,
        decision: Decision,
        store: KeyframeStore,
        header: Header,
        origin: npt.NDArray[np.float64],
    ) -> list[Marker]:
        poses = np.concatenate([np.zeros((0, 4, 4)), *(scan.poses for scan in store.scan_ids(result.keyframes))])
        markers = [self._cameras(header, "retrieved", poses, _ORANGE, origin)]
        if result.T_map_cam is None:
            return [*markers, *(_delete(header, namespace) for namespace in ("camera", "points"))]
        colour = _RED if decision.accepted else _RED_FAINT
        markers.append(self._cameras(header, "camera", result.T_map_cam[None], colour, origin))
        return [*markers, _points(header, result, 0.05 * self._camera_size, origin)]

    def _cameras(
        self,
        header: Header,
        namespace: str,
        poses: npt.NDArray[np.float64],
        colour: _Colour,
        origin: npt.NDArray[np.float64],
    ) -> Marker:
        """Cameras [K, 4, 4] as pyramids, one list of lines."""
        if not len(poses):
            return _delete(header, namespace)
        corners = self._camera_size * _CORNERS @ poses[:, :3, :3].transpose(0, 2, 1)
        corners = corners + (poses[:, None, :3, 3] - origin)
        marker = _marker(header, namespace, Marker.LINE_LIST, 0.03 * self._camera_size)
        marker.color = _colour_message(colour)
        marker.points = _point_messages(corners[:, _EDGES].reshape(-1, 3))
        return marker


def _points(header: Header, result: LocalizationResult, size: float, origin: npt.NDArray[np.float64]) -> Marker:
    """The map points in view, from green (low loss) to red."""
    assert result.points is not None and result.losses is not None  # of a result with a pose
    shown = np.flatnonzero(result.losses < 1)
    shown = shown[displayed(len(shown), MAX_DRAWN_POINTS)]
    if not len(shown):
        return _delete(header, "points")
    marker = _marker(header, "points", Marker.POINTS, size)
    marker.scale.y = size
    marker.points = _point_messages(result.points[shown] - origin)
    marker.colors = [_colour_message((loss, 1 - loss, 0.2, 1.0)) for loss in result.losses[shown].clip(0, 1).tolist()]
    return marker


def _marker(header: Header, namespace: str, kind: int, scale: float) -> Marker:
    marker = Marker(header=header, ns=namespace, type=kind, action=Marker.ADD)
    marker.pose.orientation.w = 1.0
    marker.scale.x = scale
    return marker


def _delete(header: Header, namespace: str) -> Marker:
    return Marker(header=header, ns=namespace, action=Marker.DELETE)


def _point_messages(points: npt.NDArray[np.floating]) -> list[Point]:
    return [Point(x=x, y=y, z=z) for x, y, z in points.astype(float).tolist()]


def _colour_message(rgba: _Colour) -> ColorRGBA:
    r, g, b, a = rgba
    return ColorRGBA(r=r, g=g, b=b, a=a)
