"""Cubes of other libraries: Dask datasets of odc-stac and like loaders into the stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_type
from geococa.errors import GridMismatch, InputRefused, UnknownOffset
from geococa.grid import Grid
from geococa.metadata import ProductMetadata
from geococa.sensors import QUALITIES, Quality, Sensor, get_sensor, quality_attributes
from geococa.stac_items import stac_metadata

__all__ = ["as_scenes"]

_SAME_PASS = np.timedelta64(6, "h")
"""Items so near to a time step of a cube belong to it: loaders fuse the tiles of one pass under one time."""


def as_scenes(
    cube: xr.Dataset | xr.DataArray,
    sensor: str | Sensor,
    *,
    items: Iterable[Any] | None = None,
    scale: float | Mapping[str, float] | None = None,
    offset: float | Mapping[str, float] | None = None,
) -> xr.Dataset:
    """Take a cube that odc-stac or a like loader made for scenes, as `geococa.open_tile` gives them.

    Parameters
    ----------
    cube : xarray.Dataset or xarray.DataArray
        Digital numbers as stored, ``(time, y, x)`` with one variable a band, or ``(time, band, y, x)``; bands under their
        native (``B04``) or common (``red``) names. Dask stays Dask, nothing is computed.
    sensor : str or Sensor
        Whose bands these are, such as ``"sentinel-2-l2a"`` or ``"landsat-c2-l2"``.
    items : iterable of STAC items, optional
        The items (pystac items or dictionaries) that the cube was loaded from: each product's own scale and offset are read
        from them. A time step whose items differ is refused.
    scale, offset : float or mapping of str to float, optional
        Of all products, where no items are given and the sensor's definition does not fix them.

    Returns
    -------
    xarray.Dataset
        ``kind="scenes"``, ready for `geococa.clear_sky` and `geococa.to_reflectance`. Where scale or offset are not
        known, they are NaN, and `geococa.to_reflectance` refuses.

    Raises
    ------
    InputRefused
        The cube holds no band of the sensor, or numbers that a loader has scaled already.
    UnknownOffset
        ``items`` do not cover a time step, or differ within one.
    CRSMismatch, GridMismatch
        The cube has no CRS or no regular coordinates.

    Examples
    --------
    >>> grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (2, 2))
    >>> numbers = xr.DataArray(np.full((1, 2, 2), 1500, "uint16"), dims=("time", "y", "x"), attrs={"nodata": 0})
    >>> cube = xr.Dataset({"B04": grid.attach(numbers)}).assign_coords(time=np.array(["2023-01-01"], "datetime64[ns]"))
    >>> scenes = as_scenes(cube, "sentinel-2-l2a", scale=1e-4, offset=-0.1)
    >>> list(scenes.data_vars), scenes.offset.values.tolist()
    (['red'], [[-0.1]])
    """
    known = get_sensor(sensor)
    whole = _as_dataset(cube)
    bands = _named(whole, known)
    names = [str(name) for name in bands.data_vars if name not in QUALITIES]
    if not names:
        raise InputRefused(
            f"the cube has no band of {known.name}, only {', '.join(map(str, whole.data_vars))}; load for example "
            f"{', '.join(band.native for band in known.bands[:4])}"
        )
    data = bands.transpose("time", "y", "x")
    grid = Grid.from_xarray(data)
    times = np.asarray(data["time"].values, "datetime64[ns]")
    scales, offsets, baselines, ids = _coefficients(known, names, times, items, scale, offset)
    out = xr.Dataset(
        {
            str(name): (
                ("time", "y", "x"),
                array.data,
                _attributes(str(name), array, known),
                {"grid_mapping": "spatial_ref"},
            )
            for name, array in data.data_vars.items()
        },
        coords={
            "time": times,
            "band": np.array(names, dtype=str),
            "scale": (("time", "band"), scales),
            "offset": (("time", "band"), offsets),
            "scene": ("time", np.array(ids, dtype=str)),
            "processing_baseline": ("time", np.array(baselines, dtype=str)),
            **grid.coordinates(),
        },
        attrs={"kind": "scenes", "sensor": known.name},
    )
    return out.sortby("time")


def _as_dataset(cube: xr.Dataset | xr.DataArray) -> xr.Dataset:
    check_type(cube, (xr.Dataset, xr.DataArray), "cube", "load one with odc.stac.load(items, ...)")
    if isinstance(cube, xr.DataArray):
        if "band" not in cube.dims:
            raise InputRefused(f"a cube in one array has the dims (time, band, y, x), got {tuple(cube.dims)}")
        encoding, cube = cube.encoding, cube.to_dataset("band")
        for array in cube.data_vars.values():
            array.encoding = dict(encoding)
    turned = {"latitude": "y", "longitude": "x", "lat": "y", "lon": "x"}
    cube = cube.rename({old: new for old, new in turned.items() if old in cube.dims and new not in cube.dims})
    if "time" not in cube.dims and "time" in cube.coords:
        cube = cube.expand_dims("time")
    if not {"time", "y", "x"} <= set(cube.dims):
        raise GridMismatch(f"a cube of scenes has the dims time, y and x, got {tuple(cube.dims)}")
    return cube


def _named(cube: xr.Dataset, sensor: Sensor) -> xr.Dataset:
    """Variables of the sensor's bands and quality bands, under common names."""
    found: dict[str, str] = {}
    for variable in cube.data_vars:
        band, quality = sensor.find(str(variable)), sensor.quality_band(str(variable))
        name = band.name if band is not None else quality.name if quality is not None else None
        if name is None or (band is not None and band.role != "reflectance"):
            continue
        if name in found.values():
            raise InputRefused(
                f"the cube has band {name} of {sensor.name} twice; drop one of {', '.join(map(str, cube.data_vars))}"
            )
        found[str(variable)] = name
        dtype = cube[variable].dtype
        if dtype.kind not in "ui":
            raise InputRefused(
                f"band {variable} of the cube is {dtype}, digital numbers are integers: load it without scaling and without "
                "a mask (odc.stac.load(..., dtype='uint16'), stackstac.stack(..., rescale=False, dtype='uint16', fill_value=0))"
            )
    return cube[list(found)].rename({old: new for old, new in found.items() if old != new})


def _attributes(name: str, array: xr.DataArray, sensor: Sensor) -> dict[str, Any]:
    if name in QUALITIES:
        quality: Quality = QUALITIES[name]
        key = "flag_masks" if quality.bits else "flag_values"
        values = [1 << value if quality.bits else value for value in quality.flags.values()]
        return {
            "units": "1",
            "long_name": f"quality band {quality.native}",
            key: np.array(values, np.uint16 if quality.bits else np.uint8),
            "flag_meanings": " ".join(quality.flags),
            **quality_attributes(quality),
        }
    attrs: dict[str, Any] = {"units": "1", "long_name": f"digital number of {name}"}
    stated = [
        source[key] for source in (array.attrs, array.encoding) for key in ("nodata", "_FillValue") if key in source
    ]
    whole = [int(value) for value in stated if value is not None and value == value]
    if whole or sensor.fill is not None:
        attrs["nodata"] = whole[0] if whole else int(sensor.fill or 0)
    return attrs


def _coefficients(
    sensor: Sensor,
    names: list[str],
    times: np.ndarray,
    items: Iterable[Any] | None,
    scale: float | Mapping[str, float] | None,
    offset: float | Mapping[str, float] | None,
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Scale and offset ``(time, band)``, processing baseline and product of every time step."""
    shape = (len(times), len(names))
    if items is None:
        filled = [np.full(shape, np.nan), np.full(shape, np.nan)]
        for array, given, fixed in ((filled[0], scale, sensor.scale), (filled[1], offset, sensor.offset)):
            for column, name in enumerate(names):
                value = given.get(name) if isinstance(given, Mapping) else given
                array[:, column] = np.nan if value is None and fixed is None else fixed if value is None else value
        return filled[0], filled[1], [""] * len(times), [f"{pd.Timestamp(time):%Y-%m-%d}" for time in times]
    if scale is not None or offset is not None:
        raise InputRefused("give either items, which say scale and offset, or scale= and offset=")
    products = [stac_metadata(_plain(item), str(_plain(item).get("id", "item")))[0] for item in items]
    native = {band.name: band.native for band in sensor.bands}
    rows = [_step(products, pd.Timestamp(time)) for time in times]
    scales = np.array([[row.scale.get(native[name], np.nan) for name in names] for row in rows]).reshape(shape)
    offsets = np.array([[row.offset.get(native[name], np.nan) for name in names] for row in rows]).reshape(shape)
    return scales, offsets, [row.baseline for row in rows], [row.id for row in rows]


def _plain(item: Any) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return item
    if hasattr(item, "to_dict"):
        plain: Mapping[str, Any] = item.to_dict(include_self_link=False, transform_hrefs=False)
        return plain
    raise InputRefused(f"items must be STAC items (pystac.Item, or dictionaries), got {type(item).__name__}")


def _step(products: list[ProductMetadata], time: pd.Timestamp) -> ProductMetadata:
    """The product of a time step; where several make it up, they must say the same."""
    near = [
        product
        for product in products
        if abs(pd.Timestamp(product.acquired.replace(tzinfo=None)) - time) <= pd.Timedelta(_SAME_PASS)
    ]
    if not near:
        raise UnknownOffset(
            f"no item within 6 hours of the time step {time}; give all items that the cube was loaded from"
        )
    first = near[0]
    for other in near[1:]:
        if (other.scale, other.offset) != (first.scale, first.offset):
            raise UnknownOffset(
                f"items {first.id} and {other.id} of the time step {time} have different offsets; load them as time steps of "
                "their own (groupby='id')"
            )
    return first
