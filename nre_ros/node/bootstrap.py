# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The earlier name of ``nre_ros.ros_environment``, for scripts of users; it goes away with the next version."""

from __future__ import annotations

import warnings

from nre_ros.ros_environment import clean_environment, config_file, install_prefix, prepare, set_prefix_path

__all__ = ["clean_environment", "config_file", "install_prefix", "prepare", "set_prefix_path"]

warnings.warn(
    "nre_ros.node.bootstrap is deprecated: its name is now nre_ros.ros_environment", DeprecationWarning, stacklevel=2
)
