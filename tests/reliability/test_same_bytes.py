"""The same bytes whoever computes, in whatever order, wherever the clock stands."""

from __future__ import annotations

import os
import random

import pytest

from geococa.run_resources import Resources
from tests.reliability.tiny_archives import results, run, tell


def test_modes_of_one_machine_give_the_same_bytes(runs, six_tiles, tmp_path):
    archive, expected, _ = six_tiles
    for number, options in enumerate(({"threads": 1}, {"threads": 4}, {"workers": 2, "threads": 1})):
        ended = runs.run(archive, tmp_path / f"out{number}", **options)
        assert ended["ended"] == 0, ended
        assert results(tmp_path / f"out{number}") == expected, options


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twelve_modes_give_the_same_bytes(six_tiles, tmp_path):
    pytest.importorskip("distributed")
    archive, expected, _ = six_tiles
    how = [
        ["--workers", "1", "--threads", "1"], ["--workers", "1", "--threads", "2"], ["--workers", "1", "--threads", "4"],
        ["--workers", "2", "--threads", "1"], ["--workers", "2", "--threads", "2"], ["--workers", "3", "--threads", "1"],
        ["--memory", "2GB"], ["--scheduler", "local", "--workers", "1"], ["--scheduler", "local", "--workers", "2"],
    ]  # fmt: skip
    modes = [(options, {}) for options in how]
    modes += [(["--workers", "2"], {"TZ": zone}) for zone in ("America/Bogota", "Asia/Kathmandu", "Pacific/Kiritimati")]
    for number, (options, environment) in enumerate(modes):
        done = run(archive, tmp_path / f"out{number}", *options, env=os.environ | environment)
        assert done.returncode == 0, (options, done.stderr)
        assert results(tmp_path / f"out{number}") == expected, (options, environment)
    tell(f"{len(modes)} modes, {len(expected)} files each: one set of bytes")


def test_the_order_in_which_tiles_finish_changes_nothing(six_tiles, tmp_path, monkeypatch):
    from geococa import tile_batch
    from geococa.archive import run_archive
    from geococa.run_workers import outcomes

    def shuffled(workers, job, tiles, resources: Resources, **how):
        order = list(tiles)
        random.Random(3).shuffle(order)
        assert order != list(tiles)
        return outcomes(workers, job, order, resources, **how)

    monkeypatch.setattr(tile_batch, "outcomes", shuffled)
    archive, expected, _ = six_tiles
    run_archive(archive, archive / "recipe.toml", out=tmp_path / "out")
    assert results(tmp_path / "out") == expected
