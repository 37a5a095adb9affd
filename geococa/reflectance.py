"""From digital numbers to one image a year: `clear_sky` masks, `to_reflectance` scales, `composite` reduces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, check_same_grid, optional_import, positive
from geococa.composites import composite
from geococa.errors import GridMismatch, InputRefused, UnknownOffset
from geococa.grid import Grid
from geococa.haze_rules import HAZE_BANDS, hazy_or_shadowed
from geococa.mask_rules import band_names, chosen_flags, flagged, half_widths, is_dask, observed, per_block, widened
from geococa.radiometry import check_radiometry
from geococa.sensors import QUALITIES, quality_of

__all__ = ["clear_sky", "composite", "to_reflectance"]

Coefficient = float | Mapping[str, float] | xr.DataArray


# --- masks -----------------------------------------------------------------------------------------


def clear_sky(
    scenes: xr.Dataset,
    *,
    buffer_m: float = 60,
    mask: Iterable[str] | None = None,
    haze: bool = False,
    scale: Coefficient | None = None,
    offset: Coefficient | None = None,
) -> xr.DataArray:
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
    haze : bool
        Also mask thin haze and shadow that the quality band misses: a date whose ``blue - red / 2`` (the
        haze-optimised transform) lies more than 0.025 above its minimum of the calendar year, or whose near and
        short-wave infrared both lie below 0.6 of their medians of the year. Needs blue, red, nir and swir16. A
        pixel's only clear date in a year is never taken.
    scale, offset : float, mapping of str to float, or DataArray (time, band), optional
        As for `to_reflectance`, for the haze test.

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
    quality = [quality_of(str(name), scenes[name].attrs) for name in scenes.data_vars if name in QUALITIES]
    chosen = chosen_flags(quality, None if mask is None else list(mask))
    half = half_widths(Grid.from_xarray(scenes), buffer_m)
    usable = observed([scenes[name] for name in bands])
    for entry, flags in zip(quality, chosen, strict=True):
        values = scenes[entry.name].data
        usable = usable & ~per_block(flagged, values, entry, flags)
        clouds = tuple(name for name in flags if name in entry.buffered)
        if clouds and half is not None:
            usable = usable & ~widened(values, entry, clouds, half)
    if haze:
        usable = usable & ~_hazy(scenes, usable, scale, offset)
    first = scenes[bands[0]]
    out = first.copy(data=usable).rename("clear")
    masked = " ".join(name for flags in chosen for name in flags)
    out.attrs = {"kind": "clear", "long_name": "usable observation", "units": "1", "buffer_m": float(buffer_m)}
    out.attrs["masked"] = f"{masked} haze shadow" if haze else masked
    out.encoding = {"grid_mapping": "spatial_ref"}
    return out.drop_vars([name for name in ("scale", "offset", "band") if name in out.coords])


def _hazy(scenes: xr.Dataset, usable: Any, scale: Coefficient | None, offset: Coefficient | None) -> Any:
    """Where the brightness tests speak against observations that the quality band leaves."""
    names = ["nir08" if name == "nir" and name not in scenes else name for name in HAZE_BANDS]
    lacking = [name for name in names if name not in scenes]
    if lacking:
        raise InputRefused(
            f"haze=True needs {', '.join(HAZE_BANDS)}, the scenes lack {', '.join(lacking)}; open these bands too"
        )
    if "time" not in scenes.coords:
        raise InputRefused("haze=True needs a time coordinate, since it compares the dates of a year")
    scales, offsets = (
        _coefficients(scenes, names, what, given) for what, given in (("scale", scale), ("offset", offset))
    )
    _check_known(scenes, names, scales, offsets)
    bands = [_scaled(scenes[name].data, usable, scales[:, i], offsets[:, i]) for i, name in enumerate(names)]
    return hazy_or_shadowed(bands, usable, scenes["time"].dt.year.values)


# --- reflectance -----------------------------------------------------------------------------------


def to_reflectance(
    scenes: xr.Dataset,
    *,
    where: xr.DataArray | None = None,
    scale: Coefficient | None = None,
    offset: Coefficient | None = None,
    check: bool = False,
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
    check : bool
        Whether to look for dates that an offset shifts against the others, see `geococa.check_radiometry`.

    Returns
    -------
    xarray.Dataset
        float32 per band, dims ``(time, y, x)``, ``units="1"``, ``kind="reflectance"``. A pixel that lacks data in
        any band is NaN in all bands: no-data never becomes a reflectance.

    Raises
    ------
    UnknownOffset
        Scale or offset of a scene are not known; the message names the scene and what was found.
    OffsetConflict
        With ``check``: the data contradict the offsets.
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
    if check:
        check_radiometry(result.assign_coords(band=names, offset=(("time", "band"), offsets)))
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
