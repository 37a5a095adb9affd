"""Round trips through the formats and libraries that users have: CRS, transform, no-data and flags come back."""

from __future__ import annotations

import json
import sqlite3

import geopandas
import numpy as np
import pytest
import shapely
import xarray as xr

import geococa as coca
from geococa.errors import CRSMismatch, GridMismatch, InputRefused, UnknownOffset
from geococa.legend import Legend

# odc-geo 0.5 uses a function that shapely 2.2 announces to drop
OLD_SHAPELY = pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning")


def utm(shape=(40, 50)):
    return coca.Grid("EPSG:32618", (10, 0, 600_000, 0, -10, 300_000), shape)


@pytest.fixture(params=["utm", "degrees", "no authority"])
def grid(request):
    return {
        "utm": utm(),
        "degrees": coca.Grid("EPSG:4326", (0.00025, 0, -73, 0, -0.00025, 2), (40, 50)),
        "no authority": coca.Grid("+proj=laea +lat_0=4 +lon_0=-73 +ellps=GRS80 +units=m", (30, 0, 1e4, 0, -30, 2e4), (40, 50)),
    }[request.param]  # fmt: skip


@pytest.fixture
def land_cover(grid):
    codes = np.random.default_rng(1).choice([1, 2, 9, 255], size=(2, *grid.shape), p=[0.2, 0.5, 0.2, 0.1])
    array = xr.DataArray(codes.astype(np.uint8), dims=("time", "y", "x"), name="land_cover")
    times = np.array(["2023-12-31", "2024-12-31"], "datetime64[ns]")
    out = coca.as_land_cover(grid.attach(array), {1: "coca", 2: "forest", 9: "water"})
    return out.assign_coords(time=times)


def _features(grid):
    values = np.random.default_rng(2).random((1, 2, *grid.shape), dtype=np.float32)
    array = xr.DataArray(values, dims=("time", "feature", "y", "x"), coords={"feature": ["red", "nir"]})
    return grid.attach(array.assign_attrs(kind="features"))


def _model():
    import pandas as pd

    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"class": ["coca", "forest"] * 20, "red": rng.random(40), "nir": rng.random(40)})
    return coca.train(rows, ["red", "nir"], method="minimum_distance")


def same_map(back, land_cover):
    assert coca.Grid.from_xarray(back).same_as(coca.Grid.from_xarray(land_cover), tolerance=1e-9)
    assert coca.Grid.from_xarray(back).crs == coca.Grid.from_xarray(land_cover).crs
    assert back.dtype == np.uint8
    assert np.array_equal(back.values, land_cover.values)
    assert Legend.from_attrs(back.attrs) == Legend.from_attrs(land_cover.attrs)
    assert back.attrs["kind"] == "land_cover"
    assert back.attrs["nodata"] == back.attrs["_FillValue"] == 255


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_map_comes_back_from_a_cube_file(land_cover, tmp_path, suffix):
    pytest.importorskip({".nc": "h5netcdf", ".zarr": "zarr"}[suffix])
    path = coca.write_cube(land_cover, tmp_path / f"map{suffix}")
    back = coca.read_cube(path)
    same_map(back, land_cover)
    assert np.array_equal(back["time"], land_cover["time"])
    assert back.name == "land_cover"
    assert sorted(item.name for item in tmp_path.iterdir()) == [f"map{suffix}"], "no temporary is left"
    coca.write_cube(land_cover.isel(time=[0]), path)
    assert coca.read_cube(path).sizes["time"] == 1, "the new one replaces the old"


def test_a_map_comes_back_from_a_cog(land_cover, tmp_path):
    same_map(coca.read_raster(coca.write_cog(land_cover, tmp_path / "map.tif")), land_cover)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_dataset_of_floats_and_flags_comes_back_lazily(tmp_path, suffix):
    pytest.importorskip({".nc": "h5netcdf", ".zarr": "zarr"}[suffix])
    pytest.importorskip("dask")
    scenes = coca.open_tile("sample_tiles/18NXG", years=[2024], window=(0, 40, 0, 40), bands=["red", "nir"])
    annual = coca.composite(coca.to_reflectance(scenes, where=coca.clear_sky(scenes, buffer_m=10)))
    back = coca.read_cube(coca.write_cube(annual, tmp_path / f"annual{suffix}"), chunks={})
    assert back.red.chunks is not None
    for name, array in annual.data_vars.items():
        assert back[name].dtype == array.dtype, name
        assert np.array_equal(back[name].values, array.values, equal_nan=array.dtype.kind in "fM"), name
    assert back.attrs["kind"] == "composite"
    features = coca.spectral_features(back, ["ndvi"])
    assert np.array_equal(features.values, coca.spectral_features(annual, ["ndvi"]).values, equal_nan=True)


def test_scenes_keep_quality_flags_and_offsets_in_a_cube(tmp_path):
    pytest.importorskip("zarr")
    scenes = coca.open_tile("sample_tiles/18NXG", years=[2021, 2022], window=(0, 40, 0, 40), bands=["red", "nir"])
    back = coca.read_cube(coca.write_cube(scenes, tmp_path / "scenes.zarr"))
    assert back.red.dtype == np.uint16
    assert np.array_equal(back.offset, scenes.offset)
    assert np.array_equal(back.scl.attrs["flag_values"], scenes.scl.attrs["flag_values"])
    clear = coca.clear_sky(scenes)
    assert np.array_equal(coca.clear_sky(back), clear)
    expected = coca.to_reflectance(scenes, where=clear)
    assert np.array_equal(coca.to_reflectance(back, where=clear).red, expected.red, equal_nan=True)


def test_a_dask_cube_is_written_without_being_held(tmp_path):
    pytest.importorskip("zarr")
    pytest.importorskip("dask")
    scenes = coca.open_tile("sample_tiles/18NXG", years=[2024], bands=["red"], chunks={"y": 64, "x": 64})
    back = coca.read_cube(coca.write_cube(scenes, tmp_path / "scenes.zarr"), chunks={})
    assert back.red.chunks[1][0] == 64
    assert np.array_equal(back.red, scenes.red)


def test_a_zarr_store_says_where_it_lies_by_the_geozarr_conventions(land_cover, tmp_path):
    pytest.importorskip("zarr")
    path = coca.write_cube(land_cover, tmp_path / "map.zarr")
    attrs = json.loads((path / "zarr.json").read_text())["attributes"]
    grid = coca.Grid.from_xarray(land_cover)
    assert [one["name"] for one in attrs["zarr_conventions"]] == ["spatial", "proj"]
    assert attrs["spatial:transform"] == list(grid.transform)[:6]
    assert attrs["spatial:shape"] == list(grid.shape)
    assert attrs["spatial:dimensions"] == ["y", "x"]
    assert attrs["spatial:bbox"] == list(grid.bounds)
    from pyproj import CRS

    stated = CRS.from_user_input(attrs.get("proj:code") or attrs["proj:wkt2"])
    assert stated.equals(grid.crs, ignore_axis_order=True)


def test_a_folder_that_is_no_zarr_store_is_not_replaced(tmp_path):
    pytest.importorskip("zarr")
    (tmp_path / "work.zarr").mkdir()
    (tmp_path / "work.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputRefused, match="no Zarr store"):
        coca.write_cube(coca.synthetic.simple_land_cover((8, 8)), tmp_path / "work.zarr")
    assert (tmp_path / "work.zarr" / "thesis.txt").read_text() == "years of work"
    assert [item.name for item in tmp_path.iterdir()] == ["work.zarr"]


def test_wrong_cube_files_are_refused_by_name(tmp_path):
    pytest.importorskip("h5netcdf")
    (tmp_path / "bad.nc").write_bytes(b"no netCDF")
    for name, words in (("bad.nc", "can't be read"), ("none.nc", "no such file"), ("map.grib", "are read from")):
        with pytest.raises(InputRefused, match=words) as caught:
            coca.read_cube(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(InputRefused, match=r"\.nc or \.zarr"):
        coca.write_cube(coca.synthetic.simple_land_cover((8, 8)), tmp_path / "map.grib")
    with pytest.raises(CRSMismatch):
        coca.write_cube(xr.DataArray(np.zeros((2, 2)), dims=("y", "x")), tmp_path / "map.nc")


# --- .rio and .odc -------------------------------------------------------------------------------------------------


def test_rio_understands_our_arrays(land_cover, grid):
    pytest.importorskip("rioxarray")
    assert land_cover.rio.crs.to_wkt() == __import__("rasterio").CRS.from_wkt(grid.crs.to_wkt()).to_wkt()
    assert land_cover.rio.transform().almost_equals(grid.transform, precision=1e-9)
    assert land_cover.rio.nodata == 255
    assert coca.label(coca.classify(_features(grid), _model())).rio.nodata == 255
    assert land_cover.rio.bounds() == pytest.approx(grid.bounds, abs=1e-9)


def test_we_understand_arrays_of_rio(land_cover, grid, tmp_path):
    rioxarray = pytest.importorskip("rioxarray")
    coca.write_cog(land_cover.isel(time=0), tmp_path / "map.tif")
    opened = rioxarray.open_rasterio(tmp_path / "map.tif")
    assert coca.Grid.from_xarray(opened).same_as(grid, tolerance=1e-9)
    back = coca.as_land_cover(opened, {1: "coca", 2: "forest", 9: "water"})
    same_map(back, land_cover.isel(time=0))
    # and back through rioxarray's own writer
    back.rio.to_raster(tmp_path / "again.tif")
    again = coca.read_raster(tmp_path / "again.tif")
    assert again.attrs["nodata"] == 255
    assert np.array_equal(again.values, back.values)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_xarray_and_rio_read_our_cubes_without_us(land_cover, grid, tmp_path, suffix):
    pytest.importorskip("rioxarray")
    pytest.importorskip({".nc": "h5netcdf", ".zarr": "zarr"}[suffix])
    path = coca.write_cube(land_cover, tmp_path / f"map{suffix}")
    options = {"engine": "h5netcdf"} if suffix == ".nc" else {"engine": "zarr", "consolidated": False}
    with xr.open_dataset(path, decode_coords="all", **options) as opened:
        assert opened.land_cover.rio.transform().almost_equals(grid.transform, precision=1e-9)
        assert opened.land_cover.rio.encoded_nodata == 255
        seen = np.isfinite(opened.land_cover.values)
    assert np.array_equal(seen, land_cover.values != 255), "CF readers mask what was not observed"


def test_odc_understands_our_arrays(land_cover, grid):
    pytest.importorskip("odc.geo.xr")
    box = land_cover.odc.geobox
    assert box.shape == grid.shape
    assert box.transform.almost_equals(grid.transform, precision=1e-9)
    assert box.crs.proj == grid.crs or box.crs.proj.equals(grid.crs, ignore_axis_order=True)


def test_we_understand_arrays_of_odc(grid):
    odc_xr = pytest.importorskip("odc.geo.xr")
    from odc.geo.geobox import GeoBox

    box = GeoBox(grid.shape, grid.transform, grid.crs.to_wkt())
    zeros = odc_xr.xr_zeros(box, dtype="uint8")
    assert coca.Grid.from_xarray(zeros).same_as(grid, tolerance=1e-9)
    land_cover = coca.as_land_cover(zeros + np.uint8(1), {1: "coca"})
    assert coca.Grid.from_xarray(land_cover).same_as(grid, tolerance=1e-9)


# --- vectors -------------------------------------------------------------------------------------------------------


@pytest.fixture
def parks():
    polygons = [shapely.box(600_050, 299_800, 600_200, 299_950), shapely.box(600_250, 299_700, 600_450, 299_950)]
    return geopandas.GeoDataFrame(
        {"zone": ["Ñ <b>&", 'O"quote'], "category": ["coca", "forest"]}, geometry=polygons, crs="EPSG:32618"
    )


@pytest.mark.parametrize("suffix", [".gpkg", ".parquet"])
def test_zones_come_back_from_vector_files(parks, tmp_path, suffix):
    path = coca.write_vector(parks, tmp_path / f"parks{suffix}")
    back = coca.read_zones(path, name="zone")
    assert back.crs == parks.crs
    assert back["zone"].tolist() == parks["zone"].tolist()
    assert back.geometry.geom_equals(parks.geometry).all()
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_geoparquet_is_version_1_1_with_bounds_for_every_row(parks, tmp_path):
    import pyarrow.parquet

    path = coca.write_vector(parks, tmp_path / "parks.parquet")
    meta = json.loads(pyarrow.parquet.read_schema(path).metadata[b"geo"])
    assert meta["version"] == "1.1.0"
    assert "bbox" in meta["columns"]["geometry"]["covering"]
    assert meta["columns"]["geometry"]["crs"]["id"] == {"authority": "EPSG", "code": 32618}


def test_a_geopackage_carries_its_colours_for_qgis(parks, tmp_path):
    from xml.etree import ElementTree as ET

    path = coca.write_vector(
        parks, tmp_path / "parks.gpkg", color_by="category", colors={"coca": "#d81b60", "forest": "#1b5e20"}
    )
    with sqlite3.connect(path) as base:
        rows = base.execute(
            "SELECT f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchall()
        kinds = dict(base.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall())
    base.close()
    [(layer, column, default, qml)] = rows
    assert (layer, column, default) == ("parks", "geom", 1)
    assert kinds == {"parks": "features", "layer_styles": "attributes"}
    root = ET.fromstring(qml)
    found = {entry.get("value"): entry.get("symbol") for entry in root.iter("category")}
    colors = {
        symbol.get("name"): option.get("value")
        for symbol in root.iter("symbol")
        for option in symbol.iter("Option")
        if option.get("name") == "color"
    }
    assert colors[found["coca"]] == "216,27,96,180"
    assert len(coca.read_zones(path, name="zone")) == 2, "the table of styles is no layer of zones"


def test_wrong_vectors_are_refused(parks, tmp_path):
    with pytest.raises(InputRefused, match=r"\.gpkg and \.parquet"):
        coca.write_vector(parks, tmp_path / "parks.shp")
    with pytest.raises(CRSMismatch, match="no CRS"):
        coca.write_vector(parks.set_crs(None, allow_override=True), tmp_path / "parks.gpkg")
    with pytest.raises(InputRefused, match="no column"):
        coca.write_vector(parks, tmp_path / "parks.gpkg", color_by="kind")
    with pytest.raises(InputRefused, match="no colour for forest"):
        coca.write_vector(parks, tmp_path / "parks.gpkg", color_by="category", colors={"coca": "#d81b60"})
    assert list(tmp_path.iterdir()) == []


def test_the_style_beside_a_map_names_and_colours_its_classes(land_cover, tmp_path):
    from xml.etree import ElementTree as ET

    path = coca.write_qml(land_cover, tmp_path / "map.tif")
    assert path.name == "map.qml"
    entries = ET.fromstring(path.read_text()).iter("paletteEntry")
    legend = Legend.from_attrs(land_cover.attrs)
    found = {int(one.get("value")): (one.get("label"), one.get("color")) for one in entries}
    assert found == {c: (n, k) for c, n, k in zip(legend.codes, legend.names, legend.colors, strict=True)}
    with pytest.raises(InputRefused):
        coca.write_qml(land_cover.astype(float).drop_attrs(), tmp_path / "map.tif")


# --- tables --------------------------------------------------------------------------------------------------------


def test_columns_are_those_of_exactextract_and_so_are_the_numbers(parks):
    exactextract = pytest.importorskip("exactextract")
    rioxarray = pytest.importorskip("rioxarray")  # noqa: F841 - exactextract reads its arrays
    values = np.random.default_rng(3).normal(size=(2, 40, 50))
    layers = utm().attach(xr.DataArray(values, dims=("band", "y", "x"), coords={"band": ["red", "nir"]}))
    operations = ["mean", "max", "count"]
    mine = coca.exactextract_table(
        coca.zonal_statistics(layers, coca.coverage_fraction(parks, utm()), stats=operations)
    )
    theirs = exactextract.exact_extract(
        layers.to_dataset("band"), parks, operations, include_cols=["zone"], output="pandas"
    )
    assert set(mine.columns) == set(theirs.columns)
    assert mine["zone"].tolist() == theirs["zone"].tolist()
    for column in mine.columns[1:]:
        assert mine[column].to_numpy() == pytest.approx(theirs[column].to_numpy(), rel=1e-6), column
    with pytest.raises(InputRefused, match="zonal_statistics"):
        coca.exactextract_table(mine)


# --- STAC and Dask -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stac_items(sample_tiles):
    pystac = pytest.importorskip("pystac")
    paths = sorted((sample_tiles / "18NXG").glob("*_202[12]*/item.json"))
    return [pystac.Item.from_file(str(path)) for path in paths]


def odc_cube(items, **options):
    odc_stac = pytest.importorskip("odc.stac")
    tile = coca.find_tiles("sample_tiles")[0]
    from odc.geo.geobox import GeoBox

    box = GeoBox(tile.grid.shape, tile.grid.transform, tile.grid.crs.to_wkt())
    return odc_stac.load(
        items, bands=["red", "nir", "scl"], geobox=box, groupby="id", chunks={"x": 64, "y": 64}, **options
    )


@OLD_SHAPELY
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_dask_cube_of_odc_stac_goes_straight_through_the_stages(stac_items):
    dask = pytest.importorskip("dask")
    cube = odc_cube(stac_items)
    computed = []

    class Watch(dask.callbacks.Callback):
        def _start(self, dsk):
            computed.append(len(dsk))

    with Watch():
        scenes = coca.as_scenes(cube, "sentinel-2-l2a", items=stac_items)
        clear = coca.clear_sky(scenes, buffer_m=20)
        reflectance = coca.to_reflectance(scenes, where=clear)
        annual = coca.composite(reflectance)
        features = coca.spectral_features(annual, ["ndvi"])
    assert computed == [], "nothing is computed before it is asked for"
    assert features.chunks is not None
    ours = coca.open_tile("sample_tiles/18NXG", years=[2021, 2022], bands=["red", "nir"])
    assert np.array_equal(scenes.offset, ours.offset)
    assert set(np.unique(scenes.offset)) == {-0.1, 0.0}, "products of both kinds are in the cube"
    assert np.array_equal(scenes.processing_baseline, ours.processing_baseline)
    expected = coca.composite(coca.to_reflectance(ours, where=coca.clear_sky(ours, buffer_m=20)))
    assert np.array_equal(features.values, coca.spectral_features(expected, ["ndvi"]).values, equal_nan=True)


@OLD_SHAPELY
def test_a_cube_whose_offsets_are_unknown_does_not_become_reflectance(stac_items):
    scenes = coca.as_scenes(odc_cube(stac_items), "sentinel-2-l2a")
    with pytest.raises(UnknownOffset):
        coca.to_reflectance(scenes)
    assert coca.to_reflectance(scenes, scale=1e-4, offset=0.0).red.dtype == np.float32
    with pytest.raises(UnknownOffset, match="no item within 6 hours"):
        coca.as_scenes(odc_cube(stac_items), "sentinel-2-l2a", items=stac_items[:1])


@OLD_SHAPELY
def test_products_of_one_time_step_must_share_their_offset(stac_items):
    one = stac_items[0].to_dict()
    other = json.loads(json.dumps(one))
    other["properties"]["s2:processing_baseline"] = "05.11"
    for asset in other["assets"].values():
        for band in asset.get("raster:bands", []):
            if "offset" in band:
                band["offset"] = -0.1
    cube = odc_cube(stac_items[:1])
    with pytest.raises(UnknownOffset, match="different offsets"):
        coca.as_scenes(cube, "sentinel-2-l2a", items=[one, other])


@OLD_SHAPELY
def test_wrong_cubes_are_refused_with_the_remedy(stac_items):
    cube = odc_cube(stac_items)
    with pytest.raises(InputRefused, match="without scaling"):
        coca.as_scenes(cube.astype("float32"), "sentinel-2-l2a", items=stac_items)
    with pytest.raises(InputRefused, match="no band of landsat"):
        coca.as_scenes(cube[["scl"]], "landsat-c2-l2")
    with pytest.raises(InputRefused, match="twice"):
        coca.as_scenes(cube.assign(B04=cube.red), "sentinel-2-l2a")
    with pytest.raises(GridMismatch, match="time, y and x"):
        coca.as_scenes(cube.isel(time=0, drop=True), "sentinel-2-l2a")
    with pytest.raises(InputRefused, match="either items"):
        coca.as_scenes(cube, "sentinel-2-l2a", items=stac_items, offset=0.0)


def test_a_cube_in_one_array_and_landsat_take_the_definition_of_the_sensor():
    numbers = np.full((1, 2, 4, 5), 8000, "uint16")
    array = utm((4, 5)).attach(
        xr.DataArray(numbers, dims=("time", "band", "y", "x"), coords={"band": ["red", "nir08"]})
    )
    scenes = coca.as_scenes(array.assign_coords(time=np.array(["2020-01-01"], "datetime64[ns]")), "landsat-c2-l2")
    assert list(scenes.data_vars) == ["red", "nir08"]
    assert coca.to_reflectance(scenes).red.values == pytest.approx(8000 * 2.75e-5 - 0.2, abs=1e-7)


# --- the accessor and rio ------------------------------------------------------------------------------------------


def test_the_accessor_says_what_the_functions_say(land_cover, parks):
    one = coca.as_land_cover(utm().attach(xr.DataArray(np.ones((40, 50), np.uint8), dims=("y", "x"))), {1: "coca"})
    expected = coca.zonal_area(one, coca.coverage_fraction(parks, utm()))
    assert one.geococa.zonal_area(parks).identical(expected)
    assert one.geococa.zonal_area(one.geococa.coverage(parks)).identical(expected)
    assert land_cover.geococa.grid == coca.Grid.from_xarray(land_cover)
    assert land_cover.geococa.legend.names == ("coca", "forest", "water")
    sieved = land_cover.geococa.sieve(min_area_ha=0.0005)
    assert sieved.identical(coca.sieve(land_cover, min_area_ha=0.0005))
    scenes = coca.open_tile("sample_tiles/18NXG", years=[2024], window=(0, 30, 0, 30), bands=["red", "nir"])
    annual = scenes.geococa.to_reflectance(where=scenes.geococa.clear_sky(buffer_m=0)).geococa.composite()
    again = coca.composite(coca.to_reflectance(scenes, where=coca.clear_sky(scenes, buffer_m=0)))
    assert annual.geococa.spectral_features(["ndvi"]).identical(coca.spectral_features(again, ["ndvi"]))


def test_the_accessor_writes_by_suffix(tmp_path):
    pytest.importorskip("h5netcdf")
    land_cover = coca.synthetic.simple_land_cover((20, 20), years=(2024,))
    for name in ("map.tif", "map.nc"):
        assert land_cover.geococa.to_file(tmp_path / name) == tmp_path / name
    assert np.array_equal(
        coca.read_raster(tmp_path / "map.tif").squeeze(), coca.read_cube(tmp_path / "map.nc").squeeze()
    )


def test_rio_has_our_commands():
    from importlib.metadata import entry_points

    from click.testing import CliRunner

    found = [point for point in entry_points(group="rasterio.rio_plugins") if point.name == "geococa"]
    if not found:
        pytest.skip("geococa was installed before it had the entry point: install it again")
    from rasterio.rio.main import main_group

    done = CliRunner().invoke(main_group, ["geococa", "versions", "--json"])
    assert done.exit_code == 0, done.output
    assert "geococa" in json.loads(done.stdout)
