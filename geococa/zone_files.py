"""Reading zone files: what kind of file it is, which column names the zones, and polygons fit to be measured."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import shapely

from geococa._checks import check_type
from geococa.antimeridian import longest_jump, split_jumps
from geococa.errors import CRSMismatch, InputRefused, ZoneError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["read_zones", "repair_polygons"]

_LOG = logging.getLogger("geococa")

LARGEST_REPAIR = 1e-3
"""Share of its area that a polygon may change by when it is repaired."""

CROSSING_DEGREES = 340.0
"""An edge over so many degrees of longitude goes over the antimeridian: the other way round, a zone is no park."""

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
Repair = Literal["safe", "force", "refuse"]


def read_zones(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    layer: str | None = None,
    duplicates: Duplicates = "refuse",
    repair: Repair = "safe",
) -> GeoDataFrame:
    """Read park or other zone polygons.

    Parameters
    ----------
    path : path
        GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet; recognised by its first bytes, not by its name.
    name : str, optional
        Column that names the zones; that of RUNAP (``ap_nombre``), WDPA (``NAME``), DANE and similar files is found
        where not given.
    layer : str, optional
        Layer of a GeoPackage that has several.
    duplicates : {"refuse", "number", "dissolve"}
        What to do with a name that occurs twice: refuse the file, number the zones (``"La Union"``, ``"La Union
        (2)"``), or join their polygons into one zone.
    repair : {"safe", "force", "refuse"}
        Invalid polygons are repaired and the change of area logged; over 0.1 % the file is refused. ``"force"``
        takes any change, ``"refuse"`` none.

    Returns
    -------
    geopandas.GeoDataFrame
        Column ``zone`` (unique names), the file's other columns, and valid 2-D polygons, in the file's CRS. Files of
        RUNAP, WDPA or DANE also get ``zone_id`` (text; ``ap_id``, ``WDPAID``, DANE code), ``designation``
        (``DESIG_ENG``, ``ap_categor``) and ``category`` (``IUCN_CAT``; in RUNAP, ``ap_categor``) where the file has
        such columns and none of that name.

    Raises
    ------
    InputRefused
        The file is not one of these kinds.
    CRSMismatch
        It has no CRS, or one that its coordinates contradict.
    ZoneError
        No polygons, no column that names them, names that are not unique, or polygons beyond repair.

    Notes
    -----
    Zones without geometry are left out with a logged warning. Zones may overlap; each is measured on its own.

    The edge between two vertices is the straight line in the CRS of the file; in longitude and latitude that is the
    line on which latitude is a linear function of longitude, not the geodesic. On maps in another CRS, vertices are
    added so that hectares stay within 1e-6 of that (in fact within 1e-8).

    A zone that crosses the antimeridian may have longitudes beyond 180 degrees, or be split there. An edge from 179 to
    -179 degrees (340 degrees or more) is taken the short way and the zone split there, with a logged warning; edges over
    180 to 340 degrees are refused.
    """
    check_type(path, (str, os.PathLike), "path", "name a zone file")
    if duplicates not in get_args(Duplicates):
        raise InputRefused(f"duplicates must be 'refuse', 'number' or 'dissolve', got {duplicates!r}")
    source = Path(path)
    kind = sniff(source)
    frame = _read_parquet(source, layer) if kind == "GeoParquet" else _read_ogr(source, kind, layer)
    if frame.crs is None:
        raise CRSMismatch(
            f"{source}: the layer has no coordinate reference system; add it to the file (for a Shapefile, its .prj) "
            "or read it with geopandas and use set_crs"
        )
    if len(frame) == 0:
        raise ZoneError(f"{source}: the layer has no features")
    columns = [str(column) for column in frame.columns if column != frame.geometry.name]
    column = _name_column(frame, name, source)
    frame = _with_zone(frame, column, source)
    frame = _without_empty(frame, source)
    frame = _with_attributes(frame)
    _check_range(frame, source)
    frame = _within_one_turn(frame, source)
    frame = frame.set_geometry(
        repair_polygons(frame.geometry.values, frame["zone"].tolist(), repair, str(source)), crs=frame.crs
    )
    return _unique(frame, duplicates, columns, source)


# Files
# -----------------------------------------------------------------------------------------------------------------


def sniff(path: Path) -> str:
    """Kind of a vector file by its content.

    Only these kinds go on to GDAL, which would also open files that name other files, servers or programs.
    """
    if not path.is_file():
        raise InputRefused(
            f"{path}: no such file" if not path.exists() else f"{path} is not a file; name the file with the polygons"
        )
    with path.open("rb") as file:
        head = file.read(4096)
    if head[:16] == b"SQLite format 3\0" and head[68:72] in (b"GPKG", b"GP10", b"GP11"):
        return "GeoPackage"
    if head[:3] == b"fgb" and head[4:7] == b"fgb":
        return "FlatGeobuf"
    if head[:4] == b"PAR1":
        return "GeoParquet"
    if len(head) >= 100 and struct.unpack(">i", head[:4])[0] == 9994 and struct.unpack("<i", head[28:32])[0] == 1000:
        return "Shapefile"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"{":
        return "GeoJSON"
    hint = "unzip it first; " if head[:2] == b"PK" else ""
    raise InputRefused(
        f"{path}: not a GeoPackage, GeoJSON, Shapefile (.shp), FlatGeobuf or GeoParquet file "
        f"(it starts with {head[:12]!r}); {hint}save the layer as one of these"
    )


_DRIVERS = {"GeoPackage": "GPKG", "GeoJSON": "GeoJSON", "Shapefile": "ESRI Shapefile", "FlatGeobuf": "FlatGeobuf"}


def _read_ogr(path: Path, kind: str, layer: str | None) -> GeoDataFrame:
    import pyogrio

    if kind == "Shapefile" and path.suffix.lower() != ".shp":
        raise InputRefused(f"{path}: a Shapefile must be named .shp, with its .dbf, .shx and .prj beside it")
    try:
        chosen = _layer(path, layer)
        info = pyogrio.read_info(path, layer=chosen)
        if info["driver"] != _DRIVERS[kind]:
            raise InputRefused(f"{path}: looks like {kind} but would be opened as {info['driver']}; refused")
        return pyogrio.read_dataframe(path, layer=chosen)
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        pyogrio.errors.GeometryError,
        ValueError,
        RuntimeError,
    ) as error:
        raise ZoneError(f"{path}: can't be read as {kind}: {error}") from error


def _layer(path: Path, layer: str | None) -> str:
    import pyogrio

    layers = pyogrio.list_layers(path)
    names = [str(row[0]) for row in layers]
    if layer is not None:
        if layer not in names:
            raise ZoneError(f"{path}: no layer {layer!r}; it has {', '.join(names)}")
        return layer
    solid = [
        str(row[0])
        for row in layers
        if row[1] is not None and ("Polygon" in row[1] or row[1] in ("Unknown", "GeometryCollection"))
    ]
    candidates = solid or names
    if len(candidates) != 1:
        raise ZoneError(
            f"{path}: {len(candidates)} layers could be the zones ({', '.join(candidates) or 'none'}); "
            "name one with layer="
        )
    return candidates[0]


def _read_parquet(path: Path, layer: str | None) -> GeoDataFrame:
    import geopandas

    if layer is not None:
        raise ZoneError(
            f"{path}: no layer {layer!r}; a GeoParquet file holds one table without a name, leave layer out"
        )
    try:
        return geopandas.read_parquet(path)
    except (ValueError, OSError, KeyError) as error:
        raise ZoneError(f"{path}: can't be read as GeoParquet: {error}") from error


# Names
# -----------------------------------------------------------------------------------------------------------------


def _name_column(frame: GeoDataFrame, name: str | None, path: Path) -> str | None:
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


def _with_zone(frame: GeoDataFrame, column: str | None, path: Path) -> GeoDataFrame:
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


def _with_attributes(frame: GeoDataFrame) -> GeoDataFrame:
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


def _unique(frame: GeoDataFrame, duplicates: Duplicates, columns: Sequence[str], path: Path) -> GeoDataFrame:
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


# Geometry
# --------------------------------------------------------------------------------------------------------------


def _without_empty(frame: GeoDataFrame, path: Path) -> GeoDataFrame:
    empty = frame.geometry.isna() | frame.geometry.is_empty
    if empty.all():
        raise ZoneError(f"{path}: none of the {len(frame)} features has a geometry")
    if empty.any():
        _LOG.warning(
            "%s: %d zones have no geometry and are left out: %s",
            path,
            int(empty.sum()),
            frame.loc[empty, "zone"].tolist()[:10],
        )
    return frame[~empty].reset_index(drop=True)


def repair_polygons(
    geometries: Any, names: Sequence[str], repair: Repair = "safe", source: str = "zones"
) -> npt.NDArray[np.object_]:
    """Return valid 2-D polygons, with every change of area logged.

    Parameters
    ----------
    geometries : array-like of shapely geometries
        Polygons, multipolygons, or collections of these.
    names : sequence of str
        Names for messages.
    repair : {"safe", "force", "refuse"}
        As for `read_zones`.
    source : str
        File for messages.

    Returns
    -------
    object array of shapely Polygon and MultiPolygon

    Raises
    ------
    ZoneError
        Points or lines, coordinates that are not finite, or polygons that change by more than 0.1 %.
    """
    if repair not in ("safe", "force", "refuse"):
        raise InputRefused(f"repair must be 'safe', 'force' or 'refuse', got {repair!r}")
    shapes = np.asarray(geometries, dtype=object)
    if shapes.ndim != 1 or len(names) != shapes.size or not all(isinstance(g, shapely.Geometry) for g in shapes):
        raise ZoneError(
            f"{source}: expected a list of shapely polygons and as many names; leave out what has no geometry"
        )
    flat = shapely.force_2d(shapes)
    flat = np.array([_polygonal(shape, zone, source) for shape, zone in zip(flat, names, strict=True)], dtype=object)
    coordinates, owner = shapely.get_coordinates(flat, return_index=True)
    wild = ~np.isfinite(coordinates).all(axis=1)
    if wild.any():
        raise ZoneError(f"{source}: zone {names[int(owner[wild][0])]!r} has a coordinate that is not a finite number")
    for number in np.flatnonzero(~shapely.is_valid(flat)):
        flat[number] = _repaired(flat[number], names[int(number)], repair, source)
    return flat


def _polygonal(shape: Any, zone: str, source: str) -> Any:
    kind = shape.geom_type
    if kind in ("Polygon", "MultiPolygon"):
        return shape
    if kind == "GeometryCollection":
        parts = [part for part in shapely.get_parts(shape) if not part.is_empty]
        if parts and all(part.geom_type in ("Polygon", "MultiPolygon") for part in parts):
            return shapely.MultiPolygon([polygon for part in parts for polygon in shapely.get_parts(part)])
    raise ZoneError(
        f"{source}: zone {zone!r} is a {kind}; zones must be polygons. For points or lines, buffer them first"
    )


def _repaired(shape: Any, zone: str, repair: Repair, source: str) -> Any:
    reason = shapely.is_valid_reason(shape)
    before = float(shape.area)
    fixed = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    polygons = [part for part in shapely.get_parts(fixed) if part.geom_type == "Polygon" and not part.is_empty]
    after = float(sum(part.area for part in polygons))
    change = abs(after - before) / max(before, after) if max(before, after) > 0 else 1.0
    if repair == "refuse" or (repair == "safe" and change > LARGEST_REPAIR) or after == 0:
        remedy = (
            "repair it in the file"
            if after == 0
            else "repair it in the file, or pass repair='force' to take the repaired polygon"
        )
        raise ZoneError(
            f"{source}: zone {zone!r} is not valid ({reason}); repairing it changes its area by {change:.2%}, "
            f"more than the {0 if repair == 'refuse' else LARGEST_REPAIR:.1%} allowed; {remedy}"
        )
    _LOG.warning(
        "%s: zone %r was not valid (%s) and was repaired; its area changed by %.2g %%",
        source,
        zone,
        reason,
        100 * change,
    )
    return polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)


def _check_range(frame: GeoDataFrame, path: Path) -> None:
    """Refuse degrees that can't be: swapped axes, or metres in a file that says longitude and latitude."""
    if not frame.crs.is_geographic:
        return
    west, south, east, north = frame.total_bounds
    unit = frame.crs.axis_info[0].unit_conversion_factor / (np.pi / 180)
    if max(abs(south), abs(north)) * unit > 90.0001 or max(abs(west), abs(east)) * unit > 360.0001:
        swapped = max(abs(west), abs(east)) * unit <= 90.0001 and max(abs(south), abs(north)) * unit <= 360.0001
        why = "longitude and latitude are swapped" if swapped else "the coordinates are not degrees"
        raise CRSMismatch(
            f"{path}: the file says {frame.crs.name} (degrees), but its coordinates reach from "
            f"({west:.6g}, {south:.6g}) to ({east:.6g}, {north:.6g}): {why}; correct the file's CRS"
        )


def _within_one_turn(frame: GeoDataFrame, path: Path) -> GeoDataFrame:
    """Split polygons that cross the antimeridian without saying so: edges of nearly a turn go the short way round."""
    if not frame.crs.is_geographic or abs(frame.crs.axis_info[0].unit_conversion_factor * 180 / np.pi - 1) > 1e-9:
        return frame
    bounds = shapely.bounds(frame.geometry.values)
    wide = np.flatnonzero(bounds[:, 2] - bounds[:, 0] > 180.0)
    shapes = np.array(frame.geometry.values, dtype=object)
    names = []
    for number in wide:
        jump = longest_jump(shapes[number])
        if jump == 0.0:
            continue
        split = split_jumps(shapes[number]) if jump >= CROSSING_DEGREES else shapes[number]
        if split is shapes[number]:
            raise ZoneError(
                f"{path}: zone {frame['zone'].iloc[number]!r} has an edge over {jump:.0f} degrees of longitude: if it crosses "
                "the antimeridian or holds a pole, split it there into a multipolygon; if not, give that edge more vertices"
            )
        shapes[number] = split
        names.append(frame["zone"].iloc[number])
    if not names:
        return frame
    _LOG.warning(
        "%s: edges over more than 340 degrees of longitude were taken the short way, over the antimeridian, and the "
        "zones split there: %s",
        path,
        names[:10],
    )
    return frame.set_geometry(shapes, crs=frame.crs)
