"""From class probabilities to a map of the most probable classes."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused, KindMismatch
from geococa.legend import NO_DATA, UNCLASSIFIED, Legend

__all__ = ["as_label_map", "label", "legend_of"]


def label(probability: xr.DataArray, *, min_probability: float = 0.0) -> xr.DataArray:
    """Give every pixel its most probable class.

    Parameters
    ----------
    probability : xarray.DataArray
        float32 ``(land_cover, y, x)`` or ``(time, land_cover, y, x)`` with class names in the coordinate ``land_cover``;
        NaN in any class = not observed. Codes come from the CF flags in the attributes (`geococa.classify` writes
        them), else the classes get 1, 2, 3, ... in their order.
    min_probability : float
        Observed pixels whose highest probability is below this become 0, "unclassified". In 0..1.

    Returns
    -------
    xarray.DataArray
        ``land_cover``, uint8 ``(y, x)`` or ``(time, y, x)`` with CF flags; 255 = not observed, 0 = unclassified. Ties
        go to the first class. Dask in gives Dask out.

    Raises
    ------
    InputRefused
        ``min_probability`` is not in 0..1, or code 0 is taken by a class while pixels may stay unclassified.
    KindMismatch
        The array is not probabilities, or has no class names.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> values = np.array([[[0.7, 0.4]], [[0.3, np.nan]]], dtype="float32")
    >>> probability = xr.DataArray(values, dims=("land_cover", "y", "x"), coords={"land_cover": ["coca", "forest"]})
    >>> label(probability).values.tolist()
    [[1, 255]]
    """
    check_kind(probability, "probability")
    check_dims(probability, "land_cover", "y", "x", optional=("time",))
    if not 0.0 <= min_probability <= 1.0:
        raise InputRefused(f"min_probability must lie in 0..1, got {min_probability!r}")
    legend, codes = legend_of(probability, may_be_unclassified=min_probability > 0)
    ordered = probability.transpose(..., "land_cover", "y", "x")
    axis = ordered.ndim - 3

    def decide(block: np.ndarray) -> np.ndarray:
        from geococa._kernels import decision

        values = np.ascontiguousarray(block, dtype=np.float32).reshape(
            -1, block.shape[axis], block.shape[-2] * block.shape[-1]
        )
        out = np.empty((values.shape[0], values.shape[2]), dtype=np.uint8)
        for source, target in zip(values, out, strict=True):
            decision.most_probable(source, codes, np.float32(min_probability), UNCLASSIFIED, NO_DATA, target)
        return out.reshape(*block.shape[:axis], *block.shape[-2:])

    if is_lazy(ordered):
        data = ordered.data.rechunk({axis: -1})
        result = data.map_blocks(
            decide, drop_axis=axis, dtype=np.uint8, meta=np.empty((0,) * (ordered.ndim - 1), np.uint8)
        )
    else:
        result = decide(np.asarray(ordered.data))
    return as_label_map(result, ordered, legend)


def as_label_map(codes: object, probability: xr.DataArray, legend: Legend) -> xr.DataArray:
    """Codes ``(..., y, x)`` as a map with the coordinates of the probabilities ``(..., land_cover, y, x)`` they come from."""
    out = probability.isel(land_cover=0, drop=True).copy(data=codes).rename("land_cover")
    kept = {key: value for key, value in probability.attrs.items() if key == "grid_mapping"}
    out.attrs = {
        **kept,
        "kind": "land_cover",
        "long_name": "land cover",
        "units": "1",
        "nodata": NO_DATA,
        "_FillValue": np.uint8(NO_DATA),
        **legend.with_unclassified().to_attrs(),
    }
    out.encoding = {key: value for key, value in probability.encoding.items() if key == "grid_mapping"}
    return out


def legend_of(probability: xr.DataArray, *, may_be_unclassified: bool) -> tuple[Legend, np.ndarray]:
    """Legend of the classes, and their codes in the order of the array, uint8.

    Refused where a class has the code of pixels that stay unclassified, and there may be some.
    """
    if "land_cover" not in probability.coords:
        raise KindMismatch(
            "probabilities need class names in the coordinate 'land_cover'; add them with "
            "probability.assign_coords(land_cover=[...])"
        )
    names = [str(name) for name in probability["land_cover"].values]
    legend = Legend.from_attrs(probability.attrs) if "flag_values" in probability.attrs else Legend.of(names)
    missing = [name for name in names if name not in legend.names]
    if missing:
        raise InputRefused(
            f"the flags of the array name {', '.join(legend.names)}, but not its classes {missing}; "
            "drop the attributes flag_values and flag_meanings, or set them again"
        )
    codes = np.array([legend.code(name) for name in names], dtype=np.uint8)
    if may_be_unclassified and UNCLASSIFIED in codes:
        raise InputRefused(
            f"class {legend.names[legend.codes.index(UNCLASSIFIED)]!r} has code 0, which means unclassified; "
            "give it another code, or use min_probability=0"
        )
    return legend, codes
