"""Terrain: slope and aspect against gdaldem's formulas and xarray-spatial, other grids, blocks, refusals."""

from __future__ import annotations

import dask.array
import numpy as np
import pyproj
import pytest
import rasterio
import xarray as xr

from geococa.errors import CRSMismatch, GridMismatch, InputRefused
from geococa.features import spectral_features, terrain_features
from geococa.grid import Grid
from geococa.terrain import Elevation
from tests import oracles_terrain as oracle

UTM = Grid("EPSG:32618", (30, 0, 600_000, 0, -30, 300_000), (40, 50))
EVERY = ("elevation", "slope", "aspect", "aspect_sin", "aspect_cos")


def model(grid=UTM, seed=0, heights=None):
    values = oracle.hills(grid.shape, seed) if heights is None else heights
    return grid.attach(xr.DataArray(values, dims=("y", "x"), name="dem"))


def write(path, heights, grid=UTM, nodata=None, **profile):
    settings = {
        "crs": grid.crs.to_wkt(),
        "transform": grid.transform,
        "dtype": heights.dtype,
        "nodata": nodata,
    } | profile
    rows, columns = grid.shape
    with rasterio.open(path, "w", driver="GTiff", height=rows, width=columns, count=1, **settings) as file:
        file.write(heights, 1)
    return path


def of(result, name):
    return result.sel(feature=name).values


class TestOwnGrid:
    def test_slope_and_aspect_are_those_of_gdaldem(self):
        dem = model()
        result = terrain_features(dem, EVERY)
        for row in range(1, 39, 3):
            for column in range(1, 49, 4):
                slope, aspect = oracle.horn(dem.values, row, column, 30, 30)
                assert of(result, "slope")[row, column] == pytest.approx(slope, abs=1e-4)
                assert of(result, "aspect")[row, column] == pytest.approx(aspect, abs=1e-3)

    def test_slope_and_aspect_are_those_of_xarray_spatial(self):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spatial = pytest.importorskip("xrspatial")
            plain = model().drop_vars("spatial_ref").assign_attrs(res=(30, 30))
            slope, aspect = spatial.slope(plain).values, spatial.aspect(plain).values
        result = terrain_features(model(), EVERY)
        inner = (slice(1, -1), slice(1, -1))
        np.testing.assert_allclose(of(result, "slope")[inner], slope[inner], atol=1e-4)
        gap = np.abs(of(result, "aspect")[inner] - aspect[inner])
        np.testing.assert_allclose(np.minimum(gap, 360 - gap), 0, atol=1e-2)

    @pytest.mark.parametrize(
        ("fall", "azimuth"),
        [((0, 1), 90), ((1, 0), 180), ((0, -1), 270), ((-1, 0), 0), ((-1, 1), 45), ((1, 1), 135), ((1, -1), 225)],
    )
    def test_ground_faces_the_way_it_falls(self, fall, azimuth):
        rows, columns = np.mgrid[:5, :5]
        result = terrain_features(model(heights=np.float32(-30 * (fall[0] * rows + fall[1] * columns)) + 500, grid=Grid(
            UTM.crs, UTM.transform, (5, 5))), EVERY)  # fmt: skip
        assert of(result, "aspect") == pytest.approx(azimuth, abs=1e-4)
        assert of(result, "aspect_sin") == pytest.approx(np.sin(np.radians(azimuth)), abs=1e-6)
        assert of(result, "aspect_cos") == pytest.approx(np.cos(np.radians(azimuth)), abs=1e-6)
        assert of(result, "slope") == pytest.approx(np.degrees(np.arctan(np.hypot(*fall))), abs=1e-4)

    def test_level_ground_has_no_aspect_but_components_of_zero(self):
        result = terrain_features(model(heights=np.full(UTM.shape, 77, np.float32)), EVERY)
        assert (of(result, "slope") == 0).all()
        assert np.isnan(of(result, "aspect")).all()
        assert (of(result, "aspect_sin") == 0).all()
        assert (of(result, "aspect_cos") == 0).all()

    def test_missing_heights_stay_missing_and_no_others_are_lost(self):
        heights = oracle.hills(UTM.shape)
        heights[5, 5] = heights[20:23, 30:33] = np.nan
        result = terrain_features(model(heights=heights), ("elevation", "slope", "aspect_sin"))
        for name in ("elevation", "slope", "aspect_sin"):
            np.testing.assert_array_equal(np.isnan(of(result, name)), np.isnan(heights))

    def test_a_plane_keeps_its_slope_at_edges_and_holes(self):
        rows, columns = np.mgrid[:40, :50]
        heights = (9.0 * columns + 4.0 * rows).astype(np.float32)
        heights[10, 10] = heights[11, 12] = np.nan
        slope = of(terrain_features(model(heights=heights), ["slope"]), "slope")
        expected = np.degrees(np.arctan(np.hypot(9, 4) / 30))
        np.testing.assert_allclose(slope[~np.isnan(heights)], expected, atol=1e-4)

    def test_degrees_are_metres_of_the_ellipsoid(self):
        grid = Grid("EPSG:4326", (1 / 3600, 0, -75, 0, -1 / 3600, 6), (20, 20))
        dem = model(grid, heights=oracle.hills((20, 20)))
        result = terrain_features(dem, EVERY)
        geod = pyproj.Geod(ellps="WGS84")
        for row, column in ((1, 1), (10, 7), (18, 18)):
            lat = 6 - (row + 0.5) / 3600
            dx = geod.inv(-75, lat, -75 + 1 / 3600, lat)[2]
            dy = geod.inv(-75, lat - 0.5 / 3600, -75, lat + 0.5 / 3600)[2]
            slope, aspect = oracle.horn(dem.values, row, column, dx, dy)
            assert of(result, "slope")[row, column] == pytest.approx(slope, abs=1e-4)
            assert of(result, "aspect")[row, column] == pytest.approx(aspect, abs=1e-3)

    def test_a_grid_whose_rows_run_north_or_that_is_turned_gives_the_same_ground(self):
        dem = model()
        flipped = Grid(UTM.crs, (30, 0, 600_000, 0, 30, 300_000 - 40 * 30), (40, 50))
        turned = Grid(UTM.crs, (0, 30, 600_000, -30, 0, 300_000), (50, 40))
        whole = terrain_features(dem, EVERY).values
        upside_down = terrain_features(model(flipped, heights=dem.values[::-1].copy()), EVERY).values
        np.testing.assert_allclose(upside_down[:, ::-1], whole, atol=2e-3, equal_nan=True)
        sideways = xr.DataArray(dem.values.T.copy(), dims=("y", "x")).assign_coords(
            spatial_ref=turned.coordinates()["spatial_ref"]
        )
        across = terrain_features(sideways, EVERY).values
        np.testing.assert_allclose(across.transpose(0, 2, 1), whole, atol=2e-3, equal_nan=True)

    def test_dask_gives_the_same_bytes_and_nothing_early(self):
        computed = []
        dem = model()
        data = dask.array.from_array(dem.values, chunks=(11, 17)).map_blocks(
            lambda block: computed.append(1) or block, dtype=np.float32, meta=np.empty((0, 0), np.float32)
        )
        lazy = terrain_features(dem.copy(data=data), EVERY)
        assert lazy.chunks is not None
        assert not computed
        np.testing.assert_array_equal(lazy.values, terrain_features(dem, EVERY).values)

    def test_it_stacks_with_features_of_the_same_grid(self):
        result = terrain_features(model(), ["slope"])
        assert (result.dtype, result.dims, result.attrs["kind"]) == (np.float32, ("feature", "y", "x"), "features")
        assert Grid.from_xarray(result).same_as(UTM)
        bands = xr.Dataset({"red": model() / 1e4, "nir": model() / 2e4}, attrs={"kind": "composite"})
        assert Grid.from_xarray(spectral_features(bands, ["ndvi"])).same_as(Grid.from_xarray(result))


class TestOtherGrids:
    tile = Grid("EPSG:32618", (10, 0, 600_310, 0, -10, 299_690), (60, 55))

    def test_a_finer_grid_shows_the_slope_of_the_model_and_no_staircase(self):
        columns = np.mgrid[:40, :50][1]
        heights = (500 + 0.4 * (columns - 25.0) ** 2).astype(np.float32)
        result = terrain_features(model(heights=heights), ["slope", "elevation"], grid=self.tile)
        x = np.asarray(result["x"])
        rise = 0.8 * ((x - 600_015) / 30 - 25) / 30
        np.testing.assert_allclose(of(result, "slope")[30], np.degrees(np.arctan(np.abs(rise))), atol=0.02)

    def test_heights_are_interpolated_between_cell_centres(self):
        dem = model()
        result = terrain_features(dem, ["elevation"], grid=self.tile)
        expected = dem.interp(x=result["x"], y=result["y"])
        np.testing.assert_allclose(of(result, "elevation"), expected.values, rtol=1e-6)

    def test_another_crs_agrees_with_gdal(self):
        from rasterio.warp import Resampling, reproject

        grid = Grid("EPSG:4326", (1 / 3600, 0, -74.105, 0, -1 / 3600, 2.718), (60, 60))
        dem = model(grid, heights=oracle.hills((60, 60), roughness=0))
        utm = Grid("EPSG:32618", (20, 0, 599_800, 0, -20, 300_200), (50, 50))
        expected = np.full(utm.shape, np.nan, np.float32)
        reproject(
            dem.values, expected, src_transform=grid.transform, src_crs=grid.crs.to_wkt(), dst_transform=utm.transform,
            dst_crs=utm.crs.to_wkt(), resampling=Resampling.bilinear, dst_nodata=np.nan, src_nodata=np.nan, tolerance=0,
        )  # fmt: skip
        result = of(terrain_features(dem, ["elevation"], grid=utm), "elevation")
        both = np.isfinite(result) & np.isfinite(expected)
        assert both.mean() > 0.5
        np.testing.assert_allclose(result[both], expected[both], atol=0.02)

    def test_cells_that_are_part_of_the_model_get_its_own_values(self):
        part = UTM.window(3, 33, 4, 44)
        heights = oracle.hills(UTM.shape)
        heights[15, 20] = np.nan
        dem = model(heights=heights)
        result = terrain_features(dem, EVERY, grid=part)
        np.testing.assert_array_equal(result.values, terrain_features(dem, EVERY).values[:, 3:33, 4:44])

    def test_blocks_give_the_bytes_of_the_whole(self, tmp_path):
        path = write(tmp_path / "dem.tif", oracle.hills(UTM.shape))
        for grid in (self.tile, UTM, Grid("EPSG:4326", (1e-4, 0, -74.09, 0, -1e-4, 2.712), (70, 60))):
            whole = terrain_features(path, EVERY, grid=grid)
            assert np.isfinite(whole.values[0]).any()
            for block in grid.blocks(23, halo=2):
                part = terrain_features(path, EVERY, grid=grid, window=block.outer)
                np.testing.assert_array_equal(part.values[:, *block.crop], whole.values[:, *block.target])
                inner = Grid.from_xarray(part)
                assert inner.same_as(grid.window(*block.outer))

    def test_lazy_blocks_read_nothing_early_and_give_the_same_bytes(self, tmp_path, monkeypatch):
        path = write(tmp_path / "dem.tif", oracle.hills(UTM.shape))
        whole = terrain_features(path, EVERY, grid=self.tile)
        read = []
        monkeypatch.setattr(
            Elevation, "read", lambda model, box, keep=Elevation.read: read.append(box) or keep(model, box)
        )
        lazy = terrain_features(path, EVERY, grid=self.tile, chunks={"y": 17, "x": 20})
        assert not read
        assert lazy.chunks[1][0] == 17
        np.testing.assert_array_equal(lazy.values, whole.values)
        part = terrain_features(path, EVERY, grid=self.tile, window=(5, 30, 8, 50), chunks={})
        np.testing.assert_array_equal(part.values, whole.values[:, 5:30, 8:50])

    def test_beyond_the_model_there_is_no_height(self):
        grid = Grid(UTM.crs, (30, 0, 600_000 - 300, 0, -30, 300_000), (10, 30))
        result = terrain_features(model(), EVERY, grid=grid)
        assert np.isnan(result.values[:, :, :10]).all()
        assert np.isfinite(result.values[0, :, 10:]).all()


class TestFiles:
    def test_integers_with_nodata_scale_and_offset_are_heights(self, tmp_path):
        raw = np.rint(oracle.hills(UTM.shape)).astype(np.int16)
        raw[3, 4] = -32768
        path = write(tmp_path / "dem.tif", raw, nodata=-32768)
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = (0.5,), (10.0,)
        found = terrain_features(path, ["elevation"]).values[0]
        assert np.isnan(found[3, 4])
        assert np.isnan(found).sum() == 1
        assert found[0, 0] == raw[0, 0] * 0.5 + 10

    @pytest.mark.parametrize("marker", [-32768, -9999, 32767])
    def test_undeclared_missing_heights_are_refused(self, tmp_path, marker):
        raw = np.rint(oracle.hills(UTM.shape)).astype(np.int16)
        raw[3, 4] = marker
        with pytest.raises(InputRefused, match="a_nodata"):
            terrain_features(write(tmp_path / "dem.tif", raw), ["slope"])

    def test_a_missing_file_a_model_without_crs_and_one_elsewhere_are_refused(self, tmp_path):
        with pytest.raises(InputRefused, match=r"dem\.tif"):
            terrain_features(tmp_path / "dem.tif", ["slope"])
        bare = write(tmp_path / "bare.tif", oracle.hills(UTM.shape), crs=None)
        with pytest.raises(CRSMismatch, match="no coordinate reference system"):
            terrain_features(bare, ["slope"])
        path = write(tmp_path / "dem.tif", oracle.hills(UTM.shape))
        elsewhere = Grid("EPSG:32619", (10, 0, 200_000, 0, -10, 9e5), (10, 10))
        with pytest.raises(InputRefused, match="no height on the grid"):
            terrain_features(path, ["slope"], grid=elsewhere)

    def test_several_bands_are_no_elevation_model(self, tmp_path):
        path = tmp_path / "rgb.tif"
        with rasterio.open(path, "w", driver="GTiff", height=4, width=4, count=3, dtype="uint8", crs="EPSG:32618",
                           transform=UTM.transform) as file:  # fmt: skip
            file.write(np.zeros((3, 4, 4), np.uint8))
        with pytest.raises(InputRefused, match="3 bands"):
            terrain_features(path)

    @pytest.mark.parametrize("names", [["slopes"], [], ["slope", "slope"]])
    def test_unknown_names_are_refused(self, names):
        with pytest.raises(InputRefused, match="terrain features are"):
            terrain_features(model(), names)

    def test_a_lazy_model_on_another_grid_is_refused(self):
        with pytest.raises(GridMismatch, match="lazy"):
            terrain_features(model().chunk({"y": 10}), ["slope"], grid=TestOtherGrids.tile)
