"""Fixtures that many tests share, and the header that says on what the tests ran."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the proofs that take more than ten seconds")


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="a slow proof: run with --slow, or make proof")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def pytest_report_header():
    import numba
    import numpy as np
    import pyproj
    import rasterio

    return (
        f"numpy {np.__version__}, numba {numba.__version__} (jit {'off' if numba.config.DISABLE_JIT else 'on'}), "
        f"GDAL {rasterio.__gdal_version__}, PROJ {pyproj.proj_version_str}, {os.cpu_count()} processors"
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real rasters and third-party cases that is not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at ../{SHARED_DATA.relative_to(ROOT.parent)} (it is not part of the project)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sample_tiles() -> Path:
    """The simulated archive that the project ships."""
    return ROOT / "sample_tiles"


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory) -> Path:
    """A simulated archive that takes seconds to run: two overlapping tiles, three years."""
    from geococa.synthetic import landscape, write_archive

    archive = tmp_path_factory.mktemp("simulated") / "archive"
    scene = landscape(size_m=1000, tiles=2, years=range(2020, 2023), dates_per_year=3, cloud_cover=0.3, seed=11)
    write_archive(scene, archive)
    (archive / "recipe.toml").write_text((ROOT / "sample_tiles" / "recipe.toml").read_text(encoding="utf-8"))
    return archive
