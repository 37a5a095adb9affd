"""Where a number comes from: a chain of hashes from the files of every tile to every row of the tables.

``inputs/<tile>.json`` holds the checksums of the files that a tile's maps were made from, ``provenance.json`` what was
made of them, each link hashed together with the links that it stands on. So a table row has a hash that changes with any
byte of what it was computed from, and from a changed file the rows that stand on it are found without computing anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from geococa.composites import window_of
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.input_records import record_bytes, record_inputs
from geococa.ledger import Ledger, file_sha256, hash_of
from geococa.pipeline import estimates_transitions
from geococa.recipe import Recipe
from geococa.run_folder import write_data, write_text
from geococa.run_job import RunJob, yearly_files
from geococa.samples import read_samples
from geococa.tile_inputs import tile_digests
from geococa.tiles import TileRef
from geococa.zones import own_tiles

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["link_digests", "read_provenance", "touched_rows", "write_provenance", "years_of_scene"]

SCHEMA = 1
_SLIVER_DEG2 = 1e-10
"""Smaller common ground than this (about 1 square metre) is no overlap."""

ZONE_YEAR_TABLES = ("areas", "fraction_areas", "image_ages", "truth_comparison")
"""Tables whose rows stand on the maps of their zone and year."""
ZONE_TABLES = ("trends", "transitions", "changes", "expansion", "permanence")
"""Tables whose rows stand on all years of their zone."""
TRAINING_TABLES = ("cross_validation", "cross_validation_rows")
"""Tables that stand on the training samples alone."""
_FIXED = {
    "zone", "year", "land_cover", "class", "from", "to", "from_year", "to_year", "year_from", "year_to", "map", "line", "ring",
    "from_m", "to_m", "permanence", "zone_ha", "ring_ha", "surface", "true_ha", "image_age_days", "name",
}  # fmt: skip
"""Columns that say which row it is, or depend on zones only."""


def _write_inputs(job: RunJob, tile: TileRef, known: pd.DataFrame) -> Path:
    """Write ``inputs/<tile>.json``; checksums that the run worked out are taken from its ledger."""
    rows = known[(known["stage"] == "maps") & (known["item"] == tile.tile)]
    sizes = rows["bytes"].astype("int64").tolist()
    digests = dict(zip(rows["path"], zip(sizes, rows["sha256"], strict=True), strict=True))
    files = tile_digests(tile, job.recipe.bands_needed(), known=digests)
    place = job.folder / "inputs"
    place.mkdir(exist_ok=True)
    return write_data(place / f"{tile.tile}.json", record_bytes(record_inputs(tile, files)))


def read_provenance(folder: Path) -> dict[str, Any]:
    """Provenance of a finished run.

    Raises
    ------
    InputRefused
        The run has none, or one of another version.
    """
    path = folder / "provenance.json"
    if not path.is_file():
        raise InputRefused(f"{folder} has no provenance.json; run the archive again to get one, maps are reused")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA:
        raise InputRefused(
            f"{path} has schema {found.get('schema')!r}, expected {SCHEMA}; use the geococa that wrote it"
        )
    return found


def write_provenance(
    job: RunJob, ledger: Ledger, zones: GeoDataFrame, failed: Mapping[str, str], outputs: Iterable[Path]
) -> list[Path]:
    """Write the chain of a finished run, and the records of its inputs.

    Parameters
    ----------
    job : RunJob
        The run.
    ledger : Ledger
        Its ledger, which knows the checksums of the inputs.
    zones : geopandas.GeoDataFrame
        Its zones.
    failed : mapping
        Reason of each failed tile.
    outputs : iterable of pathlib.Path
        Files that it wrote for people.

    Returns
    -------
    list of pathlib.Path
        ``provenance.json`` and the input records.
    """
    good = [tile for tile in job.tiles if tile.tile not in failed]
    known = ledger.inputs()
    records = {tile.tile: _write_inputs(job, tile, known) for tile in good}
    reach = _reach(job, zones, failed)
    tiles = {tile.tile: _tile_entry(job, tile, tile.tile in failed, reach[tile.tile]) for tile in job.tiles}
    chain: dict[str, Any] = {
        "schema": SCHEMA,
        "recipe_sha256": hash_of(job.recipe.settings()),
        "zones_sha256": file_sha256(job.folder / "zones.parquet"),
        "model_sha256": file_sha256(job.folder / "model.geococa"),
        "training_tiles": _training_tiles(job),
        "years": list(job.years),
        "tiles": tiles,
        "outputs": {path.relative_to(job.folder).as_posix(): file_sha256(path) for path in sorted(set(outputs))},
    }
    chain["digests"] = link_digests(job.folder, chain)
    path = write_text(job.folder / "provenance.json", json.dumps(chain, indent=1, sort_keys=True) + "\n")
    return [path, *records.values()]


def _tile_entry(job: RunJob, tile: TileRef, failed: bool, reach: Mapping[str, list[str]]) -> dict[str, Any]:
    maps: dict[str, dict[str, str]] = {}
    for year in () if failed else job.years:
        stem = yearly_files(job, tile.tile)[year].name.removesuffix("land_cover.tif")
        found = sorted((job.folder / "maps").glob(f"{stem}*.tif"))
        maps[str(year)] = {file.name: file_sha256(file) for file in found}
    parts = [job.folder / "areas" / f"{tile.tile}{end}.csv" for end in ("", "_image_ages", "_fractions")]
    record = job.folder / "inputs" / f"{tile.tile}.json"
    return {
        "grid": {
            "crs": tile.grid.crs.to_wkt(),
            "transform": list(tile.grid.transform)[:6],
            "shape": list(tile.grid.shape),
        },
        "inputs": "" if failed else file_sha256(record),
        "maps": maps,
        "areas": {part.name: file_sha256(part) for part in parts if part.is_file()},
        **reach,
    }


def _training_tiles(job: RunJob) -> list[str]:
    """Tiles whose images the model was made from."""
    if estimates_transitions(job.recipe):  # on windows of all tiles
        return [tile.tile for tile in job.tiles]
    settings = job.recipe.model
    if settings.path is not None or settings.samples is None:
        return []
    samples = read_samples(settings.samples, class_column=settings.class_column, year_column=settings.year_column)
    found = []
    for tile in job.tiles:
        left, bottom, right, top = tile.grid.bounds
        xmin, ymin, xmax, ymax = samples.to_crs(tile.grid.crs).bounds.to_numpy().T
        if ((xmin <= right) & (xmax >= left) & (ymin <= top) & (ymax >= bottom)).any():
            found.append(tile.tile)
    return found


def _reach(job: RunJob, zones: GeoDataFrame, failed: Mapping[str, str]) -> dict[str, dict[str, list[str]]]:
    """Zones of every tile that its pixels can count in, and those where that also depends on its neighbours.

    A place belongs to the first tile that saw it. So a tile can count on its ground but for what an earlier tile saw, and
    where another tile holds the place too, one pixel more or less moves a whole place, in all years, from one to the other.
    """
    from shapely import Polygon, from_wkb, unary_union

    ground = own_tiles({tile.tile: tile.grid for tile in job.tiles[:1]})
    outlines = {
        tile.tile: own_tiles({tile.tile: tile.grid}).geometry.iloc[0]
        if tile is not job.tiles[0]
        else ground.geometry.iloc[0]
        for tile in job.tiles
    }
    shapes = zones.to_crs("EPSG:4326")
    seen: dict[str, Any] = {}
    for name, outline in outlines.items():
        path = job.folder / "coverage" / f"{name}_footprint.wkb"
        seen[name] = Polygon() if name in failed else from_wkb(path.read_bytes()) if path.is_file() else outline
    out = {}
    for name, outline in outlines.items():
        earlier = unary_union([seen[other] for other in outlines if other < name])
        others = unary_union([outlines[other] for other in outlines if other != name])
        # the line between two owners follows the edges of cells, so it may run a cell beside that of the outlines
        free = outline.difference(earlier).buffer(_cell_degrees(job, name)).intersection(outline)
        shared = free.intersection(others)
        out[name] = {"zones": _over(shapes, free), "shared_zones": _over(shapes, shared)}
    return out


def _cell_degrees(job: RunJob, name: str) -> float:
    grid = next(tile.grid for tile in job.tiles if tile.tile == name)
    side = max(abs(grid.transform.a), abs(grid.transform.b))
    return side if grid.crs.is_geographic else side / 110_000.0


def _over(zones: GeoDataFrame, ground: Any) -> list[str]:
    from shapely import area, intersection

    if ground.is_empty:
        return []
    common = area(intersection(zones.geometry.to_numpy(), ground))
    return sorted(str(name) for name, size in zip(zones["zone"], common, strict=True) if size > _SLIVER_DEG2)


# --- the chain ---------------------------------------------------------------------------------------


def link_digests(folder: Path, chain: Mapping[str, Any]) -> dict[str, Any]:
    """Hash of every link together with those that it stands on.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of a run, for the rows of its ``areas.csv``.
    chain : mapping
        Contents of ``provenance.json``; its own ``digests`` are not looked at.

    Returns
    -------
    dict
        ``maps`` by tile and year, ``areas`` by tile, ``rows`` of the table of hectares by zone and year, and ``root``.
    """
    base = [chain["recipe_sha256"], chain["model_sha256"]]
    # a model trained in the run stands on the images of its tiles
    training = hash_of([chain["tiles"][tile]["inputs"] for tile in chain["training_tiles"]])
    maps: dict[str, dict[str, str]] = {}
    areas: dict[str, str] = {}
    for tile, entry in sorted(chain["tiles"].items()):
        maps[tile] = {
            year: hash_of("map", tile, year, files, entry["inputs"], base, training)
            for year, files in sorted(entry["maps"].items())
        }
    for tile, entry in sorted(chain["tiles"].items()):
        around = {t: maps[t] for t, e in chain["tiles"].items() if set(e["shared_zones"]) & set(entry["shared_zones"])}
        areas[tile] = hash_of("areas", tile, entry["areas"], maps[tile], around, chain["zones_sha256"])
    rows: dict[str, dict[str, str]] = {}
    table = pd.read_csv(folder / "areas.csv", dtype=str, keep_default_na=False)
    for (zone, year), part in table.groupby(["zone", "year"], sort=True):
        below = {t: areas[t] for t, e in chain["tiles"].items() if zone in e["zones"]}
        rows.setdefault(str(zone), {})[str(year)] = hash_of("rows", part.to_numpy().tolist(), below)
    return {"maps": maps, "areas": areas, "rows": rows, "root": hash_of(maps, areas, rows, chain["outputs"])}


def years_of_scene(moment: datetime, recipe: Recipe, years: Sequence[int]) -> list[int]:
    """Years of a run whose maps are computed from a scene of a given date.

    With ``labels.stabilise`` the years inform each other, so that a scene counts in all of them.
    """
    settings = recipe.composite
    window = window_of(settings.cutoff, settings.window_days, settings.fallback_days, settings.after_days)
    if window is None:
        own = [year for year in years if year == moment.year]
    else:
        day = np.array([(moment.date() - date(1970, 1, 1)).days])
        yearly = bool(recipe.features.season or recipe.features.series)
        own = [year for year in years if window.holds(year, day).any() or (yearly and year == moment.year)]
    return list(years) if own and recipe.labels.stabilise else own


def touched_rows(
    folder: Path, chain: Mapping[str, Any], recipe: Recipe, tile: str, moment: datetime
) -> list[dict[str, Any]]:
    """Cells of the tables that are computed from a scene of a tile.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of a run.
    chain : mapping
        Its ``provenance.json``.
    recipe : Recipe
        Its settings.
    tile : str
        Tile id.
    moment : datetime.datetime
        Date of the scene.

    Returns
    -------
    list of dict
        For each row: ``table``, ``row`` (counted from 0), ``zone`` and ``year`` where the table has them, ``land_cover``, and
        ``columns``, the cells of that row. A cell is named if its number was computed from the scene's pixels, whether or
        not a given pixel would move it; so none is missed.
    """
    entry = chain["tiles"][tile]
    own = years_of_scene(moment, recipe, chain["years"])
    if not own:
        return []
    everything = tile in chain["training_tiles"]
    zones, shared = set(entry["zones"]), set(entry["shared_zones"])
    found = []
    for path in sorted(folder.glob("*.csv")):
        name, table = path.stem, pd.read_csv(path)
        if name in TRAINING_TABLES and not everything:
            continue
        keep = np.ones(len(table), bool)
        if not everything and name in ZONE_YEAR_TABLES:
            zone = table["zone"].astype(str)
            keep = (zone.isin(shared) | (zone.isin(zones) & table["year"].isin(own))).to_numpy()
        elif not everything and name in ZONE_TABLES:
            keep = table["zone"].astype(str).isin(zones).to_numpy()
        elif not everything and not zones:
            keep[:] = False
        columns = [column for column in table.columns if column not in _FIXED]
        for row in np.flatnonzero(keep):
            keys = {key: table[key].iloc[row] for key in ("zone", "year", "land_cover") if key in table}
            found.append({"table": name, "row": int(row), **keys, "columns": columns})
    return found


def grid_of(entry: Mapping[str, Any]) -> Grid:
    """Grid of a tile as its provenance holds it."""
    grid = entry["grid"]
    return Grid(grid["crs"], tuple(grid["transform"]), tuple(grid["shape"]))
