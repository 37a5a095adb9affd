"""Reference points: training samples, and a probability sample to assess maps with, apart from each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray

from geococa.synthetic.cover import CLASSES
from geococa.synthetic.frame import GEOGRAPHIC, LOCAL
from geococa.synthetic.noise import generator
from geococa.synthetic.shapes import random_points

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geococa.synthetic.world import Landscape

__all__ = ["STRATA", "draw_samples", "draw_validation"]

STRATA = ("coca_before", "near_coca", "far")
"""Strata of the probability sample: coca in the year before the first, within 100 m of it, and the rest."""

_ALLOCATION = (0.25, 0.40, 0.35)
_NEAR_M = 100.0
_INTERIOR_M = 10.0  # most training points keep this distance from the border of their class
_INTERIOR_SHARE = 0.8
_APART_M = 30.0  # between training points and points of the probability sample
_UNIT_HA = 0.01  # sampling unit that inclusion probabilities refer to: a cell of 10 m x 10 m


def _local(geometry: Any) -> NDArray[Any]:
    import geopandas as gpd

    moved = gpd.GeoSeries(list(np.atleast_1d(geometry)), crs=GEOGRAPHIC).to_crs(LOCAL)
    return np.asarray(moved.to_numpy(), dtype=object)


def _geographic_points(xy: NDArray[np.float64]) -> Any:
    import geopandas as gpd

    return gpd.GeoSeries(shapely.points(xy), crs=LOCAL).to_crs(GEOGRAPHIC).to_numpy()


def _classes_at(world: Landscape, xy: NDArray[np.float64], index: int) -> NDArray[np.object_]:
    """Class name at points of the local frame in a slice of the years."""
    faces = world._partition.faces
    point, face = shapely.STRtree(faces).query(shapely.points(xy), predicate="intersects")
    codes = np.zeros(len(xy), dtype=np.int64)
    codes[point[::-1]] = world._codes(index)[face[::-1]]  # the first face wins on a shared border
    return np.array(["", *CLASSES], dtype=object)[codes]


def draw_validation(world: Landscape, count: int) -> GeoDataFrame:
    """Stratified random sample of points that are looked at in every year.

    The strata come from the year before the first (as from an older map) and stay, so the sample is a panel:
    valid for the area of any class in any year and for change between years. Points are uniform inside a
    stratum and cover the ground of the tiles.

    Returns
    -------
    geopandas.GeoDataFrame
        One row for each point and year: ``point`` (int), ``year``, ``stratum``, ``class`` (true cover),
        ``stratum_area_ha``, ``stratum_points``, ``inclusion_probability`` (that a given 10 m x 10 m cell of
        the stratum holds a point), longitude and latitude (EPSG:4326).

    References
    ----------
    Olofsson, P. et al. (2014). Good practices for estimating area and assessing accuracy of land change.
    Remote Sensing of Environment 148, 42-57.
    """
    import geopandas as gpd

    rng = generator(world.seed, "validation")
    ground = _local(world.footprint)[0]
    faces = world._partition.faces
    coca = shapely.union_all(faces[world._codes(0) == CLASSES.index("coca") + 1])
    near = shapely.intersection(shapely.difference(shapely.buffer(coca, _NEAR_M), coca), ground)
    regions = [shapely.intersection(coca, ground), near, shapely.difference(ground, shapely.buffer(coca, _NEAR_M))]
    columns: dict[str, list[Any]] = {"stratum": [], "stratum_area_ha": [], "stratum_points": []}
    points = []
    for name, region, share in zip(STRATA, regions, _ALLOCATION, strict=True):
        size = max(round(share * count), 2) if region.area > 0 else 0
        points.append(random_points(rng, region, size) if size else np.empty((0, 2)))
        columns["stratum"] += [name] * size
        columns["stratum_area_ha"] += [region.area / 1e4] * size
        columns["stratum_points"] += [size] * size
    xy = np.concatenate(points)
    panel = pd.DataFrame(columns)
    panel.insert(0, "point", np.arange(1, len(xy) + 1))
    panel["inclusion_probability"] = panel["stratum_points"] * _UNIT_HA / panel["stratum_area_ha"]
    tables = []
    for year in world.years:
        table = panel.copy()
        table.insert(1, "year", year)
        table.insert(3, "class", _classes_at(world, xy, world._slice(year)))
        tables.append(table)
    geometry = np.tile(_geographic_points(xy), len(world.years))
    return gpd.GeoDataFrame(pd.concat(tables, ignore_index=True), geometry=geometry, crs=GEOGRAPHIC)


def draw_samples(world: Landscape, per_class: int) -> GeoDataFrame:
    """Reference points to train with, drawn at random inside each class of each year.

    Four of five lie at least 10 m inside their class, as an interpreter would place them; the others lie
    anywhere in it, some on mixed pixels. All lie inside the tiles and at least 30 m from every point of the
    probability sample (`draw_validation`), which is drawn first and therefore stays one.

    Returns
    -------
    geopandas.GeoDataFrame
        ``class`` (str), ``year`` (int), points in longitude and latitude (EPSG:4326).
    """
    import geopandas as gpd

    apart = shapely.union_all(shapely.buffer(_local(world.validation.geometry.drop_duplicates()), _APART_M + 0.1))
    allowed = shapely.difference(shapely.buffer(_local(world.footprint)[0], -10.0), apart)
    interior = round(_INTERIOR_SHARE * per_class)
    names: list[str] = []
    years: list[int] = []
    points: list[NDArray[np.float64]] = []
    for year in world.years:
        codes = world._codes(world._slice(year))
        for code, name in enumerate(CLASSES, start=1):
            if not (codes == code).any():
                continue
            region = shapely.coverage_union_all(world._partition.faces[codes == code])
            inner = shapely.intersection(shapely.buffer(region, -_INTERIOR_M), allowed)
            outer = shapely.intersection(region, allowed)
            rng = generator(world.seed, "samples", year, code)
            for part, size in ((inner, interior), (outer, per_class - interior)):
                if part.area < 1.0 or size == 0:
                    continue
                points.append(random_points(rng, part, size))
                names += [name] * size
                years += [year] * size
    xy = np.concatenate(points)
    return gpd.GeoDataFrame({"class": names, "year": years}, geometry=_geographic_points(xy), crs=GEOGRAPHIC)
