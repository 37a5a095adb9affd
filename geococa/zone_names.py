"""Which column of a zone file names its zones, and its columns under names that all files share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from geococa.errors import ZoneError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["Duplicates", "name_column", "unique_names", "with_attributes", "with_names"]

NAME_COLUMNS = (
    "zone",
    "park",
    "ap_nombre",
    "nom_parque",
    "nombre_ap",
    "park_name",
    "name_eng",
    "name",
    "orig_name",
    "nombre",
    "nom",
    "mpio_cnmbr",
    "mpio_nombre",
    "nombre_mpi",
    "municipio",
    "municipality",
    "nombre_ver",
    "resguardo",
    "territorio",
    "nombre_res",
    "dpto_cnmbr",
    "nombre_dpt",
    "departamento",
    "department",
    "title",
    "label",
)
"""Columns that name zones, most telling first: RUNAP and WDPA parks, DANE municipalities and departments, reserves."""

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "zone_id": (
        "ap_id",
        "id_pnn",
        "wdpaid",
        "wdpa_id",
        "site_id",
        "wdpa_pid",
        "site_pid",
        "mpio_cdpmp",
        "mpio_ccnct",
        "cod_mpio",
        "divipola",
        "dpto_ccdgo",
        "cod_dpto",
        "dpto",
    ),
    "designation": ("desig_eng", "desig", "ap_categor", "ap_categoria", "categoria"),
    "category": ("iucn_cat", "ap_categor", "ap_categoria"),
}
"""Columns of RUNAP, WDPA and DANE files behind the columns that zones get, most telling first."""

Duplicates = Literal["refuse", "number", "dissolve"]


def name_column(frame: GeoDataFrame, name: str | None, path: Path) -> str | None:
    """Column that names the zones: the one asked for, else a known one, else the only one that could; None of no columns."""
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    if name is not None:
        if name not in columns:
            raise ZoneError(
                f"{path}: no column {name!r} to name the zones; the columns are {', '.join(columns) or 'none'}"
            )
        return name
    lower = {column.lower(): column for column in reversed(columns)}
    for candidate in NAME_COLUMNS:
        if candidate in lower and frame[lower[candidate]].notna().any():
            return lower[candidate]
    texts = [
        column
        for column in columns
        if _is_text(frame[column]) and frame[column].is_unique and frame[column].notna().all()
    ]
    if len(texts) == 1:
        return texts[0]
    if not columns:
        return None
    if len(columns) == 1 and frame[columns[0]].is_unique and frame[columns[0]].notna().all():
        return columns[0]
    raise ZoneError(f"{path}: no column is known to name the zones; choose one with name=, from {', '.join(columns)}")


def _is_text(values: Any) -> bool:
    return bool(values.map(lambda value: isinstance(value, str)).all())


def with_names(frame: GeoDataFrame, column: str | None, path: Path) -> GeoDataFrame:
    """Put the names into ``zone``, the first column, and the geometry last."""
    if column is None:
        names = [f"zone {number}" for number in range(1, len(frame) + 1)]
    else:
        values = frame[column]
        missing = values.isna() | (values.astype(str).str.strip() == "")
        if missing.any():
            rows = (np.flatnonzero(missing.to_numpy()) + 1)[:5].tolist()
            raise ZoneError(
                f"{path}: {int(missing.sum())} zones have no name in {column!r} (features {rows}); fill it in, or "
                "choose another column with name="
            )
        names = [_as_name(value) for value in values]
    rest = frame.drop(columns=[column] if column == "zone" else [])
    if "zone" in rest.columns:
        rest = rest.rename(columns={"zone": "zone_source"})
    geometry = rest.geometry.name
    rest = rest.rename_geometry("geometry") if geometry != "geometry" else rest
    rest.insert(0, "zone", names)
    ordered = [*[c for c in rest.columns if c != "geometry"], "geometry"]
    return rest[ordered].reset_index(drop=True)


def with_attributes(frame: GeoDataFrame) -> GeoDataFrame:
    """Put what RUNAP, WDPA and DANE call by their own names into columns of one name, behind ``zone``."""
    lower = {str(column).lower(): column for column in reversed(list(frame.columns))}
    out, place = frame, 1
    for target, candidates in ATTRIBUTES.items():
        found = [lower[name] for name in candidates if name in lower and frame[lower[name]].notna().any()]
        if not found or target in lower:
            continue
        values = [None if pd.isna(value) else _as_name(value) for value in frame[found[0]]]
        out = out.copy() if out is frame else out
        out.insert(place, target, pd.Series(values, index=out.index, dtype=object))
        place += 1
    return out


def _as_name(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def unique_names(frame: GeoDataFrame, duplicates: Duplicates, columns: Sequence[str], path: Path) -> GeoDataFrame:
    """Zones of unique names; ``columns`` are those of the file, of which some could be taken instead."""
    again = frame["zone"].duplicated(keep=False)
    if not again.any():
        return frame
    if duplicates == "dissolve":
        merged = frame.dissolve(by="zone", sort=False, as_index=False)
        return merged[list(frame.columns)]
    if duplicates == "number":
        return frame.assign(zone=_numbered(frame["zone"].tolist()))
    found = frame.loc[again, "zone"].unique().tolist()
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    others = [column for column in columns if column in frame.columns and _tells_apart(frame[column])]
    remedy = (
        f"take a column that is unique with name= ({', '.join(others[:8])}), or " if others else "no column is unique; "
    )
    raise ZoneError(
        f"{path}: names that occur more than once: {found[:5]}{more}; {remedy}use duplicates='number' to keep them apart, "
        "or duplicates='dissolve' to join those of one name into one zone"
    )


def _numbered(names: Sequence[str]) -> list[str]:
    """Names made unique by a number behind the second and later ones, such as ``La Union (2)``."""
    taken, out = set(names), []
    count: dict[str, int] = {}
    for name in names:
        number = count.get(name, 0) + 1
        new = name
        while number > 1 and (new := f"{name} ({number})") in taken:
            number += 1
        count[name] = number
        taken.add(new)
        out.append(new)
    return out


def _tells_apart(values: pd.Series) -> bool:
    """Whether a column of a file could name its zones: whole numbers or texts, each once."""
    if values.isna().any() or not (_is_text(values) or values.dtype.kind in "iu"):
        return False
    return bool(values.is_unique)
