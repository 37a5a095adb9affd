"""What a run measures on its maps: hectares by zone, the dates and the change behind them, and plots.

Every tile is measured on the ground that it owns, and the tables of the tiles are added up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from shapely import MultiPolygon, from_wkb, to_wkb

from geococa._files import replace_file
from geococa.areas import areas_table, merge_areas, zonal_area
from geococa.change_tables import follow_run, merge_tables, tile_tables
from geococa.errors import InputRefused
from geococa.fractions import as_fraction
from geococa.image_ages import AGE_COLUMNS, age_table, merge_ages, with_ages
from geococa.ledger import Ledger, Task, file_sha256, hash_of
from geococa.legend import NO_DATA
from geococa.run_folder import CHANGE_TABLES, areas_from_table, own_ground, read_maps
from geococa.run_job import AREAS_SCHEMA, RunJob, areas_task, layer_files, yearly_files
from geococa.tiles import TileRef, read_raster
from geococa.zones import Coverage, buffer_rings, coverage_fraction, coverage_key, footprint_of, own_tiles

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from shapely.geometry.base import BaseGeometry

    from geococa.models import Model

__all__ = ["Measures", "measure_run"]

log = logging.getLogger("geococa")


@dataclass(frozen=True)
class Measures:
    """Tables of a run, over all tiles.

    Attributes
    ----------
    areas : xarray.Dataset
        Hectares as `geococa.zonal_area` gives them, with the dates behind them.
    ages : pandas.DataFrame
        Hectares by age of the image at the cut-off date, 31 December where none is set.
    fractions : xarray.Dataset or None
        From a model of class fractions: hectares of the class reported and of all else.
    change : dict of str to pandas.DataFrame, or None
        Change tables, where the recipe asks for them.
    plots : geopandas.GeoDataFrame or None
        Plots followed over the years, likewise.
    """

    areas: xr.Dataset
    ages: pd.DataFrame
    fractions: xr.Dataset | None
    change: dict[str, pd.DataFrame] | None
    plots: GeoDataFrame | None


@dataclass(frozen=True)
class _Ground:
    """The zones, the ground that each tile owns, and the tiles that failed, whose ground counts as unobserved."""

    job: RunJob
    ledger: Ledger
    zones: GeoDataFrame
    owners: GeoDataFrame
    failed: dict[str, str]

    def owned(self, tile: str) -> BaseGeometry:
        return self.owners.set_index("tile").loc[tile, "geometry"]


def measure_run(job: RunJob, ledger: Ledger, zones: GeoDataFrame, model: Model, failed: dict[str, str]) -> Measures:
    """Measure the maps of a run; what an earlier run measured on the same maps and zones is taken from its files."""
    grids = {tile.tile: tile.grid for tile in job.tiles}
    owners = own_tiles(grids, footprints=_footprints(job, ledger, failed))
    ground = _Ground(job, ledger, zones, owners, failed)
    areas, ages = _areas(ground, model)
    shares = job.gives_fractions and job.recipe.areas.class_name in model.classes
    return Measures(
        areas,
        ages,
        _fraction_areas(ground) if shares else None,
        _change(ground) if job.recipe.change.tables else None,
        _plots(ground) if job.recipe.change.plots else None,
    )


def _areas(ground: _Ground, model: Model) -> tuple[xr.Dataset, pd.DataFrame]:
    """Hectares of every tile's own ground, merged, and those by age of the image."""
    job = ground.job
    (job.folder / "areas").mkdir(exist_ok=True)
    parts, ages = [], []
    for done, tile in enumerate(job.tiles, start=1):
        maps = {} if tile.tile in ground.failed else yearly_files(job, tile.tile)
        task = areas_task(job, tile.tile, maps, ground.owned(tile.tile))
        dates = job.folder / "areas" / f"{tile.tile}_image_ages.csv"

        def measure(
            share: Coverage, tile: TileRef = tile, maps: dict[int, Path] = maps, dates: Path = dates
        ) -> xr.Dataset:
            _write_exactly(_tile_ages(job, maps, share), dates)
            return _tile_areas(job, tile, maps, share, model)

        parts.append(_measured(ground, tile, task, tile.tile, measure, [dates]))
        ages.append(pd.read_csv(dates))
        job.progress("measuring hectares", done, len(job.tiles))
    merged = merge_areas(parts, ground.zones, area=job.recipe.areas.method)
    table = merge_ages(ages, merged)
    return with_ages(merged, table), table


def _fraction_areas(ground: _Ground) -> xr.Dataset:
    """Hectares of the class reported from its fractions, and of all else, merged over the tiles."""
    job = ground.job
    parts = []
    for tile in job.tiles:
        maps = {} if tile.tile in ground.failed else _fraction_maps(job, tile.tile)
        task = replace(areas_task(job, tile.tile, maps, ground.owned(tile.tile)), stage="fraction_areas")

        def measure(share: Coverage, tile: TileRef = tile, maps: dict[int, Path] = maps) -> xr.Dataset:
            return _tile_fractions(job, tile, maps, share)

        parts.append(_measured(ground, tile, task, f"{tile.tile}_fractions", measure))
    return merge_areas(parts, ground.zones, area=job.recipe.areas.method)


def _measured(
    ground: _Ground,
    tile: TileRef,
    task: Task,
    name: str,
    measure: Callable[[Coverage], xr.Dataset],
    beside: list[Path] | None = None,
) -> xr.Dataset:
    """Hectares of a tile from ``areas/<name>.csv``, measured first where that file is not of these maps and zones."""
    path = ground.job.folder / "areas" / f"{name}.csv"
    failed = tile.tile in ground.failed
    if failed or ground.ledger.state(task)[0] == "compute":
        areas = measure(_coverage(ground, tile))
        table = areas_table(areas)
        table["closure"] = table["zone"].map(areas["closure"].to_series())
        _write_exactly(table, path)
        if not failed:
            ground.ledger.done(task, [path, *(beside or [])])
    return _areas_of_tile(pd.read_csv(path))


def _change(ground: _Ground) -> dict[str, pd.DataFrame]:
    """Change tables of every tile's own ground, added up; the ground of a failed tile is left out."""
    job, ledger = ground.job, ground.ledger
    distances = job.recipe.change.ring_distances_m
    rings = buffer_rings(ground.zones, distances) if distances else None
    settings = job.recipe.settings()
    folder = job.folder / "change"
    folder.mkdir(exist_ok=True)
    parts = []
    for done, tile in enumerate((one for one in job.tiles if one.tile not in ground.failed), start=1):
        owned, maps = ground.owned(tile.tile), yearly_files(job, tile.tile)
        key = hash_of(areas_task(job, tile.tile, maps, owned).key, settings["change"], job.recipe.areas.class_name)
        task = Task("change", tile.tile, key)
        if ledger.state(task)[0] == "compute":
            around = None if rings is None else coverage_fraction(rings, tile.grid, owned=owned, allow_outside=True)
            dates = [layer_files(path)["observations"] for _, path in sorted(maps.items())]
            counts = np.stack([read_raster(path).values for path in dates])
            tables = tile_tables(
                read_maps(maps),
                _coverage(ground, tile),
                job.recipe,
                rings=around,
                observations=tile.grid.attach(xr.DataArray(counts, dims=("time", "y", "x"))),
            )
            for name in CHANGE_TABLES:  # of an earlier run with other settings
                (folder / f"{tile.tile}_{name}.csv").unlink(missing_ok=True)
            ledger.done(
                task, [_write_exactly(table, folder / f"{tile.tile}_{name}.csv") for name, table in tables.items()]
            )
        found = {name: folder / f"{tile.tile}_{name}.csv" for name in CHANGE_TABLES}
        parts.append({name: pd.read_csv(path) for name, path in found.items() if path.is_file()})
        job.progress("measuring change", done, len(job.tiles))
    return merge_tables(parts)


def _plots(ground: _Ground) -> GeoDataFrame | None:
    """Plots of every tile's own ground, joined and followed over the years; None where no tile has a map."""
    job = ground.job
    job.progress("following plots", 0, 1)
    good = [tile.tile for tile in job.tiles if tile.tile not in ground.failed]
    maps = {tile: own_ground(read_maps(yearly_files(job, tile)), ground.owners, tile) for tile in good}
    tracks = follow_run(maps, job.recipe, ground.zones) if maps else None
    job.progress("following plots", 1, 1)
    return tracks


def _fraction_maps(job: RunJob, tile: str) -> dict[int, Path]:
    return {year: job.folder / "maps" / f"{tile}_{year}_fraction.tif" for year in job.years}


def _tile_fractions(job: RunJob, tile: TileRef, maps: dict[int, Path], share: Coverage) -> xr.Dataset:
    name = job.recipe.areas.class_name
    yearly = []
    for year in job.years:
        values = read_raster(maps[year]).values if maps else np.full(tile.grid.shape, np.nan, np.float32)
        both = xr.DataArray(np.stack([values, 1.0 - values])[None], dims=("time", "land_cover", "y", "x"))
        both = both.assign_coords(time=[np.datetime64(f"{year}-12-31", "ns")])
        fraction = as_fraction(tile.grid.attach(both), [name, f"not_{name}"])
        yearly.append(zonal_area(fraction, share, area=job.recipe.areas.method, threads=job.threads))
    return xr.concat(yearly, dim="time", data_vars="minimal", coords="minimal", compat="override")


def _write_exactly(table: pd.DataFrame, path: Path) -> Path:
    """Write a table as CSV from which the same numbers are read back."""
    return replace_file(path, table.to_csv(index=False, float_format="%.17g").encode())


def _tile_ages(job: RunJob, maps: dict[int, Path], share: Coverage) -> pd.DataFrame:
    """Hectares of a tile by zone, year and age of the image, and the dates behind them."""
    yearly = [pd.DataFrame(columns=AGE_COLUMNS)]
    for year, path in sorted(maps.items()):
        layers = {name: read_raster(file) for name, file in layer_files(path).items()}
        table = age_table(
            read_raster(path),
            layers.get("age_days"),
            share,
            class_name=job.recipe.areas.class_name,
            bin_days=1.0,
            observations=layers.get("observations"),
            fallback=layers.get("fallback_observations"),
        )
        yearly.append(table.assign(year=year))
    filled = [table for table in yearly if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else yearly[0]


def _footprints(job: RunJob, ledger: Ledger, failed: dict[str, str]) -> dict[str, BaseGeometry]:
    """Ground with data in any year: where tiles overlap, it counts in one that saw it. A failed tile saw nothing."""
    out: dict[str, BaseGeometry] = {}
    if len(job.tiles) == 1:
        return out
    for tile in job.tiles:
        if tile.tile in failed:
            out[tile.tile] = MultiPolygon()
            continue
        maps = yearly_files(job, tile.tile)
        path = job.folder / "coverage" / f"{tile.tile}_footprint.wkb"
        task = Task("footprint", tile.tile, hash_of(AREAS_SCHEMA, [file_sha256(maps[year]) for year in job.years]))
        if ledger.state(task)[0] == "compute":
            seen = np.zeros(tile.grid.shape, bool)
            for year in job.years:
                seen |= read_raster(maps[year]).values != NO_DATA
            path.parent.mkdir(exist_ok=True)
            replace_file(path, to_wkb(footprint_of(seen, tile.grid)))
            ledger.done(task, [path])
        out[tile.tile] = from_wkb(path.read_bytes())
    return out


def _areas_of_tile(table: pd.DataFrame) -> xr.Dataset:
    """Areas of a tile as they were written, with the factor that closed the sums of each zone."""
    areas = areas_from_table(table)
    closure = table.drop_duplicates("zone").set_index("zone")["closure"]
    return areas.assign_coords(closure=("zone", closure.reindex(areas["zone"].values).values))


def _coverage(ground: _Ground, tile: TileRef) -> Coverage:
    """Shares of the zones on a tile, from an earlier run where its grid, zones and ground are the same."""
    job, zones, owned = ground.job, ground.zones, ground.owned(tile.tile)
    path = job.folder / "coverage" / f"{tile.tile}.npz"
    task = Task("coverage", tile.tile, coverage_key(zones, tile.grid, owned))
    if ground.ledger.state(task)[0] == "reuse":
        try:
            return Coverage.load(path, zones, tile.grid, owned=owned)
        except InputRefused as error:
            log.warning("%s; it is made again", error)
    share = coverage_fraction(zones, tile.grid, owned=owned, allow_outside=True, threads=job.threads)
    path.parent.mkdir(exist_ok=True)
    ground.ledger.done(task, [share.save(path)])
    return share


def _tile_areas(job: RunJob, tile: TileRef, maps: dict[int, Path], share: Coverage, model: Model) -> xr.Dataset:
    legend = model.legend.with_unclassified()
    yearly = []
    for year in job.years:
        if maps:
            land_cover = read_raster(maps[year])
        else:
            unseen = xr.DataArray(np.full(tile.grid.shape, NO_DATA, np.uint8), dims=("y", "x"))
            land_cover = tile.grid.attach(unseen.assign_attrs(kind="land_cover", **legend.to_attrs()))
        land_cover = land_cover.expand_dims(time=[np.datetime64(f"{year}-12-31", "ns")])
        yearly.append(zonal_area(land_cover, share, area=job.recipe.areas.method))
    return xr.concat(yearly, dim="time", data_vars="minimal", coords="minimal", compat="override")
