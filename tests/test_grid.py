"""Grid: reading, windows, blocks, and the hectares of cells."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from affine import Affine

from geococa.errors import CRSMismatch, GridMismatch, InputRefused
from geococa.grid import Grid
from tests.oracles_areas import cell_area_geod_ha

UTM = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (30, 40))
SINUSOIDAL = "+proj=sinu +lon_0=0 +R=6371007.181 +units=m +no_defs"


def field(grid):
    return grid.attach(xr.DataArray(np.zeros(grid.shape, np.float32), dims=("y", "x")))


# Reading ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "grid",
    [
        UTM,
        Grid("EPSG:4326", (0.1, 0, -75, 0, -0.1, 5), (3, 4)),
        Grid("EPSG:32618", (10, 0, 0, 0, 10, 0), (5, 5)),
        Grid("EPSG:32618", (10, 0, 0, 0, -20, 0), (1, 1)),
        Grid(SINUSOIDAL, (231.656358, 0, -8e6, 0, -231.656358, 5e5), (7, 9)),
    ],
)
def test_attached_grid_reads_back(grid):
    assert Grid.from_xarray(field(grid)).same_as(grid, tolerance=1e-9)


def test_a_slice_reads_back_as_its_window():
    part = field(UTM).isel(y=slice(3, 20), x=slice(10, 40))
    assert Grid.from_xarray(part) == UTM.window(3, 20, 10, 40)


def test_rioxarray_and_odc_agree():
    rioxarray = pytest.importorskip("rioxarray")
    array = field(UTM).drop_vars("spatial_ref").rio.write_crs("EPSG:32618")
    assert rioxarray is not None
    assert Grid.from_xarray(array).same_as(UTM)


def test_array_without_crs_is_refused_with_the_remedy():
    bare = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), coords={"y": [1, 0], "x": [0, 1]})
    with pytest.raises(CRSMismatch, match="write_crs"):
        Grid.from_xarray(bare)


def test_uneven_coordinates_are_refused():
    array = field(UTM).assign_coords(x=np.r_[np.arange(39), 50] * 10.0)
    with pytest.raises(GridMismatch, match="evenly"):
        Grid.from_xarray(array)


def test_other_dims_are_refused():
    with pytest.raises(GridMismatch, match="dims"):
        Grid.from_xarray(xr.DataArray(np.zeros((2, 2)), dims=("a", "b")))


@pytest.mark.parametrize("transform", [(0, 0, 0, 0, -10, 0), (1, 2, 0, 2, 4, 0), (np.inf, 0, 0, 0, -1, 0)])
def test_a_transform_that_cannot_be_inverted_is_refused(transform):
    with pytest.raises(InputRefused, match="invertible"):
        Grid("EPSG:32618", transform, (2, 2))


def test_a_crs_that_is_none_is_refused():
    with pytest.raises(CRSMismatch, match="coordinate reference system"):
        Grid("EPSG:0", (1, 0, 0, 0, -1, 0), (2, 2))


@pytest.mark.parametrize("what", [None, [1], np.zeros((2, 2)), "map.tif"], ids=lambda value: type(value).__name__)
def test_what_is_no_array_is_refused_by_name(what):
    for call in (Grid.from_xarray, UTM.attach):
        with pytest.raises(GridMismatch, match=type(what).__name__):
            call(what)
    with pytest.raises(GridMismatch, match="Grid to compare"):
        UTM.same_as(what)


@pytest.mark.parametrize(
    ("transform", "shape", "message"),
    [
        (None, (2, 2), "transform"),
        ((1, 2), (2, 2), "transform"),
        ("abcdef", (2, 2), "transform"),
        ((1, 0, 0, 0, -1, 0), None, "shape"),
        ((1, 0, 0, 0, -1, 0), (2,), "shape"),
        ((1, 0, 0, 0, -1, 0), (2, 2, 2), "shape"),
        ((1, 0, 0, 0, -1, 0), (2.5, 2), "shape"),
        ((1, 0, 0, 0, -1, 0), (float("nan"), 2), "shape"),
        ((1, 0, 0, 0, -1, 0), (-1, 2), "shape"),
    ],
)
def test_numbers_that_make_no_grid_are_refused(transform, shape, message):
    with pytest.raises(InputRefused, match=message):
        Grid("EPSG:32618", transform, shape)


def test_whole_numbers_may_come_as_floats():
    assert Grid("EPSG:32618", (1, 0, 0, 0, -1, 0), (np.float64(3), np.int16(4))).shape == (3, 4)


@pytest.mark.parametrize("rows", [5, "x", (1, 2, 3, 4), (0, 20, 2), slice(None, None, 2)])
def test_rows_that_are_no_range_are_refused(rows):
    with pytest.raises(InputRefused, match="rows"):
        UTM.cell_area_ha(rows)


# Shape -----------------------------------------------------------------------------------------------------------------


def test_bounds_of_a_rotated_grid_hold_all_corners():
    grid = Grid("EPSG:32618", (3, 4, 0, 4, -3, 0), (10, 10))
    assert grid.bounds == (0, -30, 70, 40)
    assert not grid.rectilinear


def test_blocks_cover_every_cell_once():
    seen = np.zeros(UTM.shape, int)
    for block in UTM.blocks(16, halo=3):
        seen[block.target] += 1
    assert (seen == 1).all()


def test_the_crop_of_a_block_is_its_inner_part():
    numbers = np.arange(30 * 40).reshape(30, 40)
    for block in UTM.blocks(16, halo=3):
        r0, r1, c0, c1 = block.outer
        assert np.array_equal(numbers[r0:r1, c0:c1][block.crop], numbers[block.target])


def test_same_as_sees_a_shift_of_a_thousandth_of_a_cell():
    moved = Grid("EPSG:32618", Affine(10, 0, 600000.01, 0, -10, 300000), (30, 40))
    assert not moved.same_as(UTM)
    assert moved.same_as(UTM, tolerance=0.01)


def test_attach_refuses_another_shape():
    with pytest.raises(GridMismatch, match="grid"):
        UTM.attach(xr.DataArray(np.zeros((3, 3)), dims=("y", "x")))


# Cell areas ------------------------------------------------------------------------------------------------------------


def test_degrees_give_one_number_a_row():
    area = Grid("EPSG:4326", (1, 0, -75, 0, -1, 2), (2, 5)).cell_area_ha()
    assert area.shape == (2, 1)
    assert area[1, 0] == pytest.approx(1230846.4, abs=0.05)


def test_a_cell_on_the_central_meridian_of_utm_is_larger_than_its_name():
    grid = Grid("EPSG:32618", (10, 0, 499995, 0, -10, 300000), (1, 1))
    assert grid.cell_area_ha()[0, 0] == pytest.approx(0.01 / 0.9996**2, rel=1e-12)


@pytest.mark.parametrize(
    "grid",
    [
        Grid("EPSG:32618", (10000, 0, 200000, 0, -10000, 600000), (4, 60)),
        Grid("EPSG:9377", (10000, 0, 4300000, 0, -10000, 1800000), (4, 130)),
        Grid("EPSG:3116", (10000, 0, 500000, 0, -10000, 1000000), (4, 100)),
        Grid("EPSG:3857", (10000, 0, -8200000, 0, -10000, 900000), (60, 4)),
        Grid(SINUSOIDAL, (10000, 0, -8200000, 0, -10000, 900000), (30, 30)),
        Grid("EPSG:4326", (0.08, 0.06, -75, 0.06, -0.08, 5), (20, 20)),
        Grid("EPSG:3995", (10000, 0, -200000, 0, -10000, 200000), (40, 40)),
    ],
)
def test_cells_equal_geodesics_around_them(grid):
    area = grid.cell_area_ha()
    for row, column in ((0, 0), (grid.shape[0] // 2, grid.shape[1] // 2), (grid.shape[0] - 1, grid.shape[1] - 1)):
        expected = cell_area_geod_ha(grid, row, column, pieces=1000)
        assert area[row, column] == pytest.approx(expected, rel=3e-9)


def test_rows_may_be_asked_for_in_parts():
    whole = UTM.cell_area_ha()
    assert np.array_equal(UTM.cell_area_ha((5, 9)), whole[5:9])
    assert np.array_equal(UTM.cell_area_ha(slice(20, None)), whole[20:])
    assert UTM.cell_area_ha((9, 9)).shape == (0, 40)


def test_a_large_grid_is_smooth_between_its_nodes():
    grid = Grid("EPSG:32618", (10, 0, 166000, 0, -10, 300000), (1, 66800))
    sparse = np.array([grid.window(0, 1, c, c + 1).cell_area_ha()[0, 0] for c in range(0, 66800, 997)])
    np.testing.assert_allclose(grid.cell_area_ha()[0, ::997], sparse, rtol=5e-10)


@pytest.mark.parametrize("turn", ["south-up", "transposed"])
def test_the_order_of_rows_and_columns_does_not_matter(turn):
    area = UTM.cell_area_ha()
    if turn == "south-up":
        other = Grid("EPSG:32618", (10, 0, 600000, 0, 10, 299700), (30, 40)).cell_area_ha()[::-1]
    else:
        other = Grid("EPSG:32618", (0, 10, 600000, -10, 0, 300000), (40, 30)).cell_area_ha().T
    np.testing.assert_allclose(other, area, rtol=5e-10)


def test_planar_area_in_the_grids_own_projection_is_nominal():
    np.testing.assert_allclose(UTM.cell_area_ha(area="planar:EPSG:32618"), 0.01, rtol=1e-12)


def test_planar_area_in_another_projection_differs_by_both_scales():
    grid = Grid("EPSG:32618", (1000, 0, 500000, 0, -1000, 300000), (1, 1))
    mercator = grid.cell_area_ha(area="planar:EPSG:3857")[0, 0]
    # Web Mercator stretches by 1/cos² of the latitude and the sphere's difference
    assert 1.005 < mercator / grid.cell_area_ha()[0, 0] < 1.02


@pytest.mark.parametrize("area", ["planar", "planar:EPSG:4326", "spherical", "planar:nowhere"])
def test_another_measure_is_refused(area):
    with pytest.raises(InputRefused, match="area"):
        UTM.cell_area_ha(area=area)


def test_a_grid_beyond_the_projection_is_refused():
    with pytest.raises(InputRefused, match="projection"):
        Grid("+proj=ortho +lat_0=4 +lon_0=-73", (1e5, 0, 5e6, 0, -1e5, 1e6), (20, 50)).cell_area_ha()


def test_rows_beyond_the_pole_are_refused():
    with pytest.raises(InputRefused, match="pole"):
        Grid("EPSG:4326", (1, 0, 0, 0, -1, 92), (4, 4)).cell_area_ha()


def test_a_compound_crs_uses_its_horizontal_part():
    grid = Grid("EPSG:4326+5773", (1, 0, -75, 0, -1, 1), (1, 1))
    assert grid.cell_area_ha()[0, 0] == pytest.approx(1230846.4, abs=0.05)


@pytest.mark.parametrize(("size", "halo"), [(None, 0), ("a", 0), (1.5, 0), (5, None), (5, 1.5), (0, 0), (5, -1)])
def test_blocks_of_no_size_are_refused(size, halo):
    with pytest.raises(InputRefused, match="blocks have a side"):
        list(Grid("EPSG:32618", (10, 0, 0, 0, -10, 0), (20, 20)).blocks(size, halo))


def test_windows_and_tolerances_are_numbers():
    grid = Grid("EPSG:32618", (10, 0, 0, 0, -10, 0), (20, 20))
    for window in (("a", 1, 1, 1), (0, 1.5, 0, 2), (None, 3, 0, 3)):
        with pytest.raises(InputRefused, match="whole rows"):
            grid.window(*window)
    assert grid.window(np.int64(2), np.int32(5), 0, 9).shape == (3, 9)
    for tolerance in ("a", None, -1, float("nan")):
        with pytest.raises(InputRefused, match="tolerance"):
            grid.same_as(grid, tolerance=tolerance)


@pytest.mark.parametrize(
    ("attrs", "x", "message"),
    [
        ({"GeoTransform": "a b c"}, None, "six numbers"),
        ({"GeoTransform": "1 2 3"}, [0.5, 1.5], "six numbers"),
        ({}, ["a", "b"], "must be numbers"),
        ({}, np.array(["2020", "2021"], "datetime64[ns]"), "must be numbers"),
        ({"crs_wkt": "foo"}, [0.5, 1.5], "not a coordinate reference system"),
    ],
)
def test_arrays_with_broken_grids_are_refused(attrs, x, message):
    grid = Grid("EPSG:32618", (1, 0, 0, 0, -1, 2), (2, 2))
    mapping = xr.DataArray(0, attrs={"crs_wkt": grid.crs.to_wkt()} | attrs)
    array = xr.DataArray(np.ones((2, 2)), dims=("y", "x"), coords={"spatial_ref": mapping})
    array = array if x is None else array.assign_coords(x=x, y=[1.5, 0.5])
    with pytest.raises(GridMismatch, match=message):
        Grid.from_xarray(array)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (1, 1)])
def test_grids_of_no_cells_are_read_back(shape):
    grid = Grid("EPSG:32618", (10, 0, 600, 0, -10, 900), shape)
    assert Grid.from_xarray(grid.attach(xr.DataArray(np.zeros(shape), dims=("y", "x")))) == grid
