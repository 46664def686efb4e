# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""How well a map and the localizer do on a recording or on images with known poses.

``inputs`` (bag, image list) -> ``run`` (one line an image, in ``records``) -> ``outcomes`` (joined with
the ground truth of ``truth``) -> ``metrics``, ``trajectory``, ``calibration``, ``systematic`` -> ``summary``
-> ``report``.  docs/evaluation.md has the definitions.
"""
