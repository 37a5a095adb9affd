"""Texture around every pixel: local mean and spread, and grey-level co-occurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused
from geococa.feature_stack import as_features

__all__ = ["TEXTURE_STATISTICS", "texture_features"]

TEXTURE_STATISTICS = ("mean", "std", "contrast", "homogeneity", "entropy")
"""Statistics that `texture_features` knows."""


def texture_features(
    array: xr.DataArray,
    *,
    window: int = 5,
    statistics: Sequence[str] = ("mean", "std"),
    levels: int = 16,
    value_range: tuple[float, float] = (0.0, 1.0),
) -> xr.DataArray:
    """Compute texture in a moving window around every pixel.

    Parameters
    ----------
    array : xarray.DataArray
        float ``(time, feature, y, x)`` or ``(feature, y, x)``, NaN = not observed; or one named layer without
        ``feature``.
    window : int
        Side of the window in cells, odd. At the edge of the array the window is cut off.
    statistics : sequence of str
        ``mean``, ``std`` (population) of the observed cells; ``contrast``, ``homogeneity``, ``entropy`` of the
        symmetric grey-level co-occurrence matrix over the four directions at distance 1.
    levels : int
        Grey levels of the co-occurrence matrix.
    value_range : tuple of float
        Values of the lowest and highest grey level; beyond it values are clipped. It is fixed, not taken from the data,
        so that results do not depend on how a scene is cut up.

    Returns
    -------
    xarray.DataArray
        float32, one feature ``{name}_{statistic}{window}`` for each input feature and statistic; NaN where the
        centre is NaN. Dask in, Dask out.

    References
    ----------
    Haralick, R. M., Shanmugam, K. and Dinstein, I. (1973), Textural features for image classification, IEEE
    Transactions on Systems, Man, and Cybernetics 3(6), 610-621.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> import geococa as coca
    >>> grid = coca.Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (6, 6))
    >>> values = np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 6, 6)
    >>> layer = grid.attach(xr.DataArray(values, dims=("feature", "y", "x"), coords={"feature": ["nir"]}, attrs={"kind": "features"}))
    >>> coca.texture_features(layer, window=3)["feature"].values.tolist()
    ['nir_mean3', 'nir_std3']
    """
    check_kind(array, "features", "reflectance", "composite")
    if window < 3 or window % 2 == 0:
        raise InputRefused(f"the texture window must be odd and at least 3 cells wide, got {window}")
    unknown = [name for name in statistics if name not in TEXTURE_STATISTICS]
    if unknown or not statistics or len(set(statistics)) != len(statistics):
        raise InputRefused(f"texture statistics are {', '.join(TEXTURE_STATISTICS)}, each once, got {list(statistics)}")
    if not (2 <= levels <= 256 and value_range[0] < value_range[1]):
        raise InputRefused(
            f"co-occurrence needs 2 to 256 levels and an increasing range, got {levels} and {value_range}"
        )
    source = array if "feature" in array.dims else array.expand_dims(feature=[str(array.name or "layer")])
    check_dims(source, "feature", "y", "x", optional=("time",))
    dims = ("time", "feature", "y", "x") if "time" in source.dims else ("feature", "y", "x")
    source = source.transpose(*dims)
    settings: dict[str, Any] = {
        "window": window,
        "statistics": tuple(statistics),
        "levels": levels,
        "value_range": value_range,
    }
    data: Any = source.data
    if is_lazy(source):
        import dask.array

        grown = dask.array.overlap.overlap(data, depth=(0,) * (data.ndim - 2) + (window // 2,) * 2, boundary="none")
        data = dask.array.map_blocks(
            _texture, grown, **settings, dtype=np.float32, meta=np.empty((0,) * data.ndim, np.float32),
            chunks=(*grown.chunks[:-3], tuple(n * len(statistics) for n in grown.chunks[-3]), *grown.chunks[-2:]),
        )  # fmt: skip
        depth = {data.ndim - 2: window // 2, data.ndim - 1: window // 2}
        data = dask.array.overlap.trim_internal(data, depth, boundary="none")
    else:
        data = _texture(np.asarray(data), **settings)
    labels = [f"{name}_{statistic}{window}" for name in source["feature"].values for statistic in statistics]
    return as_features(data, ("time", "y", "x") if "time" in dims else ("y", "x"), labels, array)


def _texture(
    block: np.ndarray, *, window: int, statistics: tuple[str, ...], levels: int, value_range: tuple[float, float]
) -> np.ndarray:
    """Textures ``(..., feature * statistic, y, x)`` of a block ``(..., feature, y, x)``."""
    from geococa._kernels import texture

    rows, columns = block.shape[-2:]
    planes = np.ascontiguousarray(block, dtype=np.float32).reshape(-1, rows, columns)
    out = np.empty((len(planes), len(statistics), rows, columns), np.float32)
    moments, glcm = np.empty((2, rows, columns), np.float32), np.empty((3, rows, columns), np.float32)
    layers = dict(zip(TEXTURE_STATISTICS, [*moments, *glcm], strict=True))
    for plane, target in zip(planes, out, strict=True):
        if {"mean", "std"} & set(statistics):
            texture.local_moments(plane, window // 2, np.empty((3, columns)), moments[0], moments[1])
        if set(TEXTURE_STATISTICS[2:]) & set(statistics):
            texture.cooccurrence(_grey_levels(plane, levels, value_range), levels, window // 2, glcm)
        for k, name in enumerate(statistics):
            target[k] = layers[name]
    return out.reshape(*block.shape[:-3], block.shape[-3] * len(statistics), rows, columns)


def _grey_levels(plane: np.ndarray, levels: int, value_range: tuple[float, float]) -> np.ndarray:
    """Grey level of each cell, ``levels`` where it was not observed."""
    low, high = value_range
    seen = ~np.isnan(plane)
    share = (np.where(seen, plane, low) - low) / (high - low)
    return np.where(seen, np.clip(np.floor(share * levels), 0, levels - 1), levels).astype(np.int64)
