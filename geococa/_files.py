"""Files are written whole or not at all: the one way of the project to put bytes under a final name."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

__all__ = ["flush", "flushed_together", "replace_file", "replacing", "reserve", "sweep"]

_TEMPORARY = re.compile(r"\.(.+\.\d+-[0-9a-f]{8}\.tmp(\..*)?|blocks-.+|plots-.+)")
"""Names of what is being written: files of `replacing` and GDAL's beside them, scratch folders of blocks and plots."""

_waiting: ContextVar[list[Path] | None] = ContextVar("waiting", default=None)
"""Files to be flushed at the end of `flushed_together`."""


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary path beside ``target``; put what is written there under the final name at the end.

    File and folder are flushed to disk, so a reader sees the old file or the new one, also after a power cut. A
    link at ``target`` is replaced, not written through. After an error nothing is left.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "a.txt"
    ...     with replacing(path) as temporary:
    ...         _ = temporary.write_text("whole")
    ...     path.read_text()
    'whole'
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        waiting = _waiting.get()
        if waiting is None:
            flush(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    if waiting is None:
        flush(target.parent)
    else:
        waiting.append(target)


@contextmanager
def flushed_together(threads: int = 8) -> Iterator[None]:
    """Flush the files that `replacing` writes within this block at its end, several at a time, and then their folders.

    For a folder that nobody reads before the block has ended: a disk takes many files in hardly more time than one.
    """
    files: list[Path] = []
    token = _waiting.set(files)
    try:
        yield
    finally:
        _waiting.reset(token)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(flush, dict.fromkeys(files)))
    for folder in dict.fromkeys(file.parent for file in files):
        flush(folder)


def reserve(path: Path, size: int) -> None:
    """Make a file of ``size`` bytes whose room on disk is taken, so that a full disk is an error here and not later.

    Raises
    ------
    OSError
        The disk has no room.
    """
    with path.open("wb") as file:
        if size and sys.platform == "linux":
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)


def sweep(folder: Path) -> list[Path]:
    """Remove what interrupted writers left in a folder and its own folders; nobody may be writing there."""
    left = [path for path in sorted(folder.rglob(".*")) if _TEMPORARY.fullmatch(path.name)]
    for path in left:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return left


def replace_file(target: Path, data: bytes) -> Path:
    """Write bytes under a name, whole or not at all."""
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return target


def flush(path: Path) -> None:
    """Have the operating system put a file, or a folder's names, on disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # some systems do not open folders; the rename is then as safe as they make it
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
