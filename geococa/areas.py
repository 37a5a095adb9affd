"""Stage 7: hectares per zone, year and class on the ellipsoid; what was not observed, or lies outside, stays apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyproj
import xarray as xr

from geococa._checks import check_dims, check_kind, check_threads, check_type, kind_of
from geococa.area_density import ELLIPSOIDAL, parse_measure
from geococa.centre_cells import centre_coverage
from geococa.coverage import Coverage, check_grid
from geococa.errors import GridMismatch, InputRefused, KindMismatch, ZoneError
from geococa.fraction_sums import fraction_sums_ha
from geococa.legend import Legend
from geococa.polygons import geometry_areas_ha, rings_of
from geococa.report_tables import DATE_COLUMNS
from geococa.zonal_sums import class_sums_ha, exact_sum
from geococa.zone_algebra import zone_overlaps
from geococa.zone_shapes import named_zones
from geococa.zone_statistics import zonal_statistics

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = [
    "areas_table",
    "merge_areas",
    "observed_share",
    "require_observed",
    "zonal_area",
    "zonal_statistics",
    "zone_overlaps",
]

_CLOSED = 1e-9
"""Relative difference of hectares below which two of them are the same."""
_WORST_CLOSURE = 1e-3
_COUNTED = "pixel counting, not a design-based estimate"
_BY_CENTRE = "cells by their centre"
_FRACTIONS = "sum of area fractions of pixels, not a design-based estimate"
Float = npt.NDArray[np.float64]


def zonal_area(
    land_cover: xr.DataArray,
    share: Coverage,
    *,
    area: str = ELLIPSOIDAL,
    method: Literal["exact", "centre"] = "exact",
    threads: int | None = 1,
) -> xr.Dataset:
    """Hectares of every class in every zone.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(time, y, x)`` or ``(y, x)`` with CF flags, 255 = not observed, NumPy or Dask (read by blocks of rows).
        Or a fraction map (``kind="fraction"``, from `geococa.classify` or `geococa.as_fraction`): float
        ``([time,] land_cover, y, x)``, area shares that sum to 1, NaN = not observed; then hectares are the sum of
        fraction, share inside and cell area, and the attribute ``estimate`` says so. Probabilities are refused.
    share : Coverage
        From `geococa.coverage_fraction` on the same grid.
    area : str
        ``"ellipsoidal"``: hectares of the WGS84 ellipsoid. ``"planar:EPSG:32618"``: hectares in the plane of that
        projection, to compare with figures made so; they are off by up to 1.9 % in Colombia, and the result's
        attributes say which they are.
    method : {"exact", "centre"}
        ``"exact"``: each cell counts with its share inside. ``"centre"``: a cell counts wholly if its centre lies inside,
        to reproduce the figures of older tools (with ``area="planar:..."`` in the map's own CRS also their nominal
        cells); ``zone_ha`` is then what was counted and what lies outside, not the polygon's area, and ``estimate`` says
        so.
    threads : int or None
        Threads over zones; the result is the same to the last bit whatever their number, and whatever the chunks of
        the map. None takes one for each processor.

    Returns
    -------
    xarray.Dataset
        ``area_ha (time, zone, land_cover)``, ``unobserved_ha`` and ``outside_ha (time, zone)``, ``zone_ha (zone)``;
        coordinate ``closure (zone)``. Every class of the legend and every zone is there, with 0 ha if need be. In
        each zone and year, the classes and what was not observed or lies outside add up to ``zone_ha`` to 1e-9.

    Raises
    ------
    KindMismatch
        ``land_cover`` is neither a land-cover map nor a fraction map.
    GridMismatch
        Map and coverage are on different grids.
    InputRefused
        The map holds a code that its legend does not name, or fractions that are not shares; ``area``, ``method`` or
        ``threads`` is none of those above.

    Notes
    -----
    A cell counts with its share inside the zone times its area; within one cell on the border, area is taken as
    evenly spread. That leaves the sums 1e-7 or less away from the area of the polygon itself; they are multiplied by
    ``closure``, the ratio of the two, so that tables add up. A closure far from 1 is refused.

    Examples
    --------
    >>> import geopandas, shapely
    >>> from geococa import Grid, as_land_cover, coverage_fraction
    >>> grid = Grid("EPSG:32618", (100, 0, 500000, 0, -100, 300000), (2, 2))
    >>> labels = grid.attach(xr.DataArray(np.array([[1, 1], [2, 255]], np.uint8), dims=("y", "x")))
    >>> square = shapely.box(500000, 299800, 500200, 300000)
    >>> park = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[square], crs=grid.crs)
    >>> areas = zonal_area(as_land_cover(labels, ["coca", "forest"]), coverage_fraction(park, grid))
    >>> areas.area_ha.sel(zone="park").values.round(4)
    array([2.0016, 1.0008])
    >>> areas.unobserved_ha.values.round(4)
    array([1.0008])
    """
    check_type(
        land_cover, xr.DataArray, "land_cover", "open a map with geococa.read_raster or make one with as_land_cover"
    )
    check_type(share, Coverage, "share", "make it with geococa.coverage_fraction(zones, Grid.from_xarray(land_cover))")
    threads = check_threads(threads)
    if method not in ("exact", "centre"):
        raise InputRefused(f"method must be 'exact' or 'centre', got {method!r}")
    if kind_of(land_cover) in ("fraction", "probability"):
        return _fraction_area(land_cover, share, area, method, threads)
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "y", "x", optional=("time",))
    if land_cover.dtype != np.uint8:
        raise KindMismatch(
            f"a land-cover map is uint8, got {land_cover.dtype}; make one with geococa.as_land_cover(labels, classes)"
        )
    check_grid(land_cover, share, "land_cover")
    legend = Legend.from_attrs(land_cover.attrs)
    single = "time" not in land_cover.dims
    maps = land_cover.expand_dims("time") if single else land_cover.transpose("time", "y", "x")
    cells = share if method == "exact" else centre_coverage(share)
    sums, legend = class_sums_ha(maps, cells, legend, area=area, threads=threads)
    out = _assembled(sums, maps, share, list(legend.names), area, _COUNTED, threads, method)
    return out.isel(time=0) if single else out


def _fraction_area(fraction: xr.DataArray, share: Coverage, area: str, method: str, threads: int) -> xr.Dataset:
    """Hectares from area fractions, see `zonal_area`."""
    if kind_of(fraction) == "probability":
        raise KindMismatch(
            "expected land_cover or fraction, got probability: probabilities are not area shares, since a pixel that is coca with probability 0.3 is not coca on 30 % of its "
            "area; label the map (geococa.label), or classify with a model of method 'fraction' or 'unmixing'"
        )
    check_dims(fraction, "land_cover", "y", "x", optional=("time",))
    if fraction.dtype not in (np.float32, np.float64) or "land_cover" not in fraction.coords:
        raise KindMismatch(
            f"a fraction map is float32 or float64 with class names in the coordinate land_cover, got {fraction.dtype}; "
            "make one with geococa.as_fraction(array, classes)"
        )
    check_grid(fraction, share, "fraction")
    single = "time" not in fraction.dims
    maps = fraction.expand_dims("time") if single else fraction
    maps = maps.transpose("time", "land_cover", "y", "x")
    cells = share if method == "exact" else centre_coverage(share)
    sums = fraction_sums_ha(maps, cells, area=area, threads=threads)
    names = [str(name) for name in maps["land_cover"].values]
    out = _assembled(sums, maps, share, names, area, _FRACTIONS, threads, method)
    return out.isel(time=0) if single else out


def _assembled(
    sums: Float,
    maps: xr.DataArray,
    share: Coverage,
    classes: list[str],
    area: str,
    estimate: str,
    threads: int,
    method: str,
) -> xr.Dataset:
    """Close the sums of each zone, and give them names."""
    zone_ha, inside_ha = share.measured(area, threads=threads)
    if method == "centre":
        # as counted: cells at the border that count or don't never add up to the polygon
        counted = sums[0].sum(axis=1) if len(sums) else np.zeros_like(zone_ha)
        zone_ha, inside_ha, closure = zone_ha - inside_ha + counted, counted, np.ones_like(zone_ha)
        estimate = f"{_BY_CENTRE}: {estimate}"
    else:
        sums, closure = _closed(sums, inside_ha, share)
    outside = np.broadcast_to(zone_ha - inside_ha, sums.shape[:2])
    coords: dict[str, Any] = {"time": maps["time"]} if "time" in maps.coords else {}
    coords["closure"] = ("zone", closure, {"units": "1", "long_name": "factor that closes the sums"})
    labels = {**coords, "zone": share.zone_names, "land_cover": classes}
    return _dataset(sums[:, :, :-1], sums[:, :, -1], outside.copy(), zone_ha.copy(), labels, area, estimate)


def _dataset(
    area_ha: Float,
    unobserved_ha: Float,
    outside_ha: Float,
    zone_ha: Float,
    coords: dict[str, Any],
    area: str,
    estimate: str,
) -> xr.Dataset:
    """Areas with their units and how they were measured."""
    planar = parse_measure(area)
    surface = "WGS84 ellipsoid" if planar is None else f"plane of {planar.name}, not true areas of the ground"
    variables = {
        "area_ha": (("time", "zone", "land_cover"), area_ha, "area of the class in the zone"),
        "unobserved_ha": (("time", "zone"), unobserved_ha, "area of the zone that was not observed"),
        "outside_ha": (("time", "zone"), outside_ha, "area of the zone outside the map"),
        "zone_ha": (("zone",), zone_ha, "area of the zone"),
    }
    return xr.Dataset(
        {name: (dims, values, {"units": "ha", "long_name": text}) for name, (dims, values, text) in variables.items()},
        coords=coords,
        attrs={
            "kind": "areas",
            "area": area,
            "surface": surface,
            "estimate": estimate,
        },
    )


def _closed(sums: Float, inside_ha: Float, share: Coverage) -> tuple[Float, Float]:
    """Multiply the sums of each zone so that they add up to its hectares on the raster."""
    total = sums.sum(axis=2)
    factor = np.divide(inside_ha[None, :], total, out=np.ones_like(total), where=total > 0)
    # a zone that no cell of the raster holds, though its outline touches it: all of it is not observed
    empty = (total == 0) & (inside_ha > 0)[None, :]
    out = sums * factor[:, :, None]
    out[:, :, -1] = np.where(empty, inside_ha[None, :], out[:, :, -1])
    closure = factor[0] if len(factor) else np.ones(inside_ha.size)
    cell_ha = float(np.median(share.grid.cell_area_ha((0, 1)))) if min(share.grid.shape) else 0.0
    # slivers between the outlines of tiles have hectares, but hardly cells; they don't matter
    missing = np.abs(inside_ha - total[0]) if len(total) else np.zeros(inside_ha.size)
    off = (missing > _WORST_CLOSURE * inside_ha) & (missing > 0.02 * cell_ha)
    if off.any():
        worst = int(np.abs(np.where(off, closure - 1, 0)).argmax())
        raise GridMismatch(
            f"zone {share.zone_names[worst]!r} has {inside_ha[worst]:.6g} ha on the map but its cells add up to "
            f"{total[0, worst]:.6g} ha; the grid is too coarse or too distorted for it: use a finer map"
        )
    return out, closure


def merge_areas(parts: Sequence[xr.Dataset], zones: GeoDataFrame, *, area: str | None = None) -> xr.Dataset:
    """Add up the areas of many tiles whose ground does not overlap.

    Parameters
    ----------
    parts : sequence of xarray.Dataset
        From `zonal_area`, one for each tile, with coverages made with ``owned`` from `geococa.own_tiles`. A zone,
        year or class that a tile lacks counts as 0 there.
    zones : geopandas.GeoDataFrame
        The zones, in the order wanted.
    area : str, optional
        How the parts were measured, where they don't say it themselves (their attribute ``area``).

    Returns
    -------
    xarray.Dataset
        As `zonal_area` gives it; ``outside_ha`` is what no tile holds. The order of the tiles does not matter, to
        the last bit.

    Raises
    ------
    InputRefused
        Two tiles count the same ground, their areas were measured differently, or none holds any of the zones.

    Notes
    -----
    Tiles cut from one raster, in whatever number, with whatever overlap, give the hectares of the whole to 1e-9: the
    ground that `geococa.own_tiles` gives a tile ends between cells, and the sums are closed once for each zone.
    """
    check_type(parts, (list, tuple), "parts", "give the results of geococa.zonal_area, one for each tile")
    if not parts:
        raise InputRefused("there are no areas to merge; give at least one result of geococa.zonal_area")
    for part in parts:
        _check_areas(part)
    zones = named_zones(zones)
    measure, estimate = _common_measure(parts, area), _common_estimate(parts)
    if estimate.startswith(_BY_CENTRE):
        raise InputRefused("cells counted by their centre don't add up over tiles; use method='exact' for each tile")
    names = [str(name) for name in zones["zone"]]
    _refuse_strangers(parts, names)
    parts = [part if "time" in part.dims else part.expand_dims("time") for part in parts]
    years = np.unique(np.concatenate([part["time"].values for part in parts]))
    classes = list(dict.fromkeys(str(name) for part in parts for name in part["land_cover"].values))
    zone_ha = geometry_areas_ha(rings_of(zones.geometry.values), pyproj.CRS.from_user_input(zones.crs), measure)
    labels = {"time": years, "zone": names, "land_cover": classes}
    area_ha, unobserved = _added(parts, labels)
    outside = zone_ha[None, :] - area_ha.sum(axis=2) - unobserved
    _refuse_twice(outside, zone_ha, names)
    outside[np.abs(outside) <= _CLOSED * zone_ha[None, :]] = 0.0
    # a sliver between two tiles' outlines may leave the sum above the zone by less than 1e-6 of it
    held = zone_ha[None, :] - outside
    excess = np.divide(zone_ha[None, :], held, out=np.ones_like(outside), where=outside < 0)
    area_ha, unobserved, outside = area_ha * excess[:, :, None], unobserved * excess, np.maximum(outside, 0.0)
    return _dataset(area_ha, unobserved, outside, zone_ha, labels, measure, estimate)


def _added(parts: Sequence[xr.Dataset], labels: dict[str, Any]) -> tuple[Float, Float]:
    """Classes and what was not observed, added over the tiles.

    Each tile's sums were multiplied by a factor that closes them (coordinate ``closure``). Cells are added as they are,
    and closed once for the zone: so tiles on one lattice give what the whole gives, whatever the cut.
    """
    aligned = [part[["area_ha", "unobserved_ha"]].drop_vars("closure", errors="ignore") for part in parts]
    aligned = [part.reindex(labels, fill_value=0.0) for part in aligned]
    area = [part["area_ha"].transpose("time", "zone", "land_cover").values for part in aligned]
    unseen = [part["unobserved_ha"].transpose("time", "zone").values for part in aligned]
    if not all("closure" in part.coords for part in parts):
        return _summed(area), _summed(unseen)
    factors = [
        part["closure"].drop_vars("closure").reindex({"zone": labels["zone"]}, fill_value=1.0).values for part in parts
    ]
    held = _summed([cells.sum(axis=2) + rest for cells, rest in zip(area, unseen, strict=True)])
    area_ha = _summed([cells / factor[None, :, None] for cells, factor in zip(area, factors, strict=True)])
    unobserved = _summed([rest / factor[None, :] for rest, factor in zip(unseen, factors, strict=True)])
    total = area_ha.sum(axis=2) + unobserved
    closing = np.divide(held, total, out=np.ones_like(held), where=total > 0)
    return area_ha * closing[:, :, None], unobserved * closing


def _refuse_strangers(parts: Sequence[xr.Dataset], names: Sequence[str]) -> None:
    """Refuse zones of which no part knows a single one: their table would be all zero."""
    held = [str(name) for part in parts for name in np.atleast_1d(part["zone"].values)]
    if not set(held).intersection(names):
        raise InputRefused(
            f"none of the zones ({', '.join(names[:3])}, ...) is in the areas ({', '.join(held[:3])}, ...); give the zones that "
            "the coverages were made with"
        )


def _refuse_twice(outside: Float, zone_ha: Float, names: Sequence[str]) -> None:
    """Refuse tiles that hold more of a zone than there is."""
    twice = outside < -1e-6 * zone_ha[None, :] - 1e-6
    if twice.any():
        year, zone = np.argwhere(twice)[0]
        raise InputRefused(
            f"the tiles hold {zone_ha[zone] - outside[year, zone]:.6g} ha of zone {names[zone]!r}, which has "
            f"{zone_ha[zone]:.6g} ha: overlapping tiles count the same ground; make each coverage with owned= from "
            "geococa.own_tiles"
        )


def _common_measure(parts: Iterable[xr.Dataset], area: str | None) -> str:
    check_type(area, (str, type(None)), "area", "such as 'ellipsoidal' or 'planar:EPSG:32618'")
    measures = {str(part.attrs["area"]) for part in parts if "area" in part.attrs} | ({area} if area else set())
    if len(measures) > 1:
        raise InputRefused(
            f"areas measured in different ways can't be added: {sorted(measures)}; use one area= for all tiles"
        )
    return measures.pop() if measures else ELLIPSOIDAL


def _common_estimate(parts: Iterable[xr.Dataset]) -> str:
    found = {str(part.attrs["estimate"]) for part in parts if "estimate" in part.attrs}
    if len(found) > 1:
        raise InputRefused(
            f"areas from labels and from fractions can't be added: {sorted(found)}; use one for all tiles"
        )
    return found.pop() if found else _COUNTED


def _summed(arrays: Sequence[Float]) -> Float:
    """Elementwise sum that does not depend on the order of the arrays."""
    stack = np.stack(arrays)
    flat = stack.reshape(len(arrays), -1)
    used = (flat != 0).sum(axis=0)
    out = flat.sum(axis=0)
    for column in np.flatnonzero(used > 2):
        # addition of two numbers commutes; of more it does not
        out[column] = exact_sum(flat[:, column])
    total: Float = out.reshape(stack.shape[1:])
    return total


def areas_table(areas: xr.Dataset) -> pd.DataFrame:
    """Areas as a tidy table.

    Parameters
    ----------
    areas : xarray.Dataset
        From `zonal_area` or `merge_areas`.

    Returns
    -------
    pandas.DataFrame
        One row for each zone, year and class, in that order: ``zone, year, land_cover, area_ha, unobserved_ha,
        outside_ha, zone_ha, observed_share``, and what is known of the dates behind them: ``mean_observations,
        fallback_share, mean_age_days, median_age_days`` (`geococa.image_ages.age_summary`). ``year`` is missing (NA) where the map had no time.
        Areas in the plane of a projection have a last column ``surface``, such as ``planar:EPSG:32618``, so that nobody
        takes them for those of the ground.

    Examples
    --------
    >>> areas = xr.Dataset(
    ...     {"area_ha": (("time", "zone", "land_cover"), [[[1.0, 2.0]]]), "zone_ha": ("zone", [4.0]),
    ...      "unobserved_ha": (("time", "zone"), [[1.0]]), "outside_ha": (("time", "zone"), [[0.0]])},
    ...     coords={"time": np.array(["2020-12-31"], "datetime64[ns]"), "zone": ["a"],
    ...             "land_cover": ["coca", "forest"]})
    >>> areas_table(areas)[["zone", "year", "land_cover", "area_ha", "observed_share"]]
      zone  year land_cover  area_ha  observed_share
    0    a  2020       coca      1.0            0.75
    1    a  2020     forest      2.0            0.75
    """
    _check_areas(areas)
    wide = areas if "time" in areas.dims else areas.expand_dims("time")
    if "time" in wide.coords and np.issubdtype(wide["time"].dtype, np.datetime64):
        years: Any = pd.array(wide["time"].dt.year.values, dtype="int64")
    elif "time" in wide.coords:
        years = pd.array(wide["time"].values)
    else:
        years = pd.array([pd.NA] * wide.sizes["time"], dtype="Int64")
    zones, classes = wide["zone"].values, wide["land_cover"].values
    times, n_zones, n_classes = len(years), len(zones), len(classes)
    area_ha = wide["area_ha"].transpose("zone", "time", "land_cover").values
    names = ("unobserved_ha", "outside_ha", *(name for name in DATE_COLUMNS if name in wide))
    per_year = {name: wide[name].transpose("zone", "time").values.ravel() for name in names}
    seen = observed_share(wide).transpose("zone", "time").values.ravel()
    table = pd.DataFrame(
        {
            "zone": np.repeat(zones, times * n_classes),
            "year": years.take(np.tile(np.repeat(np.arange(times), n_classes), n_zones)),
            "land_cover": np.tile(classes, n_zones * times),
            "area_ha": area_ha.ravel(),
            **{name: np.repeat(per_year.pop(name), n_classes) for name in ("unobserved_ha", "outside_ha")},
            "zone_ha": np.repeat(wide["zone_ha"].values, times * n_classes),
            "observed_share": np.repeat(seen, n_classes),
            **{name: np.repeat(values, n_classes) for name, values in per_year.items()},
        }
    )
    if areas.attrs.get("area", ELLIPSOIDAL) != ELLIPSOIDAL:
        table["surface"] = str(areas.attrs["area"])
    table.attrs = {key: str(value) for key, value in areas.attrs.items()}
    return table


def observed_share(areas: xr.Dataset) -> xr.DataArray:
    """Share of each zone that was observed, per year.

    Parameters
    ----------
    areas : xarray.Dataset
        From `zonal_area` or `merge_areas`.

    Returns
    -------
    xarray.DataArray
        float64 ``(time, zone)`` in 0..1, NaN for a zone without area: classes over zone. Ground outside the map was
        not observed.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> areas = xr.Dataset(
    ...     {"area_ha": (("time", "zone", "land_cover"), [[[1.0, 2.0]]]), "zone_ha": ("zone", [4.0]),
    ...      "unobserved_ha": (("time", "zone"), [[1.0]]), "outside_ha": (("time", "zone"), [[0.0]])},
    ...     coords={"time": np.array(["2020-12-31"], "datetime64[ns]"), "zone": ["a"], "land_cover": ["coca", "forest"]})
    >>> observed_share(areas).values.tolist()
    [[0.75]]
    """
    _check_areas(areas)
    with np.errstate(invalid="ignore", divide="ignore"):
        seen = areas["area_ha"].sum("land_cover") / areas["zone_ha"]
    # sums close to 1e-9: what lies nearer to the whole zone is all of it
    seen = seen.where(~(seen > 1 - _CLOSED), 1.0)
    return seen.rename("observed_share").assign_attrs(units="1", long_name="share of the zone that was observed")


def require_observed(areas: xr.Dataset, minimum: float = 0.7) -> xr.Dataset:
    """Return ``areas`` if every zone was observed well enough in every year.

    Parameters
    ----------
    areas : xarray.Dataset
        From `zonal_area` or `merge_areas`.
    minimum : float
        Smallest share of a zone that must have been observed, 0..1.

    Raises
    ------
    InputRefused
        A zone was observed less in some year; the message lists them.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> areas = xr.Dataset(
    ...     {"area_ha": (("time", "zone", "land_cover"), [[[1.0, 2.0]]]), "zone_ha": ("zone", [4.0]),
    ...      "unobserved_ha": (("time", "zone"), [[1.0]]), "outside_ha": (("time", "zone"), [[0.0]])},
    ...     coords={"time": np.array(["2020-12-31"], "datetime64[ns]"), "zone": ["a"], "land_cover": ["coca", "forest"]})
    >>> require_observed(areas, 0.7) is areas
    True
    """
    if not isinstance(minimum, int | float | np.number) or not 0 <= minimum <= 1:
        raise InputRefused(f"minimum must be a share between 0 and 1, got {minimum!r}")
    seen = observed_share(areas)
    seen = seen if "time" in seen.dims else seen.expand_dims("time")
    short = [
        f"{seen['zone'].values[zone]}{_year(seen, time)}: {float(seen[time, zone]):.0%}"
        for time, zone in np.argwhere(~(seen.transpose("time", "zone").values >= minimum))
    ]
    if short:
        more = f" and {len(short) - 10} more" if len(short) > 10 else ""
        raise InputRefused(
            f"{len(short)} zone-years were observed on less than {minimum:.0%} of the zone: "
            f"{'; '.join(short[:10])}{more}. Lower the threshold, add scenes, or leave these out"
        )
    return areas


def _year(seen: xr.DataArray, time: int) -> str:
    if "time" not in seen.coords:
        return ""
    value = seen["time"].values[time]
    return f" {str(value)[:4] if np.issubdtype(seen['time'].dtype, np.datetime64) else value}"


def _check_areas(areas: xr.Dataset) -> None:
    if not isinstance(areas, xr.Dataset):
        raise KindMismatch(f"expected the areas that geococa.zonal_area gives, got {type(areas).__name__}")
    missing = [name for name in ("area_ha", "unobserved_ha", "outside_ha", "zone_ha") if name not in areas]
    if missing:
        raise KindMismatch(f"expected the areas that geococa.zonal_area gives, but {', '.join(missing)} is missing")
    if areas.sizes.get("zone", 0) == 0:
        raise ZoneError("the areas hold no zone")
