"""Cross-validation and permutation importance: places kept apart, figures equal to those of other libraries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from geococa.errors import InputRefused, NoPositives, SampleLeak
from geococa.importance import permutation_importance
from geococa.models import Model, train
from geococa.samples import check_no_leak, spatial_folds
from geococa.scores import METRICS, make_scorer
from geococa.validation import cross_validate

FEATURES = ["red", "nir", "ndvi"]


def patches(count=40, pixels=12, seed=0, signal=0.0, classes=("coca", "forest"), spacing_m=2500):
    """Fields apart from each other: pixels of a field are alike, which says nothing of the class unless ``signal``."""
    rng = np.random.default_rng(seed)
    field = np.repeat(np.arange(count), pixels)
    names = np.asarray(classes)[np.arange(count) % len(classes)]
    level = rng.normal(size=(count, 3)) + signal * (np.arange(count) % len(classes))[:, None]
    values = level[field] + 0.1 * rng.normal(size=(len(field), 3))
    x = 500_000 + spacing_m * (field % 8) + 10 * (np.tile(np.arange(pixels), count) % 4)
    y = 900_000 + spacing_m * (field // 8) + 10 * (np.tile(np.arange(pixels), count) // 4)
    table = pd.DataFrame({"class": names[field], "x": x, "y": y, "sample": field})
    table[FEATURES] = values.astype(np.float32)
    table.attrs["crs"] = "EPSG:32618"
    return table


def quick(table, **more):
    """Cross-validate a small forest."""
    return cross_validate(table, FEATURES, **({"n_estimators": 10, "threads": 1, "folds": 4} | more))


class TestFolds:
    def test_random_folds_see_skill_where_there_is_none_and_blocked_folds_do_not(self):
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.model_selection import KFold, cross_val_score

        table = patches()
        forest = RandomForestClassifier(20, random_state=0)
        shuffled = KFold(5, shuffle=True, random_state=0)
        random_folds = cross_val_score(forest, table[FEATURES], table["class"], cv=shuffled).mean()
        blocked = quick(table, folds=5, n_estimators=20).overall["overall_accuracy"]
        assert random_folds > 0.9
        assert blocked < 0.65

    def test_no_fold_shares_a_pixel_a_sample_a_block_or_a_neighbourhood(self):
        table = patches(spacing_m=700)
        found = quick(table, block_m=500, buffer_m=800)
        assert sum(found.n_buffered) > 0
        for (inside, tested), dropped in zip(found.folds, found.n_buffered, strict=True):
            check_no_leak(table.iloc[inside], table.iloc[tested], 500, buffer_m=800)
            assert len(inside) + len(tested) + dropped == len(table)
        assert np.array_equal(np.sort(np.concatenate([tested for _, tested in found.folds])), np.arange(len(table)))

    def test_a_fold_without_positives_raises(self):
        table = patches(signal=1)
        table.loc[table["sample"] > 0, "class"] = "forest"
        with pytest.raises(NoPositives, match="fold 1 of 4"):
            quick(table)

    def test_a_given_fold_without_positives_raises(self):
        table = patches()
        coca = np.flatnonzero(table["class"] == "coca")
        rest = np.flatnonzero(table["class"] != "coca")
        with pytest.raises(NoPositives, match="test part of fold 1 of 2"):
            quick(table, folds=[(coca, rest), (rest, coca)])

    def test_random_folds_are_refused_as_a_leak(self):
        rows = np.random.default_rng(1).permutation(480)
        halves = [(rows[:240], rows[240:]), (rows[240:], rows[:240])]
        with pytest.raises(SampleLeak, match="sample"):
            quick(patches(), folds=halves)
        with pytest.raises(SampleLeak, match="block of 1000 m"):
            quick(patches().drop(columns="sample"), folds=halves)
        with pytest.raises(SampleLeak, match="within 100 m"):
            quick(patches().drop(columns="sample"), folds=halves, block_m=None)

    def test_one_shared_pixel_is_a_leak(self):
        table = patches().drop(columns="sample")
        pairs = spatial_folds(table, 2, block_m=1000, buffer_m=100)
        pairs[1] = (np.append(pairs[1][0], pairs[1][1][0]), pairs[1][1])
        with pytest.raises(SampleLeak, match="share a pixel"):
            quick(table, folds=pairs)

    def test_a_pixel_of_another_year_is_the_same_place(self):
        table = patches()
        later = table.assign(year=2020, sample=table["sample"] + 1000)
        both = pd.concat([table.assign(year=2019), later], ignore_index=True)
        both.attrs = table.attrs
        year = both["year"].to_numpy()
        with pytest.raises(SampleLeak, match="share a pixel"):
            quick(
                both,
                folds=[(np.flatnonzero(year == a), np.flatnonzero(year == b)) for a, b in ((2019, 2020), (2020, 2019))],
            )
        found = quick(both)
        assert len(found.predictions) == len(both)

    @pytest.mark.parametrize(
        ("folds", "words"),
        [
            ([(np.arange(9), np.arange(9, 12))], "at least 2 folds"),
            ([(np.array([True] * 480), np.array([True] * 480))] * 2, "row positions"),
            ([(np.arange(240), np.arange(240, 480))] * 2, "more than once"),
            (1, "folds must be a whole number of at least 2"),
        ],
    )
    def test_folds_that_are_none_are_refused(self, folds, words):
        with pytest.raises(InputRefused, match=words):
            quick(patches(), folds=folds)

    def test_a_table_without_places_is_refused(self):
        with pytest.raises(InputRefused, match="training_table"):
            quick(patches().drop(columns=["x", "y"]))

    def test_area_shares_are_not_cross_validated_as_classes(self):
        with pytest.raises(InputRefused, match="area shares"):
            quick(patches(), method="unmixing")


class TestResult:
    def test_the_pooled_matrix_is_the_sum_of_the_folds_and_its_scores_are_those_of_scikit_learn(self):
        from sklearn.metrics import precision_recall_fscore_support

        found = quick(patches(signal=1, classes=("coca", "forest", "pasture", "water")))
        total = sum(found.matrix(fold) for fold in range(1, 5))
        pd.testing.assert_frame_equal(found.matrix(), total)
        truth, guess = found.predictions["class"], found.predictions["predicted"]
        users, producers, f1, support = precision_recall_fscore_support(truth, guess, labels=list(found.classes))
        table = found.by_class
        np.testing.assert_allclose(table[["users_accuracy", "producers_accuracy", "f1"]], np.c_[users, producers, f1])
        assert table["n_reference"].tolist() == support.tolist()
        assert found.overall["overall_accuracy"] == pytest.approx((truth == guess).mean())
        each = [(truth == guess)[found.predictions["fold"] == fold].mean() for fold in range(1, 5)]
        assert found.by_fold["overall_accuracy"].tolist() == pytest.approx(each)
        assert found.overall["fold_sd"] == pytest.approx(np.std(each, ddof=1))

    def test_rows_keep_their_index_and_missing_values_are_left_out(self):
        table = patches(signal=1)
        table.index = [f"row{k}" for k in range(len(table))]
        table.loc["row7", "nir"] = np.nan
        found = quick(table)
        assert "row7" not in found.predictions.index
        assert len(found.predictions) == len(table) - 1
        assert found.probability.index.equals(found.predictions.index)
        pd.testing.assert_series_equal(found.predictions["class"], table["class"].drop("row7"), check_names=False)
        inside, tested = found.folds[0]
        assert 7 not in np.concatenate([inside, tested])
        again = train(table.iloc[inside], FEATURES, n_estimators=10, seed=0).predict(table.iloc[tested])
        assert found.predictions["predicted"].loc[table.index[tested]].tolist() == again.tolist()

    def test_probabilities_are_out_of_fold_sum_to_one_and_agree_with_the_labels(self):
        found = quick(patches(signal=1))
        np.testing.assert_allclose(found.probability.sum(axis=1), 1)
        top = found.probability.max(axis=1)
        at_label = [found.probability.at[row, name] for row, name in found.predictions["predicted"].items()]
        np.testing.assert_array_equal(top, at_label)

    def test_a_class_that_a_fold_cannot_learn_is_named_and_has_probability_zero(self):
        table = patches(signal=1)
        table.loc[table["sample"] == 5, "class"] = "water"
        found = quick(table, class_weight={"coca": 2.0, "water": 3.0})
        lacking = found.by_fold[found.by_fold["untrained"] == "water"]
        assert len(lacking) == 1
        water = (found.predictions["class"] == "water").to_numpy()
        assert (found.probability.loc[water, "water"] == 0).all()
        assert found.by_class.loc["water", ["producers_accuracy", "folds"]].tolist() == [0.0, 1.0]

    def test_rejected_rows_count_as_wrong(self):
        found = quick_gaussian(rejection=0.2)
        assert (found.predictions["predicted"] == "unclassified").any()
        assert found.matrix().loc["unclassified"].sum() == (found.predictions["predicted"] == "unclassified").sum()
        assert found.matrix().to_numpy().sum() == found.overall["n"]

    def test_same_seed_same_result_whatever_the_threads(self):
        table = patches(signal=0.5)
        first, again, other = quick(table), quick(table, threads=2), quick(table, seed=1)
        pd.testing.assert_frame_equal(first.probability, again.probability)
        assert not first.predictions["fold"].equals(other.predictions["fold"])

    def test_the_csv_holds_every_fold_and_class_and_is_the_same_each_time(self, tmp_path):
        seen = []
        found = quick(patches(signal=1), progress=lambda *step: seen.append(step))
        one, two = found.write(tmp_path / "a.csv"), quick(patches(signal=1)).write(tmp_path / "b.csv")
        assert one.read_bytes() == two.read_bytes()
        table = pd.read_csv(one)
        assert len(table) == 2 * 5
        assert table[table["fold"] == "all"]["n_reference"].sum() == 480
        assert seen == [("cross-validation", k, 4) for k in range(1, 5)]

    def test_a_trainer_of_ones_own_is_tested_on_the_same_folds(self):
        table = patches(signal=1)
        found = quick(table, trainer=lambda rows: train(rows, FEATURES, n_estimators=10, threads=1))
        pd.testing.assert_frame_equal(found.probability, quick(table).probability)


def quick_gaussian(**options):
    return cross_validate(patches(signal=1), FEATURES, method="gaussian", folds=4, **options)


def test_blocked_folds_of_a_landsat_scene_give_the_accuracy_of_scikit_learn(shared_data):
    import geopandas
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_predict

    import geococa as coca

    folder = shared_data / "rasters" / "lt5_amazon_1988"
    scenes = coca.open_tile(folder / "LT05_224063_19880814_dn.tif", sensor="landsat-l1")
    bands = ["blue", "green", "red", "nir", "swir16", "swir22"]
    features = coca.spectral_features(coca.composite(coca.to_reflectance(scenes)), [*bands, "ndvi", "nbr"])
    polygons = geopandas.read_file(folder / "training_polygons_utm22n.gpkg")
    table = coca.training_table(polygons, features)
    names = [*bands, "ndvi", "nbr"]
    found = cross_validate(table, names, folds=4, block_m=500, buffer_m=60, seed=3, n_estimators=50)
    forest = RandomForestClassifier(50, random_state=11)
    # scikit-learn tests every row once, as these folds do; its forest has other seeds and depths
    guess = cross_val_predict(forest, table[names].to_numpy(), table["class"], cv=list(found.folds))
    theirs = float((guess == table["class"]).mean())
    assert len(table) > 1500
    assert abs(found.overall["overall_accuracy"] - theirs) <= 0.01
    assert 0.8 < theirs < 1


class TestScores:
    @pytest.mark.parametrize("name", sorted(METRICS))
    def test_every_score_is_that_of_scikit_learn(self, name):
        from sklearn import metrics

        rng = np.random.default_rng(0)
        truth, guess = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
        p = rng.dirichlet([1, 1, 1], 200)
        theirs = {
            "f1": lambda: metrics.f1_score(truth == 1, guess == 1),
            "iou": lambda: metrics.jaccard_score(truth == 1, guess == 1),
            "users_accuracy": lambda: metrics.precision_score(truth == 1, guess == 1),
            "producers_accuracy": lambda: metrics.recall_score(truth == 1, guess == 1),
            "overall_accuracy": lambda: metrics.accuracy_score(truth, guess),
            "macro_f1": lambda: metrics.f1_score(truth, guess, average="macro"),
            "balanced_accuracy": lambda: metrics.balanced_accuracy_score(truth, guess),
            "neg_log_loss": lambda: -metrics.log_loss(truth, p),
            "neg_brier": lambda: -((p - np.eye(3)[truth]) ** 2).sum(axis=1).mean(),
        }[name]()
        scorer = make_scorer(name, ["a", "b", "c"], "b")
        assert scorer(truth, p if scorer.needs_probability else guess) == pytest.approx(theirs, rel=1e-6)

    def test_unknown_scores_and_scores_of_no_class_are_refused(self):
        with pytest.raises(InputRefused, match="unknown metric 'kappa'"):
            make_scorer("kappa", ["a"], None)
        with pytest.raises(InputRefused, match="positive="):
            make_scorer("f1", ["a"], "coca")


@pytest.fixture(scope="module")
def fitted():
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(4)
    X = rng.normal(size=(400, 4)).astype(np.float32)
    X[:, 3] = X[:, 0]
    y = np.where(X[:, 0] + 0.5 * X[:, 1] + 0.3 * rng.normal(size=400) > 0, "coca", "forest")
    forest = RandomForestClassifier(15, random_state=0).fit(X[:200], y[:200])
    held = pd.DataFrame(X[200:], columns=["a", "b", "noise", "copy"]).assign(**{"class": y[200:]})
    return forest, Model.from_estimator(forest, features=["a", "b", "noise", "copy"]), held


class TestImportance:
    def test_the_mean_is_the_exact_expectation_over_all_permutations(self, fitted):
        _, model, held = fitted
        found = permutation_importance(model, held, repeats=200, metric="overall_accuracy").set_index("feature")
        X, y = held[list(model.features)].to_numpy(), held["class"].to_numpy()
        n = len(X)
        for number, name in enumerate(model.features):
            # in a random permutation every row's value is equally likely that of any row
            pairs = np.repeat(X, n, axis=0)
            pairs[:, number] = np.tile(X[:, number], n)
            expected = (model.predict(X) == y).mean() - (model.predict(pairs) == np.repeat(y, n)).mean()
            error = found.loc[name, "importance_sd"] / np.sqrt(200)
            assert abs(found.loc[name, "importance"] - expected) <= 4 * error + 1e-12

    def test_it_agrees_with_scikit_learn_within_the_noise_of_the_shuffles(self, fitted):
        from sklearn.inspection import permutation_importance as theirs

        forest, model, held = fitted
        ours = permutation_importance(model, held, repeats=60, metric="overall_accuracy").set_index("feature")
        peer = theirs(forest, held[list(model.features)].to_numpy(), held["class"], n_repeats=60, random_state=1)
        ours = ours.loc[list(model.features)]
        noise = np.hypot(ours["importance_sd"], peer.importances_std) / np.sqrt(60)
        assert (np.abs(ours["importance"] - peer.importances_mean) <= 4 * noise + 1e-12).all()
        np.testing.assert_allclose(ours["importance_sd"], peer.importances_std, rtol=0.5, atol=2e-3)

    def test_features_that_say_the_same_matter_only_together(self, fitted):
        _, model, held = fitted
        alone = permutation_importance(model, held, seed=1).set_index("feature")["importance"]
        groups = {"twins": ["a", "copy"]}
        joined = permutation_importance(model, held, seed=1, groups=groups).set_index("feature")
        assert joined.loc["twins", "importance"] > alone["a"] + 0.05
        assert joined.loc["twins", "features"] == 2
        assert joined.loc["b", "importance"] == alone["b"]
        assert abs(alone["noise"]) < 0.05

    def test_features_of_a_season_are_joined_by_index(self):
        from geococa.importance import _groups

        names = ["ndvi", "ndvi_p10", "ndvi_harmonic_amplitude", "nbr_amplitude", "red"]
        found = _groups(names, "season")
        assert found == {"ndvi_season": (1, 2), "nbr_season": (3,), "ndvi": (0,), "red": (4,)}

    def test_same_seed_same_figures_whatever_the_threads_and_the_size_of_a_call(self, fitted, monkeypatch):
        _, model, held = fitted
        first = permutation_importance(model, held, seed=3, threads=1)
        monkeypatch.setattr("geococa.importance._VALUES_AT_ONCE", 1)
        pd.testing.assert_frame_equal(first, permutation_importance(model, held, seed=3, threads=2))
        assert not first["importance"].equals(permutation_importance(model, held, seed=4)["importance"])

    @pytest.mark.parametrize(
        ("change", "options", "error", "words"),
        [
            (lambda t: t, {"repeats": 1}, InputRefused, "at least 2"),
            (lambda t: t.drop(columns="b"), {}, InputRefused, "lacks b"),
            (lambda t: t[t["class"] == "forest"], {}, NoPositives, "held-out"),
            (lambda t: t.assign(**{"class": "pasture"}), {}, InputRefused, "pasture"),
            (lambda t: t.assign(a=np.nan), {}, InputRefused, "none of the 200"),
            (lambda t: t, {"groups": {"g": ["z"]}}, InputRefused, "unknown: z"),
            (lambda t: t, {"groups": {"g": "a"}}, InputRefused, "lists"),
            (lambda t: t, {"groups": {"b": ["a"]}}, InputRefused, "name them otherwise"),
        ],
    )
    def test_what_cannot_be_scored_is_refused(self, fitted, change, options, error, words):
        with pytest.raises(error, match=words):
            permutation_importance(fitted[1], change(fitted[2]), **options)

    def test_a_function_of_names_is_a_score(self, fitted):
        _, model, held = fitted
        found = permutation_importance(model, held, metric=lambda truth, guess: float((truth == guess).mean()))
        named = permutation_importance(model, held, metric="overall_accuracy")
        assert found["importance"].tolist() == named["importance"].tolist()


def test_rows_with_missing_dates_are_scored_where_the_method_takes_them():
    rng = np.random.default_rng(4)
    days = [f"ndvi_d{day:03d}" for day in range(1, 361, 40)]
    labels = np.repeat(["coca", "forest"], 60)
    course = np.where(labels[:, None] == "coca", 0.3 + 0.2 * np.sin(np.arange(9)), 0.8)
    values = course + 0.03 * rng.normal(size=course.shape)
    values[rng.random(values.shape) < 0.2] = np.nan
    table = pd.DataFrame(values, columns=days).assign(**{"class": labels})
    table["x"], table["y"] = 500_000 + 700.0 * rng.permutation(120), 900_000.0
    table.attrs["crs"] = "EPSG:32618"
    result = cross_validate(table, days, method="twdtw", folds=3, block_m=500, buffer_m=0)
    assert len(result.predictions) == 120
    assert result.overall["overall_accuracy"] > 0.9
