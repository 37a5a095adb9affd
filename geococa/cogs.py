"""Single rasters: cloud-optimised GeoTIFFs written so that a crash leaves no half file, and read back as they were."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import optional_import
from geococa._files import replace_file, replacing
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA, Legend
from geococa.rasters import GDAL_OPTIONS, Header, hide_masked, mask_fill, read_header, read_window

__all__ = ["cog_options", "raster_profile", "read_raster", "write_cog", "write_names", "write_tags"]

BLOCK = 512
_PREFIX = "GEOCOCA_"
_KEPT = ("kind", "units", "long_name")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(T[\d:.]+)?")


def write_cog(
    array: xr.DataArray, path: str | os.PathLike[str], *, overviews: bool = True, sidecars: bool = False
) -> Path:
    """Write a raster as a cloud-optimised GeoTIFF.

    The file appears under its name only when it is whole: it is written beside it, read back and compared,
    flushed to disk and renamed. The same array gives the same bytes.

    Parameters
    ----------
    array : xarray.DataArray
        ``(y, x)`` or ``(band, y, x)`` (a leading ``time``, ``feature`` or ``land_cover`` dim will do), numpy- or
        Dask-backed. A land-cover map gets its colour table, class names in the tags, 255 as no-data and
        overviews by the most frequent class; other integers get nearest-neighbour overviews, floats averages
        with NaN as no-data.
    path : path
        File to write; its folder must exist. A file of that name is replaced, a symbolic link is not followed.
    overviews : bool
        Whether to add overviews (for looking; areas are never computed on them).
    sidecars : bool
        Whether to write ``path.aux.xml`` beside a land-cover map, from which GDAL and QGIS show class names.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputRefused
        The array has no grid, more than three dims, a dtype that GeoTIFF lacks, or the written file does not
        read back as the array.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=(2023, 2024), unobserved=0.0)
    >>> import pathlib, tempfile
    >>> path = coca.write_cog(land_cover.isel(time=0), pathlib.Path(tempfile.mkdtemp()) / "map.tif")
    >>> bool((coca.read_raster(path) == land_cover.isel(time=0)).all())
    True
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputRefused(f"{target.parent}: no such folder; make it before writing {target.name}")
    data, labels = _planes(array)
    grid = Grid.from_xarray(array)
    with replacing(target) as temporary:
        _write(temporary, data, labels, array, grid, overviews)
        _compare(temporary, data, target)
    if sidecars and array.attrs.get("kind") == "land_cover":
        write_names(target, array)
    return target


def _planes(array: xr.DataArray) -> tuple[np.ndarray, list[str | None]]:
    """Pixels as ``(band, y, x)`` and a label for each band."""
    if not isinstance(array, xr.DataArray) or array.dims[-2:] != ("y", "x") or array.ndim > 3:
        dims = getattr(array, "dims", type(array).__name__)
        raise InputRefused(
            f"a raster to write has the dims (y, x) or (band, y, x), got {dims}; select one of the others"
        )
    data = np.ascontiguousarray(array.values)
    if data.dtype == bool:
        data = data.astype(np.uint8)
    if data.dtype.kind not in "uif" or data.dtype.itemsize > 8 or data.dtype == np.float16:
        raise InputRefused(
            f"GeoTIFF has no pixels of type {data.dtype}; convert with .astype('float32') or an integer type"
        )
    if 0 in data.shape:
        raise InputRefused(f"nothing to write: the array has the shape {data.shape}")
    if data.ndim == 2:
        time = array.coords.get("time")
        return data[np.newaxis], [_text(time.values) if time is not None and time.ndim == 0 else None]
    dim = array.dims[0]
    texts = [_text(value) for value in array[dim].values] if dim in array.coords else [None] * len(data)
    return data, list(texts)


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, np.datetime64):
        text = np.datetime_as_string(value.astype("datetime64[s]"))
        return str(text).removesuffix("T00:00:00")
    return str(value)


def _nodata(array: xr.DataArray, dtype: np.dtype[Any]) -> float | int | None:
    if array.attrs.get("kind") == "land_cover":
        return NO_DATA
    if dtype.kind == "f":
        return float("nan")
    for source in (array.attrs, array.encoding):
        for key in ("_FillValue", "nodata"):
            value = source.get(key)
            if value is not None and not np.isnan(value):
                return int(value)
    return None


def _write(
    path: Path, data: np.ndarray, labels: Sequence[str | None], array: xr.DataArray, grid: Grid, overviews: bool
) -> None:
    import rasterio

    profile = raster_profile(array, grid, data.dtype, len(data)) | cog_options(array, overviews, data.dtype)
    with rasterio.Env(**GDAL_OPTIONS), rasterio.open(path, "w", driver="COG", **profile) as file:
        file.write(data)
        write_tags(file, array)
        for number, label in enumerate(labels, start=1):
            if label is not None:
                file.set_band_description(number, label)


def cog_options(array: xr.DataArray, overviews: bool, dtype: np.dtype[Any]) -> dict[str, str | int]:
    """How the COG driver is to lay a raster out."""
    land_cover = array.attrs.get("kind") == "land_cover"
    return {
        "compress": "DEFLATE",
        "blocksize": BLOCK,
        "overviews": "AUTO" if overviews else "NONE",
        "overview_resampling": "MODE" if land_cover else "AVERAGE" if dtype.kind == "f" else "NEAREST",
        "bigtiff": "IF_SAFER",
        "num_threads": "1",
    }


def raster_profile(array: xr.DataArray, grid: Grid, dtype: np.dtype[Any], count: int = 1) -> dict[str, Any]:
    """Size, type, place and no-data value of a raster, as rasterio takes them."""
    import rasterio

    if array.attrs.get("kind") == "land_cover" and dtype != np.uint8:
        raise InputRefused(f"a land-cover map is uint8, got {dtype}; make one with geococa.as_land_cover")
    return {
        "height": grid.shape[0],
        "width": grid.shape[1],
        "count": count,
        "dtype": dtype.name,
        "crs": rasterio.CRS.from_wkt(grid.crs.to_wkt()),
        "transform": grid.transform,
        "nodata": _nodata(array, dtype),
    }


def write_tags(file: Any, array: xr.DataArray) -> None:
    """Put into a raster that is being written what is known of it: kind, name, units, legend and its colours."""
    legend = Legend.from_attrs(array.attrs) if array.attrs.get("kind") == "land_cover" else None
    file.update_tags(**_tags(array, legend))
    if legend is not None and file.count == 1:
        file.write_colormap(1, _colour_table(legend))


def _colour_table(legend: Legend) -> dict[int, tuple[int, int, int, int]]:
    table = dict.fromkeys(range(256), (0, 0, 0, 255))
    table[NO_DATA] = (0, 0, 0, 0)
    for code, colour in zip(legend.codes, legend.colors, strict=True):
        table[code] = (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16), 255)
    return table


def _tags(array: xr.DataArray, legend: Legend | None) -> dict[str, str]:
    tags = {_PREFIX + key.upper(): str(array.attrs[key]) for key in _KEPT if key in array.attrs}
    if array.name is not None:
        tags[_PREFIX + "NAME"] = str(array.name)
    if array.ndim == 3:
        tags[_PREFIX + "DIM"] = str(array.dims[0])
    if legend is not None:
        tags[_PREFIX + "FLAG_VALUES"] = " ".join(str(code) for code in legend.codes)
        tags[_PREFIX + "FLAG_MEANINGS"] = " ".join(legend.names)
        tags[_PREFIX + "FLAG_COLORS"] = " ".join(legend.colors)
    return dict(sorted(tags.items()))


def _compare(temporary: Path, data: np.ndarray, target: Path) -> None:
    """Read the file back: a full disk or a bad block must not become a map."""
    header = read_header(temporary)
    bands, rows, columns = data.shape
    if (header.count, *header.shape) != data.shape:
        raise InputRefused(f"{target}: was written as {header.count} x {header.shape}, expected {data.shape}")
    for top in range(0, rows, BLOCK):
        part = (top, min(top + BLOCK, rows), 0, columns)
        back = read_window(header.path, header.driver, tuple(range(1, bands + 1)), part)
        if not np.array_equal(back, data[:, part[0] : part[1]], equal_nan=data.dtype.kind == "f"):
            raise InputRefused(f"{target}: rows {part[0]} to {part[1]} do not read back as written; is the disk full?")


def write_names(path: Path, land_cover: xr.DataArray) -> None:
    """Class names in GDAL's side file, replaced whole like the map itself."""
    from xml.sax.saxutils import escape

    legend = Legend.from_attrs(land_cover.attrs)
    names = dict(zip(legend.codes, legend.names, strict=True))
    entries = "".join(f"      <Category>{escape(names.get(code, ''))}</Category>\n" for code in range(max(names) + 1))
    text = (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{entries}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
    replace_file(path.with_name(f"{path.name}.aux.xml"), text.encode())


def read_raster(
    path: str | os.PathLike[str],
    *,
    window: Sequence[int] | None = None,
    chunks: Mapping[str, int] | None = None,
) -> xr.DataArray:
    """Read a GeoTIFF or JPEG 2000 raster.

    Parameters
    ----------
    path : path
        File on disk.
    window : sequence of 4 int, optional
        ``(row_start, row_stop, column_start, column_stop)``.
    chunks : mapping of str to int, optional
        None reads now; a mapping gives a Dask array, ``{}`` with blocks of 1024 cells.

    Returns
    -------
    xarray.DataArray
        ``(y, x)`` where the file has one band, else ``(band, y, x)`` with band descriptions as labels; values as
        stored, with ``nodata`` in the attributes (and ``scale_factor``, ``add_offset`` where the file has
        them, not applied). Where the file has a mask of its own, what that hides is NaN, or the largest number of an
        unsigned, the least of a signed type, and that number is ``nodata``. A file of `write_cog` comes back with its
        kind, name, legend and dims.

    Raises
    ------
    InputRefused
        Not a raster, damaged, without CRS, or the window lies outside.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=(2023, 2024), unobserved=0.0)
    >>> import pathlib, tempfile
    >>> path = coca.write_cog(land_cover.isel(time=0), pathlib.Path(tempfile.mkdtemp()) / "map.tif")
    >>> coca.read_raster(path).attrs["kind"]
    'land_cover'
    """
    header = read_header(path)
    rows, columns = header.shape
    box = (0, rows, 0, columns) if window is None else tuple(int(value) for value in window)
    if len(box) != 4 or not (0 <= box[0] < box[1] <= rows and 0 <= box[2] < box[3] <= columns):
        raise InputRefused(
            f"window {box} does not lie in {header.path}, which has {rows} rows and {columns} columns; "
            "expected (row_start, row_stop, column_start, column_stop)"
        )
    part: tuple[int, int, int, int] = (box[0], box[1], box[2], box[3])
    bands = tuple(range(1, header.count + 1))
    data = _read(header, bands, part) if chunks is None else _lazy(header, part, chunks)
    return _wrap(header, data, header.grid.window(*part))


def _read(header: Header, bands: tuple[int, ...], box: tuple[int, int, int, int]) -> np.ndarray:
    """Values as stored; where the file has a mask of its own, with a no-data value for what that hides."""
    data = read_window(header.path, header.driver, bands, box)
    return hide_masked(header.path, header.driver, data, box) if header.masked else data


def _lazy(header: Header, box: tuple[int, int, int, int], chunks: Mapping[str, int]) -> Any:
    da = optional_import("dask.array", "dask")
    r0, r1, c0, c1 = box
    dtype = np.result_type(*set(header.dtypes))
    layout = da.empty(
        (header.count, r1 - r0, c1 - c0),
        dtype=dtype,
        chunks=(header.count, chunks.get("y", 1024), chunks.get("x", 1024)),
    )
    bands = tuple(range(1, header.count + 1))

    def block(block_info: Any = None) -> np.ndarray:
        _, (top, bottom), (left, right) = block_info[None]["array-location"]
        return _read(header, bands, (r0 + top, r0 + bottom, c0 + left, c0 + right))

    return da.map_blocks(block, chunks=layout.chunks, dtype=dtype, meta=np.empty((0, 0, 0), dtype))


def _wrap(header: Header, data: Any, grid: Grid) -> xr.DataArray:
    tags = {key.removeprefix(_PREFIX): value for key, value in header.tags.items() if key.startswith(_PREFIX)}
    attrs: dict[str, Any] = {key: tags[key.upper()] for key in _KEPT if key.upper() in tags}
    nodata = mask_fill(np.result_type(*set(header.dtypes))) if header.masked else header.nodata[0]
    if nodata is not None:
        value = int(nodata) if np.dtype(header.dtypes[0]).kind in "ui" and float(nodata).is_integer() else nodata
        attrs["nodata"] = value
        fits = isinstance(value, float) or np.can_cast(np.min_scalar_type(value), data.dtype)
        # in the attributes, not the encoding: nothing is masked yet, and rioxarray reads it so
        attrs["_FillValue"] = data.dtype.type(value) if fits else value
    if (header.scales[0], header.offsets[0]) != (1.0, 0.0):
        attrs["scale_factor"], attrs["add_offset"] = header.scales[0], header.offsets[0]
    if "FLAG_VALUES" in tags and "FLAG_MEANINGS" in tags:
        attrs["flag_values"] = np.array([int(value) for value in tags["FLAG_VALUES"].split()], np.uint8)
        attrs["flag_meanings"] = tags["FLAG_MEANINGS"]
        attrs["flag_colors"] = tags.get("FLAG_COLORS", "")
    if header.count == 1 and "DIM" not in tags:
        out = xr.DataArray(data[0], dims=("y", "x"), attrs=attrs)
    else:
        dim, labels = _labels(header, tags)
        out = xr.DataArray(data, dims=(dim, "y", "x"), coords={dim: labels}, attrs=attrs)
    return grid.attach(out.rename(tags.get("NAME")))


def _labels(header: Header, tags: Mapping[str, str]) -> tuple[str, np.ndarray]:
    """Name and labels of the leading dim; dates become times again."""
    texts = [text or f"band_{number}" for number, text in enumerate(header.descriptions, start=1)]
    dim = tags.get("DIM", "band")
    if dim == "time" and all(_DATE.fullmatch(text) for text in texts):
        return dim, np.array(texts, "datetime64[ns]")
    return dim, np.array(texts, dtype=str)
