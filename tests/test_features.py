"""Features: indices, user formulas and the hostile ones, texture, seasons, stacks."""

from __future__ import annotations

import contextlib
import json

import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geococa.errors import GridMismatch, InputRefused, KindMismatch
from geococa.features import bands_of, season_features, spectral_features, stack_features, texture_features
from geococa.formulas import INDICES, parse_formula
from geococa.grid import Grid
from tests import oracles_statistics as oracle

BANDS = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "swir16", "swir22")
GRID = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), (23, 31))


def composite(times=2, seed=0, gaps=0.1, names=BANDS, grid=GRID):
    rng = np.random.default_rng(seed)
    shape = (times, *grid.shape)
    hidden = rng.random(shape) < gaps
    variables = {}
    for name in names:
        values = rng.uniform(0.01, 0.6, shape).astype(np.float32)
        variables[name] = (("time", "y", "x"), np.where(hidden, np.float32(np.nan), values))
    dates = pd.date_range("2019-12-31", periods=times, freq="YE").astype("datetime64[ns]")
    data = xr.Dataset(variables, coords={"time": dates}, attrs={"kind": "composite"})
    return data.assign_coords(GRID.coordinates() if grid is GRID else grid.coordinates())


@pytest.fixture(scope="module")
def catalogue(shared_data):
    return json.loads((shared_data / "cases/spectral_index_formulas.json").read_text())


class TestIndices:
    def test_every_catalogue_formula_agrees_with_an_independent_evaluator(self, catalogue):
        data = composite(gaps=0.0)
        names = list(catalogue["indices"])
        result = spectral_features(data, names)
        bands = {name: data[name].values for name in BANDS}
        assert len(names) == 31
        for name in names:
            expected = oracle.formula_value(catalogue["indices"][name]["formula"], bands, catalogue["constants"])
            np.testing.assert_allclose(result.sel(feature=name), expected, rtol=1e-6, err_msg=name)

    def test_every_index_of_the_table_is_finite_and_uses_known_bands(self):
        result = spectral_features(composite(gaps=0.0), list(INDICES))
        assert np.isfinite(result.values).mean() > 0.99
        assert bands_of(INDICES) <= set(BANDS)

    def test_evi_as_published_has_its_own_name(self):
        data = composite(gaps=0.0)
        nir, red, blue = (data[name].values.astype(float) for name in ("nir", "red", "blue"))
        result = spectral_features(data, ["evi_modis"]).values[:, 0]
        np.testing.assert_allclose(result, 2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1), rtol=1e-6)

    def test_bands_pass_through_unchanged_and_in_order(self):
        data = composite()
        result = spectral_features(data, ["swir22", "ndvi", "blue"])
        assert result["feature"].values.tolist() == ["swir22", "ndvi", "blue"]
        np.testing.assert_array_equal(result.values[:, 2], data["blue"].values)

    def test_unobserved_pixels_stay_unobserved_and_no_others(self):
        data = composite()
        result = spectral_features(data, ["ndvi", "evi", "bsi"])
        np.testing.assert_array_equal(np.isnan(result.values[:, 0]), np.isnan(data["red"].values))

    def test_division_by_zero_is_not_observed(self):
        data = composite(gaps=0)
        data["nir"][:] = 0
        data["red"][:] = 0
        result = spectral_features(data, ["ndvi", "sr", "twice=1/(1/red)", "wild=exp(1000*blue+200)"])
        assert np.isnan(result.values).all()

    def test_result_is_float32_with_kind_grid_and_years(self):
        result = spectral_features(composite(), ["ndvi"])
        assert (result.dtype, result.dims, result.attrs["kind"]) == (
            np.float32,
            ("time", "feature", "y", "x"),
            "features",
        )
        assert Grid.from_xarray(result).same_as(GRID)
        assert result["time"].dt.year.values.tolist() == [2019, 2020]

    def test_composite_without_time_gives_features_without_time(self):
        whole = spectral_features(composite(), ["ndvi", "nbr"])
        one = spectral_features(composite().isel(time=1), ["ndvi", "nbr"])
        assert one.dims == ("feature", "y", "x")
        np.testing.assert_array_equal(one.values, whole.values[1])

    def test_dask_gives_the_same_values_and_nothing_early(self):
        data = composite()
        computed = []
        lazy = data.map(
            lambda v: v.copy(
                data=dask.array.from_array(v.values, chunks=(1, 10, 8)).map_blocks(
                    lambda block: computed.append(1) or block, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
                )
            )
        )
        result = spectral_features(lazy.assign_attrs(data.attrs), ["ndvi", "evi", "red"])
        assert not computed
        assert result.chunks is not None
        np.testing.assert_array_equal(result.compute().values, spectral_features(data, ["ndvi", "evi", "red"]).values)

    def test_values_can_go_to_memory_that_is_there(self):
        data = composite()
        out = np.full((2, 2, *GRID.shape), 9.0, np.float32)
        result = spectral_features(data, ["ndvi", "evi"], out=out)
        assert np.shares_memory(result.values, out)
        np.testing.assert_array_equal(out, spectral_features(data, ["ndvi", "evi"]).values)

    @pytest.mark.parametrize("out", [np.empty((2, 2, 3, 3), "f4"), np.empty((2, 1, *GRID.shape)), [0.0]])
    def test_memory_that_does_not_fit_is_refused(self, out):
        with pytest.raises(InputRefused, match="C-contiguous float32 array of shape"):
            spectral_features(composite(), ["ndvi"], out=out)
        with pytest.raises(InputRefused, match="Dask"):
            spectral_features(composite().chunk(), ["ndvi"], out=out)

    def test_large_images_have_the_same_values_as_small_ones(self):
        data = composite(times=1, grid=Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), (300, 301)))
        names = ["ndvi", "evi", "kndvi", "bsi", "red"]
        whole = spectral_features(data, names).values
        part = spectral_features(data.isel(y=slice(100, 140)), names).values
        np.testing.assert_array_equal(whole[:, :, 100:140], part)

    def test_nir08_stands_in_for_a_missing_nir(self):
        data = composite()
        renamed = data.rename(nir="nir08")
        np.testing.assert_array_equal(
            spectral_features(renamed, ["ndvi"]).values, spectral_features(data, ["ndvi"]).values
        )

    def test_input_is_untouched(self):
        data = composite()
        before = data.copy(deep=True)
        spectral_features(data, ["ndvi", "evi"])
        xr.testing.assert_identical(data, before)

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["ndvii"], "did you mean 'ndvi'"),
            (["ndvi", "ndvi"], "each once"),
            ([], "at least one"),
            (["a=1+2"], "no band"),
        ],
    )
    def test_unusable_names_are_refused(self, names, words):
        with pytest.raises(InputRefused, match=words):
            spectral_features(composite(), names)

    def test_digital_numbers_and_other_kinds_are_refused(self):
        data = composite(gaps=0)
        with pytest.raises(InputRefused, match="to_reflectance"):
            spectral_features((data * 10_000).astype(np.uint16).assign_attrs(kind="composite"), ["ndvi"])
        with pytest.raises(KindMismatch):
            spectral_features(data.assign_attrs(kind="scenes"), ["ndvi"])


# expressions are built from these, and evaluated by Python as the oracle
_atom = st.one_of(st.sampled_from(["red", "nir", "blue"]), st.floats(0.1, 9, allow_nan=False).map(lambda v: f"{v:.4f}"))
_expression = st.recursive(
    _atom,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(inner, st.sampled_from([2, 3, 0.5, -1])).map(lambda t: f"({t[0]})**{t[1]}"),
        inner.map(lambda t: f"-({t})"),
        inner.map(lambda t: f"abs({t})"),
    ),
    max_leaves=12,
)

HOSTILE = [
    f"{prefix}{core}{suffix}"
    for core in (
        "__import__('os')", "__import__('os').system('id')", "open('x')", "exec('1')", "eval('1')", "().__class__", "red.__class__",
        "red.real", "red[0]", "[red]", "{red}", "{1:red}", "lambda: red", "(lambda: red)()", "red if nir else blue", "red or nir",
        "red and nir", "not red", "red < nir", "red == nir", "red is nir", "red in nir", "f'{red}'", "'red'", "b'red'", "True", "None",
        "...", "1j", "red @ nir", "red // nir", "red % nir", "red << 2", "red & nir", "red | nir", "red ^ nir", "~red", "red ** nir",
        "red ** 9", "9 ** 9 ** 9", "2 ** 2 ** 3 ** 4", "red ** 1e9", "1e400", "-1e400", "1e10", "(red := nir)", "red, nir", "*red",
        "print(red)", "getattr(red, nir)", "abs(red, nir)", "minimum(red)", "abs()", "abs(x=red)", "abs(*red)", "exp(exp)", "abs",
        "red; nir", "red\nnir", "import os", "del red", "red = nir", "yield red", "await red", "_red", "__red__", "rède", "red\x00",
    )
    for prefix, suffix in (("", ""), ("red + (", ")"), ("abs(", ")"))
] + ["", " ", "(", ")", "red +", "red nir", "1(2)", "(" * 300 + "red" + ")" * 300, "red" + "+red" * 600, "0" * 3000]  # fmt: skip


class TestFormulas:
    @settings(max_examples=60, deadline=None)
    @given(text=_expression)
    def test_random_formulas_agree_with_python(self, text):
        data = composite(times=1, gaps=0.0, names=("red", "nir", "blue"))
        try:
            result = spectral_features(data, [f"f={text}+0*red"]).values[0, 0]
        except InputRefused as refusal:
            # a root of a negative constant is a complex number in Python, and refused here
            assume("which is not a number" not in str(refusal))
            raise
        names = {name: data[name].values[0].astype(float) for name in ("red", "nir", "blue")}
        with np.errstate(all="ignore"):
            expected = eval(text, {"__builtins__": {}}, names | {"abs": np.abs}) + 0 * names["red"]  # noqa: S307
            bounded = np.abs(expected) < 1e30
        np.testing.assert_allclose(result[bounded], expected[bounded], rtol=1e-6, atol=1e-9)
        assert np.isnan(result[~np.isfinite(expected)]).all()

    @pytest.mark.parametrize(
        ("formula", "expected"),
        [
            ("-red**2", lambda r, n: -(r**2)),
            ("red**-1", lambda r, n: 1 / r),
            ("red-nir-red", lambda r, n: r - n - r),
            ("red/nir/red", lambda r, n: r / n / r),
            ("+red - -nir", lambda r, n: r + n),
            ("tanh(log(red)+exp(nir))", lambda r, n: np.tanh(np.log(r) + np.exp(n))),
            ("maximum(red, nir) - minimum(red, nir)", lambda r, n: np.abs(r - n)),
            ("ndvi*2", lambda r, n: (n - r) / (n + r) * 2),
            ("sqrt(red)*red**2.5", lambda r, n: np.sqrt(r) * r**2.5),
        ],
    )
    def test_precedence_functions_and_indices_inside_formulas(self, formula, expected):
        data = composite(times=1, gaps=0.0)
        result = spectral_features(data, [f"f={formula}"]).values[0, 0]
        red, nir = (data[name].values[0].astype(float) for name in ("red", "nir"))
        np.testing.assert_allclose(result, expected(red, nir), rtol=1e-6)

    def test_there_are_at_least_200_hostile_strings(self):
        assert len(set(HOSTILE)) >= 200

    @pytest.mark.parametrize("text", HOSTILE)
    def test_hostile_strings_are_refused(self, text):
        with pytest.raises(InputRefused):
            parse_formula(text, BANDS)

    @settings(max_examples=150, deadline=None)
    @given(text=st.text(alphabet="rednirblue0123456789.+-*/() _,'=[]{}:lambdxyz\\\n", max_size=40))
    def test_any_text_is_parsed_or_refused_and_nothing_else(self, text):
        with contextlib.suppress(InputRefused):
            parse_formula(text, BANDS)

    def test_nested_powers_stay_small(self):
        with pytest.raises(InputRefused, match="parts"):
            parse_formula("(" * 150 + "red" + "**4)" * 150, BANDS)


class TestTexture:
    def layer(self, gaps=0.15, seed=3):
        return spectral_features(composite(times=2, seed=seed, gaps=gaps), ["ndvi", "nir"])

    @pytest.mark.parametrize("window", [3, 5, 9])
    def test_local_mean_and_std_agree_with_numpy(self, window):
        source = self.layer()
        result = texture_features(source, window=window)
        assert result["feature"].values.tolist() == [
            f"{n}_{s}{window}" for n in ("ndvi", "nir") for s in ("mean", "std")
        ]
        for time in range(2):
            mean, std = oracle.local_moments(source.values[time, 1], window // 2)
            np.testing.assert_allclose(result.values[time, 2], mean, rtol=1e-6)
            np.testing.assert_allclose(result.values[time, 3], std, rtol=1e-4, atol=1e-7)

    def test_cooccurrence_agrees_with_counting_pairs(self):
        source = self.layer().isel(time=0)
        names = ("contrast", "homogeneity", "entropy")
        result = texture_features(source, window=5, statistics=names, levels=6, value_range=(-0.5, 0.5))
        values = source.values[0]
        levels = np.where(np.isnan(values), -1, np.clip(np.floor((np.nan_to_num(values) + 0.5) * 6), 0, 5)).astype(int)
        np.testing.assert_allclose(result.values[:3], oracle.cooccurrence(levels, 6, 2), rtol=1e-5, atol=1e-6)

    def test_blocks_with_a_halo_give_the_same_bytes_as_the_whole(self):
        source = self.layer()
        every = ("mean", "std", "contrast", "homogeneity", "entropy")
        whole = texture_features(source, window=5, statistics=every)
        for block in GRID.blocks(8, halo=2):
            o = block.outer
            part = texture_features(source[..., o[0] : o[1], o[2] : o[3]], window=5, statistics=every)
            np.testing.assert_array_equal(part.values[..., *block.crop], whole.values[..., *block.target])

    def test_dask_gives_the_same_bytes(self):
        source = self.layer()
        lazy = texture_features(
            source.chunk({"y": 9, "x": 10, "feature": 1, "time": 1}), window=5, statistics=("std", "entropy")
        )
        assert lazy.chunks is not None
        whole = texture_features(source, window=5, statistics=("std", "entropy"))
        np.testing.assert_array_equal(lazy.values, whole.values)

    @pytest.mark.parametrize("options", [{"window": 4}, {"window": 1}, {"statistics": ("mode",)}, {"levels": 1}])
    def test_impossible_settings_are_refused(self, options):
        with pytest.raises(InputRefused):
            texture_features(self.layer(), **options)


def series(values, dates, grid=GRID):
    values = np.asarray(values, np.float32)
    data = np.broadcast_to(values[:, None, None], (len(values), *grid.shape)).copy()
    return grid.attach(
        xr.DataArray(data, dims=("time", "y", "x"), coords={"time": pd.DatetimeIndex(dates).astype("datetime64[ns]")})
    )


def first(result):
    return {str(name): float(result.sel(feature=name).values[0, 0, 0]) for name in result["feature"].values}


class TestSeason:
    def test_levels_agree_with_numpy(self):
        values = [0.3, 0.9, 0.5, 0.7, 0.65, 0.2, 0.8]
        result = first(
            season_features(
                series(values, pd.date_range("2020-01-10", periods=7, freq="50D")),
                "vi",
                statistics=("p10", "p25", "p50", "p75", "p90", "mean", "std", "amplitude"),
            )
        )
        expected = oracle.season(values)
        for name, value in expected.items():
            assert result[f"vi_{name}"] == pytest.approx(value, abs=1e-6)
        assert result["vi_amplitude"] == pytest.approx(expected["p90"] - expected["p10"], abs=1e-6)

    def test_three_harvests_are_counted_with_depth_and_recovery(self):
        days = np.arange(0, 360, 20)
        values = np.full(len(days), 0.8)
        values[[4, 9, 14]] = 0.4
        values[[5, 10, 15]] = 0.7
        dates = pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D")
        result = first(season_features(series(values, dates), "vi"))
        assert result["vi_drops"] == 3
        assert result["vi_drop_depth"] == pytest.approx(0.4, abs=1e-6)
        assert result["vi_recovery_days"] == pytest.approx(20)
        assert result["vi_drop_spread_days"] == pytest.approx(np.std([80, 180, 280]), rel=1e-5)

    def test_slow_decline_and_small_wiggles_are_no_drops(self):
        dates = pd.date_range("2020-01-01", periods=12, freq="30D")
        slow = first(season_features(series(np.linspace(0.8, 0.3, 12), dates), "vi", drop_days=60))
        assert slow["vi_drops"] == 0
        assert slow["vi_recovery_days"] == 0
        wiggle = first(season_features(series(0.6 + 0.05 * (-1.0) ** np.arange(12), dates), "vi"))
        assert wiggle["vi_drops"] == 0

    def test_drop_without_recovery_counts_to_the_last_date(self):
        dates = pd.to_datetime(["2020-01-01", "2020-02-01", "2020-03-01", "2020-04-01"])
        result = first(season_features(series([0.8, 0.3, 0.31, 0.32], dates), "vi"))
        assert result["vi_recovery_days"] == 60

    def test_harmonic_recovers_amplitude_and_day_of_peak(self):
        days = np.arange(5, 365, 24)
        values = 0.5 + 0.2 * np.cos(2 * np.pi * (days - 100) / 365.25)
        dates = pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D")
        result = first(
            season_features(series(values, dates), "vi", statistics=("harmonic_amplitude", "harmonic_phase_days"))
        )
        assert result["vi_harmonic_amplitude"] == pytest.approx(0.2, abs=1e-6)
        assert result["vi_harmonic_phase_days"] == pytest.approx(100, abs=1e-3)

    def test_slope_is_per_year(self):
        days = np.arange(0, 360, 30)
        dates = pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D")
        result = first(season_features(series(0.2 + 0.3 * days / 365.25, dates), "vi", statistics=("slope",)))
        assert result["vi_slope"] == pytest.approx(0.3, abs=1e-5)

    def test_gaps_are_skipped_and_thin_pixels_stay_unobserved(self):
        data = series([0.2, 0.9, 0.4, 0.6], pd.date_range("2020-01-10", periods=4, freq="60D"))
        data[1, 0, 0] = np.nan
        data[:2, 0, 1] = np.nan
        result = season_features(data, "vi", statistics=("mean",), min_observations=3)
        assert result.values[0, 0, 0, 0] == pytest.approx(0.4)
        assert np.isnan(result.values[0, 0, 0, 1])

    def test_each_year_is_its_own_season(self):
        dates = pd.date_range("2019-02-01", periods=8, freq="90D")
        result = season_features(series([0.1] * 4 + [0.7] * 4, dates), "vi", statistics=("mean",))
        assert result["time"].values.astype("datetime64[D]").astype(str).tolist() == ["2019-12-31", "2020-12-31"]
        assert result.values[:, 0, 0, 0].tolist() == [np.float32(0.1), np.float32(0.7)]

    def test_dask_gives_the_same_values(self):
        data = composite(times=6).assign_attrs(kind="reflectance")
        data = data.assign_coords(time=pd.date_range("2020-01-10", periods=6, freq="50D").astype("datetime64[ns]"))
        lazy = season_features(data.chunk({"time": 2, "y": 9, "x": 10}), "ndmi")
        assert lazy.chunks is not None
        np.testing.assert_array_equal(lazy.values, season_features(data, "ndmi").values)

    def test_unsorted_dates_and_unknown_statistics_are_refused(self):
        data = series([0.1, 0.2, 0.3], pd.to_datetime(["2020-03-01", "2020-01-01", "2020-02-01"]))
        with pytest.raises(InputRefused, match="sortby"):
            season_features(data, "vi")
        with pytest.raises(InputRefused, match="season statistics are"):
            season_features(data.sortby("time"), "vi", statistics=("mode",))


class TestStack:
    def test_stacks_are_joined_in_order_on_one_grid(self):
        data = composite()
        a, b = spectral_features(data, ["ndvi"]), spectral_features(data, ["red", "nbr"])
        result = stack_features(a, texture_features(a, window=3), b)
        assert result["feature"].values.tolist() == ["ndvi", "ndvi_mean3", "ndvi_std3", "red", "nbr"]
        np.testing.assert_array_equal(result.values[:, 3:], b.values)
        assert Grid.from_xarray(result).same_as(GRID)

    def test_other_grids_and_years_and_doubles_are_refused(self):
        a = spectral_features(composite(), ["ndvi"])
        moved = Grid("EPSG:32618", (10, 0, 500_010, 0, -10, 900_000), GRID.shape)
        with pytest.raises(GridMismatch, match="different grids"):
            stack_features(a, moved.attach(a.drop_vars(["x", "y", "spatial_ref"])).assign_coords(feature=["other"]))
        with pytest.raises(GridMismatch, match="other times"):
            stack_features(a, spectral_features(composite(times=3), ["nbr"]))
        with pytest.raises(InputRefused, match="come twice"):
            stack_features(a, a)
