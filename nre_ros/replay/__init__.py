# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""A bag through the real node: one process plays it over DDS, one is the node, one listens.

``session`` runs the three, ``report`` turns what they wrote down into figures and a picture.
"""
