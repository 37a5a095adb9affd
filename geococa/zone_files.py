"""Reading zone files: which kind of file it is, by its content, and its layer."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from geococa._checks import check_type
from geococa.errors import CRSMismatch, InputRefused, ZoneError
from geococa.zone_names import Duplicates, name_column, unique_names, with_attributes, with_names
from geococa.zone_repair import Repair, check_range, repair_polygons, within_one_turn, without_empty

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["read_zones", "sniff"]


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

    Examples
    --------
    >>> parks = read_zones("sample_tiles/parks.gpkg", name="park")
    >>> len(parks), parks["zone"].iloc[0]
    (8, 'Serranía Azul')
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
    column = name_column(frame, name, source)
    frame = with_names(frame, column, source)
    frame = without_empty(frame, source)
    frame = with_attributes(frame)
    check_range(frame, source)
    frame = within_one_turn(frame, source)
    frame = frame.set_geometry(
        repair_polygons(frame.geometry.values, frame["zone"].tolist(), repair, str(source)), crs=frame.crs
    )
    return unique_names(frame, duplicates, columns, source)


def sniff(path: Path) -> str:
    """Kind of a vector file by its content.

    Only these kinds go on to GDAL, which would also open files that name other files, servers or programs.
    """
    if not path.is_file():
        raise InputRefused(
            f"{path}: no such file; expected the polygons as GeoPackage, GeoJSON, Shapefile, FlatGeobuf or GeoParquet"
            if not path.exists()
            else f"{path} is not a file; name the file with the polygons"
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
