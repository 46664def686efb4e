# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""The images of a source by the names of its keyframes, for the check of a map that was just built."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nre_ros.keyframes.importers.map_source import MapSource
from nre_ros.keyframes.importers.rebuild_source import NamedImages


class SourceImages(NamedImages):
    """The images of a source.

    Args:
        source: The source; the caller closes it.
    """

    def __init__(self, source: MapSource) -> None:
        self._source = source

    def image(self, name: str) -> npt.NDArray[np.uint8]:
        """Returns the pixels of an image; see ``NamedImages``."""
        return self._source.image_to_check(name)

    def close(self) -> None:
        """There is nothing to close: the caller closes the source."""
