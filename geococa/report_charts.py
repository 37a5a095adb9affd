"""Geometry of the report's small charts: pixel positions only, the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from geococa.report_tables import ZoneSeries

__all__ = ["Chart", "area_chart", "nice_ticks", "sparkline"]

_TOP, _RIGHT, _AXIS, _STRIP = 10.0, 12.0, 18.0, 9.0


@dataclass
class Chart:
    """Positions in the units of the SVG's view box; paths are ``d`` attributes, empty where there is nothing.

    ``points`` hold (x, y, position of the year, well observed); ``truth`` and ``reference`` (x, y, position);
    ``strip`` (x, width, full width, position) of the unobserved share under each year.
    """

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    y_ticks: list[tuple[float, str]]
    x_ticks: list[tuple[float, str, str]]
    line: str = ""
    band: str = ""
    estimate: str = ""
    trend: str = ""
    wedge: str = ""
    points: list[tuple[float, float, int, bool]] = field(default_factory=list)
    whiskers: list[tuple[float, float, float, int]] = field(default_factory=list)
    truth: list[tuple[float, float, int]] = field(default_factory=list)
    reference: list[tuple[float, float, int]] = field(default_factory=list)
    reference_range: list[tuple[float, float, float, int]] = field(default_factory=list)
    strip_y: float = 0.0
    strip_height: float = _STRIP
    strip: list[tuple[float, float, float, int]] = field(default_factory=list)


def nice_ticks(largest: float, most: int = 5) -> list[float]:
    """Round axis values from 0 to at least ``largest``, at most ``most`` steps.

    Examples
    --------
    >>> nice_ticks(87.0)
    [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    """
    if not math.isfinite(largest) or largest <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(largest / most))
    step = next(power * m for m in (1, 2, 2.5, 5, 10, 20) if power * m * most >= largest * (1 - 1e-12))
    count = math.ceil(largest / step - 1e-9)
    return [round(step * i, 10) for i in range(count + 1)]


def area_chart(series: ZoneSeries, *, width: float, height: float, min_observed_share: float) -> Chart:
    """Lay out the chart of one zone.

    Parameters
    ----------
    series : ZoneSeries
        Hectares a year.
    width, height : float
        View box.
    min_observed_share : float
        Years observed less are drawn hollow.
    """
    others = ("estimate", "high", "truth", "reference", "reference_high")
    shown = [series.area_ha, *(series.extra.get(k, np.empty(0)) for k in others)]
    values = np.concatenate(shown)
    largest = float(np.nanmax(values)) if np.isfinite(values).any() else 0.0
    ticks = nice_ticks(largest)
    labels = [_tick(tick, ticks) for tick in ticks]
    left = max(30.0, 9.0 + 6.4 * max(len(label) for label in labels))
    bottom = height - _AXIS - _STRIP - 5
    right = width - _RIGHT
    top = _TOP

    def y_of(value: float) -> float:
        return round(bottom - (bottom - top) * value / ticks[-1], 2)

    numbers = _positions(series.years)
    slot = (right - left) / max(numbers[-1] - numbers[0] + 1, 1)
    xs = [round(left + slot * (n - numbers[0] + 0.5), 2) for n in numbers]
    chart = Chart(
        width,
        height,
        left,
        right,
        top,
        bottom,
        [(y_of(t), s) for t, s in zip(ticks, labels, strict=True)],
        _x_ticks(series.years, xs, slot),
    )
    chart.line = _segments(xs, series.area_ha, y_of)
    for i, value in enumerate(series.area_ha):
        if math.isfinite(value):
            chart.points.append((xs[i], y_of(float(value)), i, bool(series.observed[i] >= min_observed_share)))
    for name, target in (("truth", chart.truth), ("reference", chart.reference)):
        for i, value in enumerate(series.extra.get(name, ())):
            if math.isfinite(value):
                target.append((xs[i], y_of(float(value)), i))
    _add_interval(chart, series, xs, y_of)
    _add_reference_range(chart, series, xs, y_of)
    _add_trend(chart, series, xs, numbers, y_of)
    chart.strip_y = bottom + _AXIS
    bar = min(slot * 0.72, 26.0)
    for i, share in enumerate(series.observed):
        unseen = 1.0 - float(share) if math.isfinite(share) else 1.0
        chart.strip.append((round(xs[i] - bar / 2, 2), round(bar * unseen, 2), round(bar, 2), i))
    return chart


def sparkline(series: ZoneSeries, width: float = 96.0, height: float = 24.0) -> tuple[str, float, float]:
    """Path of a word-sized chart from 0 to the largest value, and its last point (NaN where not observed)."""
    finite = series.area_ha[np.isfinite(series.area_ha)]
    largest = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    numbers = _positions(series.years)
    span = max(numbers[-1] - numbers[0], 1)
    xs = [round(3 + (width - 6) * (n - numbers[0]) / span, 1) for n in numbers]

    def y_of(value: float) -> float:
        return round(height - 3 - (height - 6) * value / largest, 1)

    last = float(series.area_ha[-1])
    return _segments(xs, series.area_ha, y_of), xs[-1], y_of(last) if math.isfinite(last) else math.nan


def _positions(years: tuple[int | None, ...]) -> list[int]:
    return [i if year is None else year for i, year in enumerate(years)]


def _tick(value: float, ticks: list[float]) -> str:
    """Label of an axis value, with the fewest decimals that show every tick exactly."""
    digits = next((d for d in range(6) if all(abs(round(t, d) - t) < 1e-9 for t in ticks)), 6)
    return f"{value:,.{digits}f}".replace(",", "\u202f") if value else "0"


def _x_ticks(years: tuple[int | None, ...], xs: list[float], slot: float) -> list[tuple[float, str, str]]:
    """Years that fit: always the first and last, the ones between where 30 units separate them."""
    if years[0] is None:
        return []
    every = max(1, math.ceil(30.0 / slot))
    ticks = [(xs[-1], str(years[-1]), "middle")]
    for i in range(len(years) - 1 - every, -1, -every):
        ticks.append((xs[i], str(years[i]), "middle"))
    return ticks[::-1]


def _segments(xs: list[float], values: np.ndarray, y_of: Callable[[float], float]) -> str:
    """Path through finite values, broken where a year is missing."""
    path, pen = [], "M"
    for x, value in zip(xs, values, strict=True):
        if not math.isfinite(value):
            pen = "M"
            continue
        path.append(f"{pen}{x} {y_of(float(value))}")
        pen = "L"
    return "".join(path)


def _add_interval(chart: Chart, series: ZoneSeries, xs: list[float], y_of: Callable[[float], float]) -> None:
    low, high = series.extra.get("low"), series.extra.get("high")
    if low is None or high is None:
        return
    runs: list[list[int]] = [[]]
    for i in range(len(xs)):
        if math.isfinite(low[i]) and math.isfinite(high[i]):
            runs[-1].append(i)
            chart.whiskers.append((xs[i], y_of(max(float(low[i]), 0.0)), y_of(float(high[i])), i))
        elif runs[-1]:
            runs.append([])
    for run in runs:
        if len(run) > 1:
            upper = "L".join(f"{xs[i]} {y_of(float(high[i]))}" for i in run)
            lower = "L".join(f"{xs[i]} {y_of(max(float(low[i]), 0.0))}" for i in reversed(run))
            chart.band += f"M{upper}L{lower}Z"
    if "estimate" in series.extra:
        chart.estimate = _segments(xs, series.extra["estimate"], y_of)


def _add_reference_range(chart: Chart, series: ZoneSeries, xs: list[float], y_of: Callable[[float], float]) -> None:
    low, high = series.extra.get("reference_low"), series.extra.get("reference_high")
    if low is None or high is None:
        return
    for i, x in enumerate(xs):
        if math.isfinite(low[i]) and math.isfinite(high[i]):
            chart.reference_range.append((x, y_of(max(float(low[i]), 0.0)), y_of(float(high[i])), i))


def _add_trend(
    chart: Chart, series: ZoneSeries, xs: list[float], numbers: list[int], y_of: Callable[[float], float]
) -> None:
    """Theil-Sen line through the median of the residuals; its interval pivots on the middle of the years."""
    slope = float(series.trend.get("slope_ha_per_year", math.nan))
    seen = np.isfinite(series.area_ha)
    if not math.isfinite(slope) or seen.sum() < 2:
        return
    years = np.asarray(numbers, dtype=np.float64)
    intercept = float(np.median(series.area_ha[seen] - slope * years[seen]))
    first, last = years[seen][0], years[seen][-1]
    x_first, x_last = (xs[numbers.index(int(year))] for year in (first, last))
    chart.trend = f"M{x_first} {y_of(intercept + slope * first)}L{x_last} {y_of(intercept + slope * last)}"
    low, high = (float(series.trend.get(name, math.nan)) for name in ("slope_low", "slope_high"))
    if math.isfinite(low) and math.isfinite(high):
        middle = float(np.median(years[seen]))
        level = intercept + slope * middle
        x_middle = round(x_first + (x_last - x_first) * (middle - first) / (last - first), 2)

        def at(year: float, rate: float) -> float:
            return y_of(level + rate * (year - middle))

        chart.wedge = (
            f"M{x_middle} {y_of(level)}L{x_first} {at(first, low)}L{x_first} {at(first, high)}Z"
            f"M{x_middle} {y_of(level)}L{x_last} {at(last, low)}L{x_last} {at(last, high)}Z"
        )
