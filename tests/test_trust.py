"""Trust in a model: what its file says, where it may be applied, whether its probabilities hold."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa import model_file
from geococa.area_of_applicability import applicability
from geococa.calibration import calibrate, reliability
from geococa.classification import classify
from geococa.errors import InputRefused, ModelRefused, SampleLeak
from geococa.grid import Grid
from geococa.models import Model, read_model, train
from geococa.probability_layers import uncertainty
from tests.estimator_cases import CLASSES, FEATURES, training_pixels
from tests.test_models import opened, resealed

CRS = "EPSG:32618"


def table_of(n=600, n_classes=3, seed=0, places=False) -> pd.DataFrame:
    X, y = training_pixels(n, n_classes, seed)
    table = pd.DataFrame(X, columns=list(FEATURES)).assign(**{"class": np.asarray(CLASSES)[y]})
    if places:
        rng = np.random.default_rng(seed + 100)
        table = table.assign(x=600_000 + rng.integers(0, 2000, n) * 10.0, y=300_000 + rng.integers(0, 2000, n) * 10.0)
        table.attrs["crs"] = CRS
    return table


def stack_of(X: np.ndarray, shape: tuple[int, int], **attrs) -> xr.DataArray:
    values = np.ascontiguousarray(X.T.reshape(len(FEATURES), *shape))
    array = xr.DataArray(
        values, dims=("feature", "y", "x"), coords={"feature": list(FEATURES)}, attrs={"kind": "features", **attrs}
    )
    return Grid(CRS, (10, 0, 600000, 0, -10, 300000), shape).attach(array)


@pytest.fixture(scope="module")
def forest() -> Model:
    return train(table_of(), list(FEATURES), n_estimators=20, units="1", scale={"ndvi": "index -1..1"})


@pytest.fixture(scope="module")
def calibrated(forest) -> dict[str, Model]:
    held = table_of(900, seed=3)
    return {method: calibrate(forest, held, method) for method in ("isotonic", "sigmoid")}


# the file


def test_everything_a_model_knows_survives_the_file(calibrated, tmp_path):
    model = calibrated["isotonic"]
    back = read_model(model.write(tmp_path / "m"))
    assert back.sha256 == model.sha256
    assert back.write(tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    assert back.feature_units == ("1",) * 6
    assert back.feature_scales == ("", "", "", "", "", "index -1..1")
    pd.testing.assert_frame_equal(back.summary(), model.summary())
    assert back.training_set.facts() == model.training_set.facts()
    assert np.array_equal(back.training_set.points, model.training_set.points)
    X = training_pixels(500, 3, seed=8)[0]
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))


def test_files_without_these_parts_are_read_and_written_as_they_were(forest, tmp_path):
    header, arrays = opened(forest.write(tmp_path / "new").read_bytes())
    for name in ("feature_units", "feature_scales", "training_set"):
        del header[name]
    for name in ("summary_count", "summary_values", "training_points", "training_scaling"):
        del arrays[name]
    old = model_file.write_container(tmp_path / "old", header, arrays).read_bytes()
    model = read_model(tmp_path / "old")
    assert model.training_set is None
    assert model.summary()["mean"].isna().all()
    assert model.write(tmp_path / "again").read_bytes() == old
    X = training_pixels(2000, 3, seed=8)[0]
    assert np.array_equal(model.predict(X), forest.predict(X))
    assert np.array_equal(model.predict_proba(X), forest.predict_proba(X))


def test_the_summary_is_that_of_pandas(forest):
    summary = forest.summary()
    groups = table_of().groupby("class")
    expected = groups[list(FEATURES)].agg(["mean", "std", "min", "max"])
    assert summary["samples"].tolist() == [n for name in forest.classes for n in [groups.size()[name]] * 6]
    for row in summary.to_dict("records"):
        found = [row[name] for name in ("mean", "sd", "min", "max")]
        np.testing.assert_allclose(found, expected.loc[row["class"], row["feature"]].to_numpy(), rtol=1e-5)


EXTREMES = (np.nan, np.inf, -np.inf, 1e300, -1.0, 7.0)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_damaged_parts_are_refused_or_harmless(calibrated, tmp_path):
    rng = np.random.default_rng(7)
    path, refused = tmp_path / "m", 0
    X = training_pixels(40, 3, seed=1)[0]
    contents = [model.write(tmp_path / name).read_bytes() for name, model in calibrated.items()]
    names = [name for name in opened(contents[0])[1] if name.split("_")[0] in ("summary", "training", "calibration")]
    for i in range(240):
        header, arrays = opened(contents[i % 2])
        name = str(rng.choice(names))
        array = arrays[name]
        action = i % 4
        if action == 0:
            array.flat[int(rng.integers(array.size))] = np.asarray(rng.choice(EXTREMES)).astype(array.dtype)
        elif action == 1:
            arrays[name] = array[: int(rng.integers(len(array)))]
        elif action == 2:
            arrays[name] = array.astype(rng.choice(["f4", "i1", "u8", "f8"]))
        else:
            part = str(rng.choice(["training_set", "calibration", "feature_units", "feature_scales"]))
            header[part] = [None, [], {}, "x", 3, ["a"], {"rows": 1}, [1] * 6][int(rng.integers(8))]
        path.write_bytes(resealed(header, model_file._pack(arrays)))
        try:
            model = read_model(path)
        except ModelRefused:
            refused += 1
            continue
        found = model.predict_proba(X)
        assert np.allclose(found.sum(axis=1), 1, atol=1e-6)
        assert (found >= 0).all()
        if model.training_set is not None:
            assert np.isfinite(model.training_set.dissimilarity(np.ascontiguousarray(X.T))).all()
    assert refused > 150


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("training_points", lambda a: np.repeat(a, 40, axis=0), "training points, got 24000"),
        ("training_points", lambda a: a + 100, "outside training_range"),
        ("training_scaling", lambda a: a * 0, "not positive"),
        ("training_scaling", lambda a: a * [[1], [1], [-1]], "must not be negative"),
        ("summary_count", lambda a: a - 10_000, "negative"),
        ("summary_values", lambda a: a[[2, 1, 0, 3]], "between its smallest and its largest"),
        ("summary_values", lambda a: a * np.array([1, 50, 1, 1])[:, None, None], "sd does not fit"),
        ("summary_values", lambda a: a * 3, "within training_range"),
        ("calibration_start", lambda a: a[::-1].copy(), "must rise"),
        ("calibration_table", lambda a: a[::-1].copy(), "must increase"),
        ("calibration_table", lambda a: a * 2, "in 0..1"),
    ],
)
def test_each_rule_of_the_parts_is_checked(name, change, message, calibrated, tmp_path):
    header, arrays = opened(calibrated["isotonic"].write(tmp_path / "m").read_bytes())
    arrays[name] = change(arrays[name]).astype(arrays[name].dtype)
    (tmp_path / "m").write_bytes(resealed(header, model_file._pack(arrays)))
    with pytest.raises(ModelRefused, match=message):
        read_model(tmp_path / "m")


@pytest.mark.parametrize(
    "entry", [{"threshold": -1}, {"mean_distance": 0}, {"rows": 3}, {"folds": True}, {"rows": 1.5}]
)
def test_impossible_facts_on_training_rows_are_refused(entry, forest, tmp_path):
    header, arrays = opened(forest.write(tmp_path / "m").read_bytes())
    header["training_set"] |= entry
    (tmp_path / "m").write_bytes(resealed(json.loads(json.dumps(header)), model_file._pack(arrays)))
    with pytest.raises(ModelRefused):
        read_model(tmp_path / "m")


# units and scale


def test_features_that_state_other_units_or_scale_are_refused(forest):
    X = training_pixels(12, 3)[0]
    classify(stack_of(X, (3, 4)), forest)
    classify(stack_of(X, (3, 4), units="dimensionless"), forest)
    with pytest.raises(ModelRefused, match="blue has units 'percent'"):
        classify(stack_of(X, (3, 4), units="percent"), forest)
    with pytest.raises(ModelRefused, match=r"ndvi has scale 'index 0\.\.200'"):
        classify(stack_of(X, (3, 4), scale="index 0..200"), forest)
    stated = stack_of(X, (3, 4)).assign_coords(feature_scale=("feature", ["reflectance 0..1"] * 5 + ["Index  -1..1"]))
    assert classify(stated, forest, "labels").equals(classify(stack_of(X, (3, 4)), forest, "labels").assign_coords({}))


def test_units_come_from_the_features_that_were_sampled():
    import geopandas
    import shapely

    X, y = training_pixels(400, 2)
    features = stack_of(X, (20, 20), units="1", scale="reflectance 0..1")
    points = geopandas.GeoDataFrame(
        {"class": np.asarray(CLASSES)[y]},
        geometry=[shapely.Point(600005 + 10 * (i % 20), 299995 - 10 * (i // 20)) for i in range(400)],
        crs=CRS,
    )
    model = train(points, features, n_estimators=3)
    assert model.feature_units == ("1",) * 6
    assert model.feature_scales == ("reflectance 0..1",) * 6


# applicability


def paper(values, folds, weight, new):
    """Dissimilarity of new rows and the threshold, written as in Meyer and Pebesma (2021)."""
    centre, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
    scaled = [[(row[j] - centre[j]) / spread[j] * weight[j] for j in range(len(row))] for row in values]
    fresh = [[(row[j] - centre[j]) / spread[j] * weight[j] for j in range(len(row))] for row in new]

    def distance(a, b):
        return sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) ** 0.5

    n = len(scaled)
    mean = np.mean([distance(scaled[i], scaled[j]) for i in range(n) for j in range(n) if i != j])
    own = [min(distance(scaled[i], scaled[j]) for j in range(n) if folds[j] != folds[i]) / mean for i in range(n)]
    high, low = np.percentile(own, 75), np.percentile(own, 25)
    threshold = max(value for value in own if value <= high + 1.5 * (high - low))
    return np.array([min(distance(row, other) for other in scaled) / mean for row in fresh]), threshold


@pytest.mark.parametrize("weighted", [False, True])
def test_dissimilarity_is_that_of_the_formula(weighted):
    table = table_of(90)
    importance = dict(zip(FEATURES, (3.0, 1.0, 0.5, 0.25, 0.0, 1.25), strict=True)) if weighted else None
    model = train(table, list(FEATURES), method="minimum_distance").with_training_data(table, importance=importance)
    weight = np.ones(6) if importance is None else np.array(list(importance.values())) * 6 / 6.0
    X = np.concatenate([training_pixels(28, 3, seed=5)[0], table[list(FEATURES)].to_numpy()[:2]])
    found = applicability(stack_of(X, (5, 6)), model)
    values = table[list(FEATURES)].to_numpy(np.float64)
    expected, threshold = paper(values, np.arange(90), weight, X.astype(np.float64))
    np.testing.assert_allclose(found["dissimilarity"].values.ravel(), expected, rtol=1e-6, atol=1e-7)
    assert (found["dissimilarity"].values.ravel()[-2:] == 0).all()
    assert found.attrs["threshold"] == pytest.approx(threshold, rel=1e-6)
    assert np.array_equal(found["inside"].values.ravel(), (expected <= threshold).astype(np.uint8))


def test_the_threshold_compares_rows_of_different_spatial_folds():
    from geococa.samples import spatial_folds

    table = table_of(120, places=True)
    model = train(table, list(FEATURES), method="minimum_distance", seed=4)
    folds = np.zeros(120, int)
    for number, (_, test) in enumerate(spatial_folds(table, 10, positive=None, seed=4)):
        folds[test] = number
    _, threshold = paper(table[list(FEATURES)].to_numpy(np.float64), folds, np.ones(6), [])
    assert model.training_set.folds == len(set(folds))
    assert model.training_set.threshold == pytest.approx(threshold, rel=1e-9)


def test_a_shifted_feature_is_flagged_and_held_out_rows_are_mostly_inside(forest):
    held = training_pixels(400, 3, seed=21)[0]
    shifted = held.copy()
    shifted[:, 5] += 2.0
    inside = [applicability(stack_of(X, (20, 20)), forest)["inside"].values.mean() for X in (held, shifted)]
    assert inside[0] > 0.85
    assert inside[1] < 0.05


def test_the_share_of_features_outside_their_range(forest):
    table = table_of()
    X = np.tile(table[list(FEATURES)].median().to_numpy(np.float32), (4, 1))
    X[1, 0] = table["blue"].max() + 1
    X[2, :3] = -50
    X[3, 1] = np.nan
    found = applicability(stack_of(X, (2, 2)), forest)
    assert np.array_equal(found["outside_share"].values.ravel(), np.float32([0, 1 / 6, 0.5, np.nan]), equal_nan=True)
    assert np.isnan(found["dissimilarity"].values.ravel()[3])
    assert found["inside"].values.ravel()[[0, 2, 3]].tolist() == [1, 0, 255]
    assert found["outside_share"].dtype == found["dissimilarity"].dtype == np.float32


def test_applicability_is_the_same_for_blocks_threads_and_dask(forest):
    X = training_pixels(210 * 201, 3, seed=9)[0]
    X[::17, 2] = np.nan
    features = stack_of(X, (210, 201))
    whole = applicability(features, forest, threads=1)
    assert applicability(features, forest, threads=3).identical(whole)
    lazy = applicability(features.chunk({"y": 50, "x": 77, "feature": 2}), forest)
    assert lazy["inside"].chunks is not None
    assert lazy.compute(scheduler="threads").identical(whole)
    doubled = applicability(xr.concat([features, features + 1], "time"), forest)
    assert np.array_equal(doubled["dissimilarity"].values[0], whole["dissimilarity"].values, equal_nan=True)


def test_lazy_features_are_not_computed(forest):
    import dask.array

    def explode(block):
        raise AssertionError("computed")

    data = dask.array.zeros((6, 30, 41), chunks=10, dtype="float32").map_blocks(explode, meta=np.empty((0,) * 3, "f4"))
    lazy = stack_of(training_pixels(30 * 41, 3)[0], (30, 41)).copy(data=data)
    made = applicability(lazy, forest)
    layers = uncertainty(classify(lazy, forest))
    for layer in (made["inside"], layers["margin"]):
        with pytest.raises(AssertionError, match="computed"):
            layer.compute()


def test_many_rows_are_thinned_to_points_that_cover_them():
    table = table_of(3000)
    model = train(table, list(FEATURES), method="minimum_distance")
    kept = model.training_set
    assert kept.points.shape == (2000, 6)
    assert kept.rows == 3000
    distance = kept.dissimilarity(np.ascontiguousarray(table[list(FEATURES)].to_numpy().T))
    assert distance.max() == pytest.approx(kept.covering, rel=1e-9)
    few = model.with_training_data(table, points=50).training_set
    assert len(few.points) == 50
    assert few.covering > kept.covering > 0
    chance = np.random.default_rng(0).choice(3000, 50, replace=False)
    from geococa.training_space import TrainingSet

    drawn = TrainingSet(table[list(FEATURES)].to_numpy()[chance], few.scaling, few.mean_distance, 1.0, 0.0, 3000, 0)
    assert drawn.dissimilarity(np.ascontiguousarray(table[list(FEATURES)].to_numpy().T)).max() > few.covering


def test_forests_weigh_features_by_their_importance(forest):
    assert forest.training_set.weighted
    assert forest.training_set.scaling[2].sum() == pytest.approx(6)
    # green, red, nir and ndvi decide the classes; blue and swir16 are noise
    weight = dict(zip(FEATURES, forest.training_set.scaling[2], strict=True))
    assert max(weight, key=weight.get) in ("green", "red", "nir", "ndvi")


def test_a_model_without_training_rows_says_what_to_do():
    from sklearn.tree import DecisionTreeClassifier

    table = table_of(100)
    X = table[list(FEATURES)].to_numpy()
    model = Model.from_estimator(DecisionTreeClassifier().fit(X, table["class"]), features=FEATURES)
    features = stack_of(X[:4], (2, 2))
    with pytest.raises(ModelRefused, match="with_training_data"):
        applicability(features, model)
    known = model.with_training_data(table)
    assert (applicability(features, known)["dissimilarity"].values == 0).all()
    assert np.array_equal(known.predict(X), model.predict(X))
    with pytest.raises(InputRefused, match="one number for each feature"):
        model.with_training_data(table, importance={"blue": 1.0})


# calibration


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_calibrated_probabilities_are_those_of_scikit_learn(method, n_classes):
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.frozen import FrozenEstimator

    X, y = training_pixels(800, n_classes)
    held_X, held_y = training_pixels(700, n_classes, seed=2)
    names = sorted(CLASSES[:n_classes])
    estimator = RandomForestClassifier(30, random_state=0).fit(X, y)
    theirs = CalibratedClassifierCV(FrozenEstimator(estimator), method=method, cv=3, ensemble=False).fit(held_X, held_y)
    model = Model.from_estimator(estimator, features=FEATURES, classes=names)
    held = pd.DataFrame(held_X, columns=list(FEATURES)).assign(**{"class": np.asarray(names)[held_y]})
    ours = calibrate(model, held, method)
    new = training_pixels(5000, n_classes, seed=5)[0]
    expected = theirs.predict_proba(new)
    assert np.abs(ours.predict_proba(new) - expected).max() < 1e-9
    labels = np.asarray(names)[expected.argmax(axis=1)]
    clear = np.diff(np.sort(expected, axis=1)[:, -2:], axis=1)[:, 0] > 1e-9
    assert np.array_equal(ours.predict(new)[clear], labels[clear])


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
def test_calibration_lessens_the_calibration_error_on_new_rows(method):
    model = train(table_of(1500, 2), list(FEATURES), method="gaussian")
    held, new = table_of(3000, 2, seed=5), table_of(3000, 2, seed=6)
    before = reliability(model, new)["calibration_error"].iloc[0]
    after = reliability(calibrate(model, held, method), new)["calibration_error"].iloc[0]
    assert after < 0.6 * before


def test_maps_of_a_calibrated_model_agree_with_its_table(calibrated):
    X = training_pixels(60 * 50, 3, seed=4)[0]
    X[5, 1] = np.nan
    features = stack_of(X, (60, 50))
    for model in calibrated.values():
        both = classify(features, model, "both")
        expected = model.predict_proba(X)
        expected[5] = np.nan
        found = both["probability"].values.reshape(3, -1).T
        np.testing.assert_allclose(found, expected, atol=1e-6)
        seen = np.arange(len(X)) != 5
        assert np.array_equal(both["labels"].values.ravel()[seen], expected[seen].argmax(axis=1) + 1)
        lazy = classify(features.chunk({"y": 17, "x": 23}), model).compute()
        assert np.array_equal(lazy.values, both["probability"].values, equal_nan=True)


def test_rejected_pixels_stay_rejected_after_calibration():
    model = train(table_of(), list(FEATURES), method="gaussian", rejection=0.01)
    ours = calibrate(model, table_of(seed=3), "sigmoid")
    far = table_of()[list(FEATURES)].to_numpy(np.float32) + 100
    assert (ours.predict(far) == "unclassified").all()


def test_training_rows_are_refused_for_calibration(forest):
    with pytest.raises(SampleLeak, match="600 of 600"):
        calibrate(forest, table_of())
    big = table_of(3000, places=True)
    model = train(big, list(FEATURES), n_estimators=3)
    with pytest.raises(SampleLeak, match="training points"):
        calibrate(model, big.iloc[:1000])
    held = table_of(300, seed=3, places=True)
    calibrate(model, held, training=big.assign(x=big["x"] + 1e6), block_m=1000)
    with pytest.raises(SampleLeak, match="block of 1000 m"):
        calibrate(model, held, training=big, block_m=1000)


def test_calibration_that_makes_no_sense_is_refused(forest):
    with pytest.raises(InputRefused, match="unknown calibration 'beta'"):
        calibrate(forest, table_of(seed=3), "beta")
    held = table_of(seed=3)
    with pytest.raises(InputRefused, match=r"too few of coca \(0\)"):
        calibrate(forest, held[held["class"] != "coca"])
    with pytest.raises(InputRefused, match="classes water"):
        calibrate(forest, table_of(seed=3).assign(**{"class": "water"}))
    with pytest.raises(InputRefused, match="needs places"):
        train(table_of(), list(FEATURES), n_estimators=3, calibration="isotonic")


def test_training_calibrates_on_predictions_for_unseen_blocks():
    from geococa.samples import spatial_folds

    table = table_of(900, places=True)
    options = {"method": "random_forest", "n_estimators": 10, "seed": 2}
    model = train(table, list(FEATURES), calibration="sigmoid", **options)
    plain = train(table, list(FEATURES), **options)
    assert "5 spatial folds" in model.calibration.origin
    assert all(np.array_equal(model.arrays[name], plain.arrays[name]) for name in plain.arrays)
    found = np.empty((900, 3))
    for rows, test in spatial_folds(table, 5, seed=2, positive=None):
        fold = train(table.iloc[rows].reset_index(drop=True), list(FEATURES), **options)
        found[test] = fold.predict_proba(table.iloc[test])
    from geococa.calibration_maps import fit_calibration

    y = np.array([model.classes.index(name) for name in table["class"]])
    assert np.array_equal(fit_calibration(found, y, "sigmoid").table, model.calibration.table)


# reliability


def test_reliability_counts_brier_and_errors_as_plain_python_does():
    rng = np.random.default_rng(1)
    p = rng.random(500)
    hit = rng.random(500) < p**2
    table = pd.DataFrame({"class": np.where(hit, "coca", "forest")})
    found = reliability(pd.DataFrame({"coca": p, "forest": 1 - p}), table, classes=["coca"], bins=5)
    error = 0.0
    for i, row in enumerate(found.to_dict("records")):
        inside = (p >= i / 5) & (p < (i + 1) / 5)
        assert row["n"] == inside.sum()
        assert row["mean_predicted"] == pytest.approx(p[inside].mean())
        assert row["observed_share"] == pytest.approx(hit[inside].mean())
        assert row["ci_low"] <= row["observed_share"] < row["ci_high"]
        error += inside.mean() * abs(p[inside].mean() - hit[inside].mean())
    assert found["calibration_error"].iloc[0] == pytest.approx(error)
    assert found["brier_score"].iloc[0] == pytest.approx(np.mean((p - hit) ** 2))
    assert found.attrs["brier_score"] == pytest.approx(2 * np.mean((p - hit) ** 2))


def test_the_interval_is_wilsons():
    from scipy.stats import binomtest

    table = pd.DataFrame({"class": ["coca"] * 3 + ["forest"] * 17})
    found = reliability(np.full((20, 2), 0.5), table, classes=["coca", "forest"], bins=1).iloc[0]
    expected = binomtest(3, 20).proportion_ci(method="wilson")
    assert (found["ci_low"], found["ci_high"]) == pytest.approx((expected.low, expected.high))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.999, 1.0]), min_size=1, max_size=40), st.integers(1, 12))
def test_every_row_is_in_one_bin(values, bins):
    p = np.array(values)
    table = pd.DataFrame({"class": np.where(p > 0.3, "coca", "forest")})
    for strategy in ("width", "quantile"):
        found = reliability(
            np.column_stack([p, 1 - p]), table, classes=["coca", "forest"], bins=bins, strategy=strategy
        )
        assert (found.groupby("class")["n"].sum() == len(p)).all()
        assert ((found["mean_predicted"] >= found["bin_low"] - 1e-12) & (found["ci_low"] <= found["ci_high"])).all()


def test_probabilities_that_do_not_fit_are_refused():
    table = pd.DataFrame({"class": ["coca", "forest"]})
    with pytest.raises(InputRefused, match="do not fit 2 rows"):
        reliability(np.full((3, 2), 0.5), table, classes=["coca", "forest"])
    with pytest.raises(InputRefused, match=r"in 0\.\.1"):
        reliability(np.full((2, 2), 5.0), table, classes=["coca", "forest"])
    with pytest.raises(InputRefused, match="need classes="):
        reliability(np.full((2, 2), 0.5), table)


def test_the_diagram_has_a_panel_for_each_class(forest, tmp_path):
    pytest.importorskip("matplotlib")
    from geococa import figures

    table = reliability(forest, table_of(seed=3))
    figure = figures.reliability_diagram(table, title="Held out")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["coca", "forest", "secondary forest"]
    assert all("calibration error" in axes.texts[0].get_text() for axes in figure.axes)
    first = figures.save_figure(figure, tmp_path / "a.svg").read_bytes()
    again = figures.save_figure(figures.reliability_diagram(table, title="Held out"), tmp_path / "b.svg").read_bytes()
    assert first == again
    with pytest.raises(InputRefused, match="expected that of"):
        figures.reliability_diagram(table.drop(columns="n"))


# layers


def test_entropy_and_margin_are_those_of_scipy(forest):
    from scipy.stats import entropy

    X = training_pixels(24 * 25, 3, seed=4)[0]
    X[3, 0] = np.nan
    probability = classify(stack_of(X, (24, 25)), forest)
    layers = uncertainty(probability)
    p = probability.values.reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(layers["entropy"].values.ravel(), entropy(p, base=3, axis=0), atol=1e-6)
    best = np.sort(p, axis=0)
    np.testing.assert_allclose(layers["margin"].values.ravel(), best[-1] - best[-2], atol=1e-7)
    assert np.isnan(layers["margin"].values.ravel()[3])
    assert layers["entropy"].dtype == layers["margin"].dtype == np.float32
    assert Grid.from_xarray(layers["entropy"]).same_as(Grid.from_xarray(probability))


def test_layers_of_dask_arrays_are_the_same_bytes(forest):
    X = training_pixels(2 * 40 * 50, 3, seed=4)[0]
    probability = classify(xr.concat([stack_of(part, (40, 50)) for part in np.split(X, 2)], "time"), forest)
    whole = uncertainty(probability)
    assert whole["entropy"].dims == ("time", "y", "x")
    lazy = uncertainty(probability.chunk({"time": 1, "y": 13, "x": 20, "land_cover": 1}))
    assert lazy["margin"].chunks is not None
    assert lazy.compute().identical(whole)


def test_a_single_class_has_no_margin():
    array = xr.DataArray(np.ones((1, 2, 2), "f4"), dims=("land_cover", "y", "x"))
    with pytest.raises(InputRefused, match="at least two classes"):
        uncertainty(array)


# the pipeline


@pytest.fixture(scope="module")
def archive_run(small_archive):
    from geococa.pipeline import sample_table
    from geococa.recipe import Recipe
    from geococa.samples import read_samples
    from geococa.tiles import find_tiles

    recipe = Recipe.read(small_archive / "recipe.toml")
    tiles = find_tiles(small_archive)
    table = sample_table(tiles, read_samples(recipe.model.samples), recipe)
    return recipe, tiles, train(table, list(recipe.features.names), seed=7, n_estimators=20)


def test_the_run_writes_the_layers_asked_for_and_the_same_maps(archive_run, tmp_path):
    from geococa.pipeline import run_tile, settled_probability, yearly_features
    from geococa.tiles import open_tile, read_raster

    recipe, tiles, model = archive_run
    assert model.feature_scales[model.features.index("nir")] == "reflectance 0..1"
    plain = run_tile(tiles[0], recipe, model, tmp_path / "plain")
    layers = recipe.layers.model_copy(update={"entropy": True, "margin": True, "applicability": True})
    chosen = recipe.model_copy(update={"layers": layers, "run": recipe.run.model_copy(update={"block_px": 32})})
    done = run_tile(tiles[0], chosen, model, tmp_path / "layers", threads=2)
    assert plain.layers == {}
    assert set(done.layers) == {"entropy", "margin", "dissimilarity", "outside_share", "inside"}
    features, _ = yearly_features(open_tile(tiles[0].path, bands=recipe.bands_needed()), recipe)
    expected = dict(uncertainty(settled_probability(features, model, recipe)).data_vars)
    expected |= dict(applicability(features, model).data_vars)
    for i, year in enumerate(plain.years):
        assert plain.maps[year].read_bytes() == done.maps[year].read_bytes()
        for name, yearly in done.layers.items():
            np.testing.assert_array_equal(read_raster(yearly[year]).values, expected[name].values[i])
    assert read_raster(done.layers["inside"][plain.years[0]]).attrs["nodata"] == 255


def test_a_recipe_calibrates_the_model_that_it_trains(archive_run):
    from geococa import archive

    recipe, _, _ = archive_run
    table = table_of(900, places=True)
    settings = recipe.model.model_copy(update={"calibration": "sigmoid", "options": {"n_estimators": 5}})
    job = type("Job", (), {"recipe": recipe.model_copy(update={"model": settings})})()
    model = archive._train(job, table, list(FEATURES))
    assert model.calibration.method == "sigmoid"
    assert model.calibration.rows == 900
