"""The same calls on real rasters and polygons that nobody here made (skipped where they are absent)."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

import geococa as coca
from geococa._kernels.season import STATISTICS
from geococa.recipe import Recipe

TM = ["blue", "green", "red", "nir", "swir16", "swir22"]


@pytest.fixture(scope="module")
def amazon(shared_data):
    """Landsat 5 of 14 August 1988 as top-of-atmosphere reflectance, and its training polygons in another CRS."""
    folder = shared_data / "rasters" / "lt5_amazon_1988"
    scenes = coca.open_tile(folder / "LT05_224063_19880814_dn.tif", sensor="landsat-l1")
    reflectance = coca.to_reflectance(scenes, where=coca.clear_sky(scenes))
    features = coca.spectral_features(coca.composite(reflectance), [*TM, "ndvi", "ndmi", "nbr"])
    polygons = coca.read_samples(folder / "training_polygons_wgs84.geojson")
    return features, polygons


@pytest.fixture(scope="module")
def halves(amazon):
    """Every second polygon of each class to train with, the others held back."""
    _, polygons = amazon
    position = polygons.groupby("class").cumcount()
    return polygons[position % 2 == 0], polygons[position % 2 == 1]


def test_landsat_5_is_classified_with_polygons_in_another_crs(amazon, halves):
    features, _ = amazon
    train_polygons, test_polygons = halves
    model = coca.train(train_polygons, features, method="random_forest", seed=7)
    land_cover = coca.label(coca.classify(features, model))
    held_back = coca.extract_samples(test_polygons, features)
    codes = land_cover.values[0][held_back["row"], held_back["col"]]
    predicted = np.array(["", *model.classes])[codes]
    accuracy = float((predicted == held_back["class"]).mean())
    assert accuracy > 0.9

    from sklearn.ensemble import RandomForestClassifier

    table = coca.extract_samples(train_polygons, features)
    names = list(model.features)
    peer = RandomForestClassifier(100, random_state=7).fit(table[names].to_numpy(), table["class"])
    expected = float((peer.predict(held_back[names].to_numpy()) == held_back["class"]).mean())
    assert abs(accuracy - expected) <= 0.01


def test_hectares_inside_polygons_cut_from_the_scene_add_up(amazon, halves):
    features, _ = amazon
    model = coca.train(halves[0], features, seed=7)
    land_cover = coca.sieve(coca.label(coca.classify(features, model)), min_area_ha=0.5)
    grid = coca.Grid.from_xarray(land_cover)
    left, bottom, right, top = grid.bounds
    middle = (left + right) / 2 + 7.3
    zones = gpd.GeoDataFrame(
        {"park": ["west", "east", "slanted"]},
        geometry=[
            shapely.box(left, bottom, middle, top),
            shapely.box(middle, bottom, right, top),
            shapely.Polygon([(left + 500, bottom + 900), (right - 700, bottom + 1500), (middle, top - 400)]),
        ],
        crs=grid.crs,
    )
    areas = coca.zonal_area(land_cover, coca.coverage_fraction(zones.rename(columns={"park": "zone"}), grid))
    total = areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha
    np.testing.assert_allclose(total.values[0], areas.zone_ha.values, rtol=1e-9)
    whole = grid.cell_area_ha()
    seen = np.broadcast_to(whole, grid.shape)[land_cover.values[0] != 255].sum()
    halves_ha = areas.area_ha.sel(zone=["west", "east"]).sum()
    np.testing.assert_allclose(float(halves_ha), seen, rtol=1e-6)


def test_landsat_8_gives_the_same_bytes_in_blocks_and_whole(shared_data, tmp_path):
    path = shared_data / "rasters" / "l8_003017_2015" / "LC80030172015001LGN00_B2-5.tif"
    recipe = Recipe(
        reflectance={"scale": 2e-5, "offset": -0.1},
        features={"names": ["blue", "green", "red", "nir", "ndvi"]},
        labels={"smooth_window": 3, "min_area_ha": 1.0},
    )
    (tile,) = coca.find_tiles(path)
    rng = np.random.default_rng(5)
    table = pd.DataFrame(rng.uniform(0, 0.6, (3000, 4)), columns=["blue", "green", "red", "nir"])
    table["ndvi"] = (table["nir"] - table["red"]) / (table["nir"] + table["red"])
    table["class"] = np.select([table["nir"] > 0.4, table["ndvi"] > 0.2], ["snow", "vegetation"], "other")
    model = coca.train(table, list(recipe.features.names), seed=1, n_estimators=20)
    maps = {}
    for size in (200, 4096):
        cut = recipe.model_copy(update={"run": recipe.run.model_copy(update={"block_px": size})})
        (maps[size],) = coca.run_tile(tile, cut, model, tmp_path / str(size)).maps.values()
    assert maps[200].read_bytes() == maps[4096].read_bytes()
    assert len(np.unique(coca.read_raster(maps[200]).values)) > 2


def test_a_modis_year_is_opened_from_jp2_without_an_epsg_code(shared_data):
    folder = shared_data / "rasters" / "modis_sinop_2013_2014"
    scenes = coca.open_tile(folder, sensor="modis-13q1")
    assert scenes.sizes["time"] == 12
    grid = coca.Grid.from_xarray(scenes)
    assert grid.crs.to_epsg() is None
    ndvi = coca.to_reflectance(scenes, where=coca.clear_sky(scenes))["ndvi"]
    assert 0.2 < float(ndvi.mean()) < 1.0
    # 231.66 m cells of the sinusoidal grid on the ellipsoid: 5.37 ha give or take the difference to the sphere
    assert 5.3 < float(np.mean(grid.cell_area_ha())) < 5.45


def test_the_modis_series_separates_forest_from_crops(shared_data):
    folder = shared_data / "rasters" / "modis_sinop_2013_2014"
    scenes = coca.open_tile(folder, sensor="modis-13q1")
    ndvi = coca.to_reflectance(scenes, where=coca.clear_sky(scenes))["ndvi"]
    # the crop year runs from September to August: its twelve dates are the features
    features = xr.DataArray(
        ndvi.values, dims=("feature", "y", "x"), coords={"feature": [f"ndvi_{i:02d}" for i in range(12)]}
    )
    features = coca.Grid.from_xarray(scenes).attach(features)
    samples = coca.read_samples(folder / "samples_sinop_crop.csv")
    table = coca.extract_samples(samples, features)
    assert len(table) == len(samples)
    model = coca.train(table, list(features.feature.values), seed=3)
    land_cover = coca.label(coca.classify(features, model))
    assert (land_cover.values[table["row"], table["col"]] != 255).all()
    forest = model.legend.code("Forest")
    share = float((land_cover == forest).mean())
    assert 0.05 < share < 0.95


@pytest.mark.slow
def test_season_features_of_the_modis_year_are_cross_validated_beside_scikit_learn(shared_data):
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedKFold

    folder = shared_data / "rasters" / "modis_sinop_2013_2014"
    scenes = coca.open_tile(folder, sensor="modis-13q1")
    reflectance = coca.to_reflectance(scenes, where=coca.clear_sky(scenes))
    # the crop year crosses the calendar's: one season for the whole series
    season = coca.season_features(reflectance, "ndvi", period="all", statistics=STATISTICS)
    table = coca.extract_samples(coca.read_samples(folder / "samples_sinop_crop.csv"), season.isel(time=0, drop=True))
    names = [str(name) for name in season["feature"].values]
    assert len(table) == 18
    assert table[names].notna().all().all()
    right = []
    for shuffle in range(2):
        folds = list(StratifiedKFold(3, shuffle=True, random_state=shuffle).split(table, table["class"]))
        found = coca.cross_validate(
            table, names, folds=folds, block_m=None, buffer_m=0, seed=7, n_estimators=200
        ).predictions
        ours = found["predicted"].sort_index().to_numpy()
        peer = np.empty(len(table), dtype=object)
        for train, test in folds:
            forest = RandomForestClassifier(200, random_state=7).fit(
                table[names].iloc[train], table["class"].iloc[train]
            )
            peer[test] = forest.predict(table[names].iloc[test])
        right.append([(ours == table["class"]).mean(), (peer == table["class"]).mean()])
    ours, peer = np.mean(right, axis=0)
    # 18 samples of four classes, the largest of 8: no forest does much better on them, ours does as well as any
    assert ours >= 8 / 18
    assert abs(ours - peer) <= 1 / 18


def test_the_departments_of_colombia_have_their_ellipsoidal_hectares(shared_data):
    from pyproj import Geod

    departments = coca.read_zones(shared_data / "vectors" / "co_departments.geojson", name="NOMBRE_DPT")
    assert len(departments) == 33
    grid = coca.Grid("EPSG:4326", (0.02, 0, -82.0, 0, -0.02, 14.0), (950, 800))
    ones = grid.attach(xr.DataArray(np.ones(grid.shape, np.uint8), dims=("y", "x")))
    areas = coca.zonal_area(coca.as_land_cover(ones, {1: "land"}), coca.coverage_fraction(departments, grid))
    geod = Geod(ellps="WGS84")
    for zone, polygon in zip(departments["zone"], departments.geometry, strict=True):
        # edges are straight in longitude and latitude; pieces of 0.001 degree make the geodesics follow them
        dense = shapely.segmentize(polygon, 0.001)
        expected = (
            abs(
                geod.geometry_area_perimeter(
                    shapely.geometry.polygon.orient(dense)
                    if dense.geom_type == "Polygon"
                    else shapely.MultiPolygon([shapely.geometry.polygon.orient(part) for part in dense.geoms])
                )[0]
            )
            / 1e4
        )
        assert float(areas.zone_ha.sel(zone=zone)) == pytest.approx(expected, rel=1e-6)
        assert float(areas.area_ha.sel(zone=zone).sum()) == pytest.approx(expected, rel=1e-6)
