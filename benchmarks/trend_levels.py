"""How often trend tests cry wolf, how often intervals hold the slope, and what a real trend needs to be seen.

Monte Carlo on Gaussian series without trend (white noise and AR(1) of phi 0.3, 0.5, 0.7) and with one, the tests of
pymannkendall beside ours on the same series. Every part adds to results/trend_levels.json and may run beside the others:

    python -m benchmarks.trend_levels --part levels --series 20000
    python -m benchmarks.trend_levels --part others --series 20000
    python -m benchmarks.trend_levels --part peers --series 20000
    python -m benchmarks.trend_levels --part power --series 2000
    python -m benchmarks.trend_levels --part breaks --series 2000
    python -m benchmarks.trend_levels --write

The last one writes the tables into docs/trend_levels.md and draws docs/images/trend_levels.png.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import warnings
from pathlib import Path
from statistics import NormalDist

import numpy as np
from filelock import FileLock

from benchmarks.trend_level_tables import write_document
from geococa import autocorrelation, breaks, mann_kendall
from geococa.trend_series import ZoneSeries
from geococa.trend_tests import run_test

RESULTS = Path(__file__).parent / "results" / "trend_levels.json"
LOCK = Path(tempfile.gettempdir()) / "geococa_trend_levels.lock"
LENGTHS = tuple(range(5, 31))
SOME = (5, 8, 10, 15, 20, 30)
LEVEL = 0.05
CHUNK = 2000
NARROW = (10, 11)
NARROW_TIMES = 4
"""Lengths whose coverage lies close to 93 and 97 per cent, and how many times as many series they take."""

BATCHED = ("auto", "mann_kendall", "mann_kendall_normal")
PEERS = {
    "original": "original_test",
    "Hamed-Rao": "hamed_rao_modification_test",
    "Yue-Wang": "yue_wang_modification_test",
    "pre-whitening": "pre_whitening_modification_test",
    "trend-free pre-whitening": "trend_free_pre_whitening_modification_test",
}
SLOPES = {6: 1.2, 8: 0.62, 10: 0.4, 15: 0.19, 20: 0.12, 30: 0.062}
"""Slopes that white noise would show the exact test in about 80 % of series."""


def noise(rng, count, n, phi):
    """Stationary AR(1) series of unit innovations, shape (count, n)."""
    e = rng.standard_normal((count, n))
    e[:, 0] /= np.sqrt(1 - phi**2)
    for k in range(1, n):
        e[:, k] += phi * e[:, k - 1]
    return e


def drawn(count, n, phi, slope=0.0, seed=0):
    """Years and series; fewer series of one cell are the first of more."""
    rng = np.random.default_rng([seed, n, round(100 * phi)])
    years = np.arange(2001.0, 2001.0 + n)
    return years, noise(rng, count, n, phi) + slope * (years - years[0])


def many(test, years, series, slope):
    """P-value of every series, and whether its interval holds the slope, for many series of distinct values at once.

    By the functions behind `area_trend`. An interval holds a slope if the series less the slope has an S that is accepted.
    """
    ones = (1,) * years.size
    s, _ = scores(years, series, 0.0)
    steps, between = scores(years, series, slope)
    if test == "auto":
        null = autocorrelation.ar1_null(years, series, ties=False)
        # as `critical` finds it, without the continuity correction of p_value
        return null.p_value(s), null.p_value(np.abs(between) + 1) >= LEVEL
    if test == "mann_kendall":
        known = {int(v): mann_kendall.exact_p_value(int(v), ones) for v in np.unique(s)}
        return np.array([known[int(v)] for v in s]), np.abs(steps) <= mann_kendall.critical_s(years.size, 1 - LEVEL)
    variance = mann_kendall.kendall_variance(ones)
    p = np.array([mann_kendall.normal_test(v, variance)[1] for v in s])
    return p, np.abs(between) <= NormalDist().inv_cdf(1 - LEVEL / 2) * np.sqrt(variance) + 1


def scores(years, series, slope):
    """Kendall's S of the series less a slope, and S as it runs linearly from one pairwise slope to the next."""
    i, j = np.triu_indices(years.size, 1)
    slopes = np.sort((series[:, j] - series[:, i]) / (years[j] - years[i]), axis=1)
    pairs, below = slopes.shape[1], (slopes < slope).sum(axis=1)
    row, k = np.arange(len(series)), np.clip(below - 1, 0, pairs - 2)
    rank = k + (slope - slopes[row, k]) / (slopes[row, k + 1] - slopes[row, k])
    # an interval ends at the outermost slopes, or nowhere
    between = np.where((below == 0) | (below == pairs), pairs - 1, pairs - 1 - 2 * rank)
    return pairs - 2 * below, between


def one_by_one(test, years, series, slope):
    """The same by `run_test`, series after series; an interval that isn't bounded holds every slope."""
    rows = [run_test(ZoneSeries("", years, values), test, 1 - LEVEL) for values in series]
    p, low, high = (np.array([row[name] for row in rows]) for name in ("p_value", "slope_low", "slope_high"))
    return p, ~((low > slope) | (high < slope))


def alarms(test, n, phi, count, slope=0.0):
    """Share of series with a p-value at most 5 %, and of intervals that hold the slope."""
    years, series = drawn(count, n, phi, slope)
    found = []
    for start in range(0, count, CHUNK):
        part = series[start : start + CHUNK]
        if test not in BATCHED:
            found.append(one_by_one(test, years, part, slope))
            continue
        found.append(many(test, years, part, slope))
        # the batch is a shortcut: it has to say what a user of the test is told
        p, holds = one_by_one(test, years, part[:20], slope)
        np.testing.assert_allclose(found[-1][0][:20], p, rtol=1e-9)
        np.testing.assert_array_equal(found[-1][1][:20], holds)
    p, holds = (np.concatenate(column) for column in zip(*found, strict=True))
    return float((p <= LEVEL).mean()), float(holds.mean())


def peer_alarms(test, series):
    """How many series a test of pymannkendall calls a trend; series on which it fails count as no alarm."""
    import pymannkendall

    found = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for values in series:
            with contextlib.suppress(ZeroDivisionError, ValueError, FloatingPointError):
                found += bool(getattr(pymannkendall, PEERS[test])(values, alpha=LEVEL).h)
    return found


def add(part, key, value, quiet=False):
    """Put one cell into the results, beside what other parts add."""
    with FileLock(LOCK):
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results.setdefault(part, {})[key] = value
        RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    if not quiet:
        print(part, key, value, file=sys.stderr, flush=True)


def known(part):
    return json.loads(RESULTS.read_text()).get(part, {}) if RESULTS.exists() else {}


def measure_levels(count, part="levels", tests=("auto", "mann_kendall")):
    """Tests that run in batches: every length at phi 0 and 0.3, some at 0.5 and 0.7."""
    for phi in (0.0, 0.3, 0.5, 0.7):
        for n in LENGTHS if phi < 0.4 else SOME:
            for test in tests:
                size = count * (NARROW_TIMES if n in NARROW and test == "auto" else 1)
                if known(part).get(f"{test} {n} {phi}", [0])[0] < size:
                    add(part, f"{test} {n} {phi}", [size, *alarms(test, n, phi, size)])


def measure_others(count):
    for test, share in (("mann_kendall_normal", 1), ("ols", 10), ("gls", 10)):
        for n in SOME:
            for phi in (0.0, 0.3, 0.5):
                size = max(count // share, 200)
                add("others", f"{test} {n} {phi}", [size, *alarms(test, n, phi, size)])


def measure_peers(count):
    """Chunk after chunk over all cells, so that an early stop leaves the same number of series everywhere."""
    for stop in range(CHUNK, count + CHUNK, CHUNK):
        for n in SOME:
            for phi in (0.0, 0.3):
                series = drawn(min(stop, count), n, phi)[1]
                for test in PEERS:
                    key = f"{test} {n} {phi}"
                    done, found = known("peers").get(key, [0, 0.0])
                    if done < len(series):
                        found = found * done + peer_alarms(test, series[done:])
                        add("peers", key, [len(series), found / len(series)])


def measure_power(count):
    for n, slope in SLOPES.items():
        for phi in (0.0, 0.3):
            for test in ("auto", "mann_kendall", "gls"):
                size = count if test in BATCHED else max(count // 2, 200)
                add("power", f"{test} {n} {phi}", [size, alarms(test, n, phi, size, slope)[0], slope])
            size = max(count // 2, 200)
            found = peer_alarms("pre-whitening", drawn(size, n, phi, slope)[1]) / size
            add("power", f"pre-whitening {n} {phi}", [size, found, slope])


def measure_breaks(count):
    """Share of series without a bend that get one, and that are said to be misled by one line."""
    for n in (8, 10, 12, 16, 20, 24):
        for phi in (0.0, 0.3, 0.5, 0.7):
            years, series = drawn(count, n, phi)
            found = [breaks.segmented(years, values) for values in series]
            shares = [float(np.mean([bool(f.breaks) for f in found])), float(np.mean([f.opposed for f in found]))]
            add("breaks", f"{n} {phi}", [count, *shares])


PARTS = {
    "levels": measure_levels,
    "others": measure_others,
    "peers": measure_peers,
    "power": measure_power,
    "breaks": measure_breaks,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", default=[], help="what to measure")
    parser.add_argument("--series", type=int, default=2000, help="series for each cell")
    parser.add_argument("--write", action="store_true", help="write docs/trend_levels.md and its chart")
    options = parser.parse_args()
    for part in options.part:
        PARTS[part](options.series)
    if options.write:
        write_document(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
