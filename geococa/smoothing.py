"""Neighbours inform each other: smoothing of class probabilities and the majority class of a window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused
from geococa.legend import NO_DATA

__all__ = ["majority", "smooth"]

_STRIP_ROWS = 256


def smooth(
    probability: xr.DataArray,
    *,
    window: int = 5,
    method: Literal["bayes", "mean"] = "bayes",
    smoothness: float | Mapping[str, float] | Sequence[float] = 10.0,
) -> xr.DataArray:
    """Smooth class probabilities over a square window, without filling unobserved pixels.

    Parameters
    ----------
    probability : xarray.DataArray
        float32 ``(land_cover, y, x)`` or ``(time, land_cover, y, x)`` from `geococa.classify`, in 0..1; NaN = not observed.
    window : int
        Side of the window in cells, odd; 1 changes nothing.
    method : {"bayes", "mean"}
        ``"bayes"``: the logit of each class is shrunk towards the mean of the window, the more the less the window
        varies, so edges between classes stay and specks go. ``"mean"``: mean of the observed pixels of the window.
    smoothness : float, mapping or sequence
        For ``"bayes"``: variance of a pixel's own logit about its true value, one for all classes, ``{class: value}``
        (10 for those left out) or one per class in order. 0 keeps a class as it is; large values approach the window mean.

    Returns
    -------
    xarray.DataArray
        float32 with the dims of the input, sums to 1, NaN exactly where the input has NaN.

    Raises
    ------
    InputRefused
        The window is even or not positive, or ``smoothness`` is negative or names an unknown class.

    Notes
    -----
    Halo: ``window // 2`` cells. A pixel depends on its window only, in a fixed order of summation, so blocks with
    that halo give the same bytes as the whole array. Beyond the array's edge the window is cut off.

    References
    ----------
    Camara, G., et al. (2024). Bayesian inference for post-processing of remote-sensing image classification. Remote
    Sensing 16(23), 4572.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> speck = np.full((2, 5, 5), 0.1, dtype="float32")
    >>> speck[1] = 0.9
    >>> speck[:, 2, 2] = 0.6, 0.4
    >>> probability = xr.DataArray(speck, dims=("land_cover", "y", "x"), coords={"land_cover": ["coca", "forest"]})
    >>> bool(smooth(probability, window=3)[0, 2, 2] < 0.5)
    True
    """
    check_kind(probability, "probability")
    check_dims(probability, "land_cover", "y", "x", optional=("time",))
    half = _half(window)
    if method not in ("bayes", "mean"):
        raise InputRefused(f"method must be 'bayes' or 'mean', got {method!r}")
    variance = _smoothness(smoothness, [str(name) for name in probability["land_cover"].values])
    if half == 0:
        return probability.astype(np.float32)

    def plane(block: np.ndarray, out: np.ndarray) -> None:
        from geococa._kernels import neighborhood

        if method == "mean":
            neighborhood.smooth_mean(block, half, out)
        else:
            neighborhood.smooth_bayes(block, half, variance, 1e-4, out)

    return _moving(probability, ("land_cover", "y", "x"), half, plane, np.dtype(np.float32))


def majority(land_cover: xr.DataArray, *, window: int = 3) -> xr.DataArray:
    """Give each pixel the most frequent class of its window.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` or ``(time, y, x)``; 255 = not observed.
    window : int
        Side of the window in cells, odd.

    Returns
    -------
    xarray.DataArray
        New map. On a tie the pixel's own class stays if it is among the most frequent, else the lowest code wins.
        255 has no vote and stays.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> codes = np.full((3, 3), 2, dtype="uint8")
    >>> codes[1, 1] = 1
    >>> int(majority(xr.DataArray(codes, dims=("y", "x")))[1, 1])
    2
    """
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "y", "x", optional=("time",))
    if land_cover.dtype != np.uint8:
        raise InputRefused(f"a land-cover map is uint8, got {land_cover.dtype}; make one with geococa.as_land_cover")
    half = _half(window)

    def plane(block: np.ndarray, out: np.ndarray) -> None:
        from geococa._kernels import neighborhood

        neighborhood.majority_window(block, half, NO_DATA, out)

    return _moving(land_cover, ("y", "x"), half, plane, np.dtype(np.uint8))


def _half(window: int) -> int:
    if int(window) != window or window < 1 or window % 2 == 0:
        raise InputRefused(f"window must be an odd number of cells such as 3 or 5, got {window!r}")
    return int(window) // 2


def _smoothness(given: float | Mapping[str, float] | Sequence[float], names: list[str]) -> np.ndarray:
    """One variance for each class."""
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(names))
        if unknown:
            raise InputRefused(f"smoothness names {unknown}, but the classes are {', '.join(names)}")
        values = np.array([given.get(name, 10.0) for name in names], dtype=np.float64)
    else:
        values = (
            np.array(np.broadcast_to(np.asarray(given, dtype=np.float64), len(names)))
            if np.ndim(given) == 0 or np.size(given) == len(names)
            else np.empty(0)
        )
    if values.size != len(names) or not np.all(np.isfinite(values) & (values >= 0)):
        raise InputRefused(
            f"smoothness must be zero or more, one value or one for each of the {len(names)} classes, got {given!r}"
        )
    return values


def _moving(
    array: xr.DataArray,
    core: tuple[str, ...],
    half: int,
    kernel: Callable[[np.ndarray, np.ndarray], None],
    dtype: np.dtype,
) -> xr.DataArray:
    """Run a window kernel over every slice of an array, eager or lazy."""
    ordered = array.transpose(..., *core)

    def block_function(block: np.ndarray) -> np.ndarray:
        slices = np.ascontiguousarray(block, dtype=dtype).reshape(-1, *block.shape[ordered.ndim - len(core) :])
        out = np.empty_like(slices)
        for source, target in zip(slices, out, strict=True):
            _by_strips(source, target, half, kernel)
        return out.reshape(block.shape)

    if is_lazy(ordered):
        import dask.array as da

        data = ordered.data.rechunk({axis: -1 for axis in range(ordered.ndim) if ordered.dims[axis] == "land_cover"})
        depth = {axis: (half if ordered.dims[axis] in ("y", "x") else 0) for axis in range(ordered.ndim)}
        result = da.map_overlap(
            block_function,
            data,
            depth=depth,
            boundary="none",
            trim=True,
            dtype=dtype,
            meta=np.empty((0,) * ordered.ndim, dtype),
        )
    else:
        result = block_function(np.asarray(ordered.data))
    return ordered.copy(data=result).transpose(*array.dims)


def _by_strips(
    source: np.ndarray, target: np.ndarray, half: int, kernel: Callable[[np.ndarray, np.ndarray], None]
) -> None:
    """Run a kernel over strips of rows with a halo, so that its scratch stays small on whole scenes."""
    rows = source.shape[-2]
    for start in range(0, rows, _STRIP_ROWS):
        stop = min(start + _STRIP_ROWS, rows)
        top, bottom = max(start - half, 0), min(stop + half, rows)
        block = np.ascontiguousarray(source[..., top:bottom, :])
        out = np.empty_like(block)
        kernel(block, out)
        target[..., start:stop, :] = out[..., start - top : stop - top, :]
