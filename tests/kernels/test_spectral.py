"""The program kernels: operations, precision and strips, and the loop that is made for a set of formulas."""

from __future__ import annotations

import numpy as np
import pytest

from geococa._kernels import fused, spectral
from geococa.formula_program import FUSED_PIXELS, compile_formulas, evaluate, run_fused, run_steps
from geococa.formulas import INDICES, parse_formula


def run(formulas, bands, n):
    programs = compile_formulas([parse_formula(text) for text in formulas])
    out = np.empty((len(formulas), n), np.float32)
    evaluate(programs, bands, out)
    return programs, out


@pytest.mark.parametrize("n", [1, 511, 512, 513, 1024, 3000])
def test_any_number_of_pixels_gives_the_same_values_as_one_by_one(n):
    rng = np.random.default_rng(n)
    bands = {name: rng.random(n, dtype=np.float32) for name in ("red", "nir", "blue")}
    formulas = [INDICES[name].formula for name in ("ndvi", "evi", "savi", "sr")]
    _, out = run(formulas, bands, n)
    for i in {0, n // 2, n - 1}:
        _, one = run(formulas, {name: band[i : i + 1].copy() for name, band in bands.items()}, 1)
        np.testing.assert_array_equal(out[:, i], one[:, 0])


def test_formulas_whose_digits_cannot_cancel_run_in_float32_and_stay_within_their_bound():
    rng = np.random.default_rng(0)
    bands = {name: rng.uniform(0, 1, 4000).astype(np.float32) for name in ("red", "nir", "swir16", "blue")}
    formulas = [INDICES[name].formula for name in ("ndvi", "ndmi", "sr", "nirv", "savi", "evi2", "bsi")]
    programs, out = run(formulas, bands, 4000)
    assert [program.dtype for program in programs] == [np.float32]
    exact = {name: band.astype(float) for name, band in bands.items()}
    for text, row in zip(formulas, out, strict=True):
        np.testing.assert_allclose(row, eval(text, {}, exact), rtol=5e-7)  # noqa: S307


def test_formulas_whose_digits_may_cancel_run_in_float64_and_are_rounded_once():
    rng = np.random.default_rng(1)
    bands = {name: rng.uniform(0.1, 0.5, 4000).astype(np.float32) for name in ("red", "nir", "blue", "green")}
    formulas = [INDICES[name].formula for name in ("vari", "evi", "msavi")]
    programs, out = run(formulas, bands, 4000)
    assert {program.dtype for program in programs} == {np.dtype(np.float64)}
    exact = {name: band.astype(float) for name, band in bands.items()}
    for text, row in zip(formulas, out, strict=True):
        np.testing.assert_allclose(row, eval(text, {}, exact), rtol=6.1e-8)  # noqa: S307


@pytest.mark.parametrize("formula", [INDICES["bsi"].formula, "(red + blue - nir) / (red + blue + nir)"])
def test_a_difference_of_sums_that_nearly_cancels_keeps_its_digits(formula):
    rng = np.random.default_rng(2)
    bands = {name: rng.uniform(0.01, 0.6, 20_000).astype(np.float32) for name in ("blue", "red", "swir16")}
    sums = bands["red"] + bands["blue"] + (0 if formula.startswith("(red") else bands["swir16"] - 2 * bands["blue"])
    bands["nir"] = (sums * (1 + rng.integers(-3, 4, 20_000) * 2.0**-24)).astype(np.float32)
    programs, out = run([formula], bands, 20_000)
    exact = {name: band.astype(float) for name, band in bands.items()}
    expected = eval(formula, {}, exact)  # noqa: S307
    assert [program.dtype for program in programs] == [np.float32]
    assert (np.abs(expected) < 1e-6).mean() > 0.9
    np.testing.assert_allclose(out[0], expected, rtol=5e-7)


@pytest.mark.parametrize(
    "formula",
    ["(nir + red / 4 - -blue * 3) / (2 - swir16)", "(nir - nir + red) / (green - 0.5)", "1.0 / (red - nir)"],
)
def test_ratios_of_sums_and_differences_keep_their_digits(formula):
    rng = np.random.default_rng(2)
    names = ("blue", "green", "red", "nir", "swir16")
    bands = {name: rng.uniform(0.01, 0.6, 3000).astype(np.float32) for name in names}
    bands["red"][5] = bands["nir"][7] = np.nan
    _, out = run([formula], bands, 3000)
    exact = {name: band.astype(float) for name, band in bands.items()}
    np.testing.assert_allclose(out[0], eval(formula, {}, exact), rtol=5e-7)  # noqa: S307


@pytest.mark.skipif(not fused.COMPILED, reason="nothing is compiled")
class TestFused:
    FORMULAS = (
        *[index.formula for index in INDICES.values()],
        *("minimum(red, -nir)", "maximum(red, nir)", "abs(red - nir)", "sqrt(blue - red)", "red", "-red", "red"),
        *("1 / (1 / red)", "1 / ((nir - red) / (nir + red))", "minimum(blue - red - nir, green / red)"),
        *("abs(red - blue - nir)", "sqrt(red - blue - nir)", "(red + nir - blue) / (red + nir + blue)"),
    )

    def bands(self, n):
        rng = np.random.default_rng(n)
        names = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "swir16", "swir22")
        bands = {name: rng.uniform(-0.02, 0.7, n).astype(np.float32) for name in names}
        for band in bands.values():
            for special in (np.nan, 0.0, -0.0, np.inf, -np.inf, 3e38, 1e-40, 0.25):
                band[rng.integers(0, n, n // 12)] = special
        return bands

    @pytest.mark.parametrize("n", [5, 16, 999])
    def test_every_value_is_that_of_the_steps_to_the_bit(self, n):
        bands, programs = self.bands(n), compile_formulas([parse_formula(text) for text in self.FORMULAS])
        plain = [program for program in programs if "tanh" not in {value[0] for value in program.values}]
        rows = sorted(row for program in plain for row in program.results)
        assert len(rows) == len(self.FORMULAS) - 1
        made, expected = np.full((2, len(self.FORMULAS), n), 7.0, np.float32)
        run_fused(plain, bands, made)
        run_steps(plain, bands, expected)
        np.testing.assert_array_equal(made[rows], expected[rows])
        assert np.isnan(expected[rows]).any()
        assert (np.signbit(made) == np.signbit(expected))[~np.isnan(made)].all()

    def test_large_images_take_the_loop_and_functions_their_steps(self, monkeypatch):
        n = FUSED_PIXELS + 3
        bands = self.bands(n)
        formulas = [INDICES[name].formula for name in ("ndvi", "kndvi", "evi")]
        _, out = run(formulas, bands, n)
        _, start = run(formulas, {name: band[:100].copy() for name, band in bands.items()}, 100)
        np.testing.assert_array_equal(out[:, :100], start)
        made = []
        monkeypatch.setattr(fused, "fused", lambda text: made.append(text) or (lambda addresses, out: None))
        run(formulas, bands, n)
        assert len(made) == 1
        assert "tanh" not in made[0]

    def test_rows_that_start_anywhere_in_a_cache_line(self):
        bands, programs = self.bands(301), compile_formulas([parse_formula(INDICES["ndvi"].formula)])
        memory = np.empty(400, np.float32)
        expected = np.empty((1, 301), np.float32)
        run_steps(programs, bands, expected)
        for shift in range(17):
            out = memory[shift : shift + 301].reshape(1, 301)
            run_fused(programs, bands, out)
            np.testing.assert_array_equal(out, expected)

    def test_bands_of_another_length_are_refused(self):
        programs = compile_formulas([parse_formula("nir / red")])
        with pytest.raises(ValueError, match="one length"):
            run_fused(programs, {"nir": np.ones(5, np.float32), "red": np.ones(4, np.float32)}, np.ones((1, 5), "f4"))


def test_a_fraction_over_zero_is_not_observed():
    bands = {name: np.zeros(4, np.float32) for name in ("nir", "red")}
    _, out = run(["(nir + 1.0) / (nir + red)", "(2 * nir) / (nir - red)"], bands, 4)
    assert np.isnan(out).all()


def test_shared_parts_are_computed_once():
    programs, _ = run(
        ["nir - red", "(nir - red) * 2", "(nir - red) * 3"], {k: np.ones(3, np.float32) for k in ("nir", "red")}, 3
    )
    assert sum(int((program.code[:, 0] == spectral.SUBTRACT).sum()) for program in programs) == 1


def test_no_step_writes_a_row_that_it_reads():
    programs = compile_formulas([parse_formula(index.formula) for index in INDICES.values()])
    for program in programs:
        for op, to, a, b in program.code:
            if op != spectral.STORE:
                assert to != a
                assert op >= spectral.NEGATE or to != b
                assert to >= len(program.constants)


def test_nan_passes_through_every_operation():
    bands = {"red": np.array([np.nan, 0.5], np.float32), "nir": np.array([0.4, np.nan], np.float32)}
    formulas = [
        "red+nir",
        "red-nir",
        "red*nir",
        "red/nir",
        "(red-nir)/(red+nir)",
        "minimum(red,nir)",
        "maximum(nir,red)",
        "red**2.5*nir",
    ]
    assert np.isnan(run(formulas, bands, 2)[1]).all()
    alone = ["-red", "abs(red)", "sqrt(red)", "exp(red)", "log(red)", "tanh(red)", "red**-1.5"]
    out = run(alone, {"red": bands["red"]}, 2)[1]
    assert np.isnan(out[:, 0]).all()
    assert np.isfinite(out[:, 1]).all()


@pytest.mark.parametrize("dtype", ["single", "double"])
def test_bands_constants_and_values_asked_for_twice_are_stored_where_they_belong(dtype):
    rng = np.random.default_rng(5)
    bands = {name: rng.uniform(0.1, 0.5, 1500).astype(np.float32) for name in ("red", "nir", "blue")}
    extra = [] if dtype == "single" else ["nir - red - blue"]
    formulas = ["red", "nir + red", "red", "(nir + red) * blue", "nir + red", "2 * red", *extra]
    _, out = run(formulas, bands, 1500)
    exact = {name: band.astype(float) for name, band in bands.items()}
    for text, row in zip(formulas, out, strict=True):
        np.testing.assert_allclose(row, eval(text, {}, exact), rtol=3e-7)  # noqa: S307


def test_infinite_and_undefined_results_are_missing():
    bands = {"red": np.array([0, 0, 3e38, 0.5], np.float32), "nir": np.array([0, 0.5, 3e38, -0.5], np.float32)}
    out = run(["(nir-red)/(nir+red)", "nir/red", "nir*red", "red+nir", "1/(nir/red)"], bands, 4)[1]
    assert np.isnan(out).tolist() == [
        [True, False, False, True],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, False],
        [True, True, False, False],
    ]


def test_any_number_of_bands_is_possible():
    bands = {f"b{k}": np.full(9000, 2.0**k, np.float32) for k in range(20)}
    out = run([" + ".join(bands)], bands, 9000)[1]
    assert (out == 2**20 - 1).all()
