"""What makes a pixel unusable: flags of quality bands, missing data, and the surroundings of clouds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import optional_import
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.sensors import QUALITIES, Quality

__all__ = ["band_names", "chosen_flags", "flagged", "half_widths", "is_dask", "observed", "per_block", "widened"]

_DATE_LAYERS = ("observations", "date_used", "age_days", "fallback_observations")


def band_names(scenes: xr.Dataset) -> list[str]:
    """Names of the bands of a dataset: all variables but the quality bands and what tells of a composite's dates."""
    names = [str(name) for name in scenes.data_vars if name not in QUALITIES and name not in _DATE_LAYERS]
    if not names:
        raise InputRefused(f"no band among the variables {list(scenes.data_vars)}; open the tile with bands")
    return names


def chosen_flags(quality: Sequence[Quality], mask: list[str] | None) -> list[tuple[str, ...]]:
    """Return the flags to mask in each quality band; a name must be one of at least one of them."""
    if mask is None:
        return [entry.choose(None) for entry in quality]
    known = {name for entry in quality for name in entry.flags}
    unknown = sorted(set(mask) - known)
    if unknown:
        raise InputRefused(
            f"no quality band of the scenes has the flag {', '.join(unknown)}; "
            f"they have {', '.join(sorted(known)) or 'none'}"
        )
    return [entry.choose([name for name in mask if name in entry.flags]) for entry in quality]


def observed(bands: Sequence[xr.DataArray]) -> Any:
    """Return where every band has data: not the no-data value, not NaN, and within the valid range if it has one."""
    seen: Any = None
    for band in bands:
        here: Any = None
        nodata = band.attrs.get("nodata")
        if nodata is not None and not (isinstance(nodata, float) and math.isnan(nodata)):
            here = band.data != nodata
        for key, inside in (("valid_min", np.greater_equal), ("valid_max", np.less_equal)):
            if key in band.attrs:
                within = inside(band.data, band.attrs[key])
                here = within if here is None else here & within
        if band.dtype.kind == "f":
            finite = np.isfinite(band.data)
            here = finite if here is None else here & finite
        if here is not None:
            seen = here if seen is None else seen & here
    if seen is None:
        data = bands[0].data
        return per_block(lambda block: np.ones(block.shape, bool), data)
    return seen


def flagged(values: np.ndarray, quality: Quality, flags: Sequence[str]) -> np.ndarray:
    """Return where one of the flags is set; a class that the product does not define counts as flagged."""
    codes = [quality.flags[name] for name in flags]
    if quality.bits:
        bits = sum(1 << code for code in codes)
        return np.asarray((values & values.dtype.type(bits)) != 0)
    table = np.ones(256, bool)
    table[list(quality.flags.values())] = False
    table[codes] = True
    return table[values.astype(np.uint8, copy=False)]


def _cloudy(values: np.ndarray, quality: Quality, flags: Sequence[str]) -> np.ndarray:
    """Return where one of the flags is set and nothing else: what is widened."""
    codes = [quality.flags[name] for name in flags]
    if quality.bits:
        return flagged(values, quality, flags)
    table = np.zeros(256, bool)
    table[codes] = True
    return table[values.astype(np.uint8, copy=False)]


def half_widths(grid: Grid, buffer_m: float) -> np.ndarray | None:
    """Return half the width in cells of the buffer's disk for each row of the grid and each row offset.

    In geographic coordinates the width of a cell changes with latitude, so every row has its own disk; a block
    of a tile then gets the same mask as the whole tile.
    """
    if buffer_m == 0:
        return None
    a, b, _, d, e, f = tuple(grid.transform)[:6]
    rows = grid.shape[0]
    if grid.crs.is_geographic:
        latitude = np.radians(f + (np.arange(rows) + 0.5) * e)
        width_m, height_m = (
            abs(a) * 111_412.84 * np.cos(latitude) - abs(a) * 93.5 * np.cos(3 * latitude),
            abs(e) * 110_574.0,
        )
        width_m = np.maximum(width_m, 1e-3)
    else:
        unit = grid.crs.axis_info[0].unit_conversion_factor if grid.crs.axis_info else 1.0
        width_m = np.full(rows, math.hypot(a, d) * (unit or 1.0))
        height_m = math.hypot(b, e) * (unit or 1.0)
    reach = int(buffer_m / height_m + 1e-9)
    rest = np.maximum(buffer_m**2 - (np.arange(reach + 1) * height_m) ** 2, 0.0)
    half: np.ndarray = np.floor(np.sqrt(rest)[np.newaxis, :] / width_m[:, np.newaxis] + 1e-9).astype(np.int32)
    return half


def widened(values: Any, quality: Quality, flags: tuple[str, ...], half: np.ndarray) -> Any:
    """Return the flagged cells and those within the buffer around them, blocks of Dask arrays with their halo."""
    if not is_dask(values):
        return _widen(values, quality, flags, half)
    da = optional_import("dask.array", "dask")
    reach = {0: 0, 1: half.shape[1] - 1, 2: int(half.max())}
    data = values.rechunk({axis: _at_least(values.chunks[axis], reach[axis]) for axis in (1, 2)})
    padded = da.overlap.overlap(data, depth=reach, boundary="none", allow_rechunk=False)
    starts = np.concatenate([[0], np.cumsum(data.chunks[1])])
    columns = data.chunks[2]

    def block(part: np.ndarray, block_id: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
        _, i, j = block_id
        top, left = (reach[1] if i else 0), (reach[2] if j else 0)
        first = starts[i] - top
        out = _widen(part, quality, flags, half[first : first + part.shape[1]])
        return out[:, top : top + starts[i + 1] - starts[i], left : left + columns[j]]

    return da.map_blocks(block, padded, dtype=bool, chunks=data.chunks, meta=np.empty((0, 0, 0), bool))


def _at_least(sizes: tuple[int, ...], least: int) -> tuple[int, ...]:
    """Merge chunks smaller than a halo into their neighbours."""
    merged: list[int] = []
    for size in sizes:
        if merged and (size < least or merged[-1] < least):
            merged[-1] += size
        else:
            merged.append(size)
    return tuple(merged)


def _widen(values: np.ndarray, quality: Quality, flags: tuple[str, ...], half: np.ndarray) -> np.ndarray:
    from geococa._kernels.masks import widen

    clouds = _cloudy(values, quality, flags).view(np.uint8)
    out = np.zeros(values.shape, np.uint8)
    reach = np.ascontiguousarray(half)
    for source, target in zip(clouds, out, strict=True):
        if source.any():
            widen(np.ascontiguousarray(source), reach, target)
    return out.view(bool)


def is_dask(data: Any) -> bool:
    """Whether an array is lazy."""
    return hasattr(data, "dask")


def per_block(function: Callable[..., np.ndarray], data: Any, *arguments: Any) -> Any:
    """Apply an elementwise function that gives bool, lazily where the data are lazy."""
    if not is_dask(data):
        return function(data, *arguments)
    return data.map_blocks(function, *arguments, dtype=bool, meta=np.empty((0,) * data.ndim, bool))
