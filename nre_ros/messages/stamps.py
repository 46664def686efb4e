"""Stamps in words."""

from __future__ import annotations


def seconds_of(stamp: int) -> str:
    """Seconds of a stamp in nanoseconds, exactly, as TUM files have them: the name of a recording's image."""
    return f"{stamp // 10**9}.{stamp % 10**9:09d}"
