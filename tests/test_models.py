"""Models: conversion without a differing label, files that survive damage, training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle  # noqa: TID251 - to make a hostile file, none is read

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa import classify, model_file
from geococa.errors import InputRefused, ModelRefused
from geococa.legend import Legend
from geococa.models import Model, read_model, train
from tests.estimator_cases import (
    CLASSES,
    FEATURES,
    edge_pixels,
    fit,
    fitted,
    source_answers,
    thresholds_of,
    training_pixels,
    unfitted,
)

TREES = (
    "random_forest",
    "full_forest",
    "extra_trees",
    "decision_tree",
    "gradient_boosting",
    "hist_gradient_boosting",
    "wide_hist_gradient_boosting",
    "lightgbm",
    "xgboost",
    "catboost",
)
TAKES_NAN = (
    "random_forest",
    "extra_trees",
    "decision_tree",
    "hist_gradient_boosting",
    "lightgbm",
    "xgboost",
    "catboost",
)
TAKES_INFINITY = ("hist_gradient_boosting", "wide_hist_gradient_boosting", "lightgbm", "catboost")


def converted(name: str, n_classes: int):
    estimator = fitted(name, n_classes)
    return estimator, Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:n_classes])


def names_of(labels: np.ndarray) -> np.ndarray:
    return np.asarray(CLASSES)[labels]


def assert_same_answers(estimator, model, X: np.ndarray, tolerance: float) -> None:
    labels, probabilities = source_answers(estimator, X)
    assert np.array_equal(model.predict(X), names_of(labels))
    assert np.abs(model.predict_proba(X) - probabilities).max() <= tolerance


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("name", TREES)
def test_labels_are_those_of_the_source_on_random_and_edge_pixels(name, n_classes):
    estimator, model = converted(name, n_classes)
    tolerance = 1e-6 if name == "xgboost" else 1e-12
    random = training_pixels(12_000, 2, seed=5)[0]
    edges = edge_pixels(thresholds_of(model), 12_000)
    if name not in TAKES_INFINITY:
        edges = np.clip(edges, -np.finfo(np.float32).max, np.finfo(np.float32).max)
    for X in (random, edges):
        assert_same_answers(estimator, model, X, tolerance)


@pytest.mark.parametrize("name", ["random_forest", "full_forest"])
def test_labels_are_those_of_a_forest_on_200_000_pixels(name):
    estimator, model = converted(name, 2)
    X = np.concatenate([training_pixels(100_000, 2, seed=6)[0], edge_pixels(thresholds_of(model), 100_000)])
    X = np.clip(X, -np.finfo(np.float32).max, np.finfo(np.float32).max)
    assert np.array_equal(model.predict(X), names_of(source_answers(estimator, X)[0]))


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("name", TREES)
def test_labels_are_those_of_the_source_on_ten_million_pixels(name, n_classes):
    estimator, model = converted(name, n_classes)
    limit = np.finfo(np.float32).max
    for seed in range(11):
        X = training_pixels(1_000_000, 2, seed=seed)[0]
        if seed == 10:
            X = np.clip(edge_pixels(thresholds_of(model), 1_000_000), -limit, limit)
        for part in np.array_split(X, 10):
            assert np.array_equal(model.predict(part), names_of(source_answers(estimator, part)[0]))


@pytest.mark.parametrize("name", TAKES_NAN)
def test_missing_values_go_where_the_source_sends_them(name):
    X, y = training_pixels(3000, 3)
    X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    estimator = fit(fitted(name, 3), X, y)
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:3])
    edges = edge_pixels(thresholds_of(model), 10_000, missing=True)
    if name not in TAKES_INFINITY:
        edges = np.clip(edges, -np.finfo(np.float32).max, np.finfo(np.float32).max)
    assert np.isnan(edges).any(axis=1).mean() > 0.3
    assert_same_answers(estimator, model, edges, 1e-6 if name == "xgboost" else 1e-12)


@pytest.mark.parametrize("name", ["hist_gradient_boosting", "lightgbm"])
def test_double_precision_features_are_compared_in_double_precision(name):
    estimator, model = converted(name, 3)
    thresholds = thresholds_of(model)
    rng = np.random.default_rng(2)
    columns = [rng.choice(np.r_[t, np.nextafter(t, 9), np.nextafter(t, -9)], 4000) for t in thresholds]
    assert_same_answers(estimator, model, np.stack(columns, axis=1), 1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["standard_scaled_forest", "min_max_scaled_boosting"])
def test_scaled_pipelines_round_as_their_scalers_do(name, dtype):
    estimator, model = converted(name, 3)
    X = (training_pixels(20_000, 2, seed=3)[0] * 3).astype(dtype)
    assert_same_answers(estimator, model, X, 1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("name", ["standard_scaled_forest", "min_max_scaled_boosting"])
def test_scaled_pipelines_take_integers_in_double_precision_as_their_scalers_do(name, dtype):
    # thresholds lie midway between integers only before scaling: in single precision hundreds go the wrong way
    X, y = training_pixels(3000, 5)
    X = np.clip(X * 20 + 80, 0, 255).astype(dtype)
    estimator = fit(unfitted(name), X, y)
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES)
    assert_same_answers(estimator, model, X, 1e-12)
    planes = xr.DataArray(
        X.T.reshape(len(FEATURES), 50, 60), dims=("feature", "y", "x"), coords={"feature": [*FEATURES]}
    )
    labels = classify(planes, model, output="labels")
    assert np.array_equal(labels.values.ravel() - 1, source_answers(estimator, X)[0])


@pytest.mark.parametrize("which", ["QuadraticDiscriminantAnalysis", "GaussianNB"])
def test_normal_classes_equal_the_source(which):
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
    from sklearn.naive_bayes import GaussianNB

    X, y = training_pixels(3000, 3)
    X = X.astype(np.float64)
    estimator = {"QuadraticDiscriminantAnalysis": QuadraticDiscriminantAnalysis, "GaussianNB": GaussianNB}[which]()
    model = Model.from_estimator(estimator.fit(X, y), features=FEATURES, classes=CLASSES[:3])
    single = training_pixels(200_000, 2, seed=8)[0]
    assert_same_answers(estimator, model, single.astype(np.float64), 1e-9)
    assert np.array_equal(model.predict(single), names_of(estimator.predict(single.astype(np.float64))))


def test_boosters_convert_without_their_wrappers():
    lgb, xgb = fitted("lightgbm", 3), fitted("xgboost", 3)
    for estimator, booster in ((lgb, lgb.booster_), (xgb, xgb.get_booster())):
        bare = Model.from_estimator(booster, features=FEATURES, classes=CLASSES[:3])
        whole = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:3])
        assert all(np.array_equal(bare.arrays[name], whole.arrays[name]) for name in whole.arrays)


def test_xgboost_that_stopped_early_is_cut_at_its_best_round():
    import xgboost

    X, y = training_pixels(2000, 2)
    held_X, held_y = training_pixels(500, 2, seed=9)
    estimator = xgboost.XGBClassifier(n_estimators=300, early_stopping_rounds=3, n_jobs=1, random_state=0)
    estimator.fit(X, y, eval_set=[(held_X, held_y)], verbose=False)
    assert estimator.best_iteration + 1 < 300
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:2])
    assert_same_answers(estimator, model, held_X, 1e-6)


def test_xgboost_that_a_callback_stopped_early_is_cut_there_too():
    import xgboost

    X, y = training_pixels(2000, 2)
    held = training_pixels(500, 2, seed=9)
    stop = xgboost.callback.EarlyStopping(rounds=2)
    estimator = xgboost.XGBClassifier(n_estimators=200, learning_rate=1.0, callbacks=[stop], n_jobs=1, random_state=0)
    estimator.fit(X, y, eval_set=[held], verbose=False)
    assert estimator.early_stopping_rounds is None
    assert estimator.best_iteration + 1 < estimator.get_booster().num_boosted_rounds()
    model = Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:2])
    assert_same_answers(estimator, model, held[0], 1e-6)


def test_xgboost_with_a_number_for_missing_is_refused():
    import xgboost

    X, y = training_pixels(300, 2)
    estimator = fit(xgboost.XGBClassifier(n_estimators=2, missing=-9999, n_jobs=1), X, y)
    with pytest.raises(ModelRefused, match="missing=-9999 can't be converted"):
        Model.from_estimator(estimator, features=FEATURES, classes=CLASSES[:2])


@pytest.mark.parametrize("split_on", [True, False])
def test_categories_of_histogram_boosting_are_refused_even_where_no_tree_uses_them(split_on):
    # its trees number the features anew, categories first: read as they stand, they would ask the wrong features
    from sklearn.ensemble import HistGradientBoostingClassifier

    X, y = training_pixels(600, 2)
    X[:, 3] = np.random.default_rng(0).integers(0, 3, len(X))
    target = (X[:, 3] == 1).astype(int) if split_on else y
    boosting = HistGradientBoostingClassifier(max_iter=2, max_depth=1, categorical_features=[3])
    with pytest.raises(ModelRefused, match="categorical_features"):
        Model.from_estimator(fit(boosting, X, target), features=FEATURES, classes=CLASSES[:2])


def test_values_that_are_missing_only_in_the_map_go_where_the_source_sends_them():
    for name in ("hist_gradient_boosting", "lightgbm", "xgboost"):
        estimator, model = converted(name, 3)
        X = training_pixels(5000, 2, seed=4)[0]
        X[np.random.default_rng(1).random(X.shape) < 0.2] = np.nan
        X[:3] = np.nan
        assert_same_answers(estimator, model, X, 1e-6 if name == "xgboost" else 1e-12)


def test_class_names_in_another_order_become_the_order_of_the_model():
    X, y = training_pixels(1000, 2)
    estimator = fitted("random_forest", 2).fit(X, np.asarray(["forest", "coca"])[y])
    model = Model.from_estimator(estimator, features=FEATURES, classes=["forest", "coca"])
    assert list(estimator.classes_) == ["coca", "forest"]
    assert model.legend.code("forest") == 1
    assert np.array_equal(model.predict(X), estimator.predict(X))
    assert np.array_equal(model.predict_proba(X), estimator.predict_proba(X)[:, ::-1])


def test_exact_ties_go_to_the_class_that_the_source_has_first():
    X, y = training_pixels(1000, 2)
    names = np.asarray(["forest", "coca"])[y]
    estimator = fitted("full_forest", 2).fit(X, names)
    model = Model.from_estimator(estimator, features=FEATURES, classes=["forest", "coca"])
    pixels = training_pixels(50_000, 2, seed=4)[0]
    tied = np.diff(estimator.predict_proba(pixels), axis=1)[:, 0] == 0
    assert tied.sum() > 20
    assert np.array_equal(model.predict(pixels[tied]), estimator.predict(pixels[tied]))


def test_names_that_do_not_fit_the_estimator_are_refused():
    X, y = training_pixels(500, 2)
    frame = pd.DataFrame(X, columns=list(FEATURES))
    estimator = fitted("decision_tree", 2).fit(frame, np.asarray(["coca", "forest"])[y])
    with pytest.raises(ModelRefused, match="was fitted with"):
        Model.from_estimator(estimator, features=FEATURES[::-1])
    with pytest.raises(ModelRefused, match="not \\['coca', 'water'\\]"):
        Model.from_estimator(estimator, classes=["coca", "water"])
    with pytest.raises(ModelRefused, match="2 classes"):
        Model.from_estimator(estimator, classes=["coca"])
    assert Model.from_estimator(estimator).features == FEATURES


def test_estimators_that_can_not_be_converted_are_refused():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(ModelRefused, match=r"can.t convert .*LogisticRegression"):
        Model.from_estimator(LogisticRegression(), features=FEATURES)
    with pytest.raises(ModelRefused, match="not fitted"):
        Model.from_estimator(RandomForestClassifier(), features=FEATURES)


def test_a_table_is_matched_by_name():
    _, model = converted("random_forest", 3)
    X = training_pixels(200, 2, seed=7)[0]
    frame = pd.DataFrame(X, columns=list(FEATURES)).assign(other="text")
    assert np.array_equal(model.predict(frame[["other", *FEATURES[::-1]]]), model.predict(X))
    with pytest.raises(ModelRefused, match="lacks the features nir, ndvi"):
        model.predict(frame.drop(columns=["nir", "ndvi"]))
    with pytest.raises(ModelRefused, match=r"\(rows, 6\)"):
        model.predict(X[:, :5])


@pytest.mark.parametrize("name", ["full_forest", "lightgbm"])
def test_answers_do_not_depend_on_threads(name):
    _, model = converted(name, 3)
    X = training_pixels(100_000, 2, seed=7)[0]
    one = model.predict_proba(X, threads=1)
    assert all(np.array_equal(model.predict_proba(X, threads=n), one) for n in (2, 5))
    assert np.array_equal(model.predict(X, threads=1), model.predict(X, threads=4))


@pytest.fixture(scope="module")
def one_thread():
    """Training libraries that take no number of threads, held to one."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


# the file


@pytest.fixture(scope="module")
def file_bytes(tmp_path_factory, one_thread) -> dict[str, bytes]:
    """Model files of each kind, small."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    X, y = training_pixels(300, 3)
    table = pd.DataFrame(X, columns=list(FEATURES)).assign(**{"class": np.asarray(CLASSES)[y]})
    folder = tmp_path_factory.mktemp("models")
    forest = RandomForestClassifier(4, max_depth=4, random_state=0).fit(X, y)
    boosting = HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=6).fit(X, y)
    models = {
        "forest": Model.from_estimator(forest, features=FEATURES, classes=CLASSES[:3]),
        "boosting": Model.from_estimator(boosting, features=FEATURES, classes=CLASSES[:3]),
        "gaussian": train(table, list(FEATURES), method="gaussian", rejection=0.01),
        "spectral_angle": train(table, list(FEATURES), method="spectral_angle"),
    }
    return {name: model.write(folder / name).read_bytes() for name, model in models.items()}


KINDS = ("forest", "boosting", "gaussian", "spectral_angle")


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_model_reads_back_bit_for_bit(kind, file_bytes, tmp_path):
    path = tmp_path / "m.geococa"
    path.write_bytes(file_bytes[kind])
    model = read_model(path)
    assert model.kind == kind
    assert model.write(tmp_path / "again").read_bytes() == file_bytes[kind]
    again = read_model(tmp_path / "again")
    assert again.sha256 == model.sha256
    assert again.provenance == model.provenance
    X = training_pixels(200, 2)[0]
    assert np.array_equal(again.predict_proba(X), model.predict_proba(X))


def test_training_facts_survive_the_file(tmp_path):
    X, y = training_pixels(300, 2)
    table = pd.DataFrame(X, columns=list(FEATURES)).assign(**{"class": np.asarray(["forest", "coca"])[y]})
    model = train(table, list(FEATURES), n_estimators=3, colors={"coca": "#123456"})
    back = read_model(model.write(tmp_path / "m"))
    assert back.legend.colors[0] == "#123456"
    assert np.array_equal(back.training_range, model.training_range)
    assert back.provenance["samples_by_class"] == {"coca": int((y == 1).sum()), "forest": int((y == 0).sum())}
    assert back.provenance["options"]["n_estimators"] == 3


@pytest.mark.parametrize(
    "content", [b"", b"GEOCOCA", b"GEOCOCA\x02" + bytes(60), b"tree\nversion=v4\n", b"GEOCOCA\x01" + bytes(80)]
)
def test_files_that_are_no_models_are_refused(content, tmp_path):
    path = tmp_path / "m"
    path.write_bytes(content)
    with pytest.raises(ModelRefused, match=str(path)):
        read_model(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(ModelRefused, match="can't be read"):
            read_model(path)


class _Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickles_are_never_loaded(tmp_path):
    canary = tmp_path / "ran"
    plain = tmp_path / "model.pkl"
    plain.write_bytes(pickle.dumps(_Canary(canary)))
    with pytest.raises(ModelRefused, match="never loaded"):
        read_model(plain)
    objects = np.empty(1, dtype=object)
    objects[0] = _Canary(canary)
    np.savez(tmp_path / "objects.npz", value=objects, allow_pickle=True)
    inside = resealed({"format": "geococa model 1"}, (tmp_path / "objects.npz").read_bytes())
    (tmp_path / "inside").write_bytes(inside)
    with pytest.raises(ModelRefused, match=r"dtype object|unpacked"):
        read_model(tmp_path / "inside")
    assert not canary.exists()


def resealed(header: dict, arrays: bytes) -> bytes:
    """A file with a right digest around any header and arrays."""
    text = json.dumps(header).encode()
    body = model_file.MAGIC + len(text).to_bytes(8, "little") + text + arrays
    return body + hashlib.sha256(body).digest()


def opened(content: bytes) -> tuple[dict, dict]:
    return model_file._parse(content)


def test_an_unpacking_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(model_file, "MAX_BYTES", 1 << 20)
    packed = model_file._pack({"value": np.zeros(1 << 20)})
    (tmp_path / "bomb").write_bytes(resealed({"format": "geococa model 1"}, packed))
    with pytest.raises(ModelRefused, match="too many"):
        read_model(tmp_path / "bomb")


def _must_be_refused_or_harmless(path) -> str:
    try:
        model = read_model(path)
        X = np.random.default_rng(0).normal(size=(50, len(model.features)))
        probabilities = model.predict_proba(X)  # a training range of other numbers makes X seem on another scale
    except ModelRefused:
        return "refused"
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert set(model.predict(X)) <= {*model.classes, "unclassified"}
    return "harmless"


def damage_bytes(rng, content: bytes) -> bytes:
    """Flip, cut, insert, or swap bytes; the digest is not made right again."""
    data = bytearray(content)
    kind = rng.integers(4)
    at = int(rng.integers(len(data)))
    if kind == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        data[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8))
    else:
        other = int(rng.integers(len(data)))
        data[at], data[other] = data[other], (data[at] + 1) % 256
    return bytes(data)


def damage_content(rng, content: bytes) -> bytes:
    """Change one value or shape of an array, or one entry of the header, and seal the file again."""
    header, arrays = opened(content)
    extremes = [0, 1, -1, 2, 7, 254, 255, 2**15, 2**31 - 1, -(2**31), 10**6]
    if rng.random() < 0.75:
        name = str(rng.choice(sorted(arrays)))
        array = arrays[name]
        action = rng.integers(6)
        if action <= 2 and array.size:
            value = (
                rng.choice([np.nan, np.inf, -np.inf, 1e300, -1e-300, 0.5])
                if array.dtype.kind == "f" and action == 0
                else rng.choice(extremes)
            )
            with np.errstate(all="ignore"):
                array.flat[int(rng.integers(array.size))] = np.asarray(value).astype(array.dtype)
        elif action == 3:
            arrays[name] = array[: int(rng.integers(len(array) + 1))]
        elif action == 4:
            arrays[name] = array.astype(rng.choice(["f4", "i1", "u8", "f8", "?"]))
        else:
            del arrays[name]
    else:
        name = str(rng.choice(sorted(header)))
        choices = [
            None,
            [],
            {},
            "",
            "x",
            0,
            -1,
            1e308,
            ["a"],
            [1],
            {"link": "sigmoid"},
            {"scaling": ["divide"]},
            True,
            {"rejection_distance": -1},
            {"spread_rad": 0},
            list(range(300)),
            header["features"][::-1],
        ]
        header[name] = choices[int(rng.integers(len(choices)))]
    with np.errstate(all="ignore"):
        return resealed(header, model_file._pack(arrays))


def _damage_many(file_bytes, tmp_path, count: int) -> dict[str, int]:
    rng = np.random.default_rng(2026)
    found = {"refused": 0, "harmless": 0}
    path = tmp_path / "m"
    for i in range(count):
        content = file_bytes[KINDS[i % len(KINDS)]]
        change = damage_bytes if i % 3 == 0 else damage_content
        path.write_bytes(change(rng, content))
        found[_must_be_refused_or_harmless(path)] += 1
    return found


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_damaged_files_are_refused_or_predict_within_bounds(file_bytes, tmp_path):
    found = _damage_many(file_bytes, tmp_path, 300)
    assert found["refused"] > 150


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_thousands_of_damaged_files_are_refused_or_predict_within_bounds(file_bytes, tmp_path):
    found = _damage_many(file_bytes, tmp_path, 5000)
    assert found["refused"] > 2500


@pytest.mark.parametrize("kept", ["summary", "points"])
def test_a_file_that_lost_its_training_range_is_refused(kept, file_bytes, tmp_path):
    header, arrays = opened(file_bytes["gaussian"])
    del arrays["training_range"]
    if kept == "summary":
        del header["training_set"], arrays["training_points"], arrays["training_scaling"]
    else:
        del arrays["summary_count"], arrays["summary_values"]
    (tmp_path / "m").write_bytes(resealed(header, model_file._pack(arrays)))
    with pytest.raises(ModelRefused, match="training_range is missing"):
        read_model(tmp_path / "m")


def test_a_model_is_written_into_a_new_folder_and_never_over_a_folder(tmp_path):
    model = Model.from_rules(RULES)
    assert read_model(model.write(tmp_path / "new" / "deeper" / "m")).sha256 == model.sha256
    with pytest.raises(InputRefused, match="is a folder; name a file in it"):
        model.write(tmp_path / "new")
    with pytest.raises(InputRefused, match="can't be written"):
        model.write(tmp_path / "new" / "deeper" / "m" / "below")
    with pytest.raises(InputRefused, match="path must be"):
        read_model(None)
    assert [path.name for path in (tmp_path / "new" / "deeper").iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("left", lambda a: np.where(a >= 0, 0, a).astype(np.int32), "points backwards"),
        ("right", lambda a: np.where(a >= 0, 10**6, a).astype(np.int32), "points out of its tree"),
        ("right", lambda a: np.where(a >= 0, a, 2**31 - 1).astype(np.int32), "must be -1 in leaves"),
        ("feature", lambda a: np.where(a >= 0, 99, a).astype(np.int32), "feature 99 of 6"),
        ("threshold", lambda a: np.full_like(a, np.nan), "NaN"),
        ("leaf", lambda a: np.full_like(a, 10**6), "beyond"),
        ("value", lambda a: a * 2, "sum to 1"),
        ("value", lambda a: a[:, :2], "2 classes"),
        ("tree_start", lambda a: a[::-1].copy(), "must rise"),
        ("missing_left", lambda a: np.full_like(a, 2), "0 and 1"),
    ],
)
def test_each_rule_of_a_forest_is_checked(name, change, message, file_bytes, tmp_path):
    header, arrays = opened(file_bytes["forest"])
    arrays[name] = change(arrays[name])
    (tmp_path / "m").write_bytes(resealed(header, model_file._pack(arrays)))
    with pytest.raises(ModelRefused, match=message):
        read_model(tmp_path / "m")


def test_a_node_with_two_parents_is_refused(file_bytes, tmp_path):
    header, arrays = opened(file_bytes["forest"])
    arrays["left"] = np.where(arrays["left"] >= 0, arrays["right"], -1).astype(np.int32)
    (tmp_path / "m").write_bytes(resealed(header, model_file._pack(arrays)))
    with pytest.raises(ModelRefused, match="exactly one"):
        read_model(tmp_path / "m")


@pytest.mark.parametrize("huge", [2**70, -(2**70), 10**400])
def test_integers_that_no_float_holds_are_refused(huge, file_bytes, tmp_path):
    header, arrays = opened(file_bytes["boosting"])
    header["settings"]["slope"] = huge
    (tmp_path / "m").write_bytes(resealed(header, model_file._pack(arrays)))
    with pytest.raises(ModelRefused, match="slope must be a positive number"):
        read_model(tmp_path / "m")


def test_a_class_name_with_a_nul_is_refused(file_bytes, tmp_path):
    # numpy drops NULs at the end of a text, so predict would give a class that the model does not have
    header, arrays = opened(file_bytes["boosting"])
    header["classes"][0] = "coca\0"
    (tmp_path / "m").write_bytes(resealed(header, model_file._pack(arrays)))
    with pytest.raises(ModelRefused, match="NUL"):
        read_model(tmp_path / "m")


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content):
    with pytest.raises(ModelRefused):
        model_file._parse(model_file.MAGIC + content)


# training


def table_of(n=600, classes=("forest", "coca", "water"), seed=0) -> pd.DataFrame:
    X, y = training_pixels(n, len(classes), seed)
    return pd.DataFrame(X, columns=list(FEATURES)).assign(**{"class": np.asarray(classes)[y]})


METHODS = (
    "random_forest",
    "extra_trees",
    "hist_gradient_boosting",
    "lightgbm",
    "xgboost",
    "catboost",
    "gaussian",
    "mahalanobis",
    "minimum_distance",
    "spectral_angle",
)
SMALL = {
    "random_forest": {"n_estimators": 10},
    "extra_trees": {"n_estimators": 10},
    "lightgbm": {"n_estimators": 10},
    "xgboost": {"n_estimators": 10},
    "catboost": {"iterations": 10},
    "hist_gradient_boosting": {"max_iter": 10},
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_repeats_itself(method, one_thread):
    table, options = table_of(), SMALL.get(method, {})
    model = train(table, list(FEATURES), method=method, seed=3, threads=1, **options)
    again = train(table, list(FEATURES), method=method, seed=3, threads=2, **options)
    held = table_of(seed=11)
    assert model.sha256 == again.sha256
    assert model.classes == ("coca", "forest", "water")
    assert (model.predict(held) == held["class"]).mean() > 0.45
    assert np.allclose(model.predict_proba(held).sum(axis=1), 1)


def test_a_seed_changes_a_forest():
    digests = {train(table_of(), list(FEATURES), n_estimators=5, seed=seed).sha256 for seed in (1, 2)}
    assert len(digests) == 2


def test_rows_that_were_not_observed_are_dropped_and_counted():
    table = table_of()
    table.loc[:9, "nir"] = np.nan
    table.loc[10, "red"] = np.inf
    model = train(table, list(FEATURES), n_estimators=3)
    assert model.provenance["rows_dropped_not_observed"] == 11
    assert model.provenance["rows"] == 589
    with pytest.raises(InputRefused, match="none of the 600"):
        train(table.assign(nir=np.nan), list(FEATURES))


def test_features_are_guessed_from_the_numeric_columns_only():
    table = table_of().assign(row=1, col=2, x=0.0, y=0.0, year=2020, block=3, note="text")
    assert train(table, n_estimators=3).features == FEATURES


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda t: t.assign(**{"class": "coca"}), {}, "at least 2 classes"),
        (lambda t: t.drop(columns="class"), {}, "no column 'class'"),
        (lambda t: t.drop(columns="nir"), {}, "lacks the features nir"),
        (lambda t: t, {"method": "oracle"}, "unknown method 'oracle'"),
        (lambda t: t, {"n_tree": 3}, "unknown options n_tree"),
        (lambda t: t, {"random_state": 3}, "set by geococa"),
        (lambda t: t, {"classes": ["coca", "forest"]}, "name each once"),
        (lambda t: t, {"class_weight": "fair"}, "class_weight"),
        (lambda t: t, {"class_weight": {"tree": 2.0}}, "class_weight"),
        (lambda t: t, {"method": "gaussian", "priors": {"coca": 1.0}}, "priors"),
        (lambda t: t, {"method": "gaussian", "rejection": 2}, "rejection"),
        (lambda t: t, {"class_weight": {"coca": "two"}}, "class_weight"),
        (lambda t: t, {"class_weight": [1.0, 2.0, 3.0]}, "class_weight"),
        (lambda t: t.assign(nir="bright"), {}, "columns nir are not"),
        (lambda t: t.assign(nir=1e300), {}, r"feature nir is 1e\+300 in row 0"),
        (lambda t: t.replace("water", "unclassified"), {"n_estimators": 2}, "the name 'unclassified'"),
        (lambda t: t, {"units": {"nri": "1"}}, "units is given for nri"),
        (lambda t: t, {"scale": {"nri": "reflectance"}}, "scale is given for nri"),
        (lambda t: t, {"units": {"nir": 1}}, "units must be a text"),
        (lambda t: t, {"scale": ["a"] * 6}, "scale must be a text"),
        (lambda t: t.to_dict("list"), {}, "samples must be a DataFrame"),
        (lambda t: t.assign(nir=1.0), {"method": "gaussian"}, "positive definite"),
        (lambda t: t.groupby("class").head(5), {"method": "gaussian"}, "at least 7 samples"),
    ],
)
def test_training_that_makes_no_sense_is_refused(change, options, message):
    with pytest.raises(InputRefused, match=message):
        train(change(table_of()), list(FEATURES), **options)


def test_class_weights_move_the_border():
    table = table_of()
    plain = train(table, list(FEATURES), n_estimators=10, min_samples_leaf=20)
    heavy = train(table, list(FEATURES), n_estimators=10, min_samples_leaf=20, class_weight={"coca": 20.0})
    assert (heavy.predict(table) == "coca").sum() > 1.2 * (plain.predict(table) == "coca").sum()


def test_gaussian_rejects_what_is_unlike_every_class():
    table = table_of()
    model = train(table, list(FEATURES), method="gaussian", rejection=0.01)
    far = table[list(FEATURES)].to_numpy(np.float32) + 100
    assert (model.predict(far) == "unclassified").all()
    own = model.predict(table)
    assert 0 < (own == "unclassified").mean() < 0.05


def test_gaussian_priors_are_those_asked_for():
    table = table_of(classes=("coca", "forest"))
    rare = train(table, list(FEATURES), method="gaussian", priors={"coca": 0.001, "forest": 0.999})
    even = train(table, list(FEATURES), method="gaussian")
    shift = np.log(rare.predict_proba(table) / even.predict_proba(table))
    assert np.allclose(shift[:, 0] - shift[:, 1], np.log(0.001 / 0.999))


def test_minimum_distance_and_spectral_angle_find_the_nearest_mean():
    table = table_of()
    X = table[list(FEATURES)].to_numpy(np.float64)
    means = np.stack([X[table["class"] == name].mean(axis=0) for name in ("coca", "forest", "water")])
    nearest = ((X[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    model = train(table, list(FEATURES), method="minimum_distance")
    assert np.array_equal(model.predict(table[list(FEATURES)].astype(np.float32)), np.asarray(model.classes)[nearest])
    angle = train(table, list(FEATURES), method="spectral_angle")
    brighter = table[list(FEATURES)] * 3.0
    assert np.array_equal(angle.predict(brighter), angle.predict(table[list(FEATURES)]))


def test_transitions_come_from_places_seen_in_consecutive_years():
    rng = np.random.default_rng(0)
    rows = []
    for place in range(200):
        name = "coca"
        for year in (2018, 2019, 2020):
            rows.append({"class": name, "year": year, "x": float(place), "y": 0.0, "ndvi": rng.random()})
            name = "forest" if name == "forest" or rng.random() < 0.25 else "coca"
    table = pd.DataFrame(rows)
    model = train(table, ["ndvi"], n_estimators=2)
    pairs = table.sort_values(["x", "year"])
    after = pairs.groupby("x")["class"].shift(-1)
    coca = (pairs["class"] == "coca") & after.notna()
    assert model.transitions.shape == (2, 2)
    assert np.allclose(model.transitions.sum(axis=1), 1)
    assert model.transitions[0, 1] == pytest.approx((after[coca] == "forest").mean(), abs=0.01)
    assert 0 < model.transitions[1, 0] < 0.01


def test_transitions_are_left_out_where_too_few_places_were_seen_twice():
    assert train(table_of().assign(year=2020, x=1.0, y=1.0), list(FEATURES), n_estimators=2).transitions is None
    assert train(table_of(), list(FEATURES), n_estimators=2).transitions is None


def test_importing_models_pulls_in_no_training_library():
    import subprocess
    import sys

    code = "import sys, geococa.models; print([m for m in ('sklearn', 'numba', 'lightgbm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# rules


RULES = {
    "classes": ["coca", "forest", "water"],
    "tree": {
        "test": "ndvi > 0.2",
        "yes": {"test": "swir16 >= 0.15", "yes": {"class": "coca"}, "no": {"class": "forest"}},
        "no": {"class": "water"},
    },
}


def test_rules_decide_as_they_read():
    model = Model.from_rules(RULES)
    assert model.features == ("ndvi", "swir16")
    X = np.asarray([[0.2, 0.3], [np.nextafter(0.2, 1), 0.15], [0.9, np.nextafter(0.15, 0)]])
    assert model.predict(X).tolist() == ["water", "coca", "forest"]


def test_rules_are_read_from_toml(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(
        'classes = ["bare_soil", "forest"]\n[tree]\ntest = "ndvi <= 0.3"\nyes = {class = "bare_soil"}\nno = {class = "forest"}\n'
    )
    table = pd.DataFrame({"class": ["forest", "bare_soil"], "ndvi": [0.8, 0.1]})
    model = train(table, ["ndvi"], method="rules", rules=path)
    assert model.predict(table).tolist() == ["forest", "bare_soil"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["coca"]}, "at least two"),
        ({"tree": {"class": "coca"}}, "at least one test"),
        ({"tree": None}, "tree must be a table.*got nothing"),
        ({"tree": {"yes": {"class": "coca"}, "no": {"class": "water"}}}, "with 'class', or with 'test'"),
        ({"tree": {"test": "ndvi = 3", "yes": {"class": "coca"}, "no": {"class": "water"}}}, "got 'ndvi = 3'"),
        ({"tree": {"test": "ndvi < red", "yes": {"class": "coca"}, "no": {"class": "water"}}}, "got 'ndvi < red'"),
        ({"tree": {"test": "0.2 < ndvi", "yes": {"class": "coca"}, "no": {"class": "water"}}}, "got '0.2 < ndvi'"),
        (
            {"tree": {"test": "ndvi < 1 and red > 2", "yes": {"class": "coca"}, "no": {"class": "water"}}},
            "expected test",
        ),
        ({"tree": {"test": "ndvi < 3", "yes": {"class": "coca"}, "else": {"class": "water"}}}, "tree: unknown else"),
        (
            {"tree": {"test": "ndvi < 3", "yes": {"class": "coca", "no": {}}, "no": {"class": "water"}}},
            "tree.yes: unknown no",
        ),
        ({"class": ["coca"]}, "unknown class; rules have classes, tree"),
        ({"classes": ["coca", "water", "coca"]}, "different names"),
        ({"classes": ["coca plot", "water"]}, "without blanks"),
        ({"tree": {"test": "ndvi < 3", "yes": {"class": "cocoa"}, "no": {"class": "water"}}}, "'cocoa' is not among"),
        ({"tree": {"test": "ndvi < 3", "yes": {"class": "coca"}}}, "tree.no must be a table"),
        ({"tree": {"test": "ndvi < 1e999", "yes": {"class": "coca"}, "no": {"class": "water"}}}, "expected test"),
        ({"tree": {"test": "ndvi < 1.2.3", "yes": {"class": "coca"}, "no": {"class": "water"}}}, "expected test"),
    ],
)
def test_rules_that_are_no_tree_are_refused_with_the_place(change, message):
    with pytest.raises(ModelRefused, match=message):
        Model.from_rules({**RULES, **change})


def test_rules_that_run_in_a_circle_or_too_deep_are_refused():
    circle: dict = {"test": "ndvi < 1", "no": {"class": "water"}}
    circle["yes"] = circle
    with pytest.raises(ModelRefused, match="more than 100 tests follow each other"):
        Model.from_rules({**RULES, "tree": circle})


def test_a_missing_value_fails_every_test_of_the_rules():
    for sign in ("<", "<=", ">", ">="):
        tree = {"test": f"ndvi {sign} 0.2", "yes": {"class": "coca"}, "no": {"class": "water"}}
        model = Model.from_rules({"classes": ["coca", "water"], "tree": tree})
        assert model.predict(np.array([[np.nan]])).tolist() == ["water"], sign


def test_features_of_rules_may_hold_blanks():
    tree = {"test": "red  band >= .25", "yes": {"class": "coca"}, "no": {"class": "water"}}
    model = Model.from_rules({"classes": ["coca", "water"], "tree": tree})
    assert model.features == ("red  band",)
    assert model.predict(pd.DataFrame({"red  band": [0.25, 0.2]})).tolist() == ["coca", "water"]


def test_a_file_of_rules_is_read_like_a_model(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(
        'classes = ["coca", "water"]\n[tree]\ntest = "ndvi > 0.2"\nyes.class = "coca"\nno.class = "water"\n'
    )
    assert read_model(path).predict(np.array([[0.3], [0.1]])).tolist() == ["coca", "water"]
    path.write_text('classes = ["coca", "water"]\n[tree\n')
    with pytest.raises(ModelRefused, match=r"rules\.toml: not a TOML file"):
        read_model(path)
    for wrong in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ModelRefused, match="can't be read"):
            Model.from_rules(wrong)
    with pytest.raises(InputRefused, match="rules must be"):
        Model.from_rules(3)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("random_forest", {"n_estimators": 0}),
        ("random_forest", {"max_depth": -3}),
        ("lightgbm", {"num_leaves": 1}),
        ("catboost", {"depth": 99}),
        ("gaussian", {"rejection": "a"}),
        ("gaussian", {"regularisation": None}),
        ("fraction", {"n_estimators": 0}),
    ],
)
def test_options_that_a_library_refuses_are_named(method, options):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((60, 2)), columns=["red", "nir"]).assign(**{"class": ["coca", "forest"] * 30})
    with pytest.raises(InputRefused, match=f"'{method}'.*{next(iter(options))}"):
        train(table, ["red", "nir"], method=method, **options)


@pytest.mark.parametrize("seed", [-1, 1.5, None, True, 2**32])
def test_a_seed_is_a_whole_number(seed):
    table = pd.DataFrame({"class": ["coca", "forest"] * 20, "ndvi": [0.5, 0.9] * 20})
    with pytest.raises(InputRefused, match="seed must be"):
        train(table, ["ndvi"], seed=seed)


def test_colours_of_unknown_classes_are_refused():
    table = pd.DataFrame({"class": ["coca", "forest"] * 20, "ndvi": [0.5, 0.9] * 20})
    with pytest.raises(InputRefused, match="colours are given for"):
        train(table, ["ndvi"], colors={"cocca": "#ff0000"})


@pytest.mark.parametrize("method", ["gaussian", "spectral_angle", "minimum_distance"])
def test_rows_that_a_model_can_not_read_have_no_class(method):
    rng = np.random.default_rng(1)
    values = np.r_[rng.normal(0.3, 0.02, (40, 2)), rng.normal([0.1, 0.6], 0.02, (40, 2))]
    table = pd.DataFrame(values, columns=["red", "nir"]).assign(**{"class": ["soil"] * 40 + ["forest"] * 40})
    model = train(table, ["red", "nir"], method=method)
    rows = np.array([[np.nan, 0.3], [0.1, 0.6], [np.inf, 0.1]])
    assert model.predict(rows).tolist() == ["unclassified", "forest", "unclassified"]
    assert np.isnan(model.predict_proba(rows)).any(axis=1).tolist() == [True, False, True]
    assert np.isnan(rows[0, 0])


def test_pandas_own_numbers_with_missing_values_are_read():
    rng = np.random.default_rng(2)
    values = pd.DataFrame(rng.random((50, 2)), columns=["red", "nir"])
    model = train(values.assign(**{"class": ["a", "b"] * 25}), ["red", "nir"], method="hist_gradient_boosting")
    values.iloc[3, 0] = np.nan
    assert model.predict(values.convert_dtypes()).tolist() == model.predict(values).tolist()


@pytest.mark.parametrize("wrong", ["model.geococa", 3])
def test_what_is_no_model_is_refused_with_the_remedy(wrong):
    features = xr.DataArray(np.zeros((1, 2, 2), "f4"), dims=("feature", "y", "x"), coords={"feature": ["ndvi"]})
    with pytest.raises(ModelRefused, match="read_model"):
        classify(features, wrong)


# guard rails of tables


@pytest.fixture(scope="module")
def reflectances() -> tuple[pd.DataFrame, Model]:
    rng = np.random.default_rng(3)
    table = pd.DataFrame(rng.uniform(0.01, 0.4, (300, 2)), columns=["red", "nir"])
    table["class"] = np.where(table["red"] > table["nir"], "coca", "forest")
    return table, train(table, ["red", "nir"], n_estimators=5)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_threads_are_a_whole_number_from_one(threads, reflectances):
    table, model = reflectances
    calls = (
        lambda: model.predict(table, threads=threads),
        lambda: model.predict_proba(table, threads=threads),
        lambda: train(table, ["red", "nir"], threads=threads),
        lambda: train(table, ["red", "nir"], method="fraction", threads=threads),
        lambda: train(table, ["red", "nir"], method="gaussian", threads=threads),
    )
    for call in calls:
        with pytest.raises(InputRefused, match="threads must be a whole number of at least 1"):
            call()
    assert np.array_equal(model.predict(table, threads=np.int64(2)), model.predict(table))


@pytest.mark.parametrize("factor", [100, 10_000])
@pytest.mark.parametrize("rows", [20, 300])
def test_a_table_on_another_scale_is_refused(factor, rows, reflectances):
    table, model = reflectances
    wrong = table[["red", "nir"]].head(rows) * factor
    wrong.iloc[0] = 0.0  # a few values that fit, or are missing, hide nothing
    wrong.iloc[1] = np.nan
    for predict in (model.predict, model.predict_proba):
        with pytest.raises(ModelRefused, match="features red, nir are on another scale"):
            predict(wrong)


def test_a_model_that_rejects_says_so_of_what_is_far_from_everything(reflectances):
    table, _ = reflectances
    far = table[["red", "nir"]] * 500 + 3
    assert (train(table, ["red", "nir"], method="gaussian", rejection=0.01).predict(far) == "unclassified").all()
    with pytest.raises(ModelRefused, match="another scale"):
        train(table, ["red", "nir"], method="gaussian").predict(far)


def test_rows_that_are_only_unusual_are_classified(reflectances):
    table, model = reflectances
    bright = table[["red", "nir"]].copy()
    bright.iloc[::3] *= 50.0  # clouds, and indices that divide by next to nothing
    assert len(model.predict(bright)) == 300
    assert len(model.predict(table[["red", "nir"]].head(10) * 10_000)) == 10  # too few to tell
    still = train(table.assign(drops=0.0), ["red", "nir", "drops"], n_estimators=5)
    assert len(still.predict(table.assign(drops=7.0))) == 300


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["gaussian", "mahalanobis", "minimum_distance", "spectral_angle", "unmixing"])
@pytest.mark.parametrize("value", [1e39, -1e160, 1e300])
def test_numbers_beyond_single_precision_are_not_read(method, value, reflectances):
    table, _ = reflectances
    model = train(table, ["red", "nir"], method=method)
    rows = np.array([[value, 0.3], [0.1, 0.35]])
    assert model.predict(rows).tolist()[0] == "unclassified"
    assert model.predict(rows)[1] != "unclassified"
    assert np.isnan(model.predict_proba(rows)).all(axis=1).tolist() == [True, False]
    stack = xr.DataArray(rows.T[:, None], dims=("feature", "y", "x"), coords={"feature": ["red", "nir"]})
    assert (classify(stack, model, "labels").values[0] == 255).tolist() == [True, False]


def test_a_converted_model_given_its_training_rows_knows_its_scale(reflectances):
    from sklearn.ensemble import RandomForestClassifier

    table, _ = reflectances
    forest = RandomForestClassifier(3, random_state=0, n_jobs=1).fit(table[["red", "nir"]], table["class"])
    model = Model.from_estimator(forest, training=table)
    assert model.summary()["samples"].sum() == 2 * len(table)
    with pytest.raises(ModelRefused, match="another scale"):
        model.predict(table[["red", "nir"]] * 10_000)
    assert len(Model.from_estimator(forest).predict(table[["red", "nir"]] * 10_000)) == len(table)


def test_the_documentation_names_every_array_and_its_rules_can_be_read():
    import re
    import tomllib
    from pathlib import Path

    from geococa.model_checks import _KINDS
    from geococa.model_parts import PART_ARRAYS

    text = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    assert {name for arrays in _KINDS.values() for name in arrays} | set(PART_ARRAYS) <= named
    rules = tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.DOTALL)[1])
    model = Model.from_rules(rules)
    assert model.predict(np.array([[0.1, 0.3], [0.5, 0.2], [0.5, 0.1]])).tolist() == ["water", "coca", "forest"]


# the command line


def geococa(*arguments):
    from click.testing import CliRunner

    from geococa.cli import main

    return CliRunner().invoke(main, ["-q", *map(str, arguments)])


@pytest.mark.slow
def test_a_new_user_trains_and_classifies(small_archive, tmp_path):
    text = (small_archive / "recipe.toml").read_text(encoding="utf-8")
    # the simulated landscape is small: blocks of 1 km would leave classes without a sample to train with
    options = "options = { n_estimators = 5, calibration_block_m = 100.0 }"
    calibrated = text.replace("seed = 7", f'seed = 7\ncalibration = "sigmoid"\n{options}', 1)
    (small_archive / "calibrated.toml").write_text(calibrated, encoding="utf-8")
    path = tmp_path / "new" / "coca.model"
    done = geococa("train", small_archive, "--recipe", small_archive / "calibrated.toml", "--out", path)
    assert done.exit_code == 0, done.output
    assert read_model(path).calibration.method == "sigmoid"
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'classes = ["coca", "forest"]\n[tree]\ntest = "ndvi < 0.7"\nyes.class = "coca"\nno.class = "forest"\n'
    )
    tile = next(path for path in sorted(small_archive.iterdir()) if path.is_dir())
    how = ("--recipe", small_archive / "recipe.toml", "--model")
    mapped = geococa("classify", tile, *how, rules, "--out", tmp_path / "maps", "--threads", 1)
    assert mapped.exit_code == 0, mapped.output
    assert len(list((tmp_path / "maps").glob("*_land_cover.tif"))) == 3
    damaged = tmp_path / "damaged.model"
    damaged.write_bytes(path.read_bytes()[:3000])
    for model, out, words in (
        (damaged, "a", "damaged"),
        (tmp_path / "absent.model", "b", "can't be read"),
        (small_archive / "samples.gpkg", "c", "not a geococa model file"),
        (small_archive / "recipe.toml", "d", "rules have classes, tree here"),
        (rules, "rules.toml", "choose another output folder"),
    ):
        refused = geococa("classify", tile, *how, model, "--out", tmp_path / out)
        assert refused.exit_code == 4, refused.output
        assert words in refused.output
        assert refused.output.startswith("error: ")
        assert not (tmp_path / out).is_dir()


def test_a_training_that_can_not_be_is_refused_in_one_line(small_archive, tmp_path):
    text = (small_archive / "recipe.toml").read_text(encoding="utf-8")
    for old, new, code, words in (
        ('method = "random_forest"', 'method = "forest"', 2, "known are random_forest"),
        ('samples = "samples.gpkg"', 'samples = "none.gpkg"', 4, "no samples at"),
        ('"swir22",', '"swir99",', 4, "has no band swir99"),
        ("seed = 7", "seed = 7\noptions = { n_tree = 5 }", 4, "unknown options n_tree"),
    ):
        assert old in text
        (small_archive / "wrong.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
        done = geococa("train", small_archive, "--recipe", small_archive / "wrong.toml", "--out", tmp_path / "m")
        assert done.exit_code == code, done.output
        assert words in done.output
    done = geococa("train", small_archive, "--recipe", small_archive / "recipe.toml", "--out", tmp_path)
    assert done.exit_code == 2
    assert "name a file in it" in done.output
    assert list(tmp_path.iterdir()) == []


def test_xgboosts_labels_follow_its_single_precision_probability_just_above_one_half():
    xgboost = pytest.importorskip("xgboost")
    estimator, model = converted("xgboost", 2)
    X = training_pixels(400, 2, seed=8)[0]
    plain = dataclasses.replace(model, arrays={**model.arrays, "base": np.zeros(1)})
    scores = plain._engine._sums(np.ascontiguousarray(X.T))[0]
    near = np.argsort(abs(scores))[:3]  # where single precision is finest
    X, scores = X[near], scores[near]
    apart = 0
    for row, score in zip(X, scores, strict=True):
        for wanted in np.linspace(-3e-7, 3e-7, 25):
            base = np.float32(wanted - score)
            moved = dataclasses.replace(model, arrays={**model.arrays, "base": np.array([base], np.float64)})
            data = xgboost.DMatrix(row[None], base_margin=np.array([base]))
            expected = estimator.get_booster().predict(data)[0] > 0.5
            assert moved.predict(row[None])[0] == moved.classes[int(expected)]
            apart += int(estimator.get_booster().predict(data, output_margin=True)[0] > 0) != int(expected)
    assert apart > 0  # the score alone would have said otherwise


@pytest.mark.parametrize("n_classes", [1, 254, 255])
def test_maps_hold_up_to_255_classes(n_classes, tmp_path):
    RandomForestClassifier = pytest.importorskip("sklearn.ensemble").RandomForestClassifier
    rng = np.random.default_rng(3)
    X = rng.normal(size=(4 * n_classes, 5)).astype(np.float32)
    forest = RandomForestClassifier(5, random_state=0).fit(X, np.repeat(np.arange(n_classes), 4))
    names = [f"class{k}" for k in range(n_classes)]
    Model.from_estimator(forest, features=list("abcde"), classes=names).write(tmp_path / "m")
    model = read_model(tmp_path / "m")
    assert model.predict(X).tolist() == [names[k] for k in forest.predict(X)]
    scene = xr.DataArray(X.T.reshape(5, -1, 4).copy(), dims=("feature", "y", "x"), coords={"feature": list("abcde")})
    scene[0, 0, 0] = np.nan
    labels = classify(scene, model, "labels")
    legend = Legend.from_attrs(labels.attrs)
    found = [legend.names[legend.codes.index(code)] for code in labels.values.ravel()[1:]]
    assert found == [names[k] for k in forest.predict(X)[1:]]
    assert labels.values.ravel()[0] == 255
