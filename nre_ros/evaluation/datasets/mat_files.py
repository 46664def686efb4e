# SPDX-FileCopyrightText: 2026 nre_ros contributors
# SPDX-License-Identifier: Apache-2.0
"""MATLAB files, read by scipy in a process of its own.

scipy looks up the types that a file names without a check of their range, so that a damaged file can end the process
that reads it. Here it ends a worker instead, and the file is refused.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nre_ros.errors import ImportSourceError, one_line


class MatReader:
    """Reads arrays of numbers from MATLAB files. The worker starts with the first file and serves all further ones."""

    def __init__(self) -> None:
        self._worker: ProcessPoolExecutor | None = None

    def read(self, path: Path, variable: str) -> npt.NDArray[np.float64]:
        """Reads one variable.

        Args:
            path: The file, in any format that ``scipy.io.loadmat`` reads.
            variable: Name of the variable, an array of numbers.

        Returns:
            The array, float64.

        Raises:
            ImportSourceError: The file is missing or damaged, or does not contain such an array.
        """
        if self._worker is None:
            # a fork of a process with threads (torch, OpenCV) may never run
            self._worker = ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))
        try:
            found = self._worker.submit(_load, str(path), variable).result()
        except BrokenProcessPool:
            self.close()
            found = "the file is damaged: the process that read it has crashed"
        if isinstance(found, str):
            raise ImportSourceError(f"{path} contains no {variable}: {found}")
        return found

    def close(self) -> None:
        """Ends the worker; ``read`` starts another one."""
        if self._worker is not None:
            self._worker.shutdown()
            self._worker = None


def _load(path: str, variable: str) -> npt.NDArray[np.float64] | str:
    """Runs in the worker. Returns the array, or one line that says why there is none."""
    from scipy.io import loadmat

    try:
        return np.asarray(loadmat(path, variable_names=[variable])[variable], dtype=np.float64)
    except Exception as error:  # scipy raises anything for a damaged file
        return one_line(error)
