"""The program kernel: operations, precision and strips."""

from __future__ import annotations

import numpy as np
import pytest

from geococa._kernels import spectral
from geococa.formula_program import Fractions, Program, compile_formulas, evaluate
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
    bands = {name: rng.uniform(0, 1, 4000).astype(np.float32) for name in ("red", "nir", "swir16")}
    formulas = [INDICES[name].formula for name in ("ndvi", "ndmi", "sr", "nirv")]
    programs, out = run(formulas, bands, 4000)
    assert [program.dtype for program in programs] == [np.float32]
    exact = {name: band.astype(float) for name, band in bands.items()}
    for text, row in zip(formulas, out, strict=True):
        np.testing.assert_allclose(row, eval(text, {}, exact), rtol=5e-7)  # noqa: S307


def test_formulas_whose_digits_may_cancel_run_in_float64_and_are_rounded_once():
    rng = np.random.default_rng(1)
    bands = {name: rng.uniform(0.1, 0.5, 4000).astype(np.float32) for name in ("red", "nir", "blue", "swir16")}
    formulas = [INDICES[name].formula for name in ("bsi", "evi", "msavi")]
    programs, out = run(formulas, bands, 4000)
    assert {program.dtype for program in programs} == {np.dtype(np.float64)}
    exact = {name: band.astype(float) for name, band in bands.items()}
    for text, row in zip(formulas, out, strict=True):
        np.testing.assert_allclose(row, eval(text, {}, exact), rtol=6.1e-8)  # noqa: S307


@pytest.mark.parametrize(
    ("formula", "single"),
    [
        (INDICES["evi"].formula, True),
        (INDICES["bsi"].formula, True),
        (INDICES["savi"].formula, True),
        ("(nir + red / 4 - -blue * 3) / (2 - swir16)", True),
        ("(nir - nir + red) / (green - 0.5)", True),
        ("1.0 / (red - nir)", True),
        (INDICES["ndvi"].formula, False),
        ("nir / red", False),
        ("(nir * red) / (nir + red + 1)", False),
        ("(blue + green + red + nir + swir16) / (blue + 1)", False),
        ("(nir - red) / (nir / blue)", False),
        ("red / 2", False),
    ],
)
def test_ratios_of_linear_combinations_of_four_bands_are_one_step(formula, single):
    rng = np.random.default_rng(2)
    names = ("blue", "green", "red", "nir", "swir16")
    bands = {name: rng.uniform(0.01, 0.6, 3000).astype(np.float32) for name in names}
    bands["red"][5] = bands["nir"][7] = np.nan
    programs, out = run([formula], bands, 3000)
    assert isinstance(programs[0], Fractions) == single
    exact = {name: band.astype(float) for name, band in bands.items()}
    np.testing.assert_allclose(out[0], eval(formula, {}, exact), rtol=5e-7)  # noqa: S307


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
    for program in [program for program in programs if isinstance(program, Program)]:
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
