"""Broken tiles are named with their reasons, their ground is unobserved, and all others are right."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3

import numpy as np
import pandas as pd
import pytest

from tests.reliability.tiny_archives import (
    BREAKS,
    copy_of,
    flipped_bit,
    no_permission,
    results,
    run,
    tile_id,
    write_checksums,
    write_tiny_archive,
)


def without_root_rights():
    """Options of `subprocess.run` with which file rights hold also for root."""
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


def check(tmp_path, tiles, broken):
    """``tiles`` tiles, of which those in ``broken`` (number to way of breaking) are broken."""
    whole = write_tiny_archive(tmp_path / "whole", tiles)
    archive = copy_of(whole, tmp_path / "archive")
    # only a list of checksums finds a flipped bit; other faults must be found without one
    write_checksums(archive, [tile_id(number) for number, way in broken.items() if way is flipped_bit])
    words = {tile_id(number): way(archive / tile_id(number)) for number, way in broken.items()}
    good = run(whole, tmp_path / "good")
    assert good.returncode == 0, good.stderr
    bad = run(archive, tmp_path / "out")
    assert bad.returncode == 3, bad.stderr
    rows = sqlite3.connect(tmp_path / "out" / "ledger.sqlite").execute(
        "SELECT item, reason FROM task WHERE stage='maps' AND status='failed'"
    )
    failed = dict(rows.fetchall())
    assert set(failed) == set(words)
    for tile, reason in failed.items():
        assert re.search(words[tile], reason), (tile, reason)
        assert tile in bad.stderr
    expected = {name: sum_ for name, sum_ in results(tmp_path / "good").items() if name.startswith("maps/")}
    found = {name: sum_ for name, sum_ in results(tmp_path / "out").items() if name.startswith("maps/")}
    assert found == {name: sum_ for name, sum_ in expected.items() if name[5:10] not in words}
    missing_share_shows(tmp_path, len(words) / tiles)


def missing_share_shows(tmp_path, share):
    before, after = (pd.read_csv(tmp_path / out / "areas.csv").set_index(["zone", "year"]) for out in ("good", "out"))
    for table in (before, after):
        total = table.groupby(level=[0, 1]).agg({"area_ha": "sum", "unobserved_ha": "first", "outside_ha": "first"})
        zone = table.groupby(level=[0, 1])["zone_ha"].first()
        np.testing.assert_allclose(total.sum(axis=1), zone, rtol=1e-9)
    # the place of a tile whose header can't be read is not known, so its ground counts as outside the raster
    lost = sum((after.loc["all", name] - before.loc["all", name]).iloc[0] for name in ("unobserved_ha", "outside_ha"))
    whole = after.loc["all", "zone_ha"].iloc[0]
    assert lost / whole == pytest.approx(share, rel=0.35)
    assert after.loc["all", "observed_share"].iloc[0] < before.loc["all", "observed_share"].iloc[0]


def ways():
    """All ways of breaking, but for rights where they can't be taken from this user."""
    if os.name == "nt" or (os.geteuid() == 0 and shutil.which("setpriv") is None):
        return [way for way in BREAKS if way is not no_permission]
    return list(BREAKS)


@pytest.fixture(autouse=True)
def _rights_hold(monkeypatch):
    if os.name != "nt" and os.geteuid() == 0 and shutil.which("setpriv"):
        from tests.reliability import tiny_archives

        plain = tiny_archives.command
        monkeypatch.setattr(tiny_archives, "command", lambda *given: [*without_root_rights(), *plain(*given)])


def test_ten_ways_to_break_a_tile(tmp_path):
    chosen = ways()
    check(tmp_path, 2 * len(chosen), {2 * place + 1: way for place, way in enumerate(chosen)})


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_tiles_of_which_twenty_are_broken(tmp_path):
    chosen = [*ways(), *ways()]
    check(tmp_path, 200, {10 * place + 3: way for place, way in enumerate(chosen)})


def test_flipped_bits_without_a_list_are_found_by_the_next_run_that_looks(tmp_path):
    archive = write_tiny_archive(tmp_path / "archive", 3)
    assert run(archive, tmp_path / "out").returncode == 0
    path = sorted(archive.glob("T0001/*/B04.tif"))[0]
    stamp, data = path.stat(), bytearray(path.read_bytes())
    data[-40] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    quick = run(archive, tmp_path / "out", "--dry-run", "--json")
    sure = run(archive, tmp_path / "out", "--dry-run", "--json", "--verify")
    assert quick.stdout.count('"reuse"') == 3
    assert sure.stdout.count('"compute"') == 1
