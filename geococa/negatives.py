"""Negatives near positives: the places that a classifier confuses most, for training and for interpretation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyproj
import shapely
import xarray as xr

from geococa._checks import check_dims, check_kind, check_positives, check_seed, check_whole
from geococa._checks import positive as check_positive_number
from geococa.errors import CRSMismatch, InputRefused
from geococa.extraction import sampled_pixels
from geococa.grid import Grid
from geococa.legend import NO_DATA, UNCLASSIFIED, Legend

if TYPE_CHECKING:
    from geopandas import GeoDataFrame, GeoSeries

__all__ = ["local_negatives"]

_ROUNDS = 40
_DRAWS = 4
"""Candidates drawn in a round for each negative still wanted."""


@dataclass(frozen=True)
class _Setting:
    """Everything that decides whether a pixel may be a negative; ``shapes`` are all samples' shapes, in metres."""

    grid: Grid
    to_metres: pyproj.Transformer
    shapes: np.ndarray
    tree: shapely.STRtree
    avoid: shapely.STRtree | None
    low_m: float
    high_m: float
    observed: np.ndarray | None
    taken: np.ndarray


def local_negatives(
    samples: GeoDataFrame,
    features: xr.DataArray | Grid,
    *,
    positive: str = "coca",
    distance_m: tuple[float, float] = (30.0, 500.0),
    per_positive: int = 5,
    seed: int = 0,
    avoid: GeoDataFrame | GeoSeries | Any | None = None,
    class_from: xr.DataArray | None = None,
    class_column: str = "class",
    year_column: str = "year",
) -> GeoDataFrame:
    """Draw pixels around positive samples, at a distance, as candidates for negative samples.

    Negatives from anywhere are mostly easy ones (closed forest, water); what is taken for coca grows beside it. Each
    candidate lies between the two distances from the positive it belongs to, and no nearer than the first one (or one cell's
    diagonal) to any positive of any year and to ``avoid``.

    .. warning::
       Such negatives change the make-up of the sample on purpose: a class's share among them says nothing of its area, and
       a model trained on them puts its priors accordingly. Bring them back with ``class_weight=prior_weights(...)`` (trees)
       or ``priors=`` (Gaussian methods), and never estimate accuracy or hectares from them: that takes a probability
       sample. Being near a positive is no proof of a class either: unlabelled candidates are to be interpreted.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame
        Points or polygons with a class and perhaps a year; any CRS.
    features : xarray.DataArray or Grid
        Grid whose pixels are drawn; of a feature stack ``([time,] feature, y, x)``, only pixels on which every feature is
        observed at some time.
    positive : str
        Class around which to draw. Pixels under samples of other classes are not drawn either.
    distance_m : (float, float)
        Smallest and largest distance from the positive in metres, from its border where it is a polygon.
    per_positive : int
        Candidates for each positive sample.
    seed : int
        Of the draw; the same seed gives the same points.
    avoid : geopandas.GeoDataFrame, GeoSeries or shapely geometry, optional
        Where no candidate may lie or be near: places of the validation sample, known plots without a sample. A bare geometry
        is in the grid's CRS.
    class_from : xarray.DataArray, optional
        Land-cover map on the same grid, uint8 ``([time,] y, x)``: the class of a candidate is that of its year's map, or of
        the latest one before; of the only one where there is but one. Candidates that it shows as positive, unclassified or
        unobserved are not taken. Without it they have no class, and `geococa.read_samples` takes them from a file only once
        labelled, or leaves them out with ``drop_unlabelled=True``.
    class_column, year_column : str
        Columns of the samples.

    Returns
    -------
    geopandas.GeoDataFrame
        Points at pixel centres in the grid's CRS: ``class`` (missing where not known), ``year`` (that of the positive, if
        samples have years), ``near`` (index of the positive), ``distance_m`` (to it), ``source`` (``"map"`` or
        ``"unlabelled"``). ``attrs["short"]`` counts the candidates that could not be found.

    Raises
    ------
    NoPositives
        No sample is of class ``positive``.
    InputRefused
        Distances out of order, or none of the positives lies near the grid.

    References
    ----------
    He, H. and Garcia, E. A. (2009), Learning from imbalanced data, IEEE Transactions on Knowledge and Data Engineering 21,
    1263-1284. Weiss, G. M. and Provost, F. (2003), Learning when training data are costly: the effect of class
    distribution on tree induction, Journal of Artificial Intelligence Research 19, 315-354.

    Examples
    --------
    >>> import geopandas
    >>> grid = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), (100, 100))
    >>> plot = geopandas.GeoDataFrame({"class": ["coca"]}, geometry=[shapely.Point(500_500, 899_500)], crs=32618)
    >>> found = local_negatives(plot, grid, distance_m=(50, 200), per_positive=3)
    >>> len(found), bool(found["distance_m"].between(50, 200).all())
    (3, True)
    """
    low, high = _range(distance_m)
    check_whole(per_positive, "per_positive", 1)
    check_seed(seed)
    if not hasattr(samples, "geometry") or not hasattr(samples, "crs"):
        raise InputRefused(
            f"samples must be a GeoDataFrame, got {type(samples).__name__}; read them with geococa.read_samples"
        )
    if class_column not in samples.columns:
        raise InputRefused(f"the samples have no column {class_column!r}; name it with class_column=")
    check_positives(samples[class_column].dropna(), positive, where="the sample table")
    is_positive = (samples[class_column] == positive).to_numpy()
    setting = _setting(samples, is_positive, features, avoid, low, high)
    years = _years(samples, year_column)
    labels = None if class_from is None else _Map.of(class_from, setting.grid, positive)
    cells, owner, distance, names = _draw(setting, np.flatnonzero(is_positive), years, per_positive, seed, labels)
    if not len(cells):
        raise InputRefused(
            f"no pixel of the grid lies {low:g} to {high:g} m from a {positive} sample, clear of the positives and of avoid; "
            "check the CRS of the samples, or widen distance_m"
        )
    out = _as_points(setting.grid, samples, cells, owner, distance, names, year_column, class_column)
    out.attrs["short"] = int(is_positive.sum()) * per_positive - len(out)
    return out


def _range(distance_m: tuple[float, float]) -> tuple[float, float]:
    if not isinstance(distance_m, Sequence) or len(distance_m) != 2:
        raise InputRefused(f"distance_m must be (smallest, largest) in metres, got {distance_m!r}")
    low, high = distance_m
    check_positive_number(low, "distance_m[0]", zero=True)
    check_positive_number(high, "distance_m[1]")
    if low >= high:
        raise InputRefused(f"distance_m must be (smallest, largest), got {distance_m}")
    return float(low), float(high)


def _setting(
    samples: GeoDataFrame,
    is_positive: np.ndarray,
    features: xr.DataArray | Grid,
    avoid: Any,
    low: float,
    high: float,
) -> _Setting:
    if samples.crs is None:
        raise CRSMismatch("the samples have no coordinate reference system; set it with samples.set_crs(...)")
    observed = None
    if isinstance(features, Grid):
        grid = features
    else:
        check_kind(features, "features")
        check_dims(features, "feature", "y", "x", optional=("time",))
        grid = Grid.from_xarray(features)
        seen = features.notnull().all("feature")
        observed = np.asarray((seen.any("time") if "time" in seen.dims else seen).transpose("y", "x").values)
    # only UTM has metres that are metres within 0.1 %; Web Mercator's or degrees would not do
    metric = grid.crs if grid.crs.utm_zone else samples.estimate_utm_crs()
    places = samples.geometry.to_crs(metric).to_numpy()
    a, b, c, d, e, f = tuple(grid.transform)[:6]
    middle = grid.shape[1] // 2, grid.shape[0] // 2
    x, y = a * middle[0] + b * middle[1] + c, d * middle[0] + e * middle[1] + f
    to_metres = pyproj.Transformer.from_crs(grid.crs, metric, always_xy=True)
    corner = to_metres.transform([x, x + a + b], [y, y + d + e])
    diagonal = float(np.hypot(np.diff(corner[0])[0], np.diff(corner[1])[0]))
    clear = _avoided(avoid, grid, metric)
    taken = np.zeros(grid.shape, dtype=bool)
    own = sampled_pixels(samples.geometry.to_crs(grid.crs).to_numpy(), grid)
    taken[own.row, own.col] = True
    return _Setting(
        grid,
        to_metres,
        places,
        shapely.STRtree(places[is_positive]),
        None if clear is None else shapely.STRtree(clear),
        max(low, diagonal),
        high,
        observed,
        taken,
    )


def _avoided(avoid: Any, grid: Grid, metric: pyproj.CRS) -> np.ndarray | None:
    import geopandas

    if avoid is None:
        return None
    if isinstance(avoid, shapely.Geometry):
        avoid = geopandas.GeoSeries([avoid], crs=grid.crs)
    if not hasattr(avoid, "crs"):
        raise InputRefused(f"avoid must be a GeoDataFrame, a GeoSeries or a shape, got {type(avoid).__name__}")
    if avoid.crs is None:
        raise CRSMismatch("avoid has no coordinate reference system; set it with avoid.set_crs(...)")
    shapes = avoid.geometry.to_crs(metric)
    return np.asarray(shapes[shapes.notna() & ~shapes.is_empty].to_numpy())


def _years(samples: GeoDataFrame, year_column: str) -> np.ndarray:
    if year_column not in samples.columns:
        return np.full(len(samples), np.nan)
    return np.asarray(pd.to_numeric(samples[year_column]).to_numpy(dtype=float, na_value=np.nan))


@dataclass(frozen=True)
class _Map:
    """Class names under pixels, by year."""

    codes: np.ndarray
    years: np.ndarray
    names: Mapping[int, str]

    @classmethod
    def of(cls, land_cover: xr.DataArray, grid: Grid, positive: str) -> _Map:
        check_kind(land_cover, "land_cover")
        if not Grid.from_xarray(land_cover).same_as(grid):
            raise InputRefused("class_from is a map on another grid than the features; reproject it to their grid")
        stack = land_cover if "time" in land_cover.dims else land_cover.expand_dims("time")
        dated = "time" in land_cover.coords
        years = np.atleast_1d(land_cover["time"].dt.year.values) if dated else np.zeros(1)
        legend = Legend.from_attrs(land_cover.attrs)
        named = dict(zip(legend.codes, legend.names, strict=True))
        usable = {k: v for k, v in named.items() if v not in (positive, "unclassified")}
        usable = {k: v for k, v in usable.items() if k not in (NO_DATA, UNCLASSIFIED)}
        return cls(stack.transpose("time", "y", "x").values, years.astype(np.int64), usable)

    def at(self, row: np.ndarray, col: np.ndarray, year: np.ndarray) -> np.ndarray:
        """Object ``(n,)``: class name, None where there is none to be had."""
        if len(self.years) == 1:
            chosen = np.zeros(len(row), np.int64)
        else:
            earlier = self.years[:, None] <= np.where(np.isnan(year), self.years.max(), year)[None, :]
            chosen = np.where(earlier, self.years[:, None], -1).argmax(axis=0)
            chosen = np.where(earlier.any(axis=0), chosen, -1)
        codes = np.where(chosen >= 0, self.codes[np.maximum(chosen, 0), row, col], NO_DATA)
        return np.array([self.names.get(int(code)) for code in codes], dtype=object)


def _draw(
    setting: _Setting, positives: np.ndarray, years: np.ndarray, per_positive: int, seed: int, labels: _Map | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw pixels in rounds, until every positive has its share or too many rounds found nothing."""
    rng = np.random.default_rng(seed)
    wanted = np.full(len(positives), per_positive)
    boxes = shapely.bounds(setting.shapes[positives]) + setting.high_m * np.array([-1, -1, 1, 1])
    taken = setting.taken.copy()
    parts = []
    for _ in range(_ROUNDS):
        if not wanted.any():
            break
        number = np.repeat(np.arange(len(positives)), wanted * _DRAWS)
        spot = boxes[number, :2] + rng.random((len(number), 2)) * (boxes[number, 2:] - boxes[number, :2])
        number, row, col = _pixels_at(setting, number, spot)
        number, row, col, distance = _suitable(setting, positives, number, row, col, taken)
        names = np.full(len(row), None, dtype=object)
        if labels is not None:
            names = labels.at(row, col, years[positives[number]])
            known = np.array([name is not None for name in names], dtype=bool)
            number, row, col, distance, names = (part[known] for part in (number, row, col, distance, names))
        rank = pd.Series(number).groupby(number).cumcount().to_numpy()
        keep = rank < wanted[number]
        number, row, col, distance, names = (part[keep] for part in (number, row, col, distance, names))
        taken[row, col] = True
        wanted -= np.bincount(number, minlength=len(wanted))
        parts.append((np.column_stack([row, col]), positives[number], distance, names))
    cells, owner, away, found = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((cells[:, 1], cells[:, 0], owner))
    return cells[order], owner[order], away[order], found[order]


def _pixels_at(setting: _Setting, number: np.ndarray, spot: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels that hold the places drawn, each pixel once, in the order of the draw."""
    x, y = setting.to_metres.transform(spot[:, 0], spot[:, 1], direction="INVERSE")
    a, b, c, d, e, f = tuple(~setting.grid.transform)[:6]
    col, row = np.floor(a * x + b * y + c), np.floor(d * x + e * y + f)
    height, width = setting.grid.shape
    inside = (row >= 0) & (row < height) & (col >= 0) & (col < width)
    number, row, col = number[inside], row[inside].astype(np.int64), col[inside].astype(np.int64)
    _, first = np.unique(row * width + col, return_index=True)
    first.sort()
    return number[first], row[first], col[first]


def _suitable(
    setting: _Setting, positives: np.ndarray, number: np.ndarray, row: np.ndarray, col: np.ndarray, taken: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels that are free, observed, in the ring of their own positive and clear of everything else."""
    a, b, c, d, e, f = tuple(setting.grid.transform)[:6]
    x, y = setting.to_metres.transform(a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f)
    points = shapely.points(x, y)
    distance = shapely.distance(points, setting.shapes[positives[number]])
    good = ~taken[row, col] & (distance >= setting.low_m) & (distance <= setting.high_m)
    if setting.observed is not None:
        good &= setting.observed[row, col]
    for tree in (setting.tree, setting.avoid):
        if tree is not None and good.any():
            index = np.flatnonzero(good)
            near, shape = tree.query(points[index], predicate="dwithin", distance=setting.low_m)
            away = shapely.distance(points[index[near]], tree.geometries[shape])
            good[index[near[away < setting.low_m]]] = False
    return number[good], row[good], col[good], distance[good]


def _as_points(
    grid: Grid,
    samples: GeoDataFrame,
    cells: np.ndarray,
    owner: np.ndarray,
    distance: np.ndarray,
    names: np.ndarray,
    year_column: str,
    class_column: str,
) -> GeoDataFrame:
    import geopandas

    a, b, c, d, e, f = tuple(grid.transform)[:6]
    row, col = cells[:, 0] + 0.5, cells[:, 1] + 0.5
    columns: dict[str, Any] = {class_column: names}
    if year_column in samples.columns:
        columns[year_column] = pd.to_numeric(samples[year_column]).iloc[owner].astype("Int64").array
    known = np.array([name is not None for name in names], dtype=bool)
    columns |= {
        "near": samples.index.to_numpy()[owner],
        "distance_m": distance,
        "source": np.where(known, "map", "unlabelled"),
    }
    places = geopandas.points_from_xy(a * col + b * row + c, d * col + e * row + f)
    return geopandas.GeoDataFrame(columns, geometry=places, crs=grid.crs)
