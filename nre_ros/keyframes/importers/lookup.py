# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Look-up of what one entry of a foreign file refers to in another: the camera of an image, the pose of a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from nre_ros.errors import ImportSourceError, NreError

K = TypeVar("K")
V = TypeVar("V")


def look_up(
    entries: Mapping[K, V] | Mapping[K, V | NreError],
    key: K,
    missing: str,
    error: type[NreError] = ImportSourceError,
) -> V:
    """Looks up an entry of a foreign file.

    A reference that leads nowhere is a fault of one image: the image is left out, and the import goes on.

    Args:
        entries: What the file contains, by id or name; an error stands for an entry that cannot be used.
        key: The id or name that is referred to.
        missing: Message of the error when there is no such entry.
        error: Class of that error.

    Returns:
        The entry.

    Raises:
        NreError: There is no such entry (``error``), or the entry cannot be used (its own error).
    """
    if key not in entries:
        raise error(missing)
    entry = entries[key]
    if isinstance(entry, NreError):
        raise entry
    return entry
