"""One picture a year of all tiles of a run: a VRT that points at the maps, and a COG of its own.

For looking and for maps in other tools. Hectares are never computed on it: they come from the tiles, with their own grids.
Classes stay classes: cells are taken as they are or by their nearest neighbour, overviews by the most frequent class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pyproj
import xarray as xr
from affine import Affine

from geococa._files import replace_file
from geococa.cog_streams import write_cog_rows
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA, Legend
from geococa.rasters import GDAL_OPTIONS, Header, crs_of, read_header, read_window
from geococa.run_folder import find_maps, read_manifest
from geococa.tiles import read_raster

__all__ = ["write_mosaics"]


def write_mosaics(folder: Path, *, crs: str | None = None, cog: bool = True) -> list[Path]:
    """Write a mosaic a year of a finished run into ``mosaic/``.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of a run.
    crs : str, optional
        Coordinate reference system of the COG; that of most tiles where not given. Its cells have the size of the finest
        tile in it, or of the finest of all, as they come out in the middle of the mosaic.
    cog : bool
        Whether to write the COGs; the VRTs take no room.

    Returns
    -------
    list of pathlib.Path
        ``land_cover_<year>.tif``, and for each coordinate reference system of the tiles ``land_cover_<year>_<crs>.vrt``.

    Raises
    ------
    InputRefused
        The folder is not that of a finished run, or its maps can't be read.

    Notes
    -----
    Where tiles overlap, the first by name that saw the place in that year is shown.
    """
    maps = find_maps(folder, read_manifest(folder))
    if not maps:
        raise InputRefused(f"{folder} has no maps; all tiles failed")
    target = folder / "mosaic"
    target.mkdir(exist_ok=True)
    written = []
    for year in sorted({year for files in maps.values() for year in files}):
        tiles = [read_header(files[year]) for _, files in sorted(maps.items()) if year in files]
        groups: dict[str, list[Header]] = {}
        for tile in tiles:
            groups.setdefault(tile.crs_wkt, []).append(tile)
        for members in groups.values():
            path = target / f"land_cover_{year}_{_crs_name(members[0])}.vrt"
            written.append(replace_file(path, _vrt(members).encode()))
        if cog:
            whole = _Mosaic.of(tiles, crs)
            like = _like(tiles[0], whole.grid, year)
            written.append(write_cog_rows(whole.read, like, target / f"land_cover_{year}.tif", sidecars=True))
    return written


def _crs_name(header: Header) -> str:
    code = crs_of(header.crs_wkt).to_authority()
    return "".join(code) if code else "local"


def _like(header: Header, grid: Grid, year: int) -> xr.DataArray:
    """Name, legend and grid of the mosaic; its values take no memory."""
    first = read_raster(header.path, window=(0, 1, 0, 1))
    attrs = {**first.attrs, "long_name": f"land cover {year}"}
    empty = np.broadcast_to(np.uint8(NO_DATA), grid.shape)
    return grid.attach(xr.DataArray(empty, dims=("y", "x"), name="land_cover", attrs=attrs))


# --- COG ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mosaic:
    """Rows of all tiles on one grid."""

    grid: Grid
    tiles: tuple[Header, ...]

    @classmethod
    def of(cls, tiles: Sequence[Header], crs: str | None) -> _Mosaic:
        counts: dict[str, int] = {}
        for tile in tiles:
            counts[tile.crs_wkt] = counts.get(tile.crs_wkt, 0) + 1
        common = pyproj.CRS.from_user_input(crs) if crs else crs_of(max(counts, key=lambda wkt: (counts[wkt], wkt)))
        own = [tile for tile in tiles if crs_of(tile.crs_wkt) == common and _north_up(tile)]
        cell, anchor = _lattice(own or tiles, common, bool(own))
        boxes = np.array([_bounds_in(tile, common) for tile in tiles])
        left, bottom = boxes[:, :2].min(axis=0)
        right, top = boxes[:, 2:].max(axis=0)
        # the lattice of the first tile in this system, so that its cells are taken as they are
        column = np.floor((left - anchor[0]) / cell + 1e-6)
        row = np.floor((anchor[1] - top) / cell + 1e-6)
        west, north = float(anchor[0] + column * cell), float(anchor[1] - row * cell)
        shape = int(np.ceil((north - bottom) / cell - 1e-6)), int(np.ceil((right - west) / cell - 1e-6))
        return cls(Grid(common, Affine(cell, 0, west, 0, -cell, north), shape), tuple(tiles))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows ``start`` to ``stop`` of the mosaic."""
        out = np.full((stop - start, self.grid.shape[1]), NO_DATA, np.uint8)
        for tile in self.tiles:  # the first that saw a place is shown
            found = _rows_of(tile, self.grid, start, stop)
            if found is None:
                continue
            left, values = found
            part = out[:, left : left + values.shape[1]]
            np.copyto(part, values, where=part == NO_DATA)
        return out


def _north_up(tile: Header) -> bool:
    a, b, _, d, e, _ = tile.transform
    return b == 0 and d == 0 and a > 0 and abs(a + e) <= 1e-9 * a


def _lattice(tiles: Sequence[Header], crs: pyproj.CRS, own: bool) -> tuple[float, tuple[float, float]]:
    """Size of a cell and the corner that cells count from."""
    if own:
        finest = min(tiles, key=lambda tile: tile.transform[0])
        return finest.transform[0], (finest.transform[2], finest.transform[5])
    sizes = []
    for tile in tiles:
        left, bottom, right, top = _bounds_in(tile, crs)
        sizes.append(np.sqrt((right - left) * (top - bottom) / (tile.shape[0] * tile.shape[1])))
    return float(min(sizes)), (0.0, 0.0)


def _bounds_in(tile: Header, crs: pyproj.CRS) -> tuple[float, float, float, float]:
    bounds = tile.grid.bounds
    own = crs_of(tile.crs_wkt)
    if own == crs:
        return bounds
    change = pyproj.Transformer.from_crs(own, crs, always_xy=True)
    left, bottom, right, top = change.transform_bounds(*bounds, densify_pts=51)
    return left, bottom, right, top


def _rows_of(tile: Header, grid: Grid, start: int, stop: int) -> tuple[int, np.ndarray] | None:
    """Part of a tile in some rows of a grid, and its first column there; None where it has none."""
    left, bottom, right, top = _bounds_in(tile, grid.crs)
    cell, west, north = grid.transform.a, grid.transform.c, grid.transform.f
    first = max(start, int(np.floor((north - top) / cell + 1e-6)))
    last = min(stop, int(np.ceil((north - bottom) / cell - 1e-6)))
    c0 = max(0, int(np.floor((left - west) / cell + 1e-6)))
    c1 = min(grid.shape[1], int(np.ceil((right - west) / cell - 1e-6)))
    if first >= last or c0 >= c1:
        return None
    values = np.full((stop - start, c1 - c0), NO_DATA, np.uint8)
    window = (first, last, c0, c1)
    values[first - start : last - start] = (
        _exact(tile, grid, window) if _shares(tile, grid) else _nearest(tile, grid, window)
    )
    return c0, values


def _shares(tile: Header, grid: Grid) -> bool:
    """Whether the cells of a tile are cells of the grid."""
    if not _north_up(tile) or crs_of(tile.crs_wkt) != grid.crs:
        return False
    cell = grid.transform.a
    shift = (tile.transform[2] - grid.transform.c) / cell, (grid.transform.f - tile.transform[5]) / cell
    return abs(tile.transform[0] - cell) < 1e-9 * cell and all(abs(value - round(value)) < 1e-4 for value in shift)


def _exact(tile: Header, grid: Grid, window: tuple[int, int, int, int]) -> np.ndarray:
    r0, r1, c0, c1 = window
    row = round((grid.transform.f - tile.transform[5]) / grid.transform.a)
    column = round((tile.transform[2] - grid.transform.c) / grid.transform.a)
    return read_window(tile.path, tile.driver, 1, (r0 - row, r1 - row, c0 - column, c1 - column))


def _nearest(tile: Header, grid: Grid, window: tuple[int, int, int, int]) -> np.ndarray:
    """Cells of a tile on another grid, each from the cell that its centre falls into."""
    import rasterio
    from rasterio.warp import Resampling, reproject

    part = grid.window(*window)
    out = np.full(part.shape, NO_DATA, np.uint8)
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(tile.path, driver=tile.driver) as source:
        reproject(
            rasterio.band(source, 1),
            out,
            dst_crs=rasterio.CRS.from_wkt(grid.crs.to_wkt()),
            dst_transform=part.transform,
            src_nodata=NO_DATA,
            dst_nodata=NO_DATA,
            init_dest_nodata=True,
            resampling=Resampling.nearest,
            tolerance=0.0,
            num_threads=1,
        )
    return out


# --- VRT ---------------------------------------------------------------------------------------------


def _vrt(tiles: Sequence[Header]) -> str:
    """GDAL's virtual raster of tiles in one coordinate reference system, with paths relative to itself."""
    cell = min(min(abs(tile.transform[0]), abs(tile.transform[4])) for tile in tiles)
    boxes = np.array([tile.grid.bounds for tile in tiles])
    left, top = float(boxes[:, 0].min()), float(boxes[:, 3].max())
    columns = round((boxes[:, 2].max() - left) / cell)
    rows = round((top - boxes[:, 1].min()) / cell)
    # GDAL draws sources one over the other, so that the first by name comes last
    sources = "".join(_source(tile, cell, left, top) for tile in reversed(tiles))
    legend = read_raster(tiles[0].path, window=(0, 1, 0, 1)).attrs
    return (
        f'<VRTDataset rasterXSize="{columns}" rasterYSize="{rows}">\n'
        f"  <SRS>{escape(tiles[0].crs_wkt)}</SRS>\n"
        f"  <GeoTransform>{left!r}, {cell!r}, 0.0, {top!r}, 0.0, {-cell!r}</GeoTransform>\n"
        '  <VRTRasterBand dataType="Byte" band="1">\n'
        f"    <NoDataValue>{NO_DATA}</NoDataValue>\n    <ColorInterp>Palette</ColorInterp>\n"
        f"{_colours(legend)}{sources}  </VRTRasterBand>\n</VRTDataset>\n"
    )


def _source(tile: Header, cell: float, left: float, top: float) -> str:
    rows, columns = tile.shape
    box = tile.grid.bounds
    place = (
        f'xOff="{round((box[0] - left) / cell, 6)}" yOff="{round((top - box[3]) / cell, 6)}" '
        f'xSize="{round((box[2] - box[0]) / cell, 6)}" ySize="{round((box[3] - box[1]) / cell, 6)}"'
    )
    name = escape(Path("..", "maps", Path(tile.path).name).as_posix())
    return (
        f'    <ComplexSource resampling="near">\n      <SourceFilename relativeToVRT="1">{name}</SourceFilename>\n'
        f"      <SourceBand>1</SourceBand>\n"
        f'      <SrcRect xOff="0" yOff="0" xSize="{columns}" ySize="{rows}"/>\n      <DstRect {place}/>\n'
        f"      <NODATA>{NO_DATA}</NODATA>\n    </ComplexSource>\n"
    )


def _colours(attrs: Mapping[str, Any]) -> str:
    legend = Legend.from_attrs(dict(attrs))
    colour = dict(zip(legend.codes, legend.colors, strict=True))
    entries = []
    for code in range(NO_DATA + 1):
        text = colour.get(code, "#000000")
        red, green, blue = (int(text[i : i + 2], 16) for i in (1, 3, 5))
        alpha = 0 if code == NO_DATA else 255
        entries.append(f'      <Entry c1="{red}" c2="{green}" c3="{blue}" c4="{alpha}"/>\n')
    return "    <ColorTable>\n" + "".join(entries) + "    </ColorTable>\n"
