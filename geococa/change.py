"""What became what: hectares of change per zone, change that lasts apart from flicker, persistence, forest loss near coca.

A pixel that was not observed is never a change: hectares of change are those of the common support, what is left is reported.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from geococa.change_steps import Support, interval_coords, lasting, maps_of, unseen
from geococa.coverage import Coverage, check_grid
from geococa.density import concentration, density_grid, enclaves
from geococa.errors import InputRefused
from geococa.forest_loss import associated_forest_loss
from geococa.legend import NO_DATA
from geococa.permanence import persistence
from geococa.ring_areas import ring_table
from geococa.sustained import sustained_change
from geococa.zone_blocks import closing_factor, map_years, zone_blocks

__all__ = [
    "associated_forest_loss",
    "concentration",
    "density_grid",
    "enclaves",
    "expansion_rate",
    "new_and_abandoned",
    "persistence",
    "ring_table",
    "sustained_change",
    "transitions",
]


def transitions(
    land_cover: xr.DataArray,
    share: Coverage,
    *,
    years_before: int = 2,
    years_after: int = 2,
    observations: xr.DataArray | None = None,
) -> xr.Dataset:
    """Hectares per zone that went from each class to each class between consecutive times of a map.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(time, y, x)`` with CF flags, 255 = not observed, two times or more; NumPy or Dask (read by blocks of rows).
    share : Coverage
        From `geococa.coverage_fraction` on the same grid.
    years_before, years_after : int
        A change counts as sustained where the pixel has the old class in so many times up to the change and the new class in so
        many times from it on; as flicker where they were observed and one differs; as undecided where one was not observed or
        lies beyond the series.
    observations : xarray.DataArray, optional
        Usable dates behind every pixel and time (``composite["observations"]``), for ``observations``.

    Returns
    -------
    xarray.Dataset
        ``area_ha`` and ``sustained_ha`` ``(time, zone, from_class, to_class)``; ``changed_ha``, ``flicker_ha``, ``undecided_ha``,
        ``flicker_share`` (flicker / decided change; NaN where nothing could be decided), ``unobserved_ha`` (not observed at one of
        the two times), ``outside_ha`` ``(time, zone)``; ``zone_ha`` and ``observed_years`` (mean number of times observed per
        pixel) ``(zone)``; ``observations`` ``(time, zone)``, the mean of the scarcer of the two times. ``time`` is the later one,
        coordinate ``from_time`` the earlier. The classes, ``unobserved_ha`` and ``outside_ha`` add up to ``zone_ha``.

    Raises
    ------
    KindMismatch
        ``land_cover`` is no land-cover map.
    GridMismatch
        Map and coverage are on different grids.
    InputRefused
        There are fewer than two times.

    Examples
    --------
    >>> import geopandas, shapely, geococa
    >>> grid = geococa.Grid("EPSG:32618", (100, 0, 500000, 0, -100, 300000), (1, 2))
    >>> codes = np.array([[[2, 2]], [[1, 255]]], dtype="uint8")
    >>> land_cover = geococa.as_land_cover(grid.attach(xr.DataArray(codes, dims=("time", "y", "x"))), ["coca", "forest"])
    >>> park = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[shapely.box(500000, 299900, 500200, 300000)], crs=grid.crs)
    >>> change = transitions(land_cover, geococa.coverage_fraction(park, grid))
    >>> float(change.area_ha.sel(from_class="forest", to_class="coca").sum().round(3)), float(change.unobserved_ha.sum().round(3))
    (1.001, 1.001)
    """
    maps, legend = maps_of(land_cover, share)
    if observations is not None:
        check_grid(observations, share, "observations")
    if years_before < 1 or years_after < 1:
        raise InputRefused(f"years_before and years_after must be at least 1, got {years_before} and {years_after}")
    steps, zones, classes = maps.sizes["time"] - 1, len(share.zones), len(legend.names)
    area = np.zeros((steps, zones, classes * classes))
    sustained = np.zeros_like(area)
    flicker, undecided, unobserved, dates = (np.zeros((steps, zones)) for _ in range(4))
    total, seen_years = np.zeros(zones), np.zeros(zones)
    index = np.full(256, -1, dtype=np.int64)
    index[list(legend.codes)] = np.arange(classes)
    same = np.eye(classes, dtype=bool).ravel()
    for zone, codes, weights, counts in zone_blocks(maps, share, observations):
        seen = codes != NO_DATA
        total[zone] += weights.sum()
        seen_years[zone] += (seen.sum(axis=0) * weights).sum()
        number = index[codes]
        for t in range(steps):
            both = seen[t] & seen[t + 1]
            unobserved[t, zone] += weights[~both].sum()
            pair = (number[t] * classes + number[t + 1])[both]
            area[t, zone] += np.bincount(pair, weights[both], minlength=classes * classes)
            change = both & (codes[t] != codes[t + 1])
            lasts, decided = lasting(codes, seen, t, years_before, years_after)
            kept = change & decided & lasts
            sustained[t, zone] += np.bincount(
                number[t][kept] * classes + number[t + 1][kept], weights[kept], minlength=classes * classes
            )
            flicker[t, zone] += weights[change & decided & ~lasts].sum()
            undecided[t, zone] += weights[change & ~decided].sum()
            if counts is not None:
                dates[t, zone] += (np.minimum(counts[t], counts[t + 1])[both] * weights[both]).sum()
    supported = area.sum(axis=2)
    mean_dates = np.divide(dates, supported, out=np.full_like(dates, np.nan), where=supported > 0)
    factor = closing_factor(share, total)
    decided_ha = sustained.sum(axis=2) + flicker
    pair_dims, dims = ("time", "zone", "from_class", "to_class"), ("time", "zone")
    shape = (steps, zones, classes, classes)
    closed = factor[None, :, None]
    out = xr.Dataset(
        {
            "area_ha": (pair_dims, (area * closed).reshape(shape)),
            "sustained_ha": (pair_dims, (sustained * closed).reshape(shape)),
            "changed_ha": (dims, area[:, :, ~same].sum(axis=2) * factor),
            "flicker_ha": (dims, flicker * factor),
            "undecided_ha": (dims, undecided * factor),
            "flicker_share": (
                dims,
                np.divide(flicker, decided_ha, out=np.full_like(flicker, np.nan), where=decided_ha > 0),
            ),
            "unobserved_ha": (dims, unseen(unobserved * factor, share, total)),
            "outside_ha": (dims, np.repeat(share.outside_ha[None], steps, axis=0)),
            "zone_ha": ("zone", np.array(share.zone_ha)),
            "observed_years": ("zone", np.divide(seen_years, total, out=np.full(zones, np.nan), where=total > 0)),
        },
        coords={
            **interval_coords(maps),
            "zone": share.zone_names,
            "from_class": list(legend.names),
            "to_class": list(legend.names),
        },
        attrs={
            "kind": "transitions",
            "sustained": f"{years_before} times before and {years_after} after the change agree",
            "estimate": "pixel counting, not a design-based estimate",
        },
    )
    if observations is not None:
        out["observations"] = (dims, mean_dates)
    for name, variable in out.data_vars.items():
        variable.attrs["units"] = "ha" if str(name).endswith("_ha") else "1"
    return out


def new_and_abandoned(
    land_cover: xr.DataArray,
    share: Coverage,
    *,
    class_name: str = "coca",
    observations: xr.DataArray | None = None,
    years_before: int = 2,
    years_after: int = 2,
) -> pd.DataFrame:
    """Hectares of a class per zone and year that are new, stable, replanted or lost.

    Parameters
    ----------
    land_cover, share
        As in `transitions`.
    class_name : str
        The class.
    observations, years_before, years_after
        As in `transitions`.

    Returns
    -------
    pandas.DataFrame
        One row per zone and year from the second on: ``zone``, ``year``, ``stable_ha`` (in both years), ``new_ha`` (never seen
        before), ``replanted_ha`` (not the year before, but earlier), ``lost_ha``, ``net_share`` ((new + replanted - lost) / area of the
        year before, on the common support; NaN from 0 ha), ``unobserved_ha`` (not observed in one of the two years; part of
        none of the others), ``decided_ha`` (hectares that came or went, with enough observed years around to tell whether that
        lasts; none in the first and the last step), ``flicker_ha`` (those of them that don't last), ``flicker_share`` (flicker over
        decided; NaN where nothing can be decided), ``observed_years`` (mean number of times observed per pixel) and
        ``observations`` (mean usable dates of the scarcer year; NaN where not given).

    Examples
    --------
    >>> import geopandas, shapely, geococa
    >>> grid = geococa.Grid("EPSG:32618", (100, 0, 500000, 0, -100, 300000), (1, 1))
    >>> codes = np.array([1, 2, 1], dtype="uint8").reshape(3, 1, 1)
    >>> land_cover = geococa.as_land_cover(grid.attach(xr.DataArray(codes, dims=("time", "y", "x"))), ["coca", "forest"])
    >>> park = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[shapely.box(500000, 299900, 500100, 300000)], crs=grid.crs)
    >>> new_and_abandoned(land_cover, geococa.coverage_fraction(park, grid))[["lost_ha", "replanted_ha"]].round(2).values.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    maps, legend = maps_of(land_cover, share)
    code = legend.code(class_name)
    steps, zones = maps.sizes["time"] - 1, len(share.zones)
    names = ("stable", "new", "replanted", "lost", "unobserved")
    sums = {name: np.zeros((steps, zones)) for name in names}
    support = Support(steps, zones, years_before=years_before, years_after=years_after)
    if observations is not None:
        check_grid(observations, share, "observations")
    for zone, codes, weights, counts in zone_blocks(maps, share, observations):
        present, seen = codes == code, codes != NO_DATA
        support.add(zone, present, seen, weights, counts)
        ever = np.zeros(codes.shape[1], dtype=bool)
        for t in range(steps):
            ever |= present[t]
            both = seen[t] & seen[t + 1]
            gained = both & ~present[t] & present[t + 1]
            parts = {
                "stable": both & present[t] & present[t + 1],
                "new": gained & ~ever,
                "replanted": gained & ever,
                "lost": both & present[t] & ~present[t + 1],
                "unobserved": ~both,
            }
            for name, mask in parts.items():
                sums[name][t, zone] += weights[mask].sum()
    factor = closing_factor(share, support.total)
    ha = {name: values * factor for name, values in sums.items()}
    ha["unobserved"] = unseen(ha["unobserved"], share, support.total)
    before = ha["stable"] + ha["lost"]
    net = np.divide(
        ha["new"] + ha["replanted"] - ha["lost"], before, out=np.full_like(before, np.nan), where=before > 0
    )
    return pd.DataFrame(
        {
            "zone": np.repeat(share.zone_names, steps),
            "year": np.tile(map_years(maps)[1:], zones),
            **{f"{name}_ha": ha[name].T.ravel() for name in names[:-1]},
            "net_share": net.T.ravel(),
            "unobserved_ha": ha["unobserved"].T.ravel(),
            **support.columns(factor),
        }
    )


def expansion_rate(changes: pd.DataFrame) -> pd.DataFrame:
    """Yearly rate at which a class grew or shrank in each zone, step by step on ground observed in both years.

    Parameters
    ----------
    changes : pandas.DataFrame
        From `new_and_abandoned`.

    Returns
    -------
    pandas.DataFrame
        One row per zone: ``zone``, ``from_year`` and ``to_year`` (of the steps used), ``rate_per_year`` (continuous rate:
        mean of ``ln(area after / area before)``, so that 0.07 doubles the area in ten years; NaN where no step starts and ends with
        some), ``gain_share`` and ``loss_share`` (hectares gained and lost per year over those of the year before), ``steps``,
        ``flicker_share`` (mean over the steps that can be decided), ``observed_years`` and ``observations``.

    Notes
    -----
    Before and after are the hectares of the pixels observed in both years, so a cloudy year neither shrinks a class nor
    makes it grow. Gains and losses hold the flicker; the rate of the whole does not, where as much flickers in as out.

    References
    ----------
    Puyravaud, J.-P. (2003). Standardizing the calculation of the annual rate of deforestation. Forest Ecology and
    Management 177(1-3), 593-596.

    Examples
    --------
    >>> changes = pd.DataFrame({"zone": "park", "year": [2021, 2022], "stable_ha": [100.0, 110.0], "new_ha": [10.0, 11.0],
    ...                         "replanted_ha": 0.0, "lost_ha": 0.0, "flicker_share": np.nan, "observed_years": 3.0,
    ...                         "observations": np.nan})
    >>> float(expansion_rate(changes).rate_per_year.round(4)[0])
    0.0953
    """
    rows = []
    for zone, table in changes.groupby("zone", sort=False):
        before = (table["stable_ha"] + table["lost_ha"]).to_numpy(np.float64)
        gained = (table["new_ha"] + table["replanted_ha"]).to_numpy(np.float64)
        after = table["stable_ha"].to_numpy(np.float64) + gained
        used = (before > 0) & (after > 0)
        years = table["year"].to_numpy()[used]
        held = before[used].sum()
        rows.append(
            {
                "zone": zone,
                "from_year": int(years.min()) - 1 if used.any() else pd.NA,
                "to_year": int(years.max()) if used.any() else pd.NA,
                "rate_per_year": float(np.log(after[used] / before[used]).mean()) if used.any() else np.nan,
                "gain_share": gained[used].sum() / held if held > 0 else np.nan,
                "loss_share": table["lost_ha"].to_numpy(np.float64)[used].sum() / held if held > 0 else np.nan,
                "steps": int(used.sum()),
                **{name: table[name].mean() for name in ("flicker_share", "observed_years", "observations")},
            }
        )
    return pd.DataFrame(rows).astype({"from_year": "Int64", "to_year": "Int64"})
