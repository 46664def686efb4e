# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""What a file of a head holds, without knowing its kind before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nre_ros.errors import WeightsError
from nre_ros.features.coarse_head import CoarseHead
from nre_ros.features.fine_head import FineHead
from nre_ros.features.head import head_kind
from nre_ros.features.tensor_file import read_tensors
from nre_ros.features.xfeat import installed_network_hash

_KINDS: dict[str, type[FineHead] | type[CoarseHead]] = {kind.kind: kind for kind in (FineHead, CoarseHead)}
_LONGEST_DESCRIPTION = 1000


@dataclass(frozen=True)
class HeadInfo:
    """What a file of a head holds.

    Attributes:
        head: The head, on the CPU.
        network_hash: Of the network that the head was trained on.
        fits: Whether this is the installed network.
        description: How the weights were made, in one line of printable characters.
        file_bytes: Size of the file.
    """

    head: FineHead | CoarseHead
    network_hash: str
    fits: bool
    description: str
    file_bytes: int

    @property
    def parameters(self) -> int:
        """Number of the head's weights."""
        return sum(parameter.numel() for parameter in self.head.parameters())


def read_head_info(path: Path | str) -> HeadInfo:
    """Reads a head of any kind from a file that may be anything.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        WeightsError: The file cannot be read, or holds no head or damaged weights.
    """
    _, metadata = read_tensors(path)
    kind = head_kind(metadata)
    if kind not in _KINDS:
        raise WeightsError(
            f"{path} holds no head ({', '.join(_KINDS)}): its format is {metadata.get('format', '')[:60]!r}"
        )
    network_hash = metadata.get("network", "")
    head = _KINDS[kind].load(path, network_hash)
    description = "".join(c if c.isprintable() else " " for c in metadata.get("description", ""))
    return HeadInfo(
        head,
        network_hash,
        network_hash == installed_network_hash(),
        description[:_LONGEST_DESCRIPTION],
        Path(path).stat().st_size,
    )
