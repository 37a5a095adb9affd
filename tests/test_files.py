"""Files appear whole or not at all."""

from __future__ import annotations

import os

import pytest

from geococa import _files
from geococa._files import flushed_together, replace_file, replacing, reserve, sweep


def test_an_error_leaves_the_old_file_and_no_temporary(tmp_path):
    path = replace_file(tmp_path / "a.txt", b"old")

    def interrupted():
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    mine = replace_file(tmp_path / "mine", b"mine")
    link = tmp_path / "link"
    link.symlink_to(mine)
    replace_file(link, b"new")
    assert mine.read_bytes() == b"mine"
    assert not link.is_symlink()


def test_files_of_a_block_are_flushed_together_and_all_there(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(_files, "flush", flushed.append)
    with flushed_together():
        for name in "abc":
            replace_file(tmp_path / name, name.encode())
        assert flushed == []
    assert sorted(flushed) == sorted([*(tmp_path / name for name in "abc"), tmp_path])
    replace_file(tmp_path / "d", b"d")
    assert len(flushed) == 6


def test_what_interrupted_writers_left_is_swept_and_nothing_else(tmp_path):
    kept = [tmp_path / "a.txt", tmp_path / ".lock", tmp_path / "maps" / "b.tif", tmp_path / ".hidden.tmp"]
    left = [tmp_path / ".a.txt.123-0a1b2c3d.tmp", tmp_path / "maps" / ".b.tif.9-00000000.tmp.ovr.tmp"]
    (tmp_path / "maps" / ".blocks-x1").mkdir(parents=True)
    for path in [*kept, *left, tmp_path / "maps" / ".blocks-x1" / "labels"]:
        path.write_bytes(b"x")
    assert set(sweep(tmp_path)) == {*left, tmp_path / "maps" / ".blocks-x1"}
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in [*left, tmp_path / "maps" / ".blocks-x1"])


def test_room_on_disk_is_taken_at_once(tmp_path):
    reserve(tmp_path / "a", 100_000)
    status = (tmp_path / "a").stat()
    assert status.st_size == 100_000
    if hasattr(os, "posix_fallocate"):
        assert status.st_blocks * 512 >= 100_000
