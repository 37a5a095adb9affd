"""Layers of a tile on disk while it is worked on: written cell block by cell block, read back row by row.

Plain files rather than mapped memory: mapped pages count as the process's own until they are written back, and a disk
that fills up under a mapping ends the process instead of raising an error.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from geococa._files import reserve

__all__ = ["Planes"]


class Planes:
    """Yearly layers of one kind, ``(year, row, column)``, in a file.

    Parameters
    ----------
    path : pathlib.Path
        File to make; its room on disk is taken at once.
    dtype : dtype
        Type of the cells.
    shape : tuple of int
        Years, rows, columns.

    Raises
    ------
    OSError
        The disk has no room.
    """

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, int, int]) -> None:
        self.dtype = np.dtype(dtype)
        self.shape = shape
        reserve(path, int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize)
        self._file = path.open("r+b", buffering=0)
        self._lock = threading.Lock()

    def put(self, year: int, rows: slice, columns: slice, values: np.ndarray) -> None:
        """Write a block; any number of threads may write."""
        data = np.ascontiguousarray(values, dtype=self.dtype)
        wide = columns.stop - columns.start == self.shape[2]
        parts = [(rows.start, data)] if wide else list(enumerate(data, start=rows.start))
        with self._lock:
            for row, part in parts:
                self._file.seek(self._offset(year, row, columns.start))
                view = part.reshape(-1).view(np.uint8).data
                while view:
                    view = view[self._file.write(view) :]

    def rows(self, year: int, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` (without it) of a year, ``(row, column)``."""
        out = np.empty((stop - start, self.shape[2]), self.dtype)
        view = out.reshape(-1).view(np.uint8).data
        with self._lock:
            self._file.seek(self._offset(year, start, 0))
            while view:
                count = self._file.readinto(view)
                if not count:
                    raise OSError(f"{self._file.name}: ends before row {stop}")
                view = view[count:]
        return out

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _offset(self, year: int, row: int, column: int) -> int:
        _, rows, columns = self.shape
        return ((year * rows + row) * columns + column) * self.dtype.itemsize
