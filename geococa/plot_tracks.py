"""Plots followed over the years: the same land keeps its id through growth, splits, merges and replanting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely
import xarray as xr

from geococa.errors import InputRefused
from geococa.legend import NO_DATA

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["EVENTS", "follow_plots"]

EVENTS = ("new", "persistent", "expanded", "shrunk", "split", "merged", "abandoned", "replanted", "unobserved")
"""What can happen to a plot in a year."""


@dataclass
class _Track:
    """A plot as it was last seen."""

    track_id: int
    shape: Any
    area_ha: float
    zone: Any
    planted: int
    first_year: int


@dataclass
class _State:
    """Plots alive in the year before, and those given up since."""

    alive: list[_Track] = field(default_factory=list)
    gone: list[_Track] = field(default_factory=list)
    count: int = 0

    def next_id(self) -> int:
        self.count += 1
        return self.count


def follow_plots(
    plots: GeoDataFrame,
    *,
    land_cover: xr.DataArray | Sequence[xr.DataArray] | None = None,
    min_overlap: float = 0.1,
    change_share: float = 0.1,
) -> GeoDataFrame:
    """Follow plots over the years and say what happened to each.

    Parameters
    ----------
    plots : geopandas.GeoDataFrame
        From `geococa.trace_plots`, two or more years; ``attrs["years"]`` names years that may have no plot at all.
    land_cover : xarray.DataArray or sequence of such, optional
        The maps the plots come from, several where the plots are those of several tiles in one CRS; the map that holds most
        of a plot's cells is asked. A plot that is gone in a year while more than half of its land was not observed counts as
        ``unobserved``, not as ``abandoned``. Without it every absence counts as abandonment.
    min_overlap : float
        Plots of two years are the same land where they overlap by this share of the smaller one or more.
    change_share : float
        A plot is expanded or shrunk where its hectares change by more than this share, else persistent.

    Returns
    -------
    geopandas.GeoDataFrame
        The rows of ``plots`` with ``track_id`` (stable over the years, numbered in the order of first year and then place
        from the top left), ``event``, ``age_years`` (years since this stand was planted; a split-off plot inherits, a merged one takes
        the oldest, a replanted one starts at 0), ``planted_year``, ``first_year`` (of the track), ``parents`` (track ids that it
        came from, separated by blanks) and ``change_ha``; and a row with 0 ha, last geometry and no ``plot_id`` for each plot that was
        abandoned or unobserved in a year.

    Raises
    ------
    InputRefused
        A column is missing or a threshold is not in 0..1.

    Notes
    -----
    Each plot continues at most one plot of the year before and is continued by at most one, pairs with the largest
    overlap first. Of the pieces of a split the one with the largest overlap keeps the id, the others get new ones; a merged plot
    keeps the id of the parent with the largest overlap and the other ids end. A plot that both splits and merges is ``merged``.

    Examples
    --------
    >>> import geopandas, shapely
    >>> squares = [shapely.box(0, 0, 100, 100), shapely.box(0, 0, 100, 140)]
    >>> plots = geopandas.GeoDataFrame({"plot_id": [1, 2], "year": [2020, 2021], "area_ha": [1.0, 1.4], "zone": None},
    ...                                geometry=squares, crs="EPSG:32618")
    >>> follow_plots(plots)[["track_id", "event", "age_years"]].values.tolist()
    [[1, 'new', 0], [1, 'expanded', 1]]
    """
    import geopandas

    missing = [name for name in ("plot_id", "year", "area_ha") if name not in plots]
    if missing:
        raise InputRefused(f"the plots lack the columns {missing}; make them with geococa.trace_plots")
    for name, value in (("min_overlap", min_overlap), ("change_share", change_share)):
        if not 0.0 < value <= 1.0:
            raise InputRefused(f"{name} must be above 0 and at most 1, got {value!r}")
    years = sorted({int(y) for y in plots["year"]} | {int(y) for y in plots.attrs.get("years", [])})
    maps = [] if land_cover is None else [land_cover] if isinstance(land_cover, xr.DataArray) else list(land_cover)
    state = _State()
    records: list[dict[str, Any]] = []
    for year in years:
        current = plots[plots["year"] == year].sort_values("plot_id", kind="stable")
        records += _step(state, current, year, maps, min_overlap, change_share)
    table = pd.DataFrame(
        records,
        columns=[
            *plots.columns,
            "track_id",
            "event",
            "age_years",
            "planted_year",
            "first_year",
            "parents",
            "change_ha",
        ],
    )
    table["plot_id"] = table["plot_id"].astype("Int64")
    out = geopandas.GeoDataFrame(table, geometry="geometry", crs=plots.crs)
    out.attrs = {"years": years}
    return out


def _step(
    state: _State,
    current: GeoDataFrame,
    year: int,
    maps: Sequence[xr.DataArray],
    min_overlap: float,
    change_share: float,
) -> list[dict[str, Any]]:
    """Match the plots of one year with those alive before; update the state and give one record a plot."""
    shapes = current.geometry.to_numpy()
    links = _links([track.shape for track in state.alive], shapes, min_overlap)
    parents: dict[int, list[int]] = {}
    children: dict[int, list[int]] = {}
    for before, now, _ in links:
        parents.setdefault(now, []).append(before)
        children.setdefault(before, []).append(now)
    continues = _pair(links)
    absent = [track for i, track in enumerate(state.alive) if i not in children]
    old_links = _links([track.shape for track in state.gone], shapes, min_overlap)
    revives = _pair([link for link in old_links if link[1] not in parents])
    records, alive = [], []
    for now, (_, row) in enumerate(current.iterrows()):
        origin = [state.alive[i] for i in parents.get(now, [])]
        event, track = _event(
            state, row, year, origin, continues.get(now), revives.get(now), parents, children, now, change_share
        )
        track.shape, track.area_ha, track.zone = row["geometry"], float(row["area_ha"]), row.get("zone")
        alive.append(track)
        records.append({**row.to_dict(), **event})
    revived = set(revives.values())
    state.gone = [track for i, track in enumerate(state.gone) if i not in revived]
    for track in absent:
        unseen = bool(maps) and _unobserved_share(track.shape, maps, year) > 0.5
        records.append(
            {
                "year": year,
                "area_ha": 0.0,
                "zone": track.zone,
                "geometry": track.shape,
                "track_id": track.track_id,
                "event": "unobserved" if unseen else "abandoned",
                "age_years": year - track.planted,
                "planted_year": track.planted,
                "first_year": track.first_year,
                "parents": "",
                "change_ha": np.nan if unseen else -track.area_ha,
            }
        )
        (alive if unseen else state.gone).append(track)
    state.alive = alive
    return records


def _event(
    state: _State,
    row: pd.Series,
    year: int,
    origin: list[_Track],
    continued: int | None,
    revived: int | None,
    parents: dict[int, list[int]],
    children: dict[int, list[int]],
    now: int,
    change_share: float,
) -> tuple[dict[str, Any], _Track]:
    """Event of one plot and the track that it is on."""
    area = float(row["area_ha"])
    before = 0.0
    if continued is not None:
        old = state.alive[continued]
        track = _Track(old.track_id, None, area, None, min(o.planted for o in origin), old.first_year)
        before = old.area_ha
    elif revived is not None:
        old = state.gone[revived]
        track = _Track(old.track_id, None, area, None, year, old.first_year)
    else:
        planted = min((o.planted for o in origin), default=year)
        track = _Track(state.next_id(), None, area, None, planted, year)
    if len(origin) > 1:
        name = "merged"
        before = sum(o.area_ha for o in origin)
    elif any(len(children[i]) > 1 for i in parents.get(now, [])):
        name = "split"
    elif origin:
        ratio = area / before if before > 0 else np.inf
        name = "expanded" if ratio > 1 + change_share else "shrunk" if ratio < 1 - change_share else "persistent"
    else:
        name = "replanted" if revived is not None else "new"
    return {
        "track_id": track.track_id,
        "event": name,
        "age_years": year - track.planted,
        "planted_year": track.planted,
        "first_year": track.first_year,
        "parents": " ".join(str(i) for i in sorted(o.track_id for o in origin)),
        "change_ha": area - before,
    }, track


def _links(before: list[Any], now: np.ndarray, min_overlap: float) -> list[tuple[int, int, float]]:
    """Pairs of shapes that are the same land, and the area they share in the units of the map."""
    if not before or not len(now):
        return []
    old = np.array(before, dtype=object)
    new, past = shapely.STRtree(old).query(now, predicate="intersects")
    shared = shapely.area(shapely.intersection(old[past], now[new]))
    smaller = np.minimum(shapely.area(old[past]), shapely.area(now[new]))
    keep = shared >= min_overlap * smaller
    return sorted(zip(past[keep].tolist(), new[keep].tolist(), shared[keep].tolist(), strict=True))


def _pair(links: list[tuple[int, int, float]]) -> dict[int, int]:
    """Give each current plot at most one earlier one, the largest overlap first; ``{now: before}``."""
    out: dict[int, int] = {}
    taken: set[int] = set()
    for before, now, _ in sorted(links, key=lambda link: (-link[2], link[0], link[1])):
        if now not in out and before not in taken:
            out[now] = before
            taken.add(before)
    return out


def _unobserved_share(shape: Any, maps: Sequence[xr.DataArray], year: int) -> float:
    """Share of a shape that the map with most of its cells did not observe in a year; 1 off the maps or without the year."""
    counts = [_cells_in(shape, land_cover, year) for land_cover in maps]
    inside, unseen = max(counts)
    return unseen / inside if inside else 1.0


def _cells_in(shape: Any, land_cover: xr.DataArray, year: int) -> tuple[int, int]:
    """Number of cells with centres in a shape, and of those that were not observed in a year."""
    left, bottom, right, top = shape.bounds
    x, y = land_cover["x"].values, land_cover["y"].values
    columns, rows = np.flatnonzero((x >= left) & (x <= right)), np.flatnonzero((y >= bottom) & (y <= top))
    times = land_cover["time"].dt.year.values if "time" in land_cover.dims else np.array([year])
    when = np.flatnonzero(times == year)
    if not columns.size or not rows.size or not when.size:
        return 0, 0
    plane = land_cover.isel(time=int(when[0])) if "time" in land_cover.dims else land_cover
    codes = np.asarray(plane.transpose("y", "x").isel(y=rows, x=columns).data)
    inside = shapely.contains_xy(shape, *np.meshgrid(x[columns], y[rows]))
    return int(inside.sum()), int((codes[inside] == NO_DATA).sum())
