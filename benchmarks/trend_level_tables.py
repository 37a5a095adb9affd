"""Tables and chart of docs/trend_levels.md, from what `benchmarks.trend_levels` and `benchmarks.slope_coverage` measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

DOCS = Path(__file__).parent.parent / "docs"
PEERS = ("original", "Hamed-Rao", "Yue-Wang", "pre-whitening", "trend-free pre-whitening")


def percent(share):
    return f"{100 * share:.1f}"


def finer(share):
    return f"{100 * share:.2f}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def cell(results, part, key, place, write=percent):
    found = results.get(part, {}).get(key)
    return "" if found is None else write(found[place])


def sizes(part):
    """How many series a part rests on, smallest to largest."""
    counts = sorted({row[0] for row in part.values()})
    return " to ".join(f"{n:,}" for n in dict.fromkeys((counts[0], counts[-1]))) if counts else "0"


def beside_peers(results):
    """False alarms of our tests and of pymannkendall's on the same series."""
    rows = []
    for phi in (0.0, 0.3):
        for n in (5, 8, 10, 15, 20, 30):
            ours = [cell(results, "levels", f"{test} {n} {phi}", 1) for test in ("auto", "mann_kendall")]
            ours += [cell(results, "others", f"{test} {n} {phi}", 1) for test in ("ols", "gls")]
            rows.append([phi, n, *ours, *(cell(results, "peers", f"{test} {n} {phi}", 1) for test in PEERS)])
    return table(["phi", "n", "**`auto`**", "`mann_kendall`", "`ols`", "`gls`", *(f"*{p}*" for p in PEERS)], rows)


def every_length(results):
    """The default test from 5 to 30 years: false alarms and coverage."""
    rows = []
    for n in range(5, 31):
        row = [n]
        for place in (1, 2):
            row += [cell(results, "levels", f"auto {n} {phi}", place, finer) for phi in (0.0, 0.3)]
            row += [cell(results, "levels", f"mann_kendall {n} {phi}", place, finer) for phi in (0.0, 0.3)]
        rows.append(row)
    head = [
        f"{what} `{test}`, phi {phi}" for what in ("alarms", "coverage") for test in ("auto", "MK") for phi in (0, 0.3)
    ]
    return table(["n", *head], rows)


def stronger(results):
    rows = [
        [n, phi, *(cell(results, "levels", f"{test} {n} {phi}", 1) for test in ("auto", "mann_kendall"))]
        for n in (5, 8, 10, 15, 20, 30)
        for phi in (0.5, 0.7)
        if f"auto {n} {phi}" in results["levels"]
    ]
    return table(["n", "phi", "`auto`", "`mann_kendall`"], rows)


def power(results):
    rows = []
    for key, found in results.get("power", {}).items():
        if key.startswith("auto "):
            n, phi = key.split()[1:]
            names = ("auto", "mann_kendall", "gls", "pre-whitening")
            shares = [cell(results, "power", f"{test} {n} {phi}", 1) for test in names]
            if all(shares):
                rows.append([int(n), found[2], float(phi), *shares])
    rows.sort(key=lambda row: (row[0], row[2]))
    return table(["n", "slope", "phi", "`auto`", "`mann_kendall`", "`gls`", "*pre-whitening*"], rows)


def bends(results):
    rows = sorted([*map(float, key.split()), *row[1:]] for key, row in results.get("breaks", {}).items())
    return table(
        ["n", "phi", "a bend found", "one line misleads"], [[f"{n:g}", phi, *map(percent, v)] for n, phi, *v in rows]
    )


def slope_coverage(results):
    names = {"plots": "plots, planted and cleared", "polygons": "polygons, as in the simulated archive"}
    designs = {"panel": "panel, with its covariance", "fresh": "fresh points each year"}
    rows = []
    for world, name in names.items():
        for design, what in designs.items():
            found = results.get(f"landscapes {world}", {}).get(design)
            if found:
                n, held, bias, ratio = found
                error = 100 * np.sqrt(held * (1 - held) / n)
                rows.append([name, what, f"{n:,}", f"{100 * held:.1f} (± {error:.1f})", f"{bias:+.3f}", f"{ratio:.3f}"])
    return table(["landscapes", "sample", "number", "coverage, %", "bias, SE", "mean SE / true SE"], rows)


def draw(results):
    """False alarms against the length of the series, white noise on the left, phi 0.3 on the right."""
    import matplotlib.pyplot as plt

    styles = {
        "auto": ("levels", "geococa auto", "#0072b2", "-"),
        "mann_kendall": ("levels", "geococa mann_kendall", "#56b4e9", "--"),
        "Hamed-Rao": ("peers", "pymannkendall Hamed-Rao", "#d55e00", "-"),
        "Yue-Wang": ("peers", "pymannkendall Yue-Wang", "#cc79a7", "-"),
        "pre-whitening": ("peers", "pymannkendall pre-whitening", "#009e73", "-"),
        "trend-free pre-whitening": ("peers", "pymannkendall trend-free p.-w.", "#e69f00", "-"),
    }
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    for axes, phi, bar in zip(panels, (0.0, 0.3), (5, 7), strict=True):
        axes.axhspan(0, bar, color="#dfe8df", zorder=0)
        for test, (part, label, color, line) in styles.items():
            found = results.get(part, {})
            points = [(n, 100 * found[f"{test} {n} {phi}"][1]) for n in range(5, 31) if f"{test} {n} {phi}" in found]
            if points:
                axes.plot(*zip(*points, strict=True), line, color=color, label=label, marker="o", markersize=3)
        title = "white noise" if phi == 0 else f"AR(1) noise, phi {phi}"
        axes.set_title(f"{title}; shaded: up to {bar} %", loc="left", fontsize=10)
        axes.set_xlabel("years")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("false alarms at 5 %, per cent")
    panels[0].set_ylim(0, None)
    panels[0].legend(fontsize=8, frameon=False)
    figure.savefig(DOCS / "images" / "trend_levels.png", dpi=110, metadata={"Software": None})


def write_document(results):
    """Write docs/trend_levels.md and draw its chart."""
    worst = {
        (phi, place): pick(results["levels"][f"auto {n} {phi}"][place] for n in range(first, 31))
        for phi, place, pick, first in ((0.0, 1, max, 5), (0.3, 1, max, 10), (0.0, 2, max, 10), (0.3, 2, min, 10))
    }
    draw(results)
    text = TEXT.format(
        levels=sizes(results["levels"]), others=sizes(results["others"]), peers=sizes(results["peers"]),
        power_size=sizes(results["power"]), breaks_size=sizes(results["breaks"]),
        white=finer(worst[0.0, 1]), correlated=finer(worst[0.3, 1]), high=finer(worst[0.0, 2]), low=finer(worst[0.3, 2]),
        beside=beside_peers(results), every=every_length(results), stronger=stronger(results), power=power(results),
        bends=bends(results), slopes=slope_coverage(results),
    )  # fmt: skip
    (DOCS / "trend_levels.md").write_text(text, encoding="utf-8")


TEXT = """# How far the trend tests can be trusted

Measured by `benchmarks/trend_levels.py` on simulated Gaussian series without a trend, and by `benchmarks/slope_coverage.py` on
landscapes of known truth. phi is the lag-one correlation of the noise (0 = white), n the number of years. A false alarm is a
p-value of at most 0.05 where there is no trend. The methods are explained in [Trends](trends.md).

**In short.** `auto`, the default, gives at most {white} % false alarms on white noise (n = 5 to 30) and at most {correlated} % with phi 0.3
(n = 10 to 30), nominal 5 %. From 10 years on its 95 % interval covers the slope in {low} % (lowest, phi 0.3) to {high} % (highest,
white noise) of series. Of pymannkendall's five tests pre-whitening alone holds its level on correlated years, and
misses most trends of 6 and 8 years that the others find (see power).

![False alarms against the number of years](images/trend_levels.png)

## Beside pymannkendall: false alarms, per cent (nominal 5)

pymannkendall 1.4.3 in *italics*, on the first of the same series. Series: {levels} a cell for `auto` and `mann_kendall`,
{others} for `ols` and `gls`, {peers} for pymannkendall. Three standard errors of 5 % are 0.5 points with 20,000 series and 1.5 with 2,000.

{beside}

## Every length: the default test and the exact Mann-Kendall test

False alarms and coverage of the 95 % interval of the slope, per cent. An interval that is not bounded (few years) covers.

{every}

## Stronger correlation: false alarms, per cent

{stronger}

## Power, per cent

Slope per year in units of the noise's innovations, chosen so that the exact test finds it in about 80 % of series of white noise;
{power_size} series a cell. With phi 0.3 the exact test's share holds its own false alarms.

{power}

## Bends found where there are none, per cent

{breaks_size} series a cell.

{bends}

## Errors of the estimates carried into the slope

Simulated landscapes, 6 years; hectares of coca in the parks estimated each year from 300 to 600 points; slope of the estimates by
`area_trend`. The slope of the true hectares of these years should lie in `slope_low_sampling` to `slope_high_sampling` in 93 to 97 %
of landscapes. A panel looks at the same points every year, so its years share errors: `covariance=` carries them.

{slopes}

## Reading the tables

- The exact Mann-Kendall test holds its level for independent years only. With phi 0.3 and 10 years or more it gives more than twice the
  false alarms that it promises, and more years make it worse. So do ordinary least squares.
- No test can hold 5 % under every correlation and lose nothing under none: a short series says little about its own correlation.
  `auto` averages the correlation out; the share of its prior on independent years was set by simulation so that both bars hold from 10
  years on, with little to spare at 10 and 11 years: those two rest on four times as many series.
- With stronger correlation `auto` is above its level too, at about half the false alarms of the exact test. The column `lag1` says
  what correlation the series showed; beyond 0.5 read a p-value just below 0.05 as no evidence.
- Bends are rarely found where there are none up to phi 0.3, and in up to one of seven series at phi 0.7. Two pieces that go opposite ways
  withhold a verdict; they never make one.
- Hamed-Rao and Yue-Wang do not hold their level even on white noise, trend-free pre-whitening not on correlated years.
"""
