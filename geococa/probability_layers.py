"""Layers that say how decided each pixel of a map is."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused

__all__ = ["uncertainty"]


def uncertainty(probability: xr.DataArray) -> xr.Dataset:
    """Entropy and margin of class probabilities.

    Parameters
    ----------
    probability : xarray.DataArray
        float32 ``([time,] land_cover, y, x)``, at least two classes, NaN in any class = not observed.

    Returns
    -------
    xarray.Dataset
        ``entropy``, float32 ``([time,] y, x)``: Shannon's entropy as a share of the largest possible one (that of
        equally probable classes), 0 = one class is certain, 1 = nothing is known. ``margin``: best minus second
        probability, 0..1, 1 = one class is certain. NaN = not observed. Dask in gives Dask out.

    Raises
    ------
    InputRefused
        Fewer than two classes.
    KindMismatch
        The array is not probabilities.

    References
    ----------
    Shannon, C. E. (1948), A mathematical theory of communication, Bell System Technical Journal 27, 379-423.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> values = np.array([[[0.5, 1.0]], [[0.5, 0.0]]], dtype="float32")
    >>> layers = uncertainty(xr.DataArray(values, dims=("land_cover", "y", "x")))
    >>> layers["entropy"].values.tolist(), layers["margin"].values.tolist()
    ([[1.0, 0.0]], [[0.0, 1.0]])
    """
    check_kind(probability, "probability")
    check_dims(probability, "land_cover", "y", "x", optional=("time",))
    if probability.sizes["land_cover"] < 2:
        raise InputRefused(f"a margin needs at least two classes, got {probability.sizes['land_cover']}")
    order = ("time", "land_cover", "y", "x") if "time" in probability.dims else ("land_cover", "y", "x")
    ordered = probability.transpose(*order)
    axis = ordered.get_axis_num("land_cover")
    layers = _lazy(ordered.data, axis) if is_lazy(ordered) else _layers(np.asarray(ordered.data))
    like = ordered.isel(land_cover=0, drop=True)
    texts = {"entropy": "entropy of class probabilities over its maximum", "margin": "best minus second probability"}
    out = {}
    for number, (name, text) in enumerate(texts.items()):
        made = like.copy(data=layers[number]).rename(name)
        made.attrs = {"kind": name, "units": "1", "long_name": text}
        made.attrs |= {
            key: value for key, value in probability.attrs.items() if key in ("grid_mapping", "model_sha256")
        }
        made.encoding = {key: value for key, value in probability.encoding.items() if key == "grid_mapping"}
        out[name] = made
    return xr.Dataset(out, attrs={"kind": "uncertainty"})


def _lazy(data: Any, axis: int) -> Any:
    import dask.array

    data = data.rechunk({axis: -1})
    chunks = ((2,), *data.chunks[:axis], *data.chunks[axis + 1 :])
    return dask.array.map_blocks(
        _layers, data, dtype=np.float32, drop_axis=axis, new_axis=0, chunks=chunks,
        meta=np.empty((0,) * data.ndim, np.float32),
    )  # fmt: skip


def _layers(block: np.ndarray) -> np.ndarray:
    """Entropy and margin ``(2, [time,] y, x)`` of ``([time,] land_cover, y, x)``."""
    from geococa._kernels import certainty

    *lead, classes, rows, columns = block.shape
    planes = np.ascontiguousarray(block, dtype=np.float32).reshape(-1, classes, rows * columns)
    out = np.empty((2, len(planes), rows * columns), np.float32)
    for number, plane in enumerate(planes):
        certainty.entropy_and_margin(plane, out[0, number], out[1, number])
    return out.reshape(2, *lead, rows, columns)
