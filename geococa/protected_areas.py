"""Reader of the attributes of protected areas as RUNAP and the WDPA publish them, with or without the shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geococa.errors import InputRefused
from geococa.official_tables import parse_numbers, read_cells

__all__ = ["read_protected_areas"]

_KM2 = 100.0

_WDPA: Mapping[str, tuple[str, ...]] = {
    "zone_id": ("wdpaid", "wdpa_id", "site_id"),
    "parcel_id": ("wdpa_pid", "site_pid"),
    "zone": ("name", "orig_name", "name_eng"),
    "designation": ("desig_eng", "desig"),
    "category": ("iucn_cat",),
    "status": ("status",),
    "status_year": ("status_yr",),
    "area_ha": ("rep_area",),
    "gis_area_ha": ("gis_area",),
}
_RUNAP: Mapping[str, tuple[str, ...]] = {
    "zone_id": ("ap_id", "id_pnn"),
    "zone": ("ap_nombre", "nombre"),
    "designation": ("ap_categor", "ap_categoria", "categoria"),
    "category": ("ap_categor", "ap_categoria", "categoria"),
    "area_ha": ("area_ha", "area_ha_to", "area_ha_total", "hectareas"),
}
_COLUMNS = (
    *("source", "zone_id", "parcel_id", "zone", "designation", "category", "status", "status_year"),
    *("area_ha", "gis_area_ha"),
)


def read_protected_areas(path: str | Path) -> pd.DataFrame:
    r"""Read the attributes of parks from a RUNAP or WDPA file.

    Parameters
    ----------
    path : str or Path
        CSV as downloaded, or any vector file with the attributes (shapes are not read; `geococa.read_zones` reads them).

    Returns
    -------
    DataFrame
        One row a record, as in the file: ``source`` ("WDPA" or "RUNAP"), ``zone_id`` (text), ``parcel_id`` (WDPA: parts of one
        area), ``zone`` (name), ``designation``, ``category`` (IUCN category; in RUNAP the national one), ``status``,
        ``status_year`` (Int64; missing where the WDPA writes 0), ``area_ha`` (hectares as reported to the register) and
        ``gis_area_ha`` (measured from the shape, WDPA). The WDPA gives km2, which become hectares. What a register does not
        have, or writes as nought where an area can't be nought, is missing.

    Raises
    ------
    InputRefused
        No file, neither register, a record without number or name, a record twice, an area that is no number.

    References
    ----------
    UNEP-WCMC (2019). User Manual for the World Database on Protected Areas, version 1.6, table 2: areas in km2, status year 0
    for unknown. Parques Nacionales Naturales de Colombia, Registro Único Nacional de Áreas Protegidas (RUNAP).

    Examples
    --------
    >>> path = getfixture("tmp_path") / "wdpa.csv"
    >>> _ = path.write_text("WDPAID,NAME,DESIG_ENG,STATUS_YR,REP_AREA\n144,La Paya,National Natural Park,0,4220.0\n")
    >>> read_protected_areas(path)[["zone_id", "zone", "area_ha"]].values.tolist()
    [['144', 'La Paya', 422000.0]]
    """
    path = Path(path)
    cells = _read(path)
    lower = {str(name).lower(): name for name in reversed(list(cells.columns))}
    wdpa = any(name in lower for name in (*_WDPA["zone_id"], *_WDPA["parcel_id"]))
    if not wdpa and not any(name in lower for name in ("ap_id", "ap_nombre", "id_pnn")):
        raise InputRefused(
            f"{path} is neither of the WDPA (WDPAID, NAME, ...) nor of RUNAP (ap_id, ap_nombre, ...); its columns are "
            f"{', '.join(map(str, cells.columns))}"
        )
    fields = _WDPA if wdpa else _RUNAP
    found = {key: next((lower[name] for name in names if name in lower), None) for key, names in fields.items()}
    missing = [key for key in ("zone_id", "zone") if found[key] is None]
    if missing:
        raise InputRefused(
            f"{path} has no column for {' and '.join(missing)}; expected {', '.join(fields[missing[0]])}"
        )
    table = pd.DataFrame({"source": ["WDPA" if wdpa else "RUNAP"] * len(cells)}, dtype="str")
    for key in _COLUMNS[1:]:
        column = found.get(key)
        if key in ("area_ha", "gis_area_ha"):
            table[key] = _areas(cells, column, path, wdpa)
        elif key == "status_year":
            table[key] = _years(cells, column, path)
        else:
            table[key] = _texts(cells[column]) if column is not None else pd.Series(pd.NA, cells.index, dtype="str")
    _check(table, path)
    return table


def _read(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise InputRefused(f"no table of protected areas at {path}")
    if path.suffix.lower() in (".csv", ".txt"):
        header, rows = read_cells(path)
        return pd.DataFrame(rows, columns=header, dtype="str")
    import pyogrio

    try:
        return pd.DataFrame(pyogrio.read_dataframe(path, read_geometry=False))
    except (pyogrio.errors.DataSourceError, ValueError) as error:
        raise InputRefused(f"{path} is no vector file or CSV that can be read: {error}") from None


def _texts(values: pd.Series) -> pd.Series:
    """Text, numbers without the ".0" that a missing neighbour gives them; empty is missing."""

    def text(value: Any) -> Any:
        if pd.isna(value):
            return pd.NA
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        plain = str(value).strip()
        return plain or pd.NA

    out = values.map(text).astype("str")
    return out.str.removesuffix(".0") if out.dropna().str.fullmatch(r"\d+\.0").any() else out


def _areas(cells: pd.DataFrame, column: str | None, path: Path, wdpa: bool) -> np.ndarray:
    if column is None:
        return np.full(len(cells), np.nan)
    if pd.api.types.is_numeric_dtype(cells[column]):
        numbers = cells[column].to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        places = [f"{path}, line {line}, column {column}" for line in range(2, len(cells) + 2)]
        texts = cells[column].fillna("").tolist()
        numbers = parse_numbers(texts, places, decimal="." if wdpa else None)[0]
    return np.where(numbers > 0, numbers * (_KM2 if wdpa else 1.0), np.nan)


def _years(cells: pd.DataFrame, column: str | None, path: Path) -> pd.Series:
    if column is None:
        return pd.Series(pd.NA, cells.index, dtype="Int64")
    numbers = pd.to_numeric(cells[column].replace("", None), errors="coerce")
    bad = numbers.isna() & cells[column].notna() & (cells[column].astype(str).str.strip() != "")
    if bad.any():
        line = int(np.flatnonzero(bad.to_numpy())[0]) + 2
        raise InputRefused(
            f"{path}, line {line}, column {column} reads {cells[column][bad].iloc[0]!r}, expected a year"
        )
    return numbers.where(numbers > 0).astype("Int64")


def _check(table: pd.DataFrame, path: Path) -> None:
    for key in ("zone_id", "zone"):
        empty = table[key].isna()
        if empty.any():
            line = int(np.flatnonzero(empty.to_numpy())[0]) + 2
            raise InputRefused(f"{path}, line {line} has no {'number' if key == 'zone_id' else 'name'}; fill it in")
    again = table.duplicated(["zone_id", "parcel_id"])
    if again.any():
        first = table[again].iloc[0]
        raise InputRefused(f"{path} has {first.zone!r} ({first.zone_id}) twice; keep one record of each area")
