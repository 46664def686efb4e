# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""Random damage of files: of their bytes, of the lines and fields of a text, and of the values of JSON."""

from __future__ import annotations

import json
import random
import re
from typing import Any

FIELDS = (
    *("", "0", "-1", "nan", "inf", "-inf", "1e400", "1e308", "-1e308", "1e-320", "0x10", "1_000", "1.5", "١٢", "½"),
    *("9" * 30, "-" + "9" * 30, "9" * 5000, "18446744073709551615", "9223372036854775808", "4294967296", "-2147483649"),
    *("true", "null", "none", "é", "\u2028", "\ufeff", "\0", '"', "'", "#", "//", "../../x", "a b", "a" * 3000),
    *("[]", "{}", "[", "}", ":", ",", "%s", "&a", "*a", "!!python/name:os.system", "<a>"),
)
"""Fields and words that readers of text get wrong."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**30, -(10**30), 2**63, 1e308, float("nan"), float("inf")),
    *("", "nan", "1", "x" * 3000, "\0", "é", [], {}, [[]], [None], {"": None}, [1, 2, 3], {"a": {"b": []}}),
)
"""Values that readers of JSON get wrong."""
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
"""Numbers that readers of binary files get wrong: sizes and counts."""


def mutate(data: bytes, rng: random.Random, kind: str = "binary") -> bytes:
    """Damages a file in one to three places.

    Args:
        data: A valid file.
        rng: Decides everything.
        kind: ``text``, ``json`` (one value a file or a line) or ``binary``. Files of any kind are damaged as bytes, too.

    Returns:
        The damaged file, by chance sometimes the valid one.
    """
    for _ in range(rng.choice((1, 1, 2, 3))):
        if kind == "json" and rng.random() < 0.6:
            data = _mutate_json(data, rng)
        elif kind != "binary" and rng.random() < 0.7:
            data = _mutate_text(data, rng)
        else:
            data = _mutate_bytes(data, rng)
    return data


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.3:  # most formats decide everything at the beginning
        at = min(at, rng.randrange(200))
    end = min(len(data), at + rng.choice((1, 1, 4, 8, 64, 1000)))
    operation = rng.randrange(8)
    if operation == 0 and at < len(data):  # one bit
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if operation == 1:
        return data[:at] + rng.randbytes(end - at) + data[end:]
    if operation == 2:
        return data[:at] + data[end:]
    if operation == 3:
        return data[:end] + data[at:end] + data[end:]
    if operation == 4:
        return data[:at]
    if operation == 5:
        return data[:at] + rng.randbytes(rng.choice((1, 4, 100))) + data[at:]
    if operation == 6:
        other = rng.randrange(len(data) + 1)
        return data[:at] + data[other : other + end - at] + data[end:]
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(NUMBERS) & (1 << 8 * size) - 1
    return data[:at] + number.to_bytes(size, rng.choice(("little", "big"))) + data[at + size :]


def _mutate_text(data: bytes, rng: random.Random) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    lines = text.splitlines(keepends=True) or [""]
    line, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    operation = rng.randrange(9)
    if operation == 0:
        del lines[line]
    elif operation == 1:
        lines.insert(other, lines[line])
    elif operation == 2:
        lines[line], lines[other] = lines[other], lines[line]
    elif operation == 3:
        lines[line] = rng.choice(("\n", "\r", "", rng.choice(FIELDS) + "\n"))
    elif operation == 4:
        old, new = rng.choice(((" ", ","), (",", " "), (" ", "  "), (" ", "\t"), ("\n", "\r\n"), (".", ","), ("-", "")))
        lines[line] = lines[line].replace(old, new)
    else:
        lines[line] = _mutate_fields(lines[line], rng)
    return "".join(lines).encode("utf-8", "surrogateescape")


def _mutate_fields(line: str, rng: random.Random) -> str:
    parts = re.split(r"([\s,;:]+)", line)  # fields and what separates them, by turns
    at, other = (2 * rng.randrange(len(parts) // 2 + 1) for _ in range(2))
    operation = rng.randrange(4)
    if operation == 0:
        parts[at : at + 2] = []
    elif operation == 1:
        parts[at], parts[other] = parts[other], parts[at]
    elif operation == 2:
        parts[at:at] = [rng.choice(FIELDS), " "]
    else:
        parts[at] = rng.choice(FIELDS)
    return "".join(parts)


def _mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replaces or removes a value at any depth, of the file or of one of its lines."""
    lines = data.splitlines() or [b""]
    try:
        lines, line, root = [data], 0, json.loads(data)
    except ValueError:
        line = rng.randrange(len(lines))
        try:
            root = json.loads(lines[line])
        except ValueError:
            return _mutate_bytes(data, rng)
    parent, key, value = None, None, root
    while isinstance(value, (dict, list)) and value and (parent is None or rng.random() < 0.7):
        parent, key = value, rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value = parent[key]
    if parent is None:
        root = rng.choice(VALUES)
    elif rng.random() < 0.3:
        del parent[key]
    else:
        parent[key] = rng.choice(VALUES)
    lines[line] = json.dumps(root).encode()
    return b"\n".join(lines) + b"\n"
