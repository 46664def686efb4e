# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The bytes of a binary file of COLMAP; an error of the file system becomes one of this package."""

from __future__ import annotations

from pathlib import Path

from nre_ros.errors import ImportSourceError


def read_binary_file(path: Path) -> bytes:
    """Reads a file.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        ImportSourceError: The file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
