"""Composites: windows up to a cut-off date, fallback, weights, best available pixel, and the layers of dates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.composites import Window, composite, window_of
from geococa.errors import GeococaError, InputRefused, RecipeError
from geococa.grid import Grid
from geococa.recipe import Recipe
from geococa.spectral_indices import spectral_features

GRID = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (24, 30))
BANDS = ("blue", "red", "nir")
REDUCERS = ("median", "mean", "p25", "geomedian", "medoid", "max_ndvi", "bap")


def series_of(dates, seed=0, missing=0.5, grid=GRID):
    rng = np.random.default_rng(seed)
    shape = (len(dates), *grid.shape)
    gone = rng.random(shape) < missing
    bands = {
        name: (("time", "y", "x"), np.where(gone, np.nan, level + rng.normal(0, 0.03, shape)).astype("float32"))
        for name, level in zip(BANDS, (0.04, 0.06, 0.4), strict=True)
    }
    times = pd.to_datetime(list(dates)).values.astype("datetime64[ns]")
    return xr.Dataset(bands, coords={**grid.coordinates(), "time": times}, attrs={"kind": "reflectance"})


def one_pixel(values, dates):
    times = pd.to_datetime(list(dates)).values.astype("datetime64[ns]")
    array = xr.DataArray(np.array(values, "float32").reshape(-1, 1, 1), dims=("time", "y", "x"), coords={"time": times})
    return xr.Dataset({"red": array})


THREE_YEARS = pd.date_range("2019-02-03T15:26", "2021-12-20", freq="40D")
WINDOWED = {"cutoff": "12-31", "window_days": 75, "fallback_days": 300}


class TestDates:
    @pytest.mark.parametrize("reducer", ["medoid", "max_ndvi", "bap"])
    def test_the_day_of_a_picked_spectrum_is_its_own(self, reducer):
        series = series_of(THREE_YEARS)
        annual = composite(series, reducer=reducer)
        for i in range(annual.sizes["time"]):
            day = annual.date_used.values[i]
            seen = ~np.isnat(day)
            assert (seen == (annual.observations.values[i] > 0)).all()
            for t, moment in enumerate(series.time.values.astype("datetime64[D]").astype("datetime64[ns]")):
                here = seen & (day == moment)
                for band in BANDS:
                    np.testing.assert_array_equal(annual[band].values[i][here], series[band].values[t][here])

    def test_the_day_of_a_median_is_the_median_of_the_days_used(self):
        series = series_of(THREE_YEARS)
        annual = composite(series)
        days = series.time.values.astype("datetime64[D]").astype(float)
        for i, year in enumerate(annual.time.dt.year.values):
            chosen = series.time.dt.year.values == year
            valid = np.isfinite(series.red.values[chosen])
            for row, col in ((0, 0), (3, 7), (20, 11), (23, 29)):
                used = days[chosen][valid[:, row, col]]
                found = annual.date_used.values[i, row, col]
                assert np.isnat(found) if len(used) == 0 else found == np.datetime64(int(np.median(used)), "D")

    def test_date_layers_are_no_bands(self):
        annual = composite(series_of(THREE_YEARS), **WINDOWED)
        features = spectral_features(annual, ["red", "ndvi"])
        assert features.feature.values.tolist() == ["red", "ndvi"]
        again = composite(annual.drop_vars("spatial_ref").assign_attrs(kind="reflectance"))
        assert set(again.data_vars) == {*BANDS, "observations", "date_used", "age_days"}

    def test_without_a_cutoff_the_age_counts_to_31_december(self):
        plain, dated = composite(series_of(THREE_YEARS)), composite(series_of(THREE_YEARS), cutoff="12-31")
        np.testing.assert_array_equal(plain.age_days.values, dated.age_days.values)
        expected = (plain.time.values[:, None, None] - plain.date_used.values) / np.timedelta64(1, "D")
        np.testing.assert_array_equal(plain.age_days.values, expected.astype("float32"))
        assert plain.age_days.dtype == np.float32
        assert "fallback_observations" not in dated


class TestWindow:
    def test_only_dates_of_the_window_are_used(self):
        dates = ["2020-09-01", "2020-11-15", "2020-12-31", "2021-01-01"]
        annual = composite(one_pixel([0.1, 0.2, 0.4, 0.9], dates), cutoff="12-31", window_days=60, reducer="mean")
        assert float(annual.red.sel(time="2020-12-31")[0, 0]) == pytest.approx(0.3)
        assert int(annual.observations.sel(time="2020-12-31")[0, 0]) == 2

    def test_the_first_day_of_the_window_counts_and_the_one_before_does_not(self):
        for day, used in (("2020-11-01", 1), ("2020-10-31", 0)):
            series = one_pixel([0.2, 0.3], [day, "2020-12-01"])
            annual = composite(series, cutoff="12-31", window_days=60)
            assert int(annual.observations[0, 0, 0]) == 1 + used

    def test_a_cutoff_alone_takes_the_year_up_to_it(self):
        annual = composite(one_pixel([0.1, 0.2, 0.3], ["2019-07-02", "2020-06-30", "2020-07-01"]), cutoff="06-30")
        assert annual.time.dt.year.values.tolist() == [2020]
        assert int(annual.observations[0, 0, 0]) == 2
        whole = composite(series_of(THREE_YEARS), cutoff="12-31")
        plain = composite(series_of(THREE_YEARS))
        for band in BANDS:
            np.testing.assert_array_equal(whole[band].values, plain[band].values)

    def test_age_is_the_days_from_the_date_used_to_the_cutoff(self):
        annual = composite(series_of(THREE_YEARS), reducer="medoid", **WINDOWED)
        expected = (annual.time.values[:, None, None] - annual.date_used.values) / np.timedelta64(1, "D")
        np.testing.assert_array_equal(annual.age_days.values, expected.astype("float32"))
        assert np.nanmin(annual.age_days.values) >= 0
        assert np.nanmax(annual.age_days.values) <= 375

    def test_the_latest_earlier_scene_stands_in_where_the_window_has_none(self):
        dates = ["2020-02-01", "2020-08-01", "2020-12-01"]
        annual = composite(one_pixel([0.1, 0.2, np.nan], dates), cutoff="12-31", window_days=60, fallback_days=200)
        assert float(annual.red[0, 0, 0]) == np.float32(0.2)
        assert float(annual.age_days[0, 0, 0]) == 152
        assert int(annual.fallback_observations[0, 0, 0]) == 1

    def test_beyond_the_limit_of_the_fallback_a_pixel_stays_unobserved(self):
        dates = ["2020-02-01", "2020-12-01"]
        annual = composite(one_pixel([0.1, np.nan], dates), cutoff="12-31", window_days=60, fallback_days=100)
        assert np.isnan(annual.red.values).all()
        assert np.isnat(annual.date_used.values).all()
        assert np.isnan(annual.age_days.values).all()
        assert int(annual.observations[0, 0, 0]) == 0

    def test_the_fallback_leaves_pixels_alone_that_have_enough_of_their_own(self):
        series = series_of(THREE_YEARS)
        narrow = composite(series, cutoff="12-31", window_days=75)
        wide = composite(series, **WINDOWED).sel(time=narrow.time)
        own = narrow.observations.values > 0
        np.testing.assert_array_equal(wide.red.values[own], narrow.red.values[own])
        assert (wide.fallback_observations.values[own] == 0).all()
        assert (np.isfinite(wide.red.values) & ~own).any()

    def test_a_fallback_reaches_into_the_year_before_and_years_can_be_chosen(self):
        series = one_pixel([0.2], ["2020-12-20"])
        settings = {"cutoff": "12-31", "window_days": 60, "fallback_days": 400}
        assert composite(series, **settings).time.dt.year.values.tolist() == [2020]
        later = composite(series, years=[2021], **settings)
        assert later.time.dt.year.values.tolist() == [2021]
        assert float(later.age_days[0, 0, 0]) == 376

    def test_the_order_of_the_scenes_does_not_matter(self):
        series = series_of(THREE_YEARS)
        order = np.random.default_rng(1).permutation(series.sizes["time"])
        for reducer in ("median", "bap", "mean"):
            xr.testing.assert_identical(
                composite(series.isel(time=order), reducer=reducer, **WINDOWED),
                composite(series, reducer=reducer, **WINDOWED),
            )

    @pytest.mark.parametrize(
        "options",
        [
            {"cutoff": "31-12"},
            {"cutoff": "02-29"},
            {"cutoff": "12"},
            {"window_days": 60},
            {"fallback_days": 60},
            {"cutoff": "12-31", "window_days": 0},
            {"cutoff": "12-31", "window_days": 1.5},
            {"cutoff": "12-31", "fallback_days": -1},
            {"half_life_days": 30, "reducer": "p25"},
            {"half_life_days": 30, "reducer": "max_ndvi"},
            {"after_days": 10},
            {"cutoff": "12-31", "after_days": -1},
            {"cutoff": "12-31", "after_days": 0.5},
            {"cutoff": "12-31", "after_days": 367},
            {"half_life_days": 0},
            {"scores": {"day": 1}},
            {"scores": {"fog": 1}, "reducer": "bap"},
            {"scores": {"day": -1}, "reducer": "bap"},
            {"cloud_distance_m": 0, "reducer": "bap"},
            {"cutoff": "12-31", "window_days": 1, "years": [1990]},
        ],
    )
    def test_settings_that_do_not_fit_are_refused(self, options):
        with pytest.raises(InputRefused):
            composite(series_of(THREE_YEARS), **options)

    def test_later_dates_count_only_where_they_are_asked_for(self):
        dates = ["2020-12-20", "2021-01-09", "2021-01-11"]
        series = one_pixel([0.1, 0.3, 0.9], dates)
        settings = {"cutoff": "12-31", "window_days": 60, "reducer": "mean", "years": [2020]}
        assert float(composite(series, **settings).red[0, 0, 0]) == np.float32(0.1)
        later = composite(series, after_days=10, **settings)
        assert float(later.red[0, 0, 0]) == pytest.approx(0.2)
        assert int(later.observations[0, 0, 0]) == 2
        assert later.attrs["after_days"] == 10
        only = composite(series.isel(time=[1]), after_days=10, **settings)
        assert float(only.age_days[0, 0, 0]) == -9.0

    def test_a_later_date_weighs_as_much_as_one_as_far_before(self):
        series = one_pixel([0.1, 0.3], ["2020-12-21", "2021-01-10"])
        settings = {"cutoff": "12-31", "after_days": 10, "years": [2020], "reducer": "mean"}
        assert float(composite(series, half_life_days=5, **settings).red[0, 0, 0]) == pytest.approx(0.2)
        near = composite(one_pixel([0.1, 0.3], ["2020-12-21", "2021-01-05"]), half_life_days=5, **settings)
        assert float(near.red[0, 0, 0]) == pytest.approx((0.1 + 2 * 0.3) / 3, abs=1e-7)

    def test_a_date_after_one_cutoff_may_serve_the_next_year_too(self):
        annual = composite(one_pixel([0.2], ["2021-01-05"]), cutoff="12-31", after_days=30)
        assert annual.time.dt.year.values.tolist() == [2021]
        both = composite(one_pixel([0.1, 0.2], ["2020-12-01", "2021-01-05"]), cutoff="12-31", after_days=30)
        assert both.observations.values.ravel().tolist() == [2, 1]

    def test_a_leap_year_is_no_day_longer_than_its_window(self):
        assert window_of("03-01", None) == Window(3, 1)
        _, first, last = Window(3, 1).reach(2020)
        assert last == Window(3, 1).cutoff(2020)
        assert Window(3, 1).cutoff(2020) - first == 365


class TestWeights:
    def test_a_weighted_mean_and_its_day(self):
        series = one_pixel([0.1, 0.4], ["2020-12-01", "2020-12-31"])
        annual = composite(series, reducer="mean", cutoff="12-31", half_life_days=30)
        assert float(annual.red[0, 0, 0]) == pytest.approx((0.1 + 2 * 0.4) / 3, abs=1e-7)
        assert float(annual.age_days[0, 0, 0]) == 10

    def test_a_short_half_life_gives_the_latest_date(self):
        series = series_of(THREE_YEARS)
        annual = composite(series, half_life_days=0.5, cutoff="12-31")
        last = _last(series.sel(time="2021").red.values)
        np.testing.assert_array_equal(annual.red.sel(time="2021-12-31").values, last)

    def test_a_long_half_life_gives_the_plain_mean(self):
        series = series_of(THREE_YEARS)
        plain = composite(series, reducer="mean")
        weighted = composite(series, reducer="mean", half_life_days=1e12)
        np.testing.assert_allclose(weighted.red.values, plain.red.values, rtol=1e-6)

    def test_weights_pull_the_median_to_later_dates(self):
        values, dates = (
            [0.1, 0.1, 0.1, 0.5, 0.5],
            ["2020-01-01", "2020-02-01", "2020-03-01", "2020-11-20", "2020-12-20"],
        )
        assert float(composite(one_pixel(values, dates)).red[0, 0, 0]) == np.float32(0.1)
        weighted = composite(one_pixel(values, dates), half_life_days=60)
        assert float(weighted.red[0, 0, 0]) == np.float32(0.5)

    @pytest.mark.parametrize("reducer", ["geomedian", "medoid"])
    def test_equal_weights_change_nothing_and_a_short_half_life_gives_the_latest_date(self, reducer):
        series = series_of(THREE_YEARS, missing=0.3)
        plain = composite(series, reducer=reducer)
        wide = composite(series, reducer=reducer, half_life_days=1e15)
        for band in BANDS:
            np.testing.assert_allclose(wide[band].values, plain[band].values, atol=1e-6)
        short = composite(series, reducer=reducer, half_life_days=1.0)
        for band in BANDS:
            found, last = short[band].sel(time="2021-12-31").values, _last(series[band].sel(time="2021").values)
            np.testing.assert_allclose(found, last, atol=2e-5)

    def test_the_weighted_medoid_has_the_least_weighted_sum_of_distances(self):
        series = series_of(THREE_YEARS, missing=0.2)
        annual = composite(series, reducer="medoid", half_life_days=45)
        stack, weights, days = _year(series, 2021, 45)
        for row, col in ((0, 0), (5, 9), (23, 29), (11, 4)):
            spectra = stack[:, :, row, col]
            sums = [
                np.nansum(weights * np.linalg.norm(spectra - one, axis=1)) if np.isfinite(one).all() else np.inf
                for one in spectra
            ]
            assert annual.date_used.sel(time="2021-12-31").values[row, col] == days[int(np.argmin(sums))]

    def test_the_weighted_geomedian_has_the_least_weighted_sum_of_distances(self):
        optimise = pytest.importorskip("scipy.optimize")
        series = series_of(THREE_YEARS, missing=0.2)
        annual = composite(series, reducer="geomedian", half_life_days=45)
        stack, weights, _ = _year(series, 2021, 45)
        for row, col in ((0, 0), (5, 9), (23, 29), (11, 4)):
            spectra = stack[:, :, row, col]
            seen = np.isfinite(spectra).all(axis=1)

            def total(point, seen=seen, spectra=spectra):
                return float((weights[seen] * np.linalg.norm(spectra[seen] - point, axis=1)).sum())

            found = np.array([float(annual[band].sel(time="2021-12-31")[row, col]) for band in BANDS])
            best = optimise.minimize(total, found, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
            assert total(found) <= best.fun + 5e-6  # a twentieth of a digital number

    def test_two_dates_give_their_weighted_mean(self):
        series = one_pixel([0.1, 0.4], ["2020-12-01", "2020-12-31"])
        annual = composite(series, reducer="geomedian", cutoff="12-31", half_life_days=30)
        assert float(annual.red[0, 0, 0]) == pytest.approx((0.1 + 2 * 0.4) / 3, abs=1e-7)

    def test_dates_far_from_the_cutoff_still_count_where_there_are_no_others(self):
        dates = ["2019-01-01", "2019-01-20", "2019-02-09"]
        options = {"cutoff": "12-31", "fallback_days": 800, "min_observations": 3, "half_life_days": 2, "years": [2020]}
        for reducer in ("median", "mean", "geomedian", "medoid"):
            annual = composite(one_pixel([0.1, 0.2, 0.4], dates), reducer=reducer, **options)
            assert float(annual.red[0, 0, 0]) == pytest.approx(0.4, abs=1e-3), reducer


def _year(series, year, half_life):
    """Spectra (time, band, y, x), weights and days of a year."""
    part = series.sel(time=str(year))
    days = part.time.values.astype("datetime64[D]")
    distance = (np.datetime64(f"{year}-12-31") - days) / np.timedelta64(1, "D")
    return np.stack([part[b].values for b in BANDS], axis=1).astype(float), 0.5 ** (distance / half_life), days


def _last(stack):
    out = np.full(stack.shape[1:], np.nan, "float32")
    for plane in stack:
        out = np.where(np.isnan(plane), out, plane)
    return out


class TestBestAvailablePixel:
    def test_day_alone_takes_the_observation_nearest_to_the_cutoff(self):
        series = series_of(THREE_YEARS)
        annual = composite(series, reducer="bap", scores={"cloud": 0, "opacity": 0}, cutoff="12-31")
        np.testing.assert_array_equal(
            annual.red.sel(time="2021-12-31").values, _last(series.red.sel(time="2021").values)
        )

    def test_pixels_far_from_clouds_are_preferred(self):
        series = series_of(["2020-12-01", "2020-12-11"], missing=0.0)
        for name in BANDS:
            series[name][1, :, :12] = np.nan  # the later date has clouds in the west
        annual = composite(series, reducer="bap", scores={"opacity": 0}, half_life_days=100, cloud_distance_m=100)
        near_edge, far = annual.red.values[0, :, 12:14], annual.red.values[0, :, 22:]
        np.testing.assert_array_equal(near_edge, series.red.values[0, :, 12:14])
        np.testing.assert_array_equal(far, series.red.values[1, :, 22:])

    def test_hazy_dates_are_avoided(self):
        series = series_of(["2020-12-01", "2020-12-11"], missing=0.0)
        for name, veil in (("blue", 0.08), ("red", 0.05)):
            series[name][:] = series[name].values[0] + np.array([0, veil], "float32")[:, None, None]
        annual = composite(series, reducer="bap", half_life_days=100)
        np.testing.assert_array_equal(annual.blue.values[0], series.blue.values[0])

    def test_it_needs_a_grid_to_measure_distances(self):
        with pytest.raises(GeococaError):
            composite(one_pixel([0.1], ["2020-01-01"]), reducer="bap")


class TestLazy:
    @pytest.mark.parametrize("reducer", REDUCERS)
    def test_lazy_windows_equal_eager_ones_and_compute_nothing_early(self, reducer):
        series = series_of(THREE_YEARS)
        for chunks in ({"time": 3, "y": 10, "x": 16}, {"time": 9, "y": 5, "x": 4}):
            lazy = composite(series.chunk(chunks), reducer=reducer, cloud_distance_m=60, **WINDOWED)
            assert all(lazy[name].chunks for name in lazy.data_vars)
            eager = composite(series, reducer=reducer, cloud_distance_m=60, **WINDOWED)
            xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), eager)

    @pytest.mark.parametrize("reducer", ["median", "mean", "geomedian", "medoid"])
    def test_lazy_weights_equal_eager_ones(self, reducer):
        series = series_of(THREE_YEARS)
        options = {"reducer": reducer, "half_life_days": 40, "cutoff": "11-30", "after_days": 40}
        lazy = composite(series.chunk({"time": 4, "y": 7, "x": 9}), **options)
        xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), composite(series, **options))

    def test_lazy_distances_in_degrees_equal_eager_ones(self):
        grid = Grid("EPSG:4326", (0.001, 0, -75, 0, -0.02, 60), GRID.shape)
        series = series_of(THREE_YEARS, grid=grid, missing=0.05)
        options = {"reducer": "bap", "cloud_distance_m": 9000.0}
        eager = composite(series, **options)
        xr.testing.assert_identical(composite(series.chunk({"y": 8, "x": 9}), **options).compute(), eager)

    @pytest.mark.parametrize("reducer", REDUCERS)
    def test_threads_and_strips_change_nothing(self, reducer, monkeypatch):
        import geococa.reducers as reducers

        series = series_of(THREE_YEARS)
        whole = composite(series, reducer=reducer, **WINDOWED)
        monkeypatch.setattr(reducers, "_STRIP", 64)
        xr.testing.assert_identical(composite(series, reducer=reducer, threads=3, **WINDOWED), whole)


class TestRecipe:
    def test_settings_of_the_window_are_checked_before_any_work(self, tmp_path):
        for text in ("window_days = 60", "cutoff = '13-01'", "reducer = 'bob'", "half_life_days = 9\nreducer = 'p10'"):
            path = tmp_path / "recipe.toml"
            path.write_text(f"[composite]\n{text}\n")
            with pytest.raises(RecipeError, match="composite"):
                Recipe.read(path)

    def test_bands_that_choose_the_date_are_read(self):
        features = {"names": ("swir16",)}
        assert Recipe(features=features, composite={"reducer": "bap"}).bands_needed() == ["blue", "red", "swir16"]
        clear = {"reducer": "bap", "scores": {"opacity": 0.0}}
        assert Recipe(features=features, composite=clear).bands_needed() == ["swir16"]
        assert Recipe(features=features, composite={"reducer": "max_ndvi"}).bands_needed() == ["nir", "red", "swir16"]
