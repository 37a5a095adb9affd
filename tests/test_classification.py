"""classify: names, no-data, coordinates, Dask and threads."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.area_of_applicability import applicability
from geococa.calibration import calibrate
from geococa.classification import classify
from geococa.engines import CHUNK, UNSEEN
from geococa.errors import GridMismatch, InputRefused, KindMismatch, ModelRefused
from geococa.grid import Grid
from geococa.legend import Legend
from geococa.models import Model, train
from tests.estimator_cases import CLASSES, FEATURES, fitted, source_answers, training_pixels


def stack(shape=(30, 41), seed=0, missing=0.1, times=0) -> xr.DataArray:
    """Feature stack on a UTM grid, a tenth of the pixels not observed."""
    rng = np.random.default_rng(seed)
    lead = (times,) if times else ()
    n = int(np.prod((*lead, *shape)))
    values = training_pixels(n, 2, seed)[0].reshape(*lead, *shape, len(FEATURES))
    values = np.moveaxis(values, -1, -3).copy()
    gone = rng.random((*lead, *shape)) < missing
    values[..., 2, :, :][gone] = np.nan
    dims = ("time", "feature", "y", "x") if times else ("feature", "y", "x")
    coords = {"feature": list(FEATURES)}
    if times:
        coords["time"] = np.asarray([f"{2018 + i}-12-31" for i in range(times)], "datetime64[ns]")
    array = xr.DataArray(values, dims=dims, coords=coords, attrs={"kind": "features"})
    return Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), shape).attach(array)


@pytest.fixture(scope="module")
def pair():
    estimator = fitted("random_forest", 3)
    return estimator, Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:3])


@pytest.fixture(scope="module")
def model(pair) -> Model:
    return pair[1]


def test_probabilities_are_those_of_the_source(pair):
    estimator, model = pair
    features = stack()
    found = classify(features, model)
    observed = np.isfinite(features.values).all(axis=0)
    expected = source_answers(estimator, features.values[:, observed].T)[1]
    assert found.dims == ("land_cover", "y", "x")
    assert found.dtype == np.float32
    assert np.abs(found.values[:, observed].T - expected).max() < 2e-7
    assert np.isnan(found.values[:, ~observed]).all()
    assert np.allclose(found.values[:, observed].sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["full_forest", "hist_gradient_boosting", "wide_hist_gradient_boosting", "xgboost"])
def test_labels_are_those_of_the_source(name):
    estimator = fitted(name, 5)
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES)
    features = stack((300, 400))
    found = classify(features, model, "labels")
    observed = np.isfinite(features.values).all(axis=0)
    assert found.dtype == np.uint8
    assert np.array_equal(found.values[observed], source_answers(estimator, features.values[:, observed].T)[0] + 1)
    assert (found.values[~observed] == 255).all()


def test_maps_keep_grid_time_and_legend(model):
    features = stack(times=2)
    probability, labels = classify(features, model), classify(features, model, "labels")
    for made in (probability, labels):
        assert Grid.from_xarray(made).same_as(Grid.from_xarray(features))
        assert np.array_equal(made["time"].values, features["time"].values)
        assert made.attrs["model_sha256"] == model.sha256
        assert "feature" not in made.coords
    assert probability.dims == ("time", "land_cover", "y", "x")
    assert probability.attrs["kind"] == "probability"
    assert probability["land_cover"].values.tolist() == list(CLASSES[:3])
    assert Legend.from_attrs(probability.attrs) == model.legend
    assert labels.dims == ("time", "y", "x")
    assert labels.attrs["kind"] == "land_cover"
    assert Legend.from_attrs(labels.attrs).names == ("unclassified", *CLASSES[:3])


def test_both_outputs_equal_each_alone(model):
    features = stack()
    both = classify(features, model, "both")
    assert np.array_equal(both["probability"].values, classify(features, model).values, equal_nan=True)
    assert np.array_equal(both["labels"].values, classify(features, model, "labels").values)
    assert both["labels"].dtype == np.uint8


def test_features_are_matched_by_name(model):
    features = stack()
    shuffled = features.isel(feature=[3, 0, 5, 1, 4, 2])
    extra = xr.concat([shuffled, features.isel(feature=[0]).assign_coords(feature=["bsi"])], dim="feature")
    extra = extra.assign_attrs(kind="features")
    assert classify(extra, model).equals(classify(features, model))


def test_an_extra_feature_that_is_missing_does_not_hide_a_pixel(model):
    features = stack(missing=0)
    extra = xr.concat(
        [features, xr.full_like(features.isel(feature=[0]), np.nan).assign_coords(feature=["bsi"])], "feature"
    )
    assert not np.isnan(classify(extra, model).values).any()


def test_missing_features_are_listed(model):
    features = stack().isel(feature=[0, 1, 2, 5]).assign_coords(feature=["blue", "green", "red", "bsi"])
    with pytest.raises(ModelRefused, match=r"missing \['nir', 'swir16', 'ndvi'\].*not used \['bsi'\]"):
        classify(features, model)
    with pytest.raises(ModelRefused, match="no coordinate 'feature'"):
        classify(stack().drop_vars("feature"), model)
    with pytest.raises(ModelRefused, match="twice"):
        classify(xr.concat([stack(), stack().isel(feature=[0])], "feature"), model)


def test_other_products_are_refused(model):
    with pytest.raises(KindMismatch, match="land_cover"):
        classify(classify(stack(), model, "labels"), model)
    with pytest.raises(GridMismatch):
        classify(stack().rename(y="row"), model)
    with pytest.raises(InputRefused, match="output must be"):
        classify(stack(), model, "classes")
    with pytest.raises(KindMismatch, match="got a Dataset"):
        classify(stack().to_dataset(name="features"), model)


@pytest.mark.parametrize("threads", [0, -1, True, 2.0, "all"])
def test_threads_are_a_whole_number_from_one(model, threads):
    for call in (classify, applicability):
        with pytest.raises(InputRefused, match="threads must be a whole number of at least 1"):
            call(stack(), model, threads=threads)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_pixel_that_is_not_finite_is_not_observed(model, value):
    features = stack((2, 3), missing=0)
    features[4, 1, 2] = value
    assert classify(features, model, "labels").values[1, 2] == 255
    assert np.isnan(classify(features, model).values[:, 1, 2]).all()
    assert (classify(features, model, "labels").values != 255).sum() == 5


@pytest.mark.parametrize("missing", [0.0, 1.0])
def test_whole_and_empty_maps_work(model, missing):
    features = stack((5, 7), missing=missing)
    assert (classify(features, model, "labels").values == 255).all() == bool(missing)
    assert classify(features.isel(y=slice(0, 0)), model).shape == (3, 0, 7)


@pytest.mark.parametrize("output", ["probability", "labels"])
@pytest.mark.parametrize("name", ["full_forest", "lightgbm", "wide_hist_gradient_boosting"])
def test_the_same_bytes_whatever_threads_blocks_and_dask(name, output):
    estimator = fitted(name, 3)
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:3])
    features = stack((260, 301), times=2)
    assert 2 * CHUNK < 260 * 301
    whole = classify(features, model, output, threads=1)
    assert classify(features, model, output, threads=5).identical(whole)
    lazy = classify(features.chunk({"time": 1, "y": 77, "x": 100, "feature": 2}), model, output)
    assert lazy.chunks is not None
    assert lazy.compute(scheduler="threads").identical(whole)
    part = classify(features.isel(y=slice(13, 90), x=slice(5, 222)), model, output)
    assert np.array_equal(part.values, whole.isel(y=slice(13, 90), x=slice(5, 222)).values, equal_nan=True)


def test_lazy_features_are_not_computed(model):
    import dask.array

    def explode(block):
        raise AssertionError("computed")

    lazy = stack().copy(
        data=dask.array.zeros((6, 30, 41), chunks=10, dtype="float32").map_blocks(
            explode, meta=np.empty((0,) * 3, "f4")
        )
    )
    for output, dtype in (("probability", np.float32), ("labels", np.uint8)):
        made = classify(lazy, model, output)
        assert made.dtype == dtype
    with pytest.raises(AssertionError, match="computed"):
        made.compute()


def test_the_input_is_not_changed(model):
    features = stack()
    before = features.copy(deep=True)
    classify(features, model, "both")
    assert features.identical(before)


def test_integers_equal_the_same_numbers_as_floats():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 3000, (500, 2))
    import pandas as pd

    table = pd.DataFrame(X, columns=["red", "nir"]).assign(**{"class": np.where(X[:, 0] > X[:, 1], "coca", "forest")})
    model = train(table, ["red", "nir"], n_estimators=10)
    values = rng.integers(0, 3000, (2, 20, 20))
    arrays = [
        xr.DataArray(values.astype(t), dims=("feature", "y", "x"), coords={"feature": ["red", "nir"]})
        for t in (np.uint16, np.int16, np.int64, np.float32, np.float64)
    ]
    maps = [classify(array, model, "labels").values for array in arrays]
    assert all(np.array_equal(made, maps[0]) for made in maps)


def test_features_on_another_scale_are_refused():
    import pandas as pd

    rng = np.random.default_rng(0)
    table = pd.DataFrame(0.05 + 0.3 * rng.random((200, 2)), columns=["red", "nir"])
    table["class"] = np.where(table["red"] > table["nir"], "coca", "forest")
    model = train(table, ["red", "nir"], n_estimators=3)
    good = xr.DataArray(
        (0.05 + 0.3 * rng.random((2, 40, 40))).astype("f4"),
        dims=("feature", "y", "x"),
        coords={"feature": ["red", "nir"]},
    )
    classify(good, model)
    for wrong in (good * 10_000, good / 10_000, good * 100):
        with pytest.raises(ModelRefused, match="another scale"):
            classify(wrong, model)
    shaded = good * 10_000
    shaded[:, :10] = 0.0  # a quarter of the map says nothing of the scale
    for wrong in (shaded, shaded.isel(y=slice(9, 13), x=slice(0, 10)).chunk({"x": 10})):
        with pytest.raises(ModelRefused, match="another scale"):
            classify(wrong, model).compute()
    bright = good.copy()
    bright[:, ::3] *= 1000.0
    assert (classify(bright, model, "labels").values != 255).all()


KINDS = (
    "random_forest", "hist_gradient_boosting", "lightgbm", "xgboost", "gaussian", "minimum_distance", "spectral_angle",
    "fraction", "unmixing", "twdtw", "rules", "calibrated",
)  # fmt: skip


def model_of(kind: str) -> tuple[Model, xr.DataArray]:
    """A small model of a kind, and a stack of two years that holds everything its kind must bear."""
    import pandas as pd

    rng = np.random.default_rng(4)
    days = (1, 60, 120, 200, 300)
    names = [f"ndvi_d{day:03d}" for day in days] if kind == "twdtw" else ["red", "nir", "swir16", "ndvi"]
    means = rng.uniform(0.1, 0.5, (3, len(names)))
    y = rng.integers(0, 3, 300)
    table = pd.DataFrame(means[y] + 0.08 * rng.normal(size=(300, len(names))), columns=names)
    table["class"] = np.asarray(["coca", "forest", "water"])[y]
    values = (means[rng.integers(0, 3, (2, 61, 83))] + 0.1 * rng.normal(size=(2, 61, 83, len(names)))).astype("f4")
    values[rng.random(values.shape) < (0.4 if kind == "twdtw" else 0.03)] = np.nan
    values[0, :3] = np.nan
    values[1, 5, :9] = [[np.inf], [-np.inf], [3e38], [-3e38], [0.0], [-0.0], [1e-45], [5.0], [-5.0]]
    time = np.asarray(["2020-12-31", "2021-12-31"], "datetime64[ns]")
    coords = {"feature": names, "time": time}
    features = xr.DataArray(np.moveaxis(values, -1, 1).copy(), dims=("time", "feature", "y", "x"), coords=coords)
    options = {
        "random_forest": {"n_estimators": 9}, "hist_gradient_boosting": {"max_iter": 9}, "lightgbm": {"n_estimators": 9},
        "xgboost": {"n_estimators": 9}, "gaussian": {"rejection": 0.01}, "minimum_distance": {"rejection": 0.05},
        "spectral_angle": {"rejection_angle_rad": 0.3}, "fraction": {"n_estimators": 9, "mixtures": 400},
        "twdtw": {"rejection": 0.05},
    }  # fmt: skip
    if kind == "rules":
        tree = {"test": "ndvi < 0.3", "yes": {"class": "water"}, "no": {"class": "coca"}}
        return Model.from_rules({"classes": ["coca", "water"], "tree": tree}), features
    if kind == "calibrated":
        return calibrate(train(table[::2], names, n_estimators=9), table[1::2]), features
    return train(table, names, method=kind, threads=1, **options.get(kind, {})), features


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_gives_the_same_bytes_from_arrays_dask_blocks_and_threads(kind):
    model, features = model_of(kind)
    inner = {"y": slice(7, 40), "x": slice(11, 72)}
    lazy = features.chunk({"time": 1, "feature": 3, "y": 17, "x": 29})
    for output in (None, "labels"):
        whole = classify(features, model, output, threads=1)
        assert classify(features, model, output, threads=3).identical(whole)
        assert classify(lazy, model, output).compute().identical(whole)
        assert classify(features.isel(feature=slice(None, None, -1)), model, output).identical(whole)
        assert classify(features.isel(inner), model, output).identical(whole.isel(inner))
        assert classify(features[1], model, output).identical(whole[1].transpose(*whole.dims[1:]))
    assert len(np.unique(whole)) >= 3
    shares = classify(features, model).values
    assert np.array_equal(np.isnan(shares[:, 0]), whole.values == 255)
    assert ((shares >= 0) & (shares <= 1) | np.isnan(shares)).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_gives_the_maps_of_classify_for_every_kind_of_model_blocks_and_threads(kind, small_archive, tmp_path):
    from geococa.pipeline import land_cover_of, run_tile, sample_table, yearly_features
    from geococa.recipe import Recipe
    from geococa.samples import read_samples
    from geococa.tiles import find_tiles, open_tile, read_raster

    sections = Recipe.read(small_archive / "recipe.toml").model_dump()
    series = {"names": [], "series": ["ndvi"], "series_step_days": 60}
    sections["features"] = series if kind == "twdtw" else {"names": ["red", "nir", "swir16", "swir22", "ndvi"]}
    sections["model"]["method"] = "twdtw" if kind == "twdtw" else "random_forest"
    sections["labels"] |= {"min_area_ha": 0.0, "transitions": "persistence"}
    recipe, tiles = Recipe.model_validate(sections), find_tiles(small_archive)
    if kind == "rules":
        model = model_of(kind)[0]
    else:
        table = sample_table(tiles, read_samples(small_archive / "samples.gpkg"), recipe)
        table = table[table["class"].isin(["coca", "forest", "water"])] if kind == "unmixing" else table
        names = [name for name in table.columns if name.startswith("ndvi_d")] or list(recipe.features.names)
        options = {"calibration": "sigmoid", "calibration_block_m": 100.0} if kind == "calibrated" else {}
        options |= {"rejection": 0.01} if kind == "gaussian" else {}
        model = train(table, names, method="random_forest" if kind == "calibrated" else kind, seed=1, **options)
    digests = []
    for block, threads in ((32, 1), (45, 3), (4096, 2)):
        blocks = recipe.model_copy(update={"run": recipe.run.model_copy(update={"block_px": block})})
        done = run_tile(tiles[0], blocks, model, tmp_path / str(block), threads=threads)
        digests.append([path.read_bytes() for path in sorted((tmp_path / str(block)).glob("*.tif"))])
    assert digests[0] == digests[1] == digests[2]
    features, _ = yearly_features(open_tile(tiles[0].path, bands=recipe.bands_needed()), recipe)
    lazy = features.chunk({"time": 1, "feature": 2, "y": 37, "x": 41})
    for stack_ in (features, lazy):
        whole = land_cover_of(stack_, model, recipe).compute()
        for i, year in enumerate(done.years):
            assert np.array_equal(read_raster(done.maps[year]).values, whole.values[i])


def test_rejected_pixels_are_unclassified_and_not_unobserved():
    import pandas as pd

    X, y = training_pixels(600, 2)
    table = pd.DataFrame(X, columns=list(FEATURES)).assign(**{"class": np.asarray(CLASSES)[y]})
    model = train(table, list(FEATURES), method="gaussian", rejection=0.01)
    features = stack((4, 5), missing=0)
    features[:, 0, 0] = 90.0
    labels = classify(features, model, "labels")
    assert labels.values[0, 0] == 0
    assert labels.attrs["flag_meanings"].split()[0] == "unclassified"


@pytest.fixture(scope="module")
def landsat(shared_data) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """Bands of a Landsat 5 scene, and two rasters of class names: training polygons and held-back ones."""
    import geopandas
    import rasterio
    from rasterio.features import rasterize

    folder = shared_data / "rasters" / "lt5_amazon_1988"
    with rasterio.open(folder / "LT05_224063_19880814_dn.tif") as source:
        values, names = source.read().astype(np.float32), list(source.descriptions)
        shape, transform, crs = source.shape, source.transform, source.crs
    polygons = geopandas.read_file(folder / "training_polygons_wgs84.geojson").to_crs(crs)
    classes = sorted(polygons["class"].unique())
    held = polygons.groupby("class").cumcount() % 3 == 0
    rasters = []
    for part in (polygons[~held], polygons[held]):
        codes = [(g, classes.index(c) + 1) for g, c in zip(part.geometry, part["class"], strict=True)]
        rasters.append(np.asarray(["", *classes], dtype=object)[rasterize(codes, shape, transform=transform)])
    scene = xr.DataArray(values, dims=("feature", "y", "x"), coords={"feature": names})
    return scene, rasters[0], rasters[1]


def test_accuracy_on_held_back_landsat_polygons_is_that_of_scikit_learn(landsat):
    import pandas as pd
    from sklearn.ensemble import RandomForestClassifier

    scene, training, held = landsat
    X, y = scene.values[:, training != ""].T, training[training != ""]
    table = pd.DataFrame(X, columns=list(scene["feature"].values)).assign(**{"class": y})
    labels = classify(scene, train(table, seed=1), "labels")
    names = np.asarray(Legend.from_attrs(labels.attrs).names)[labels.values]
    check = held != ""
    ours = (names[check] == held[check]).mean()
    forest = RandomForestClassifier(100, random_state=2, n_jobs=1).fit(X, y.astype(str))
    theirs = (forest.predict(scene.values[:, check].T) == held[check]).mean()
    assert check.sum() > 500
    assert ours > theirs - 0.01
    converted = classify(scene, Model.from_estimator(forest, features=list(scene["feature"].values)), "labels")
    again = np.asarray(Legend.from_attrs(converted.attrs).names)[converted.values]
    assert np.array_equal(again[check], forest.predict(scene.values[:, check].T))


@pytest.mark.parametrize("rejection", [None, 0.05])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gaussian_labels_find_gaps_as_the_observed_pixels_tell(rejection, dtype):
    rng = np.random.default_rng(5)
    table = pd.DataFrame(rng.normal(size=(90, 3)), columns=["a", "b", "c"])
    table["class"] = np.repeat(["one", "two", "three"], 30)
    table.loc[30:59, "a"] += 2
    options = {} if rejection is None else {"rejection": rejection}
    model = train(table, ["a", "b", "c"], method="gaussian", **options)
    planes = (2 * rng.normal(size=(3, 4000))).astype(dtype)
    for value in (np.nan, np.inf, -np.inf, 1e38):
        planes[rng.random(planes.shape) < 0.03] = value
    assert model.marks_gaps
    observed = model.plane_observed(planes)
    assert 0.3 < observed.mean() < 0.95
    codes = np.full(4000, 77, np.uint8)
    assert model.plane_codes(planes, codes)
    assert np.array_equal(codes != UNSEEN, observed)
    assert np.array_equal(codes[observed], model.plane_labels(planes[:, observed]) + 1)
    assert not model.plane_codes(np.ascontiguousarray(planes[:, observed]), codes[: observed.sum()])
