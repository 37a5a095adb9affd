"""Zones within larger zones: park in department in country, and the totals of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geococa._checks import check_type
from geococa.errors import InputRefused, KindMismatch, ZoneError
from geococa.owned_ground import LONLAT, polygons_in
from geococa.polygons import geometry_areas_ha, rings_of
from geococa.zone_shapes import named_zones, zones_lonlat

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["NO_PARENT", "assign_parents", "roll_up"]

NO_PARENT = "(none)"
"""Name under which `roll_up` adds the zones that lie in no parent."""


def assign_parents(zones: GeoDataFrame, parents: GeoDataFrame, *, name: str = "parent") -> GeoDataFrame:
    """Say in which of some larger zones each zone lies: the one that holds most of its hectares.

    Parameters
    ----------
    zones : geopandas.GeoDataFrame
        From `geococa.read_zones`, for example parks.
    parents : geopandas.GeoDataFrame
        From `geococa.read_zones`, in any CRS, for example departments.
    name : str
        Column for the parent's name; with several levels, one call each: ``name="department"``, ``name="country"``.

    Returns
    -------
    geopandas.GeoDataFrame
        The zones with columns ``name`` (missing where no parent overlaps the zone) and ``name + "_share"``: the share of
        the zone's hectares, on the ellipsoid, that lies in this parent (0..1). Of parents that hold equally much,
        the first of the file is taken.

    Raises
    ------
    CRSMismatch
        A layer has no CRS.
    InputRefused
        The column is there already, or belongs to geococa.

    Examples
    --------
    >>> import geopandas
    >>> zones = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[shapely.box(-74, 2, -73, 3)], crs="EPSG:4326")
    >>> halves = [shapely.box(-75, 1, -73.25, 4), shapely.box(-73.25, 1, -72, 4)]
    >>> parents = geopandas.GeoDataFrame({"zone": ["Meta", "Guaviare"]}, geometry=halves, crs="EPSG:4326")
    >>> assign_parents(zones, parents)[["zone", "parent", "parent_share"]]
       zone parent  parent_share
    0  park   Meta          0.75
    """
    zones, parents = named_zones(zones), named_zones(parents)
    share_name = f"{name}_share"
    taken = [column for column in (name, share_name) if column in zones.columns or column == "zone"]
    if taken:
        raise InputRefused(f"the zones already have a column {taken[0]!r}; choose another with name=")
    first, second, shared_ha = _overlaps(zones, parents)
    own_ha = geometry_areas_ha(zones_lonlat(zones), LONLAT)
    best = np.full(len(zones), -1)
    most = np.zeros(len(zones))
    for zone, parent, area in zip(first, second, shared_ha, strict=True):
        # rounding must not choose between parents that hold the same
        if area > most[zone] * (1 + 1e-9) and area > 1e-9 * own_ha[zone]:
            best[zone], most[zone] = parent, area
    names = parents["zone"].astype(str).to_numpy(object)
    chosen = [names[parent] if parent >= 0 else None for parent in best]
    share = np.minimum(np.divide(most, own_ha, out=np.zeros(len(zones)), where=own_ha > 0), 1.0)
    out = zones.copy()
    place = list(out.columns).index(out.geometry.name)
    out.insert(place, name, pd.Series(chosen, index=out.index, dtype=object))
    out.insert(place + 1, share_name, share)
    return out


def _overlaps(zones: GeoDataFrame, parents: GeoDataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of zone and parent in their order, and the hectares that they share."""
    small, large = zones_lonlat(zones).geometries(), zones_lonlat(parents).geometries()
    first, second = shapely.STRtree(large).query(small)
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    shared = np.empty(first.size, dtype=object)
    for parent in np.unique(second):
        pairs = np.flatnonzero(second == parent)
        shared[pairs] = polygons_in(small[first[pairs]], large[parent])
    area = geometry_areas_ha(rings_of(shared), LONLAT) if first.size else np.empty(0)
    return first, second, area


def roll_up(areas: xr.Dataset, zones: GeoDataFrame, *, parent: str = "parent") -> xr.Dataset:
    """Add the areas of zones up to those of their parents.

    Parameters
    ----------
    areas : xarray.Dataset
        From `geococa.zonal_area` or `geococa.merge_areas`.
    zones : geopandas.GeoDataFrame
        The zones with the column ``parent``, from `assign_parents` or the zone file.
    parent : str
        That column, for example ``"department"``.

    Returns
    -------
    xarray.Dataset
        Areas like those given, with the parents, in alphabetical order, as ``zone``; `geococa.areas_table`,
        `geococa.area_trend` and `geococa.write_report` take them. Zones without a parent are added up under
        ``"(none)"``, last. Coordinate ``zones`` tells how many zones each has.

    Raises
    ------
    KindMismatch
        ``areas`` are no areas.
    ZoneError
        The column, or a zone of the areas, is missing.

    Notes
    -----
    Each zone counts whole for its one parent, so totals are those of the *parks of a department*, also where a park
    reaches over its border. Ground in two zones of the same parent counts twice; `geococa.zone_overlaps` finds it.

    Examples
    --------
    >>> import geopandas
    >>> areas = xr.Dataset(
    ...     {"area_ha": (("zone", "land_cover"), [[1.0], [2.0]]), "unobserved_ha": ("zone", [0.0, 1.0]),
    ...      "outside_ha": ("zone", [0.0, 0.0]), "zone_ha": ("zone", [1.0, 3.0])},
    ...     coords={"zone": ["a", "b"], "land_cover": ["coca"]})
    >>> squares = [shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)]
    >>> zones = geopandas.GeoDataFrame({"zone": ["a", "b"], "parent": ["Meta", "Meta"]}, geometry=squares)
    >>> roll_up(areas, zones).area_ha.values
    array([[3.]])
    """
    check_type(areas, xr.Dataset, "areas", "geococa.zonal_area gives them")
    if not hasattr(zones, "columns") or "zone" not in zones.columns:
        raise ZoneError("the zones have no column 'zone' with their names; read them with geococa.read_zones")
    names = ("area_ha", "unobserved_ha", "outside_ha", "zone_ha")
    missing = [name for name in names if name not in areas]
    if missing:
        raise KindMismatch(f"expected the areas that geococa.zonal_area gives, but {', '.join(missing)} is missing")
    if parent not in zones.columns:
        raise ZoneError(
            f"the zones have no column {parent!r} ({', '.join(map(str, zones.columns))}); make it with geococa.assign_parents"
        )
    lookup = dict(zip(zones["zone"].astype(str), zones[parent], strict=True))
    lost = [str(zone) for zone in areas["zone"].values if str(zone) not in lookup]
    if lost:
        raise ZoneError(f"{len(lost)} zones of the areas are not among the zones: {', '.join(lost[:5])}")
    owner = [lookup[str(zone)] for zone in areas["zone"].values]
    labels = [NO_PARENT if pd.isna(value) else str(value) for value in owner]
    order = [*sorted({label for label in labels if label != NO_PARENT}), *([NO_PARENT] if NO_PARENT in labels else [])]
    member = np.array([[label == parent_name for label in labels] for parent_name in order], dtype=np.float64)
    weights = xr.DataArray(member, dims=("parent_zone", "zone"), coords={"zone": areas["zone"]})
    out = xr.Dataset(attrs={**areas.attrs, "zones": f"totals of the zones of each {parent}"})
    for name in names:
        total = (areas[name] * weights).sum("zone").rename(parent_zone="zone")
        dims = [str(dim) for dim in areas[name].dims]
        out[name] = total.transpose(*dims).assign_attrs(areas[name].attrs)
    counts = member.sum(axis=1).astype(int)
    return out.assign_coords(zone=order, zones=("zone", counts)).drop_vars("closure", errors="ignore")
