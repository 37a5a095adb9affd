"""Hectares by age of the image, and the dates behind the hectares of every zone and year."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind, check_same_grid
from geococa.errors import InputRefused
from geococa.legend import NO_DATA, Legend

if TYPE_CHECKING:
    from geococa.coverage import Coverage

__all__ = ["AGE_COLUMNS", "DATE_LAYERS", "age_summary", "age_table", "merge_ages", "with_ages"]

DATE_LAYERS = ("observations", "age_days", "fallback_observations")
"""Layers of a composite that tell of the dates behind a map."""
AGE_COLUMNS = ("zone", "image_age_days", "coca_ha", "other_ha", "unseen_ha")
_SUMS = ("coca_ha", "other_ha", "observation_ha", "fallback_ha")


def age_table(
    land_cover: xr.DataArray,
    image_age_days: xr.DataArray | None,
    share: Coverage,
    *,
    class_name: str = "coca",
    bin_days: float = 15.0,
    observations: xr.DataArray | None = None,
    fallback: xr.DataArray | None = None,
) -> pd.DataFrame:
    """Add up hectares by zone and age of the image, for `cutoff_area`.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)``, 255 = not observed.
    image_age_days : xarray.DataArray or None
        float ``(y, x)``, days from the image to the cut-off date, negative for later images; NaN = not observed.
        ``age_days`` of `geococa.composite` is such a layer. None where no age is known: a zone is one row then, its
        age NaN.
    share : Coverage
        From `geococa.coverage_fraction` on the same grid.
    class_name : str
        Class in question.
    bin_days : float
        Ages are grouped so far; a group carries its area-weighted mean age.
    observations : xarray.DataArray, optional
        ``(y, x)``, dates used for each pixel. The table then has ``observation_ha``, the sum of dates times hectares.
    fallback : xarray.DataArray, optional
        ``(y, x)``, how many of them lie before the window. The table then has ``fallback_ha``, the hectares that needed one.

    Returns
    -------
    pandas.DataFrame
        ``zone, image_age_days, coca_ha, other_ha, unseen_ha``, one row a zone and age group; unseen hectares (also those
        off the raster) on the first row of each zone.
    """
    check_kind(land_cover, "land_cover")
    layers = {"land_cover": land_cover, "image_age_days": image_age_days, "observations": observations}
    given = {name: array for name, array in {**layers, "fallback": fallback}.items() if array is not None}
    for name, array in given.items():
        if set(array.dims) != {"y", "x"}:
            check_dims(array, "y", "x")
            raise InputRefused(f"{name} must be one date's (y, x) layer; select it with .sel(time=...)")
        check_same_grid(land_cover, array, names=("land_cover", name))
    grid = check_same_grid(land_cover, land_cover, names=("land_cover", "land_cover"))
    if not grid.same_as(share.grid):
        raise InputRefused(
            "share was made for another grid than the map's; make it with coverage_fraction(zones, Grid.from_xarray(map))"
        )
    code = Legend.from_attrs(land_cover.attrs).code(class_name)
    values = {name: np.asarray(array.transpose("y", "x").values) for name, array in given.items()}
    areas = np.broadcast_to(np.asarray(grid.cell_area_ha()), grid.shape)
    rows: list[dict[str, Any]] = []
    for number, zone in enumerate(share.zone_names):
        row, col, part = share.cells(zone)
        cells = {name: array[row, col] for name, array in values.items()}
        groups = _groups(cells, part * areas[row, col], code, bin_days)
        unseen = float(share.zone_ha[number] - groups[["coca_ha", "other_ha"]].to_numpy().sum())
        if groups.empty:
            empty = dict.fromkeys(groups.columns, 0.0) | (
                {} if image_age_days is not None else {"image_age_days": np.nan}
            )
            rows.append({"zone": zone, **empty, "unseen_ha": unseen})
        for position, figures in enumerate(groups.to_numpy(dtype=float)):
            named = dict(zip(groups.columns, figures, strict=True))
            rows.append({"zone": zone, **named, "unseen_ha": unseen if position == 0 else 0.0})
    extra = [name for name in ("observation_ha", "fallback_ha") if rows and name in rows[0]]
    return pd.DataFrame(rows, columns=[*AGE_COLUMNS, *extra])


def _groups(cells: dict[str, np.ndarray], hectares: np.ndarray, code: int, bin_days: float) -> pd.DataFrame:
    """Sums of the seen cells of one zone by age."""
    label = cells["land_cover"]
    age = cells["image_age_days"].astype(float) if "image_age_days" in cells else np.zeros(len(label))
    seen = (label != NO_DATA) & np.isfinite(age)
    ha, label = hectares[seen], label[seen]
    sums = {"ha": ha, "age": age[seen] * ha, "coca_ha": np.where(label == code, ha, 0.0)}
    if "observations" in cells:
        sums["observation_ha"] = ha * cells["observations"][seen]
    if "fallback" in cells:
        sums["fallback_ha"] = np.where(cells["fallback"][seen] > 0, ha, 0.0)
    table = pd.DataFrame(sums).groupby(np.floor(age[seen] / bin_days).astype(np.int64)).sum()
    known = "image_age_days" in cells
    out = {
        "image_age_days": table["age"] / table["ha"] if known else np.full(len(table), np.nan),
        "coca_ha": table["coca_ha"],
        "other_ha": table["ha"] - table["coca_ha"],
    }
    extra = [name for name in ("observation_ha", "fallback_ha") if name in table]
    return pd.DataFrame(out | {name: table[name] for name in extra}, index=table.index)


def merge_ages(tables: Sequence[pd.DataFrame], areas: xr.Dataset) -> pd.DataFrame:
    """Add up the age tables of many tiles, made with ``bin_days=1``.

    Parameters
    ----------
    tables : sequence of pandas.DataFrame
        From `age_table`, with a column ``year``; tiles without a map may be empty.
    areas : xarray.Dataset
        Merged areas of the same tiles (`geococa.merge_areas`): what they say is unseen is.

    Returns
    -------
    pandas.DataFrame
        ``zone, year`` and the columns of the parts, by zone in the order of ``areas``, year and age.
    """
    columns = ["zone", "year", *AGE_COLUMNS[1:]]
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=columns)
    both = pd.concat(filled, ignore_index=True)
    sums = [name for name in _SUMS if name in both]
    both = both[both[["coca_ha", "other_ha"]].sum(axis=1) > 0].assign(age=lambda t: np.rint(t["image_age_days"]))
    merged = both.groupby(["zone", "year", "age"], dropna=False, sort=True)[sums].sum().reset_index()
    place = {str(zone): position for position, zone in enumerate(areas["zone"].values)}
    merged = merged.assign(place=merged["zone"].map(place)).sort_values(["place", "year", "age"], ignore_index=True)
    hidden = (areas["unobserved_ha"] + areas["outside_ha"]).transpose("zone", "time")
    years = areas["time"].dt.year.values
    unseen = {
        (str(zone), int(year)): float(hidden.values[i, k])
        for i, zone in enumerate(areas["zone"].values)
        for k, year in enumerate(years)
    }
    first = ~merged.duplicated(["zone", "year"])
    keys = list(zip(merged["zone"], merged["year"], strict=True))
    merged["unseen_ha"] = [unseen.get(key, 0.0) if top else 0.0 for key, top in zip(keys, first, strict=True)]
    merged = merged.rename(columns={"age": "image_age_days"})
    lacking = [key for key in unseen if key not in set(keys)]
    blank = {"image_age_days": 0.0, **dict.fromkeys(sums, 0.0)}
    rows = [{"zone": zone, "year": year, **blank, "unseen_ha": unseen[zone, year]} for zone, year in lacking]
    out = pd.concat([merged, pd.DataFrame(rows)], ignore_index=True) if rows else merged
    out = out.assign(place=out["zone"].map(place)).sort_values(["place", "year", "image_age_days"], ignore_index=True)
    return out[[*columns, *(name for name in sums if name not in columns)]]


def age_summary(ages: pd.DataFrame) -> pd.DataFrame:
    """Dates behind the hectares of every zone and year.

    Parameters
    ----------
    ages : pandas.DataFrame
        From `age_table` (with a column ``year`` where there are several) or `merge_ages`.

    Returns
    -------
    pandas.DataFrame
        ``zone``, ``year`` if given, and as far as known, all weighted by observed hectares and NaN where none was
        observed: ``mean_observations`` (dates used), ``fallback_share`` (share of the observed hectares that needed a
        date from before the window), ``mean_age_days`` and ``median_age_days`` (age of the image at the cut-off date).

    Examples
    --------
    >>> ages = pd.DataFrame({"zone": "a", "image_age_days": [10.0, 40.0], "coca_ha": [1.0, 0.0], "other_ha": [2.0, 1.0]})
    >>> age_summary(ages)
      zone  mean_age_days  median_age_days
    0    a           17.5             10.0
    """
    keys = ["zone", *(["year"] if "year" in ages else [])]
    rows = []
    for key, part in ages.groupby(keys, sort=False):
        ha = part["coca_ha"].to_numpy(dtype=float) + part["other_ha"].to_numpy(dtype=float)
        seen = ha > 0
        total = ha.sum()
        row: dict[str, Any] = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True))
        for column, name in (("observation_ha", "mean_observations"), ("fallback_ha", "fallback_share")):
            if column in part:
                row[name] = part[column].sum() / total if total > 0 else np.nan
        age, ha = part["image_age_days"].to_numpy(dtype=float)[seen], ha[seen]
        row["mean_age_days"] = (age * ha).sum() / total if total > 0 else np.nan
        order = np.argsort(age, kind="stable")
        passed = np.searchsorted(np.cumsum(ha[order]), total / 2) if total > 0 else 0
        row["median_age_days"] = age[order][min(passed, len(order) - 1)] if total > 0 else np.nan
        rows.append(row)
    out = pd.DataFrame(rows)
    known = [name for name in ("mean_age_days", "median_age_days") if name in out and out[name].notna().any()]
    return out.drop(columns=[n for n in ("mean_age_days", "median_age_days") if n in out and n not in known])


def with_ages(areas: xr.Dataset, ages: pd.DataFrame) -> xr.Dataset:
    """Add the dates behind the hectares to the areas, see `age_summary`."""
    if ages.empty:
        return areas
    summary = age_summary(ages)
    cube = summary.set_index(["zone", "year"]).to_xarray()
    cube = cube.reindex(zone=areas["zone"].values, year=areas["time"].dt.year.values)
    texts = {
        "mean_observations": ("1", "dates used, mean over the observed area"),
        "fallback_share": ("1", "share of the observed area that needed a date from before the window"),
        "mean_age_days": ("days", "mean age of the image at the cut-off date"),
        "median_age_days": ("days", "median age of the image at the cut-off date"),
    }
    new = {
        str(name): (("time", "zone"), cube[name].transpose("year", "zone").values, dict(zip(("units", "long_name"), texts[str(name)], strict=True)))
        for name in cube.data_vars
    }  # fmt: skip
    return areas.assign(new)
