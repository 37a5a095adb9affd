"""From digital numbers to one image a year: `clear_sky` masks, `to_reflectance` scales, `composite` reduces."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, check_same_grid, optional_import, positive
from geococa.errors import GridMismatch, InputRefused, UnknownOffset
from geococa.grid import Grid
from geococa.mask_rules import band_names, chosen_flags, flagged, half_widths, is_dask, observed, per_block, widened
from geococa.reducers import Kernel, reduce_arrays, reducer_named
from geococa.sensors import QUALITIES

__all__ = ["clear_sky", "composite", "to_reflectance"]

Coefficient = float | Mapping[str, float] | xr.DataArray


# --- masks -----------------------------------------------------------------------------------------


def clear_sky(scenes: xr.Dataset, *, buffer_m: float = 60, mask: Iterable[str] | None = None) -> xr.DataArray:
    """Mark the usable pixels of each scene.

    A pixel is usable where every band was observed and no quality band speaks against it. Clouds and their
    shadows are widened by a distance on the ground, since their edges are the most common false colours in a
    series; pixels without data are not.

    Parameters
    ----------
    scenes : xarray.Dataset
        From `geococa.open_tile`, dims ``(time, y, x)``.
    buffer_m : float
        Distance in metres, centre to centre, within which pixels around clouds and shadows are masked as well.
    mask : iterable of str, optional
        Flags of the quality band to mask instead of the default ones. "Not observed" is masked in any case.
        Sentinel-2 ``scl`` by default: no_data, saturated_or_defective, cloud_shadow, cloud_medium_probability,
        cloud_high_probability, thin_cirrus, snow_ice (usable: dark_area, vegetation, not_vegetated, water,
        unclassified). Landsat ``qa_pixel``: fill, dilated_cloud, cirrus, cloud, cloud_shadow, snow; and all bits
        of ``qa_radsat``.

    Returns
    -------
    xarray.DataArray
        bool ``(time, y, x)``, True = usable, ``kind="clear"``. Scenes without a quality band are usable wherever
        they have data.

    Raises
    ------
    InputRefused
        ``mask`` names a flag that no quality band of the scenes has, or ``buffer_m`` is negative.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> scl = np.full((1, 3, 3), 4, "uint8")
    >>> scl[0, 0, 0] = 9
    >>> scenes = xr.Dataset(
    ...     {"red": (("time", "y", "x"), np.ones((1, 3, 3), "uint16")), "scl": (("time", "y", "x"), scl)},
    ...     coords=Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (3, 3)).coordinates(),
    ... )
    >>> clear_sky(scenes, buffer_m=10).values[0].astype(int).tolist()
    [[0, 0, 1], [0, 1, 1], [1, 1, 1]]
    """
    check_kind(scenes, "scenes")
    check_dims(scenes, "time", "y", "x", optional=("band",))
    positive(buffer_m, "buffer_m", zero=True)
    bands = band_names(scenes)
    quality = [QUALITIES[name] for name in scenes.data_vars if name in QUALITIES]
    chosen = chosen_flags(quality, None if mask is None else list(mask))
    half = half_widths(Grid.from_xarray(scenes), buffer_m)
    usable = observed([scenes[name] for name in bands])
    for entry, flags in zip(quality, chosen, strict=True):
        values = scenes[entry.name].data
        usable = usable & ~per_block(flagged, values, entry, flags)
        clouds = tuple(name for name in flags if name in entry.buffered)
        if clouds and half is not None:
            usable = usable & ~widened(values, entry, clouds, half)
    first = scenes[bands[0]]
    out = first.copy(data=usable).rename("clear")
    masked = " ".join(name for flags in chosen for name in flags)
    out.attrs = {"kind": "clear", "long_name": "usable observation", "units": "1", "buffer_m": float(buffer_m)}
    out.attrs["masked"] = masked
    out.encoding = {"grid_mapping": "spatial_ref"}
    return out.drop_vars([name for name in ("scale", "offset", "band") if name in out.coords])


# --- reflectance -----------------------------------------------------------------------------------


def to_reflectance(
    scenes: xr.Dataset,
    *,
    where: xr.DataArray | None = None,
    scale: Coefficient | None = None,
    offset: Coefficient | None = None,
) -> xr.Dataset:
    """Scale digital numbers to reflectance, ``DN * scale + offset``, with each product's own scale and offset.

    Parameters
    ----------
    scenes : xarray.Dataset
        From `geococa.open_tile`.
    where : xarray.DataArray, optional
        bool ``(time, y, x)`` from `clear_sky`, True = usable; all other pixels become NaN.
    scale, offset : float, mapping of str to float, or DataArray (time, band), optional
        Override the metadata, for every band or those named.

    Returns
    -------
    xarray.Dataset
        float32 per band, dims ``(time, y, x)``, ``units="1"``, ``kind="reflectance"``. A pixel that lacks data in
        any band is NaN in all bands: no-data never becomes a reflectance.

    Raises
    ------
    UnknownOffset
        Scale or offset of a scene are not known; the message names the scene and what was found.
    GridMismatch
        ``where`` is on another grid or has other dates.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> dn = xr.DataArray(np.array([[[0, 1500]]], "uint16"), dims=("time", "y", "x"), attrs={"nodata": 0})
    >>> to_reflectance(xr.Dataset({"red": dn}), scale=1e-4, offset=-0.1).red.values.round(3).astype(str).tolist()
    [[['nan', '0.05']]]
    """
    check_kind(scenes, "scenes")
    check_dims(scenes, "time", "y", "x", optional=("band",))
    names = band_names(scenes)
    scales = _coefficients(scenes, names, "scale", scale)
    offsets = _coefficients(scenes, names, "offset", offset)
    _check_known(scenes, names, scales, offsets)
    usable = observed([scenes[name] for name in names])
    if where is not None:
        usable = usable & _matching(where, scenes)
    out = {}
    for column, name in enumerate(names):
        data = _scaled(scenes[name].data, usable, scales[:, column], offsets[:, column])
        attrs = {"units": "1", "long_name": f"reflectance of {name}", "grid_mapping": "spatial_ref"}
        out[name] = (("time", "y", "x"), data, {k: v for k, v in attrs.items() if k != "grid_mapping"})
    dropped = ("scale", "offset", "band")
    coords = {name: coord for name, coord in scenes.coords.items() if name not in dropped}
    result = xr.Dataset(out, coords=coords, attrs={"kind": "reflectance"})
    for key in ("sensor", "tile"):
        if key in scenes.attrs:
            result.attrs[key] = scenes.attrs[key]
    return _with_grid_mapping(result)


def _with_grid_mapping(dataset: xr.Dataset) -> xr.Dataset:
    if "spatial_ref" in dataset.coords:
        for variable in dataset.data_vars.values():
            variable.encoding["grid_mapping"] = "spatial_ref"
    return dataset


def _coefficients(scenes: xr.Dataset, names: list[str], what: str, given: Coefficient | None) -> np.ndarray:
    """Scale or offset ``(time, band)``, NaN = not known."""
    shape = (scenes.sizes["time"], len(names))
    values = np.full(shape, np.nan)
    if what in scenes.coords and "band" in scenes.coords:
        stated = scenes.coords[what]
        held = [str(name) for name in scenes.coords["band"].values]
        for column, name in enumerate(names):
            if name in held:
                values[:, column] = stated.isel(band=held.index(name)).values
    if given is None:
        return values
    if isinstance(given, xr.DataArray):
        chosen: np.ndarray = given.sel(band=names).transpose("time", "band").values.astype(np.float64)
        return chosen
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise InputRefused(f"{what} names {', '.join(unknown)}, but the scenes have {', '.join(names)}")
        for name, value in given.items():
            values[:, names.index(name)] = float(value)
        return values
    return np.full(shape, float(given))


def _check_known(scenes: xr.Dataset, names: list[str], scales: np.ndarray, offsets: np.ndarray) -> None:
    for what, values in (("scale", scales), ("offset", offsets)):
        unknown = ~np.isfinite(values)
        if not unknown.any():
            continue
        time, band = (int(index[0]) for index in np.nonzero(unknown))
        scene = str(scenes["scene"].values[time]) if "scene" in scenes.coords else f"number {time}"
        reason = scenes.attrs.get("scaling_problems") or "its metadata do not say it"
        raise UnknownOffset(
            f"the {what} of {names[band]} in scene {scene} (and {int(unknown.any(axis=1).sum()) - 1} others) "
            "is not known: "
            f"{reason}; digital numbers are no reflectance without it, pass {what}= if you know it"
        )
    if (scales <= 0).any():
        raise UnknownOffset(f"scales must be positive, got {scales.min()}; pass scale= with the product's own")


def _matching(where: xr.DataArray, scenes: xr.Dataset) -> Any:
    check_kind(where, "clear")
    if where.dtype != bool or where.dims != ("time", "y", "x"):
        raise GridMismatch(f"where must be bool (time, y, x), got {where.dtype} {where.dims}; make it with clear_sky")
    if "spatial_ref" in where.coords and "spatial_ref" in scenes.coords:
        check_same_grid(scenes, where, names=("scenes", "where"))
    shape = tuple(scenes.sizes[dim] for dim in ("time", "y", "x"))
    same_dates = "time" not in where.coords or "time" not in scenes.coords or bool(
        where.shape[0] == shape[0] and (where["time"].values == scenes["time"].values).all()
    )  # fmt: skip
    if where.shape != shape or not same_dates:
        raise GridMismatch(
            f"where is {where.shape} with other dates or cells than the scenes' {shape}; make it from these scenes"
        )
    return where.data


def _scaled(data: Any, usable: Any, scales: np.ndarray, offsets: np.ndarray) -> Any:
    factors, shifts = (values.astype(np.float32)[:, np.newaxis, np.newaxis] for values in (scales, offsets))

    def scale_block(block: np.ndarray, mask: np.ndarray, factor: np.ndarray, shift: np.ndarray) -> np.ndarray:
        out: np.ndarray = np.multiply(block, factor, dtype=np.float32, casting="unsafe")
        out += shift
        out[~mask] = np.nan
        return out

    if not is_dask(data) and not is_dask(usable):
        return scale_block(np.asarray(data), np.asarray(usable), factors, shifts)
    da = optional_import("dask.array", "dask")
    lazy = data if is_dask(data) else da.from_array(data, chunks=usable.chunks)
    mask = usable.rechunk(lazy.chunks) if is_dask(usable) else da.from_array(usable, chunks=lazy.chunks)
    columns = [da.from_array(values, chunks=(lazy.chunks[0], 1, 1)) for values in (factors, shifts)]
    return da.map_blocks(scale_block, lazy, mask, *columns, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))


# --- composites ------------------------------------------------------------------------------------


def composite(
    reflectance: xr.Dataset,
    *,
    period: str = "year",
    reducer: str = "median",
    min_observations: int = 1,
    threads: int = 1,
) -> xr.Dataset:
    """Reduce the dates of each calendar year to one image.

    Parameters
    ----------
    reflectance : xarray.Dataset
        From `to_reflectance`, dims ``(time, y, x)``, NaN = not observed. A date that lacks a band at a pixel is left
        out for all bands of that pixel.
    period : {"year"}
        Calendar years (UTC). Years without a scene are absent from the result.
    reducer : str
        ``median``; ``mean``; a percentile such as ``p25`` (linear between order statistics); ``geomedian``, the
        spectrum with the least sum of distances to all dates; ``medoid``, the observed date closest to all others;
        ``max_ndvi``, the date with the largest NDVI.
    min_observations : int
        Pixels with fewer usable dates in a year stay NaN.
    threads : int
        Threads over strips of pixels; the result does not depend on it.

    Returns
    -------
    xarray.Dataset
        float32 per band, dims ``(time, y, x)`` with time 31 December of each year, and ``observations`` uint16, the
        number of usable dates; ``kind="composite"``. Dask-backed where the input is.

    Raises
    ------
    InputRefused
        Unknown reducer or period, or ``max_ndvi`` without red and near infrared.

    References
    ----------
    Flood (2013), Remote Sensing 5(12), 6481-6500 (medoid); Roberts et al. (2017), doi:10.1109/TGRS.2017.2723896
    (geometric median).

    Examples
    --------
    >>> import numpy as np, pandas as pd, xarray as xr
    >>> values = np.array([0.1, np.nan, 0.3], "float32").reshape(3, 1, 1)
    >>> red = xr.DataArray(values, dims=("time", "y", "x"), coords={"time": pd.date_range("2020-03-01", periods=3)})
    >>> annual = composite(xr.Dataset({"red": red}))
    >>> float(annual.red[0, 0, 0]), int(annual.observations[0, 0, 0]), str(annual.time.values[0])[:10]
    (0.20000000298023224, 2, '2020-12-31')
    """
    check_kind(reflectance, "reflectance")
    check_dims(reflectance, "time", "y", "x", optional=("band",))
    if period != "year":
        raise InputRefused(f"period must be 'year', got {period!r}")
    if "time" not in reflectance.coords or reflectance.sizes["time"] == 0:
        raise InputRefused("a composite needs a time coordinate with at least one date")
    if int(min_observations) != min_observations or min_observations < 1:
        raise InputRefused(f"min_observations must be a whole number of at least 1, got {min_observations!r}")
    names = band_names(reflectance)
    reduce = reducer_named(reducer, names)
    years = reflectance["time"].dt.year.values
    found = [int(year) for year in np.unique(years)]
    layers = []
    for year in found:
        dates = np.flatnonzero(years == year)
        bands = [_dates_of(reflectance[name].data, dates) for name in names]
        layers.append(_reduced(bands, reduce, int(min_observations), threads))
    return _annual(reflectance, names, found, layers, reducer, int(min_observations))


def _dates_of(data: Any, dates: np.ndarray) -> Any:
    if len(dates) == dates[-1] - dates[0] + 1:
        return data[int(dates[0]) : int(dates[-1]) + 1]
    return data[dates]


def _annual(
    source: xr.Dataset, names: list[str], years: list[int], layers: list[Any], reducer: str, least: int
) -> xr.Dataset:
    """Dataset of yearly layers ``(band + observations, y, x)``."""
    lazy = any(is_dask(layer[0]) for layer in layers)
    stack = optional_import("dask.array", "dask").stack if lazy else np.stack
    variables: dict[Hashable, Any] = {}
    for position, name in enumerate(names):
        attrs = {key: value for key, value in source[name].attrs.items() if key in ("units", "long_name")}
        variables[name] = (("time", "y", "x"), stack([bands[position] for bands, _ in layers]), {"units": "1", **attrs})
    counts = stack([count for _, count in layers])
    variables["observations"] = (("time", "y", "x"), counts, {"units": "1", "long_name": "usable dates in the year"})
    kept = {n: c for n, c in source.coords.items() if "time" not in c.dims and "band" not in c.dims}
    ends = np.array([f"{year}-12-31" for year in years], "datetime64[ns]")
    attrs = {"kind": "composite", "period": "year", "reducer": reducer, "min_observations": least}
    for key in ("sensor", "tile"):
        if key in source.attrs:
            attrs[key] = source.attrs[key]
    return _with_grid_mapping(xr.Dataset(variables, coords={**kept, "time": ends}, attrs=attrs))


def _reduced(bands: Sequence[Any], reduce: Kernel, least: int, threads: int) -> tuple[Any, Any]:
    """Bands ``(band, y, x)`` and observation counts ``(y, x)`` of one year."""
    if not any(is_dask(band) for band in bands):
        return reduce_arrays([np.asarray(band) for band in bands], reduce, least, threads)
    da = optional_import("dask.array", "dask")
    stacked = da.stack(bands, axis=1).rechunk({0: -1, 1: -1})

    def block(part: np.ndarray) -> np.ndarray:
        out, counts = reduce_arrays(list(np.moveaxis(part, 1, 0)), reduce, least, 1)
        return np.concatenate([out, counts[np.newaxis].astype(np.float32)])

    planes = da.map_blocks(
        block, stacked, drop_axis=0, chunks=((len(bands) + 1,), *stacked.chunks[2:]), dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    return planes[:-1], planes[-1].astype(np.uint16)
