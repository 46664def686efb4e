# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Reading of text files that other programs wrote: lines, lists of file names, and digests of their contents."""

from __future__ import annotations

import codecs
import hashlib
import re
from pathlib import Path

from nre_ros.errors import ImportSourceError

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""First bytes of a file and the encoding that they name; both read the mark itself."""
_SEPARATORS = re.compile(r"[,;]")

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def read_text(path: Path | str) -> str:
    """Reads a text file in UTF-8, or in the encoding that its byte-order mark names.

    Args:
        path: The file.

    Returns:
        The text without the byte-order mark.

    Raises:
        ImportSourceError: The file cannot be read, or is not text.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ImportSourceError(f"{path} is not a text file") from error
    if "\0" in text:
        raise ImportSourceError(f"{path} is not a text file")
    return text


def numbered_lines(path: Path | str) -> list[tuple[int, str]]:
    """Reads the non-empty lines of a text file.

    Args:
        path: The file, see ``read_text``.

    Returns:
        The number of each line in the file, from 1, and the line without surrounding white space.

    Raises:
        ImportSourceError: The file cannot be read, or is not text.
    """
    return [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()]


def without_header(entries: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Leaves out the leading lines of a table that contain no number, if a line with numbers follows them.

    Such lines name the columns, although they do not begin with #.

    Args:
        entries: Numbered lines, see ``numbered_entries``.

    Returns:
        The lines from the first line with a number on.
    """
    first = next((index for index, (_, line) in enumerate(entries) if any(map(is_number, split_fields(line)))), 0)
    return entries[first:]


def split_fields(line: str) -> list[str]:
    """Splits a line of a table at commas or semicolons, or at white space if it has neither.

    Args:
        line: The line.

    Returns:
        The fields without surrounding white space and quotation marks; empty fields at the end are left out.
    """
    fields = [field.strip(" \t\"'") for field in _SEPARATORS.split(line)] if _SEPARATORS.search(line) else line.split()
    while fields and not fields[-1]:
        fields.pop()
    return fields


def is_number(field: str) -> bool:
    """Returns whether a field of a table is a number (also ``nan`` and ``inf``).

    Args:
        field: The field.
    """
    try:
        float(field)
    except ValueError:
        return False
    return True


def numbered_entries(path: Path | str) -> list[tuple[int, str]]:
    """Reads the lines of a text file that are neither empty nor comments (which begin with #).

    Args:
        path: The file, see ``read_text``.

    Returns:
        The number of each line in the file, from 1, and the line without surrounding white space.

    Raises:
        ImportSourceError: The file cannot be read, or is not text.
    """
    return [(number, line) for number, line in numbered_lines(path) if not line.startswith("#")]


def read_lines(path: Path | str) -> list[str]:
    """Reads the stripped, non-empty lines of a text file, comments included.

    Args:
        path: The file, see ``read_text``.

    Returns:
        The lines.

    Raises:
        ImportSourceError: The file cannot be read, or is not text.
    """
    return [line for _, line in numbered_lines(path)]


def read_list(path: Path | str) -> list[str]:
    """Reads the lines of a text file that are neither empty nor comments: one file name each.

    Args:
        path: The file, see ``read_text``.

    Returns:
        The stripped lines.

    Raises:
        ImportSourceError: The file cannot be read, or is not text.
    """
    return [line for _, line in numbered_entries(path)]


def image_names(folder: Path, list_path: Path | str | None = None) -> list[str]:
    """Returns the names of the images to process.

    Args:
        folder: Folder of the images.
        list_path: File with one name a line; without a list all images of the folder are taken, by name.

    Returns:
        File names relative to the folder.

    Raises:
        ImportSourceError: There is no image, or the list cannot be read.
    """
    if list_path is None:
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_ENDINGS)
    else:
        names = read_list(list_path)
    if not names:
        raise ImportSourceError(f"{list_path or folder} names no image")
    return names


def digest(*paths: Path | str) -> str:
    """Computes the SHA-256 of the contents of files, one after the other.

    Args:
        *paths: The files.

    Returns:
        64 hexadecimal digits.

    Raises:
        ImportSourceError: A file cannot be read.
    """
    sha = hashlib.sha256()
    for path in paths:
        try:
            sha.update(Path(path).read_bytes())
        except OSError as error:
            raise ImportSourceError(f"{path} cannot be read: {error.strerror}") from error
    return sha.hexdigest()


def check_folder(path: Path | str) -> Path:
    """Checks that a folder exists.

    Args:
        path: The folder.

    Returns:
        The same path.

    Raises:
        ImportSourceError: There is no such folder.
    """
    if not Path(path).is_dir():
        raise ImportSourceError(f"{path} is not a folder")
    return Path(path)
