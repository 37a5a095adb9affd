"""Sample designs: how many reference points, in which strata, and where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_kind
from geococa.errors import AccuracyError
from geococa.grid import Grid
from geococa.legend import NO_DATA, UNCLASSIFIED, Legend

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["ALLOCATIONS", "allocate", "expected_shares", "mapped_areas", "sample_design", "sample_size"]

ALLOCATIONS = ("neyman", "proportional", "equal", "floor")
_LEAST = 2
"""Units that every stratum needs for a variance."""


def expected_shares(strata: Any, target: str = "coca") -> dict[str, float]:
    """Shares of the target class to expect in each stratum before anything is known.

    They only steer the allocation: 0.7 of the stratum that the map calls by the target's name, 0.02 of any other. If they are
    wrong the sample is less efficient, never biased.
    """
    return {str(name): 0.7 if str(name) == target else 0.02 for name in strata}


def allocate(
    area_ha: Mapping[str, float] | pd.Series[Any],
    n: int,
    *,
    allocation: str = "neyman",
    target: str = "coca",
    expected_share: Mapping[str, float] | None = None,
    floor: int = 50,
) -> pd.Series[Any]:
    """Allocate sample units to strata.

    Parameters
    ----------
    area_ha : mapping or Series
        Hectares (or pixels) of each stratum; strata without area get no units.
    n : int
        Units in all.
    allocation : {"neyman", "proportional", "equal", "floor"}
        ``neyman`` gives the smallest standard error of the target's hectares; ``floor`` is proportional with at least ``floor``
        units a stratum, as Olofsson et al. (2014) advise for rare classes.
    target : str
        Class whose hectares matter.
    expected_share : mapping, optional
        Share of the target class to expect in each stratum; see `expected_shares`.
    floor : int
        Units that every stratum gets under ``floor``.

    Returns
    -------
    pandas.Series
        int64, units of each stratum; they sum to ``n`` and are at least 2.

    Examples
    --------
    >>> allocate({"coca": 100.0, "other": 9900.0}, 200, allocation="floor").to_dict()
    {'coca': 50, 'other': 150}
    """
    if allocation not in ALLOCATIONS:
        raise AccuracyError(f"allocation must be one of {', '.join(ALLOCATIONS)}, got {allocation!r}")
    areas = pd.Series({str(key): float(value) for key, value in area_ha.items()})
    areas = areas[areas > 0]
    least = floor if allocation == "floor" else _LEAST
    if areas.empty or n < least * len(areas):
        raise AccuracyError(
            f"{len(areas)} strata need at least {least * max(len(areas), 1)} units under allocation {allocation!r}, got {n}; "
            "draw more, or join strata"
        )
    weights = areas / areas.sum()
    if allocation == "equal":
        wanted = weights * 0 + 1.0
    elif allocation == "neyman":
        wanted = weights * _deviations(areas, target, expected_share)
    else:
        wanted = weights
    return _round_up_to(wanted / wanted.sum(), n, least)


def _deviations(areas: pd.Series[Any], target: str, expected_share: Mapping[str, float] | None) -> pd.Series[Any]:
    """Standard deviation of the target's indicator in each stratum."""
    given = expected_shares(areas.index, target) | {str(k): float(v) for k, v in (expected_share or {}).items()}
    share = pd.Series({name: given[name] for name in areas.index})
    if not share.between(0, 1).all():
        raise AccuracyError(f"expected_share must lie between 0 and 1, got {dict(share)}")
    # a stratum thought to be pure may not be: it keeps a little of everything
    share = share.clip(0.001, 0.999)
    deviation: pd.Series[Any] = (share * (1 - share)) ** 0.5
    return deviation


def _round_up_to(shares: pd.Series[Any], n: int, least: int) -> pd.Series[Any]:
    """Whole numbers near ``shares * n`` that sum to ``n``, none below ``least``."""
    fixed = pd.Series(False, index=shares.index)
    while True:
        rest = n - least * int(fixed.sum())
        ideal = shares / shares[~fixed].sum() * rest
        short = ~fixed & (ideal < least)
        if not short.any():
            break
        fixed |= short
    ideal[fixed] = least
    units: pd.Series[Any] = np.floor(ideal + 1e-9).astype(np.int64)
    order = (ideal - units).sort_values(ascending=False, kind="stable").index
    units.loc[order[: n - int(units.sum())]] += 1
    return units


def sample_size(
    target_se_ha: float,
    area_ha: Mapping[str, float] | pd.Series[Any],
    *,
    allocation: str = "neyman",
    target: str = "coca",
    expected_share: Mapping[str, float] | None = None,
    floor: int = 50,
) -> pd.Series[Any]:
    """Find how many units a standard error of the target's hectares takes.

    Parameters
    ----------
    target_se_ha : float
        Standard error to reach, in hectares.
    area_ha, allocation, target, expected_share, floor
        As for `allocate`, areas in hectares.

    Returns
    -------
    pandas.Series
        Units of each stratum; their sum is the sample size. ``attrs["se_ha"]`` is the standard error to expect.

    References
    ----------
    Cochran, W. G. (1977), Sampling Techniques, 3rd ed., sections 5.5 to 5.9.
    """
    if not target_se_ha > 0:
        raise AccuracyError(f"target_se_ha must be positive, got {target_se_ha}")
    areas = pd.Series({str(key): float(value) for key, value in area_ha.items()})
    areas = areas[areas > 0]
    deviation = _deviations(areas, target, expected_share)

    def plan(n: int) -> tuple[pd.Series[Any], float]:
        units = allocate(areas, n, allocation=allocation, target=target, expected_share=expected_share, floor=floor)
        return units, float(np.sqrt(((areas * deviation) ** 2 / units).sum()))

    low = (floor if allocation == "floor" else _LEAST) * len(areas)
    high = low
    while plan(high)[1] > target_se_ha:
        high *= 2
        if high > 10**9:
            raise AccuracyError(f"no sample size reaches a standard error of {target_se_ha} ha; ask for less")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if plan(middle)[1] <= target_se_ha else (middle, high)
    best = low if plan(low)[1] <= target_se_ha else high
    units, se = plan(best)
    units.attrs["se_ha"] = se
    return units


def sample_design(
    land_cover: xr.DataArray,
    n: int = 600,
    *,
    allocation: str = "neyman",
    design: str = "stratified",
    seed: int = 0,
    target: str = "coca",
    expected_share: Mapping[str, float] | None = None,
    floor: int = 50,
    zones: GeoDataFrame | None = None,
    by_zone: bool = False,
) -> GeoDataFrame:
    """Draw reference points from a map, to be labelled by interpreters.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` or ``(time, y, x)`` with CF flags, 255 = not observed. Each year gets its own ``n`` points.
    n : int
        Points a year. A systematic design gives about so many.
    allocation : str
        How a stratified sample is shared out, see `allocate`.
    design : {"stratified", "simple", "systematic"}
        Strata are the map classes.
    seed : int
        Of the draw; the same map and seed give the same points.
    target, expected_share, floor
        See `allocate`; with ``by_zone`` ``expected_share`` is by map class all the same.
    zones : geopandas.GeoDataFrame, optional
        Zones as of `geococa.read_zones`: only pixels whose centre lies in one of them are drawn, and the estimate is for these.
    by_zone : bool
        Every map class of every zone is a stratum of its own, called "zone: class". A pixel in two zones belongs to the first.

    Returns
    -------
    geopandas.GeoDataFrame
        Pixel centres in the map's CRS, shuffled: ``id``, ``year`` (where the map has one), ``stratum`` (map class), ``row``,
        ``col``, ``inclusion_probability``, ``stratum_area_ha`` (ellipsoidal hectares of the map class that year), ``design``,
        ``class`` (empty, for the label), ``geometry``.

    Raises
    ------
    AccuracyError
        Nothing was observed, or ``n`` is too small or too large.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=(2023, 2024), unobserved=0.0)
    >>> points = coca.sample_design(land_cover.isel(time=0), 60, design="simple", seed=1)
    >>> len(points), float(points["inclusion_probability"].round(4).iloc[0])
    (60, 0.0146)
    """
    import geopandas

    if not isinstance(land_cover, xr.DataArray):
        raise AccuracyError("points are drawn from a land-cover map; for hectares alone use geococa.accuracy.allocate")
    check_kind(land_cover, "land_cover")
    if design not in ("stratified", "simple", "systematic"):
        raise AccuracyError(f"design must be stratified, simple or systematic, got {design!r}")
    grid, legend = Grid.from_xarray(land_cover), Legend.from_attrs(land_cover.attrs)
    stack = land_cover if "time" in land_cover.dims else land_cover.expand_dims("time")
    years = np.atleast_1d(stack["time"].dt.year.values) if "time" in land_cover.coords else [None]
    rng = np.random.default_rng(seed)
    options = {"allocation": allocation, "target": target, "expected_share": expected_share, "floor": floor}
    if by_zone and (zones is None or design != "stratified"):
        raise AccuracyError("strata by zone need zones and the design 'stratified'")
    home, zone_names = (None, []) if zones is None else _zone_of_cells(zones, grid)
    parts = []
    for position, year in enumerate(years):
        labels = np.asarray(stack.isel(time=position).transpose("y", "x").values)
        if home is not None:
            labels = np.where(home >= 0, labels, NO_DATA)
        if by_zone and home is not None:
            part = _draw_by_zone(labels, home, zone_names, legend, grid, n, rng, options)
        else:
            part = _draw(labels, legend, n, design, rng, options)
            part["stratum_area_ha"] = part["stratum"].map(_stratum_areas(labels, legend, grid))
        if year is not None:
            part.insert(1, "year", int(year))
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "id", np.arange(1, len(table) + 1))
    table["design"] = design
    table["class"] = pd.Series([None] * len(table), dtype="str")
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    col, row = table["col"] + 0.5, table["row"] + 0.5
    points = geopandas.points_from_xy(a * col + b * row + c, d * col + e * row + f)
    return geopandas.GeoDataFrame(table, geometry=points, crs=grid.crs)


def mapped_areas(land_cover: xr.DataArray, *, zones: GeoDataFrame | None = None) -> dict[str, float]:
    """Ellipsoidal hectares of every class of a map ``(y, x)``; what was not observed is left out.

    With ``zones`` only of the pixels whose centre lies in one of them, which is what `sample_design` draws from.
    """
    check_kind(land_cover, "land_cover")
    if "time" in land_cover.dims:
        raise AccuracyError("the hectares of one map are wanted; select a year with .sel(time=...)")
    labels = np.asarray(land_cover.transpose("y", "x").values)
    grid = Grid.from_xarray(land_cover)
    if zones is not None:
        labels = np.where(_zone_of_cells(zones, grid)[0] >= 0, labels, NO_DATA)
    areas = _stratum_areas(labels, Legend.from_attrs(land_cover.attrs), grid)
    return {name: area for name, area in areas.items() if area > 0}


def _names(legend: Legend) -> dict[int, str]:
    return {UNCLASSIFIED: "unclassified", **dict(zip(legend.codes, legend.names, strict=True))}


def _stratum_areas(labels: np.ndarray, legend: Legend, grid: Grid) -> dict[str, float]:
    areas = np.broadcast_to(np.asarray(grid.cell_area_ha()), labels.shape)
    sums = np.bincount(labels.ravel(), weights=areas.ravel(), minlength=256)
    return {name: float(sums[code]) for code, name in _names(legend).items()}


def _zone_of_cells(zones: GeoDataFrame, grid: Grid) -> tuple[np.ndarray, list[str]]:
    """Number of the first zone that holds each cell's centre, int64 ``(y, x)``, -1 = none; and the names."""
    import shapely

    a, b, c, d, e, f = tuple(grid.transform)[:6]
    row, col = np.indices(grid.shape) + 0.5
    home = np.full(grid.shape, -1, np.int64)
    shapes = zones.geometry.to_crs(grid.crs)
    for number in range(len(zones) - 1, -1, -1):
        shape = shapes.iloc[number]
        shapely.prepare(shape)
        home[shapely.contains_xy(shape, a * col + b * row + c, d * col + e * row + f)] = number
    if (home < 0).all():
        raise AccuracyError("no pixel of the map lies in the zones; check their CRS and extent")
    return home, [str(name) for name in zones["zone"]]


def _draw_by_zone(
    labels: np.ndarray,
    home: np.ndarray,
    zone_names: list[str],
    legend: Legend,
    grid: Grid,
    n: int,
    rng: np.random.Generator,
    options: dict[str, Any],
) -> pd.DataFrame:
    """Draw pixels with a stratum for every map class of every zone."""
    kinds = _names(legend)
    code = np.where((home >= 0) & (labels != NO_DATA), home * 256 + labels, -1).ravel()
    found, place = np.unique(code, return_inverse=True)
    names = {int(one): f"{zone_names[one // 256]}: {kinds[int(one) % 256]}" for one in found if one >= 0}
    given = expected_shares(kinds.values(), options["target"]) | dict(options["expected_share"] or {})
    shares = {name: given[kinds[one % 256]] for one, name in names.items()}
    hectares = np.bincount(place, np.broadcast_to(np.asarray(grid.cell_area_ha()), labels.shape).ravel())
    area = {names[int(one)]: float(ha) for one, ha in zip(found, hectares, strict=True) if one >= 0}
    sizes = {names[int(one)]: int(size) for one, size in zip(found, np.bincount(place), strict=True) if one >= 0}
    units = allocate(sizes, n, **(options | {"expected_share": shares}))
    rows = []
    for one, name in names.items():
        wanted = int(units[name])
        if wanted > sizes[name]:
            raise AccuracyError(
                f"stratum {name} has {sizes[name]} pixels, too few for its {wanted} points; draw fewer, or choose another allocation"
            )
        chosen = rng.choice(np.flatnonzero(code == one), wanted, replace=False)
        row, col = np.unravel_index(chosen, labels.shape)
        rows.append(pd.DataFrame({
            "stratum": name, "row": row, "col": col, "inclusion_probability": wanted / sizes[name], "stratum_area_ha": area[name],
        }))  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    return table.iloc[rng.permutation(len(table))].reset_index(drop=True)


def _draw(
    labels: np.ndarray, legend: Legend, n: int, design: str, rng: np.random.Generator, options: dict[str, Any]
) -> pd.DataFrame:
    """Draw pixels of one map."""
    flat = labels.ravel()
    observed = np.flatnonzero(flat != NO_DATA)
    if not len(observed) or n > len(observed):
        raise AccuracyError(f"{n} points can't be drawn from {len(observed)} observed pixels of the map")
    names = _names(legend)
    if design == "stratified":
        chosen, probability = _stratified(flat, names, n, rng, options)
    elif design == "simple":
        chosen, probability = rng.choice(observed, n, replace=False), np.array(n / len(observed))
    else:
        chosen, probability = _systematic(labels, n, rng)
    order = rng.permutation(len(chosen))
    chosen = chosen[order]
    probability = np.broadcast_to(probability, len(chosen))[order]
    row, col = np.unravel_index(chosen, labels.shape)
    return pd.DataFrame({
        "stratum": [names[int(code)] for code in flat[chosen]], "row": row, "col": col, "inclusion_probability": probability,
    })  # fmt: skip


def _stratified(
    flat: np.ndarray, names: dict[int, str], n: int, rng: np.random.Generator, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.bincount(flat, minlength=256)
    codes = [code for code in sorted(names) if sizes[code]]
    units = allocate({names[code]: float(sizes[code]) for code in codes}, n, **options)
    chosen, probability = [], []
    for code in codes:
        size, wanted = int(sizes[code]), int(units[names[code]])
        if wanted > size:
            raise AccuracyError(
                f"stratum {names[code]} has {size} pixels, too few for its {wanted} points; draw fewer, or choose "
                "another allocation"
            )
        chosen.append(rng.choice(np.flatnonzero(flat == code), wanted, replace=False))
        probability.append(np.full(wanted, wanted / size))
    return np.concatenate(chosen), np.concatenate(probability)


def _systematic(labels: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of a square lattice with a random start that were observed."""
    observed = int((labels != NO_DATA).sum())
    step = np.sqrt(observed / n)
    lines = [np.floor(np.arange(rng.uniform(0, step), size, step)).astype(np.int64) for size in labels.shape]
    row, col = (part.ravel() for part in np.meshgrid(*lines, indexing="ij"))
    seen = labels[row, col] != NO_DATA
    return np.ravel_multi_index((row[seen], col[seen]), labels.shape), np.array(1.0 / step**2)
