"""CatBoost models keep every label and probability, whatever their trees, losses and missing values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geococa.errors import InputRefused, ModelRefused
from geococa.models import Model, read_model, train
from tests.estimator_cases import CLASSES, FEATURES, edge_pixels, thresholds_of, training_pixels

catboost = pytest.importorskip("catboost")

SMALL = {
    "iterations": 20,
    "depth": 4,
    "verbose": False,
    "thread_count": 1,
    "random_seed": 0,
    "allow_writing_files": False,
}
LARGEST = np.finfo(np.float32).max


def classifier(**options):
    return catboost.CatBoostClassifier(**{**SMALL, **options})


def pixels_with_gaps(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X, y = training_pixels(n, n_classes, seed)
    X[np.random.default_rng(seed).random(X.shape) < 0.1] = np.nan
    return X, y


def assert_same(estimator, model: Model, X: np.ndarray) -> None:
    probabilities = estimator.predict_proba(X)
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert np.array_equal(model.predict(X), np.asarray(model.classes)[np.ravel(estimator.predict(X)).astype(int)])
    assert np.abs(model.predict_proba(X) - probabilities).max() < 1e-12


@pytest.mark.parametrize("loss", [None, "MultiClass", "MultiClassOneVsAll"])
@pytest.mark.parametrize("nan_mode", ["Min", "Max"])
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("grow_policy", ["SymmetricTree", "Depthwise", "Lossguide"])
def test_labels_are_those_of_catboost_on_borders_missing_and_infinite_values(loss, nan_mode, n_classes, grow_policy):
    options = {"loss_function": loss} if loss else {}
    estimator = classifier(nan_mode=nan_mode, grow_policy=grow_policy, **options).fit(
        *pixels_with_gaps(2000, n_classes)
    )
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:n_classes])
    edges = edge_pixels(thresholds_of(model), 8000, missing=True)
    if nan_mode == "Max":
        # infinity stands for itself, the largest finite number is then read as it
        edges = edges[~(edges == LARGEST).any(axis=1)]
    assert np.isnan(edges).any()
    assert np.isinf(edges).any()
    for X in (edges, pixels_with_gaps(8000, 2, seed=5)[0]):
        assert_same(estimator, model, X)


def test_missing_values_go_left_where_the_training_had_none():
    estimator = classifier().fit(*training_pixels(2000, 3))
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:3])
    assert_same(estimator, model, pixels_with_gaps(5000, 2, seed=4)[0])


@pytest.mark.parametrize("depth", [1, 8, 10])
def test_stumps_and_trees_too_deep_for_bit_vectors(depth):
    estimator = classifier(depth=depth, iterations=8).fit(*training_pixels(3000, 3))
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:3])
    assert_same(estimator, model, edge_pixels(thresholds_of(model), 8000))


@pytest.mark.parametrize(("n_classes", "bias"), [(2, 0.3), (3, [0.1, -0.2, 0.3])])
def test_scale_and_bias_are_applied(n_classes, bias):
    estimator = classifier().fit(*training_pixels(2000, n_classes))
    estimator.set_scale_and_bias(1.7, bias)
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:n_classes])
    assert_same(estimator, model, training_pixels(8000, 2, seed=3)[0])


def test_cross_entropy_of_shares_and_its_starting_value():
    X, y = training_pixels(2000, 2)
    estimator = classifier(loss_function="CrossEntropy", boost_from_average=True).fit(X, np.where(y, 0.9, 0.2))
    assert estimator.get_scale_and_bias()[1] != 0
    model = Model.from_estimator(estimator, features=FEATURES, classes=("forest", "coca"))
    assert_same(estimator, model, training_pixels(8000, 2, seed=3)[0])


def test_names_of_features_and_classes_are_taken_over():
    X, y = training_pixels(1000, 2)
    estimator = classifier().fit(pd.DataFrame(X, columns=list(FEATURES)), np.asarray(["forest", "coca"])[y])
    model = Model.from_estimator(estimator)
    assert model.features == FEATURES
    assert model.classes == ("coca", "forest")
    assert np.array_equal(model.predict(X), estimator.predict(X))
    assert model.provenance["source"] == "catboost.CatBoostClassifier"


def test_a_bare_catboost_and_one_read_from_a_file_convert_alike(tmp_path):
    X, y = training_pixels(1000, 2)
    bare = catboost.CatBoost({"loss_function": "Logloss", **SMALL}).fit(X, y)
    bare.save_model(str(tmp_path / "m.cbm"))
    again = catboost.CatBoostClassifier().load_model(str(tmp_path / "m.cbm"))
    models = [Model.from_estimator(each, features=FEATURES, classes=CLASSES[:2]) for each in (bare, again)]
    assert all(np.array_equal(models[0].arrays[name], models[1].arrays[name]) for name in models[0].arrays)
    assert_same(again, models[0], X)


def test_a_model_that_stopped_early_and_one_with_ignored_features():
    X, y = training_pixels(1500, 2)
    stopped = classifier(iterations=300, early_stopping_rounds=3).fit(X, y, eval_set=training_pixels(500, 2, seed=9))
    assert stopped.tree_count_ < 300
    for estimator in (stopped, classifier(ignored_features=[0, 5]).fit(X, y)):
        assert_same(estimator, Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:2]), X)


def test_a_file_keeps_wide_leaves(tmp_path):
    estimator = classifier().fit(*training_pixels(1000, 4))
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:4])
    assert model.arrays["value"].shape[1] == 4
    back = read_model(model.write(tmp_path / "m"))
    X = training_pixels(2000, 2, seed=2)[0]
    assert back.sha256 == model.sha256
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))


def test_a_score_that_would_land_beyond_the_last_class_is_refused():
    from dataclasses import replace

    estimator = classifier().fit(*training_pixels(1000, 3))
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:3])
    owner = model.arrays["tree_class"].copy()
    owner[0] = 1
    with pytest.raises(ModelRefused, match=r"tree_class must lie in 0\.\.0"):
        replace(model, arrays={**model.arrays, "tree_class": owner})
    with pytest.raises(ModelRefused, match="one score or 3"):
        replace(model, arrays={**model.arrays, "value": model.arrays["value"][:, :2].copy()})


def _with_categories(**options):
    X, y = training_pixels(500, 2)
    frame = pd.DataFrame(X, columns=list(FEATURES)).assign(soil=(y * 3 + np.arange(500) % 4).astype(str))
    return classifier(cat_features=["soil"], **options).fit(frame, y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _with_categories(), "categorical_features"),
        (lambda: _with_categories(one_hot_max_size=50), "categorical_features"),
        (lambda: classifier(), "not fitted"),
        (lambda: catboost.CatBoost(SMALL).fit(*training_pixels(500, 2)), "loss 'RMSE'"),
        (lambda: catboost.CatBoostRegressor(**SMALL).fit(*training_pixels(500, 2)), "loss 'RMSE'"),
        (lambda: _moved_threshold(), r"probability threshold of 0\.3"),
    ],
)
def test_what_can_not_be_converted_is_refused_with_the_reason(make, message):
    with pytest.raises(ModelRefused, match=message):
        Model.from_estimator(make(), features=[*FEATURES])


def _moved_threshold():
    estimator = classifier().fit(*training_pixels(500, 2))
    estimator.set_probability_threshold(0.3)
    return estimator


def test_training_takes_weights_and_refuses_options_it_does_not_know():
    X, y = training_pixels(1500, 2)
    table = pd.DataFrame(X, columns=list(FEATURES)).assign(**{"class": np.asarray(["coca", "forest"])[y]})
    plain = train(table, list(FEATURES), method="catboost", iterations=10)
    heavy = train(table, list(FEATURES), method="catboost", iterations=10, class_weight={"coca": 20.0})
    assert (heavy.predict(table) == "coca").sum() > 1.2 * (plain.predict(table) == "coca").sum()
    assert plain.provenance["options"]["depth"] == 6
    with pytest.raises(InputRefused, match="unknown options n_estimators"):
        train(table, list(FEATURES), method="catboost", n_estimators=10)


def test_linear_leaves_of_lightgbm_are_refused_and_dart_is_taken():
    lightgbm = pytest.importorskip("lightgbm")
    X, y = training_pixels(1000, 2)
    options = {"n_estimators": 10, "verbose": -1, "n_jobs": 1}
    with pytest.raises(ModelRefused, match="linear_tree"):
        Model.from_estimator(lightgbm.LGBMClassifier(linear_tree=True, **options).fit(X, y), features=FEATURES)
    dart = lightgbm.LGBMClassifier(boosting_type="dart", **options).fit(X, y)
    model = Model.from_estimator(dart, features=FEATURES, classes=CLASSES[:2])
    assert np.abs(model.predict_proba(X) - dart.booster_.predict(X)[:, None] * [-1, 1] - [1, 0]).max() < 1e-12
