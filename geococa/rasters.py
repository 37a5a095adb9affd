"""Safe reading of raster files: the driver named by magic bytes, no side files, headers checked before pixels.

Every open is for one call and one thread. What GDAL would do on its own (look for side files, follow a VRT to
other files or hosts, allocate what a header promises) is switched off or refused first.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
from affine import Affine

from geococa.errors import CRSMismatch, GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.zarr_stores import ZARR, read_zarr_window

__all__ = [
    "GDAL_OPTIONS", "Header", "hide_masked", "mask_fill", "raster_file", "read_header", "read_member_header",
    "read_remote_header", "read_window",
]  # fmt: skip

MAX_CELLS = 2**35
"""Most cells a band may have: 185,000 x 185,000, Colombia at 10 m in one raster."""
MAX_BANDS = 4096
MAX_BLOCK_BYTES = 512 * 2**20
"""Most bytes that reading one stored block may need."""
MAX_RATIO = 20_000
"""Most bytes of pixels for each byte of file, for rasters above `_SMALL`; a constant DEFLATE raster has 1,000."""
_SMALL = 64 * 2**20

GDAL_OPTIONS: dict[str, Any] = {
    # 5 % of the memory by default: slower, and it grows with the machine
    "GDAL_CACHEMAX": 64,
    # a side file (.aux.xml, .ovr, .msk, .tfw) can change CRS, no-data value and pixels of a raster
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
}

_MAGIC = (
    (b"II*\0", "GTiff"),
    (b"MM\0*", "GTiff"),
    (b"II+\0", "GTiff"),
    (b"MM\0+", "GTiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
)


@dataclass(frozen=True)
class Header:
    """What a raster's header says, read without touching a pixel.

    Attributes
    ----------
    path : str
        Absolute path.
    driver : str
        GDAL driver.
    shape : tuple of int
        ``(rows, columns)``.
    transform : tuple of float
        Affine coefficients a-f, as rasterio has them.
    crs_wkt : str
        Coordinate reference system.
    dtypes, nodata, descriptions, scales, offsets : tuple
        One entry a band; None where the file does not say.
    block : tuple of int
        Rows and columns of a stored block.
    tags : dict of str to str
        Dataset tags.
    masked : bool
        Whether the file holds a mask of its own, beside values and no-data value.
    """

    path: str
    driver: str
    shape: tuple[int, int]
    transform: tuple[float, ...]
    crs_wkt: str
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    descriptions: tuple[str | None, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    block: tuple[int, int]
    tags: dict[str, str]
    masked: bool = False

    @property
    def count(self) -> int:
        """Number of bands."""
        return len(self.dtypes)

    @property
    def grid(self) -> Grid:
        """Grid of the raster."""
        return Grid(crs_of(self.crs_wkt), Affine(*self.transform), self.shape)


@lru_cache(maxsize=256)
def crs_of(wkt: str) -> pyproj.CRS:
    """CRS from WKT; by its EPSG code where it has one without doubt, so that names agree between files."""
    crs = pyproj.CRS.from_wkt(wkt)
    code = crs.to_epsg(min_confidence=100)
    return pyproj.CRS.from_epsg(code) if code else crs


def raster_file(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the absolute path and GDAL driver of a raster file.

    Parameters
    ----------
    path : path
        A regular file. URLs, ``/vsi...`` paths, inline XML and GDAL's other names for things that are not files
        are refused, and so is a file that is neither TIFF nor JPEG 2000 whatever its name says.

    Raises
    ------
    InputRefused
        Not such a file.
    """
    text = os.fspath(path)
    if not text or text.lstrip().startswith("<") or "://" in text or "\0" in text or text.startswith("/vsi"):
        raise InputRefused(
            f"{text[:80]!r} is not the path of a file; geococa reads GeoTIFF and JPEG 2000 files on disk"
        )
    file = Path(text)
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputRefused(f"{file}: not a regular file; geococa reads GeoTIFF and JPEG 2000 files on disk")
        with file.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise InputRefused(
            f"{file}: can't be read ({error.strerror or error}); check the path and its rights"
        ) from error
    return str(file.resolve()), _driver_of(start, str(file))


def _driver_of(start: bytes, name: str) -> str:
    for magic, driver in _MAGIC:
        if start.startswith(magic):
            return driver
    raise InputRefused(
        f"{name}: starts with {start[:8]!r}, so it is neither TIFF nor JPEG 2000; convert it with "
        "gdal_translate -of GTiff, also where it is a VRT"
    )


@contextmanager
def _opened(path: str, driver: str) -> Iterator[Any]:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.Env(**GDAL_OPTIONS), rasterio.open(path, driver=driver) as dataset:
            yield dataset
    except (RasterioError, rasterio.errors.RasterioIOError, ValueError, OverflowError) as error:
        raise InputRefused(f"{path}: damaged or not readable as {driver} ({error}); fetch the file again") from error


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read a raster's header and refuse what can't be a map on the ground.

    Parameters
    ----------
    path : path
        GeoTIFF or JPEG 2000.

    Raises
    ------
    InputRefused
        Not a raster, damaged, or a header that promises more pixels than such a file can hold.
    CRSMismatch
        The raster has no coordinate reference system.
    GridMismatch
        The raster has no georeferencing.
    """
    name, driver = raster_file(path)
    return _header(name, driver, Path(name).stat().st_size)


def read_member_header(file: Path, offset: int, size: int) -> Header:
    """Read the header of a raster that lies within another file, such as an uncompressed tar file.

    Parameters
    ----------
    file : pathlib.Path
        The file.
    offset, size : int
        First byte of the raster in it, and its length.

    Raises
    ------
    InputRefused
        As `read_header`.
    """
    whole = file.resolve()
    with whole.open("rb") as stream:
        stream.seek(offset)
        start = stream.read(min(16, size))
    driver = _driver_of(start, f"{file} at byte {offset}")
    return _header(f"/vsisubfile/{offset}_{size},{whole}", driver, size)


def read_remote_header(path: str) -> Header:
    """Read the header of a raster on an allowed host (`geococa.network.remote_path` gives the path)."""
    return _header(path, "JP2OpenJPEG" if path.lower().endswith(".jp2") else "GTiff", None)


def _header(name: str, driver: str, size: int | None) -> Header:
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with _opened(name, driver) as dataset:
            _check_budget(name, dataset, size)
            if dataset.crs is None and dataset.gcps[0]:
                raise CRSMismatch(
                    f"{name}: is placed by {len(dataset.gcps[0])} ground control points and has no grid of its own; warp it "
                    "onto one first, with gdalwarp -r near for a classified map"
                )
            if dataset.crs is None:
                raise CRSMismatch(
                    f"{name}: has no coordinate reference system; set it with gdal_edit -a_srs, "
                    "if you know where the data come from"
                )
            if dataset.transform == Affine.identity():
                raise GridMismatch(f"{name}: is not georeferenced (no transform); set it with gdal_edit -a_ullr")
            header = Header(
                name,
                driver,
                dataset.shape,
                tuple(dataset.transform)[:6],
                _wkt(dataset.crs, name),
                tuple(dataset.dtypes),
                tuple(dataset.nodatavals),
                tuple(dataset.descriptions),
                tuple(dataset.scales),
                tuple(dataset.offsets),
                tuple(dataset.block_shapes[0]),
                dataset.tags(),
                [flag.name for flag in dataset.mask_flag_enums[0]] == ["per_dataset"],
            )
    unfit = [dtype for dtype in header.dtypes if np.dtype(dtype).kind not in "uif"]
    if unfit:
        raise InputRefused(f"{name}: pixels are {unfit[0]}; expected integers or real numbers")
    try:
        _ = header.grid
    except pyproj.exceptions.CRSError as error:
        raise CRSMismatch(f"{name}: its coordinate reference system can't be read ({error})") from error
    return header


def _wkt(crs: Any, name: str) -> str:
    from rasterio.errors import CRSError

    try:
        return str(crs.to_wkt(version="WKT2_2019"))
    except CRSError as error:
        raise CRSMismatch(f"{name}: its coordinate reference system can't be read ({error})") from error


def _check_budget(name: str, dataset: Any, size: int | None) -> None:
    rows, columns = dataset.shape
    depth = max((np.dtype(dtype).itemsize for dtype in dataset.dtypes), default=0)
    total = rows * columns * depth * dataset.count
    block = max((h * w for h, w in dataset.block_shapes), default=0) * depth
    interleaved = str(dataset.interleaving).lower().endswith("pixel") if dataset.interleaving else False
    block *= dataset.count if interleaved else 1
    if dataset.count == 0 or rows * columns > MAX_CELLS or dataset.count > MAX_BANDS or block > MAX_BLOCK_BYTES:
        raise InputRefused(
            f"{name}: the header promises {rows} x {columns} cells in {dataset.count} bands ({block} bytes a block); "
            f"expected at most {MAX_CELLS} cells, {MAX_BANDS} bands, {MAX_BLOCK_BYTES} bytes a block"
        )
    if size is not None and total > _SMALL and total > MAX_RATIO * size:
        raise InputRefused(
            f"{name}: the header promises {total} bytes of pixels in a file of {size} bytes, more than any honest "
            "compression; the file is damaged or hostile"
        )


def mask_fill(dtype: Any) -> float:
    """Value that stands for cells hidden by a file's own mask: NaN, the largest unsigned or the least signed number."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float("nan")
    return float(np.iinfo(kind).max if kind.kind == "u" else np.iinfo(kind).min)


def hide_masked(path: str, driver: str, data: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """Put `mask_fill` into the cells of a window, dims (..., rows, columns), that the file's own mask hides.

    Raises
    ------
    InputRefused
        A cell that is not hidden holds that value.
    """
    from rasterio.windows import Window

    r0, r1, c0, c1 = window
    with _opened(path, driver) as dataset:
        seen = dataset.dataset_mask(window=Window(c0, r0, c1 - c0, r1 - r0)) > 0
    fill = mask_fill(data.dtype)
    if (data[..., seen] == fill).any():
        raise InputRefused(
            f"{path}: has a mask of its own, and holds {fill:g} where that hides nothing, so that no value is left for what it "
            "hides; write a no-data value instead, with gdalwarp -dstnodata"
        )
    return np.where(seen, data, np.array(fill).astype(data.dtype))


def read_window(
    path: str, driver: str, band: int | tuple[int, ...], window: tuple[int, int, int, int], *, factor: int = 1
) -> np.ndarray:
    """Read part of a raster, each cell repeated ``factor`` times along both axes.

    Parameters
    ----------
    path, driver : str
        From `raster_file` or a `Header`.
    band : int or tuple of int
        Band number counted from 1; a tuple gives a leading band axis.
    window : tuple of int
        ``(row_start, row_stop, column_start, column_stop)`` on the grid *after* repetition.
    factor : int
        Cells of the wanted grid along one side of a stored cell. Values are repeated, never interpolated.

    Returns
    -------
    numpy.ndarray
        ``([band,] rows, columns)`` in the file's dtype.

    Raises
    ------
    InputRefused
        The file can't be read, for example because it is cut off.
    """
    from rasterio.windows import Window

    r0, r1, c0, c1 = window
    top, left = r0 // factor, c0 // factor
    rows, columns = -(-r1 // factor) - top, -(-c1 // factor) - left
    if driver == ZARR:
        assert isinstance(band, int)
        data = read_zarr_window(path, band, (top, top + rows, left, left + columns))
    else:
        with _opened(path, driver) as dataset:
            data = dataset.read(band, window=Window(left, top, columns, rows))
    if data.shape[-2:] != (rows, columns):
        raise InputRefused(f"{path}: gave {data.shape[-2:]} cells where {(rows, columns)} were expected")
    if factor == 1:
        return data
    data = data.repeat(factor, axis=-2).repeat(factor, axis=-1)
    row, column = r0 - top * factor, c0 - left * factor
    return np.ascontiguousarray(data[..., row : row + r1 - r0, column : column + c1 - c0])
