"""Change tables and followed plots of a run: hectares of every tile's own ground, added up before shares are taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from geococa.areas import zonal_area
from geococa.change import (
    associated_forest_loss,
    expansion_rate,
    new_and_abandoned,
    persistence,
    ring_table,
    transitions,
)
from geococa.coca_plots import follow_plots, merge_plots, trace_plots
from geococa.legend import Legend

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geococa.coverage import Coverage
    from geococa.recipe import Recipe

__all__ = ["follow_run", "merge_tables", "tile_tables"]

_KEYS = {
    "transitions": ["zone", "from_year", "to_year", "from", "to"],
    "changes": ["zone", "year"],
    "permanence": ["zone", "permanence"],
    "rings": ["zone", "ring", "from_m", "to_m", "year"],
    "forest_loss": ["zone", "year"],
}
"""Columns that name a row."""


def tile_tables(
    land_cover: xr.DataArray,
    share: Coverage,
    recipe: Recipe,
    *,
    rings: Coverage | None = None,
    observations: xr.DataArray | None = None,
) -> dict[str, pd.DataFrame]:
    """Change tables of one tile, with the hectares on the tile that their means belong to (``inside_ha``).

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(time, y, x)``, yearly maps of the tile.
    share : Coverage
        Zones on the tile's own ground.
    recipe : Recipe
        ``[change]`` and the class reported.
    rings : Coverage, optional
        Rings around the zones on the tile's own ground, for ``rings``.
    observations : xarray.DataArray, optional
        Usable dates, on the same grid and times.

    Returns
    -------
    dict of str to pandas.DataFrame
        ``transitions``, ``changes``, ``forest_loss`` and ``permanence`` (from two years on), and ``rings``, for `merge_tables`.
    """
    name, settings = recipe.areas.class_name, recipe.change
    around = {"years_before": settings.years_before, "years_after": settings.years_after}
    inside = dict(zip(share.zone_names, share.inside_ha.tolist(), strict=True))
    out: dict[str, pd.DataFrame] = {}
    if rings is not None:
        out["rings"] = ring_table(land_cover, rings, class_name=name, observations=observations)
        out["rings"]["inside_ha"] = out["rings"]["observed_ha"] + out["rings"]["unobserved_ha"]
    if land_cover.sizes["time"] < 2:
        return out
    changes = new_and_abandoned(land_cover, share, class_name=name, observations=observations, **around)
    mapped = Legend.from_attrs(land_cover.attrs).names
    loss = associated_forest_loss(
        land_cover,
        share,
        class_name=name,
        forest=[one for one in settings.forest if one in mapped],
        distance_m=settings.forest_distance_m,
        observations=observations,
        **around,
    )
    out["transitions"] = _transition_rows(transitions(land_cover, share, observations=observations, **around))
    out["changes"], out["forest_loss"] = changes, loss
    out["permanence"] = _permanence_rows(land_cover, share, recipe, changes)
    for key in ("transitions", "changes", "forest_loss", "permanence"):
        out[key]["inside_ha"] = out[key]["zone"].map(inside)
    return out


def _transition_rows(steps: xr.Dataset) -> pd.DataFrame:
    """One row per zone, step and pair of classes; what is known of the step alone stands on each of its rows."""
    pairs = steps[["area_ha", "sustained_ha"]].rename(from_class="from", to_class="to")
    table = pairs.to_dataframe().reset_index()
    held = steps[["unobserved_ha", "flicker_ha"]].assign(
        decided_ha=steps["sustained_ha"].sum(["from_class", "to_class"]) + steps["flicker_ha"],
        observations=steps.get("observations", steps["changed_ha"] * np.nan),
        observed_years=steps["observed_years"].broadcast_like(steps["changed_ha"]),
    )
    table = table.merge(held.to_dataframe().reset_index()[["time", "zone", *held.data_vars]], on=["time", "zone"])
    table["to_year"], table["from_year"] = table.pop("time").dt.year, table["from_time"].dt.year
    return table.drop(columns="from_time")


def _permanence_rows(land_cover: xr.DataArray, share: Coverage, recipe: Recipe, changes: pd.DataFrame) -> pd.DataFrame:
    settings = recipe.change
    found = persistence(
        land_cover,
        class_name=recipe.areas.class_name,
        window_years=settings.window_years,
        permanent_share=settings.permanent_share,
        intermittent_share=settings.intermittent_share,
        new_years=settings.new_years,
        abandoned_years=settings.abandoned_years,
        min_observed_years=settings.min_observed_years,
    )
    areas = zonal_area(found, share)
    areas = areas.isel(time=0, drop=True) if "time" in areas.dims else areas
    table = areas["area_ha"].to_dataframe().reset_index().rename(columns={"land_cover": "permanence"})
    table = table[["zone", "permanence", "area_ha"]]
    table["unobserved_ha"] = table["zone"].map(areas["unobserved_ha"].to_series())
    steps = changes.groupby("zone")
    for name in ("flicker_ha", "decided_ha"):
        table[name] = table["zone"].map(steps[name].sum())
    for name in ("observed_years", "observations"):
        table[name] = table["zone"].map(steps[name].mean())
    return table


def merge_tables(parts: Iterable[Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Add up the change tables of the tiles.

    Parameters
    ----------
    parts : iterable of mapping
        From `tile_tables`, one for each tile.

    Returns
    -------
    dict of str to pandas.DataFrame
        The tables for the whole archive, and ``expansion``. Hectares are sums, ``observed_years`` and ``observations`` means
        weighted by hectares, ``flicker_share`` is flicker over what could be decided.
    """
    held = list(parts)
    out = {}
    for name, keys in _KEYS.items():
        tables = [part[name] for part in held if name in part and len(part[name])]
        if tables:
            out[name] = _finished(name, _added(pd.concat(tables, ignore_index=True), keys))
    if "changes" in out:
        out["expansion"] = expansion_rate(out["changes"])
    return out


def _added(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Sums of hectares by the keys, in the order in which these first occur, and means weighted by hectares."""
    seen = table["inside_ha"] - table["unobserved_ha"]
    weights = {"observed_years": table["inside_ha"], "observations": seen}
    whole = [name for name in ("ring_ha",) if name in table]
    sums = [str(name) for name in table if str(name).endswith("_ha") and name not in (*whole, "outside_ha")]
    work = table[[*keys, *sums, *whole]].copy()
    for name, weight in weights.items():
        counts = table[name].notna() & (weight > 0)
        work[f"{name}.sum"], work[f"{name}.weight"] = (
            (table[name] * weight).where(counts, 0.0),
            weight.where(counts, 0.0),
        )
    groups = work.groupby(list(keys), sort=False)
    out = groups[[name for name in work if name not in (*keys, *whole)]].sum(min_count=1)
    for name in whole:
        out[name] = groups[name].first()
    for name in weights:
        total = out.pop(f"{name}.weight")
        out[name] = out.pop(f"{name}.sum") / total.where(total > 0)
    out["flicker_share"] = out["flicker_ha"] / out["decided_ha"].where(out["decided_ha"] > 0)
    return out.reset_index()


def _finished(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Shares of the added hectares, and the columns in their order."""
    basis = ["flicker_ha", "decided_ha", "flicker_share", "observed_years", "observations"]
    if name == "changes":
        before = table["stable_ha"] + table["lost_ha"]
        net = table["new_ha"] + table["replanted_ha"] - table["lost_ha"]
        table["net_share"] = net / before.where(before > 0)
    elif name == "forest_loss":
        table["associated_share"] = table["associated_ha"] / table["forest_loss_ha"].where(table["forest_loss_ha"] > 0)
    elif name == "rings":
        table["class_share"] = table["area_ha"] / table["observed_ha"].where(table["observed_ha"] > 0)
        table["outside_ha"] = (table["ring_ha"] - table["inside_ha"]).clip(lower=0.0)
    elif name == "transitions":
        table = table[table["area_ha"] > 0].reset_index(drop=True)
    first = [column for column in table if column not in (*basis, "inside_ha")]
    return table[[*first, *basis]]


def follow_run(maps: Mapping[str, xr.DataArray], recipe: Recipe, zones: GeoDataFrame) -> GeoDataFrame:
    """Trace the plots of all tiles, join them across tiles of one CRS, and follow them over the years.

    Parameters
    ----------
    maps : mapping of str to xarray.DataArray
        Yearly maps of each tile with the ground that other tiles own blanked, read when asked for.
    recipe : Recipe
        ``[change]``, the class reported and the connectivity of patches.
    zones : geopandas.GeoDataFrame
        The zones of the run.

    Returns
    -------
    geopandas.GeoDataFrame
        From `geococa.follow_plots`, in longitude and latitude (EPSG:4326), with ids unique over the archive. A plot
        across the border of two UTM zones counts as two.
    """
    import geopandas

    name, settings = recipe.areas.class_name, recipe.change
    traced: dict[str, list[GeoDataFrame]] = {}
    tiles: dict[str, list[str]] = {}
    for tile in sorted(maps):
        plots = trace_plots(maps[tile], class_name=name)
        traced.setdefault(plots.crs.to_wkt(), []).append(plots)
        tiles.setdefault(plots.crs.to_wkt(), []).append(tile)
    parts: list[GeoDataFrame] = []
    plot_ids = track_ids = 0
    for crs in sorted(traced):
        merged = merge_plots(traced[crs], zones=zones)
        years = merged.attrs["years"]
        kept = merged[merged["area_ha"] >= settings.plot_min_area_ha].reset_index(drop=True)
        kept.attrs["years"] = years
        tracks = follow_plots(
            kept,
            land_cover=[maps[tile] for tile in tiles[crs]],
            min_overlap=settings.plot_min_overlap,
            change_share=settings.plot_change_share,
        )
        tracks = _renumbered(tracks, plot_ids, track_ids)
        plot_ids += len(merged)
        track_ids = max([track_ids, *tracks["track_id"].tolist()])
        parts.append(tracks.to_crs("EPSG:4326"))
    if not parts:
        raise ValueError("there are no maps to trace plots on")
    return geopandas.GeoDataFrame(pd.concat(parts, ignore_index=True), geometry="geometry", crs="EPSG:4326")


def _renumbered(tracks: GeoDataFrame, plots: int, others: int) -> GeoDataFrame:
    """Ids after those of another CRS."""
    parents = [" ".join(str(int(one) + others) for one in str(held).split()) for held in tracks["parents"]]
    return tracks.assign(plot_id=tracks["plot_id"] + plots, track_id=tracks["track_id"] + others, parents=parents)
