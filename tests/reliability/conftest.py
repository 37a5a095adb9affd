"""One warm process for all runs of these tests, and archives that several of them use."""

from __future__ import annotations

import os

import pytest

from tests.reliability.forked_runs import ForkedRuns
from tests.reliability.tiny_archives import results, write_tiny_archive


def pytest_collection_modifyitems(items):
    # the first of them starts several processes, each with its own libraries: long on a machine that is busy
    for item in items:
        if "reliability" in str(item.path) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def runs():
    if not hasattr(os, "fork"):
        pytest.skip("these tests kill forked processes, which this system does not have")
    with ForkedRuns() as server:
        yield server


@pytest.fixture(scope="session")
def six_tiles(tmp_path_factory, runs):
    """Archive of six tiles and two years, and what an undisturbed run makes of it: archive, results, seconds."""
    folder = tmp_path_factory.mktemp("six")
    archive = write_tiny_archive(folder / "archive", 6, years=(2019, 2020))
    runs.warm(archive, folder / "warm")
    done = runs.run(archive, folder / "out")
    assert done["ended"] == 0, done
    return archive, results(folder / "out"), done["seconds"]
