"""Land cover of the landscape as vectors: patches with a life over the years, cut into one planar partition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geococa.synthetic.coca import Plots, grow_plots
from geococa.synthetic.frame import Frame
from geococa.synthetic.noise import generator
from geococa.synthetic.parks import Park
from geococa.synthetic.shapes import blob, field_block, meander, track

__all__ = ["CLASSES", "CODE", "Partition", "Patches", "draw_patches", "partition"]

CLASSES = ("coca", "forest", "secondary_forest", "pasture", "other_crops", "bare_soil", "water", "settlement")
"""Classes of the landscape, in the order of their codes 1..8."""
CODE = {name: code for code, name in enumerate(CLASSES, start=1)}

_PRECISION_M = 1e-3  # vertices lie on a lattice of a millimetre, which makes noding robust
_EDGE_M = 50.0
_RANK = {
    "forest": 0,
    "secondary_forest": 1,
    "pasture": 2,
    "other_crops": 3,
    "bare_soil": 4,
    "settlement": 5,
    "water": 6,
}
_COCA_RANK = 9


@dataclass(frozen=True)
class Patches:
    """Things that cover the ground, in the local frame; where they overlap, the highest rank shows.

    Attributes
    ----------
    geometry : numpy.ndarray of object, shape (patches,)
        Polygons. The first is the forest that covers everything.
    rank : numpy.ndarray of int64, shape (patches,)
        Unique; higher lies on top.
    cover : numpy.ndarray of int8, shape (patches, years + 1)
        Class code in the year before the first year and in each year; 0 = the patch is not there yet.
    age : numpy.ndarray of int64, shape (patches, years + 1)
        Years since the present cover began.
    plot : numpy.ndarray of int64, shape (patches,)
        Number of the coca plot (from 1), 0 for other patches.
    """

    geometry: NDArray[Any]
    rank: NDArray[np.int64]
    cover: NDArray[np.int8]
    age: NDArray[np.int64]
    plot: NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Faces that all outlines of all years cut the extent into; each has one patch on top in each year.

    Attributes
    ----------
    faces : numpy.ndarray of object, shape (faces,)
        Polygons in the local frame that share their vertices with their neighbours.
    top : numpy.ndarray of int64, shape (faces, years + 1)
        Index of the patch that shows.
    """

    faces: NDArray[Any]
    top: NDArray[np.int64]


class _Collector:
    """Patches in the making."""

    def __init__(self, slices: int) -> None:
        self.slices = slices
        self.geometry: list[Any] = []
        self.rank: list[int] = []
        self.cover: list[NDArray[np.int8]] = []
        self.age: list[NDArray[np.int64]] = []
        self.plot: list[int] = []

    def add(self, shape: Any, name: str, *, age: int = 20, cover: Any = None, ages: Any = None, plot: int = 0) -> None:
        self.geometry.append(shape)
        self.rank.append(_COCA_RANK if plot else _RANK[name])
        steady = np.full(self.slices, CODE[name], dtype=np.int8)
        self.cover.append(steady if cover is None else np.asarray(cover, dtype=np.int8))
        self.age.append(age + np.arange(self.slices) if ages is None else np.asarray(ages, dtype=np.int64))
        self.plot.append(plot)

    def done(self) -> Patches:
        geometry = np.empty(len(self.geometry), dtype=object)
        geometry[:] = self.geometry
        rank = np.asarray(self.rank, dtype=np.int64) * (len(geometry) + 1) + np.arange(len(geometry))
        return Patches(geometry, rank, np.stack(self.cover), np.stack(self.age), np.asarray(self.plot, dtype=np.int64))


def draw_patches(
    frame: Frame, parks: Sequence[Park], years: Sequence[int], seed: int, coca_density: float = 1.0
) -> tuple[Patches, Plots]:
    """Draw everything that covers the ground over the years; see `Patches` and `Plots`."""
    found = _Collector(len(years) + 1)
    found.add(shapely.box(*frame.extent), "forest", age=100)
    rivers, roads = _lines(frame, seed)
    _add_openings(found, frame, roads, seed)
    blocked = _add_lines(found, frame, rivers, roads, seed)
    access = [line for line, _ in rivers] + roads
    plots = grow_plots(frame, parks, access, blocked, years, seed, coca_density)
    first = len(plots.years) - len(years) - 1
    planted, ever, since = plots.planted[:, first:], plots.ever()[:, first:], plots.since()[:, first:]
    for number, shape in enumerate(plots.geometry, start=1):
        one = number - 1
        fallow = np.where(ever[one], CODE["secondary_forest"], 0)
        cover = np.where(planted[one], CODE["coca"], fallow)
        found.add(shape, "coca", cover=cover, ages=since[one], plot=number)
    return found.done(), Plots(plots.geometry, planted, plots.years[first:])


def _lines(frame: Frame, seed: int) -> tuple[list[tuple[Any, float]], list[Any]]:
    """Rivers with their width in metres, and roads: center lines across the extent."""
    rng = generator(seed, "lines")
    west, south, east, north = frame.extent
    width, height = east - west, north - south
    rivers: list[tuple[Any, float]] = []
    for number in range(max(round(height / 4500.0), 1)):
        y = south + (number + rng.uniform(0.35, 0.6)) * height / max(round(height / 4500.0), 1)
        bend = rng.uniform(-0.06, 0.06) * height
        rivers.append((meander(rng, (west - 90, y), (east + 90, y + bend), swing=0.055), rng.uniform(38, 60)))
    streams = max(round(width / 1700.0), 1)
    for number in range(streams):
        x = west + (number + rng.uniform(0.2, 0.8)) * width / streams
        ends = ((x, south - 90), (x + rng.uniform(-300, 300), north + 90))
        rivers.append((meander(rng, *ends, swing=0.07), rng.uniform(9, 17)))
    roads = []
    for number in range(max(round(height / 1800.0), 1)):
        y = south + (number + rng.uniform(0.25, 0.75)) * height / max(round(height / 1800.0), 1)
        roads.append(track(rng, (west - 60, y), (east + 60, y + rng.uniform(-250, 250))))
    branches = max(round(width / 1400.0), 1)
    for number in range(branches):
        x = west + (number + rng.uniform(0.2, 0.8)) * width / branches
        reach = rng.uniform(0.55, 1.0) * height
        ends = ((x, south - 60), (x, south + reach)) if rng.random() < 0.5 else ((x, north + 60), (x, north - reach))
        roads.append(track(rng, *ends))
    return rivers, roads


def _near(rng: np.random.Generator, lines: Sequence[Any], spread_m: float) -> tuple[float, float]:
    """Point scattered around a random place on one of the lines."""
    length = np.array([line.length for line in lines])
    line = lines[rng.choice(len(lines), p=length / length.sum())]
    on = line.interpolate(rng.uniform(0, line.length))
    dx, dy = rng.normal(0, spread_m, 2)
    return float(on.x + dx), float(on.y + dy)


def _size_m2(rng: np.random.Generator, median_ha: float, sigma: float, largest_ha: float) -> float:
    return 1e4 * float(min(median_ha * np.exp(sigma * rng.normal()), largest_ha))


def _add_openings(found: _Collector, frame: Frame, roads: Sequence[Any], seed: int) -> None:
    """Pasture, secondary forest, crops and bare soil; pasture still expands, and some of it is given up."""
    rng = generator(seed, "openings")
    west, south, east, north = frame.extent
    km2 = frame.area_km2
    for _ in range(rng.poisson(1.9 * km2)):
        centre = (rng.uniform(west, east), rng.uniform(south, north))
        shape = blob(rng, centre, _size_m2(rng, 3.0, 0.7, 12.0))
        found.add(shape, "secondary_forest", age=int(rng.integers(1, 14)))
    for _ in range(rng.poisson(1.7 * km2)):
        shape = blob(rng, _near(rng, roads, 160.0), _size_m2(rng, 7.0, 0.6, 25.0), roughness=0.22)
        cover, ages = _pasture_life(rng, found.slices)
        found.add(shape, "pasture", cover=cover, ages=ages)
    for _ in range(rng.poisson(3.6 * km2)):
        shape = field_block(rng, _near(rng, roads, 120.0), _size_m2(rng, 1.0, 0.55, 4.0))
        found.add(shape, "other_crops", age=int(rng.integers(0, 10)))
    for _ in range(rng.poisson(1.6 * km2)):
        shape = blob(rng, _near(rng, roads, 140.0), _size_m2(rng, 0.5, 0.6, 2.5), vertices=20)
        found.add(shape, "bare_soil")


def _pasture_life(rng: np.random.Generator, slices: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    cover = np.full(slices, CODE["pasture"], dtype=np.int8)
    ages = int(rng.integers(1, 15)) + np.arange(slices)
    fate = rng.random()
    if slices > 2 and fate < 0.22:  # cleared from the forest in one of the years
        start = int(rng.integers(1, slices))
        cover[:start] = 0
        ages = np.maximum(np.arange(slices) - start, 0)
    elif slices > 2 and fate < 0.32:  # given up in one of the years
        stop = int(rng.integers(1, slices))
        cover[stop:] = CODE["secondary_forest"]
        ages = np.where(np.arange(slices) < stop, ages, np.arange(slices) - stop)
    return cover, ages


def _add_lines(
    found: _Collector, frame: Frame, rivers: Sequence[tuple[Any, float]], roads: Sequence[Any], seed: int
) -> Any:
    """Rivers, lagoons, roads and hamlets; returns where no coca plot may lie."""
    rng = generator(seed, "waters")
    blocked = []
    for _ in range(rng.poisson(0.3 * frame.area_km2)):
        main = [line for line, width in rivers if width > 20]
        blocked.append((blob(rng, _near(rng, main, 160.0), _size_m2(rng, 1.8, 0.5, 6.0), stretch=2.6), "water"))
    blocked += [(shapely.buffer(line, width / 2, quad_segs=4), "water") for line, width in rivers]
    for line in roads:
        blocked.append((shapely.buffer(line, rng.uniform(3.5, 5.5), quad_segs=3), "bare_soil"))
    for _ in range(max(rng.poisson(0.2 * frame.area_km2), 2)):
        blocked.append((blob(rng, _near(rng, roads, 25.0), _size_m2(rng, 2.2, 0.5, 8.0), stretch=2.2), "settlement"))
    for shape, name in blocked:
        found.add(shape, name)
    return shapely.union_all([shape for shape, _ in blocked])


def partition(patches: Patches, extent: tuple[float, float, float, float]) -> Partition:
    """Cut the extent along all outlines and find the patch that shows in each face and year.

    One noding of all outlines serves all years, so neighbouring faces share every vertex and the classes of a
    year have neither gaps nor overlaps.
    """
    box = shapely.box(*extent)
    lines = shapely.segmentize(shapely.boundary(shapely.set_precision(patches.geometry, _PRECISION_M)), _EDGE_M)
    noded = shapely.union_all(shapely.get_parts(lines), grid_size=_PRECISION_M)
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(noded)))
    inside = shapely.point_on_surface(faces)
    faces, inside = (part[shapely.intersects(box, inside)] for part in (faces, inside))
    west, south = shapely.bounds(faces)[:, :2].T
    order = np.lexsort((faces_area := shapely.area(faces), south, west))
    faces, inside = faces[order], inside[order]
    del faces_area
    face, patch = shapely.STRtree(patches.geometry).query(inside, predicate="intersects")
    best = np.full((len(faces), patches.cover.shape[1]), -1, dtype=np.int64)
    showing = np.where(patches.cover > 0, patches.rank[:, None], -1)
    np.maximum.at(best, face, showing[patch])
    by_rank = np.argsort(patches.rank)
    return Partition(faces, by_rank[np.searchsorted(patches.rank[by_rank], best)])
