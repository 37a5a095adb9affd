"""Ledger of an output folder: which task made which files from which inputs, in SQLite.

A row is written only after the task's files are complete under their final names, so whatever the ledger lists can be
trusted up to bit rot, and `Ledger.verify` finds that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geococa.errors import InputRefused

__all__ = ["Ledger", "Task", "file_fingerprint", "file_sha256", "hash_of"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
    stage TEXT NOT NULL, item TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (stage, item)
);
CREATE TABLE IF NOT EXISTS output (
    stage TEXT NOT NULL, item TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (stage, item, path)
);
"""


@dataclass(frozen=True)
class Task:
    """A unit of work.

    Attributes
    ----------
    stage : str
        ``model``, ``maps`` or ``areas``.
    item : str
        Tile id, or ``archive`` where the whole archive is meant.
    key : str
        Hash of everything the result depends on: inputs, settings, model, code schema.
    """

    stage: str
    item: str
    key: str


class Ledger:
    """The ledger of one output folder.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder.
    connection : sqlite3.Connection
        Open connection to the ledger's database.
    """

    NAME = "ledger.sqlite"

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._connection = connection

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[Ledger]:
        """Open the ledger of a folder for writing, and close it at the end."""
        try:
            connection = sqlite3.connect(folder / cls.NAME, timeout=30)
        except sqlite3.Error as error:
            raise InputRefused(f"{folder / cls.NAME} can't be opened: {error}") from None
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)
            yield cls(folder, connection)
        except sqlite3.DatabaseError as error:
            raise InputRefused(
                f"{folder / cls.NAME} is not a readable ledger ({error}); move it away to compute anew"
            ) from None
        finally:
            connection.close()

    @classmethod
    @contextlib.contextmanager
    def peek(cls, folder: Path) -> Iterator[Ledger]:
        """Open the ledger for reading; an empty one where the folder has none. Nothing is written."""
        path = folder / cls.NAME
        connection = (
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            if path.exists()
            else sqlite3.connect(":memory:")
        )
        try:
            if not path.exists():
                connection.executescript(_SCHEMA)
            yield cls(folder, connection)
        finally:
            connection.close()

    def state(self, task: Task) -> tuple[str, str]:
        """Return ``("reuse", reason)`` where the task's files are there and match, else ``("compute", reason)``."""
        row = self._connection.execute(
            "SELECT key, status, reason FROM task WHERE stage=? AND item=?", (task.stage, task.item)
        ).fetchone()
        if row is None:
            return "compute", "not done yet"
        if row[1] != "done":
            return "compute", f"failed before: {row[2]}"
        if row[0] != task.key:
            return "compute", "inputs or settings changed"
        for path, size in self._connection.execute(
            "SELECT path, bytes FROM output WHERE stage=? AND item=?", (task.stage, task.item)
        ):
            file = self.folder / path
            if not file.is_file() or file.stat().st_size != size:
                return "compute", f"{path} is missing or changed"
        return "reuse", "up to date"

    def done(self, task: Task, files: Mapping[str, Path] | list[Path]) -> None:
        """Record a finished task and the checksums of its files."""
        paths = list(files.values()) if isinstance(files, Mapping) else files
        rows = [
            (
                task.stage,
                task.item,
                path.relative_to(self.folder).as_posix(),
                file_sha256(path),
                path.stat().st_size,
            )
            for path in paths
        ]
        with self._connection:
            self._connection.execute("DELETE FROM output WHERE stage=? AND item=?", (task.stage, task.item))
            self._connection.execute(
                "INSERT OR REPLACE INTO task VALUES (?,?,?,'done','')", (task.stage, task.item, task.key)
            )
            self._connection.executemany("INSERT INTO output VALUES (?,?,?,?,?)", rows)

    def failed(self, task: Task, reason: str) -> None:
        """Record a failed task and its reason."""
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO task VALUES (?,?,?,'failed',?)",
                (task.stage, task.item, task.key, reason),
            )

    def tasks(self) -> pd.DataFrame:
        """All tasks: ``stage, item, status, reason``."""
        return pd.read_sql_query("SELECT stage, item, status, reason FROM task ORDER BY stage, item", self._connection)

    def outputs(self) -> pd.DataFrame:
        """All files: ``stage, item, path, sha256, bytes``."""
        return pd.read_sql_query("SELECT stage, item, path, sha256, bytes FROM output ORDER BY path", self._connection)

    def verify(self) -> pd.DataFrame:
        """Read every file again and compare its checksum: ``path, status`` (ok, missing, changed)."""
        outputs = self.outputs()
        status = []
        for path, expected in zip(outputs["path"], outputs["sha256"], strict=True):
            file = self.folder / path
            status.append("missing" if not file.is_file() else "ok" if file_sha256(file) == expected else "changed")
        return pd.DataFrame({"path": outputs["path"], "status": pd.Series(status, dtype=object)})


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_fingerprint(path: Path, root: Path) -> list[Any]:
    """Relative name, size and modification time of a file: what tells that an input changed without reading it."""
    status = path.stat()
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return [name, status.st_size, status.st_mtime_ns]


def hash_of(*values: Any) -> str:
    """Hash of plain values (JSON with sorted keys)."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
