"""What became what: hectares of change per zone, change that lasts apart from flicker, persistence, forest loss near coca.

A pixel that was not observed is never a change: hectares of change are those of the common support, what is left is reported.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy, positive
from geococa.coverage import Coverage, check_grid
from geococa.density import concentration, density_grid, enclaves
from geococa.errors import InputRefused
from geococa.legend import NO_DATA, Legend
from geococa.sustained import sustained_change
from geococa.zone_blocks import closing_factor, map_years, zone_blocks

__all__ = [
    "associated_forest_loss",
    "concentration",
    "density_grid",
    "enclaves",
    "new_and_abandoned",
    "persistence",
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
    maps, legend = _maps_of(land_cover, share)
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
            lasting, decided = _lasting(codes, seen, t, years_before, years_after)
            kept = change & decided & lasting
            sustained[t, zone] += np.bincount(
                number[t][kept] * classes + number[t + 1][kept], weights[kept], minlength=classes * classes
            )
            flicker[t, zone] += weights[change & decided & ~lasting].sum()
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
            "unobserved_ha": (dims, _unseen(unobserved * factor, share, total)),
            "outside_ha": (dims, np.repeat(share.outside_ha[None], steps, axis=0)),
            "zone_ha": ("zone", np.array(share.zone_ha)),
            "observed_years": ("zone", np.divide(seen_years, total, out=np.full(zones, np.nan), where=total > 0)),
        },
        coords={
            **_interval_coords(maps),
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


def new_and_abandoned(land_cover: xr.DataArray, share: Coverage, *, class_name: str = "coca") -> pd.DataFrame:
    """Hectares of a class per zone and year that are new, stable, replanted or lost.

    Parameters
    ----------
    land_cover, share
        As in `transitions`.
    class_name : str
        The class.

    Returns
    -------
    pandas.DataFrame
        One row per zone and year from the second on: ``zone``, ``year``, ``stable_ha`` (in both years), ``new_ha`` (never seen
        before), ``replanted_ha`` (not the year before, but earlier), ``lost_ha``, ``net_share`` ((new + replanted - lost) / area of the
        year before, on the common support; NaN from 0 ha), ``unobserved_ha`` (not observed in one of the two years; part of
        none of the others).

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
    maps, legend = _maps_of(land_cover, share)
    code = legend.code(class_name)
    steps, zones = maps.sizes["time"] - 1, len(share.zones)
    names = ("stable", "new", "replanted", "lost", "unobserved")
    sums = {name: np.zeros((steps, zones)) for name in names}
    total = np.zeros(zones)
    for zone, codes, weights, _ in zone_blocks(maps, share):
        present, seen = codes == code, codes != NO_DATA
        ever = np.zeros(codes.shape[1], dtype=bool)
        total[zone] += weights.sum()
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
    factor = closing_factor(share, total)
    ha = {name: values * factor for name, values in sums.items()}
    ha["unobserved"] = _unseen(ha["unobserved"], share, total)
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
        }
    )


def persistence(
    land_cover: xr.DataArray,
    *,
    class_name: str = "coca",
    window_years: int = 10,
    permanent_share: float = 0.7,
    intermittent_share: float = 0.3,
    new_years: int = 2,
    abandoned_years: int = 3,
    min_observed_years: int = 3,
) -> xr.DataArray:
    """Permanence of a class at every pixel over the last years: permanent, intermittent, new, abandoned, ...

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(time, y, x)`` with CF flags, one time a year; 255 = not observed. NumPy or Dask.
    class_name : str
        The class.
    window_years : int
        The last so many years of the series count.
    permanent_share, intermittent_share : float
        Shares of the observed years with the class from which on a pixel is permanent or intermittent.
    new_years : int
        First seen in the last so many years, and observed before: new.
    abandoned_years : int
        Seen before, but in none of the last so many years, all but one of which at least were observed: abandoned.
    min_observed_years : int
        Pixels observed in fewer years get 255.

    Returns
    -------
    xarray.DataArray
        uint8 ``(y, x)`` with CF flags 1 permanent, 2 intermittent, 3 new, 4 abandoned, 5 occasional (in fewer years than
        intermittent), 6 absent (observed, never of the class), 255. It is a land-cover map, so `geococa.zonal_area` gives the hectares.

    Raises
    ------
    InputRefused
        A parameter is out of range or the legend lacks the class.

    Notes
    -----
    The rules are tried in the order new, abandoned, permanent, intermittent, occasional.

    Examples
    --------
    >>> codes = np.array([1, 1, 1, 2, 1, 1, 1, 1], dtype="uint8").reshape(8, 1, 1)
    >>> from geococa import as_land_cover
    >>> int(persistence(as_land_cover(xr.DataArray(codes, dims=("time", "y", "x")), ["coca", "forest"])).squeeze())
    1
    """
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "time", "y", "x")
    if not 0.0 < intermittent_share <= permanent_share <= 1.0:
        raise InputRefused(
            "expected 0 < intermittent_share <= permanent_share <= 1, got "
            f"{intermittent_share!r} and {permanent_share!r}"
        )
    for name, value in (
        ("window_years", window_years),
        ("new_years", new_years),
        ("abandoned_years", abandoned_years),
        ("min_observed_years", min_observed_years),
    ):
        if value < 1:
            raise InputRefused(f"{name} must be at least 1, got {value}")
    code = Legend.from_attrs(land_cover.attrs).code(class_name)
    ordered = land_cover.transpose("time", "y", "x")
    years = np.array(map_years(ordered))
    ordered = ordered.isel(time=np.flatnonzero(years > years[-1] - window_years))
    years = years[years > years[-1] - window_years]

    def classes(block: np.ndarray) -> np.ndarray:
        present, seen = block == code, block != NO_DATA
        late, last = years > years[-1] - new_years, years > years[-1] - abandoned_years
        rate = present.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        new = present[late].any(axis=0) & ~present[~late].any(axis=0) & seen[~late].any(axis=0)
        gone = (
            ~present[last].any(axis=0) & (seen[last].sum(axis=0) >= max(1, abandoned_years - 1)) & present.any(axis=0)
        )
        rules = [
            seen.sum(axis=0) < min_observed_years,
            ~present.any(axis=0),
            new,
            gone,
            rate >= permanent_share,
            rate >= intermittent_share,
        ]
        return np.select(rules, [NO_DATA, 6, 3, 4, 1, 2], default=5).astype(np.uint8)

    if is_lazy(ordered):
        data = ordered.data.rechunk({0: -1})
        result = data.map_blocks(classes, drop_axis=0, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    else:
        result = classes(np.asarray(ordered.data))
    out = ordered.isel(time=0, drop=True).copy(data=result).rename("persistence")
    legend = Legend(
        ("permanent", "intermittent", "new", "abandoned", "occasional", "absent"),
        (1, 2, 3, 4, 5, 6),
        ("#7a0177", "#dd3497", "#fa9fb5", "#fdd49e", "#fcc5c0", "#f0f0f0"),
    )
    out.attrs = {
        "kind": "land_cover",
        "long_name": f"permanence of {class_name} {years[0]}-{years[-1]}",
        "units": "1",
        "nodata": NO_DATA,
        **legend.to_attrs(),
    }
    return out


def associated_forest_loss(
    land_cover: xr.DataArray,
    share: Coverage,
    *,
    class_name: str = "coca",
    forest: Sequence[str] = ("forest",),
    distance_m: float = 1000.0,
) -> pd.DataFrame:
    """Hectares of forest lost per zone and year, in all, to coca itself, and within a distance of coca.

    Parameters
    ----------
    land_cover, share
        As in `transitions`. A whole year of the map is held in memory for the distances.
    class_name : str
        The class that loss is related to.
    forest : sequence of str
        Classes that are forest.
    distance_m : float
        Loss within this distance of a pixel of the class, in the year of the loss or the year before, counts as associated.

    Returns
    -------
    pandas.DataFrame
        One row per zone and year from the second on: ``zone``, ``year``, ``forest_loss_ha`` (forest the year before, observed as
        something else now), ``direct_ha`` (now the class), ``associated_ha`` (within the distance, the direct part
        included), ``associated_share`` and ``unobserved_ha`` (not observed in one of the two years).

    Notes
    -----
    Distances are between cell centres in the plane of the map; on a map in degrees they are scaled at its middle latitude. Coca
    beyond the edge of the map is not seen, so a map should reach ``distance_m`` beyond its zones.

    References
    ----------
    GIZ-UNODC (2016). Coca crops and deforestation: the "associated" category is forest loss within 1 km of coca.
    """
    maps, legend = _maps_of(land_cover, share)
    code = legend.code(class_name)
    wood = [legend.code(name) for name in forest]
    positive(distance_m, "distance_m")
    steps, zones = maps.sizes["time"] - 1, len(share.zones)
    loss, direct, near, unobserved = (np.zeros((steps, zones)) for _ in range(4))
    total = np.zeros(zones)
    for t in range(steps):
        pair = maps.isel(time=slice(t, t + 2)).compute()
        close = _within(np.asarray((pair == code).any("time").data), share, distance_m)
        marks = xr.DataArray(np.stack([close, close]).astype(np.uint8), dims=("time", "y", "x"))
        for zone, codes, weights, flags in zone_blocks(pair, share, marks):
            both = (codes != NO_DATA).all(axis=0)
            lost = both & np.isin(codes[0], wood) & ~np.isin(codes[1], wood)
            loss[t, zone] += weights[lost].sum()
            direct[t, zone] += weights[lost & (codes[1] == code)].sum()
            near[t, zone] += weights[lost & (flags[0] > 0)].sum() if flags is not None else 0.0
            unobserved[t, zone] += weights[~both].sum()
            total[zone] += weights.sum() if t == 0 else 0.0
    factor = closing_factor(share, total)
    loss, direct, near = loss * factor, direct * factor, near * factor
    return pd.DataFrame(
        {
            "zone": np.repeat(share.zone_names, steps),
            "year": np.tile(map_years(maps)[1:], zones),
            "forest_loss_ha": loss.T.ravel(),
            "direct_ha": direct.T.ravel(),
            "associated_ha": near.T.ravel(),
            "associated_share": np.divide(near, loss, out=np.full_like(loss, np.nan), where=loss > 0).T.ravel(),
            "unobserved_ha": _unseen(unobserved * factor, share, total).T.ravel(),
        }
    )


def _maps_of(land_cover: xr.DataArray, share: Coverage) -> tuple[xr.DataArray, Legend]:
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "time", "y", "x")
    check_grid(land_cover, share, "land_cover")
    if land_cover.dtype != np.uint8:
        raise InputRefused(f"a land-cover map is uint8, got {land_cover.dtype}; make one with geococa.as_land_cover")
    if land_cover.sizes["time"] < 2:
        raise InputRefused("change needs a map of at least two times, got one")
    return land_cover.transpose("time", "y", "x"), Legend.from_attrs(land_cover.attrs)


def _lasting(codes: np.ndarray, seen: np.ndarray, t: int, before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether the times around a step from ``t`` to ``t + 1`` agree with it, and whether all of them were observed."""
    first, last = t - before + 1, t + after
    if first < 0 or last >= codes.shape[0]:
        nothing = np.zeros(codes.shape[1], dtype=bool)
        return nothing, nothing
    old = (codes[first : t + 1] == codes[t]).all(axis=0)
    new = (codes[t + 1 : last + 1] == codes[t + 1]).all(axis=0)
    return np.asarray(old & new), np.asarray(seen[first : last + 1].all(axis=0))


def _unseen(unobserved_ha: np.ndarray, share: Coverage, total: np.ndarray) -> np.ndarray:
    """Hectares not observed; a zone on the raster that no cell holds was not observed at all."""
    return np.where((total == 0)[None, :], share.inside_ha[None, :], unobserved_ha)


def _interval_coords(maps: xr.DataArray) -> dict[str, object]:
    if "time" not in maps.coords:
        return {}
    return {"time": maps["time"].values[1:], "from_time": ("time", maps["time"].values[:-1])}


def _within(mask: np.ndarray, share: Coverage, distance_m: float) -> np.ndarray:
    """Cells whose centre lies within a distance of the centre of a marked one."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        return np.zeros(mask.shape, dtype=bool)
    grid = share.grid
    width = float(np.hypot(grid.transform.a, grid.transform.d))
    height = float(np.hypot(grid.transform.b, grid.transform.e))
    if grid.crs.is_geographic:
        _, south, _, north = grid.bounds
        width *= 111_319.49 * np.cos(np.radians((south + north) / 2))
        height *= 110_574.0
    else:
        unit = grid.crs.axis_info[0].unit_conversion_factor if grid.crs.axis_info else 1.0
        width, height = width * (unit or 1.0), height * (unit or 1.0)
    distance = distance_transform_edt(~mask, sampling=(height, width))
    return np.asarray(distance <= distance_m * (1 + 1e-9))
