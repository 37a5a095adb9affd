"""Ledger of an output folder: which task made which files from which inputs, in SQLite.

A row is written only after the task's files are complete under their final names, so whatever the ledger lists can be
trusted up to bit rot, and `Ledger.verify` finds that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from geococa.errors import DiskFull, InputRefused
from geococa.run_lock import LEDGER_NAME

__all__ = ["FileRow", "Ledger", "Task", "file_fingerprint", "file_row", "file_sha256", "hash_of"]

FileRow = tuple[str, str, int]
"""Path as the ledger has it, SHA-256, bytes."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
    stage TEXT NOT NULL, item TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    content_key TEXT, seconds REAL, attempts INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (stage, item)
);
CREATE TABLE IF NOT EXISTS output (
    stage TEXT NOT NULL, item TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (stage, item, path)
);
CREATE TABLE IF NOT EXISTS input (
    stage TEXT NOT NULL, item TEXT NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    PRIMARY KEY (stage, item, path)
);
CREATE TABLE IF NOT EXISTS activity (item TEXT PRIMARY KEY, what TEXT NOT NULL, since REAL NOT NULL, attempt INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS progress (
    id INTEGER PRIMARY KEY CHECK (id = 1), what TEXT NOT NULL, done INTEGER NOT NULL, total INTEGER NOT NULL,
    started REAL NOT NULL, updated REAL NOT NULL
);
"""

_ADDED = (("content_key", "TEXT"), ("seconds", "REAL"), ("attempts", "INTEGER NOT NULL DEFAULT 1"))
"""Columns of ``task`` that ledgers of earlier versions lack."""


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
        Hash of everything the result depends on: inputs, settings, model, code schema; inputs by name, size and time.
    content_key : str or None
        The same with inputs by their SHA-256, where that is known.
    """

    stage: str
    item: str
    key: str
    content_key: str | None = None


class Ledger:
    """The ledger of one output folder.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder.
    connection : sqlite3.Connection
        Open connection to the ledger's database.
    """

    NAME = LEDGER_NAME

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._connection = connection

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path) -> Iterator[Ledger]:
        """Open the ledger of a folder for writing, and close it at the end."""
        path = folder / cls.NAME
        try:
            connection = sqlite3.connect(path, timeout=30)
        except sqlite3.Error as error:
            raise InputRefused(f"{path} can't be opened: {error}") from None
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # a row that a power cut takes away is only work done again; its files were flushed before it was written
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_SCHEMA)
            known = {row[1] for row in connection.execute("PRAGMA table_info(task)")}
            for name, kind in _ADDED:
                if name not in known:
                    connection.execute(f"ALTER TABLE task ADD COLUMN {name} {kind}")
            connection.execute("DELETE FROM activity")
            connection.commit()
            yield cls(folder, connection)
        except sqlite3.DatabaseError as error:
            if "full" in str(error) or "disk I/O" in str(error):
                raise DiskFull(f"{path} can't be written ({error}); make room on its disk and run again") from None
            if "readonly" in str(error):
                raise InputRefused(f"{path} can't be written ({error}); check its rights") from None
            raise InputRefused(f"{path} is not a readable ledger ({error}); move it away to compute anew") from None
        finally:
            # closing writes the log back into the database, which a full disk refuses; nothing is lost by that
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    @classmethod
    @contextlib.contextmanager
    def peek(cls, folder: Path) -> Iterator[Ledger]:
        """Open the ledger for reading; an empty one where the folder has none. Nothing is written."""
        path = folder / cls.NAME
        connection = _reading(path)
        try:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='task'").fetchone():
                connection.close()
                connection = sqlite3.connect(":memory:")
                connection.executescript(_SCHEMA)
            yield cls(folder, connection)
        except sqlite3.DatabaseError as error:
            raise InputRefused(f"{path} is not a readable ledger ({error}); move it away to compute anew") from None
        finally:
            connection.close()

    def state(self, task: Task, *, by_content: bool = False) -> tuple[str, str]:
        """Return ``("reuse", reason)`` where the task's files are there and match, else ``("compute", reason)``.

        Parameters
        ----------
        task : Task
            Task.
        by_content : bool
            Compare content keys: what inputs hold rather than their times and sizes.
        """
        column = "content_key" if by_content else "key"
        row = self._connection.execute(
            f"SELECT {column}, status, reason FROM task WHERE stage=? AND item=?",
            (task.stage, task.item),
        ).fetchone()
        if row is None:
            return "compute", "not done yet"
        if row[1] != "done":
            return "compute", f"failed before: {row[2]}"
        if row[0] is None:
            return "compute", "checksums of its inputs are not known yet"
        if row[0] != (task.content_key if by_content else task.key):
            return "compute", "inputs or settings changed"
        for path, size in self._connection.execute(
            "SELECT path, bytes FROM output WHERE stage=? AND item=?", (task.stage, task.item)
        ):
            file = self.folder / path
            if not file.is_file() or file.stat().st_size != size:
                return "compute", f"{path} is missing or changed"
        return "reuse", "up to date"

    def done(
        self,
        task: Task,
        files: Mapping[str, Path] | Sequence[Path],
        *,
        rows: Iterable[FileRow] | None = None,
        inputs: Iterable[FileRow] = (),
        seconds: float | None = None,
        attempts: int = 1,
    ) -> None:
        """Record a finished task, the checksums of its files, and those of what it was made from.

        Parameters
        ----------
        task : Task
            Task.
        files : sequence or mapping of pathlib.Path
            Files made; their checksums are worked out here.
        rows : iterable of FileRow, optional
            Files made with their checksums, by whoever knows them already; paths from the ledger's folder.
        inputs : iterable of FileRow
            Files that the task was made from.
        seconds : float, optional
            Time it took.
        attempts : int
            How many times it was begun.
        """
        paths = list(files.values()) if isinstance(files, Mapping) else files
        made = [file_row(path, self.folder) for path in paths] if rows is None else list(rows)
        place = (task.stage, task.item)
        with self._connection:
            for table, entries in (("output", made), ("input", list(inputs))):
                self._connection.execute(f"DELETE FROM {table} WHERE stage=? AND item=?", place)
                self._connection.executemany(
                    f"INSERT INTO {table} VALUES (?,?,?,?,?)",
                    [(*place, *entry) for entry in entries],
                )
            self._connection.execute(
                "INSERT OR REPLACE INTO task (stage, item, key, status, reason, content_key, seconds, attempts) "
                "VALUES (?,?,?,'done','',?,?,?)",
                (*place, task.key, task.content_key, seconds, attempts),
            )
            self._connection.execute("DELETE FROM activity WHERE item=?", (task.item,))

    def files_of(self, task: Task) -> list[str]:
        """Files that the last finished run of a task made; paths from the ledger's folder."""
        rows = self._connection.execute(
            "SELECT path FROM output WHERE stage=? AND item=? ORDER BY path", (task.stage, task.item)
        )
        return [str(row[0]) for row in rows]

    def failed(self, task: Task, reason: str, *, attempts: int = 1) -> None:
        """Record a failed task and its reason."""
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO task (stage, item, key, status, reason, attempts) VALUES (?,?,?,'failed',?,?)",
                (task.stage, task.item, task.key, reason, attempts),
            )
            self._connection.execute("DELETE FROM activity WHERE item=?", (task.item,))

    def adopt(self, task: Task) -> None:
        """Give a finished task whose content matches the key that its inputs have now, so that a quick look knows them."""
        with self._connection:
            self._connection.execute(
                "UPDATE task SET key=?, content_key=? WHERE stage=? AND item=? AND status='done'",
                (task.key, task.content_key, task.stage, task.item),
            )

    # what others may watch while a job runs

    def begins(self, item: str, what: str, attempt: int) -> None:
        """Note that a task is being worked on."""
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO activity VALUES (?,?,?,?)", (item, what, time.time(), attempt)
            )

    def stands(self, what: str, done: int, total: int) -> None:
        """Note how far a stage is."""
        now = time.time()
        row = self._connection.execute("SELECT what, started FROM progress WHERE id=1").fetchone()
        started = row[1] if row is not None and row[0] == what and done > 0 else now
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO progress VALUES (1,?,?,?,?,?)", (what, done, total, started, now)
            )

    def progress(self) -> dict[str, Any] | None:
        """How far the job is or was: ``what, done, total, started, updated`` (seconds since 1970 UTC)."""
        if not self._has("progress"):
            return None
        row = self._connection.execute("SELECT what, done, total, started, updated FROM progress").fetchone()
        return None if row is None else dict(zip(("what", "done", "total", "started", "updated"), row, strict=True))

    def activity(self) -> pd.DataFrame:
        """Tasks being worked on: ``item, what, since`` (seconds since 1970 UTC) and ``attempt``."""
        if not self._has("activity"):
            return pd.DataFrame(columns=["item", "what", "since", "attempt"])
        return pd.read_sql_query("SELECT item, what, since, attempt FROM activity ORDER BY item", self._connection)

    def inputs(self) -> pd.DataFrame:
        """Files that tasks were made from: ``stage, item, path, sha256, bytes``; paths begin with the tile's id."""
        if not self._has("input"):
            return pd.DataFrame(columns=["stage", "item", "path", "sha256", "bytes"])
        return pd.read_sql_query(
            "SELECT stage, item, path, sha256, bytes FROM input ORDER BY stage, item, path", self._connection
        )

    def _has(self, table: str) -> bool:
        return bool(self._connection.execute("SELECT 1 FROM sqlite_master WHERE name=?", (table,)).fetchone())

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


def _reading(path: Path) -> sqlite3.Connection:
    """Connection that only reads; of a database that is not there an empty one, and on a disk that can't be written to too."""
    if not path.exists():
        return sqlite3.connect(":memory:")
    address = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True)
    try:
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:  # a write-ahead log needs a file beside it, unless nobody can write
        connection.close()
        return sqlite3.connect(f"{address}&immutable=1", uri=True)
    except sqlite3.DatabaseError:
        pass  # told by whoever asks it next
    return connection


def file_row(path: Path, folder: Path) -> FileRow:
    """Path from a folder, SHA-256 and size of a file."""
    return path.relative_to(folder).as_posix(), file_sha256(path), path.stat().st_size


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
