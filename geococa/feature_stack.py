"""Feature stacks: how feature values are wrapped, and stacks put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, check_same_grid
from geococa.errors import GridMismatch, InputRefused

__all__ = ["as_features", "by_windows", "stack_features"]


def as_features(data: Any, dims: Sequence[str], labels: Sequence[str], like: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Wrap feature values with the coordinates of the array that they come from.

    Parameters
    ----------
    data : numpy.ndarray or dask.array.Array
        float32 ``(..., feature, y, x)``.
    dims : sequence of str
        Dims without ``feature``: ``("time", "y", "x")`` or ``("y", "x")``.
    labels : sequence of str
        Names of the features.
    like : xarray.Dataset or xarray.DataArray
        Array with the coordinates to keep.
    """
    coords: dict[str, Any] = {
        str(name): value
        for name, value in like.coords.items()
        if set(value.dims) <= {"time", "y", "x"}
        and (set(value.dims) & set(dims) or not value.dims)
        and (name in (*dims, "spatial_ref", "crs") or (name == "time" and not value.dims))
    }
    coords["feature"] = list(labels)
    out = xr.DataArray(data, dims=(*dims[:-2], "feature", "y", "x"), coords=coords, name="features")
    out.attrs = {"kind": "features", "units": "1", "long_name": "features"}
    if "spatial_ref" in coords:
        out.encoding["grid_mapping"] = "spatial_ref"
    return out


def by_windows(
    function: Callable[[tuple[int, int, int, int]], np.ndarray],
    count: int,
    shape: tuple[int, int],
    chunks: Mapping[str, int],
) -> Any:
    """Dask array ``(count, rows, columns)`` whose blocks a function gives for their windows when they are computed.

    Parameters
    ----------
    function : callable
        From ``(row_start, row_stop, column_start, column_stop)`` to float32 ``(count, rows, columns)``.
    count : int
        Number of features.
    shape : tuple of int
        Rows and columns of the whole.
    chunks : mapping of str to int
        Rows and columns of a block by ``y`` and ``x``; 512 where not given.
    """
    import dask.array

    unknown = sorted(set(chunks) - {"y", "x"})
    if unknown:
        raise InputRefused(f"chunks name {', '.join(unknown)}; features have the dims y and x to cut")
    sides = dask.array.core.normalize_chunks((chunks.get("y", 512), chunks.get("x", 512)), shape)
    starts = [np.cumsum((0, *side)) for side in sides]

    def block(block_id: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
        rows, columns = ((int(at[i]), int(at[i + 1])) for at, i in zip(starts, block_id[1:], strict=True))
        return function((*rows, *columns))

    return dask.array.map_blocks(
        block, chunks=((count,), *sides), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32)
    )


def stack_features(*arrays: xr.DataArray) -> xr.DataArray:
    """Put feature stacks of one grid and the same years together.

    Parameters
    ----------
    *arrays : xarray.DataArray
        ``(time, feature, y, x)`` or ``(feature, y, x)``, all with the same grid and times.

    Returns
    -------
    xarray.DataArray
        All features in the order given.

    Raises
    ------
    GridMismatch
        Grids or times differ.
    InputRefused
        A feature name comes twice, or nothing was given.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> import geococa as coca
    >>> grid = coca.Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (6, 6))
    >>> values = np.linspace(0, 1, 36, dtype=np.float32).reshape(1, 6, 6)
    >>> layer = grid.attach(xr.DataArray(values, dims=("feature", "y", "x"), coords={"feature": ["nir"]}, attrs={"kind": "features"}))
    >>> coca.stack_features(layer, layer.assign_coords(feature=["red"]))["feature"].values.tolist()
    ['nir', 'red']
    """
    if not arrays:
        raise InputRefused("stack_features needs at least one feature stack")
    first = arrays[0]
    for number, array in enumerate(arrays):
        check_kind(array, "features")
        check_dims(array, "feature", "y", "x", optional=("time",))
        check_same_grid(first, array, names=("the first stack", f"stack {number + 1}"))
        times = [np.asarray(stack["time"].values if "time" in stack.coords else []) for stack in (first, array)]
        if ("time" in first.dims) != ("time" in array.dims) or not np.array_equal(times[0], times[1]):
            raise GridMismatch(
                f"stack {number + 1} has other times than the first: {times[1]} against {times[0]}; "
                "select the common years of both"
            )
    labels = [str(name) for array in arrays for name in array["feature"].values]
    twice = sorted({name for name in labels if labels.count(name) > 1})
    if twice:
        raise InputRefused(f"features {', '.join(twice)} come twice; ask for each once")
    dims = ("time", "feature", "y", "x") if "time" in first.dims else ("feature", "y", "x")
    # positions, not rounded coordinates, decide: grids were compared above
    concatenate = _concatenate([array.transpose(*dims).data for array in arrays], len(dims) - 3)
    return as_features(concatenate, tuple(dim for dim in dims if dim != "feature"), labels, first)


def _concatenate(parts: list[Any], axis: int) -> Any:
    join: Callable[..., Any] = np.concatenate
    if any(not isinstance(part, np.ndarray) for part in parts):
        import dask.array

        join = dask.array.concatenate
    return join(parts, axis=axis)
