"""Cloud-optimised GeoTIFFs of maps that need not fit in memory, written from rows and read back against them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from geococa._files import replacing
from geococa.cogs import BLOCK, cog_options, raster_profile, write_names, write_tags
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.rasters import GDAL_OPTIONS, read_header, read_window

__all__ = ["write_cog_rows"]

Rows = Callable[[int, int], np.ndarray]


def write_cog_rows(
    read: Rows, like: xr.DataArray, path: Path, *, overviews: bool = True, sidecars: bool = False
) -> Path:
    """Write the raster that ``read`` gives, as `geococa.write_cog` writes one from memory and to the same pixels and tags.

    Parameters
    ----------
    read : callable
        ``read(start, stop)`` gives rows ``start`` to ``stop`` (without it) as ``(row, column)``, the same ones every time.
    like : xarray.DataArray
        ``(y, x)`` with the name, type, attributes and grid of the raster; its values are not looked at.
    path : pathlib.Path
        File to write; its folder must exist.
    overviews, sidecars : bool
        As in `geococa.write_cog`.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputRefused
        The written file does not read back as the rows.
    """
    rows, columns = like.shape
    grid = Grid.from_xarray(like)
    with replacing(path) as temporary:
        plain = temporary.with_name(f"{temporary.name}.plain")
        try:
            _write_plain(plain, read, like, grid)
            _copy(plain, temporary, like, overviews)
        finally:
            plain.unlink(missing_ok=True)
        header = read_header(temporary)
        if (header.count, *header.shape) != (1, rows, columns):
            raise InputRefused(f"{path}: was written as {header.count} x {header.shape}, expected {(1, rows, columns)}")
        for top in range(0, rows, BLOCK):
            stop = min(top + BLOCK, rows)
            back = read_window(header.path, header.driver, 1, (top, stop, 0, columns))
            if not np.array_equal(back, read(top, stop), equal_nan=like.dtype.kind == "f"):
                raise InputRefused(f"{path}: rows {top} to {stop} do not read back as written; is the disk full?")
    if sidecars:
        write_names(path, like)
    return path


def _write_plain(path: Path, read: Rows, like: xr.DataArray, grid: Grid) -> None:
    """Uncompressed GeoTIFF with everything that the final file is to carry."""
    import rasterio
    from rasterio.windows import Window

    rows, columns = like.shape
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(
        path, "w", driver="GTiff", bigtiff="IF_SAFER", blockysize=min(64, rows), **raster_profile(like, grid, like.dtype)
    ) as file:  # fmt: skip
        for top in range(0, rows, BLOCK):
            stop = min(top + BLOCK, rows)
            file.write(read(top, stop), 1, window=Window(0, top, columns, stop - top))
        write_tags(file, like)


def _copy(source: Path, target: Path, like: xr.DataArray, overviews: bool) -> None:
    import rasterio
    import rasterio.shutil
    from rasterio.errors import RasterioError

    with rasterio.Env(**GDAL_OPTIONS):
        try:
            rasterio.shutil.copy(source, target, driver="COG", **cog_options(like, overviews, like.dtype))
        except RasterioError as error:
            raise InputRefused(f"{target.parent}: can't be written ({error}); is the disk full?") from error
