"""Composites of a simulated, clouded year against its cloud-free truth."""

from __future__ import annotations

import pytest

from benchmarks.composite_error import METHODS, compare

LATE = "median, window 90 d + fallback"


@pytest.fixture(scope="module")
def table():
    # compare() itself refuses a method that fills a pixel which no date observed
    return compare(0.5, METHODS, size_m=500, dates=16, seed=3).set_index("method")


def test_every_method_is_within_two_hundredths_of_the_truth_under_half_a_year_of_cloud(table):
    assert (table["rmse_31_december"] < 0.02).all()
    assert (table["bias_31_december"].abs() < 0.012).all()


def test_robust_methods_beat_the_mean_and_single_spectra(table):
    error = table["rmse_year"]
    assert error["geomedian"] <= error["median"] * 1.02
    for robust in ("median", "geomedian"):
        for other in ("mean", "p25", "max_ndvi", "medoid"):
            assert error[robust] < error[other]


def test_low_percentiles_are_dark_and_the_median_is_not(table):
    assert table["bias_year"]["p25"] < -0.003
    assert abs(table["bias_year"]["median"]) < 0.002


def test_windows_and_weights_make_younger_images(table):
    age = table["mean_age_days"]
    assert age["bap"] < age["median"] / 2
    assert age["median, half-life 60 d"] < age["median"] / 1.5
    assert age[LATE] < age["median"] / 1.5


def test_a_window_sees_less_and_its_fallback_as_much_as_the_year(table):
    share = table["observed_share"]
    assert share["median, window 90 d"] < share[LATE] == share["median"] < 1
