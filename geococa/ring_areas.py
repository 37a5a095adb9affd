"""Hectares of a class by distance from the edge of each park, outside and inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind
from geococa.change_steps import Support
from geococa.coverage import Coverage, check_grid, coverage_fraction
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA, Legend
from geococa.zone_blocks import closing_factor, map_years, zone_blocks
from geococa.zones import buffer_rings

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["ring_table"]

_FLICKER = ("flicker_ha", "decided_ha", "flicker_share")


def ring_table(
    land_cover: xr.DataArray,
    zones: GeoDataFrame | Coverage,
    distances_m: Sequence[float] = (0, 1000, 5000, 10000),
    *,
    class_name: str = "coca",
    sides: Sequence[str] = ("outside", "inside"),
    observations: xr.DataArray | None = None,
) -> pd.DataFrame:
    """Hectares of a class in rings along the edge of each zone, outside and inside, for every year.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(time, y, x)`` or ``(y, x)`` with CF flags, 255 = not observed; NumPy or Dask (read by blocks of rows).
    zones : geopandas.GeoDataFrame or Coverage
        Parks, from `geococa.read_zones`; or the coverage of the rings that `geococa.buffer_rings` made of them, where the
        same rings serve several maps.
    distances_m : sequence of float
        Distances from the edge that part the rings, as in `geococa.buffer_rings`.
    class_name : str
        The class.
    sides : sequence of {"outside", "inside"}
        Sides wanted.
    observations : xarray.DataArray, optional
        Usable dates behind every pixel and time, for ``observations``.

    Returns
    -------
    pandas.DataFrame
        One row per zone, ring and year: ``zone``, ``ring``, ``from_m``, ``to_m`` (negative inside, ``-inf`` for the core), ``year``
        (-1 for a map without time), ``area_ha`` of the class, ``observed_ha``, ``unobserved_ha``, ``outside_ha`` (off the map),
        ``ring_ha``, ``class_share`` (class over observed, NaN where nothing was), ``change_ha`` (from the year before, on
        ground observed in both; NaN in the first), ``flicker_ha``, ``decided_ha`` and ``flicker_share`` (as in `geococa.new_and_abandoned`),
        ``observed_years`` and ``observations``. Observed, unobserved and outside add up to ``ring_ha``.

    Raises
    ------
    KindMismatch
        ``land_cover`` is no land-cover map.
    GridMismatch
        Map and coverage are on different grids.
    InputRefused
        The coverage is not one of rings, or the legend lacks the class.

    Notes
    -----
    Rings of neighbouring zones may overlap, so their hectares must not be added over zones.

    Examples
    --------
    >>> import geopandas, shapely, geococa
    >>> grid = geococa.Grid("EPSG:32618", (100, 0, 500000, 0, -100, 300000), (40, 40))
    >>> codes = np.full((40, 40), 2, dtype="uint8")
    >>> codes[:, 25:] = 1
    >>> land_cover = geococa.as_land_cover(grid.attach(xr.DataArray(codes, dims=("y", "x"))), ["coca", "forest"])
    >>> park = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[shapely.box(500000, 296000, 502000, 300000)], crs=grid.crs)
    >>> table = ring_table(land_cover, park, [1000], sides=["outside"])
    >>> table[["ring", "area_ha"]].round(0).values.tolist()
    [['outside 0-1000 m', 200.0]]
    """
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "y", "x", optional=("time",))
    timed = "time" in land_cover.dims
    maps = land_cover.transpose("time", "y", "x") if timed else land_cover.expand_dims("time")
    if isinstance(zones, Coverage):
        share = zones
    else:
        rings = buffer_rings(zones, distances_m, sides=sides)
        share = coverage_fraction(rings, Grid.from_xarray(land_cover), allow_outside=True)
    missing = [name for name in ("of", "ring", "from_m", "to_m") if name not in share.zones]
    if missing:
        raise InputRefused(f"the zones lack the columns {missing}; make rings with geococa.buffer_rings")
    check_grid(land_cover, share, "land_cover")
    if observations is not None:
        check_grid(observations, share, "observations")
        observations = observations if "time" in observations.dims else observations.expand_dims("time")
    code = Legend.from_attrs(land_cover.attrs).code(class_name)
    years = map_years(maps) if timed else [-1]
    return _table(maps, share, code, years, observations)


def _table(
    maps: xr.DataArray, share: Coverage, code: int, years: list[int], observations: xr.DataArray | None
) -> pd.DataFrame:
    times, rings = len(years), len(share.zones)
    area, observed, change = (np.zeros((rings, times)) for _ in range(3))
    support = Support(times - 1, rings)
    dates = np.zeros((rings, times))
    for ring, codes, weights, counts in zone_blocks(maps, share, observations):
        present, seen = codes == code, codes != NO_DATA
        support.add(ring, present, seen, weights, counts)
        area[ring] += present @ weights
        observed[ring] += seen @ weights
        moved = (present[1:].astype(np.int8) - present[:-1]) * (seen[1:] & seen[:-1])
        change[ring, 1:] += moved @ weights
        if counts is not None:
            dates[ring] += (counts * seen) @ weights
    factor = closing_factor(share, support.total)[:, None]
    ground = np.divide(area, observed, out=np.full_like(area, np.nan), where=observed > 0)
    mean_dates = np.divide(dates, observed, out=np.full_like(area, np.nan), where=observed > 0)
    steps = support.columns(factor[:, 0])
    # a ring has one row more than steps: nothing came or went before the first year
    lasts = {name: np.full((rings, times), 0.0 if name.endswith("_ha") else np.nan) for name in _FLICKER}
    for name, part in lasts.items():
        part[:, 1:] = steps[name].reshape(rings, times - 1)
    change[:, 0] = np.nan
    held = share.zones[["of", "ring", "from_m", "to_m"]].rename(columns={"of": "zone"})
    table = pd.DataFrame(held.loc[held.index.repeat(times)]).reset_index(drop=True)
    seen_years = np.divide(support.years, support.total, out=np.full(rings, np.nan), where=support.total > 0)
    values = {
        "area_ha": area * factor,
        "observed_ha": observed * factor,
        "unobserved_ha": share.inside_ha[:, None] - observed * factor,
        "outside_ha": np.repeat(share.outside_ha[:, None], times, axis=1),
        "ring_ha": np.repeat(share.zone_ha[:, None], times, axis=1),
        "class_share": ground,
        "change_ha": change * factor,
        **lasts,
        "observed_years": np.repeat(seen_years[:, None], times, axis=1),
        "observations": mean_dates if observations is not None else np.full_like(area, np.nan),
    }
    table["year"] = np.tile(years, rings)
    return table.assign(**{name: part.ravel() for name, part in values.items()})
