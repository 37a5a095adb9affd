"""Coca plots of the simulated landscape: where they lie, how large they are, and how they live over the years."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geococa.synthetic.frame import Frame
from geococa.synthetic.noise import generator
from geococa.synthetic.parks import Park
from geococa.synthetic.shapes import blob, field_block, random_points

__all__ = ["MEDIAN_PLOT_HA", "STATUS", "Plots", "grow_plots", "plot_status"]

MEDIAN_PLOT_HA = 0.7
_SIGMA = 0.65  # of log area; mean plot = 0.7 * exp(sigma^2 / 2) = 0.86 ha
_SIZE_RANGE_HA = (0.1, 6.0)
_MEAN_PLOT_HA = MEDIAN_PLOT_HA * float(np.exp(_SIGMA**2 / 2))
_BURN_IN_YEARS = 6  # so that the first year already has persistent, abandoned and replanted plots
_ABANDONED_SHARE = 0.15  # of the plots of a year are given up before the next
_REPLANTED_SHARE = 0.10  # of the fallow plots are planted again each year
_ACCESS_M = 110.0  # plots thin out with the distance to a river or road by this e-folding length
_REMOTE_SHARE = 0.02  # density far from any access, as a share of that beside it
_GAP_M = 8.0  # between plots, and between plots and water, roads and houses
_CORE_M = _GAP_M + 10.0  # no plot is so narrow that its middle lies nearer than this to water or a road
_ROUNDS = 16  # of looking for room before giving up
_CELL_M = 320.0  # of the index of plots; larger than the diameter of almost all

STATUS = ("new", "persistent", "abandoned", "replanted")


@dataclass(frozen=True)
class Plots:
    """Coca plots and their states.

    Attributes
    ----------
    geometry : numpy.ndarray of object, shape (plots,)
        Outlines in the local frame; no two touch.
    planted : numpy.ndarray of bool, shape (plots, years)
        Whether a plot is under coca, for ``years`` below.
    years : numpy.ndarray of int64
        Consecutive years; the first lies before the first year of the landscape.
    """

    geometry: NDArray[Any]
    planted: NDArray[np.bool_]
    years: NDArray[np.int64]

    def since(self) -> NDArray[np.int64]:
        """Years since the present state of a plot began (0 = this year), shape (plots, years)."""
        age = np.zeros(self.planted.shape, dtype=np.int64)
        for year in range(1, self.planted.shape[1]):
            same = self.planted[:, year] == self.planted[:, year - 1]
            age[:, year] = np.where(same, age[:, year - 1] + 1, 0)
        return age

    def ever(self) -> NDArray[np.bool_]:
        """Whether a plot has been coca in this year or one before it, shape (plots, years)."""
        return np.asarray(np.logical_or.accumulate(self.planted, axis=1))


@dataclass(frozen=True)
class _Zone:
    """Region in which the number of coca plots follows one trend."""

    region: Any
    area_ha: float
    coca_share: float
    growth: float


class _Placer:
    """Finds room for plots: near access, off the water and the roads, apart from one another."""

    def __init__(self, access: Sequence[Any], blocked: Any, rng: np.random.Generator) -> None:
        self._rng = rng
        self._access = shapely.STRtree(_segments(access))
        self._blocked = blocked
        shapely.prepare(blocked)
        self._index: dict[tuple[int, int], list[Any]] = {}

    def place(self, zone: _Zone, wanted: int) -> list[Any]:
        """Draw up to ``wanted`` plots in a zone; fewer where there is no room left.

        Sizes are drawn before places, so that large plots, which fit less often, do not become rare.
        """
        placed: list[Any] = []
        pending = list(MEDIAN_PLOT_HA * np.exp(_SIGMA * self._rng.normal(size=wanted)).clip(*_SIZE_RANGE_HA))
        for _ in range(_ROUNDS):
            if not pending:
                break
            points = random_points(self._rng, zone.region, 12 * len(pending) + 12)
            spots = shapely.points(points)
            distance = self._access.query_nearest(spots, all_matches=False, return_distance=True)[1]
            odds = _REMOTE_SHARE + (1 - _REMOTE_SHARE) * np.exp(-distance / _ACCESS_M)
            likely = (self._rng.random(len(points)) < odds) & ~shapely.dwithin(self._blocked, spots, _CORE_M)
            for point in points[likely]:
                plot = self._shape((float(point[0]), float(point[1])), pending[-1]) if pending else None
                if plot is not None and self._fits(plot):
                    self._remember(plot)
                    placed.append(plot)
                    pending.pop()
        return placed

    def _shape(self, centre: tuple[float, float], size_ha: float) -> Any:
        if self._rng.random() < 0.55:
            return field_block(self._rng, centre, 1e4 * size_ha)
        return blob(self._rng, centre, 1e4 * size_ha, vertices=18, roughness=0.14, stretch=1.8)

    def _cells(self, plot: Any) -> list[tuple[int, int]]:
        west, south, east, north = (int(np.floor(value / _CELL_M)) for value in plot.bounds)
        return [(i, j) for i in range(west - 1, east + 2) for j in range(south - 1, north + 2)]

    def _fits(self, plot: Any) -> bool:
        if shapely.dwithin(self._blocked, plot, _GAP_M):
            return False
        neighbours = [other for cell in self._cells(plot) for other in self._index.get(cell, ())]
        return not neighbours or float(shapely.distance(plot, neighbours).min()) > _GAP_M

    def _remember(self, plot: Any) -> None:
        x, y = plot.centroid.x, plot.centroid.y
        self._index.setdefault((int(np.floor(x / _CELL_M)), int(np.floor(y / _CELL_M))), []).append(plot)


def _segments(lines: Sequence[Any]) -> NDArray[Any]:
    pieces = []
    for line in lines:
        points = shapely.get_coordinates(line)
        pieces.append(shapely.linestrings(np.stack([points[:-1], points[1:]], axis=1)))
    return np.concatenate(pieces)


def grow_plots(
    frame: Frame,
    parks: Sequence[Park],
    access: Sequence[Any],
    blocked: Any,
    years: Sequence[int],
    seed: int,
    coca_density: float = 1.0,
) -> Plots:
    """Let coca plots appear, persist, be abandoned and be replanted, each park at its own rate.

    Parameters
    ----------
    frame : Frame
        Extent of the landscape.
    parks : sequence of Park
        Parks; a plot belongs to the first that holds its seed point. Those with a ``coca_share`` of 0 get none.
    access : sequence of shapely.LineString
        Rivers and roads in the local frame.
    blocked : shapely geometry
        Where no plot may lie: water, roads, houses.
    years : sequence of int
        Years of the landscape.
    seed : int
        Seed.
    coca_density : float
        Factor on the share of land under coca.
    """
    rng = generator(seed, "coca")
    closed = shapely.union_all([shapely.buffer(p.geometry, 15.0) for p in parks if p.coca_share == 0])
    placer = _Placer(access, shapely.union_all([blocked, closed]), rng)
    timeline = np.arange(years[0] - _BURN_IN_YEARS, years[-1] + 1)
    geometry: list[Any] = []
    planted: list[NDArray[np.bool_]] = []
    for zone in _zones(frame, parks, closed):
        first = max(coca_density * zone.coca_share * zone.area_ha / _MEAN_PLOT_HA, 1.0)
        grown = np.maximum(timeline - years[0], 0)
        target = first * zone.growth**grown * np.exp(rng.normal(0, 0.04, len(timeline)))
        plots, states = _live(placer, zone, np.rint(target).astype(int), rng)
        geometry += plots
        planted += states
    shapes = np.empty(len(geometry), dtype=object)
    shapes[:] = geometry
    # one year before the first is kept: it tells new plots from persistent ones
    return Plots(shapes, _keep(planted, len(timeline)), timeline)


def _keep(states: list[NDArray[np.bool_]], years: int) -> NDArray[np.bool_]:
    return np.stack(states) if states else np.zeros((0, years), dtype=bool)


def _zones(frame: Frame, parks: Sequence[Park], closed: Any) -> list[_Zone]:
    remaining = shapely.difference(shapely.buffer(shapely.box(*frame.extent), -120.0), closed)
    zones = []
    for park in parks:
        if park.coca_share > 0:
            region = shapely.intersection(remaining, park.geometry)
            zones.append(_Zone(region, region.area / 1e4, park.coca_share, park.growth))
            remaining = shapely.difference(remaining, park.geometry)
    zones.append(_Zone(remaining, remaining.area / 1e4, 0.05, 1.02))
    return [zone for zone in zones if zone.area_ha > 0]


def _live(
    placer: _Placer, zone: _Zone, target: NDArray[np.int_], rng: np.random.Generator
) -> tuple[list[Any], list[NDArray[np.bool_]]]:
    """Years of one zone: some plots are given up, some fallow ones replanted, new ones cleared up to the target."""
    plots: list[Any] = []
    states: list[NDArray[np.bool_]] = []
    for year, wanted in enumerate(target):
        before = np.array([state[year - 1] for state in states], dtype=bool) if year else np.zeros(0, dtype=bool)
        chance = rng.random(len(before))
        now = np.where(before, chance >= _ABANDONED_SHARE, chance < _REPLANTED_SHARE)
        surplus = int(now.sum()) - int(wanted)
        if surplus > 0:
            now[rng.choice(np.flatnonzero(now), size=surplus, replace=False)] = False
        for state, value in zip(states, now, strict=True):
            state[year] = value
        for plot in placer.place(zone, max(-surplus, 0)):
            state = np.zeros(len(target), dtype=bool)
            state[year] = True
            plots.append(plot)
            states.append(state)
    return plots, states


def plot_status(planted: NDArray[np.bool_]) -> NDArray[np.object_]:
    """Name the state of each plot in each year but the first: one of `STATUS`, or "" before its first coca.

    A plot is *new* in the first year of coca ever, *persistent* where the year before was coca too,
    *abandoned* in every fallow year after coca, *replanted* in the first year of coca after fallow.
    """
    now, before = planted[:, 1:], planted[:, :-1]
    ever_before = np.logical_or.accumulate(before, axis=1)
    status = np.full(now.shape, "", dtype=object)
    status[now & before] = "persistent"
    status[now & ~ever_before] = "new"
    status[now & ~before & ever_before] = "replanted"
    status[~now & ever_before] = "abandoned"
    return status
