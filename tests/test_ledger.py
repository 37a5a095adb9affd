"""The ledger: what was made from what, and whether it is still so."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from geococa._files import replace_file
from geococa.errors import DiskFull, InputRefused
from geococa.ledger import Ledger, Task, file_sha256, hash_of


def made(folder, name="a.bin", data=b"data"):
    return replace_file(folder / name, data)


def test_an_unknown_task_has_to_be_computed(tmp_path):
    with Ledger.open(tmp_path) as ledger:
        assert ledger.state(Task("maps", "18NXG", "k")) == ("compute", "not done yet")


def test_a_finished_task_is_reused_while_its_key_and_files_match(tmp_path):
    task = Task("maps", "18NXG", "k")
    with Ledger.open(tmp_path) as ledger:
        ledger.done(task, [made(tmp_path)])
        assert ledger.state(task)[0] == "reuse"
        assert ledger.state(Task("maps", "18NXG", "other")) == ("compute", "inputs or settings changed")
    (tmp_path / "a.bin").write_bytes(b"shorter")
    with Ledger.open(tmp_path) as ledger:
        assert ledger.state(task) == ("compute", "a.bin is missing or changed")


def test_a_failed_task_is_tried_again_and_keeps_its_reason(tmp_path):
    task = Task("maps", "18NXG", "k")
    with Ledger.open(tmp_path) as ledger:
        ledger.failed(task, "B04.tif is truncated")
        assert ledger.state(task) == ("compute", "failed before: B04.tif is truncated")
        assert ledger.tasks().to_dict("records") == [
            {"stage": "maps", "item": "18NXG", "status": "failed", "reason": "B04.tif is truncated"}
        ]


def test_verify_finds_one_flipped_bit_and_a_missing_file(tmp_path):
    with Ledger.open(tmp_path) as ledger:
        ledger.done(Task("maps", "a", "k"), [made(tmp_path, name) for name in ("a.bin", "b.bin", "c.bin")])
        (tmp_path / "b.bin").write_bytes(b"dat`")
        (tmp_path / "c.bin").unlink()
        assert dict(ledger.verify().values) == {"a.bin": "ok", "b.bin": "changed", "c.bin": "missing"}


def test_peeking_writes_nothing(tmp_path):
    with Ledger.peek(tmp_path) as ledger:
        assert ledger.tasks().empty
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_is_no_database_is_refused_by_name(tmp_path):
    (tmp_path / Ledger.NAME).write_bytes(b"not a database, but long enough to be read as one" * 50)
    with pytest.raises(InputRefused, match=r"ledger\.sqlite"), Ledger.open(tmp_path):
        pass


def test_a_file_is_replaced_whole_and_no_temporary_is_left(tmp_path):
    path = made(tmp_path, data=b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_checksums_are_sha256(tmp_path):
    assert file_sha256(made(tmp_path, data=b"abc")).startswith("ba7816bf8f01cfea")


def test_the_hash_of_settings_does_not_depend_on_their_order():
    assert hash_of({"a": 1, "b": [2, 3]}) == hash_of({"b": [2, 3], "a": 1})
    assert hash_of({"a": 1}) != hash_of({"a": 2})


def test_the_ledger_is_in_write_ahead_mode(tmp_path):
    with Ledger.open(tmp_path), contextlib.closing(sqlite3.connect(tmp_path / Ledger.NAME)) as connection:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    assert mode == "wal"


def test_content_tells_apart_what_times_cannot(tmp_path):
    with Ledger.open(tmp_path) as ledger:
        ledger.done(Task("maps", "18NXG", "quick", "sure"), [made(tmp_path)])
        touched = Task("maps", "18NXG", "other time", "sure")
        assert ledger.state(touched) == ("compute", "inputs or settings changed")
        assert ledger.state(touched, by_content=True) == ("reuse", "up to date")
        assert ledger.state(Task("maps", "18NXG", "quick", "other bytes"), by_content=True)[0] == "compute"
        ledger.adopt(touched)
        assert ledger.state(touched)[0] == "reuse"


def test_inputs_are_kept_with_their_checksums_until_the_task_is_done_again(tmp_path):
    with Ledger.open(tmp_path) as ledger:
        task = Task("maps", "18NXG", "k")
        ledger.done(task, [made(tmp_path)], inputs=[("18NXG/B04.tif", "ab" * 32, 7)])
        assert ledger.inputs().to_dict("records") == [
            {"stage": "maps", "item": "18NXG", "path": "18NXG/B04.tif", "sha256": "ab" * 32, "bytes": 7}
        ]
        ledger.done(task, [made(tmp_path)])
        assert ledger.inputs().empty
        assert ledger.files_of(task) == ["a.bin"]


def test_what_is_being_done_can_be_seen_from_outside(tmp_path):
    with Ledger.open(tmp_path) as ledger:
        ledger.begins("18NXG", "maps", 2)
        ledger.stands("classifying tiles", 3, 10)
        with Ledger.peek(tmp_path) as other:
            assert other.activity()[["item", "what", "attempt"]].values.tolist() == [["18NXG", "maps", 2]]
            stand = other.progress()
        assert (stand["what"], stand["done"], stand["total"]) == ("classifying tiles", 3, 10)
        ledger.done(Task("maps", "18NXG", "k"), [])
        assert ledger.activity().empty
        ledger.begins("19NBB", "maps", 1)
    # a job that was killed leaves no activity to the next
    with Ledger.open(tmp_path) as ledger:
        assert ledger.activity().empty


def test_a_ledger_of_an_earlier_version_gets_what_it_lacks(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / Ledger.NAME)) as connection:
        connection.executescript(
            "CREATE TABLE task (stage TEXT, item TEXT, key TEXT, status TEXT, reason TEXT DEFAULT '', "
            "PRIMARY KEY (stage, item)); INSERT INTO task VALUES ('maps', 'a', 'k', 'done', '');"
            "CREATE TABLE output (stage TEXT, item TEXT, path TEXT, sha256 TEXT, bytes INTEGER);"
        )
    with Ledger.peek(tmp_path) as ledger:
        assert len(ledger.tasks()) == 1
        assert ledger.inputs().empty
        assert ledger.progress() is None
    with Ledger.open(tmp_path) as ledger:
        assert ledger.state(Task("maps", "a", "k"))[0] == "reuse"
        assert ledger.state(Task("maps", "a", "k", "c"), by_content=True)[0] == "compute"


def test_a_full_disk_is_told_as_such(tmp_path):
    def fill():
        with Ledger.open(tmp_path):
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(DiskFull, match="make room"):
        fill()
