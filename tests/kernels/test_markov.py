from __future__ import annotations

import numpy as np
import pytest

from geococa._kernels import markov, year_lanes
from tests import oracles_labels as oracles


def chain(years, classes, pixels, seed, gaps=0.2):
    rng = np.random.default_rng(seed)
    probability = rng.dirichlet(np.full(classes, 0.7), size=(years, pixels)).transpose(0, 2, 1).astype(np.float32)
    probability.transpose(0, 2, 1)[rng.random((years, pixels)) < gaps] = np.nan
    steps = rng.dirichlet(np.full(classes, 1.0), size=(max(years - 1, 0), classes))
    initial = rng.dirichlet(np.full(classes, 2.0))
    inverse_prior = 1.0 / (rng.dirichlet(np.full(classes, 5.0)) * classes)
    return np.ascontiguousarray(probability), inverse_prior, initial, steps


def likelihood_of(probability, inverse_prior, least, pixel):
    values = np.maximum(probability[:, :, pixel].astype(float), least) * inverse_prior
    values[np.isnan(probability[:, :, pixel]).any(axis=1)] = 1.0
    return values


def lane_settings(inverse_prior, initial, steps, dtype=np.float64, power=1.0, every=1):
    parts = (inverse_prior / inverse_prior.max(), initial, steps.reshape(len(steps), len(initial) ** 2))
    return (*(part.astype(dtype) for part in parts), dtype(1e-6), power, every)


def smoothed(probability, inverse_prior, initial, steps, fill=False, dtype=np.float64, power=1.0, every=1):
    out = np.empty_like(probability)
    settings = lane_settings(inverse_prior, initial, steps, dtype, power, every)
    classes = (0,) * probability.shape[1]
    year_lanes.smooth_years(probability, *settings, fill, 0, probability.shape[2], classes, out)
    return out


@pytest.mark.parametrize(
    ("years", "classes", "every", "dtype"),
    [
        (1, 3, 1, np.float64),
        (2, 3, 2, np.float32),
        (12, 5, 2, np.float32),
        (12, 3, 2, np.float64),
        pytest.param(24, 9, 1, np.float32, marks=pytest.mark.slow),
    ],
)
def test_posterior_equals_forward_backward_in_log_space(years, classes, every, dtype):
    probability, inverse_prior, initial, steps = chain(years, classes, 150, seed=years)
    out = smoothed(probability, inverse_prior, initial, steps, True, dtype, every=every)
    for pixel in range(probability.shape[2]):
        if np.isnan(probability[:, :, pixel]).any(axis=1).all():
            assert np.isnan(out[:, :, pixel]).all()
            continue
        expected = oracles.forward_backward(likelihood_of(probability, inverse_prior, 1e-6, pixel), initial, steps)
        np.testing.assert_allclose(out[:, :, pixel], expected, atol=1e-6)


def test_unobserved_years_stay_missing_unless_filled():
    probability, inverse_prior, initial, steps = chain(5, 3, 100, seed=9, gaps=0.5)
    kept = smoothed(probability, inverse_prior, initial, steps)
    filled = smoothed(probability, inverse_prior, initial, steps, fill=True)
    missing = np.isnan(probability)
    assert np.array_equal(np.isnan(kept), missing)
    assert np.array_equal(np.isnan(filled), np.broadcast_to(missing.all(axis=0), missing.shape))
    np.testing.assert_array_equal(kept[~missing], filled[~missing])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_two_hundred_years_of_certain_evidence_do_not_underflow(dtype):
    probability = np.zeros((200, 3, 70), dtype=np.float32)
    probability[:100, 0] = probability[100:, 2] = 1.0
    steps = np.repeat(np.full((3, 3), 0.0005)[None] + np.eye(3) * (1 - 0.0015), 199, axis=0)
    out = smoothed(probability, np.ones(3), np.full(3, 1 / 3), steps, dtype=dtype)
    path = np.empty((200, 70), dtype=np.int16)
    markov.most_likely_path(probability, np.ones(3), np.full(3, 1 / 3), steps, 1e-6, path)
    assert np.isfinite(out).all()
    assert (path[:100] == 0).all()
    assert (path[100:] == 2).all()


@pytest.mark.parametrize(("years", "classes"), [(1, 3), (2, 2), (5, 3), (7, 2)])
def test_viterbi_equals_the_best_of_all_paths(years, classes):
    probability, inverse_prior, initial, steps = chain(years, classes, 130, seed=40 + years)
    path = np.empty((years, 130), dtype=np.int16)
    markov.most_likely_path(probability, inverse_prior, initial, steps, 1e-6, path)
    for pixel in range(130):
        if np.isnan(probability[:, :, pixel]).any(axis=1).all():
            assert (path[:, pixel] == -1).all()
            continue
        assert path[:, pixel].tolist() == oracles.best_path(
            likelihood_of(probability, inverse_prior, 1e-6, pixel), initial, steps
        )


def test_expected_transitions_equal_the_sum_over_all_paths():
    probability, inverse_prior, initial, steps = chain(4, 3, 90, seed=3, gaps=0.3)
    pairs, starts = np.zeros((3, 3)), np.zeros(3)
    logarithm = markov.count_transitions(probability, inverse_prior, initial, steps, 1e-6, pairs, starts)
    expected_pairs, expected_starts, expected_log = np.zeros((3, 3)), np.zeros(3), 0.0
    for pixel in range(90):
        if (~np.isnan(probability[:, :, pixel]).any(axis=1)).sum() < 2:
            continue
        part = oracles.pair_counts(likelihood_of(probability, inverse_prior, 1e-6, pixel), initial, steps)
        expected_pairs += part[0]
        expected_starts += part[1]
        expected_log += part[2]
    np.testing.assert_allclose(pairs, expected_pairs, rtol=1e-9)
    np.testing.assert_allclose(starts, expected_starts, rtol=1e-9)
    assert logarithm == pytest.approx(expected_log, rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pixel_does_not_depend_on_its_place_in_a_bundle(dtype):
    probability, inverse_prior, initial, steps = chain(6, 3, 200, seed=5)
    whole = smoothed(probability, inverse_prior, initial, steps, dtype=dtype)
    part = smoothed(np.ascontiguousarray(probability[:, :, 37:]), inverse_prior, initial, steps, dtype=dtype)
    assert whole[:, :, 37:].tobytes() == part.tobytes()


def test_only_the_pixels_asked_for_are_written():
    probability, inverse_prior, initial, steps = chain(3, 3, 300, seed=6)
    out = np.full_like(probability, 7)
    settings = lane_settings(inverse_prior, initial, steps)
    year_lanes.smooth_years(probability, *settings, False, 100, 270, (0, 0, 0), out)
    whole = smoothed(probability, inverse_prior, initial, steps)
    assert (out[:, :, :100] == 7).all()
    assert (out[:, :, 270:] == 7).all()
    assert out[:, :, 100:270].tobytes() == whole[:, :, 100:270].tobytes()


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0, 3.0, 4.0, 7.0, 2.5])
def test_power_of_the_likelihoods_relative_to_the_largest_of_the_year(power):
    probability, inverse_prior, initial, steps = chain(5, 3, 120, seed=8)
    out = smoothed(probability, inverse_prior, initial, steps, True, power=power)
    for pixel in range(120):
        seen = ~np.isnan(probability[:, :, pixel]).any(axis=1)
        if not seen.any():
            continue
        likelihood = probability[:, :, pixel].astype(float) * inverse_prior
        likelihood = (likelihood / likelihood.max(axis=1, keepdims=True)) ** power
        # at a power of 1, what is small counts as the least before it is weighed
        likelihood = likelihood_of(probability, inverse_prior, 1e-6, pixel) if power == 1 else likelihood.clip(1e-6)
        likelihood[~seen] = 1.0
        expected = oracles.forward_backward(likelihood, initial, steps)
        np.testing.assert_allclose(out[:, :, pixel], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("years", "classes", "fill", "dtype"),
    [(1, 3, False, np.float64), (10, 5, False, np.float32), (4, 5, True, np.float32)],
)
def test_labels_are_those_of_the_posterior(years, classes, fill, dtype):
    from geococa._kernels import decision

    pixels, codes = 1500, np.arange(3, 3 + classes, dtype=np.uint8)
    probability, inverse_prior, initial, steps = chain(years, classes, pixels, seed=classes, gaps=0.4)
    probability[:, :, ::50] = np.float32(1 / classes)
    settings = lane_settings(inverse_prior, initial, steps, dtype)
    out = np.empty((years, pixels), np.uint8)
    limit = np.float32(0.6)
    year_lanes.label_years(probability, *settings, fill, 0, pixels, (0,) * classes, codes, limit, 0, 255, out)
    posterior = smoothed(probability, inverse_prior, initial, steps, fill, dtype)
    expected = np.empty_like(out)
    for year, target in zip(posterior, expected, strict=True):
        decision.most_probable(year, codes, limit, 0, 255, target)
    assert np.array_equal(out, expected)
    assert {0, 255} <= set(np.unique(out).tolist())


def test_answer_may_take_the_place_of_the_probabilities():
    probability, inverse_prior, initial, steps = chain(6, 3, 2500, seed=12)
    expected = smoothed(probability, inverse_prior, initial, steps, dtype=np.float32)
    settings = lane_settings(inverse_prior, initial, steps, np.float32)
    year_lanes.smooth_years(probability, *settings, False, 0, 2500, (0, 0, 0), probability)
    assert probability.tobytes() == expected.tobytes()
