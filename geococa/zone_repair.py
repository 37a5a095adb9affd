"""Zone polygons fit to be measured: valid, two-dimensional, within one turn of longitude."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import shapely

from geococa.antimeridian import longest_jump, split_jumps
from geococa.errors import CRSMismatch, InputRefused, ZoneError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["Repair", "check_range", "repair_polygons", "within_one_turn", "without_empty"]

_LOG = logging.getLogger("geococa")

LARGEST_REPAIR = 1e-3
"""Share of its area that a polygon may change by when it is repaired."""

CROSSING_DEGREES = 340.0
"""An edge over so many degrees of longitude goes over the antimeridian: the other way round, a zone is no park."""

Repair = Literal["safe", "force", "refuse"]


def without_empty(frame: GeoDataFrame, path: Path) -> GeoDataFrame:
    """Leave out zones without geometry, with a logged warning; refuse a layer of nothing else."""
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


def check_range(frame: GeoDataFrame, path: Path) -> None:
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


def within_one_turn(frame: GeoDataFrame, path: Path) -> GeoDataFrame:
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
