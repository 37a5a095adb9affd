"""Which tiles an archive holds, whatever way it is laid out: folders, tar files, STAC catalogs and tables, Zarr stores."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyproj

from geococa.duplicates import newest_products
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.layouts import is_product, keep_finest, known_name, scene_from, tile_grid, tile_in, tile_of
from geococa.network import is_address, remote_path
from geococa.rasters import read_header, read_remote_header
from geococa.scene_refs import UNKNOWN_SENSOR, BandFile, SceneRef, TileRef
from geococa.sensors import COMMON_NAMES, QUALITIES, Sensor, get_sensor
from geococa.stac_catalogs import ItemSource, catalog_in, items_in, resolve_href
from geococa.stac_items import stac_metadata
from geococa.tar_bundles import is_tar
from geococa.zarr_stores import ZARR, ZarrArray, is_store, values_of, zarr_arrays

__all__ = ["search_tiles"]

_STAC = {".json", ".parquet", ".geoparquet"}
_IDS = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


def search_tiles(
    archive: Path, *, pattern: str | None = None, sensor: Sensor | None = None
) -> tuple[list[TileRef], dict[str, InputRefused]]:
    """Find the tiles of an archive, and those that can't be used.

    Parameters
    ----------
    archive : pathlib.Path
        A folder of tile folders, tar files or Zarr stores, or with a STAC catalog at its top; a STAC document or a table of
        items; one tile; one raster.
    pattern : str, optional
        Shell-style pattern of tile ids.
    sensor : Sensor, optional
        Needed only where no metadata say it.

    Returns
    -------
    tiles : list of TileRef
        In order of their ids.
    refused : dict
        Error by tile id, or by item id where an item does not even tell its tile.
    """
    if is_address(str(archive)):
        raise InputRefused(
            f"{str(archive)[:120]!r} is no folder; search a catalog elsewhere with 'geococa find', which saves its items in a "
            "file to run from"
        )
    if archive.is_file():
        if archive.suffix.lower() in _STAC:
            return _sorted(*_stac_tiles(archive, pattern, sensor))
        return [tile_of(archive, sensor)], {}
    if not archive.is_dir():
        raise InputRefused(f"{archive}: is not a folder; give the folder that holds the tiles")
    catalog = catalog_in(archive)
    if catalog is not None:
        return _sorted(*_stac_tiles(catalog, pattern, sensor))
    if is_store(archive):
        return [_zarr_tile(archive, sensor)], {}
    return _sorted(*_folder_tiles(archive, pattern, sensor))


def _sorted(tiles: list[TileRef], refused: dict[str, InputRefused]) -> tuple[list[TileRef], dict[str, InputRefused]]:
    return sorted(tiles, key=lambda tile: tile.tile), dict(sorted(refused.items()))


def _matches(name: str, pattern: str | None) -> bool:
    return pattern is None or fnmatch.fnmatchcase(name, pattern)


# --- folders -----------------------------------------------------------------------------------------


def _folder_tiles(
    root: Path, pattern: str | None, sensor: Sensor | None
) -> tuple[list[TileRef], dict[str, InputRefused]]:
    tiles: list[TileRef] = []
    refused: dict[str, InputRefused] = {}

    def attempt(name: str, make: Callable[[], TileRef | None]) -> None:
        try:
            tile = make()
        except InputRefused as error:
            refused[name] = error
        else:
            if tile is not None:
                tiles.append(tile)

    children = [child for child in sorted(root.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    for child in children:
        store = is_store(child)
        name = child.name.removesuffix(".zarr") if store else child.name
        # a product folder among the children means that the archive is itself one tile
        if not _matches(name, pattern) or (not store and is_product(child)):
            continue
        attempt(name, partial(_zarr_tile if store else tile_in, child, sensor))
    for name, files in _tar_groups(root).items():
        if _matches(name, pattern):
            attempt(name, partial(_tar_tile, name, root, files, sensor))
    for name, folders in _product_groups(children).items():
        if _matches(name, pattern):
            attempt(name, partial(_tar_tile, name, root, folders, sensor))
    if not tiles and not refused and pattern is None and (tile := tile_in(root, sensor)) is not None:
        tiles = [tile]
    return tiles, refused


def _tar_groups(root: Path) -> dict[str, list[Path]]:
    """Landsat tar files at the top of an archive by path and row, so that scenes of one place make one tile."""
    groups: dict[str, list[Path]] = {}
    for file in sorted(root.iterdir()):
        found = re.match(r"L[A-Z]\d\d_L\w{3}_(\d{6})_\d{8}", file.name)
        if file.is_file() and is_tar(file) and found:
            groups.setdefault(found[1], []).append(file)
    return groups


def _product_groups(children: Iterable[Path]) -> dict[str, list[Path]]:
    """Product folders at the top of an archive by MGRS square or path and row, as a download leaves them; none for one place."""
    groups: dict[str, list[Path]] = {}
    for child in children:
        square = re.search(r"_T(\d\d[C-HJ-NP-X][A-HJ-NP-Z]{2})_", child.name)
        found = square or re.match(r"L[A-Z]\d\d_L\w{3}_(\d{6})_\d{8}", child.name)
        if found and is_product(child):
            groups.setdefault(found[1], []).append(child)
    return groups if len(groups) > 1 else {}


def _tar_tile(name: str, root: Path, files: Iterable[Path], sensor: Sensor | None) -> TileRef:
    scenes = [scene for file in files for scene in tile_of(file, sensor).scenes]
    return _tile(name, root, scenes)


def _tile(name: str, place: Path, scenes: Iterable[SceneRef]) -> TileRef:
    kept = newest_products(sorted(scenes, key=lambda scene: (scene.datetime, scene.id)))
    return TileRef(name, str(place), ", ".join(sorted({s.sensor for s in kept})), tile_grid(place, kept), kept)


# --- STAC --------------------------------------------------------------------------------------------


def _stac_tiles(
    path: Path, pattern: str | None, sensor: Sensor | None
) -> tuple[list[TileRef], dict[str, InputRefused]]:
    root = path.parent.resolve()
    groups: dict[str, list[SceneRef]] = {}
    refused: dict[str, InputRefused] = {}
    for item, place in items_in(path):
        name = _tile_id(item)
        try:
            if not _IDS.fullmatch(name):
                raise InputRefused(
                    f"{place}: item {str(item.get('id'))[:80]!r} names the tile {name[:80]!r}, which is no name"
                )
            if _matches(name, pattern):
                groups.setdefault(name, []).append(_stac_scene((item, place), root, sensor))
        except InputRefused as error:
            refused.setdefault(name if _IDS.fullmatch(name) else "unnamed", error)
    tiles = []
    for name, scenes in groups.items():
        if name in refused:
            continue  # a series with a scene left out unasked is another series
        try:
            tiles.append(_tile(name, root, scenes))
        except InputRefused as error:
            refused[name] = error
    return tiles, refused


def _tile_id(item: Mapping[str, Any]) -> str:
    """Tile of an item: MGRS square or WRS path and row from its properties or its product name, else its collection."""
    found = item.get("properties")
    properties: Mapping[str, Any] = found if isinstance(found, dict) else {}
    code = str(properties.get("grid:code", ""))
    if "-" in code:
        return code.split("-", 1)[1]
    if properties.get("s2:mgrs_tile"):
        return str(properties["s2:mgrs_tile"])
    square = [properties.get(f"mgrs:{part}") for part in ("utm_zone", "latitude_band", "grid_square")]
    if all(square):
        return f"{int(str(square[0])):02d}{square[1]}{square[2]}" if str(square[0]).isdigit() else "?"
    path, row = properties.get("landsat:wrs_path"), properties.get("landsat:wrs_row")
    if path and row:
        return f"{path}".zfill(3) + f"{row}".zfill(3)
    text = str(item.get("id", ""))
    for shape in (r"_T(\d{2}[A-Z]{3})(?=_|$)", r"^S2[A-D]_(\d{2}[A-Z]{3})_", r"^L[A-Z]\d\d_L\w{3}_(\d{6})_"):
        if named := re.search(shape, text):
            return named[1]
    return str(item.get("collection") or text or "unnamed")


def _stac_scene(source: ItemSource, root: Path, given: Sensor | None) -> SceneRef:
    item, place = source
    metadata, assets = stac_metadata(item, place)
    sensor = get_sensor(metadata.sensor).of_family(metadata.family)
    files: dict[str, BandFile] = {}
    for asset in assets:
        name = next((found for text in asset.names if (found := known_name(text, sensor))), None)
        where = _asset(asset.href, place, root) if name else None
        if name and where is not None:
            header = read_header(where) if isinstance(where, Path) else read_remote_header(where)
            keep_finest(files, name, header)
    scene = scene_from(metadata, Path(place) if "://" not in place else root, sensor, files, given)
    return replace(scene, path=place)


def _asset(href: str, place: str, root: Path) -> Path | str | None:
    """Where the file of an asset is: below the archive, beside its item, or on an allowed host; None where nowhere."""
    if is_address(href) and not href.startswith("file:"):
        # a downloaded item still names the remote file; its copy lies beside the item
        copy = None if "://" in place else Path(place).parent / href.rsplit("/", 1)[-1].split("?", 1)[0]
        if copy is not None and copy.is_file() and copy.resolve().is_relative_to(root):
            return copy.resolve()
        return remote_path(href)
    where = resolve_href(href, place, root)
    if isinstance(where, Path):
        return where if where.is_file() else None
    return None if where is None else remote_path(where)


# --- Zarr --------------------------------------------------------------------------------------------


def _zarr_tile(store: Path, given: Sensor | None) -> TileRef:
    """Tile of a Zarr store as xarray writes it: variables by band with the dims (time, y, x), and their coordinates."""
    arrays = zarr_arrays(store)
    name = store.resolve().name.removesuffix(".zarr")
    if not _IDS.fullmatch(name):
        raise InputRefused(
            f"{store}: a tile's name must be of letters, digits, '_', '.', '-', at most 100; got {name!r}"
        )
    grid = _zarr_grid(store, arrays)
    times = _zarr_times(store, arrays)
    sensor = given or Sensor(UNKNOWN_SENSOR, ())
    bands: dict[str, ZarrArray] = {}
    for key, array in arrays.items():
        band = known_name(key, sensor) or (key if key in COMMON_NAMES or key in QUALITIES else None)
        if band is not None and array.dims[-2:] == ("y", "x") and len(array.dims) in (2, 3):
            bands[band] = array
    if not any(band not in QUALITIES for band in bands):
        raise InputRefused(
            f"{store}: no band by a common name such as red or nir with the dims (time, y, x); it has {sorted(arrays)}"
        )
    scenes = [_zarr_scene(store, name, step, moment, bands, grid, sensor) for step, moment in enumerate(times, start=1)]
    return _tile(name, store, scenes)


def _zarr_scene(
    store: Path, name: str, step: int, moment: datetime, bands: Mapping[str, ZarrArray], grid: Grid, sensor: Sensor
) -> SceneRef:
    files, scale, offset = {}, {}, {}
    for band, array in bands.items():
        if array.shape[-2:] != grid.shape:
            raise InputRefused(
                f"{array.path}: has {array.shape[-2:]} cells, the coordinates {grid.shape}; write the store again"
            )
        fill = array.attrs.get("_FillValue", array.attrs.get("nodata", sensor.fill))
        nodata = float(fill) if isinstance(fill, int | float) and band not in QUALITIES else None
        transform = tuple(grid.transform)[:6]
        files[band] = BandFile(array.path, ZARR, step, grid.shape, transform, grid.crs.to_wkt(), array.dtype, nodata)
        own = array.attrs.get("scale_factor"), array.attrs.get("add_offset")
        if band not in QUALITIES and (own[0] is not None or sensor.scale is not None):
            scale[band] = float(own[0] if own[0] is not None else sensor.scale or 1.0)
            offset[band] = float(own[1] if own[1] is not None else (sensor.offset or 0.0) if own[0] is None else 0.0)
    known = bool(scale)
    return SceneRef(
        f"{name}_{moment:%Y%m%dT%H%M%S}",
        moment,
        str(store),
        sensor.name,
        files,
        tuple(band for band in files if band not in QUALITIES),
        scale,
        offset,
        "",
        "" if known else f"{store}: does not say its scale and offset",
    )


def _zarr_grid(store: Path, arrays: Mapping[str, ZarrArray]) -> Grid:
    if not {"x", "y"} <= set(arrays):
        raise InputRefused(f"{store}: no coordinates x and y; write it from xarray with them")
    x, y = (values_of(arrays[name]).astype(np.float64) for name in ("x", "y"))
    if min(x.size, y.size) < 2:
        raise InputRefused(f"{store}: {x.size} columns and {y.size} rows; expected two or more of each")
    dx, dy = (x[-1] - x[0]) / (x.size - 1), (y[-1] - y[0]) / (y.size - 1)
    for values, step in ((x, dx), (y, dy)):
        if not np.allclose(np.diff(values), step, rtol=0, atol=1e-3 * abs(step)) or step == 0:
            raise InputRefused(f"{store}: the coordinates are not evenly spaced; bring the data onto one grid first")
    holders = [arrays[name] for name in ("spatial_ref", "crs") if name in arrays]
    wkt = next((str(a.attrs[k]) for a in holders for k in ("crs_wkt", "spatial_ref") if a.attrs.get(k)), None)
    if wkt is None:
        raise InputRefused(
            f"{store}: has no coordinate reference system; write spatial_ref with crs_wkt (rio.write_crs)"
        )
    try:
        crs = pyproj.CRS.from_user_input(wkt)
    except pyproj.exceptions.CRSError as error:
        raise InputRefused(f"{store}: its coordinate reference system can't be read ({error})") from error
    return Grid(crs, (dx, 0.0, x[0] - dx / 2, 0.0, dy, y[0] - dy / 2), (y.size, x.size))


def _zarr_times(store: Path, arrays: Mapping[str, ZarrArray]) -> list[datetime]:
    """Times of a store, from numbers with CF units, as xarray decodes them."""
    if "time" not in arrays:
        raise InputRefused(f"{store}: no coordinate time; write the store with the dates of its scenes")
    from xarray import Variable, conventions

    array = arrays["time"]
    attrs = {key: array.attrs[key] for key in ("units", "calendar") if key in array.attrs}
    try:
        decoded = conventions.decode_cf_variable("time", Variable(("time",), values_of(array), attrs))
        stamps = np.asarray(decoded.values).astype("datetime64[us]")
    except (ValueError, TypeError, OverflowError) as error:
        raise InputRefused(
            f"{store}: its times can't be read ({error}); expected CF units such as days since 2000-01-01"
        ) from error
    if stamps.ndim != 1 or np.isnat(stamps).any():
        raise InputRefused(f"{store}: its times have gaps; expected one date a step")
    return [stamp.replace(tzinfo=UTC) for stamp in stamps.tolist()]
