"""The product of any stage as netCDF or Zarr, with the attributes of CF and GeoZarr, and back as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_type, optional_import
from geococa._files import replacing
from geococa.errors import GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA

__all__ = ["read_cube", "write_cube"]

_CONVENTIONS = (
    {
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "name": "spatial",
        "description": "Spatial coordinate information",
    },
    {
        "schema_url": "https://raw.githubusercontent.com/zarr-conventions/geo-proj/refs/tags/v1/schema.json",
        "spec_url": "https://github.com/zarr-conventions/geo-proj/blob/v1/README.md",
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "name": "proj",
        "description": "Coordinate reference system information for geospatial data",
    },
)
"""The GeoZarr conventions that files of `write_cube` follow."""


def write_cube(cube: xr.Dataset | xr.DataArray, path: str | os.PathLike[str]) -> Path:
    """Write the product of any stage as netCDF or Zarr, with CF attributes and, in Zarr, those of GeoZarr.

    Parameters
    ----------
    cube : xarray.Dataset or xarray.DataArray
        With a grid; numpy- or Dask-backed.
    path : path
        ``.nc`` (needs h5netcdf) or ``.zarr`` (a folder). What is there is replaced when the new one is whole.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputRefused
        The suffix is neither of the two.
    MissingExtra
        h5netcdf or zarr is not installed.

    Notes
    -----
    CF: grid mapping ``spatial_ref`` with ``crs_wkt``, ``GeoTransform`` for GDAL and rioxarray, ``_FillValue``, flags.
    GeoZarr: the conventions ``spatial`` and ``proj``, version 1, in the attributes of the group.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((8, 8), years=(2023, 2024))
    >>> path = write_cube(land_cover, pathlib.Path(tempfile.mkdtemp()) / "map.nc")
    >>> coca.read_cube(path).identical(land_cover)
    True
    """
    check_type(cube, (xr.Dataset, xr.DataArray), "cube", "give the product of a stage")
    target = Path(path)
    grid = Grid.from_xarray(cube)
    dataset = _portable(cube, grid)
    if target.suffix == ".nc":
        _need("h5netcdf", "h5py")
        with replacing(target) as temporary:
            dataset.to_netcdf(temporary, engine="h5netcdf")
        return target
    if target.suffix != ".zarr":
        raise InputRefused(
            f"{target}: cubes are written as .nc or .zarr, not {target.suffix or 'a file without suffix'}"
        )
    optional_import("zarr", "interop")
    dataset.attrs |= _geozarr(grid)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        dataset.to_zarr(temporary, mode="w", consolidated=False)
        if target.exists():
            _remove_zarr(target)
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _portable(cube: xr.Dataset | xr.DataArray, grid: Grid) -> xr.Dataset:
    """Dataset whose attributes a file can hold; one array remembers that it was one."""
    if isinstance(cube, xr.DataArray):
        dataset = cube.to_dataset(name=str(cube.name or "values"))
        dataset.attrs["geococa_array"] = str(cube.name or "")
    else:
        dataset = cube.copy()
    if not {"x", "y"} <= set(dataset.dims):
        raise GridMismatch(f"a cube to write has the dims y and x, got {tuple(dataset.dims)}")
    dataset = dataset.assign_coords(grid.coordinates())
    texts = {name: array.astype(object) for name, array in dataset.coords.items() if array.dtype.kind == "U"}
    dataset = dataset.assign_coords(texts)  # of any length; Zarr has no fixed ones
    for variable in dataset.variables.values():
        variable.attrs = {key: _attribute(value) for key, value in variable.attrs.items() if value is not None}
        variable.encoding = {}
    for array in dataset.data_vars.values():
        array.encoding = {"grid_mapping": "spatial_ref"} if {"y", "x"} <= set(array.dims) else {}
        fill = array.attrs.pop("_FillValue", None)
        fill = array.attrs.get("nodata", fill)
        if array.attrs.get("kind") == "land_cover":
            fill = NO_DATA
        if array.dtype.kind == "f":
            array.encoding["_FillValue"] = np.array(np.nan, array.dtype)[()]
        elif array.dtype.kind in "ui":
            array.encoding["_FillValue"] = None if fill is None else np.array(fill).astype(array.dtype)[()]
    dataset.attrs = {key: _attribute(value) for key, value in dataset.attrs.items() if value is not None}
    dataset.attrs["Conventions"] = "CF-1.11"
    return dataset


def _attribute(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value


def _geozarr(grid: Grid) -> dict[str, Any]:
    code = grid.crs.to_authority(min_confidence=100)
    return {
        "zarr_conventions": [dict(convention) for convention in _CONVENTIONS],
        "spatial:dimensions": ["y", "x"],
        "spatial:transform_type": "affine",
        "spatial:transform": [float(value) for value in tuple(grid.transform)[:6]],
        "spatial:shape": list(grid.shape),
        "spatial:bbox": [float(value) for value in grid.bounds],
        **({"proj:code": ":".join(code)} if code else {"proj:wkt2": grid.crs.to_wkt()}),
    }


def _remove_zarr(target: Path) -> None:
    """Remove a store that is to be replaced, and nothing that is none."""
    if not target.is_dir() or not any((target / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        raise InputRefused(f"{target} exists and is no Zarr store; choose another name")
    shutil.rmtree(target)


def _need(*modules: str) -> None:
    """Refuse where one is missing; h5netcdf no longer brings along the h5py that it reads with."""
    for module in modules:
        optional_import(module, "interop")


def read_cube(path: str | os.PathLike[str], *, chunks: Mapping[str, int] | None = None) -> xr.Dataset | xr.DataArray:
    """Read a netCDF file or Zarr store as it was written: whole numbers stay whole, 255 stays 255.

    Parameters
    ----------
    path : path
        ``.nc`` or ``.zarr`` on disk, of `write_cube` or of others that follow CF.
    chunks : mapping of str to int, optional
        None reads now; a mapping gives Dask arrays, ``{}`` with the chunks of the file.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        An array where one was written.

    Raises
    ------
    InputRefused
        The file is missing, or can't be read as what its suffix says.
    CRSMismatch, GridMismatch
        It has no CRS, or no regular coordinates.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=(2023, 2024), unobserved=0.0)
    >>> import pathlib, tempfile
    >>> path = coca.write_cube(land_cover, pathlib.Path(tempfile.mkdtemp()) / "map.nc")
    >>> coca.read_cube(path).geococa.legend.names[:2]
    ('coca', 'forest')
    """
    source = Path(path)
    engines = {".nc": ("h5netcdf", "h5py"), ".zarr": ("zarr",)}
    if source.suffix not in engines or not source.exists():
        what = "no such file or store" if source.suffix in engines else "cubes are read from .nc and .zarr"
        raise InputRefused(f"{source}: {what}")
    _need(*engines[source.suffix])
    options: dict[str, Any] = {"consolidated": False} if source.suffix == ".zarr" else {}
    try:
        # masking would turn class codes into floats
        dataset = xr.open_dataset(
            source,
            engine=engines[source.suffix][0],
            mask_and_scale=False,
            decode_coords="all",
            chunks=chunks,
            **options,
        )
        dataset = dataset if chunks is not None else dataset.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputRefused(f"{source}: can't be read as {engines[source.suffix]} ({error}); is it damaged?") from error
    if chunks is None:
        dataset.close()
    return _restored(dataset)


def _restored(dataset: xr.Dataset) -> xr.Dataset | xr.DataArray:
    grid = Grid.from_xarray(dataset)
    dataset = dataset.assign_coords(grid.coordinates()) if {"x", "y"} <= set(dataset.dims) else dataset
    texts = [name for name, array in dataset.coords.items() if array.dtype.kind in "OT"]
    dataset = dataset.assign_coords({name: dataset[name].astype(object).astype(str) for name in texts})
    for variable in dataset.variables.values():
        if variable.dtype.kind == "f" and np.isnan(variable.attrs.get("_FillValue", np.nan)):
            variable.attrs.pop("_FillValue", None)  # NaN says it already
        variable.encoding = {"grid_mapping": "spatial_ref"} if {"y", "x"} <= set(variable.dims) else {}
    own = [
        key
        for key in dataset.attrs
        if key.startswith(("spatial:", "proj:")) or key in ("Conventions", "zarr_conventions")
    ]
    name = dataset.attrs.get("geococa_array")
    dataset.attrs = {key: value for key, value in dataset.attrs.items() if key not in (*own, "geococa_array")}
    for array in dataset.data_vars.values():
        # files hold attributes as lists or zero-dimensional arrays
        for key in ("flag_values", "flag_masks"):
            if key in array.attrs:
                array.attrs[key] = np.atleast_1d(array.attrs[key]).astype(array.dtype)
        if isinstance(array.attrs.get("nodata"), np.generic):
            array.attrs["nodata"] = array.attrs["nodata"].item()
        if array.attrs.get("kind") != "land_cover" and "nodata" in array.attrs:
            array.attrs.pop("_FillValue", None)
    if name is None:
        return dataset
    [(stored, array)] = dataset.data_vars.items()
    out = array.rename(name or None)
    out.encoding = dict(dataset[stored].encoding)
    return out
