# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Names of frames in messages, parameters and files."""

from __future__ import annotations


def frame_name(text: str) -> str:
    """Returns the name of a frame as TF knows it: without the leading slash that names had in ROS 1.

    tf2 removes the slash from what is published on /tf, and refuses to look up a name that has one.

    Args:
        text: Frame in a header, a parameter or a file.
    """
    return text.removeprefix("/")
