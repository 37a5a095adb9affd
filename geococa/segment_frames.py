"""Frames of area samples: a map cut into square segments with what it says of each, and segments drawn from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_kind, check_same_grid
from geococa.errors import AccuracyError, InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA, Legend

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["draw_segments", "segment_frame"]


def segment_frame(
    land_cover: xr.DataArray,
    side_m: float = 500.0,
    *,
    class_name: str = "coca",
    share: xr.DataArray | None = None,
) -> GeoDataFrame:
    """Cut a map into square segments, the frame of an area sample, with what the map says of each.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` with CF flags, 255 = not observed.
    side_m : float
        Side of a segment in metres, brought to whole cells.
    class_name : str
        Class in question.
    share : xarray.DataArray, optional
        Probability or area fraction of the class ``(y, x)``, 0 to 1 and NaN = not observed, on the same grid.

    Returns
    -------
    geopandas.GeoDataFrame
        One row a segment with observed ground: ``segment``, ``area_ha`` (observed, ellipsoidal), ``mapped_ha`` (counted),
        ``share_ha`` (the sum of shares times hectares, where given), ``unobserved_ha``, ``geometry``. The sums of its columns are
        the totals that the estimators of `geococa.frame_area` want.

    Examples
    --------
    >>> from geococa.legend import as_land_cover
    >>> codes = xr.DataArray(np.array([[1, 2], [2, 2]], np.uint8), dims=("y", "x"))
    >>> grid = Grid("EPSG:32618", (10, 0, 500000, 0, -10, 20), (2, 2))
    >>> frame = segment_frame(as_land_cover(grid.attach(codes), {1: "coca", 2: "forest"}), 10.0)
    >>> (frame["mapped_ha"] > 0).tolist()
    [True, False, False, False]
    """
    import geopandas
    import shapely

    check_kind(land_cover, "land_cover")
    if set(land_cover.dims) != {"y", "x"}:
        raise InputRefused(
            f"a frame is made of one map (y, x), got {land_cover.dims}; select a year with .sel(time=...)"
        )
    grid, code = Grid.from_xarray(land_cover), Legend.from_attrs(land_cover.attrs).code(class_name)
    if not side_m > 0:
        raise InputRefused(f"side_m must be positive, got {side_m}")
    cells = np.broadcast_to(np.asarray(grid.cell_area_ha()), grid.shape)
    width = max(round(side_m / float(np.sqrt(cells.mean() * 1e4))), 1)
    labels = np.asarray(land_cover.transpose("y", "x").values)
    rows, columns = -(-grid.shape[0] // width), -(-grid.shape[1] // width)
    row, column = np.indices(grid.shape) // width
    segment = (row * columns + column).ravel()

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(segment, values.ravel(), minlength=rows * columns)

    seen = labels != NO_DATA
    table = {
        "segment": np.arange(rows * columns), "area_ha": total(cells * seen), "mapped_ha": total(cells * (labels == code)),
        "unobserved_ha": total(cells * ~seen),
    }  # fmt: skip
    if share is not None:
        check_same_grid(land_cover, share, names=("land_cover", "share"))
        parts = np.asarray(share.transpose("y", "x").values, dtype=float)
        if np.nanmin(parts) < 0 or np.nanmax(parts) > 1:
            raise InputRefused("share must lie between 0 and 1")
        table["share_ha"] = total(cells * np.where(seen, np.nan_to_num(parts), 0.0))
    r0, c0 = np.arange(rows).repeat(columns) * width, np.tile(np.arange(columns), rows) * width
    r1, c1 = np.minimum(r0 + width, grid.shape[0]), np.minimum(c0 + width, grid.shape[1])
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    corners = np.stack([
        np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1) for x, y in ((c0, r0), (c1, r0), (c1, r1), (c0, r1), (c0, r0))
    ], axis=1)  # fmt: skip
    frame = geopandas.GeoDataFrame(table, geometry=shapely.polygons(corners), crs=grid.crs)
    return frame[frame["area_ha"] > 0].reset_index(drop=True)


def draw_segments(
    frame: GeoDataFrame,
    n: int,
    *,
    by: str | None = "mapped_ha",
    strata: int = 3,
    seed: int = 0,
    target: str = "coca_ha",
) -> GeoDataFrame:
    """Draw segments at random from strata of like mapped hectares.

    Parameters
    ----------
    frame : geopandas.GeoDataFrame
        From `segment_frame`.
    n : int
        Segments in all, shared out by the strata's size times the spread of ``by`` in them (Neyman), at least 2 each.
    by : str, optional
        Column that the strata are cut by, where its cumulated square root is even (Dalenius and Hodges); None for one stratum.
    strata : int
        Number of strata; fewer where many segments are alike.
    seed : int
        Of the draw.
    target : str
        Name of the empty column for the hectares that interpreters find.

    Returns
    -------
    geopandas.GeoDataFrame
        The rows drawn, with ``stratum``, ``stratum_segments`` (how many the frame has; ``population`` of `geococa.frame_area` is
        ``drawn.groupby("stratum")["stratum_segments"].first()``), ``inclusion_probability`` and the empty ``target``.

    Raises
    ------
    AccuracyError
        More segments are wanted than there are.

    References
    ----------
    Dalenius, T. and Hodges, J. L. (1959), Minimum variance stratification, Journal of the American Statistical Association 54,
    88-101.
    """
    values = np.zeros(len(frame)) if by is None else frame[by].to_numpy(dtype=float)
    level = np.zeros(len(frame), np.int64)
    if by is not None and strata > 1 and values.max() > values.min():
        counts, edges = np.histogram(values, bins=min(200, len(frame)))
        rise = np.cumsum(np.sqrt(counts))
        cuts = edges[1:][np.searchsorted(rise, rise[-1] * np.arange(1, strata) / strata)]
        level = np.searchsorted(np.unique(cuts), values, side="left")
    kinds, level = np.unique(level, return_inverse=True)
    sizes = np.bincount(level)
    if n > len(frame) or n < 2 * len(kinds):
        raise AccuracyError(f"{n} segments can't be drawn from {len(frame)} in {len(kinds)} strata; take more or fewer")
    spread = np.array([max(values[level == k].std(), 0.05 * values.std() + 1e-12) for k in range(len(kinds))])
    units = np.minimum(np.maximum(np.round(n * sizes * spread / (sizes * spread).sum()).astype(np.int64), 2), sizes)
    rng = np.random.default_rng(seed)
    parts = []
    for k in range(len(kinds)):
        chosen = rng.choice(np.flatnonzero(level == k), int(units[k]), replace=False)
        part = frame.iloc[np.sort(chosen)]
        parts.append(part.assign(
            stratum=f"level_{k + 1}", stratum_segments=int(sizes[k]), inclusion_probability=units[k] / sizes[k]
        ))  # fmt: skip
    out = pd.concat(parts, ignore_index=True)
    out[target] = np.nan
    return out
