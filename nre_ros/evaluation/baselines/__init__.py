# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Other ways to localize, on the same map: keypoints matched to the retrieved keyframes, then PoseLib.

Apart from the product: nothing else imports this room, and what it needs is in requirements/baselines.txt.
"""

from __future__ import annotations

from nre_ros.evaluation.baselines.keypoints import Peer

PEERS = {
    "sift": ("keypoints", "Sift"),
    "xfeat": ("xfeat", "XFeat"),
    "lighterglue": ("xfeat", "LighterGlue"),
    "disk_lightglue": ("disk_lightglue", "DiskLightGlue"),
}
"""Name -> module in this room, and class."""


def make_peer(name: str, device: str) -> Peer:
    """The peer of a name in ``PEERS``.  Raises ``PeerMissing``."""
    from importlib import import_module

    module, kind = PEERS[name]
    return getattr(import_module(f"{__name__}.{module}"), kind)(device)
