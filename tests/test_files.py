"""Files appear whole or not at all."""

from __future__ import annotations

import pytest

from geococa._files import replace_file, replacing


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
