"""Files are written whole or not at all: the one way of the project to put bytes under a final name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replace_file", "replacing"]


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
        _flush(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(target.parent)


def replace_file(target: Path, data: bytes) -> Path:
    """Write bytes under a name, whole or not at all."""
    with replacing(target) as temporary:
        temporary.write_bytes(data)
    return target


def _flush(path: Path) -> None:
    """Have the operating system put a file, or a folder's names, on disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # some systems do not open folders; the rename is then as safe as they make it
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
