"""How often trend tests cry wolf, how often intervals hold the slope, and what a real trend needs to be seen.

Monte Carlo on series without trend (white and AR(1) noise of phi 0.3, 0.5 and 0.7) and with one. The table that it prints is the one in
docs/trend_levels.md:

    python -m benchmarks.trend_levels --series 20000 --write docs/trend_levels.md

pymannkendall, where it is installed, stands beside. A smaller number of series serves the test suite.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path

import numpy as np

from geococa import autocorrelation, breaks, mann_kendall, slopes
from geococa.trend_series import ZoneSeries
from geococa.trend_tests import run_test

LENGTHS = (5, 6, 8, 10, 12, 15, 20, 25, 30)
PHIS = (0.0, 0.3, 0.5, 0.7)
LEVEL = 0.05


def noise(rng, count, n, phi):
    """Stationary AR(1) series of unit innovations, shape (count, n)."""
    e = rng.standard_normal((count, n))
    e[:, 0] /= np.sqrt(1 - phi**2)
    for k in range(1, n):
        e[:, k] += phi * e[:, k - 1]
    return e


def alarms(test, n, phi, count, seed=0, slope=0.0):
    """Share of series with a p-value at most 5 %, and of intervals that hold the slope."""
    rng = np.random.default_rng([seed, n, round(100 * phi)])
    years = np.arange(2001.0, 2001.0 + n)
    series = noise(rng, count, n, phi) + slope * (years - years[0])
    rows = [run_test(ZoneSeries("", years, values), test, 1 - LEVEL) for values in series]
    p = np.array([row["p_value"] for row in rows])
    low, high = (np.array([row[name] for row in rows]) for name in ("slope_low", "slope_high"))
    # an interval that isn't bounded holds every slope
    holds = ~((low > slope) | (high < slope))
    return float((p <= LEVEL).mean()), float(holds.mean())


def peer_alarms(name, n, phi, count, seed=0, slope=0.0):
    """Share of series in which a test of pymannkendall finds a trend; series on which it fails count as no alarm."""
    import warnings

    import pymannkendall

    test = getattr(pymannkendall, name)
    rng = np.random.default_rng([seed, n, round(100 * phi)])
    found = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for values in noise(rng, count, n, phi) + slope * np.arange(n):
            with contextlib.suppress(ZeroDivisionError, ValueError, FloatingPointError):
                found += bool(test(values, alpha=LEVEL).h)
    return found / count


def break_alarms(n, phi, count, seed=0):
    """Share of series without a bend that get one, and that are said to be misled by one line."""
    rng = np.random.default_rng([seed, n, round(100 * phi)])
    years = np.arange(2001.0, 2001.0 + n)
    found = [breaks.segmented(years, values) for values in noise(rng, count, n, phi)]
    return float(np.mean([bool(f.breaks) for f in found])), float(np.mean([f.opposed for f in found]))


def sampling_coverage(n, count, seed=0):
    """Share of landscapes whose true slope lies in the interval propagated from the errors of the estimates.

    The truth wanders (random walk about a line); each year is estimated with an error of its own known size. Coverage of
    the slope of the true hectares of these years by the sampling interval, and of the line behind them by the test's.
    """
    rng = np.random.default_rng([seed, n])
    years = np.arange(2001.0, 2001.0 + n)
    held = 0
    for k in range(count):
        truth = 400 + rng.normal(0, 10) * (years - years[0]) + np.cumsum(rng.normal(0, 15, n))
        se = rng.uniform(10, 40, n)
        estimate = truth + rng.normal(0, se)
        draws = slopes.bootstrap_slopes(years, estimate, se, replicates=1000, seed=k)
        low, high = slopes.normal_interval(mann_kendall.theil_sen(years, estimate), draws, 0.95)
        held += low <= mann_kendall.theil_sen(years, truth) <= high
    return held / count


def percent(share):
    return f"{100 * share:.1f}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def level_tables(count, tests=("auto", "mann_kendall", "mann_kendall_normal", "ols", "gls")):
    levels, coverages = [], []
    for n in LENGTHS:
        for phi in PHIS:
            sizes = {"auto": count if phi < 0.4 else count // 4, "mann_kendall": count // 4}
            found = [alarms(test, n, phi, sizes.get(test, max(count // 20, 200))) for test in tests]
            levels.append([n, phi, *(percent(level) for level, _ in found)])
            coverages.append([n, phi, *(percent(held) for _, held in found)])
            print(*levels[-1], "|", *coverages[-1][2:], file=sys.stderr, flush=True)
    names = ["n", "phi", *(f"`{test}`" for test in tests)]
    return table(names, levels), table(names, coverages)


def peer_table(count):
    try:
        import pymannkendall  # noqa: F401
    except ImportError:
        return "pymannkendall was not installed."
    names = (
        ("original", "original_test"),
        ("Hamed-Rao", "hamed_rao_modification_test"),
        ("Yue-Wang", "yue_wang_modification_test"),
        ("pre-whitening", "pre_whitening_modification_test"),
        ("trend-free pre-whitening", "trend_free_pre_whitening_modification_test"),
    )
    rows = [
        [
            n,
            phi,
            percent(alarms("auto", n, phi, count)[0]),
            *(percent(peer_alarms(name, n, phi, count)) for _, name in names),
        ]
        for n in (5, 8, 10, 15, 20, 30)
        for phi in (0.0, 0.3, 0.5)
    ]
    return table(["n", "phi", "geococa `auto`", *(title for title, _ in names)], rows)


def power_table(count):
    """Power against a slope that white noise would show the exact test in about 80 % of series."""
    rows = []
    for n, slope in ((6, 1.2), (8, 0.62), (10, 0.4), (15, 0.19), (20, 0.12), (30, 0.062)):
        for phi in (0.0, 0.3):
            ours = [alarms(test, n, phi, count, slope=slope)[0] for test in ("auto", "mann_kendall", "gls")]
            try:
                peer = percent(peer_alarms("pre_whitening_modification_test", n, phi, count, slope=slope))
            except ImportError:
                peer = "not installed"
            rows.append([n, slope, phi, *map(percent, ours), peer])
    return table(["n", "slope", "phi", "`auto`", "`mann_kendall`", "`gls`", "pymannkendall pre-whitening"], rows)


def break_table(count):
    rows = [[n, phi, *map(percent, break_alarms(n, phi, count))] for n in (8, 10, 12, 16, 20, 24) for phi in PHIS]
    return table(["n", "phi", "a bend found", "one line misleads"], rows)


def report(count):
    started = time.perf_counter()
    levels, coverages = level_tables(count)
    small = max(count // 20, 200)
    parts = [
        HEAD.format(
            count=count,
            medium=count // 4,
            small=small,
            floor=percent(3 * np.sqrt(LEVEL * (1 - LEVEL) / count)),
            coarse=percent(3 * np.sqrt(LEVEL * (1 - LEVEL) / small)),
        ),
        "## False alarms, per cent (nominal 5)\n",
        levels,
        "\n## Coverage of the 95 % interval of the slope, per cent\n",
        coverages,
        f"\n## Beside pymannkendall, per cent of false alarms ({small:,} series)\n",
        peer_table(small),
        f"\n## Power, per cent ({small:,} series; slope per year in units of the innovations)\n",
        power_table(small),
        f"\n## Bends found where there are none, per cent ({small:,} series)\n",
        break_table(small),
        f"\n## Errors of the estimates carried into the slope ({small:,} landscapes each)\n",
        table(
            ["n", "true slope inside the sampling interval, per cent"],
            [[n, percent(sampling_coverage(n, small))] for n in (3, 5, 8, 12, 20)],
        ),
        TAIL,
    ]
    print(f"{time.perf_counter() - started:.0f} s, phi grid of {autocorrelation.PHI.size}", file=sys.stderr)
    return "\n".join(parts) + "\n"


HEAD = """# How far the trend tests can be trusted

Written by `benchmarks/trend_levels.py` on simulated Gaussian series; phi is the lag-one correlation of their noise. Each figure
of `auto` rests on {count:,} series at phi 0 and 0.3 and {medium:,} at 0.5 and 0.7, of `mann_kendall` on {medium:,}, of the others on
{small:,}. Three standard errors of a level of 5 % are {floor} points with {count:,} series and {coarse} with {small:,}.

`auto` (from 5 years on `mann_kendall_ar1`) averages out the unknown correlation instead of estimating it, see
`geococa.autocorrelation`. A short series says little about its own correlation, so no test can hold 5 % under every correlation
and lose nothing under none. The prior weights were set so that from 10 years on false alarms stay below 5 % for
white noise and below 7 % at phi = 0.3, with intervals that cover 93 to 97 % (within half a point).
"""

TAIL = """
## Reading the tables

- The exact Mann-Kendall test holds its level for white noise only. At phi = 0.3 it gives two to three times the false
  alarms that it promises, and more years make it worse. So do ordinary least squares.
- `auto` is above its level where the correlation is strong and the series short (phi = 0.7, about 10 years), though at about half the false
  alarms of the plain test, and a quarter with 25 years. The column `lag1` of the trend table says what correlation the
  series showed; beyond 0.5 read a p-value just below 0.05 as no evidence.
- With 5 to 8 years correlation can't be told from trend. A verdict then rests on nearly every year agreeing.
- `gls` is close to `auto` in level from 10 years on and finds weak trends a little more often, but trusts the Gaussian curve; with 5 to 8 years it
  gives too many false alarms.
- Plain pre-whitening (pymannkendall) holds its level by removing the trend with the noise: where the others see a trend in about 70 % of
  series, it sees it in 10 to 50 %. Hamed-Rao, Yue-Wang and trend-free pre-whitening do not hold their level.
- A bend is reported when its BIC, with AR(1) noise on both sides, beats the straight line by 8.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=2000, help="series for each row")
    parser.add_argument("--write", type=Path, help="file to write rather than to print")
    options = parser.parse_args()
    text = report(options.series)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
