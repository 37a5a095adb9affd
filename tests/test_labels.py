from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.errors import CRSMismatch, GridMismatch, InputRefused, KindMismatch
from geococa.grid import Grid
from geococa.labels import (
    estimate_transitions,
    label,
    majority,
    persistence_matrix,
    sieve,
    sieve_strips,
    smooth,
    stabilise,
)
from geococa.legend import Legend, as_land_cover
from tests import oracles_labels as oracles

CLASSES = ["coca", "forest", "pasture"]
UTM = "EPSG:32618"


def probabilities(seed=0, shape=(3, 20, 24), missing=0.15, classes=CLASSES):
    rng = np.random.default_rng(seed)
    years, rows, columns = shape
    values = rng.dirichlet(np.full(len(classes), 0.8), size=shape).astype(np.float32)
    values[rng.random(shape) < missing] = np.nan
    times = pd.to_datetime([f"{2015 + i}-12-31" for i in range(years)])
    array = xr.DataArray(
        values.transpose(0, 3, 1, 2),
        dims=("time", "land_cover", "y", "x"),
        coords={"time": times, "land_cover": list(classes)},
        attrs={"kind": "probability"},
        name="probability",
    )
    return utm_grid(rows, columns).attach(array)


def utm_grid(rows, columns, cell=10.0):
    return Grid(UTM, (cell, 0, 500_000, 0, -cell, 300_000), (rows, columns))


def land_cover_of(codes, classes=None, cell=10.0):
    codes = np.asarray(codes, dtype=np.uint8)
    classes = classes or {int(c): f"class_{c}" for c in np.unique(codes) if c != 255} or {1: "coca"}
    array = xr.DataArray(codes, dims=("y", "x"), attrs={"nodata": 255})
    return as_land_cover(utm_grid(*codes.shape, cell).attach(array), classes)


def random_codes(rng, shape, classes=3, missing=0.08):
    codes = rng.integers(1, classes + 1, size=shape).astype(np.uint8)
    codes[rng.random(shape) < missing] = 255
    return codes


# --- label ---------------------------------------------------------------------------------------------------


def test_label_takes_the_most_probable_class():
    probability = probabilities()
    out = label(probability)
    seen = ~np.isnan(probability.values).any(axis=1)
    expected = np.nan_to_num(probability.values).argmax(axis=1) + 1
    np.testing.assert_array_equal(out.values, np.where(seen, expected, 255))
    assert out.dtype == np.uint8
    assert out.dims == ("time", "y", "x")


def test_label_gives_ties_to_the_first_class():
    values = np.array([[[0.2]], [[0.4]], [[0.4]]], dtype=np.float32)
    out = label(xr.DataArray(values, dims=("land_cover", "y", "x"), coords={"land_cover": CLASSES}))
    assert out.values.tolist() == [[2]]


def test_label_leaves_improbable_pixels_unclassified_and_unobserved_ones_255():
    values = np.array([[[0.7, 0.5, np.nan]], [[0.3, 0.5, 0.5]]], dtype=np.float32)
    probability = xr.DataArray(values, dims=("land_cover", "y", "x"), coords={"land_cover": ["coca", "forest"]})
    assert label(probability, min_probability=0.7).values.tolist() == [[1, 0, 255]]


def test_label_takes_codes_from_the_flags_of_the_array():
    legend = Legend(("forest", "coca", "pasture"), (3, 9, 40))
    probability = probabilities().assign_attrs(legend.to_attrs())
    out = label(probability)
    assert set(np.unique(out)) == {3, 9, 40, 255}
    np.testing.assert_array_equal(out.values == 9, label(probabilities()).values == 1)
    assert Legend.from_attrs(out.attrs).code("coca") == 9


def test_label_keeps_grid_time_and_says_what_it_is():
    probability = probabilities()
    out = label(probability)
    assert Grid.from_xarray(out).same_as(Grid.from_xarray(probability))
    assert out.attrs["kind"] == "land_cover"
    assert out.attrs["_FillValue"] == 255
    assert "land_cover" not in out.coords
    xr.testing.assert_equal(out["time"], probability["time"])


def test_label_refuses_a_land_cover_map():
    with pytest.raises(KindMismatch, match="expected probability, got land_cover"):
        label(label(probabilities()))


def test_label_refuses_a_class_with_code_0_where_pixels_may_stay_unclassified():
    legend = Legend(("coca", "forest", "pasture"), (0, 1, 2))
    probability = probabilities().assign_attrs(legend.to_attrs())
    assert label(probability).values.min() == 0
    with pytest.raises(InputRefused, match="code 0"):
        label(probability, min_probability=0.5)


def test_label_refuses_probabilities_without_class_names():
    with pytest.raises(KindMismatch, match="class names"):
        label(probabilities().drop_vars("land_cover"))


def test_label_takes_arrays_without_time_and_with_other_dim_order():
    probability = probabilities()
    one = label(probability.isel(time=1, drop=True).transpose("y", "x", "land_cover"))
    np.testing.assert_array_equal(one.values, label(probability).values[1])


# --- smooth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["bayes", "mean"])
def test_smooth_keeps_unobserved_pixels_and_sums_to_one(method):
    probability = probabilities()
    out = smooth(probability, window=5, method=method)
    assert np.array_equal(np.isnan(out.values), np.isnan(probability.values))
    totals = out.sum("land_cover").where(~np.isnan(out.isel(land_cover=0)))
    assert float(abs(totals - 1).max()) < 1e-6


def test_smooth_of_a_constant_map_changes_nothing():
    probability = probabilities(missing=0)
    probability[:] = np.array([0.2, 0.5, 0.3], dtype=np.float32)[None, :, None, None]
    np.testing.assert_allclose(smooth(probability, method="mean").values, probability.values, atol=1e-7)
    # each logit stays, so the classes stay, up to the clipping of the logit
    np.testing.assert_allclose(smooth(probability).values, probability.values, atol=1e-6)


def test_smooth_removes_a_speck_but_not_an_edge():
    values = np.full((2, 20, 20), 0.05, dtype=np.float32)
    values[1] = 0.95
    values[:, :, 10:] = values[::-1, :, 10:]
    values[:, 5, 5] = 0.6, 0.4
    probability = xr.DataArray(values, dims=("land_cover", "y", "x"), coords={"land_cover": ["coca", "forest"]})
    out = label(smooth(probability, window=5)).values
    assert (out[:, :10] == 2).all()
    assert (out[:, 10:] == 1).all()


def test_smoothness_zero_keeps_a_class_as_it_is():
    probability = probabilities(missing=0, shape=(1, 8, 8))
    out = smooth(probability, smoothness=0.0)
    np.testing.assert_allclose(out.values, np.clip(probability.values, 1e-4, 1 - 1e-4), atol=2e-4)


@pytest.mark.parametrize("window", [0, 2, -3, 2.5])
def test_smooth_refuses_even_or_negative_windows(window):
    with pytest.raises(InputRefused, match="odd"):
        smooth(probabilities(), window=window)


def test_smooth_refuses_smoothness_of_an_unknown_class():
    with pytest.raises(InputRefused, match="coco"):
        smooth(probabilities(), smoothness={"coco": 3.0})


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    window=st.sampled_from([1, 3, 5, 9]),
    size=st.integers(3, 19),
    method=st.sampled_from(["bayes", "mean"]),
)
def test_smooth_and_label_give_the_same_bytes_in_blocks_with_a_halo(seed, window, size, method):
    probability = probabilities(seed, shape=(1, 21, 26)).isel(time=0, drop=True)
    whole = smooth(probability, window=window, method=method)
    out = np.full(whole.shape, np.nan, dtype=np.float32)
    for block in utm_grid(21, 26).blocks(size, window // 2):
        r0, r1, c0, c1 = block.outer
        part = smooth(probability.isel(y=slice(r0, r1), x=slice(c0, c1)), window=window, method=method)
        out[(slice(None), *block.target)] = part.values[(slice(None), *block.crop)]
    assert out.tobytes() == whole.values.tobytes()
    assert label(whole.copy(data=out)).values.tobytes() == label(whole).values.tobytes()


def test_strips_of_a_tall_map_change_no_byte():
    probability = probabilities(3, shape=(1, 600, 9))
    whole = smooth(probability, window=7)
    lower = smooth(probability.isel(y=slice(250, 600)), window=7)
    assert whole.values[..., 253:, :].tobytes() == lower.values[..., 3:, :].tobytes()


def test_majority_keeps_255_and_equals_the_votes():
    rng = np.random.default_rng(5)
    codes = random_codes(rng, (12, 15))
    out = majority(land_cover_of(codes), window=3)
    np.testing.assert_array_equal(out.values, oracles.majority(codes, 1, 255))


# --- stabilise -----------------------------------------------------------------------------------------------


def test_stabilise_equals_forward_backward_in_log_space():
    probability = probabilities(4, shape=(7, 5, 6), missing=0.25)
    matrix = persistence_matrix(CLASSES, {"coca": 0.8, "forest": 0.97})
    out = stabilise(probability, transitions=matrix, fill=True)
    steps = np.repeat(matrix.to_numpy()[None], 6, axis=0)
    for y in range(5):
        for x in range(6):
            likelihood = probability.values[:, :, y, x].astype(float)
            likelihood[np.isnan(likelihood).any(axis=1)] = 1.0
            expected = oracles.forward_backward(likelihood, np.full(3, 1 / 3), steps)
            np.testing.assert_allclose(out.values[:, :, y, x], expected, atol=1e-6)


@pytest.mark.parametrize("method", ["posterior", "viterbi"])
def test_threads_change_no_byte(method, monkeypatch):
    monkeypatch.setattr("geococa.year_runs.PIECE", 100)
    probability = probabilities(3, shape=(4, 23, 24))
    one = stabilise(probability, method=method).values
    assert stabilise(probability, method=method, threads=3).values.tobytes() == one.tobytes()


def test_stabilise_passes_a_single_year_through_unchanged():
    probability = probabilities(shape=(1, 6, 7))
    xr.testing.assert_identical(stabilise(probability), probability)
    alone = probability.isel(time=0, drop=True)
    xr.testing.assert_identical(stabilise(alone), alone)


def test_stabilise_keeps_unobserved_years_apart():
    probability = probabilities(missing=0.4)
    assert np.array_equal(np.isnan(stabilise(probability).values), np.isnan(probability.values))


def test_stabilise_honours_gaps_between_years():
    probability = probabilities(shape=(5, 6, 7), missing=0.0)
    gappy = probability.copy()
    gappy[2] = np.nan
    without = probability.isel(time=[0, 1, 3, 4])
    np.testing.assert_allclose(stabilise(without).values, stabilise(gappy).isel(time=[0, 1, 3, 4]).values, atol=1e-6)


def test_stabilise_matches_a_frame_by_class_name():
    probability = probabilities()
    matrix = persistence_matrix(CLASSES, {"coca": 0.6, "forest": 0.95, "pasture": 0.8})
    shuffled = matrix.loc[["pasture", "coca", "forest"], ["forest", "pasture", "coca"]]
    xr.testing.assert_identical(
        stabilise(probability, transitions=shuffled), stabilise(probability, transitions=matrix.to_numpy())
    )


def test_a_forbidden_transition_is_never_taken_by_viterbi():
    probability = probabilities(8, shape=(6, 12, 12), missing=0.1)
    matrix = np.array([[0.9, 0.0, 0.1], [0.1, 0.8, 0.1], [0.1, 0.0, 0.9]])
    labels = label(stabilise(probability, transitions=matrix, method="viterbi", fill=True)).values
    came_back = (labels[:-1] != 2) & (labels[1:] == 2) & (labels[:-1] != 255)
    assert (labels == 2).any()
    assert not came_back.any()


def test_prior_turns_probabilities_into_likelihoods():
    probability = probabilities(2, shape=(2, 4, 4), missing=0.0)
    prior = np.array([0.1, 0.6, 0.3])
    divided = probability.values / prior[None, :, None, None]
    expected = probability.copy(data=(divided / divided.sum(axis=1, keepdims=True)).astype(np.float32))
    np.testing.assert_allclose(stabilise(probability, prior=prior).values, stabilise(expected).values, atol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2), "3 classes"),
        (np.full((3, 3), 0.5), "rows sum to 1"),
        (np.array([[1.2, -0.2, 0], [0, 1, 0], [0, 0, 1]]), "rows sum to 1"),
        (persistence_matrix(["coca", "forest", "water"]), "lacks"),
        ("guess", "estimate"),
    ],
)
def test_stabilise_refuses_matrices_that_do_not_fit(matrix, message):
    with pytest.raises(InputRefused, match=message):
        stabilise(probabilities(), transitions=matrix)


def test_stabilise_refuses_two_times_in_one_year():
    probability = probabilities().assign_coords(time=pd.to_datetime(["2015-01-01", "2015-12-31", "2016-12-31"]))
    with pytest.raises(InputRefused, match="one time a year"):
        stabilise(probability)


def simulated_years(matrix, rng, years=8, side=120, sharpness=2.0, missing=0.3):
    """Probabilities p(class | x) of a Gaussian observation of a simulated chain, and the true states."""
    classes = len(matrix)
    states = np.empty((years, side * side), dtype=int)
    states[0] = rng.integers(0, classes, side * side)
    cumulative = np.cumsum(matrix, axis=1)
    for t in range(1, years):
        states[t] = (rng.random(side * side)[:, None] > cumulative[states[t - 1]]).sum(axis=1)
    observed = np.eye(classes)[states] * sharpness + rng.normal(size=(years, side * side, classes))
    weight = np.exp(sharpness * observed)
    probability = weight / weight.sum(axis=2, keepdims=True)
    probability[rng.random((years, side * side)) < missing] = np.nan
    array = xr.DataArray(
        probability.transpose(0, 2, 1).reshape(years, classes, side, side).astype(np.float32),
        dims=("time", "land_cover", "y", "x"),
        coords={"land_cover": CLASSES},
    )
    return array, states.reshape(years, side, side)


def test_em_recovers_a_known_matrix_within_its_standard_errors():
    truth = np.array([[0.8, 0.05, 0.15], [0.03, 0.95, 0.02], [0.1, 0.02, 0.88]])
    probability, states = simulated_years(truth, np.random.default_rng(11))
    estimate = estimate_transitions(probability)
    assert estimate.attrs["converged"]
    starts = np.bincount(states[:-1].ravel(), minlength=3)
    # a noisy, gappy observation tells less than the states would; half of the transitions are seen at both ends
    standard_error = np.sqrt(truth * (1 - truth) / (0.49 * starts[:, None]))
    assert (np.abs(estimate.to_numpy() - truth) < 4 * standard_error).all()
    np.testing.assert_allclose(estimate.sum(axis=1), 1.0)


def test_each_round_of_em_raises_the_likelihood():
    probability, _ = simulated_years(np.full((3, 3), 0.1) + 0.7 * np.eye(3), np.random.default_rng(1), side=30)
    logs = [
        estimate_transitions(probability, max_iterations=n, pseudo_count=1e-12).attrs["log_likelihood"]
        for n in (1, 2, 4, 8)
    ]
    assert logs == sorted(logs)
    assert logs[0] < logs[-1]


def test_em_samples_large_arrays_the_same_way_every_time():
    probability, _ = simulated_years(np.full((3, 3), 0.1) + 0.7 * np.eye(3), np.random.default_rng(1), side=60)
    a = estimate_transitions(probability, max_pixels=500)
    assert a.attrs["pixels"] <= 500
    pd.testing.assert_frame_equal(a, estimate_transitions(probability, max_pixels=500))


def test_em_refuses_pixels_that_were_seen_once():
    probability = probabilities(missing=0.0)
    probability[1:] = np.nan
    with pytest.raises(InputRefused, match="two or more years"):
        estimate_transitions(probability)


def test_stabilised_years_flicker_less():
    truth = np.array([[0.88, 0.02, 0.10], [0.01, 0.98, 0.01], [0.03, 0.01, 0.96]])
    probability, states = simulated_years(truth, np.random.default_rng(3), sharpness=1.8, missing=0.5)
    before, after = label(probability).values, label(stabilise(probability, transitions=truth)).values
    seen = (before != 255)[:-1] & (before != 255)[1:]

    def false_and_found(codes):
        change = ((codes[:-1] == 1) != (codes[1:] == 1)) & seen
        real = ((states[:-1] == 0) != (states[1:] == 0)) & seen
        return (change & ~real).sum(), (change & real).sum() / real.sum()

    false_before, _ = false_and_found(before)
    false_after, _ = false_and_found(after)
    assert false_after <= 0.4 * false_before


# --- sieve ---------------------------------------------------------------------------------------------------


def test_sieve_reproduces_gdals_own_case(shared_data):
    case = json.loads((shared_data / "cases" / "sieve.json").read_text())
    codes = np.array(case["input"], dtype=np.uint8)
    codes[codes == case["nodata"]] = 255
    out = sieve(land_cover_of(codes), min_pixels=case["threshold"], connectivity=case["connectivity"], rule="gdal")
    expected = np.array(case["expected"], dtype=np.uint8)
    expected[expected == case["nodata"]] = 255
    np.testing.assert_array_equal(out.values, expected)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("missing", [0.0, 0.15])
def test_sieve_by_gdals_rule_equals_rasterio_on_random_maps(connectivity, missing):
    from rasterio.features import sieve as rasterio_sieve

    for seed in range(60):
        rng = np.random.default_rng(seed)
        # rasterio refuses a size that the whole image does not reach
        shape = rng.integers(4, 40, size=2)
        codes = random_codes(rng, shape, classes=int(rng.integers(1, 6)), missing=missing)
        if seed % 3 == 0:
            codes = np.repeat(np.repeat(codes, 2, axis=0), 2, axis=1)
        size = int(rng.integers(2, 12))
        expected = rasterio_sieve(codes, size=size, connectivity=connectivity, mask=codes != 255)
        out = sieve(land_cover_of(codes), min_pixels=size, connectivity=connectivity, rule="gdal")
        np.testing.assert_array_equal(out.values, expected, err_msg=f"seed {seed}")


@pytest.mark.parametrize("connectivity", [4, 8])
def test_sieve_by_largest_neighbour_equals_the_plain_rounds(connectivity):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        codes = random_codes(
            rng, rng.integers(1, 22, size=2), classes=int(rng.integers(1, 5)), missing=0.2 * (seed % 2)
        )
        size = int(rng.integers(2, 9))
        out = sieve(land_cover_of(codes), min_pixels=size, connectivity=connectivity)
        np.testing.assert_array_equal(
            out.values, oracles.sieve(codes, np.ones(codes.shape), size, connectivity), err_msg=f"seed {seed}"
        )


@pytest.mark.parametrize("connectivity", [4, 8])
def test_dropping_leaves_small_patches_without_a_class(connectivity):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        codes = random_codes(rng, rng.integers(1, 25, size=2), classes=3, missing=0.2 * (seed % 2))
        number, _ = oracles.components(codes, connectivity)
        size = np.bincount(number[number >= 0], minlength=1)
        expected = np.where((number >= 0) & (size[number] < 4), 0, codes)
        out = sieve(land_cover_of(codes), min_pixels=4, connectivity=connectivity, rule="drop")
        np.testing.assert_array_equal(out.values, expected, err_msg=f"seed {seed}")


def test_dropping_names_the_code_of_the_dropped():
    out = sieve(land_cover_of(np.ones((4, 4)), CLASSES), min_pixels=2, rule="drop")
    assert Legend.from_attrs(out.attrs).code("unclassified") == 0
    assert out.attrs["minimum_mapping_unit"] == "2 cells, 8-connected, drop"


def test_dropping_refuses_a_class_of_code_0():
    land_cover = land_cover_of(np.ones((4, 4)), {0: "coca", 1: "forest"})
    with pytest.raises(InputRefused, match="'coca' has code 0"):
        sieve(land_cover, min_pixels=2, rule="drop")
    assert (sieve(land_cover, min_pixels=2) == 1).all()


@pytest.mark.parametrize("rule", ["gdal", "largest_neighbour", "drop"])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_strips_and_threads_change_no_byte_of_a_sieve(rule, connectivity, monkeypatch):
    from geococa import segments

    rng = np.random.default_rng(12)
    codes = random_codes(rng, (90, 40), missing=0.05)
    # patches of every size across many seams, and ties between them
    codes[:, 10:14] = 1
    codes[20:70, 20:23] = 2
    codes[40:42] = 3
    options = {"min_pixels": 9, "connectivity": connectivity, "rule": rule}
    whole = sieve(land_cover_of(codes), **options).values
    assert (whole != codes).any()
    for rows in (1, 2, 7, 40):
        monkeypatch.setattr(segments, "STRIP_ROWS", rows)
        for threads in (1, 3):
            out = sieve(land_cover_of(codes), threads=threads, **options).values
            assert out.tobytes() == whole.tobytes()


def test_no_small_patch_with_a_large_one_in_reach_is_left():
    rng = np.random.default_rng(2)
    codes = random_codes(rng, (60, 60), missing=0.0)
    codes[:20] = 2
    out = sieve(land_cover_of(codes), min_pixels=8).values
    number, _ = oracles.components(out, 8)
    assert np.bincount(number.ravel()).min() >= 8


def test_255_neither_changes_nor_fills():
    codes = np.full((9, 9), 255, dtype=np.uint8)
    codes[4, 4] = 1
    codes[0, :3] = 2
    land_cover = land_cover_of(codes)
    for rule in ("gdal", "largest_neighbour"):
        np.testing.assert_array_equal(sieve(land_cover, min_pixels=5, rule=rule).values, codes)


@pytest.mark.parametrize("crs_cell", [(UTM, 10.0, 900_000.0), ("EPSG:4326", 1e-4, -72.0)])
def test_minimum_unit_counts_ellipsoidal_hectares(crs_cell):
    crs, cell, left = crs_cell
    grid = Grid(crs, (cell, 0, left, 0, -cell, 8.0 if crs == "EPSG:4326" else 900_000.0), (40, 40))
    codes = np.full((40, 40), 2, dtype=np.uint8)
    for i, cells in enumerate(range(20, 30)):
        codes.reshape(-1)[80 * (2 * i + 1) + 3 : 80 * (2 * i + 1) + 3 + cells] = 1
    area = np.broadcast_to(np.asarray(grid.cell_area_ha()), (40, 40))
    out = sieve(
        as_land_cover(grid.attach(xr.DataArray(codes, dims=("y", "x"))), ["coca", "forest"]), min_area_ha=0.25
    ).values
    number, _ = oracles.components(codes, 8)
    for i in np.unique(number[codes == 1]):
        kept = area[number == i].sum() >= 0.25
        assert (out[number == i] == (1 if kept else 2)).all()
    assert 0 < (out == 1).sum() < (codes == 1).sum()


def test_sieve_by_area_equals_the_plain_rounds():
    rng = np.random.default_rng(9)
    codes = random_codes(rng, (30, 30))
    grid = Grid("EPSG:4326", (0.5, 0, -75, 0, -0.5, 60), (30, 30))
    area = np.broadcast_to(np.asarray(grid.cell_area_ha()), (30, 30))
    land_cover = as_land_cover(grid.attach(xr.DataArray(codes, dims=("y", "x"), attrs={"nodata": 255})), CLASSES)
    least = 6 * float(np.median(area))
    out = sieve(land_cover, min_area_ha=least)
    np.testing.assert_array_equal(out.values, oracles.sieve(codes, area, least, 8))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    strip_rows=st.integers(1, 40),
    threads=st.integers(1, 3),
    rule=st.sampled_from(["gdal", "largest_neighbour", "drop"]),
    connectivity=st.sampled_from([4, 8]),
)
def test_streaming_sieve_equals_the_whole_map(seed, strip_rows, threads, rule, connectivity):
    rng = np.random.default_rng(seed)
    codes = random_codes(rng, (37, 29))
    codes[:, 14:16] = 1
    grid = utm_grid(37, 29)
    out = np.zeros_like(codes)

    def write(start, rows):
        out[start : start + len(rows)] = rows

    options = {"min_area_ha": 0.06, "connectivity": connectivity, "rule": rule}
    sieve_strips(lambda a, b: codes[a:b], write, grid, strip_rows=strip_rows, threads=threads, **options)
    np.testing.assert_array_equal(out, sieve(land_cover_of(codes), **options).values)


def test_each_year_is_sieved_by_itself():
    rng = np.random.default_rng(4)
    codes = np.stack([random_codes(rng, (15, 16)) for _ in range(3)])
    array = xr.DataArray(codes, dims=("time", "y", "x"), attrs={"nodata": 255})
    land_cover = as_land_cover(utm_grid(15, 16).attach(array), CLASSES)
    out = sieve(land_cover, min_pixels=6)
    for i in range(3):
        np.testing.assert_array_equal(out.values[i], sieve(land_cover.isel(time=i), min_pixels=6).values)


def test_sieve_refuses_what_it_cannot_measure():
    land_cover = land_cover_of(np.ones((4, 4)))
    with pytest.raises(CRSMismatch):
        sieve(land_cover.drop_vars("spatial_ref"))
    with pytest.raises(InputRefused, match="connectivity"):
        sieve(land_cover, connectivity=6)
    with pytest.raises(InputRefused, match="rule"):
        sieve(land_cover, rule="largest")
    with pytest.raises(InputRefused, match="min_area_ha"):
        sieve(land_cover, min_area_ha=-1)
    with pytest.raises(InputRefused, match="uint8"):
        sieve(land_cover.astype("int16"))
    with pytest.raises(GridMismatch):
        sieve(land_cover.expand_dims("band"))


# --- every stage ---------------------------------------------------------------------------------------------


def test_no_stage_changes_its_input():
    probability = probabilities()
    before = probability.copy(deep=True)
    land_cover = label(stabilise(smooth(probability)))
    kept = land_cover.copy(deep=True)
    sieve(land_cover, min_pixels=9)
    majority(land_cover)
    xr.testing.assert_identical(probability, before)
    xr.testing.assert_identical(land_cover, kept)


def test_dask_gives_dask_and_the_same_bytes():
    dask = pytest.importorskip("dask")
    probability = probabilities(shape=(4, 33, 41))
    lazy = probability.chunk({"time": 2, "land_cover": 1, "y": 10, "x": 13})

    def stages(array):
        land_cover = label(stabilise(smooth(array, window=7)), min_probability=0.4)
        return majority(sieve(land_cover, min_pixels=6))

    def refuse(*_, **__):
        raise AssertionError("computed while the graph was built")

    with dask.config.set(scheduler=refuse):
        out = stages(lazy)
    assert out.chunks is not None
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(out.compute(), stages(probability))


def crossing_map(y, x):
    """Codes of cells by their place alone: winding bands that reach every edge, plots and single cells."""
    band = (y // 37 + x // 53) % 7 == 0
    plot = ((y // 5) * 31 + (x // 4) * 17) % 23 == 0
    speck = ((y * 73_856_093) ^ (x * 19_349_663)) % 1009 < 12
    return np.where(speck, np.uint8(3), np.where(plot, np.uint8(2), np.where(band, np.uint8(1), np.uint8(4))))


@pytest.mark.parametrize("rule", ["gdal", "largest_neighbour", "drop"])
def test_patches_across_every_tile_and_strip_border_are_measured_whole(rule):
    rows, columns = 330, 270
    codes = crossing_map(*np.ogrid[:rows, :columns])
    # four tiles that meet within patches, put together as rows are asked for
    tiles = [[codes[:151, :133], codes[:151, 133:]], [codes[151:, :133], codes[151:, 133:]]]

    def read(start, stop):
        upper = [tile[start : min(stop, 151)] for tile in tiles[0]]
        lower = [tile[max(start - 151, 0) : max(stop - 151, 0)] for tile in tiles[1]]
        return np.concatenate([np.hstack(upper), np.hstack(lower)])

    out = np.zeros_like(codes)

    def write(start, part):
        out[start : start + len(part)] = part

    sieve_strips(read, write, utm_grid(rows, columns), min_area_ha=0.25, rule=rule, strip_rows=64, threads=2)
    whole = sieve(land_cover_of(codes), min_area_ha=0.25, rule=rule).values
    np.testing.assert_array_equal(out, whole)
    assert (whole != codes).mean() > 0.02


_STREAM = """
import resource, sys, zlib
from pathlib import Path
import numpy as np
from geococa.grid import Grid
from geococa.labels import sieve_strips
from tests.test_labels import crossing_map
side, rows, rule = 20_000, int(sys.argv[1]), sys.argv[2]
grid = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 300_000), (side, side))
check = [0]
def read(start, stop):
    return np.concatenate([crossing_map(*np.ogrid[y : min(y + 32, stop), :side]) for y in range(start, stop, 32)])
def write(start, part):
    check[0] = zlib.crc32(part.tobytes(), check[0])
sieve_strips(read, write, grid, min_area_ha=0.25, rule=rule, strip_rows=rows, threads=2)
# a program begins with the peak of the one that started it, which only this file leaves out
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
peak = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
print(check[0], (peak or [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss])[0] // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["gdal", "largest_neighbour"])
def test_streaming_sieve_of_20000_by_20000_cells_equals_the_whole_and_stays_below_a_gigabyte(rule):
    import subprocess
    import sys
    import zlib

    command = [sys.executable, "-c", _STREAM, "512", rule]
    root = Path(__file__).parents[1]
    check, peak = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout.split()
    side = 20_000
    codes = np.concatenate([crossing_map(*np.ogrid[y : y + 32, :side]) for y in range(0, side, 32)])
    array = utm_grid(side, side).attach(xr.DataArray(codes, dims=("y", "x"), attrs={"nodata": 255}))
    classes = ["coca", "forest", "pasture", "water"]
    whole = sieve(as_land_cover(array, classes), min_area_ha=0.25, rule=rule, threads=2).values
    assert int(check) == zlib.crc32(whole.tobytes())
    assert (whole != codes).any()
    assert int(peak) < 1000
