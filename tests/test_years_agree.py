"""Years that agree on simulated land: false changes go, true ones stay, and plots keep their biographies."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import ndimage

from benchmarks.stabilise import (
    YEARS,
    biographies,
    change_steps,
    compare,
    found_events,
    noisy,
    simulate,
    true_map,
    true_shares,
)
from geococa.errors import InputRefused
from geococa.labels import estimate_transitions, label, persistence_matrix, sieve, smooth, stabilise
from geococa.synthetic import CLASSES, landscape
from geococa.year_transitions import fitting_evidence
from tests.test_labels import probabilities

CLOUDS = (0.4, 0.55, 0.7)
"""Shares of the ground not seen in a year, taken in turn."""


@pytest.fixture(scope="module")
def world():
    return landscape(size_m=1000, years=YEARS, tiles=1, dates_per_year=1, cloud_cover=0.0, seed=1)


@pytest.fixture(scope="module")
def shares(world):
    return true_shares(world)


@pytest.fixture(scope="module")
def probability(shares):
    """What a classifier of mixed, noisy signals sees of the landscape through 40 to 70 % of cloud."""
    rng = np.random.default_rng(5)
    years, classes, rows, columns = shares.shape
    signal = 3.0 * shares + rng.normal(size=shares.shape) + 0.7 * rng.normal(size=(1, classes, rows, columns))
    weight = np.exp(signal)
    values = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    for year in range(years):
        field = ndimage.gaussian_filter(rng.normal(size=(rows, columns)), 6)
        values[year, :, field < np.quantile(field, CLOUDS[year % 3])] = np.nan
    times = pd.to_datetime([f"{year}-12-31" for year in YEARS])
    array = xr.DataArray(values, dims=("time", "land_cover", "y", "x"), attrs={"kind": "probability"})
    return smooth(array.assign_coords(time=times, land_cover=list(CLASSES)), window=5)


@pytest.fixture(scope="module")
def table(probability, shares):
    options = {
        "weighed": {"evidence": 4.0},
        "persistence": {"persistence": 0.9},
        "plain": {"transitions": "estimate", "evidence": 1.0},
    }
    return compare(probability, shares, options).set_index("setting")


def test_two_thirds_of_the_false_changes_go_and_the_true_ones_stay(table):
    row = table.loc["weighed"]
    assert row.false >= 10
    assert row.false_cut >= 0.60
    assert row.true_kept > 0.95
    assert row.accuracy > table.loc["each year by itself", "accuracy"]


def chains(sharpness, cloud, seed, side=110, years=8):
    """Calibrated probabilities of five classes of a simulated chain, and the classes."""
    rng = np.random.default_rng(seed)
    matrix = np.array(
        [
            [0.85, 0.01, 0.08, 0.06, 0.0],
            [0.01, 0.97, 0.015, 0.005, 0.0],
            [0.02, 0.005, 0.95, 0.025, 0.0],
            [0.03, 0.005, 0.065, 0.9, 0.0],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    states = np.empty((years, side * side), dtype=int)
    states[0] = rng.choice(5, side * side, p=[0.06, 0.5, 0.3, 0.09, 0.05])
    for t in range(1, years):
        above = rng.random(side * side)[:, None] > np.cumsum(matrix, axis=1)[states[t - 1]]
        states[t] = np.minimum(above.sum(axis=1), 4)
    signal = np.eye(5)[states] * sharpness + rng.normal(size=(years, side * side, 5))
    weight = np.exp(sharpness * signal)
    values = (weight / weight.sum(axis=2, keepdims=True)).astype(np.float32)
    values[rng.random(values.shape[:2]) < cloud] = np.nan
    coords = {"land_cover": ["coca", "forest", "pasture", "crops", "water"]}
    array = xr.DataArray(
        values.transpose(0, 2, 1).reshape(years, 5, side, side), dims=("time", "land_cover", "y", "x"), coords=coords
    )
    return array.assign_attrs(kind="probability"), states.reshape(years, side, side).astype(np.uint8) + 1


@pytest.mark.parametrize(("sharpness", "same"), [(2.2, 0.95), (1.7, 0.88)])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_default_keeps_true_changes_of_noisy_chains(sharpness, same, cloud):
    array, truth = chains(sharpness, cloud, seed=77)
    yearly, settled = label(array).values, label(stabilise(array)).values
    false, _, found = change_steps(yearly, truth, 1)
    false_left, _, found_now = change_steps(settled, truth, 1)
    assert false_left.sum() <= 0.4 * false.sum()
    assert found_now.sum() >= 0.93 * found.sum()
    assert (found & found_now).sum() >= (same - 0.02) * found.sum()


def slow_path(probability, matrix, kept, weight, unseen=3.0, agreement=0.5):
    """The worthiest path of one pixel by trying all of them; years that are all observed."""
    years, classes = probability.shape
    matrix = np.asarray(matrix)
    paths = np.array(list(itertools.product(range(classes), repeat=years)))
    chance = np.full(len(paths), 1.0 / classes) * probability[0, paths[:, 0]]
    for t in range(1, years):
        chance = chance * matrix[paths[:, t - 1], paths[:, t]] * probability[t, paths[:, t]]
    chance /= chance.sum()
    shown = probability.argmax(axis=1)
    worth = np.zeros(len(paths))
    for t in range(years):
        share = np.bincount(paths[:, t], chance, classes)
        worth += agreement * share[paths[:, t]]
        if t == 0:
            continue
        for k in np.flatnonzero(kept):
            old, new = paths[:, t - 1] == k, paths[:, t] == k
            for moved, seen in (
                (old & ~new, shown[t - 1] == k != shown[t]),
                (~old & new, shown[t] == k != shown[t - 1]),
            ):
                support = chance[moved].sum()
                worth[moved] += (weight if seen else unseen) * support - (1 - support)
    return paths[worth.argmax()]


@pytest.mark.parametrize("kept", [[True, False, False], [True, True, True]])
def test_worthiest_path_is_the_best_of_all_paths(kept):
    from geococa._kernels import supported_changes

    rng = np.random.default_rng(4)
    values = rng.dirichlet([0.6, 0.6, 0.6], size=(60, 5)).astype(np.float32).transpose(1, 2, 0).copy()
    matrix = persistence_matrix(["coca", "forest", "pasture"], 0.8).to_numpy()
    powers = np.stack([np.eye(3), matrix])
    shown = values.argmax(axis=1).astype(np.int16)
    share, moved = np.zeros((60, 5, 3)), np.zeros((60, 2, 5, 3))
    supported_changes.change_support(
        values, np.ones(3), np.full(3, 1 / 3), powers, np.arange(5), 1e-6, shown, share, moved
    )
    path = np.empty((5, 60), np.int16)
    supported_changes.worthiest_path(shown, share, moved, np.where(kept, 7.0, 0.0), 3.0, 0.5, path)
    for i in range(60):
        assert path[:, i].tolist() == slow_path(values[:, :, i].astype(float), matrix, kept, 7.0).tolist()


def test_a_gap_is_one_step_by_a_power_of_the_matrix():
    array, _ = chains(2.2, 0.0, seed=3, side=40)
    gappy = array.copy()
    gappy[3] = np.nan
    matrix = persistence_matrix(array["land_cover"].values, 0.9)
    options = {"transitions": matrix, "method": "changes"}
    whole = stabilise(gappy.assign_coords(time=np.arange(8)), **options)
    without = stabilise(gappy.assign_coords(time=np.arange(8)).isel(time=[0, 1, 2, 4, 5, 6, 7]), **options)
    np.testing.assert_allclose(whole.isel(time=[0, 1, 2, 4, 5, 6, 7]).values, without.values, atol=1e-6)
    assert np.isnan(whole[3].values).all()


def test_weighed_changes_are_probabilities_with_the_path_on_top():
    array, _ = chains(1.7, 0.4, seed=9, side=40)
    filled = stabilise(array, fill=True)
    np.testing.assert_allclose(filled.sum("land_cover").values[~np.isnan(filled[:, 0].values)], 1.0, atol=1e-5)
    assert np.array_equal(np.isnan(filled[:, 0]).all("time").values, np.isnan(array[:, 0]).all("time").values)
    with dask_threads():
        lazy = stabilise(array.chunk({"y": 17, "x": 13}), fill=True)
        assert lazy.values.tobytes() == filled.values.tobytes()
    assert stabilise(array, fill=True, threads=3).values.tobytes() == filled.values.tobytes()


def dask_threads():
    return pytest.importorskip("dask").config.set(scheduler="threads", num_workers=2)


def test_changes_of_an_unknown_class_are_refused():
    with pytest.raises(InputRefused, match="changes_of"):
        stabilise(probabilities(), changes_of="poppy")


@pytest.mark.parametrize(("power", "lowest", "highest"), [(1.0, 1.0, 1.0), (0.3, 1.5, 3.0)])
def test_power_that_the_years_bear_out(power, lowest, highest):
    array, _ = chains(2.2, 0.4, seed=21, side=70)
    blunt = array**power
    blunt = (blunt / blunt.sum("land_cover")).astype(np.float32).transpose(*array.dims)
    assert lowest <= fitting_evidence(blunt) <= highest


@pytest.mark.parametrize("setting", ["persistence", "plain"])
def test_probabilities_at_their_word_lose_true_changes(table, setting):
    assert table.loc[setting, "true_kept"] < 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("cloud", "seed"), [(0.4, 1), (0.7, 3)])
def test_limits_hold_on_classified_images_of_a_clouded_archive(cloud, seed):
    _, probability, shares = simulate(cloud, size_m=1500, dates=4, seed=seed)
    row = (
        compare(smooth(probability, window=5), shares, {"weighed": {"evidence": 4.0}})
        .set_index("setting")
        .loc["weighed"]
    )
    assert row.false_cut >= 0.60
    assert row.true_kept > 0.95


def test_a_change_under_cloud_counts_on_the_step_over_the_cloud():
    truth = np.array([2, 2, 1, 1, 1], np.uint8).reshape(5, 1, 1)
    codes = np.array([2, 255, 255, 1, 2], np.uint8).reshape(5, 1, 1)
    false, true, found = (part.ravel().tolist() for part in change_steps(codes, truth, 1))
    assert true == [False, False, False, True, False]
    assert found == true
    assert false == [False, False, False, False, True]


def test_evidence_of_one_takes_probabilities_at_their_word(probability):
    part = probability.isel(y=slice(0, 20), x=slice(0, 20))
    matrix = persistence_matrix(CLASSES, 0.9)
    xr.testing.assert_identical(stabilise(part, transitions=matrix), stabilise(part, transitions=matrix, evidence=1))
    xr.testing.assert_identical(stabilise(part, transitions=matrix), stabilise(part, persistence=0.9))


@pytest.mark.parametrize("method", ["posterior", "viterbi"])
@pytest.mark.parametrize("evidence", [2.5, 3.0])
def test_evidence_is_a_power_of_the_likelihood(method, evidence):
    array = probabilities(3, shape=(5, 6, 7), missing=0.2)
    prior = np.array([0.2, 0.5, 0.3])
    power = (array / xr.DataArray(prior, dims="land_cover")) ** evidence
    power = (power / power.max("land_cover")).astype(np.float32).assign_attrs(array.attrs).transpose(*array.dims)
    matrix = persistence_matrix(array["land_cover"].values, 0.8)
    options = {"transitions": matrix, "method": method}
    ours = stabilise(array, prior=prior, evidence=evidence, **options)
    np.testing.assert_allclose(ours.values, stabilise(power, **options).values, atol=2e-6)


def test_evidence_beyond_reason_is_refused():
    with pytest.raises(InputRefused, match="evidence"):
        stabilise(probabilities(), evidence=0.0)


def test_lazy_years_are_estimated_once_and_give_the_same_bytes(probability):
    dask = pytest.importorskip("dask")
    computed = []
    with dask.config.set(scheduler="synchronous"):
        lazy = probability.chunk({"time": 2, "y": 31, "x": 47})
        lazy.data = lazy.data.map_blocks(lambda block: (computed.append(1), block)[1], dtype=np.float32)
        computed.clear()
        out = stabilise(lazy)
        assert not computed
        assert out.values.tobytes() == stabilise(probability).values.tobytes()


@pytest.mark.parametrize("seen", [1, 3])
def test_too_few_pixels_to_estimate_from_fall_back_on_persistence(seen):
    array = probabilities(missing=0.0, shape=(3, 12, 15))
    array[seen:] = np.nan
    xr.testing.assert_identical(stabilise(array), stabilise(array, persistence=0.9))


def test_em_on_likelihoods_to_a_power_finds_more_change(probability):
    plain, powered = (estimate_transitions(probability, evidence=e) for e in (1.0, 4.0))
    assert powered.loc["coca", "coca"] < plain.loc["coca", "coca"]


# --- biographies ---------------------------------------------------------------------------------------------


def test_biographies_of_plots_without_label_noise(world, shares):
    score = biographies(world, true_map(world, shares))
    assert score["plots"] >= 10
    assert score["true_events"] >= 15
    assert score["f1"] >= 0.9


def test_biographies_survive_salt_that_the_sieve_takes_off(world, shares):
    land_cover = noisy(true_map(world, shares), 0.03, seed=1)
    assert biographies(world, sieve(land_cover, min_area_ha=0.25))["f1"] >= 0.9


def test_agreeing_years_tell_biographies_better_than_each_year_by_itself(world, shares, probability):
    (grid,) = world.grids.values()
    placed = grid.attach(probability)
    maps = [sieve(label(one), min_area_ha=0.25) for one in (placed, stabilise(placed, evidence=4, fill=True))]
    yearly, settled = (biographies(world, land_cover)["f1_within_a_year"] for land_cover in maps)
    assert settled > yearly


def test_a_wrong_event_and_a_missed_one_lower_the_score(world, shares):
    land_cover = true_map(world, shares)
    blinked = land_cover.copy()
    blinked[3] = land_cover[3].where(land_cover[3] != 1, 2)
    assert biographies(world, blinked)["f1"] < 0.9


def test_events_go_to_the_plots_they_lie_on(world):
    from geococa.coca_plots import follow_plots

    plots = world.plots
    none = plots.iloc[:0].assign(plot_id=pd.Series(dtype="int64"))
    assert found_events(follow_plots(none), plots.drop_duplicates("plot").set_index("plot").geometry, 2017) == set()


@pytest.mark.parametrize(
    "options",
    [
        {"persistence": 0.9},
        {"persistence": 0.9, "fill": True, "min_probability": 0.7},
        {"persistence": 0.9, "evidence": 2.3},
        {"persistence": 0.9, "method": "viterbi"},
        {},
    ],
)
def test_labels_asked_for_at_once_are_those_of_the_probabilities(options):
    array, _ = chains(1.7, 0.4, seed=5, side=40)
    least = options.get("min_probability", 0.0)
    chosen = {name: value for name, value in options.items() if name != "min_probability"}
    expected = label(stabilise(array, **chosen), min_probability=least)
    xr.testing.assert_identical(stabilise(array, output="labels", **options), expected)
    with dask_threads():
        lazy = stabilise(array.chunk({"y": 17, "x": 13}), output="labels", **options)
        assert lazy.chunks is not None
        xr.testing.assert_identical(lazy.compute(), expected)


def test_answer_takes_the_place_of_probabilities_only_where_allowed():
    array, _ = chains(1.7, 0.4, seed=6, side=40)
    array = array.copy(data=np.ascontiguousarray(array.values))
    given = array.copy(deep=True)
    expected = stabilise(array, persistence=0.9)
    assert array.values.tobytes() == given.values.tobytes()
    out = stabilise(array, persistence=0.9, overwrite=True)
    assert out.values.tobytes() == expected.values.tobytes()
    assert np.shares_memory(out.values, array.values)
    changes = stabilise(given, overwrite=True)
    assert not np.shares_memory(changes.values, given.values)


def test_outputs_beyond_reason_are_refused():
    with pytest.raises(InputRefused, match="output"):
        stabilise(probabilities(), output="map")
    with pytest.raises(InputRefused, match="min_probability"):
        stabilise(probabilities(), output="labels", min_probability=2.0)
