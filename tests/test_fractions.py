"""Class fractions: training data, models, maps, hectares, and how near they come to simulated truth."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import geococa as coca
from geococa.areas import areas_table, merge_areas
from geococa.engines import CHUNK
from geococa.errors import CRSMismatch, GridMismatch, InputRefused, KindMismatch, ModelRefused
from geococa.fraction_sums import fraction_sums_ha
from geococa.grid import Grid
from geococa.mixtures import linear_features, mixture_table
from geococa.models import Model

CLASSES = ["coca", "forest", "pasture"]
BANDS = ["green", "red", "nir", "swir16"]
MEANS = np.array([[0.08, 0.06, 0.30, 0.20], [0.05, 0.03, 0.42, 0.15], [0.10, 0.11, 0.24, 0.31]])


def pure(rows=300, seed=0, noise=0.008, indices=()):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, len(CLASSES), rows)
    table = pd.DataFrame(MEANS[y] + rng.normal(0, noise, (rows, len(BANDS))), columns=BANDS)
    if "ndvi" in indices:
        table["ndvi"] = (table["nir"] - table["red"]) / (table["nir"] + table["red"])
    table.insert(0, "class", np.array(CLASSES)[y])
    return table


def mixed(rows=400, seed=1, noise=0.004):
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(3, 0.4), rows)
    table = pd.DataFrame(share @ MEANS + rng.normal(0, noise, (rows, len(BANDS))), columns=BANDS)
    return table.assign(**{f"fraction_{name}": share[:, k] for k, name in enumerate(CLASSES)})


def fraction_of(table):
    return table[[f"fraction_{name}" for name in CLASSES]].to_numpy()


def stack(shape=(23, 31), times=2, seed=3, missing=0.1):
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(3, 0.4), (times, *shape))
    values = np.moveaxis(share @ MEANS, -1, 1) + rng.normal(0, 0.004, (times, len(BANDS), *shape))
    values[:, 1][rng.random((times, *shape)) < missing] = np.nan
    years = np.asarray([f"{2018 + i}-12-31" for i in range(times)], "datetime64[ns]")
    array = xr.DataArray(
        values.astype(np.float32),
        dims=("time", "feature", "y", "x"),
        coords={"feature": BANDS, "time": years},
        attrs={"kind": "features"},
    )
    return Grid("EPSG:32618", (30, 0, 600000, 0, -30, 300000), shape).attach(array)


def parks(grid):
    left, bottom, right, top = grid.bounds
    shapes = [
        shapely.box(left + 77, bottom + 101, left + 400, top - 33),
        shapely.Point(left + 500, bottom + 300).buffer(222),
        shapely.box(right - 95, bottom - 200, right + 500, top - 15),
    ]
    return geopandas.GeoDataFrame({"zone": ["a", "b", "c"]}, geometry=shapes, crs=grid.crs)


@pytest.fixture(scope="module")
def forest():
    return coca.train(mixed(), method="fraction", n_estimators=25)


@pytest.fixture(scope="module")
def unmixing():
    return coca.train(pure(), BANDS, method="unmixing")


# Training data ---------------------------------------------------------------------------------------------------------


def test_mixtures_are_linear_in_the_bands_and_indices_follow_from_them():
    means = pd.DataFrame(MEANS, columns=BANDS).assign(**{"class": CLASSES})
    means["ndvi"] = (means["nir"] - means["red"]) / (means["nir"] + means["red"])
    table = mixture_table(means, rows=200)
    np.testing.assert_allclose(table[BANDS], fraction_of(table) @ MEANS, atol=1e-7)
    np.testing.assert_allclose(table["ndvi"], (table["nir"] - table["red"]) / (table["nir"] + table["red"]), atol=1e-6)
    np.testing.assert_allclose(fraction_of(table).sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("pure_share", [0.0, 0.5, 1.0])
def test_the_mean_fraction_of_mixtures_is_the_prior(pure_share):
    priors = {"coca": 0.05, "forest": 0.8, "pasture": 0.15}
    table = mixture_table(pure(), BANDS, rows=20_000, priors=priors, pure_share=pure_share, seed=2)
    np.testing.assert_allclose(fraction_of(table).mean(axis=0), list(priors.values()), atol=0.012)


def test_the_share_of_pure_rows_is_the_one_asked_for():
    apart = pure(3000).assign(**{"class": [f"c{number}" for number in range(3000)]})  # no two members of one class
    table = mixture_table(apart, BANDS, rows=2000, pure_share=0.3)
    largest = table.drop(columns=BANDS).to_numpy().max(axis=1)
    assert abs((largest == 1).mean() - 0.3) < 0.04


def test_mixtures_are_the_same_for_the_same_seed_only():
    first, again, other = (mixture_table(pure(), BANDS, rows=50, seed=seed) for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_statistics_of_indices_and_textures_are_no_linear_features():
    names = ["red", "ndvi", "NDVI", "ndvi_p90", "nir_std5", "nir_mean5", "b7", "ndvi_mean3"]
    assert linear_features(names) == ["red", "nir_mean5", "b7"]


def test_a_feature_that_can_not_be_mixed_is_refused():
    table = pure().assign(ndvi_p90=0.5)
    with pytest.raises(InputRefused, match="ndvi_p90 do not follow from mixed bands"):
        mixture_table(table)


def test_an_index_without_its_bands_is_refused():
    with pytest.raises(InputRefused, match="red"):
        mixture_table(pure(indices=["ndvi"])[["class", "nir", "ndvi"]])


@pytest.mark.parametrize("wrong", [{"priors": {"coca": 1.0}}, {"priors": "even"}, {"rows": 1}, {"pure_share": 1.5}])
def test_impossible_mixture_settings_are_refused(wrong):
    with pytest.raises(InputRefused):
        mixture_table(pure(), BANDS, **wrong)


@pytest.fixture(scope="module")
def drawn():
    """Features of two years and class polygons that partition part of them."""
    features = stack((20, 20), missing=0.0)
    left, bottom, right, top = Grid.from_xarray(features).bounds
    coca_plot = shapely.Point(left + 300, bottom + 300).buffer(130)
    forest = shapely.box(left + 45, bottom + 45, right - 45, top - 45).difference(coca_plot)
    frame = geopandas.GeoDataFrame(
        {"class": ["coca", "forest"]}, geometry=[coca_plot, forest], crs=Grid.from_xarray(features).crs
    )
    return features, frame


def test_fractions_of_polygons_are_exact_and_only_of_pixels_wholly_covered(drawn):
    features, frame = drawn
    table = coca.fraction_table(frame, features)
    grid = Grid.from_xarray(features)
    assert len(table) == 2 * 16 * 16
    assert table["year"].unique().tolist() == [2018, 2019]
    for row in table.sample(40, random_state=0).itertuples():
        x, y = grid.transform * (row.col, row.row)
        cell = shapely.box(x, y - 30, x + 30, y)
        assert np.isclose(row.fraction_coca, frame.geometry[0].intersection(cell).area / 900, atol=1e-9)
        assert np.isclose(row.fraction_coca + row.fraction_forest, 1, atol=1e-12)
        assert row.red == features.sel(feature="red").values[row.year - 2018, row.row, row.col]


def test_the_remainder_is_what_no_polygon_claims_inside_the_ground_looked_at(drawn):
    features, frame = drawn
    plots, ground = frame.iloc[:1], frame.iloc[1:]
    looked = geopandas.GeoDataFrame(geometry=[ground.union_all().union(plots.union_all())], crs=frame.crs)
    table = coca.fraction_table(plots, features, within=looked, remainder="other")
    exact = coca.fraction_table(frame, features)
    assert len(table) == len(exact)
    np.testing.assert_allclose(table["fraction_coca"], exact["fraction_coca"], atol=1e-12)
    np.testing.assert_allclose(table["fraction_other"], exact["fraction_forest"], atol=1e-9)


def test_polygons_in_degrees_give_the_same_fractions(drawn):
    features, frame = drawn
    fine = frame.assign(geometry=shapely.segmentize(frame.geometry.to_numpy(), 10))
    degrees = coca.fraction_table(fine.to_crs("EPSG:4326"), features)
    merged = degrees.merge(coca.fraction_table(frame, features), on=["year", "row", "col"], how="inner")
    assert len(merged) > 400
    np.testing.assert_allclose(merged["fraction_coca_x"], merged["fraction_coca_y"], atol=1e-5)


def test_polygons_of_one_class_may_overlap(drawn):
    features, frame = drawn
    twice = pd.concat([frame, frame.iloc[:1]], ignore_index=True)
    pd.testing.assert_frame_equal(coca.fraction_table(twice, features), coca.fraction_table(frame, features))


def test_polygons_with_a_year_count_in_that_year_only(drawn):
    features, frame = drawn
    table = coca.fraction_table(frame.assign(year=[2018, pd.NA]), features, remainder="other")
    total = table.groupby("year")["fraction_coca"].sum()
    assert total[2018] > 30
    assert total[2019] == 0


def test_a_sample_of_pixels_is_drawn_without_favour(drawn):
    features, frame = drawn
    every, some = coca.fraction_table(frame, features), coca.fraction_table(frame, features, rows=200, seed=4)
    assert len(some) == 200
    keys = ["year", "row", "col"]
    assert len(some.merge(every, on=keys)) == 200
    assert not some.duplicated(keys).any()
    assert abs(some["fraction_coca"].mean() - every["fraction_coca"].mean()) < 0.08


def test_dask_features_and_unobserved_pixels(drawn):
    features, frame = drawn
    holes = features.copy()
    holes[0, 2, 8:12, 8:12] = np.nan
    whole = coca.fraction_table(frame, holes)
    lazy = coca.fraction_table(frame, holes.chunk({"y": 7, "x": 9}))
    pd.testing.assert_frame_equal(whole, lazy)
    assert whole.attrs["unobserved"] == 16
    assert len(whole) == whole.attrs["pixels"] - 16


def test_overlapping_classes_are_refused(drawn):
    features, frame = drawn
    over = frame.assign(geometry=[frame.geometry[0], frame.geometry[1].buffer(60)])
    with pytest.raises(InputRefused, match="different classes overlap"):
        coca.fraction_table(over, features)


def test_polygons_that_cover_no_pixel_wholly_are_refused(drawn):
    features, frame = drawn
    small = frame.assign(geometry=frame.geometry.centroid.buffer(10))
    with pytest.raises(InputRefused, match="no observed pixel"):
        coca.fraction_table(small.assign(**{"class": ["coca", "forest"]}).iloc[:1], features, classes=CLASSES)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda frame: frame.drop(columns="class"), InputRefused),
        (lambda frame: frame.set_crs(None, allow_override=True), CRSMismatch),
        (lambda frame: frame.assign(geometry=frame.geometry.centroid), InputRefused),
        (lambda frame: frame.iloc[:1], InputRefused),
    ],
)
def test_unusable_polygons_are_refused(drawn, change, error):
    with pytest.raises(error):
        coca.fraction_table(change(drawn[1]), drawn[0])


# Models ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RandomForestRegressor", "ExtraTreesRegressor", "DecisionTreeRegressor"])
@pytest.mark.parametrize("leaves", [20, None])
def test_a_regressor_in_memory_gives_the_fractions_of_its_library(kind, leaves):
    from sklearn import ensemble, tree

    table = mixed(500)
    estimator = getattr(ensemble, kind, None) or getattr(tree, kind)
    fitted = estimator(max_leaf_nodes=leaves, random_state=0).fit(table[BANDS].to_numpy(np.float32), fraction_of(table))
    model = Model.from_estimator(fitted, features=BANDS, classes=CLASSES)
    probe = mixed(300, seed=9)[BANDS].to_numpy(np.float32)
    np.testing.assert_allclose(model.predict_proba(probe), fitted.predict(probe), atol=1e-12)
    assert model.output == "fraction"
    assert model.predict(probe).tolist() == [CLASSES[k] for k in model.predict_proba(probe).argmax(axis=1)]


def test_a_regressor_of_one_output_has_two_classes():
    from sklearn.ensemble import RandomForestRegressor

    table = mixed()
    fitted = RandomForestRegressor(10, random_state=0).fit(table[BANDS].to_numpy(), table["fraction_coca"])
    model = Model.from_estimator(fitted, features=BANDS, classes=["coca", "other"])
    probe = mixed(50, seed=5)[BANDS].to_numpy(np.float32)
    np.testing.assert_allclose(model.predict_proba(probe)[:, 0], fitted.predict(probe), atol=1e-12)


def test_a_regressor_needs_class_names():
    from sklearn.ensemble import RandomForestRegressor

    fitted = RandomForestRegressor(2).fit(mixed()[BANDS].to_numpy(), fraction_of(mixed()))
    with pytest.raises(ModelRefused, match="give classes="):
        Model.from_estimator(fitted, features=BANDS)


def test_models_of_fractions_say_where_they_apply():
    from sklearn.ensemble import RandomForestRegressor

    table = mixed(500)
    fitted = RandomForestRegressor(5, random_state=0).fit(table[BANDS].to_numpy(), fraction_of(table))
    bare = Model.from_estimator(fitted, features=BANDS, classes=CLASSES)
    with pytest.raises(ModelRefused, match="training=table"):
        coca.applicability(stack(), bare)
    models = [
        Model.from_estimator(fitted, features=BANDS, classes=CLASSES, training=table),
        bare.with_training_data(table),
        coca.train(table, method="fraction", n_estimators=5),
        coca.train(pure(), BANDS, method="fraction", n_estimators=5, mixtures=500),
        coca.train(pure(), BANDS, method="unmixing"),
    ]
    assert models[0].sha256 == models[1].sha256
    features = stack()
    features[0, :, 3, 4] = 0.9
    for model in models:
        found = coca.applicability(features, model)
        seen = np.isfinite(features.values).all(axis=1)
        assert np.array_equal(found["inside"].values != 255, seen)
        assert (found["inside"].values[seen] == 1).mean() > 0.5
        assert found["inside"].values[0, 3, 4] == 0
        assert found["outside_share"].values[0, 3, 4] == 1


@pytest.mark.parametrize("method", ["fraction", "unmixing"])
def test_the_summary_of_a_model_of_fractions_counts_rows_of_one_class(method, tmp_path):
    samples = pure()
    model = coca.train(samples, BANDS, method=method, **({"n_estimators": 5} if method == "fraction" else {}))
    table = model.summary()
    found = table.pivot_table(values="mean", index="class", columns="feature")[BANDS].to_numpy()
    assert np.allclose(found, samples.groupby("class")[BANDS].mean().to_numpy(), atol=0.004)
    counts = table.groupby("class")["samples"].first().to_numpy(dtype=float)
    # members of a mixture may be of one class
    whole = fraction_of(
        mixture_table(
            samples, BANDS, pure_share=0.0 if method == "unmixing" else 0.4, rows=2000 if method == "unmixing" else 6000
        )
    )
    assert counts.sum() == (whole.max(axis=1) > 0.999).sum() + (len(samples) if method == "unmixing" else 0)
    assert coca.read_model(model.write(tmp_path / "m")).sha256 == model.sha256


@pytest.mark.parametrize("target", [lambda f: 2 * f, lambda f: f - 0.5, lambda f: f[:, :2]])
def test_a_regressor_of_something_else_than_fractions_is_refused(target):
    from sklearn.ensemble import RandomForestRegressor

    fitted = RandomForestRegressor(2).fit(mixed()[BANDS].to_numpy(), target(fraction_of(mixed())))
    with pytest.raises(ModelRefused, match="not class fractions"):
        Model.from_estimator(fitted, features=BANDS, classes=CLASSES[: fitted.n_outputs_])


@pytest.mark.parametrize("method", ["fraction", "unmixing"])
def test_a_model_of_fractions_finds_those_of_mixtures(method):
    model = coca.train(pure(600), BANDS, method=method)
    probe = mixed(400, seed=11)
    error = model.predict_proba(probe) - fraction_of(probe)
    assert np.sqrt((error**2).mean()) < 0.06
    assert np.abs(error.mean(axis=0)).max() < 0.02


@pytest.mark.parametrize("method", ["fraction", "unmixing"])
def test_training_is_the_same_again_and_from_any_threads(method):
    first, again = (coca.train(pure(), BANDS, method=method, threads=threads) for threads in (1, 3))
    assert first.sha256 == again.sha256


@pytest.mark.parametrize("model", ["forest", "unmixing"])
def test_a_model_file_comes_back_as_it_was(model, tmp_path, request):
    model = request.getfixturevalue(model)
    back = coca.read_model(model.write(tmp_path / "model.geococa"))
    assert back.sha256 == model.sha256
    assert back.output == "fraction"
    probe = mixed(90, seed=2)
    assert back.predict_proba(probe).tobytes() == model.predict_proba(probe, threads=3).tobytes()


def rebuilt(model, **changes):
    arrays = {name: array.copy() for name, array in model.arrays.items()}
    settings_ = dict(model.settings) | changes.pop("settings", {})
    arrays |= changes
    return Model(model.kind, model.features, model.classes, arrays, settings_, model.legend, model.columns)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"owner": np.array([0, 1, 1], np.int32)}, "owner must name"),
        ({"owner": np.array([0, 1, 3], np.int32)}, "owner must name"),
        ({"endmember": np.zeros((3, 4))}, "mixture of the others"),
        ({"endmember": np.full((3, 4), np.nan)}, "NaN or infinity"),
        ({"endmember": np.zeros((3, 5))}, "endmember must be"),
        ({"whitening": np.ones((4, 4))}, "lower triangular"),
        ({"whitening": -np.eye(4)}, "positive"),
        ({"settings": {"output": "probability"}}, "output must be"),
    ],
)
def test_arrays_that_can_not_unmix_are_refused(unmixing, change, message):
    with pytest.raises(ModelRefused, match=message):
        rebuilt(unmixing, **change)


def test_only_forests_and_unmixing_may_say_that_they_give_fractions():
    model = coca.train(pure(), BANDS, method="gaussian")
    with pytest.raises(ModelRefused, match="output must be"):
        rebuilt(model, settings={"output": "fraction"})


def test_unmixing_leaves_indices_out():
    model = coca.train(pure(indices=["ndvi"]), method="unmixing")
    assert model.features == tuple(BANDS)
    assert model.training_range.shape == (2, 4)


def test_endmembers_from_mixed_pixels_are_those_that_were_mixed():
    model = coca.train(mixed(noise=0), method="unmixing", weighting="equal")
    np.testing.assert_allclose(model.arrays["endmember"], MEANS, atol=1e-6)


def test_given_endmembers_may_be_several_of_a_class():
    spectra = pd.DataFrame(np.vstack([MEANS, MEANS[1] * 0.7]), columns=BANDS).assign(**{"class": [*CLASSES, "forest"]})
    model = coca.train(pure(), BANDS, method="unmixing", endmembers=spectra, weighting="equal")
    probe = pd.DataFrame([0.5 * MEANS[0] + 0.5 * 0.7 * MEANS[1]], columns=BANDS)
    np.testing.assert_allclose(model.predict_proba(probe), [[0.5, 0.5, 0.0]], atol=1e-6)


def test_more_classes_than_bands_tell_apart_are_refused():
    table = pure()
    table.loc[::2, "class"] += "_2"
    with pytest.raises(InputRefused, match="can't be told apart"):
        coca.train(table[["class", "red", "nir"]], method="unmixing")


@pytest.mark.parametrize(
    ("table", "options"),
    [
        (mixed(), {"method": "fraction", "mixtures": 100}),
        (mixed().assign(fraction_coca=0.9), {"method": "fraction"}),
        (mixed().assign(fraction_coca=-0.5), {"method": "unmixing"}),
        (mixed().assign(weight=-1.0), {"method": "fraction"}),
        (mixed()[[*BANDS, "fraction_coca"]], {"method": "fraction"}),
        (pure(), {"method": "fraction", "trees": "oak"}),
        (pure(), {"method": "fraction", "leaves": 3}),
        (pure(), {"method": "fraction", "class_weight": "balanced"}),
        (pure(), {"method": "unmixing", "mixtures": 100}),
        (pure(), {"method": "unmixing", "weighting": "heavy"}),
        (pure(), {"method": "unmixing", "endmembers": {"coca": {"red": 1}}}),
        (pure()[pure()["class"] == "coca"], {"method": "fraction"}),
        (mixed(), {"method": "random_forest"}),
        (pure(), {"method": "fractions"}),
    ],
)
def test_unusable_training_is_refused(table, options):
    with pytest.raises(InputRefused):
        coca.train(table, **options)


def test_weights_shift_the_mean_of_a_regression():
    table = mixed(600)
    heavy = table.assign(weight=np.where(table["fraction_coca"] > 0.5, 5.0, 1.0))
    expected = np.average(table["fraction_coca"], weights=heavy["weight"])
    model = coca.train(heavy, method="fraction", n_estimators=10)
    assert np.isclose(model.provenance["mean_fractions"]["coca"], expected)
    plain = coca.train(table, method="fraction", n_estimators=10)
    assert model.predict_proba(table)[:, 0].mean() > plain.predict_proba(table)[:, 0].mean()


def test_rows_that_were_not_observed_are_dropped_and_counted():
    table = mixed(100)
    table.loc[:9, "red"] = np.nan
    assert coca.train(table, method="fraction", n_estimators=3).provenance["rows_dropped_not_observed"] == 10


# Maps ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["forest", "unmixing"])
def test_a_map_holds_fractions_that_sum_to_one(model, request):
    model, features = request.getfixturevalue(model), stack()
    found = coca.classify(features, model)
    observed = np.isfinite(features.values).all(axis=1)
    assert (found.dims, found.dtype) == (("time", "land_cover", "y", "x"), np.float32)
    assert (found.name, found.attrs["kind"], found.attrs["units"]) == ("fraction", "fraction", "1")
    values = np.moveaxis(found.values, 1, -1)
    assert np.isnan(values[~observed]).all()
    np.testing.assert_allclose(values[observed].sum(axis=1), 1, atol=1e-6)
    table = np.moveaxis(features.values, 1, -1)[observed]
    np.testing.assert_allclose(values[observed], model.predict_proba(table), atol=1e-6)


@pytest.mark.parametrize("model", ["forest", "unmixing"])
def test_labels_are_the_class_of_the_largest_fraction(model, request):
    model, features = request.getfixturevalue(model), stack()
    both = coca.classify(features, model, "both")
    fraction, labels = both["fraction"].values, both["labels"].values
    observed = ~np.isnan(fraction[:, 0])
    lead = np.diff(np.sort(fraction, axis=1)[:, -2:], axis=1)[:, 0]
    clear = observed & (lead > 1e-5)
    assert (labels[clear] == 1 + fraction.argmax(axis=1)[clear]).all()
    assert (labels[~observed] == 255).all()


@pytest.mark.parametrize("model", ["forest", "unmixing"])
def test_dask_and_threads_give_the_same_bytes(model, request):
    model, features = request.getfixturevalue(model), stack((190, 200), times=1)
    assert CHUNK < 190 * 200
    one = coca.classify(features, model, threads=1)
    three = coca.classify(features, model, threads=3)
    lazy = coca.classify(features.chunk({"y": 37, "x": 51}), model)
    assert lazy.chunks is not None
    assert one.values.tobytes() == three.values.tobytes() == lazy.values.tobytes()


def test_fractions_are_never_taken_for_probabilities(forest):
    features = stack()
    classifier = coca.train(pure(), BANDS, n_estimators=3)
    with pytest.raises(ModelRefused, match="not the share"):
        coca.classify(features, forest, "probability")
    with pytest.raises(ModelRefused, match="not the share"):
        coca.classify(features, classifier, "fraction")
    for stage in (coca.smooth, coca.stabilise, coca.label):
        with pytest.raises(KindMismatch):
            stage(coca.classify(features, forest))


# Hectares --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mapped(forest):
    features = stack()
    return coca.classify(features, forest), coca.coverage_fraction(
        parks(Grid.from_xarray(features)), Grid.from_xarray(features)
    )


def test_hectares_are_the_sum_of_fraction_share_and_cell_area(mapped):
    fraction, share = mapped
    areas = coca.zonal_area(fraction, share)
    values = fraction.values.astype(np.float64)
    values = np.where(np.isnan(values), 0, values / values.sum(axis=1, keepdims=True))
    cell_ha = np.broadcast_to(share.grid.cell_area_ha(), share.grid.shape)
    expected = np.einsum("tkyx,zyx,yx->tzk", values, share.dense().values, cell_ha)
    np.testing.assert_allclose(areas["area_ha"], expected, rtol=1e-6)
    assert list(areas["land_cover"].values) == CLASSES
    assert "fractions" in areas.attrs["estimate"]


def test_classes_unobserved_and_outside_add_up_to_the_zone(mapped):
    areas = coca.zonal_area(*mapped)
    total = areas["area_ha"].sum("land_cover") + areas["unobserved_ha"] + areas["outside_ha"]
    np.testing.assert_allclose(total, np.tile(areas["zone_ha"], (2, 1)), rtol=1e-9)
    assert (areas["unobserved_ha"] > 0).all()
    assert (areas["outside_ha"].sel(zone="c") > 1).all()
    np.testing.assert_allclose(areas["closure"], 1, atol=1e-6)


def test_fractions_of_zero_and_one_give_the_hectares_of_labels():
    grid = Grid.from_xarray(stack())
    codes = np.random.default_rng(0).integers(0, 4, (2, *grid.shape))
    shares = np.stack([codes == k for k in range(3)], axis=1).astype(np.float32)
    shares[np.broadcast_to((codes == 3)[:, None], shares.shape)] = np.nan
    labels = np.where(codes == 3, 255, codes + 1).astype(np.uint8)
    time = {"time": stack()["time"].values}
    fraction = coca.as_fraction(
        grid.attach(xr.DataArray(shares, dims=("time", "land_cover", "y", "x"), coords=time)), CLASSES
    )
    cover = coca.as_land_cover(
        grid.attach(xr.DataArray(labels, dims=("time", "y", "x"), coords=time)), CLASSES, nodata=255
    )
    share = coca.coverage_fraction(parks(grid), grid)
    found, expected = coca.zonal_area(fraction, share), coca.zonal_area(cover, share)
    for name in ("area_ha", "unobserved_ha", "outside_ha", "zone_ha"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, err_msg=name)


def test_threads_blocks_and_dask_give_the_same_hectares_to_the_bit(mapped):
    fraction, share = mapped
    one = fraction_sums_ha(fraction, share, area="ellipsoidal", threads=1)
    three = fraction_sums_ha(fraction, share, area="ellipsoidal", threads=3)
    lazy = fraction_sums_ha(fraction.chunk({"y": 5, "x": 9}), share, area="ellipsoidal", threads=2)
    assert one.tobytes() == three.tobytes() == lazy.tobytes()


def test_a_map_without_time_and_a_table_of_the_areas(mapped):
    fraction, share = mapped
    areas = coca.zonal_area(fraction.isel(time=1, drop=True), share)
    assert areas["area_ha"].dims == ("zone", "land_cover")
    np.testing.assert_array_equal(areas["area_ha"], coca.zonal_area(fraction, share)["area_ha"].isel(time=1))
    table = areas_table(areas)
    assert len(table) == 9
    assert "fractions" in table.attrs["estimate"]
    assert areas.to_dataframe()["area_ha"].notna().all()


def test_planar_hectares_of_fractions_say_so(mapped):
    areas = coca.zonal_area(*mapped, area="planar:EPSG:32618")
    assert areas.attrs["area"] == "planar:EPSG:32618"
    assert np.isclose(areas["zone_ha"].sel(zone="b"), mapped[1].zones.geometry[1].area / 1e4)


def test_probabilities_are_not_summed_to_hectares(mapped):
    _, share = mapped
    probability = coca.classify(stack(), coca.train(pure(), BANDS, n_estimators=3))
    with pytest.raises(KindMismatch, match="expected land_cover or fraction, got probability"):
        coca.zonal_area(probability, share)
    with pytest.raises(KindMismatch):
        coca.as_fraction(probability)


@pytest.mark.parametrize("bad", [[0.7, 0.7, 0.1], [1.2, -0.2, 0.0], [0.0, 0.0, 0.0]])
def test_fractions_that_are_no_shares_are_refused(mapped, bad):
    fraction, share = mapped
    wrong = fraction.copy()
    wrong[1, :, 10, 8] = bad
    with np.errstate(all="ignore"), pytest.raises(InputRefused, match="row 10, column 8"):
        coca.zonal_area(wrong, share)


def test_a_fraction_map_on_another_grid_or_of_another_type_is_refused(mapped):
    fraction, share = mapped
    with pytest.raises(GridMismatch):
        coca.zonal_area(fraction.isel(y=slice(0, 9)), share)
    with pytest.raises(KindMismatch, match="float32"):
        coca.zonal_area((fraction.fillna(0) * 100).astype(np.uint8).assign_attrs(kind="fraction"), share)
    with pytest.raises(GridMismatch):
        coca.zonal_area(fraction.isel(land_cover=0), share)


def test_areas_of_fractions_are_not_added_to_those_of_labels(mapped, forest):
    fraction, share = mapped
    labels = coca.classify(stack(), forest, "labels")
    parts = [coca.zonal_area(fraction, share), coca.zonal_area(labels, share)]
    with pytest.raises(InputRefused, match="labels and from fractions"):
        merge_areas(parts, share.zones)
    merged = merge_areas(parts[:1], share.zones)
    np.testing.assert_allclose(merged["area_ha"], parts[0]["area_ha"], rtol=1e-9)
    assert "fractions" in merged.attrs["estimate"]


def test_as_fraction_keeps_numbers_and_names_layers():
    values = np.random.default_rng(0).dirichlet(np.ones(2), (3, 4)).transpose(2, 0, 1)
    array = xr.DataArray(values, dims=("land_cover", "y", "x"))
    named = coca.as_fraction(array, ["coca", "other"], colors={"other": "#123456"})
    np.testing.assert_array_equal(named.values, values)
    assert named["land_cover"].values.tolist() == ["coca", "other"]
    assert "#123456" in named.attrs["flag_colors"]
    assert "kind" not in array.attrs
    with pytest.raises(KindMismatch, match="give classes"):
        coca.as_fraction(array)
    with pytest.raises(KindMismatch, match="2 layers"):
        coca.as_fraction(array, CLASSES)
    with pytest.raises(KindMismatch, match="percentages"):
        coca.as_fraction(array.astype(np.int16), ["coca", "other"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), classes=st.integers(1, 6), rows=st.integers(1, 30), columns=st.integers(1, 600))
def test_the_sum_rule_holds_for_any_map_and_zones(seed, classes, rows, columns):
    rng = np.random.default_rng(seed)
    grid = Grid("EPSG:32618", (30, 0, 600000, 0, -30, 300000), (rows, columns))
    values = np.moveaxis(rng.dirichlet(np.full(classes, 0.3), grid.shape), -1, 0).astype(np.float32)
    values[:, rng.random(grid.shape) < rng.random()] = np.nan
    fraction = coca.as_fraction(
        grid.attach(xr.DataArray(values, dims=("land_cover", "y", "x"))), [f"c{k}" for k in range(classes)]
    )
    left, bottom, right, top = grid.bounds
    middles = rng.uniform([left, bottom], [right, top], (4, 2))
    shapes = [shapely.Point(*middle).buffer(rng.uniform(5, 900)) for middle in middles]
    zones = geopandas.GeoDataFrame({"zone": list("abcd")}, geometry=shapes, crs=grid.crs)
    areas = coca.zonal_area(fraction, coca.coverage_fraction(zones, grid))
    total = areas["area_ha"].sum("land_cover") + areas["unobserved_ha"] + areas["outside_ha"]
    np.testing.assert_allclose(total, areas["zone_ha"], rtol=1e-9)


# Archive ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    world = coca.synthetic.landscape(
        size_m=700, tiles=2, years=[2020, 2021], dates_per_year=2, cloud_cover=0.2, samples_per_class=20, seed=5
    )
    coca.synthetic.write_archive(world, folder / "archive")
    return folder


def recipe_of(folder, **changes):
    model = {"samples": folder / "archive" / "samples.gpkg", "method": "fraction"}
    model |= {"options": {"n_estimators": 8, "mixtures": 500}} | changes
    zones = {"path": folder / "archive" / "parks.gpkg", "name": "park"}
    names = ["blue", "green", "red", "nir", "swir16", "swir22", "ndvi", "nbr"]
    return coca.Recipe(model=model, zones=zones, features={"names": names}, run={"block_px": 32})


@pytest.fixture(scope="module")
def ran(archive):
    return coca.run_archive(archive / "archive", recipe_of(archive), out=archive / "out", threads=2)


def test_a_recipe_with_fractions_leaves_their_map_and_hectares(archive, ran):
    table = pd.read_csv(archive / "out" / "fraction_areas.csv")
    assert not ran.failed
    assert table["land_cover"].unique().tolist() == ["coca", "not_coca"]
    total = table.groupby(["zone", "year"])["area_ha"].sum()
    rest = table.drop_duplicates(["zone", "year"]).set_index(["zone", "year"]).sort_index()
    np.testing.assert_allclose(total + rest["unobserved_ha"] + rest["outside_ha"], rest["zone_ha"], rtol=1e-9)
    labels = pd.read_csv(archive / "out" / "areas.csv").drop_duplicates(["zone", "year"])
    np.testing.assert_allclose(
        labels.set_index(["zone", "year"]).sort_index()["unobserved_ha"], rest["unobserved_ha"], rtol=1e-6, atol=1e-9
    )
    tile = sorted((archive / "out" / "maps").glob("*_2020_fraction.tif"))[0]
    shares = coca.read_raster(tile).values
    cover = coca.read_raster(tile.with_name(tile.name.replace("fraction", "land_cover"))).values
    assert np.array_equal(np.isnan(shares), cover == 255)
    assert 0 <= np.nanmin(shares) <= np.nanmax(shares) <= 1


def test_a_second_run_with_fractions_reuses_the_first(archive, ran):
    before = (archive / "out" / "fraction_areas.csv").read_bytes()
    again = coca.run_archive(archive / "archive", recipe_of(archive), out=archive / "out")
    assert again.computed == ()
    assert (archive / "out" / "fraction_areas.csv").read_bytes() == before


def test_blocks_do_not_change_the_fractions_of_a_run(archive, ran):
    whole = recipe_of(archive).model_copy(update={"run": coca.recipe.Run(block_px=512)})
    coca.run_archive(archive / "archive", whole, out=archive / "whole")
    for name in ("fraction_areas.csv", "areas.csv"):
        assert (archive / "out" / name).read_bytes() == (archive / "whole" / name).read_bytes()


# Truth -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated():
    from benchmarks.fraction_areas import compare, summary, world_of

    worlds = [world_of(2700, 201), world_of(2700, 202)]
    found = compare(30, "dates", worlds, rows=3000, options={"n_estimators": 40})
    return summary(found).set_index("method")


@pytest.mark.parametrize("method", ["fraction, mixtures", "fraction, polygons"])
@pytest.mark.parametrize("rival", ["labels", "labels, all pixels"])
def test_at_30_m_hectares_from_fractions_are_nearer_to_the_truth_than_from_labels(simulated, method, rival):
    fractions, labels = simulated.loc[method], simulated.loc[rival]
    assert fractions["true_ha"] > 30
    assert abs(fractions["error_percent"]) < abs(labels["error_percent"])
    assert fractions["landscape_error_percent"] < labels["landscape_error_percent"]


def test_exact_fractions_give_the_hectares_of_the_polygons():
    from benchmarks.fraction_areas import YEAR, squares_of, truth_of, world_of

    world = world_of(1200, 35)
    grid = next(iter(world.grids.values()))
    coarse = Grid(
        grid.crs, tuple(grid.transform * grid.transform.scale(3))[:6], (grid.shape[0] // 3, grid.shape[1] // 3)
    )
    zones = squares_of(coarse, 450)
    areas = coca.zonal_area(
        coca.as_fraction(world.class_fractions(coarse, YEAR)), coca.coverage_fraction(zones, coarse)
    )
    np.testing.assert_allclose(areas["area_ha"].sel(land_cover="coca"), truth_of(world, zones), rtol=0.02, atol=0.02)
