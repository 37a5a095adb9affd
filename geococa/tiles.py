"""Tiles in, maps out: `open_tile` and `find_tiles` read archives, `read_raster` and `write_cog` single rasters."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import optional_import
from geococa.cogs import read_raster, write_cog
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.layouts import (
    UNKNOWN_SENSOR,
    BandFile,
    SceneRef,
    TileRef,
    tile_of,
)
from geococa.network import allow_net as permitted
from geococa.network import is_address
from geococa.scene_grids import PlacedBand, place_scenes
from geococa.sensors import QUALITIES, Sensor, get_sensor, quality_attributes
from geococa.tile_search import search_tiles

__all__ = ["SceneRef", "TileRef", "find_tiles", "open_tile", "read_raster", "write_cog"]

LAZY_BLOCK = 1024
"""Side of a lazy block in cells where ``chunks`` does not say it."""


def find_tiles(
    archive: str | os.PathLike[str],
    *,
    pattern: str | None = None,
    sensor: str | Sensor | None = None,
    allow_net: Iterable[str] = (),
) -> list[TileRef]:
    """Find the tiles of an archive, reading headers and metadata only.

    Parameters
    ----------
    archive : path
        Folder of tile folders, with scenes as STAC items, Sentinel-2 SAFE folders, Landsat bundles (folders or tar files),
        or rasters with dates in their names; of Landsat tar files; or of Zarr stores. A STAC catalog, collection, item
        collection or GeoParquet table of items, or a folder with a ``catalog.json``, ``collection.json``, ``items.json`` or
        ``items.parquet`` at its top: then tiles are MGRS squares or Landsat paths and rows. A folder that is itself one
        tile (its children are scenes), or a single raster, is found as such. Folders without a scene are passed over.
    pattern : str, optional
        Shell-style pattern of tile ids, such as ``"18N*"``.
    sensor : str or Sensor, optional
        Needed only where no metadata say it.
    allow_net : iterable of str
        Hosts from which the files of STAC items may be read; none by default, and then nothing is looked up anywhere.

    Returns
    -------
    list of TileRef
        In order of their ids.

    Raises
    ------
    InputRefused
        No tile is found, or a scene of one is unusable.

    Examples
    --------
    >>> [(tile.tile, len(tile.scenes)) for tile in find_tiles("sample_tiles")]
    [('18NXG', 28), ('19NBB', 28)]
    """
    known = None if sensor is None else get_sensor(sensor)
    if is_address(os.fspath(archive)):
        raise InputRefused(
            f"{os.fspath(archive)[:120]!r} is no folder; search a catalog elsewhere with geococa.search_stac"
        )
    with permitted(allow_net):
        tiles, refused = search_tiles(Path(archive), pattern=pattern, sensor=known)
    if refused:
        raise next(iter(refused.values()))
    if not tiles:
        wanted = f" of a tile named like {pattern!r}" if pattern else ""
        raise InputRefused(
            f"{archive}: no scene{wanted} found; expected ARCHIVE/TILE/SCENE with a STAC item.json, a SAFE folder, a Landsat "
            "bundle (folder or tar), or rasters with a date in their names; a STAC catalog or table; or Zarr stores"
        )
    return tiles


def open_tile(
    path: str | os.PathLike[str] | TileRef,
    sensor: str | Sensor | None = None,
    *,
    bands: Iterable[str] | None = None,
    window: Sequence[int] | None = None,
    years: Iterable[int] | None = None,
    chunks: Mapping[str, int] | None = None,
    date: str | datetime | None = None,
    grid: Grid | None = None,
) -> xr.Dataset:
    """Open the scenes of a tile: digital numbers and quality bands on one grid.

    Bands of 20 or 60 m are brought to the finest grid of the bands asked for by repeating cells, so no
    value is invented. Scale and offset come from each product's own metadata and travel as coordinates.

    Parameters
    ----------
    path : path or TileRef
        Tile folder, one scene folder, one multi-band GeoTIFF, or a tile from `find_tiles` (whose headers need
        not be read again).
    sensor : str or Sensor, optional
        Expected sensor; needed only where no metadata say it. A tile of another sensor is refused.
    bands : iterable of str, optional
        Common names (``"red"``) or native ones (``"B04"``). All reflectance bands where not given. ``nir`` is
        served by ``nir08`` and the reverse where a sensor has only the other. Quality bands always come along.
    window : sequence of 4 int, optional
        ``(row_start, row_stop, column_start, column_stop)`` on the grid that the call returns without it; for a
        `TileRef` that is ``tile.grid``.
    years : iterable of int, optional
        Calendar years (UTC) to keep.
    chunks : mapping of str to int, optional
        None reads now, into numpy. A mapping gives Dask arrays with one task a scene, band and block;
        ``{}`` chooses the block, ``{"y": 512, "x": 512}`` sets it.
    date : str or datetime.datetime, optional
        Sensing time of a single raster that does not say it.
    grid : Grid, optional
        Grid to open the scenes on, with their CRS, lattice and cells (or cells that theirs are a whole number of). Where
        not given, scenes whose extents differ, as those of a Landsat path and row do, open on the smallest grid that holds
        all. They are moved by whole cells, never resampled; where a scene does not reach, it has no data.

    Returns
    -------
    xarray.Dataset
        ``kind="scenes"``: one integer variable a band, dims ``(time, y, x)``, and the quality bands ``scl``,
        ``qa_pixel``, ``qa_radsat`` where the product has them. Coordinates: ``x``, ``y``, ``spatial_ref``,
        ``band``, ``scale`` and ``offset`` ``(time, band)`` with ``reflectance = DN * scale + offset`` (NaN =
        not known), ``scene`` and ``processing_baseline`` ``(time)``. Each variable has ``nodata`` in its
        attributes where the metadata know one.

    Raises
    ------
    InputRefused
        A file is missing or damaged; a band is not in every scene; no scene in ``years``; a band that
        does not reach over the whole grid has no value for missing data.
    GridMismatch, CRSMismatch
        Bands or scenes have another CRS or lattice, or scenes hardly overlap.

    Examples
    --------
    >>> scenes = open_tile("sample_tiles/18NXG", bands=["red", "nir"])  # doctest: +SKIP
    >>> scenes.red.dims  # doctest: +SKIP
    ('time', 'y', 'x')
    """
    tile, own_grid = _resolve(path, sensor, date)
    scenes = _in_years(tile, years)
    names = _band_names(tile, scenes, bands)
    quality = sorted({name for scene in scenes for name in scene.quality})
    files = {name: [_file_of(scene, name) for scene in scenes] for name in (*names, *quality)}
    whole, places = place_scenes(scenes, files, own_grid if grid is None else grid, tile.path)
    box = _checked_window(window, whole)
    read = _lazily if chunks is not None else _now
    variables = {name: read(_Stack(name, tuple(members), box), chunks) for name, members in places.items()}
    return _dataset(tile, scenes, names, variables, files, whole.window(*box))


def _resolve(
    path: str | os.PathLike[str] | TileRef, sensor: str | Sensor | None, date: str | datetime | None
) -> tuple[TileRef, Grid | None]:
    """Tile, and its grid where the caller counts rows and columns on it."""
    if isinstance(path, TileRef):
        if sensor is None or path.sensor == get_sensor(sensor).name:
            return path, path.grid
        if path.sensor != UNKNOWN_SENSOR:
            raise InputRefused(f"{path.path}: is {path.sensor}, but sensor={get_sensor(sensor).name!r} was asked for")
        tile = tile_of(path.path, sensor, date=date)
        return tile, tile.grid
    return tile_of(path, sensor, date=date), None


def _in_years(tile: TileRef, years: Iterable[int] | None) -> tuple[SceneRef, ...]:
    if years is None:
        return tile.scenes
    wanted = {int(year) for year in years}
    scenes = tuple(scene for scene in tile.scenes if scene.datetime.year in wanted)
    if not scenes:
        raise InputRefused(
            f"{tile.path}: no scene in {sorted(wanted)}; there are scenes in {', '.join(map(str, tile.years))}"
        )
    return scenes


def _band_names(tile: TileRef, scenes: tuple[SceneRef, ...], bands: Iterable[str] | None) -> list[str]:
    if bands is None:
        return list(dict.fromkeys(name for scene in scenes for name in scene.default))
    asked = [bands] if isinstance(bands, str) else list(bands)
    known = {} if tile.sensor == UNKNOWN_SENSOR or "," in tile.sensor else _native_names(tile.sensor)
    names = [name if name in tile.bands else known.get(name.lower(), name) for name in asked]
    chosen = [name for name in dict.fromkeys(names) if name not in QUALITIES]
    if not chosen:
        raise InputRefused(f"bands={asked} names no band; {tile.path} has {', '.join(tile.bands)}")
    return chosen


def _native_names(sensor: str) -> dict[str, str]:
    try:
        known = get_sensor(sensor)
    except InputRefused:
        return {}  # described by a sensor.toml: common names only
    return {band.native.lower(): band.name for band in known.bands}


def _file_of(scene: SceneRef, name: str) -> BandFile:
    file = scene.files.get(name) if name in QUALITIES else scene.band_file(name)
    if file is None:
        raise InputRefused(
            f"{scene.path}: scene {scene.id} of {scene.datetime:%Y-%m-%d} has no band {name}; it has "
            f"{', '.join(scene.files)}; fetch the band, leave the scene out, or name bands= that every scene has"
        )
    return file


def _checked_window(window: Sequence[int] | None, grid: Grid) -> tuple[int, int, int, int]:
    rows, columns = grid.shape
    if window is None:
        return 0, rows, 0, columns
    r0, r1, c0, c1 = (int(value) for value in window)
    if not (0 <= r0 < r1 <= rows and 0 <= c0 < c1 <= columns):
        raise InputRefused(
            f"window {(r0, r1, c0, c1)} does not lie in the tile of {rows} rows and {columns} columns; "
            "expected (row_start, row_stop, column_start, column_stop)"
        )
    return r0, r1, c0, c1


@dataclass(frozen=True)
class _Stack:
    """One band of all scenes within a window, read on demand."""

    name: str
    places: tuple[PlacedBand, ...]
    box: tuple[int, int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        r0, r1, c0, c1 = self.box
        return len(self.places), r1 - r0, c1 - c0

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*{place.file.dtype for place in self.places})


def _now(stack: _Stack, _chunks: Mapping[str, int] | None) -> np.ndarray:
    out = np.empty(stack.shape, stack.dtype)
    for plane, place in zip(out, stack.places, strict=True):
        plane[:] = place.read(stack.box)
    return out


@dataclass(frozen=True)
class _LazyScene:
    """A band of a scene as Dask slices it: small, with paths and numbers only, opened anew for each block."""

    place: PlacedBand
    box: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    ndim: int = 2

    @property
    def shape(self) -> tuple[int, int]:
        r0, r1, c0, c1 = self.box
        return r1 - r0, c1 - c0

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        (r0, r1, _), (c0, c1, _) = (part.indices(size) for part, size in zip(key, self.shape, strict=True))
        top, left = self.box[0], self.box[2]
        window = (top + r0, top + r1, left + c0, left + c1)
        block = self.place.read(window)
        return block.astype(self.dtype, copy=False)


def _lazily(stack: _Stack, chunks: Mapping[str, int] | None) -> Any:
    da = optional_import("dask.array", "dask")
    sizes = dict(chunks or {})
    unknown = sorted(set(sizes) - {"time", "y", "x"})
    if unknown:
        raise InputRefused(f"chunks name {', '.join(unknown)}; scenes have the dims time, y and x")
    block = tuple(sizes.get(dim, LAZY_BLOCK) for dim in ("y", "x"))
    planes = []
    for place in stack.places:
        file = place.file
        source = _LazyScene(place, stack.box, stack.dtype)
        status = None if file.source is None else file.source.stat()
        state = () if status is None else (status.st_mtime_ns, status.st_size)
        name = f"read-{stack.name}-{_token(source, *state)}"
        planes.append(
            da.from_array(source, chunks=block, name=name, lock=False, asarray=False, inline_array=True,
                          meta=np.empty((0, 0), stack.dtype))
        )  # fmt: skip
    out = da.stack(planes, axis=0)
    return out if "time" not in sizes else out.rechunk({0: sizes["time"]})


def _token(*values: object) -> str:
    from hashlib import sha256

    return sha256(repr(values).encode()).hexdigest()[:16]


def _dataset(
    tile: TileRef,
    scenes: tuple[SceneRef, ...],
    names: list[str],
    variables: Mapping[str, Any],
    files: Mapping[str, list[BandFile]],
    grid: Grid,
) -> xr.Dataset:
    times = np.array([scene.datetime.replace(tzinfo=None) for scene in scenes], "datetime64[ns]")
    scale = [[scene.coefficient(name, scene.scale) for name in names] for scene in scenes]
    offset = [[scene.coefficient(name, scene.offset) for name in names] for scene in scenes]
    out = xr.Dataset(
        {
            name: (("time", "y", "x"), data, _attributes(tile, name, files[name]), {"grid_mapping": "spatial_ref"})
            for name, data in variables.items()
        },
        coords={
            "time": times,
            "band": np.array(names, dtype=str),
            "scale": (("time", "band"), np.array(scale, np.float64)),
            "offset": (("time", "band"), np.array(offset, np.float64)),
            "scene": ("time", np.array([scene.id for scene in scenes], dtype=str)),
            "processing_baseline": ("time", np.array([scene.baseline for scene in scenes], dtype=str)),
            **grid.coordinates(),
        },
        attrs={"kind": "scenes", "sensor": tile.sensor, "tile": tile.tile},
    )
    problems = [scene.problem for scene in scenes if scene.problem]
    if problems:
        out.attrs["scaling_problems"] = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
    return out


def _attributes(tile: TileRef, name: str, files: list[BandFile]) -> dict[str, Any]:
    """CF attributes of a band or quality variable."""
    attrs: dict[str, Any] = {"units": "1", "long_name": f"digital number of {name}"}
    if name in QUALITIES:
        own = next((scene.own_quality for scene in tile.scenes if scene.own_quality is not None), None)
        quality = own if own is not None and name == own.name else QUALITIES[name]
        key = "flag_masks" if quality.bits else "flag_values"
        values = [1 << value if quality.bits else value for value in quality.flags.values()]
        dtype = np.uint16 if quality.bits else np.uint8
        attrs = {"units": "1", "long_name": f"quality band {quality.native}", key: np.array(values, dtype)}
        attrs |= {"flag_meanings": " ".join(quality.flags), **quality_attributes(quality)}
    declared = {file.nodata for file in files if file.nodata is not None and not np.isnan(file.nodata)}
    if len(declared) > 1:
        raise InputRefused(
            f"{tile.path}: band {name} has the no-data values {sorted(declared)} in different scenes; expected one"
        )
    if declared and name not in QUALITIES:
        value = declared.pop()
        attrs["nodata"] = int(value) if float(value).is_integer() else value
    for key, bounds in (("valid_min", [f.valid[0] for f in files]), ("valid_max", [f.valid[1] for f in files])):
        if bounds[0] is not None and len(set(bounds)) == 1:
            attrs[key] = bounds[0]
    return attrs
