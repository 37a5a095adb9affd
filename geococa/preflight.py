"""Before any work: look at an archive, propose a recipe for it, and check one against it."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from geococa._files import replace_file
from geococa.backscatter import open_backscatter
from geococa.errors import GeococaError, InputRefused
from geococa.features import bands_of
from geococa.ground import ground_inputs, ground_of
from geococa.models import read_model
from geococa.pipeline import halo_of
from geococa.recipe import Recipe
from geococa.samples import read_samples
from geococa.screening import check_tile_radiometry
from geococa.sensors import sensor_names
from geococa.tiles import TileRef, find_tiles
from geococa.zones import read_zones

__all__ = ["check_recipe", "propose_recipe"]

_TEMPLATE = """\
# Recipe for {archive}: {tiles} tiles ({ids}), {scenes} scenes, {first}-{last}.
# Paths are taken from this file's folder. Every setting is explained in docs/recipe.md; those left out keep their defaults.

[scenes]
{sensor}
years = [{first}, {last}]          # first and last year, both included

[clear_sky]
buffer_m = 60                    # clouds and shadows are widened by this, metres
haze = false                     # true: also mask thin haze and shadow that the quality band misses
min_clear_share = 0.0            # 0.05: leave out scenes with less clear ground, and list them with the reason

[reflectance]
radiometric_check = true         # refuse tiles whose numbers contradict their declared offsets
# harmonise = "landsat-8"        # for archives of Landsat and Sentinel-2: bring both to the bands of one sensor

[composite]
reducer = "{reducer}"             # one image a year: median, geomedian, mean, medoid, max_ndvi, bap, p25, ...
min_observations = {minimum}             # pixels with fewer clear dates in a year stay unobserved
# cutoff = "12-31"               # the day that the hectares are of; calendar years where not set
# window_days = 120              # dates so long before it count; the year up to it where not set
# fallback_days = 365            # where the window is too poor, earlier dates, at most so long before it
# after_days = 0                 # dates so long after the cut-off count as well
# half_life_days = 60            # dates so far from the cut-off count half

[features]
names = [{names}]
# season = ["ndvi"]              # course within the year: percentiles, amplitude, drops of harvests, recovery
# texture = ["nir"]              # local mean and spread; texture_statistics adds contrast, homogeneity, entropy
# terrain = ["elevation", "slope"]   # from the elevation model:
# dem = "dem.tif"
# distance = {{ rivers = "rivers.gpkg", roads = "roads.gpkg" }}

# [sar]                          # Sentinel-1 backscatter as calibrated GeoTIFFs; names may then hold vv and vh
# path = "sar"

[model]
{samples}
method = "random_forest"
seed = 7

[labels]
smooth_window = 5                # cells, odd; 1 = no smoothing
stabilise = {stabilise}                 # let the years inform each other
min_area_ha = 0.25               # minimum mapping unit

[zones]
{zones}

[areas]
class_name = "coca"
min_observed_share = 0.7         # park-years seen less than this are marked

[report]
title = "Coca in protected areas"
language = "en"                  # or "es"
"""

_WANTED = (
    "blue",
    "green",
    "red",
    "rededge071",
    "nir",
    "nir08",
    "swir16",
    "swir22",
    "ndvi",
    "ndmi",
    "nbr",
    "bsi",
)


def propose_recipe(
    archive: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    zones: str | os.PathLike[str] | None = None,
    samples: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Look at an archive and write a commented recipe that fits its sensor, bands and years.

    Parameters
    ----------
    archive : path
        Folder with tile folders.
    path : path
        Recipe file to write.
    zones, samples : path, optional
        Park polygons and reference samples to name in it; ``parks.gpkg`` and ``samples.gpkg`` in the archive where present.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputRefused
        The archive holds no tiles, or the file exists.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise InputRefused(f"{target} exists; choose another name, or replace it with --overwrite")
    tiles = find_tiles(archive)
    if not tiles:
        raise InputRefused(f"no tiles found in {archive}: expected tile folders with scenes")
    years = sorted({year for tile in tiles for year in tile.years})
    scenes = sum(len(tile.scenes) for tile in tiles)
    a_year = scenes / len(tiles) / len(years)
    bands = set.intersection(*(_served(tile) for tile in tiles))
    text = _TEMPLATE.format(
        archive=Path(archive).name,
        tiles=len(tiles),
        ids=", ".join(tile.tile for tile in tiles[:5]) + (", ..." if len(tiles) > 5 else ""),
        scenes=scenes,
        first=years[0],
        last=years[-1],
        sensor=_sensor_line(tiles),
        reducer="geomedian" if a_year >= 5 else "median",
        minimum=2 if a_year >= 6 else 1,
        names=", ".join(f'"{name}"' for name in _WANTED if bands_of([name]) <= bands),
        samples=_line("samples", samples, Path(archive) / "samples.gpkg", target.parent),
        stabilise="true" if len(years) > 1 else "false",
        zones=_line("path", zones, Path(archive) / "parks.gpkg", target.parent),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    return replace_file(target, text.encode())


def _sensor_line(tiles: list[TileRef]) -> str:
    """Name the sensor where there is one; what several sensors or none make up is recognised scene by scene."""
    sensors = sorted({scene.sensor for tile in tiles for scene in tile.scenes})
    if len(sensors) == 1 and sensors[0] in sensor_names():
        return f'sensor = "{sensors[0]}"'
    return f'# sensor = "..."               # found here: {", ".join(sensors)}; or a sensor.toml, see docs/sensors.md'


def _line(key: str, given: str | os.PathLike[str] | None, usual: Path, folder: Path) -> str:
    """Write a setting that names a file, or a comment that asks for it."""
    file = Path(given) if given is not None else usual
    if given is None and not file.is_file():
        return f'# {key} = "..."             # name the file here'
    return f'{key} = "{Path(os.path.relpath(file, folder)).as_posix()}"'


def check_recipe(archive: str | os.PathLike[str], recipe: str | os.PathLike[str]) -> pd.DataFrame:
    """Check a recipe against an archive before any work; of the pixels only a sample is read, for the offsets.

    Returns
    -------
    pandas.DataFrame
        ``what, found`` line by line.

    Raises
    ------
    GeococaError
        All that is wrong, in one message.
    """
    settings = Recipe.read(Path(recipe))
    tiles = find_tiles(archive, pattern=settings.scenes.pattern)
    if not tiles:
        raise InputRefused(f"no tiles found in {archive}: expected tile folders with scenes")
    faults: list[str] = []
    rows = [
        ("tiles", ", ".join(tile.tile for tile in tiles)),
        ("scenes", str(sum(len(tile.scenes) for tile in tiles))),
    ]
    years = sorted({year for tile in tiles for year in tile.years})
    rows.append(("years", f"{years[0]}-{years[-1]}"))
    wanted = settings.scenes.years
    if wanted and not set(range(wanted[0], wanted[1] + 1)) & set(years):
        faults.append(f"[scenes] years {wanted[0]}-{wanted[1]}: the archive has {years[0]}-{years[-1]}")
    lacking = _missing_bands(tiles, settings)
    faults += lacking
    if settings.reflectance.radiometric_check and not lacking:
        found, conflicts = _offsets(tiles, settings)
        rows.append(("offsets", found))
        faults += conflicts
    rows.append(("halo", f"{max(halo_of(settings, tile.grid) for tile in tiles)} cells around each block"))
    if settings.features.terrain or settings.features.distance:
        try:
            rows.append(("ground", _ground_line(tiles, settings)))
        except GeococaError as error:
            faults.append(f"[features] {error}")
    if settings.sar.path is not None:
        try:
            rows.append(("radar", _radar_line(tiles, settings)))
        except GeococaError as error:
            faults.append(f"[sar] {error}")
    for what, reader in (("zones", _zones_line), ("model", _model_line)):
        try:
            rows.append((what, reader(settings)))
        except GeococaError as error:
            faults.append(f"[{what}] {error}")
    if faults:
        raise InputRefused(f"{recipe} does not fit {archive}:\n  " + "\n  ".join(faults))
    return pd.DataFrame(rows, columns=["what", "found"])


def _ground_line(tiles: list[TileRef], settings: Recipe) -> str:
    """Terrain and distances, if their files serve every tile."""
    files = ground_inputs(settings)
    for tile in tiles:
        ground_of(settings, tile.grid)
    return f"{', '.join(files)} serve {len(tiles)} tiles"


def _radar_line(tiles: list[TileRef], settings: Recipe) -> str:
    """Radar scenes of every tile, and what their numbers are."""
    sar = settings.sar
    assert sar.path is not None
    found = [
        open_backscatter(sar.path, tile.grid, tile=tile.tile, units=sar.units, quantity=sar.quantity) for tile in tiles
    ]
    kinds = sorted({f"{entry.quantity}, {entry.units}" for entry in found})
    return f"{sum(len(entry.scenes) for entry in found)} scenes, {'; '.join(kinds)}"


def _offsets(tiles: list[TileRef], settings: Recipe) -> tuple[str, list[str]]:
    """How many scenes agree with their declared offsets, and the tiles whose scenes do not."""
    agreeing, seen, conflicts = 0, 0, []
    for tile in tiles:
        try:
            table = check_tile_radiometry(tile, settings)
        except InputRefused as error:
            conflicts.append(f"[reflectance] {error}")
            continue
        seen += len(table)
        agreeing += int((table["verdict"] == "agrees").sum()) if len(table) else 0
    return f"{agreeing} of {seen} scenes agree with their offsets, the others show too little clear ground", conflicts


def _missing_bands(tiles: list[TileRef], settings: Recipe) -> list[str]:
    needed = set(settings.bands_needed() or ())
    faults = []
    for tile in tiles:
        lacking = sorted(needed - _served(tile))
        if lacking:
            faults.append(f"[features] tile {tile.tile} lacks {', '.join(lacking)}; it has {', '.join(tile.bands)}")
    return faults


def _served(tile: TileRef) -> set[str]:
    """Bands that `geococa.open_tile` serves: ``nir`` and ``nir08`` stand in for each other."""
    bands = set(tile.bands)
    return bands | {"nir", "nir08"} if bands & {"nir", "nir08"} else bands


def _zones_line(settings: Recipe) -> str:
    if settings.zones.path is None:
        raise InputRefused("path is not set: name the park polygons")
    zones = read_zones(settings.zones.path, name=settings.zones.name, layer=settings.zones.layer)
    return f"{len(zones)} zones in {zones.crs.to_string()[:60]}"


def _model_line(settings: Recipe) -> str:
    choice = settings.model
    if choice.path is not None:
        model = read_model(choice.path)
        return f"{model.kind} with {len(model.features)} features and classes {', '.join(model.classes)}"
    if choice.samples is None:
        raise InputRefused("neither path nor samples is set: name a model file or reference samples")
    samples = read_samples(choice.samples, class_column=choice.class_column, year_column=choice.year_column)
    counts = samples["class"].value_counts()
    if settings.areas.class_name not in counts:
        raise InputRefused(
            f"the samples hold no {settings.areas.class_name!r}, only {', '.join(map(str, counts.index))}"
        )
    return f"{len(samples)} samples: " + ", ".join(f"{name} {count}" for name, count in counts.items())
