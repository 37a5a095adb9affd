"""Tuning: every trial is visible, the cheaper of equal models wins, the same seed gives the same bytes."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import randint

from geococa.errors import InputRefused, NoPositives
from geococa.models import Model, read_model, train
from geococa.training_methods import METHODS
from geococa.tree_cost import decisions_per_pixel, model_size
from geococa.tuning import SPACES, _choose, tune
from geococa.validation import cross_validate
from tests.estimator_cases import CLASSES, training_pixels
from tests.test_validation import FEATURES, patches

SPACE = {"n_estimators": [2, 20], "max_depth": [1, 6]}


def search(table=None, **more):
    return tune(
        patches(signal=1.5) if table is None else table,
        FEATURES,
        **({"space": SPACE, "search": "grid", "folds": 3, "threads": 1} | more),
    )


@pytest.fixture(scope="module")
def found():
    return search()


def test_a_grid_tries_every_combination_after_the_defaults(found):
    tried = found.trials[list(SPACE)].iloc[1:].to_numpy().tolist()
    assert tried == [list(pair) for pair in itertools.product(*SPACE.values())]
    assert found.trials[list(SPACE)].iloc[0].isna().all()
    assert found.trials["chosen"].sum() == 1
    assert (found.trials["seconds"] > 0).all()


def test_each_trials_score_is_that_of_a_cross_validation_with_its_settings(found):
    for number in (0, 4):
        settings = {} if number == 0 else dict(zip(SPACE, (20, 6), strict=True))
        folds = cross_validate(patches(signal=1.5), FEATURES, folds=3, threads=1, **settings).by_fold
        assert found.trials["score"][number] == pytest.approx(folds["f1"].mean())
        assert found.trials["score_sd"][number] == pytest.approx(folds["f1"].std(ddof=1))


def test_the_model_is_trained_on_all_rows_with_the_chosen_settings(found):
    again = train(patches(signal=1.5), FEATURES, threads=1, **found.settings)
    assert sorted(again.arrays) == sorted(found.model.arrays)
    assert all(np.array_equal(again.arrays[name], found.model.arrays[name]) for name in again.arrays)


def test_of_trials_within_one_standard_error_the_cheapest_wins():
    trials = pd.DataFrame(
        {
            "score": [0.90, 0.88, 0.87, 0.80, np.nan, 0.885],
            "score_se": [0.03, 0.01, 0.01, 0.50, np.nan, 0.01],
            "decisions_per_pixel": [900.0, 50.0, 50.0, 1.0, 0.5, 200.0],
            "failed": "",
        }
    )
    assert _choose(trials) == 1, "0.80 is out of reach whatever its own spread; of the two at 50 the better wins"
    assert _choose(trials.assign(score_se=0.0)) == 0


def test_seconds_play_no_part_in_the_choice(found):
    shuffled = found.trials.assign(seconds=found.trials["seconds"].to_numpy()[::-1])
    assert _choose(shuffled) == found.chosen


def test_the_model_tells_of_the_search_and_the_same_search_gives_the_same_bytes(found, tmp_path):
    told = read_model(found.model.write(tmp_path / "a.model")).provenance["tuning"]
    assert told["metric"] == "f1"
    assert told["chosen"] == found.chosen
    assert [trial["options"] for trial in told["trials"]][1:] == [
        dict(zip(SPACE, pair, strict=True)) for pair in itertools.product(*SPACE.values())
    ]
    again = search()
    assert (tmp_path / "a.model").read_bytes() == again.model.write(tmp_path / "b.model").read_bytes()
    pd.testing.assert_frame_equal(found.trials.drop(columns="seconds"), again.trials.drop(columns="seconds"))


def test_a_random_search_draws_different_combinations_by_its_seed():
    space = {"n_estimators": randint(1, 6), "max_depth": [1, 2, None]}
    options = {"space": space, "search": "random", "trials": 4, "table": patches(12, 8, signal=1.5)}
    first, again, other = (search(seed=seed, **options).trials for seed in (1, 1, 2))
    assert len(first.drop(columns=["score", "seconds"])[list(space)].drop_duplicates()) == 5
    pd.testing.assert_frame_equal(first[list(space)], again[list(space)])
    assert not first[list(space)].equals(other[list(space)])


def test_a_small_space_is_searched_whole():
    seen = []
    found = search(search="random", trials=50, progress=lambda *step: seen.append(step))
    assert len(found.trials) == 5
    assert seen[-1] == ("trials", 5, 5)


def test_a_trial_that_cannot_be_run_is_shown_with_its_reason_and_never_chosen():
    found = search(space={"n_estimators": [5], "max_depth": [2, -3]})
    assert "max_depth" in found.trials["failed"][2]
    assert np.isnan(found.trials["score"][2])
    assert found.chosen != 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"space": {}}, "no option at all"),
        ({"space": {"max_depth": []}}, "max_depth"),
        ({"space": {"max_features": "sqrt"}}, "max_features"),
        ({"search": "bayes"}, "'random' or 'grid'"),
        ({"search": "random", "trials": 0}, "trials must be a whole number of at least 1"),
        ({"space": {"max_depth": randint(1, 3)}}, "distribution"),
        ({"space": None, "method": "minimum_distance"}, "give space"),
        ({"n_estimator": 3}, "no trial could be run"),
    ],
)
def test_a_search_that_is_none_is_refused(options, words):
    with pytest.raises(InputRefused, match=words):
        search(**options)


def test_a_fold_without_positives_ends_the_search():
    table = patches(signal=1)
    table.loc[table["sample"] > 0, "class"] = "forest"
    with pytest.raises(NoPositives):
        search(table)


def test_a_search_inside_each_fold_gives_an_honest_score():
    table = patches(24, 8, seed=5)
    nested = cross_validate(table, folds=3, trainer=lambda rows: search(rows, folds=2).model)
    assert nested.overall["overall_accuracy"] < 0.7, "there is nothing to learn here"


@pytest.mark.parametrize("method", sorted(SPACES))
def test_every_default_space_has_options_that_the_method_takes(method, one_thread):
    table = patches(12, 8, signal=1.5)
    first = {name: [values[0]] for name, values in SPACES[method].items()}
    last = {name: [values[-1]] for name, values in SPACES[method].items()}
    for space in (first, last):
        found = search(table, method=method, space=space, folds=2)
        assert (found.trials["failed"] == "").all(), found.trials["failed"].tolist()


def test_decisions_are_the_path_lengths_of_scikit_learn():
    from sklearn.ensemble import RandomForestClassifier

    X, y = training_pixels(400, 3)
    forest = RandomForestClassifier(7, random_state=0).fit(X, y)
    model = Model.from_estimator(forest, features=list("abcdef"), classes=list(CLASSES[:3]))
    path, _ = forest.decision_path(X[:50])
    # a path holds a leaf a tree, which is no decision
    expected = np.asarray(path.sum(axis=1)).mean() - 7
    assert decisions_per_pixel(model, X[:50]) == pytest.approx(expected)
    assert model_size(model) == sum(tree.tree_.node_count for tree in forest.estimators_)


@pytest.fixture
def one_thread():
    """Histogram boosting takes all processors whatever it is told, and waits for them on a busy machine."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


TREES = ["random_forest", "extra_trees", "hist_gradient_boosting", "lightgbm", "xgboost", "catboost"]


def overlapping():
    X, y = training_pixels(400, 2)
    return pd.DataFrame(X, columns=list("abcdef")).assign(**{"class": np.asarray(["coca", "forest"])[y]})


@pytest.mark.parametrize("method", TREES)
def test_class_weights_are_honoured_by_every_method_with_trees(method, one_thread):
    table = overlapping()
    rows = pd.concat([table[table["class"] == "coca"][:40], table[table["class"] == "forest"]])
    share = {}
    for name, weight in (("none", None), ("balanced", "balanced"), ("heavy", {"coca": 50.0})):
        few = {"catboost": {"iterations": 15}, "hist_gradient_boosting": {"max_iter": 15}}
        small = few.get(method, {"n_estimators": 15})
        leaf = {"min_samples_leaf": 10} if method in TREES[:2] else {}
        model = train(rows, method=method, class_weight=weight, threads=1, **small, **leaf)
        share[name] = float((model.predict(table) == "coca").mean())
    assert share["none"] < share["balanced"] <= share["heavy"] + 0.02


@pytest.mark.parametrize("method", ["gaussian", "mahalanobis", "minimum_distance", "spectral_angle", "twdtw", "rules"])
def test_class_weights_are_refused_where_they_would_do_nothing(method):
    with pytest.raises(InputRefused, match=f"method '{method}' takes no class_weight"):
        train(overlapping(), method=method, class_weight="balanced")


@pytest.mark.parametrize("method", ["gaussian", "mahalanobis"])
def test_priors_move_the_border_of_the_gaussian_methods(method):
    table = overlapping()
    shares = [
        (train(table, method=method, priors={"coca": p, "forest": 1 - p}).predict(table) == "coca").mean()
        for p in (0.05, 0.5, 0.95)
    ]
    assert shares[0] < shares[1] < shares[2]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_gives_the_same_model_for_the_same_seed(method, one_thread):
    table = overlapping()
    if method == "twdtw":
        table.columns = [*(f"ndvi_d{day:03d}" for day in range(1, 97, 16)), "class"]
    few = {name: {"n_estimators": 5} for name in TREES} | {"catboost": {"iterations": 5}}
    few[TREES[2]] = {"max_iter": 5}
    first, again = (train(table, method=method, seed=3, threads=threads, **few.get(method, {})) for threads in (1, 2))
    assert first.sha256 == again.sha256
