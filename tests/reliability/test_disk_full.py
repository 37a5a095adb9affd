"""A disk that fills up: no bad file, a clear error, and a run that goes on once there is room."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.reliability.test_kill import audit
from tests.reliability.tiny_archives import results, tell


@pytest.fixture
def small_disk(tmp_path):
    """Function that makes a small file system of some size, or gives it another."""
    place = tmp_path / "disk"
    place.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    mounted = []

    def resize(size: int):
        how = f"remount,size={size}" if mounted else f"size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small tmpfs can't be mounted here: {done.stderr.strip()}")
        mounted.append(size)
        return place

    yield resize
    if mounted:
        subprocess.run(["umount", str(place)], check=False)


def fill_and_resume(runs, six_tiles, small_disk, sizes):
    archive, expected, _ = six_tiles
    full = 0
    for size in sizes:
        out = small_disk(size) / f"out{size}"
        ended = runs.run(archive, out)
        audit(out, expected)
        if ended["ended"] != 0:
            full += 1
            assert ended["ended"] in (1, 4), ended
            assert "No space left" in ended["error"] or "room" in ended["error"], ended
            assert str(out) in ended["error"]
        small_disk(256 * 2**20)
        ended = runs.run(archive, out)
        assert ended["ended"] == 0, ended
        assert results(out) == expected
        subprocess.run(["rm", "-r", str(out)], check=True)
    return full


def test_three_full_disks(runs, six_tiles, small_disk):
    assert fill_and_resume(runs, six_tiles, small_disk, [80_000, 400_000, 900_000]) >= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_full_disks(runs, six_tiles, small_disk):
    sizes = [4096 * round(10 * 1.3**step) for step in range(20)]
    full = fill_and_resume(runs, six_tiles, small_disk, sizes)
    tell(f"{full} of {len(sizes)} disks of {sizes[0]} to {sizes[-1]} bytes were too small")
    assert full >= 10


def test_a_folder_that_cannot_be_written_is_refused_by_name(runs, six_tiles, small_disk):
    place = small_disk(2**20)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    ended = runs.run(six_tiles[0], place / "out")
    assert ended["ended"] == 4
    assert str(place) in ended["error"]
