"""Tables as they come, ready for a trend: runs of geococa, tidy tables, one column a year, the raw municipal table."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from geococa.errors import InputRefused
from geococa.official_tables import (
    is_municipal,
    parse_numbers,
    read_cells,
    read_coca_municipal,
    table_text,
    year_columns,
)
from geococa.reference import reconcile, unodc_national

__all__ = ["NATIONAL", "municipal_notes", "read_trend_table", "with_places"]

NATIONAL = "unodc"
"""Name of the packaged national series where a path is expected."""

_NAMES = ("zone", "park", "code")
_PLACES = {"municipality": "code", "department": "department", "country": None}


def read_trend_table(
    path: Path,
    *,
    value: str = "area_ha",
    se: str = "se_ha",
    zone: str | None = None,
    class_name: str = "coca",
    by: str = "municipality",
    decimal: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Read hectares per zone and year for `geococa.area_trend`.

    Parameters
    ----------
    path : Path
        Parquet, or CSV with comma or semicolon: a tidy table (zone, year, hectares), a table with one column a year, or the
        raw municipal table (`read_coca_municipal`). "unodc", where no such file is, means the packaged national series.
    value, se : str
        Columns with hectares and their standard errors, in a tidy table; codes and names of zones stay text.
    zone : str, optional
        Column that names the zones; where not given ``zone``, ``park`` or ``code``, and in a table with one column a year
        its first other column.
    class_name : str
        Rows of this class are kept, where there is a column ``land_cover`` or ``class``.
    by : {"municipality", "department", "country"}
        Sums to make of the raw municipal table; a sum with a missing value is missing.
    decimal : mapping of str to str, optional
        Decimal mark of years whose columns prove none.

    Returns
    -------
    DataFrame
        Tidy: zones, ``year``, ``value`` and what else stands in the file.

    Raises
    ------
    InputRefused
        No file, no rows of the class, cells that are no numbers; the message names the cell.
    """
    if str(path) == NATIONAL and not path.exists():
        return unodc_national()
    if not path.is_file():
        raise InputRefused(
            f"no table at {path}; expected CSV or Parquet with the columns zone, year and hectares, a table with one column a "
            f"year, or {NATIONAL!r} for the published national series"
        )
    if path.suffix.lower() == ".parquet":
        return _of_class(pd.read_parquet(path), class_name, path)
    header, _ = read_cells(path)
    if "year" not in header and is_municipal(header):
        return _summed(read_coca_municipal(path, decimal=decimal), by)
    if "year" not in header and year_columns(header):
        return _from_wide(path, zone, value, decimal)
    return _of_class(_from_tidy(path, zone, value, se), class_name, path)


def _of_class(table: pd.DataFrame, class_name: str, path: Path) -> pd.DataFrame:
    """Rows of the class, where a column tells classes apart."""
    column = next((name for name in ("land_cover", "class") if name in table), None)
    if column is None:
        return table
    rows = table[table[column] == class_name]
    if rows.empty:
        classes = ", ".join(sorted(map(str, table[column].unique())))
        raise InputRefused(f"{path} has no rows of class {class_name!r}, only {classes}; name one with --land-cover")
    return rows


def _from_tidy(path: Path, zone: str | None, value: str, se: str) -> pd.DataFrame:
    text, delimiter = table_text(path)
    names = dict.fromkeys((*_NAMES, *([zone] if zone else [])), "str")
    # a semicolon goes with decimal commas as a rule: the cells have to prove their format
    numbers = {} if delimiter == "," else {value: "str", se: "str"}
    table = pd.read_csv(io.StringIO(text), sep=delimiter, dtype={**names, **numbers}, skipinitialspace=True)
    for name in (value, se):
        if name in table and not pd.api.types.is_numeric_dtype(table[name]):
            cells = table[name].fillna("").astype(str).str.strip().tolist()
            places = [f"{path}, line {line}, column {name}" for line in range(2, len(table) + 2)]
            table[name] = parse_numbers(cells, places)[0]
    return table


def _from_wide(path: Path, zone: str | None, value: str, decimal: Mapping[str, str] | None) -> pd.DataFrame:
    header, rows = read_cells(path)
    years = year_columns(header)
    others = [name for name in header if name not in {year for _, year in years}]
    name = zone if zone is not None else next((n for n in (*_NAMES, *others) if n in header), None)
    if name is not None and name not in header:
        raise InputRefused(f"{path} has no column {name!r}, only {', '.join(header)}; name one with --zone")
    zones = ["all"] * len(rows) if name is None else [row[header.index(name)] for row in rows]
    parts = []
    for k, year in years:
        places = [f"{path}, line {line}, column {year}" for line in range(2, len(rows) + 2)]
        numbers, _ = parse_numbers([row[k] for row in rows], places, decimal=(decimal or {}).get(year))
        parts.append(pd.DataFrame({zone or "zone": zones, "year": int(year), value: numbers}))
    return pd.concat(parts, ignore_index=True)


def _summed(table: pd.DataFrame, by: str) -> pd.DataFrame:
    """Municipal table as it is, or summed over departments or the country."""
    if by not in _PLACES:
        raise InputRefused(f"no sums by {by!r}; expected one of {', '.join(_PLACES)}")
    if by == "municipality":
        return table
    keys = [key for key in (_PLACES[by],) if key]
    sums = table.groupby([*keys, "year", "small_plot_adjustment"], sort=False)["area_ha"].agg(
        lambda values: math.nan if values.isna().any() else math.fsum(values)
    )
    out = sums.reset_index()
    return out.rename(columns={"department": "zone"}) if keys else out.assign(zone="all municipalities of the table")


def municipal_notes(path: Path, decimal: Mapping[str, str] | None = None) -> list[str]:
    """What is to be known of a raw municipal table beside the published totals; empty for any other table.

    A table of part of the country is said to be one; of a whole one, the years are named whose sum is not the total.
    """
    if not path.is_file() or path.suffix.lower() == ".parquet":
        return []
    header, _ = read_cells(path)
    if "year" in header or not is_municipal(header):
        return []
    table = read_coca_municipal(path, decimal=decimal)
    if not np.isin(table["year"], unodc_national()["year"]).any():
        return []
    found = reconcile(table, unodc_national())
    if found.attrs["coverage"].startswith("the table covers part"):
        return [f"{found.attrs['coverage']}: its sums are not the national totals"]
    return [f"{row.year}: {row.note}" for row in found.itertuples() if row.status != "agrees"]


def with_places(trends: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Trends of the municipal table with department and municipality behind the code."""
    if not {"code", "department", "municipality"} <= set(table) or not len(trends):
        return trends
    names = table.drop_duplicates("code").set_index("code")
    out = trends.copy()
    for place, name in enumerate(("department", "municipality"), start=1):
        out.insert(place, name, out["zone"].map(names[name]))
    return out
