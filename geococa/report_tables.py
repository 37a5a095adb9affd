"""Tables behind the report: one series per zone, totals, errors against truth, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa.errors import InputRefused

__all__ = [
    "DATE_COLUMNS",
    "ZoneSeries",
    "align_table",
    "area_series",
    "format_number",
    "format_percent",
    "overlap_area_ha",
    "total_series",
    "truth_summary",
    "wide_table",
    "with_reference",
]

DATE_COLUMNS = ("mean_observations", "fallback_share", "mean_age_days", "median_age_days")
"""Columns of a table of hectares that tell of the dates behind them, where they are known."""

_NARROW_SPACE = "\u202f"
_NO_TREND: dict[str, Any] = {
    "verdict": None,
    "notice": "",
    "p_value": math.nan,
    "slope_ha_per_year": math.nan,
    "slope_low": math.nan,
    "slope_high": math.nan,
}
_PARTS = ("area_ha", "unobserved_ha", "outside_ha", "zone_ha")


@dataclass(frozen=True)
class ZoneSeries:
    """Hectares of one zone over the years; every array has one float64 value a year, NaN = not known.

    Attributes
    ----------
    zone : str
        Name of the zone.
    anchor : str
        Identifier in the page, free of anything a name could hold.
    years : tuple of int or None
        Calendar years; None for a map without time.
    area_ha : numpy.ndarray
        Mapped hectares; NaN where nothing of the zone was observed.
    observed : numpy.ndarray
        Observed share of the zone, 0..1.
    zone_ha : float
        Area of the zone.
    extra : dict of str to numpy.ndarray
        ``estimate``, ``low``, ``high``, ``truth``, ``reference``, ``reference_low``, ``reference_high`` hectares where
        given.
    trend : dict
        Columns of the trend table for this zone; the verdict is None where there is none.
    """

    zone: str
    anchor: str
    years: tuple[int | None, ...]
    area_ha: np.ndarray
    observed: np.ndarray
    zone_ha: float
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    trend: dict[str, Any] = field(default_factory=dict)

    def value(self, name: str, position: int) -> float:
        """Value of an extra series in a year, NaN where it is not given."""
        series = self.extra.get(name)
        return math.nan if series is None else float(series[position])


def format_number(value: Any, digits: int = 1, *, sign: bool = False) -> str:
    """Write a number as people of either language read it: narrow spaces between thousands, a point, a real minus.

    A value that is not zero but would round to zero is written ``<0.1`` (or ``>−0.1``), since "0.0 ha" reads as "no coca".

    Examples
    --------
    >>> format_number(0.02), format_number(-3.25, sign=True), format_number(float("nan"))
    ('<0.1', '−3.2', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    smallest = 10.0**-digits
    if value != 0 and abs(value) < smallest / 2:
        return f"{'>−' if value < 0 else '<'}{smallest:.{digits}f}"
    text = f"{abs(value):,.{digits}f}".replace(",", _NARROW_SPACE)
    if value < 0 and any(c in "123456789" for c in text):
        return "−" + text
    return ("+" + text) if sign and value > 0 else text


def format_percent(share: Any) -> str:
    """Write an observed share in whole percent, rounded down: 99.6 % is not "100 %", 69.6 % is not "70 %".

    Examples
    --------
    >>> format_percent(0.696), format_percent(1.0), format_percent(float("nan"))
    ('69', '100', '–')
    """
    return str(math.floor(100 * share + 1e-9)) if share is not None and math.isfinite(share) else "–"


def wide_table(areas: xr.Dataset, class_name: str) -> tuple[pd.DataFrame, list[str]]:
    """One row a zone and year: hectares of each class, not observed, outside, zone, the observed share and the dates.

    Returns the table and the class names, the class of interest first.
    """
    missing = [name for name in _PARTS if name not in areas]
    if missing:
        raise InputRefused(f"areas lack {missing}, have {list(areas.data_vars)}; geococa.zonal_area makes them")
    if "zone" not in areas["area_ha"].dims or "land_cover" not in areas["area_ha"].dims:
        raise InputRefused(f"area_ha must have dims (time, zone, land_cover), got {areas['area_ha'].dims}")
    classes = [str(name) for name in areas["land_cover"].values]
    if class_name not in classes:
        raise InputRefused(f"no class {class_name!r} in the areas, which have {', '.join(classes)}; give class_name=")
    dated = areas if "time" in areas["area_ha"].dims else areas.expand_dims("time")
    years: list[int | None] = [None]
    if "time" in dated.coords and np.issubdtype(dated["time"].dtype, np.datetime64):
        years = [int(year) for year in dated["time"].dt.year.values]
    elif "time" in areas["area_ha"].dims:
        years = [int(year) for year in dated["time"].values]
    if len(set(years)) != len(years):
        raise InputRefused(f"the report takes one map a year, got the years {years}")
    zones = [str(name) for name in dated["zone"].values]
    area = dated["area_ha"].transpose("time", "zone", "land_cover").values.astype(np.float64)
    columns: dict[str, Any] = {
        "zone": np.repeat(zones, len(years)),
        "year": pd.array(years * len(zones), dtype=object),
    }
    classes.sort(key=lambda name: name != class_name)
    order = [list(map(str, dated["land_cover"].values)).index(name) for name in classes]
    for name, position in zip(classes, order, strict=True):
        columns[name] = area[:, :, position].T.ravel()
    for name in ("unobserved_ha", "outside_ha"):
        columns[name] = dated[name].transpose("time", "zone").values.astype(np.float64).T.ravel()
    for name in DATE_COLUMNS:
        if name in dated:
            columns[name] = dated[name].transpose("time", "zone").values.astype(np.float64).T.ravel()
    zone_ha = areas["zone_ha"]
    zone_ha = zone_ha.isel(time=0) if "time" in zone_ha.dims else zone_ha
    columns["zone_ha"] = np.repeat(zone_ha.values.astype(np.float64), len(years))
    table = pd.DataFrame(columns)
    seen = table[classes].sum(axis=1).to_numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(table["zone_ha"] > 0, seen / table["zone_ha"], np.nan)
    table["observed_share"] = np.clip(share, 0.0, 1.0)
    return table, classes


def area_series(
    table: pd.DataFrame,
    class_name: str,
    trends: pd.DataFrame | None = None,
    extra: Mapping[str, tuple[pd.DataFrame | None, str]] | None = None,
) -> list[ZoneSeries]:
    """Series of every zone, in the order of the table.

    ``extra`` maps a series name to a tidy table (zone, year, value) and the column that holds the value.
    """
    zones = list(dict.fromkeys(table["zone"]))
    years = tuple(dict.fromkeys(table["year"]))
    aligned = {
        name: align_table(frame, column, zones, years, class_name)
        for name, (frame, column) in (extra or {}).items()
        if frame is not None
    }
    by_zone = _trend_rows(trends, zones)
    series = []
    for position, zone in enumerate(zones):
        rows = table[table["zone"] == zone]
        observed = rows["observed_share"].to_numpy(np.float64)
        area = np.where(observed > 0, rows[class_name].to_numpy(np.float64), np.nan)
        own = {name: values[position] for name, values in aligned.items() if np.isfinite(values[position]).any()}
        zone_ha = float(rows["zone_ha"].iloc[0])
        trend = {**_NO_TREND, **by_zone.get(zone, {})}
        series.append(ZoneSeries(zone, f"zone-{position + 1}", years, area, observed, zone_ha, own, trend))
    return series


def total_series(series: Sequence[ZoneSeries], name: str) -> ZoneSeries:
    """Sum over zones, and the observed share of all of them.

    Truth is summed where every zone has it; estimates and intervals are not, since they do not add up.
    """
    years = series[0].years
    area = np.nansum([s.area_ha for s in series], axis=0)
    zone_ha = sum(s.zone_ha for s in series)
    seen = np.nansum([s.observed * s.zone_ha for s in series], axis=0)
    observed = seen / zone_ha if zone_ha > 0 else np.full(len(years), np.nan)
    extra = {}
    if all("truth" in s.extra for s in series):
        extra["truth"] = np.sum([s.extra["truth"] for s in series], axis=0)
    return ZoneSeries(name, "zone-all", years, np.where(observed > 0, area, np.nan), observed, zone_ha, extra)


def with_reference(
    series: Sequence[ZoneSeries], total: ZoneSeries, reference: pd.DataFrame | None
) -> tuple[list[ZoneSeries], ZoneSeries]:
    """Add published hectares to the zones that they name, and to all together where their zone is ``all``.

    Published zones that are not in the report, and figures without a zone (such as a whole country's), stay in their table.
    """
    if reference is None or not ({"zone", "park"} & set(reference.columns)):
        return list(series), total
    data = with_zone(reference)
    known = {one.zone for one in series} | {"all"}
    data = data[data["zone"].astype(str).isin(known)]
    names = {"area_ha": "reference", "low_ha": "reference_low", "high_ha": "reference_high"}
    if "area_ha" not in data.columns or "year" not in data.columns:
        raise InputRefused(f"published hectares need the columns year and area_ha, got {list(reference.columns)}")
    if not len(data):
        return list(series), total
    order = [*(one.zone for one in series), "all"]
    found = {new: align_table(data, old, order, total.years, "") for old, new in names.items() if old in data.columns}

    def added(one: ZoneSeries, row: int) -> ZoneSeries:
        own = {name: values[row] for name, values in found.items() if np.isfinite(values[row]).any()}
        return replace(one, extra=one.extra | own)

    return [added(one, i) for i, one in enumerate(series)], added(total, len(series))


def align_table(
    frame: pd.DataFrame, column: str, zones: Sequence[str], years: Sequence[int | None], class_name: str
) -> np.ndarray:
    """Values of a tidy table as a float64 array (zone, year), NaN where the table has no row.

    Raises
    ------
    InputRefused
        A column is missing, two rows share zone and year, or none of the zones is known.
    """
    data = pick_class(with_zone(frame), class_name)
    for needed in ("year", column):
        if needed not in data.columns:
            raise InputRefused(f"expected the columns zone, year, {column}, got {list(frame.columns)}")
    out = np.full((len(zones), len(years)), np.nan)
    rows = {zone: i for i, zone in enumerate(zones)}
    places = {year: i for i, year in enumerate(years)}
    matched, filled = 0, set()
    for zone, year, value in zip(data["zone"], data["year"], data[column], strict=True):
        key = rows.get(str(zone)), places.get(None if pd.isna(year) else int(year))
        matched += key[0] is not None
        if key[0] is None or key[1] is None:
            continue
        if key in filled:
            raise InputRefused(f"two rows for zone {zone!r} and year {year} in the column {column}; keep one")
        filled.add(key)
        out[key] = float(value)
    if len(data) and not matched:
        raise InputRefused(
            f"no zone of the table is in the areas: got {sorted(map(str, set(data['zone'])))[:5]}, "
            f"expected some of {list(zones)[:5]}"
        )
    return out


def with_zone(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a ``zone`` column, whatever it calls it (``park``, or the index)."""
    if "zone" in frame.columns:
        return frame
    if "park" in frame.columns:
        return frame.rename(columns={"park": "zone"})
    if frame.index.name in ("zone", "park") or "zone" in (frame.index.names or ()):
        return frame.reset_index().rename(columns={"park": "zone"})
    raise InputRefused(f"expected a column 'zone', got {list(frame.columns)}")


def pick_class(frame: pd.DataFrame, class_name: str) -> pd.DataFrame:
    """Keep the rows of one class where the table has several."""
    for column in ("land_cover", "class"):
        if column in frame.columns and (frame[column].astype(str) == class_name).any():
            return frame[frame[column].astype(str) == class_name]
    return frame


def truth_summary(series: Sequence[ZoneSeries]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of mapped against true hectares, and their bias, mean absolute and root mean square error."""
    rows: list[dict[str, Any]] = []
    for one in series:
        for position, year in enumerate(one.years):
            true, mapped = one.value("truth", position), float(one.area_ha[position])
            if math.isfinite(true):
                error = mapped - true
                percent = 100 * error / true if true > 0 else math.nan
                rows.append(
                    {
                        "zone": one.zone,
                        "anchor": one.anchor,
                        "year": year,
                        "mapped": mapped,
                        "true": true,
                        "error": error,
                        "percent": percent,
                        "observed": float(one.observed[position]),
                    }
                )
    known = [row for row in rows if math.isfinite(row["error"])]
    errors = np.array([row["error"] for row in known])
    mapped_sum, true_sum = sum(row["mapped"] for row in known), sum(row["true"] for row in known)
    summary = {
        "rows": float(len(known)),
        "mapped": mapped_sum,
        "true": true_sum,
        "bias": mapped_sum - true_sum,
        "percent": 100 * (mapped_sum - true_sum) / true_sum if true_sum > 0 else math.nan,
        "mae": float(np.abs(errors).mean()) if known else math.nan,
        "rmse": float(np.sqrt((errors**2).mean())) if known else math.nan,
    }
    return rows, summary


def overlap_area_ha(zones: Any, names: Sequence[str]) -> float:
    """Hectares that belong to more than one of the named zones (equal-area projection, 0 below 1 ha).

    Slivers of digitised borders are not worth a warning, hence the threshold.
    """
    import shapely

    chosen = zones[zones["zone"].astype(str).isin(list(names))] if "zone" in zones.columns else zones
    if len(chosen) < 2 or chosen.crs is None:
        return 0.0
    shapes = shapely.make_valid(np.asarray(chosen.to_crs("EPSG:6933").geometry.values, dtype=object))
    overlap = (shapely.area(shapes).sum() - shapely.area(shapely.union_all(shapes))) / 1e4
    return float(overlap) if overlap >= 1 else 0.0


def _trend_rows(trends: pd.DataFrame | None, zones: Sequence[str]) -> dict[str, dict[str, Any]]:
    if trends is None or not len(trends):
        return {}
    data = with_zone(trends)
    rows = {str(row["zone"]): {str(k): v for k, v in row.items()} for row in data.to_dict("records")}
    if not set(rows) & set(zones):
        raise InputRefused(
            f"no zone of the trends is in the areas: got {sorted(rows)[:5]}, expected some of {list(zones)[:5]}"
        )
    return rows
