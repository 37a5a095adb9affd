"""Forest that was lost near coca: the deforestation that surveys call associated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import positive
from geococa.change_steps import Support, maps_of, unseen
from geococa.coverage import Coverage, check_grid
from geococa.legend import NO_DATA
from geococa.zone_blocks import closing_factor, map_years, zone_blocks

__all__ = ["associated_forest_loss"]


def associated_forest_loss(
    land_cover: xr.DataArray,
    share: Coverage,
    *,
    class_name: str = "coca",
    forest: Sequence[str] = ("forest",),
    distance_m: float = 1000.0,
    observations: xr.DataArray | None = None,
    years_before: int = 2,
    years_after: int = 2,
) -> pd.DataFrame:
    """Hectares of forest lost per zone and year, in all, to coca itself, and within a distance of coca.

    Parameters
    ----------
    land_cover, share
        As in `geococa.transitions`. A whole year of the map is held in memory for the distances.
    class_name : str
        The class that loss is related to.
    forest : sequence of str
        Classes that are forest.
    distance_m : float
        Loss within this distance of a pixel of the class, in the year of the loss or the year before, counts as associated.
    observations, years_before, years_after
        As in `geococa.transitions`.

    Returns
    -------
    pandas.DataFrame
        One row per zone and year from the second on: ``zone``, ``year``, ``forest_loss_ha`` (forest the year before, observed as
        something else now), ``direct_ha`` (now the class), ``associated_ha`` (within the distance, the direct part
        included), ``associated_share``, ``unobserved_ha`` (not observed in one of the two years), and of the forest, as in
        `geococa.new_and_abandoned`: ``decided_ha``, ``flicker_ha``, ``flicker_share``, ``observed_years`` and ``observations``.

    Notes
    -----
    Distances are between cell centres in the plane of the map; on a map in degrees they are scaled at its middle latitude. Coca
    beyond the edge of the map is not seen, so a map should reach ``distance_m`` beyond its zones.

    References
    ----------
    GIZ-UNODC (2016). Coca crops and deforestation: the "associated" category is forest loss within 1 km of coca.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=(2023, 2024), unobserved=0.0)
    >>> import geopandas, shapely
    >>> grid = coca.Grid.from_xarray(land_cover)
    >>> park = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[shapely.box(*grid.bounds)], crs=grid.crs)
    >>> share = coca.coverage_fraction(park, grid)
    >>> coca.associated_forest_loss(land_cover, share).columns.tolist()
    ['zone', 'year', 'forest_loss_ha', 'direct_ha', 'associated_ha', 'associated_share', 'unobserved_ha', 'flicker_ha', 'decided_ha', 'flicker_share', 'observed_years', 'observations']
    """
    maps, legend = maps_of(land_cover, share)
    code = legend.code(class_name)
    wood = [legend.code(name) for name in forest]
    positive(distance_m, "distance_m")
    if observations is not None:
        check_grid(observations, share, "observations")
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
    support = Support(steps, zones, years_before=years_before, years_after=years_after)
    for zone, codes, weights, counts in zone_blocks(maps, share, observations):
        support.add(zone, np.isin(codes, wood), codes != NO_DATA, weights, counts)
    loss, direct, near = loss * factor, direct * factor, near * factor
    return pd.DataFrame(
        {
            "zone": np.repeat(share.zone_names, steps),
            "year": np.tile(map_years(maps)[1:], zones),
            "forest_loss_ha": loss.T.ravel(),
            "direct_ha": direct.T.ravel(),
            "associated_ha": near.T.ravel(),
            "associated_share": np.divide(near, loss, out=np.full_like(loss, np.nan), where=loss > 0).T.ravel(),
            "unobserved_ha": unseen(unobserved * factor, share, total).T.ravel(),
            **support.columns(factor),
        }
    )


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
