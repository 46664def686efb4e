"""Notices when time goes back: a bag that starts again, a simulation that is reset, a camera of another age."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.node import Node

from nre_ros.node.seldom import SeldomLog
from nre_ros.node.transforms import CACHE_SECONDS

_BAG = "for a bag: use_sim_time and --clock"


class Times:
    """Watches the node's clock and the images' stamps; ``went_back`` is told in words."""

    def __init__(self, node: Node, log: SeldomLog, went_back: Callable[[str], None]):
        self._node, self._log, self._went_back = node, log, went_back
        self._newest = 0
        self._handle = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=lambda jump: self._back("the clock"),
        )

    def refusal(self, stamp: int) -> str:
        """Takes the stamp of an image (nanoseconds, 0: none) that is about to be localized; why it cannot be, or empty."""
        if not stamp:
            return "image has no time stamp (0): nobody could use its pose"
        now = self._node.get_clock().now().nanoseconds
        age = (now - stamp) / 1e9
        if now and age < -CACHE_SECONDS:
            return f"image is stamped {-age:.1f} s ahead of this node's clock ({_BAG})"
        if stamp < self._newest - 10**9:
            self._back(f"the images' stamps, by {(self._newest - stamp) / 1e9:.1f} s,")
        self._newest = max(stamp, self._newest)
        if age > CACHE_SECONDS:
            self._log.warning(f"the image's stamp is {age:.1f} s behind this node's clock ({_BAG})")
        return ""

    def close(self):
        """Stops watching."""
        self._handle.unregister()

    def _back(self, what: str):
        self._newest = 0
        self._went_back(f"{what} went back")
