"""Figures of tables: hectares a year, error matrix, transitions, distance to the edge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import optional_import
from geococa.errors import InputRefused
from geococa.legend import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "area_series_figure",
    "edge_profile_figure",
    "error_matrix_figure",
    "plain_text",
    "reliability_diagram",
    "transitions_figure",
]

_INK, _SOFT, _COCA, _TRUTH, _GREY = "#17211d", "#55615b", "#b8124f", "#00629c", "#8f979e"
_PUBLISHED = "#a35200"


def area_series_figure(
    areas: xr.Dataset,
    *,
    zones: Sequence[str] | None = None,
    class_name: str = "coca",
    intervals: pd.DataFrame | None = None,
    truth: pd.DataFrame | None = None,
    trends: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    columns: int = 3,
    width_in: float = 7.5,
) -> Figure:
    """Hectares a year in small multiples, one panel a zone, with the share that could not be seen below.

    Parameters
    ----------
    areas : xarray.Dataset
        As `geococa.zonal_area` gives them, with ``time``.
    zones : sequence of str, optional
        Zones to draw, in this order; the nine with most hectares where not given.
    class_name : str
        Class.
    intervals : pandas.DataFrame, optional
        ``zone``, ``year``, ``ci_low_ha``, ``ci_high_ha``.
    truth : pandas.DataFrame, optional
        ``zone``, ``year``, ``area_ha`` (or ``true_ha``) of simulated data.
    trends : pandas.DataFrame, optional
        From `geococa.area_trend`: a line through the median of the residuals with the interval of its slope, which turns
        on the middle of the years, and dotted lines at the ``breaks``.
    reference : pandas.DataFrame, optional
        Published hectares: ``zone``, ``year``, ``area_ha``, perhaps ``low_ha`` and ``high_ha``.
    columns : int
        Panels in a row.
    width_in : float
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputRefused
        A zone is not in the areas.
    """
    area = areas["area_ha"].sel(land_cover=class_name)
    known = [str(name) for name in areas["zone"].values]
    chosen = (
        list(zones)
        if zones is not None
        else [str(z) for z in area.sum("time").sortby(area.sum("time"))["zone"].values[::-1][:9]]
    )
    unknown = [zone for zone in chosen if zone not in known]
    if unknown or not chosen:
        raise InputRefused(f"no zones {unknown} in the areas, which have {known[:10]}")
    years = areas["time"].dt.year.values
    columns = min(columns, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = _figure(width_in, 0.4 + 2.0 * rows)
    for panel, zone in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, panel + 1)
        total = float(areas["zone_ha"].sel(zone=zone))
        seen = areas["area_ha"].sel(zone=zone).sum("land_cover").values / total
        hectares = np.where(seen > 0, area.sel(zone=zone).values, np.nan)
        _interval(axes, intervals, zone)
        axes.plot(years, hectares, color=_COCA, linewidth=1.6, marker="o", markersize=3.5, label="mapped")
        _truth(axes, truth, zone)
        _reference(axes, reference, zone)
        _trend(axes, trends, zone, years, hectares)
        largest = max(axes.get_ylim()[1], float(np.nanmax(hectares, initial=0.0)) * 1.12, 1e-3)
        axes.set_ylim(-0.12 * largest, largest)
        axes.bar(
            years,
            -0.08 * largest * (1 - seen),
            bottom=-0.02 * largest,
            width=0.6,
            color=_GREY,
            label="share not observed",
        )
        axes.axhline(0, color=_SOFT, linewidth=0.7)
        axes.set_title(plain_text(zone), loc="left", fontweight="bold", fontsize=9)
        _year_axis(axes, years)
        if panel % columns == 0:
            axes.set_ylabel(f"{class_name.replace('_', ' ')} (ha)")
        ticks = [tick for tick in axes.get_yticks() if 0 <= tick <= largest]
        axes.set_yticks(ticks)
        axes.set_ylim(-0.12 * largest, largest)
    # a panel may lack what another has: the legend is that of all of them
    found = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=min(4, len(found)),
        frameon=False,
        fontsize=8,
    )
    return figure


def error_matrix_figure(matrix: pd.DataFrame, *, title: str | None = None, width_in: float = 5.5) -> Figure:
    """Error matrix: counts in the cells, colour by the share of the row, user's and producer's accuracy at the margins.

    Parameters
    ----------
    matrix : pandas.DataFrame
        Counts or proportions; rows are the map, columns the reference, same classes in the same order. The margins are
        those of the table as given: estimates only where it holds proportions of area.
    title : str, optional
        Title.
    width_in : float
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputRefused
        Rows and columns name different classes.
    """
    names = [str(name) for name in matrix.columns]
    if [str(name) for name in matrix.index] != names:
        raise InputRefused(
            f"rows {list(map(str, matrix.index))} and columns {names} must be the same classes in the same order"
        )
    values = matrix.to_numpy(dtype=np.float64)
    size = len(names)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = values / values.sum(axis=1, keepdims=True)
        users = np.diag(values) / values.sum(axis=1)
        producers = np.diag(values) / values.sum(axis=0)
    figure = _figure(width_in, width_in * (size + 1.6) / (size + 2.6))
    axes = figure.add_subplot()
    axes.imshow(
        np.nan_to_num(share), cmap="Blues", vmin=0, vmax=1, aspect="auto", extent=(-0.5, size - 0.5, size - 0.5, -0.5)
    )
    whole = bool(np.all(values == np.round(values)))
    for i in range(size):
        for j in range(size):
            axes.text(
                j,
                i,
                f"{values[i, j]:.0f}" if whole else f"{values[i, j]:.3f}",
                ha="center",
                va="center",
                color="white" if share[i, j] > 0.55 else _INK,
                fontweight="bold" if i == j else "normal",
            )
        axes.text(size, i, _share(users[i]), ha="center", va="center")
        axes.text(i, size, _share(producers[i]), ha="center", va="center")
    axes.set_xlim(-0.5, size + 0.5)
    axes.set_ylim(size + 0.5, -0.5)
    readable = [name.replace("_", " ") for name in names]
    axes.set_xticks(range(size + 1), [*readable, "user's\naccuracy"], rotation=0 if size < 5 else 40)
    axes.set_yticks(range(size + 1), [*readable, "producer's\naccuracy"])
    axes.xaxis.set_ticks_position("top")
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("reference")
    axes.set_ylabel("map")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontweight="bold")
    return figure


def transitions_figure(
    transitions: pd.DataFrame, *, title: str | None = None, min_share: float = 0.0, width_in: float = 6.5
) -> Figure:
    """Alluvial figure of hectares from class to class.

    Parameters
    ----------
    transitions : pandas.DataFrame
        ``from``, ``to``, ``area_ha``; rows of the same pair are added up.
    title : str, optional
        Title.
    min_share : float
        Flows below this share of all hectares are left out (and said so), 0..1.
    width_in : float
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputRefused
        Columns are missing, or no hectares change hands.
    """
    missing = [name for name in ("from", "to", "area_ha") if name not in transitions.columns]
    if missing:
        raise InputRefused(f"transitions lack {missing}, have {list(transitions.columns)}; expected from, to, area_ha")
    flows = transitions.groupby(["from", "to"])[["area_ha"]].sum().reset_index()
    total = float(flows["area_ha"].sum())
    kept = flows[flows["area_ha"] > max(min_share * total, 0.0)]
    if not len(kept):
        raise InputRefused("no hectares change class in the transitions given")
    figure = _figure(width_in, 4.2)
    axes = figure.add_subplot()
    gap = 0.03 * float(kept["area_ha"].sum())
    both = kept.groupby("from")["area_ha"].sum().add(kept.groupby("to")["area_ha"].sum(), fill_value=0)
    # the same order of classes on both sides, and of flows inside a class, keeps crossings few
    order = {str(name): i for i, name in enumerate(sorted(both.index, key=lambda n: (-both[n], n)))}
    left = _stack(axes, kept, "from", 0.0, gap, order)
    right = _stack(axes, kept, "to", 1.0, gap, order)
    for row in sorted(kept.to_dict("records"), key=lambda r: (order[str(r["from"])], order[str(r["to"])])):
        _flow(axes, left, right, str(row["from"]), str(row["to"]), float(row["area_ha"]))
    axes.set_xlim(-0.45, 1.45)
    axes.invert_yaxis()
    axes.axis("off")
    left_out = total - float(kept["area_ha"].sum())
    note = f"; {left_out:,.1f} ha in smaller flows left out" if left_out > 0 else ""
    axes.set_title((title or "From class to class") + f" (ha{note})", loc="left", fontweight="bold", fontsize=10)
    return figure


def edge_profile_figure(profile: pd.DataFrame, *, title: str | None = None, width_in: float = 5.5) -> Figure:
    """Hectares by distance from a zone's edge.

    Parameters
    ----------
    profile : pandas.DataFrame
        ``from_m``, ``to_m`` (negative inside the zone), ``area_ha``; optionally ``ring_ha``, then shares are drawn.
    title : str, optional
        Title.
    width_in : float
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputRefused
        Columns are missing.
    """
    missing = [name for name in ("from_m", "to_m", "area_ha") if name not in profile.columns]
    if missing:
        raise InputRefused(f"the profile lacks {missing}, has {list(profile.columns)}; expected from_m, to_m, area_ha")
    data = profile.sort_values("from_m")
    start, stop = (data[name].to_numpy(np.float64) / 1000 for name in ("from_m", "to_m"))
    height = data["area_ha"].to_numpy(np.float64)
    if "ring_ha" in data.columns:
        height = 100 * height / data["ring_ha"].to_numpy(np.float64)
    figure = _figure(width_in, 3.0)
    axes = figure.add_subplot()
    axes.bar(start, height, width=stop - start, align="edge", color=_COCA, edgecolor="white", linewidth=0.8)
    axes.axvline(0, color=_INK, linewidth=1)
    axes.set_xlabel("distance from the edge of the zone (km)")
    if start.min() < 0 < stop.max():
        for text, side in (("inside", "right"), ("outside", "left")):
            axes.annotate(
                text, (0, 1), (-5 if side == "right" else 5, -2), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha=side, va="top", fontsize=8, color=_SOFT,
            )  # fmt: skip
        axes.margins(y=0.14)
    axes.set_ylabel("share of the ring (%)" if "ring_ha" in data.columns else "area (ha)")
    axes.set_title(title or "Distance to the edge", loc="left", fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def reliability_diagram(table: pd.DataFrame, *, title: str | None = None, width_in: float = 6.5) -> Figure:
    """Predicted probability against the observed share, one panel a class, with the number of rows below.

    Parameters
    ----------
    table : pandas.DataFrame
        From `geococa.reliability`.
    title : str, optional
        Title.
    width_in : float
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputRefused
        Columns are missing, or there is no row.
    """
    wanted = ("class", "bin_low", "bin_high", "mean_predicted", "observed_share", "ci_low", "ci_high", "n")
    missing = [name for name in wanted if name not in table.columns]
    if missing or not len(table):
        raise InputRefused(
            f"the table lacks {missing} or has no row ({len(table)}); expected that of geococa.reliability"
        )
    names = list(dict.fromkeys(table["class"].astype(str)))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = _figure(width_in if columns > 1 else min(width_in, 4.0), 0.5 + 2.3 * rows)
    if title:
        figure.suptitle(plain_text(title), x=0.01, ha="left", fontweight="bold", fontsize=10)
    for panel, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, panel + 1)
        _reliability_panel(axes, table[table["class"].astype(str) == name], name)
        if panel % columns == 0:
            axes.set_ylabel("observed share")
        if panel >= len(names) - columns:
            axes.set_xlabel("predicted probability")
    return figure


def _reliability_panel(axes: Any, part: pd.DataFrame, name: str) -> None:
    """Draw one class: the diagonal, intervals, points, and how many rows each bin holds."""
    x, share, low, high, n, left, right = (
        part[column].to_numpy(np.float64)
        for column in ("mean_predicted", "observed_share", "ci_low", "ci_high", "n", "bin_low", "bin_high")
    )
    height = 0.18 * n / n.max()
    axes.bar(left, height, width=np.maximum(right - left, 0.004), align="edge", color=_GREY, alpha=0.35, linewidth=0)
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=0.8, linestyle=(0, (4, 3)))
    color = _class_color(name)
    axes.vlines(x, low, high, color=color, linewidth=1.4, alpha=0.55)
    axes.plot(x, share, color=color, linewidth=1.2, marker="o", markersize=4)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.tick_params(labelsize=7.5, color=_SOFT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(plain_text(name.replace("_", " ")), loc="left", fontweight="bold", fontsize=9, pad=16)
    note = f"n = {n.sum():,.0f}"
    if "calibration_error" in part.columns:
        note += f", calibration error {float(part['calibration_error'].iloc[0]):.3f}"
    if "brier_score" in part.columns:
        note += f", Brier {float(part['brier_score'].iloc[0]):.3f}"
    axes.text(0.0, 1.03, note, transform=axes.transAxes, va="bottom", fontsize=6, color=_SOFT)


def plain_text(text: str) -> str:
    """Names are text: a dollar sign must not start matplotlib's mathematics."""
    return text.replace("$", r"\$")


def _figure(width: float, height: float) -> Figure:
    module = optional_import("matplotlib.figure", "report")
    figure: Figure = module.Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.07)
    return figure


def _interval(axes: Any, intervals: pd.DataFrame | None, zone: str) -> None:
    if intervals is None:
        return
    part = intervals[intervals["zone"].astype(str) == zone].sort_values("year")
    axes.fill_between(
        part["year"],
        part["ci_low_ha"].clip(lower=0),
        part["ci_high_ha"],
        color=_COCA,
        alpha=0.18,
        linewidth=0,
        label="95 % interval",
    )


def _truth(axes: Any, truth: pd.DataFrame | None, zone: str) -> None:
    if truth is None:
        return
    part = truth[truth["zone"].astype(str) == zone].sort_values("year")
    values = part["true_ha"] if "true_ha" in part.columns else part["area_ha"]
    axes.plot(
        part["year"],
        values,
        linestyle="none",
        marker="D",
        markersize=4.5,
        markerfacecolor="none",
        markeredgecolor=_TRUTH,
        label="simulated truth",
    )


def _reference(axes: Any, reference: pd.DataFrame | None, zone: str) -> None:
    if reference is None:
        return
    part = reference[reference["zone"].astype(str) == zone].sort_values("year")
    if not len(part):
        return
    if {"low_ha", "high_ha"} <= set(part.columns):
        axes.vlines(part["year"], part["low_ha"], part["high_ha"], color=_PUBLISHED, linewidth=1.2)
    axes.plot(
        part["year"],
        part["area_ha"],
        linestyle="none",
        marker="s",
        markersize=4,
        color=_PUBLISHED,
        label="published reference",
    )


def _trend(axes: Any, trends: pd.DataFrame | None, zone: str, years: np.ndarray, hectares: np.ndarray) -> None:
    """Line and interval of a trend, and the years of its breaks."""
    if trends is None:
        return
    part = trends[trends["zone"].astype(str) == zone]
    seen = np.isfinite(hectares)
    if len(part) != 1 or seen.sum() < 2 or not math.isfinite(float(part["slope_ha_per_year"].iloc[0])):
        return
    row = part.iloc[0]
    t = years[seen].astype(np.float64)
    slope = float(row["slope_ha_per_year"])
    middle = float(np.median(t))
    level = float(np.median(hectares[seen] - slope * (t - middle)))
    ends = np.array([t[0], middle, t[-1]])
    axes.plot(
        ends,
        level + slope * (ends - middle),
        color=_SOFT,
        linewidth=1.2,
        linestyle=(0, (5, 3)),
        label="trend",
        zorder=1.5,
    )
    low, high = (float(row.get(name, math.nan)) for name in ("slope_low", "slope_high"))
    if math.isfinite(low) and math.isfinite(high):
        sides = [level + rate * (ends - middle) for rate in (low, high)]
        axes.fill_between(
            ends,
            np.clip(np.minimum(*sides), 0, None),
            np.clip(np.maximum(*sides), 0, None),
            color=_GREY,
            alpha=0.25,
            linewidth=0,
            label="95 % interval of the trend",
            zorder=0.9,
        )
    for text in str(row.get("breaks", "") or "").split(","):
        if text.strip():
            axes.axvline(float(text), color=_INK, linewidth=0.9, linestyle=":", label="break", zorder=0.8)


def _year_axis(axes: Any, years: np.ndarray) -> None:
    every = max(1, math.ceil(len(years) / 5))
    axes.set_xticks(years[::-1][::every][::-1])
    axes.tick_params(labelsize=7.5, color=_SOFT)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.grid(axis="y", color="#e9ebe6", linewidth=0.7)
    axes.set_axisbelow(True)


def _stack(axes: Any, flows: pd.DataFrame, side: str, x: float, gap: float, order: dict[str, int]) -> dict[str, float]:
    """Draw one side's bars in the order given; returns where each class starts."""
    totals = flows.groupby(side)["area_ha"].sum()
    start, at = {}, 0.0
    for name in sorted(totals.index, key=lambda n: order[str(n)]):
        start[str(name)] = at
        axes.barh(at + totals[name] / 2, 0.04, height=totals[name], left=x - 0.02, color=_class_color(str(name)))
        axes.text(
            x - 0.04 if x == 0 else x + 0.04,
            at + totals[name] / 2,
            f"{str(name).replace('_', ' ')}\n{totals[name]:,.1f}",
            ha="right" if x == 0 else "left",
            va="center",
            fontsize=8,
            linespacing=1.1,
        )
        at += float(totals[name]) + gap
    return start


def _flow(axes: Any, left: dict[str, float], right: dict[str, float], before: str, after: str, area: float) -> None:
    a, b = left[before], right[after]
    left[before] += area
    right[after] += area
    x = np.linspace(0.02, 0.98, 60)
    bend = (1 - np.cos(np.pi * (x - 0.02) / 0.96)) / 2
    axes.fill_between(
        x, a + (b - a) * bend, a + area + (b - a) * bend, color=_class_color(before), alpha=0.45, linewidth=0
    )


def _class_color(name: str) -> str:
    return PALETTE.get(name, _GREY)


def _share(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "–"
