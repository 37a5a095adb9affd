"""Rows of the report's headline, ranking, accuracy, transition and provenance sections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from geococa.errors import InputRefused
from geococa.report_charts import sparkline
from geococa.report_tables import ZoneSeries, format_number
from geococa.report_text import Phrases

__all__ = [
    "accuracy_section",
    "estimate_sections",
    "headline_tiles",
    "matrix_sections",
    "plain_section",
    "provenance_rows",
    "ranking_rows",
    "transition_section",
]

_RISING, _FALLING = ("growing", "increasing"), ("shrinking", "decreasing")
_INTERVAL = ("area_ha", "ci_low_ha", "ci_high_ha")
_YEARS = ("year", "year_from", "year_to", "from_year", "to_year")


def headline_tiles(
    series: Sequence[ZoneSeries],
    total: ZoneSeries,
    phrases: Phrases,
    class_name: str,
    accuracy: pd.DataFrame | None,
    *,
    has_intervals: bool,
    changes: pd.DataFrame | None = None,
) -> list[dict[str, Any]]:
    """Numbers at the top of the page, each with the words that keep it honest."""
    year, area = total.years[-1], float(total.area_ha[-1])
    shown: dict[str, Any] = {"class": phrases.class_key(class_name), "year": _year(year)}
    tiles = [
        {
            "label": phrases.markup("tile.mapped", css="cap", **shown),
            "value": _big(area),
            "unit": "ha",
            "badge": None if has_intervals else phrases.markup("tile.counting"),
            "note": phrases.markup("tile.mapped.note", zones=str(len(series))),
        }
    ]
    estimate = _estimate(accuracy, class_name, year)
    if estimate is not None:
        tiles.append(
            {
                "label": phrases.markup("tile.estimated", css="cap", **shown),
                "value": _big(estimate[0]),
                "unit": "ha",
                "badge": None,
                "note": phrases.markup("tile.estimated.note", low=_big(estimate[1]), high=_big(estimate[2])),
            }
        )
    if len(total.years) > 1:
        tiles.append(_change_tile(total, phrases, changes if estimate is not None else None))
    tiles.append(_zones_tile(series, phrases, shown))
    unseen = sum(s.zone_ha * (1 - s.observed[-1]) for s in series if math.isfinite(s.observed[-1]))
    tiles.append(
        {
            "label": phrases.markup("tile.observed", css="cap", year=_year(year)),
            "value": format_number(100 * total.observed[-1], 0),
            "unit": "%",
            "badge": None,
            "note": phrases.markup("tile.observed.note", area_ha=_big(unseen), **{"class": shown["class"]}),
        }
    )
    return tiles


def ranking_rows(series: Sequence[ZoneSeries]) -> list[dict[str, Any]]:
    """Zones from most to least hectares in the last year, zones not observed last; equal ones by name."""
    rows: list[dict[str, Any]] = []
    for one in series:
        area = float(one.area_ha[-1])
        rows.append(
            {
                "s": one,
                "area": area,
                "observed": float(one.observed[-1]),
                "estimate": one.value("estimate", -1),
                "low": one.value("low", -1),
                "high": one.value("high", -1),
                "change": area - float(one.area_ha[-2]) if len(one.years) > 1 else math.nan,
                "share": 100 * area / one.zone_ha if one.zone_ha > 0 else math.nan,
                "spark": sparkline(one),
            }
        )
    return sorted(rows, key=lambda r: (-r["area"] if math.isfinite(r["area"]) else math.inf, r["s"].zone))


def accuracy_section(accuracy: pd.DataFrame | None, phrases: Phrases) -> dict[str, Any] | None:
    """Columns and rows of the accuracy table, class first, with the names that phrases know."""
    if accuracy is None or not len(accuracy):
        return None
    data = accuracy.reset_index() if accuracy.index.name is not None else accuracy
    data = data.rename(columns={"land_cover": "class", "map_class": "class"})
    order = [name for name in ("year", "class") if name in data.columns]
    data = data[[*order, *(name for name in data.columns if name not in order)]]
    columns, rows = plain_section(data, phrases)
    return {"columns": columns, "rows": rows}


_ESTIMATES = ("skill", "yearly_estimates", "change_estimates", "cutoff_account", "composite_estimates")


def estimate_sections(tables: Mapping[str, pd.DataFrame] | None, phrases: Phrases) -> list[dict[str, Any]]:
    """Tables of estimates in the order of the page, each with its columns, rows and perhaps one verdict for all of it."""
    out: list[dict[str, Any]] = []
    for name in _ESTIMATES:
        table = None if tables is None else tables.get(name)
        if table is None or not len(table):
            continue
        verdict = phrases.said(str(table["whole_verdict"].iloc[0])) if "whole_verdict" in table else ""
        columns, rows = plain_section(table.drop(columns="whole_verdict", errors="ignore"), phrases)
        out.append({"name": name, "columns": columns, "rows": rows, "verdict": verdict})
    return out


def plain_section(
    frame: pd.DataFrame | None, phrases: Phrases, prefix: str = "acc"
) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """Columns and rows of any tidy table; hectares with one decimal, shares with three."""
    if frame is None or not len(frame):
        return [], []
    data = frame.reset_index() if frame.index.name is not None else frame
    columns: list[dict[str, Any]] = []
    for name in map(str, data.columns):
        numeric = pd.api.types.is_numeric_dtype(data[name]) and not pd.api.types.is_bool_dtype(data[name])
        known = next((key for key in (f"{prefix}.{name}", f"acc.{name}") if key in phrases.table), None)
        html = phrases.markup(known) if known else name.replace("_", " ")
        columns.append({"name": name, "numeric": numeric, "html": html, "digits": _digits(name, data[name], numeric)})
    rows = []
    for record in data.itertuples(index=False):
        cells = []
        for column, value in zip(columns, record, strict=True):
            cell: dict[str, Any] = {"value": value, "numeric": column["numeric"]}
            if column["numeric"]:
                whole = column["name"] in _YEARS and not pd.isna(value)
                cell["text"] = str(int(value)) if whole else format_number(value, column["digits"])
            else:
                cell["value"] = "" if value is None or value is pd.NA else str(value)
                cell["html"] = _words(column["name"], cell["value"], phrases)
            cells.append(cell)
        rows.append(cells)
    return columns, rows


def _words(column: str, value: str, phrases: Phrases) -> Any:
    """Text of a cell: names of zones and sources as they are, classes and what stages say in both languages."""
    if column == "class":
        return phrases.class_markup(value)
    if column in ("zone", "source") and value not in ("all", "all zones"):
        return value
    return phrases.said(value)


def matrix_sections(
    matrices: Mapping[int, pd.DataFrame] | pd.DataFrame | None, phrases: Phrases
) -> list[dict[str, Any]]:
    """Error matrices with row totals; rows are the map, columns the reference."""
    if matrices is None:
        return []
    named = {"": matrices} if isinstance(matrices, pd.DataFrame) else dict(matrices)
    out = []
    for label, matrix in sorted(named.items(), key=lambda item: str(item[0])):
        values = matrix.to_numpy(np.float64)
        rows = [
            {
                "name": phrases.class_markup(str(name)),
                "total": float(np.nansum(line)),
                "cells": [
                    {"value": float(v), "diagonal": str(c) == str(name)}
                    for c, v in zip(matrix.columns, line, strict=True)
                ],
            }
            for name, line in zip(matrix.index, values, strict=True)
        ]
        whole = bool(np.all(values[np.isfinite(values)] == np.round(values[np.isfinite(values)])))
        out.append(
            {
                "label": str(label),
                "rows": rows,
                "digits": 0 if whole else 3,
                "columns": [phrases.class_markup(str(name)) for name in matrix.columns],
            }
        )
    return out


def transition_section(transitions: pd.DataFrame | None, phrases: Phrases, class_name: str) -> dict[str, Any]:
    """Rows from class to class, largest first, and what the class of interest replaced and became, as bars."""
    empty: dict[str, Any] = {
        "transition_rows": [],
        "transition_sides": [],
        "transitions_have_zone": False,
        "transitions_have_period": False,
        "transitions_have_lasting": False,
    }
    if transitions is None or not len(transitions):
        return empty
    names = {
        "from_class": "from",
        "to_class": "to",
        "land_cover_from": "from",
        "land_cover_to": "to",
        "park": "zone",
        "from_year": "year_from",
        "to_year": "year_to",
    }
    data = transitions.rename(columns=names)
    missing = [name for name in ("from", "to", "area_ha") if name not in data.columns]
    if missing:
        raise InputRefused(f"transitions lack {missing}, have {list(transitions.columns)}; expected from, to, area_ha")
    data = data[data["area_ha"] > 0]
    if not len(data):
        return empty
    keys = [name for name in ("zone", "year_from", "year_to") if name in data.columns]
    data = data.sort_values(["area_ha", *keys, "from", "to"], ascending=[False] + [True] * (len(keys) + 2))
    involved = data[(data["from"] == class_name) != (data["to"] == class_name)]
    largest = (
        max(involved[involved[side] != class_name].groupby(side)["area_ha"].sum().max() for side in ("from", "to"))
        if len(involved)
        else 0.0
    )
    return {
        "transition_rows": [_transition_row(record, phrases) for record in data.to_dict("records")],
        "transition_sides": [
            _transition_side(involved, own, other, float(np.nan_to_num(largest)), phrases, class_name)
            for own, other in (("to", "from"), ("from", "to"))
        ]
        if len(involved)
        else [],
        "transitions_have_zone": "zone" in data.columns,
        "transitions_have_period": "year_to" in data.columns,
        "transitions_have_lasting": "sustained_ha" in data.columns,
    }


def _transition_side(
    data: pd.DataFrame, own: str, other: str, largest: float, phrases: Phrases, class_name: str
) -> dict[str, Any]:
    """Bars of what a class replaced (``own`` is "to") or became (``own`` is "from"), all zones and steps together."""
    part = data[data[own] == class_name]
    columns = [name for name in ("area_ha", "sustained_ha") if name in part.columns]
    sums = part.groupby(other)[columns].sum().reset_index()
    sums = sums.sort_values(["area_ha", other], ascending=[False, True])
    total = float(sums["area_ha"].sum())
    lasting = float(sums["sustained_ha"].sum()) if "sustained_ha" in sums and total > 0 else math.nan
    shown: dict[str, Any] = {"class": phrases.class_key(class_name)}
    return {
        "title": phrases.markup("transitions.before" if own == "to" else "transitions.after", **shown),
        "sum": phrases.markup("transitions.sum", area=format_number(total))
        if total
        else phrases.markup("transitions.none"),
        "lasting": phrases.markup("transitions.lasting", percent=format_number(100 * lasting / total, 0))
        if math.isfinite(lasting)
        else "",
        "rows": [
            {
                "label": phrases.class_markup(str(row[other])),
                "text": phrases.markup(
                    "transitions.bar",
                    area=format_number(row["area_ha"]),
                    percent=format_number(100 * row["area_ha"] / total, 0),
                ),
                "width": round(100 * float(row["area_ha"]) / largest, 2),
            }
            for row in sums.to_dict("records")
        ],
    }


def provenance_rows(provenance: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested provenance into (dotted name, text), in sorted order.

    Examples
    --------
    >>> provenance_rows({"model": {"seed": 7}, "bands": ["red", "nir"]})
    [('bands', 'red, nir'), ('model.seed', '7')]
    """
    rows: list[tuple[str, str]] = []
    for name in sorted(map(str, provenance)):
        value = next(v for k, v in provenance.items() if str(k) == name)
        if isinstance(value, Mapping):
            rows += provenance_rows(value, f"{prefix}{name}.")
        elif isinstance(value, list | tuple):
            rows.append((prefix + name, ", ".join(map(str, value))))
        else:
            rows.append((prefix + name, str(value)))
    return rows


def _change_tile(total: ZoneSeries, phrases: Phrases, changes: pd.DataFrame | None) -> dict[str, Any]:
    """Change since the year before: the estimate and its interval where points were seen in both years."""
    found = _estimated_change(changes, total.years[-2], total.years[-1])
    if found is not None:
        return {
            "label": phrases.markup("tile.change.estimated", css="cap", year=_year(total.years[-2])),
            "value": _big(found[0], sign=True),
            "unit": "ha",
            "badge": None,
            "note": phrases.markup(
                "tile.change.estimated.note", low=_big(found[1], sign=True), high=_big(found[2], sign=True)
            ),
        }
    before, after = float(total.area_ha[-2]), float(total.area_ha[-1])
    args: dict[str, Any] = {"before": _big(before), "after": _big(after)}
    if before > 0:
        percent = format_number(100 * (after - before) / before, 0, sign=True)
        note = phrases.markup("tile.change.percent", percent=percent, **args)
    else:
        note = phrases.markup("tile.change.note", **args)
    return {
        "label": phrases.markup("tile.change", css="cap", year=_year(total.years[-2])),
        "value": _big(after - before, sign=True),
        "unit": "ha",
        "badge": None,
        "note": note,
    }


def _estimated_change(
    changes: pd.DataFrame | None, first: int | None, last: int | None
) -> tuple[float, float, float] | None:
    """Estimated change of the whole archive between two years, and its interval."""
    needed = ("zone", "year_from", "year_to", "change_ha", "ci_low_ha", "ci_high_ha")
    if changes is None or any(name not in changes.columns for name in needed):
        return None
    data = changes[(changes["zone"] == "all") & (changes["year_from"] == first) & (changes["year_to"] == last)]
    if len(data) != 1 or not data[list(needed[3:])].notna().all(axis=None):
        return None
    change, low, high = (float(data[name].iloc[0]) for name in needed[3:])
    return change, low, high


def _zones_tile(series: Sequence[ZoneSeries], phrases: Phrases, shown: dict[str, Any]) -> dict[str, Any]:
    verdicts = [str(s.trend.get("verdict")) for s in series if s.trend.get("verdict")]
    note = phrases.markup("tile.zones.plain", zones=str(len(series)))
    if verdicts:
        note = phrases.markup(
            "tile.zones.note",
            zones=str(len(series)),
            rising=str(sum(v in _RISING for v in verdicts)),
            falling=str(sum(v in _FALLING for v in verdicts)),
        )
    return {
        "label": phrases.markup("tile.zones", css="cap", **shown),
        "value": str(sum(bool(s.area_ha[-1] > 0) for s in series)),
        "unit": "",
        "badge": None,
        "note": note,
    }


def _estimate(accuracy: pd.DataFrame | None, class_name: str, year: int | None) -> tuple[float, float, float] | None:
    """Estimated hectares and interval of a class in a year, where the accuracy table has them."""
    if accuracy is None or any(name not in accuracy.columns for name in _INTERVAL):
        return None
    data = accuracy.reset_index() if accuracy.index.name is not None else accuracy
    column = next((name for name in ("class", "land_cover", "map_class") if name in data.columns), None)
    if column is None:
        return None
    data = data[data[column].astype(str) == class_name]
    if "year" in data.columns:
        data = data[data["year"] == year]
    if len(data) != 1:
        return None
    area, low, high = (float(data[name].iloc[0]) for name in _INTERVAL)
    return (area, low, high) if math.isfinite(area) else None


def _transition_row(record: Mapping[Any, Any], phrases: Phrases) -> dict[str, Any]:
    before, after = str(record["from"]), str(record["to"])
    first, last = record.get("year_from"), record.get("year_to")
    period = f"{first}–{last}" if first is not None else str(last)
    return {
        "zone": str(record.get("zone", "")),
        "period": period,
        "before": before,
        "after": after,
        "before_html": phrases.class_markup(before),
        "after_html": phrases.class_markup(after),
        "area": float(record["area_ha"]),
        "lasting": float(record.get("sustained_ha", math.nan)),
    }


def _digits(name: str, values: pd.Series, numeric: bool) -> int:
    if not numeric or pd.api.types.is_integer_dtype(values):
        return 0
    return 1 if name.endswith(("_ha", "_percent")) else 3


def _big(value: float, *, sign: bool = False) -> str:
    """Headline numbers lose their decimal from 1,000 on."""
    return format_number(value, 0 if abs(value) >= 1000 else 1, sign=sign)


def _year(year: int | None) -> str:
    return "–" if year is None else str(year)
