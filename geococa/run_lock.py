"""The output folder of a run, held by one job at a time: recognised, locked, and cleared of what a killed job left.

Light enough to be tried before anything heavy is imported, so a second job is turned away at once.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geococa._files import sweep
from geococa.errors import ArchiveBusy, InputRefused

__all__ = ["LEDGER_NAME", "WORK", "HeldFolder", "hold_folder", "owner_of", "runs_here"]

LEDGER_NAME = "ledger.sqlite"
WORK = ".work"
"""Folder in the output folder where workers write; what is in it is of no use once the job has ended."""

_LOCK, _OWNER = ".lock", ".lock.owner"


@dataclass(frozen=True)
class HeldFolder:
    """An output folder that this job holds; what takes a folder takes it too.

    Attributes
    ----------
    path : pathlib.Path
        The folder.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)


@contextmanager
def hold_folder(place: str | os.PathLike[str]) -> Iterator[HeldFolder]:
    """Make the output folder, or recognise one of ours, and hold it; never write into somebody else's.

    What an earlier job was writing when it was killed is removed.

    Raises
    ------
    ArchiveBusy
        Another job holds it; the message says which, and since when.
    InputRefused
        The folder can't be used.
    """
    from filelock import FileLock, Timeout

    if isinstance(place, HeldFolder):
        yield place
        return
    folder = Path(place)
    _check(folder)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputRefused(f"{folder} can't be made: {error.strerror}; choose another output folder") from None
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ArchiveBusy(
            f"{folder} is in use by another job{_who(folder)}; wait for it, or choose another output folder"
        ) from None
    except OSError as error:
        raise InputRefused(f"{folder} can't be written: {error.strerror}; choose another output folder") from None
    try:
        shutil.rmtree(folder / WORK, ignore_errors=True)
        sweep(folder)
        _sign(folder)
        yield HeldFolder(folder)
    finally:
        with suppress(OSError):
            (folder / _OWNER).unlink(missing_ok=True)
            if new and [path.name for path in folder.iterdir()] == [_LOCK]:  # refused before anything was written
                (folder / _LOCK).unlink()
        lock.release()
        if new:
            with suppress(OSError):
                folder.rmdir()


def _check(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputRefused(f"{folder} is a link or a file; choose another output folder")
    ours = (folder / LEDGER_NAME).exists() or (folder / _LOCK).exists()
    if folder.is_dir() and not ours and any(folder.iterdir()):
        raise InputRefused(f"{folder} is not empty and was not made by geococa; choose an empty or new output folder")


def _sign(folder: Path) -> None:
    """Say who holds the folder; on a full disk the lock holds without it."""
    owner = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        (folder / _OWNER).write_text(json.dumps(owner), encoding="utf-8")
    except OSError:
        (folder / _OWNER).unlink(missing_ok=True)


def owner_of(folder: Path) -> dict[str, Any] | None:
    """Who holds, or held when it was killed, a folder: ``pid, host, since``; None where nobody does."""
    try:
        found = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and {"pid", "host", "since"} <= set(found) else None


def runs_here(owner: dict[str, Any]) -> bool | None:
    """Whether a job is still running; None where that can't be seen from this machine."""
    if owner["host"] != platform.node() or sys.platform == "win32":
        return None
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _who(folder: Path) -> str:
    owner = owner_of(folder)
    return "" if owner is None else f" (process {owner['pid']} on {owner['host']}, since {owner['since']})"
