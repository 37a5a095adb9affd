"""Scenes of one path and row whose extents differ: on one grid by whole cells, or refused."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

import geococa as coca
from geococa.errors import CRSMismatch, GridMismatch, InputRefused
from tests.scene_files import ORIGIN, write_band, write_bundle, write_scene

CELL = 30.0
DATES = ("20191201", "20191217", "20200118")
SHIFTS = ((0, 0), (2, -3), (-1, 4))
"""Rows down and columns right of each scene's corner."""


def product(date, level="L2SP"):
    return f"LC08_{level}_008059_{date}_20200825_02_T1"


def corner(rows, columns):
    return ORIGIN[0] + columns * CELL, ORIGIN[1] - rows * CELL


@pytest.fixture
def path_row(tmp_path):
    """Three acquisitions of one path and row, each with its own extent."""
    tile = tmp_path / "008059"
    for number, (date, shift) in enumerate(zip(DATES, SHIFTS, strict=True)):
        name = product(date)
        folder = write_bundle(tile, name, origin=corner(*shift), value=8000 + 100 * number, size=30 + number)
        text = (folder / f"{name}_MTL.json").read_text()
        (folder / f"{name}_MTL.json").write_text(text.replace("2019-12-01", f"{date[:4]}-{date[4:6]}-{date[6:]}"))
    return tile


def expected(tile, band="SR_B4", outside=0):
    """Band of each scene pasted by coordinates, cell by cell."""
    files = [tile / product(date) / f"{product(date)}_{band}.TIF" for date in DATES]
    bounds, layers = [], []
    for file in files:
        with rasterio.open(file) as source:
            bounds.append(source.bounds)
            layers.append(source.read(1))
    left, top = min(b.left for b in bounds), max(b.top for b in bounds)
    columns = round((max(b.right for b in bounds) - left) / CELL)
    rows = round((top - min(b.bottom for b in bounds)) / CELL)
    out = np.full((len(files), rows, columns), outside, layers[0].dtype)
    for plane, bound, layer in zip(out, bounds, layers, strict=True):
        for r, c in np.ndindex(layer.shape):
            x, y = bound.left + (c + 0.5) * CELL, bound.top - (r + 0.5) * CELL
            plane[int((top - y) // CELL), int((x - left) // CELL)] = layer[r, c]
    return out, (left, top)


def test_they_open_on_the_smallest_grid_that_holds_all(path_row):
    scenes = coca.open_tile(path_row)
    values, (left, top) = expected(path_row)
    np.testing.assert_array_equal(scenes.red.values, values)
    assert (float(scenes.x[0]), float(scenes.y[0])) == (left + CELL / 2, top - CELL / 2)
    assert len(np.unique(values)) == 4
    np.testing.assert_array_equal(scenes.qa_pixel.values, expected(path_row, "QA_PIXEL", 1)[0])
    assert coca.find_tiles(path_row.parent)[0].grid.shape == scenes.red.shape[1:]


def test_ground_that_a_scene_does_not_reach_is_not_observed(path_row):
    scenes = coca.open_tile(path_row)
    clear = coca.clear_sky(scenes)
    outside = scenes.red.values == 0
    assert outside.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(clear.values, ~outside)
    annual = coca.composite(coca.to_reflectance(scenes, where=clear))
    np.testing.assert_array_equal(annual.observations.values, [(~outside[:2]).sum(axis=0), ~outside[2]])
    np.testing.assert_array_equal(np.isnan(annual.red.values), annual.observations.values == 0)


@pytest.mark.parametrize("window", [(0, 5, 0, 5), (3, 17, 2, 30), (0, 2, 30, 38), (28, 33, 0, 37)])
def test_windows_years_and_dask_give_the_same_cells(path_row, window):
    tile = coca.find_tiles(path_row.parent)[0]
    whole = coca.open_tile(tile)
    r0, r1, c0, c1 = window
    for chunks in (None, {"y": 7, "x": 5}):
        part = coca.open_tile(tile, window=window, chunks=chunks)
        for name in ("red", "qa_pixel", "qa_radsat"):
            np.testing.assert_array_equal(part[name].values, whole[name].values[:, r0:r1, c0:c1])
    late = coca.open_tile(tile, window=window, years=[2020])
    np.testing.assert_array_equal(late.red.values, whole.red.values[2:, r0:r1, c0:c1])


def test_a_grid_can_be_given(path_row):
    whole = coca.open_tile(path_row)
    own = coca.Grid.from_xarray(whole)
    smaller = own.window(4, 20, 6, 25)
    part = coca.open_tile(path_row, grid=smaller)
    np.testing.assert_array_equal(part.red.values, whole.red.values[:, 4:20, 6:25])
    assert coca.Grid.from_xarray(part).same_as(smaller)
    far = coca.Grid(own.crs, own.transform * own.transform.translation(-2, -1), (own.shape[0] + 1, own.shape[1] + 2))
    larger = coca.open_tile(path_row, grid=far)
    np.testing.assert_array_equal(larger.red.values[:, 1:, 2:], whole.red.values)
    assert (larger.red.values[:, 0] == 0).all()
    finer = coca.Grid(own.crs, own.transform * own.transform.scale(0.5), (2 * own.shape[0], 2 * own.shape[1]))
    fine = coca.open_tile(path_row, grid=finer)
    np.testing.assert_array_equal(fine.red.values, whole.red.values.repeat(2, axis=1).repeat(2, axis=2))


def test_grids_that_would_need_resampling_are_refused(path_row):
    own = coca.Grid.from_xarray(coca.open_tile(path_row))
    half = coca.Grid(own.crs, own.transform * own.transform.translation(0.5, 0), own.shape)
    with pytest.raises(GridMismatch, match="whole cells"):
        coca.open_tile(path_row, grid=half)
    coarse = coca.Grid(own.crs, own.transform * own.transform.scale(1.5), own.shape)
    with pytest.raises(GridMismatch, match="whole cells"):
        coca.open_tile(path_row, grid=coarse)
    elsewhere = coca.Grid("EPSG:32619", own.transform, own.shape)
    with pytest.raises((GridMismatch, CRSMismatch)):
        coca.open_tile(path_row, grid=elsewhere)


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ((ORIGIN[0] + 15, ORIGIN[1]), "one lattice"),
        ((ORIGIN[0], ORIGIN[1] + 0.5), "one lattice"),
        (corner(26, 0), "share 13% of their ground"),
        (corner(0, 40), "share 0% of their ground"),
    ],
)
def test_parts_of_a_cell_and_neighbouring_rows_are_refused(path_row, origin, words):
    write_bundle(path_row, product("20200203"), origin=origin)
    with pytest.raises(GridMismatch, match=rf"scene LC08.*20200203.*{words}.*gdalwarp -tap"):
        coca.open_tile(path_row)


def test_coarse_bands_keep_their_cells_when_a_scene_is_moved_by_a_fine_one(tmp_path):
    tile = tmp_path / "tile"
    write_scene(tile, "S2A_2021", "2021-06-25T15:00:00Z")
    folder = write_scene(tile, "S2B_2022", "2022-06-25T15:00:00Z")
    origin = (ORIGIN[0] + 10, ORIGIN[1] - 30)
    for band, gsd, cells in (("B04", 10, 20), ("B08", 10, 20), ("B11", 20, 10), ("SCL", 20, 10)):
        kind = "uint8" if band == "SCL" else "uint16"
        values = np.arange(1, cells * cells + 1, dtype="uint32").reshape(cells, cells) % (11 if band == "SCL" else 9999)
        write_band(folder / f"{band}.tif", values.astype(kind), gsd=gsd, nodata=0, origin=origin)
    scenes = coca.open_tile(tile)
    assert scenes.red.shape == (2, 23, 21)
    fine = (np.arange(1, 101).reshape(10, 10)).repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(scenes.swir16.values[1, 3:, 1:], fine)
    assert (scenes.swir16.values[1, :3] == 0).all()
    assert (scenes.scl.values[1, :, 0] == 0).all()
    # all bands of 20 m: the grid has their cells, and ten metres are half a cell of it
    with pytest.raises(GridMismatch, match="one lattice"):
        coca.open_tile(tile, bands=["swir16"])


def test_a_band_without_a_no_data_value_is_refused(tmp_path):
    tile = tmp_path / "tile"
    for date, shift in (("2020-01-01", 0), ("2020-02-01", 2)):
        write_band(tile / f"{date}.tif", np.ones((1, 20, 20), "int16"), origin=corner(shift, 0), gsd=30)
    with pytest.raises(InputRefused, match="gdal_edit -a_nodata"):
        coca.open_tile(tile)
    for date, shift in (("2020-01-01", 0), ("2020-02-01", 2)):
        write_band(tile / f"{date}.tif", np.ones((1, 20, 20), "float32"), origin=corner(shift, 0), gsd=30)
    [name] = coca.open_tile(tile).data_vars
    values = coca.open_tile(tile)[name].values
    assert np.isnan(values[0, 20:]).all()
    assert np.isnan(values[1, :2]).all()
    assert np.isfinite(values).sum() == 800
