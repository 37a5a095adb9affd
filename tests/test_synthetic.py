"""The simulated landscape: truth that adds up, images that follow it, and bytes that repeat."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.errors import GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.synthetic import CLASSES, STRATA, landscape, simple_land_cover, write_archive
from geococa.synthetic.coca import plot_status
from geococa.synthetic.frame import LOCAL, area_ha
from geococa.synthetic.noise import hashed_normal, lattice_field, stream
from geococa.synthetic.shapes import blob, field_block, random_points

YEARS = range(2020, 2023)


@pytest.fixture(scope="module")
def world():
    return landscape(size_m=1200, years=YEARS, dates_per_year=3, seed=5, samples_per_class=12, validation_points=80)


@pytest.fixture(scope="module")
def wide():
    return landscape(size_m=3500, years=[2020], dates_per_year=1, seed=3)


@pytest.fixture(scope="module")
def archive(world, tmp_path_factory):
    return write_archive(world, tmp_path_factory.mktemp("simulated") / "archive")


@pytest.fixture(scope="module")
def grid(world):
    return world.grids["18NXG"]


def reflectance(scenes, band):
    return scenes[band].values[0] * float(scenes.scale[0, 0]) + float(scenes.offset[0, 0])


def digest(folder):
    found = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    return json.dumps(found)


# Truth ------------------------------------------------------------------------------------------------------------


def test_classes_of_a_year_partition_every_park(world):
    total = world.truth_areas().groupby(["park", "year"])["area_ha"].sum().unstack()
    for park, outline in world.parks.set_index("park").geometry.items():
        assert total.loc[park].to_numpy() == pytest.approx(area_ha(outline), rel=1e-9)


def test_area_agrees_with_geodesic_polygons(world):
    geod = pyproj.Geod(ellps="WGS84")
    for park in world.parks.geometry:
        parts = [shapely.segmentize(shapely.geometry.polygon.orient(p), 1e-4) for p in shapely.get_parts(park)]
        expected = sum(geod.geometry_area_perimeter(part)[0] for part in parts) / 1e4
        assert area_ha(park) == pytest.approx(expected, rel=2e-8)


def test_area_agrees_with_a_degree_cell_at_the_equator():
    assert area_ha(shapely.box(0, 0, 1, 1)) == pytest.approx(12308.464e2, rel=1e-7)


def test_land_cover_has_no_overlaps(world):
    cover = world.truth[2021].geometry.to_numpy()
    whole = area_ha(shapely.union_all(cover))
    assert sum(area_ha(part) for part in cover) == pytest.approx(whole, rel=1e-10)


def test_plots_of_a_year_are_its_coca(world):
    plots = world.plots
    for year in YEARS:
        cover = world.truth[year].set_index("class").geometry["coca"]
        chosen = plots[(plots["year"] == year) & (plots["class"] == "coca")]
        assert chosen["area_ha"].sum() == pytest.approx(area_ha(cover), rel=1e-10)


def test_inside_hectares_are_those_within_the_tiles(world):
    areas = world.truth_areas().groupby("park")[["area_ha", "inside_ha"]].sum()
    assert areas.loc["Caño Sur", "inside_ha"] < 0.8 * areas.loc["Caño Sur", "area_ha"]
    assert areas.loc["Serranía Azul", "inside_ha"] == pytest.approx(areas.loc["Serranía Azul", "area_ha"], rel=1e-9)


def test_all_classes_occur(world):
    assert set(world.truth[2020]["class"]) == set(CLASSES)


# Parks ------------------------------------------------------------------------------------------------------------


def test_parks_hold_every_difficulty(world):
    parks = world.parks.set_index("park").geometry
    tiles = {tile: shapely.box(*grid.bounds) for tile, grid in world.grids.items()}
    coca = world.truth_areas().query("`class` == 'coca'").groupby("park")["area_ha"].sum()
    assert parks.is_valid.all()
    assert len(parks) >= 6
    assert len(parks["Serranía Azul"].interiors) == 1
    assert len(shapely.get_parts(parks["Dos Lagunas"])) == 2
    assert parks["Alto Raudal"].intersection(parks["Distrito Raudal"]).area > 0
    assert not world.footprint.contains(parks["Caño Sur"])
    assert parks["Meridiano"].bounds[0] < -72 < parks["Meridiano"].bounds[2]
    for tile, box in tiles.items():
        there = gpd.GeoSeries([parks["Meridiano"]], crs=4326).to_crs(world.grids[tile].crs).iloc[0]
        assert there.intersects(box)
        assert not box.contains(there)
    assert area_ha(parks["Piedra Sola"]) < 1
    assert coca["Piedra Sola"] == coca["Monte Cerrado"] == 0


def test_tiles_overlap_across_two_utm_zones(world):
    first, second = (gpd.GeoSeries([shapely.box(*g.bounds)], crs=g.crs).to_crs(LOCAL) for g in world.grids.values())
    assert [g.crs.to_epsg() for g in world.grids.values()] == [32618, 32619]
    assert first.iloc[0].intersection(second.iloc[0]).area == pytest.approx(1200 * 240, rel=0.15)


@pytest.mark.parametrize("tiles", [1, 3, 5])
def test_any_number_of_tiles_has_unique_ids(tiles):
    many = landscape(size_m=400, tiles=tiles, years=[2020], dates_per_year=1, seed=1)
    assert len(many.grids) == tiles


# Plots ------------------------------------------------------------------------------------------------------------


def test_plot_sizes_are_log_normal_around_0_7_ha(wide):
    sizes = np.log(wide.plots.drop_duplicates("plot")["area_ha"])
    assert len(sizes) > 200
    assert np.exp(sizes.median()) == pytest.approx(0.7, rel=0.12)
    assert 0.5 < sizes.std() < 0.75


def test_status_follows_the_states_of_a_plot():
    planted = np.array([[0, 1, 1, 0, 0, 1, 1], [1, 1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]], dtype=bool)
    expected = [
        ["new", "persistent", "abandoned", "abandoned", "replanted", "persistent"],
        ["persistent", "abandoned", "replanted", "abandoned", "abandoned", "abandoned"],
        ["", "", "", "", "", "new"],
    ]
    assert plot_status(planted).tolist() == expected


def test_statuses_of_successive_years_fit(world):
    table = world.plots.pivot(index="plot", columns="year", values="status")
    allowed = {
        "new": {"persistent", "abandoned"},
        "persistent": {"persistent", "abandoned"},
        "abandoned": {"abandoned", "replanted"},
        "replanted": {"persistent", "abandoned"},
    }
    for before, after in zip(list(YEARS)[:-1], list(YEARS)[1:], strict=True):
        for one, two in table[[before, after]].dropna().itertuples(index=False):
            assert two in allowed[one]
        assert set(table.loc[table[before].isna() & table[after].notna(), after]) <= {"new"}
    assert {"new", "persistent", "abandoned"} <= set(world.plots["status"])


def test_net_trends_differ_between_parks():
    coca = landscape(size_m=2200, dates_per_year=1, seed=7).truth_areas().query("`class` == 'coca'")
    table = coca.pivot(index="park", columns="year", values="area_ha")
    assert table.loc["Meridiano", 2024] > 1.3 * table.loc["Meridiano", 2018]
    assert table.loc["Dos Lagunas", 2024] < 0.6 * table.loc["Dos Lagunas", 2018]


def test_plots_lie_near_rivers_and_roads(wide):
    cover = wide.truth[2020].set_index("class").to_crs(LOCAL).geometry
    access = shapely.union_all([cover["water"], cover["bare_soil"]])
    centres = wide.plots.drop_duplicates("plot").to_crs(LOCAL).geometry.centroid.to_numpy()
    west, south, east, north = wide.frame.extent
    anywhere = shapely.points(np.random.default_rng(0).uniform((west, south), (east, north), (2000, 2)))
    near, usual = (np.mean(shapely.distance(access, points)) for points in (centres, anywhere))
    assert near < 0.85 * usual


def test_an_abandoned_plot_is_secondary_forest(world):
    gone = world.plots[world.plots["status"] == "abandoned"].iloc[0]
    cover = world.truth[gone["year"]].set_index("class").geometry["secondary_forest"]
    assert cover.buffer(1e-9).contains(gone.geometry)


# Mixing and images ------------------------------------------------------------------------------------------------


def test_mixing_is_area_weighted(world, grid):
    shares = world.class_fractions(grid, 2021)
    box = shapely.box(*grid.bounds)
    cover = world.truth[2021].to_crs(grid.crs).set_index("class").geometry
    for name in CLASSES:
        exact = cover[name].intersection(box).area / (100.0 * shares.sizes["x"] * shares.sizes["y"])
        assert float(shares.sel(land_cover=name).mean()) == pytest.approx(exact, rel=1e-6, abs=1e-12)


def test_shares_of_a_pixel_sum_to_one(world, grid):
    assert np.abs(world.class_fractions(grid, 2020).sum("land_cover") - 1).max() < 1e-6


def test_scenes_carry_scale_offset_and_ids(world, grid):
    scenes = world.render(grid, "2022-06-01", bands=["red", "nir"])
    assert scenes.attrs == {"kind": "scenes", "sensor": "sentinel-2-l2a"}
    assert scenes["red"].dtype == np.uint16
    assert scenes["scl"].dtype == np.uint8
    assert scenes["red"].dims == ("time", "y", "x")
    assert scenes.scale.values.tolist() == [[1e-4, 1e-4]]
    assert scenes.offset.values.tolist() == [[-0.1, -0.1]]
    assert scenes.scene.item().startswith("S2")
    assert "_T18NXG_" in scenes.scene.item()
    assert Grid.from_xarray(scenes).same_as(grid)


def test_offset_moves_numbers_and_not_reflectance(world, grid):
    before, after = (world.render(grid, day, weather=False) for day in ("2022-01-24", "2022-01-25"))
    step = after["nir"].values.astype(int) - before["nir"].values
    assert before.processing_baseline.item() < "04.00" <= after.processing_baseline.item()
    assert float(before.offset[0, 0]) == 0.0
    assert float(after.offset[0, 0]) == -0.1
    assert np.median(step) == pytest.approx(1000, abs=150)
    assert np.median(reflectance(after, "nir")) == pytest.approx(np.median(reflectance(before, "nir")), rel=0.06)


def test_a_window_shows_the_same_pixels_as_the_whole(world, grid):
    whole = world.render(grid, "2020-08-05")
    part = world.render(grid.window(20, 60, 40, 100), "2020-08-05")
    for name in ("red", "swir16", "scl"):
        assert np.array_equal(part[name].values, whole[name].values[:, 20:60, 40:100])


def test_coarse_bands_are_made_at_twenty_metres(world, grid):
    layer = world.render(grid, "2020-08-05")["swir16"].values[0]
    assert (layer[::2, ::2] == layer[1::2, 1::2]).all()
    red = world.render(grid, "2020-08-05")["red"].values[0]
    assert (red[::2, ::2] != red[1::2, 1::2]).mean() > 0.5


def test_clouds_brighten_and_shadows_darken(world, grid):
    day = max(
        (a for a in world.acquisitions), key=lambda a: min(0.5, float(world.sky(grid, a.moment.date()).cloud.mean()))
    )
    date = day.moment.date()
    sky = world.sky(grid, date)
    seen, bare = (reflectance(world.render(grid, date, weather=w, noise=False), "red") for w in (True, False))
    recorded = ~sky.gap.values
    cloudy = (sky.cloud.values > 0.8) & recorded
    shaded = (sky.shadow.values > 0.9) & (sky.cloud.values < 0.01) & (sky.haze.values < 0.15) & recorded
    assert cloudy.sum() > 500
    assert (seen[cloudy] > bare[cloudy] + 0.2).mean() > 0.95
    if shaded.sum() > 50:
        assert np.median(seen[shaded] / bare[shaded]) < 0.9


def test_scene_classification_is_informative_and_imperfect(world, grid):
    flagged, cloudy = [], []
    for acquisition in world.acquisitions:
        date = acquisition.moment.date()
        sky = world.sky(grid, date)
        seen = ~sky.gap.values
        flagged.append(np.isin(world.render(grid, date)["scl"].values[0], (8, 9, 10))[seen])
        cloudy.append((sky.cloud.values > 0.15)[seen])
    flagged, cloudy = np.concatenate(flagged), np.concatenate(cloudy)
    assert flagged[cloudy].mean() > 0.8
    assert flagged[~cloudy].mean() < 0.1
    assert 0.001 < (flagged != cloudy).mean() < 0.2


def test_gaps_hold_no_data_in_all_bands(world, grid):
    days = pd.date_range("2021-01-01", "2021-12-31", freq="7D")
    date = next(day for day in days if bool(world.sky(grid, day).gap.any()))
    scenes = world.render(grid, date)
    gap = world.sky(grid, date).gap.values
    empty = scenes["scl"].values[0] == 0
    assert (empty != gap).mean() < 0.02
    assert all((scenes[name].values[0] == 0).tolist() == empty.tolist() for name in ("blue", "nir", "swir22"))


def test_ground_beyond_the_landscape_is_no_data(world):
    away = Grid("EPSG:32618", (10, 0, 500000, 0, -10, 243000), (4, 4))
    assert (world.render(away, "2020-05-05")["red"].values == 0).all()


def test_coca_lies_between_fallow_and_pasture(world, grid):
    shares = world.class_fractions(grid, 2021)
    days = ["2021-02-10", "2021-05-20", "2021-08-10", "2021-11-10"]
    ndvi = []
    for day in days:
        scenes = world.render(grid, day, weather=False)
        red, nir = reflectance(scenes, "red"), reflectance(scenes, "nir")
        ndvi.append((nir - red) / (nir + red))
    value = np.median(ndvi, axis=0)
    median = {name: np.median(value[shares.sel(land_cover=name) > 0.99]) for name in CLASSES}
    coca, fallow = (np.array(ndvi)[:, shares.sel(land_cover=name) > 0.99] for name in ("coca", "secondary_forest"))
    assert median["bare_soil"] < median["coca"] < median["secondary_forest"] < median["forest"]
    assert np.quantile(coca, 0.9) > np.quantile(fallow, 0.1)


def test_harvests_of_plots_are_out_of_step(world, grid):
    days = pd.date_range("2021-01-05", "2021-12-20", freq="20D")
    plots = world.plots.query("year == 2021 and status == 'persistent' and area_ha > 0.3").to_crs(grid.crs)
    inside = plots[plots.within(shapely.box(*grid.bounds))].geometry.centroid
    rows = ((grid.transform.f - inside.y) / 10).astype(int).to_numpy()
    columns = ((inside.x - grid.transform.c) / 10).astype(int).to_numpy()
    assert len(rows) >= 4
    series = []
    for day in days:
        scenes = world.render(grid, day, weather=False, noise=False)
        red, nir = reflectance(scenes, "red"), reflectance(scenes, "nir")
        series.append(((nir - red) / (nir + red))[rows, columns])
    series = np.array(series)
    assert np.median(np.ptp(series, axis=0)) > 0.12
    apart = np.corrcoef(series.T)[np.triu_indices(len(rows), 1)]
    assert np.median(apart) < 0.5


def test_odd_sizes_are_refused(world):
    with pytest.raises(GridMismatch, match="even"):
        world.render(Grid("EPSG:32618", (10, 0, 831780, 0, -10, 244620), (5, 4)), "2020-05-05")


# Reference points -------------------------------------------------------------------------------------------------


def test_samples_lie_in_their_class(world):
    for year in YEARS:
        cover = world.truth[year].set_index("class").geometry
        for name, points in world.samples[world.samples["year"] == year].groupby("class"):
            assert shapely.distance(cover[name], points.geometry.to_numpy()).max() < 1e-9


def test_samples_cover_classes_and_years(world):
    assert (world.samples.groupby(["class", "year"]).size().unstack() == 12).all().all()


def test_samples_keep_away_from_the_probability_sample(world):
    samples, validation = (layer.to_crs(LOCAL).geometry for layer in (world.samples, world.validation))
    tree = shapely.STRtree(validation.drop_duplicates().to_numpy())
    nearest = tree.query_nearest(samples.to_numpy(), return_distance=True, all_matches=False)[1]
    assert nearest.min() >= 30.0


def test_probability_sample_estimates_the_true_area(world):
    table = world.validation[world.validation["year"] == 2020]
    strata = table.groupby("stratum")[["stratum_area_ha", "stratum_points"]].first()
    assert set(strata.index) == set(STRATA)
    assert strata["stratum_area_ha"].sum() == pytest.approx(area_ha(world.footprint), rel=1e-3)
    forest = (table["class"] == "forest").groupby(table["stratum"]).mean()
    error = np.sqrt((strata["stratum_area_ha"] ** 2 * forest * (1 - forest) / strata["stratum_points"]).sum())
    cover = world.truth[2020].set_index("class").geometry["forest"]
    true = area_ha(cover.intersection(world.footprint))
    assert abs((forest * strata["stratum_area_ha"]).sum() - true) < 4 * error
    density = table["stratum_points"] * 0.01 / table["stratum_area_ha"]
    assert np.allclose(table["inclusion_probability"], density)


# Archive ----------------------------------------------------------------------------------------------------------


def test_archive_has_a_product_for_each_tile_and_date(world, archive):
    for tile in world.grids:
        products = sorted(path.name for path in (archive / tile).iterdir())
        assert len(products) == 3 * len(YEARS)
        assert all(name.endswith("T190000") and f"_T{tile}_" in name for name in products)


def test_products_hold_what_was_rendered(world, archive, grid):
    acquisition = world.acquisitions[2]
    scenes = world.render(grid, acquisition.moment.date())
    product = archive / "18NXG" / scenes.scene.item()
    for file, name, size in (("B04", "red", 10), ("B11", "swir16", 20), ("SCL", "scl", 20)):
        with rasterio.open(product / f"{file}.tif") as band:
            assert band.res == (size, size)
            assert band.nodata == 0
            assert band.profile["tiled"]
            step = size // 10
            assert np.array_equal(band.read(1), scenes[name].values[0, ::step, ::step])


def test_items_are_valid_stac_with_their_own_offset(archive):
    pystac = pytest.importorskip("pystac")
    offsets = set()
    for path in sorted((archive / "19NBB").rglob("item.json")):
        item = json.loads(path.read_text(encoding="utf-8"))
        assert pystac.Item.from_dict(item).id == path.parent.name
        properties = item["properties"]
        declared = {asset["raster:bands"][0].get("offset") for key, asset in item["assets"].items() if key != "scl"}
        assert declared == ({-0.1} if properties["datetime"] >= "2022-01-25" else {0})
        assert (properties["s2:processing_baseline"] >= "04.00") == (declared == {-0.1})
        for asset in item["assets"].values():
            with rasterio.open(path.parent / asset["href"]) as band:
                assert list(band.shape) == asset["proj:shape"]
                assert list(band.transform)[:6] == asset["proj:transform"]
        offsets |= declared
    assert offsets == {0, -0.1}


def test_archive_opens_as_tiles(archive, world):
    tiles = pytest.importorskip("geococa.tiles")
    scenes = tiles.open_tile(archive / "18NXG")
    drawn = world.render(world.grids["18NXG"], world.acquisitions[0].moment.date())
    assert np.array_equal(scenes["nir"].values[0], drawn["nir"].values[0])
    assert np.array_equal(np.unique(scenes.offset.values), [-0.1, 0.0])


def test_tables_beside_the_tiles(archive, world):
    truth = pd.read_csv(archive / "truth.csv")
    assert list(truth.columns) == ["park", "year", "class", "area_ha", "inside_ha"]
    assert len(truth) == len(world.parks) * len(YEARS) * len(CLASSES)
    parks = gpd.read_file(archive / "parks.gpkg", layer="parks")
    assert {"park", "park_id", "designation"} <= set(parks.columns)
    assert parks.crs.to_epsg() == 4326
    assert {"class", "year"} <= set(gpd.read_file(archive / "samples.gpkg").columns)
    assert {"plot", "year", "area_ha", "status"} <= set(gpd.read_file(archive / "truth_plots.gpkg").columns)


def test_a_folder_with_files_is_not_overwritten_unasked(archive, world, tmp_path):
    with pytest.raises(InputRefused, match="not empty"):
        write_archive(world, archive)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputRefused, match="is a file"):
        write_archive(world, file)


def test_overwriting_keeps_other_files_and_gives_the_same_bytes(tmp_path):
    small = landscape(size_m=400, years=[2021], tiles=1, dates_per_year=1, seed=2, validation_points=20)
    folder = write_archive(small, tmp_path / "a")
    before = digest(folder)
    (folder / "recipe.toml").write_text("kept")
    write_archive(small, folder, overwrite=True)
    assert (folder / "recipe.toml").read_text() == "kept"
    (folder / "recipe.toml").unlink()
    assert digest(folder) == before


def test_same_seed_same_bytes_in_another_process(tmp_path):
    settings_ = {"size_m": 400, "years": [2021, 2022], "tiles": 2, "dates_per_year": 1, "seed": 9}
    here = write_archive(landscape(**settings_), tmp_path / "here")
    code = (
        "from geococa.synthetic import landscape, write_archive\n"
        f"write_archive(landscape(**{settings_!r}), {str(tmp_path / 'there')!r})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4321"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)
    assert digest(here) == digest(tmp_path / "there")


def test_another_seed_gives_another_landscape():
    one, two = (landscape(size_m=400, years=[2021], dates_per_year=1, seed=seed) for seed in (1, 2))
    assert not one.plots.geometry.iloc[0].equals(two.plots.geometry.iloc[0])


@pytest.mark.parametrize(
    "wrong",
    [{"years": []}, {"years": [2018, 2020]}, {"cloud_cover": 1.0}, {"tiles": 0}, {"size_m": -5.0}, {"seed": -1}],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputRefused):
        landscape(**wrong)


def test_shipped_sample_is_small_and_complete(sample_tiles):
    files = [path for path in sample_tiles.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 15_000_000
    assert {"18NXG", "19NBB"} <= {path.name for path in sample_tiles.iterdir()}
    assert "SIMULATED" in (sample_tiles / "README.md").read_text(encoding="utf-8")


def test_shipped_truth_is_what_the_seed_gives(sample_tiles):
    shipped = pd.read_csv(sample_tiles / "truth.csv")
    made = landscape(seed=7).truth_areas()
    pd.testing.assert_frame_equal(shipped, made, check_dtype=False, rtol=1e-6, atol=1e-6)


# Parts ------------------------------------------------------------------------------------------------------------


def test_fields_have_mean_zero_and_variance_one():
    x, y = np.meshgrid(np.arange(0, 60000, 37.0), np.arange(0, 60000, 391.0))
    values = lattice_field(x, y, 300.0, 12)
    assert values.mean() == pytest.approx(0, abs=0.03)
    assert values.std() == pytest.approx(1, abs=0.03)


def test_hashed_numbers_are_normal_and_uncorrelated():
    column, row = np.meshgrid(np.arange(-200, 200), np.arange(-200, 200))
    values = hashed_normal(column, row, 77)
    assert values.mean() == pytest.approx(0, abs=0.015)
    assert values.std() == pytest.approx(1, abs=0.01)
    for shifted in (values[:, 1:] * values[:, :-1], values[1:] * values[:-1]):
        assert shifted.mean() == pytest.approx(0, abs=0.015)
    assert np.mean(values * hashed_normal(column, row, 78)) == pytest.approx(0, abs=0.015)


def test_streams_differ_by_key_and_seed():
    assert len({stream(1, "a"), stream(1, "b"), stream(2, "a"), stream(1, "a", 0), stream(2**40 + 1, "a")}) == 5


@given(st.integers(0, 2**32 - 1), st.floats(50.0, 1e6), st.sampled_from([blob, field_block]))
@settings(max_examples=60, deadline=None)
def test_shapes_have_the_area_asked_for(seed, area, shape):
    made = shape(np.random.default_rng(seed), (120.0, -40.0), area)
    assert made.is_valid
    assert made.area == pytest.approx(area, rel=1e-9)


def test_random_points_are_uniform_in_a_region():
    region = shapely.union_all(
        [shapely.box(0, 0, 30, 10), shapely.box(50, 0, 60, 10).difference(shapely.box(52, 2, 58, 8))]
    )
    points = random_points(np.random.default_rng(1), region, 20000)
    assert shapely.contains_xy(region, points[:, 0], points[:, 1]).all()
    assert (points[:, 0] < 40).mean() == pytest.approx(300 / region.area, abs=0.015)


def test_simple_map_is_coherent_and_repeats():
    one, two = (simple_land_cover((80, 120), seed=4, years=[2020, 2021]) for _ in range(2))
    assert one.identical(two)
    assert one.attrs["kind"] == "land_cover"
    values = one.values
    assert set(np.unique(values)) <= {*range(1, 9), 255}
    assert (values[0, :, 1:] == values[0, :, :-1]).mean() > 0.8
    assert 0.3 < (values[0] == values[1]).mean() < 0.98
    assert Grid.from_xarray(one).shape == (80, 120)
