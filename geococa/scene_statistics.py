"""What the masks leave of each scene, and scenes that are not worth reading."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind, optional_import
from geococa.errors import GridMismatch, InputRefused
from geococa.mask_rules import band_names, flagged, is_dask, observed, per_block
from geococa.sensors import QUALITIES, Quality, quality_of

__all__ = ["drop_useless_scenes", "mask_statistics", "useless"]

log = logging.getLogger("geococa")

_KINDS = {
    "cloud_share": ("cloud_medium_probability", "cloud_high_probability", "thin_cirrus", "dilated_cloud", "cirrus", "cloud"),
    "shadow_share": ("cloud_shadow",),
    "snow_share": ("snow_ice", "snow"),
}  # fmt: skip


def mask_statistics(scenes: xr.Dataset, clear: xr.DataArray) -> pd.DataFrame:
    """Count what the masks leave of each scene.

    Parameters
    ----------
    scenes : xarray.Dataset
        From `geococa.open_tile`, numpy or Dask.
    clear : xarray.DataArray
        bool ``(time, y, x)`` from `geococa.clear_sky` for these scenes.

    Returns
    -------
    pandas.DataFrame
        One row a scene: ``time``, ``scene``, ``valid_share`` (cells with data in every band), ``cloud_share``,
        ``shadow_share``, ``snow_share`` (what the quality band says; NaN without one) and ``clear_share`` (after
        buffers and all tests). Shares are of all cells, so they need not sum to 1.

    Raises
    ------
    GridMismatch
        ``clear`` is of other scenes.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from geococa.reflectance import clear_sky
    >>> from geococa.grid import Grid
    >>> dims = ("time", "y", "x")
    >>> scenes = xr.Dataset(
    ...     {"red": (dims, np.ones((1, 2, 2), "uint16")), "scl": (dims, np.array([[[4, 4], [9, 3]]], "uint8"))},
    ...     coords=Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (2, 2)).coordinates(),
    ... )
    >>> found = mask_statistics(scenes, clear_sky(scenes, buffer_m=0))
    >>> found[["valid_share", "cloud_share", "shadow_share", "clear_share"]].values.tolist()
    [[1.0, 0.25, 0.25, 0.5]]
    """
    check_kind(scenes, "scenes")
    check_kind(clear, "clear")
    check_dims(scenes, "time", "y", "x", optional=("band",))
    shape = tuple(scenes.sizes[dim] for dim in ("time", "y", "x"))
    if clear.shape != shape:
        raise GridMismatch(f"clear is {clear.shape}, the scenes are {shape}; make it from these scenes with clear_sky")
    counts = _counts(scenes, clear)
    cells = shape[1] * shape[2]
    table = pd.DataFrame({name: values / cells for name, values in counts.items()})
    dates = scenes["time"].values if "time" in scenes.coords else np.arange(shape[0])
    names = scenes["scene"].values.astype(str) if "scene" in scenes.coords else np.full(shape[0], "")
    table.insert(0, "time", dates)
    table.insert(1, "scene", names)
    return table


def _counts(scenes: xr.Dataset, clear: xr.DataArray) -> dict[str, np.ndarray]:
    """Cells of each kind by date."""
    quality = [quality_of(str(name), scenes[name].attrs) for name in scenes.data_vars if name in QUALITIES]
    masks: dict[str, Any] = {"valid_share": observed([scenes[name] for name in band_names(scenes)])}
    for kind, flags in _KINDS.items():
        for entry in quality:
            known = tuple(name for name in flags if name in entry.flags)
            if known:
                masks[kind] = per_block(_exactly, scenes[entry.name].data, entry, known)
    for entry in quality:
        masks["valid_share"] = masks["valid_share"] & ~per_block(
            _exactly, scenes[entry.name].data, entry, entry.no_data
        )
    masks["clear_share"] = clear.data
    sums = {name: mask.sum(axis=(1, 2)) for name, mask in masks.items()}
    if any(is_dask(value) for value in sums.values()):
        [sums] = optional_import("dask", "dask").compute(sums)
    order = ("valid_share", *_KINDS, "clear_share")
    missing = np.full(scenes.sizes["time"], np.nan)
    return {name: np.asarray(sums.get(name, missing), np.float64) for name in order}


def _exactly(values: np.ndarray, quality: Quality, flags: tuple[str, ...]) -> np.ndarray:
    """Return where one of the flags is set; unlike the mask, a class that nobody defines is none of them."""
    if quality.bits:
        return flagged(values, quality, flags)
    return np.isin(values, [quality.flags[name] for name in flags])


def useless(table: pd.DataFrame, min_clear_share: float) -> dict[int, str]:
    """Rows of `mask_statistics` that are not worth reading, and why.

    Parameters
    ----------
    table : pandas.DataFrame
        From `mask_statistics`.
    min_clear_share : float
        Share of all cells, 0..1. A scene without one clear cell is useless in any case.

    Returns
    -------
    dict of int to str
        Reason by row number.
    """
    if not 0 <= min_clear_share <= 1:
        raise InputRefused(f"min_clear_share must be from 0 to 1, got {min_clear_share}")
    reasons: dict[int, str] = {}
    for row, (valid, clear) in enumerate(table[["valid_share", "clear_share"]].to_numpy(np.float64)):
        if valid == 0:
            reasons[row] = "no data in any cell"
        elif clear == 0:
            reasons[row] = "no clear cell"
        elif clear < min_clear_share:
            reasons[row] = f"{clear:.2%} of the cells are clear, at least {min_clear_share:.2%} are asked for"
    return reasons


def drop_useless_scenes(
    scenes: xr.Dataset, clear: xr.DataArray, *, min_clear_share: float = 0.0
) -> tuple[xr.Dataset, xr.DataArray]:
    """Leave out scenes that show too little of the ground, and say which and why.

    Parameters
    ----------
    scenes, clear
        As for `mask_statistics`.
    min_clear_share : float
        Scenes with a smaller share of clear cells are left out; those without any always are.

    Returns
    -------
    scenes : xarray.Dataset
        Without the useless ones; ``attrs["dropped_scenes"]`` names each with its reason.
    clear : xarray.DataArray
        Its mask.

    Raises
    ------
    InputRefused
        No scene is left.

    Examples
    --------
    >>> import geococa as coca
    >>> scenes = coca.open_tile("sample_tiles/18NXG", years=[2024], bands=["red"], window=(0, 60, 0, 60))
    >>> clear = coca.clear_sky(scenes)
    >>> kept, clear = coca.drop_useless_scenes(scenes, clear, min_clear_share=0.5)
    >>> scenes.sizes["time"], kept.sizes["time"]
    (4, 1)
    """
    reasons = useless(table := mask_statistics(scenes, clear), min_clear_share)
    if len(reasons) == len(table):
        raise InputRefused(
            f"all {len(table)} scenes are useless, the first because of: {reasons[0]}; add scenes or lower min_clear_share"
        )
    names = [name or str(day)[:10] for name, day in zip(table["scene"], table["time"], strict=True)]
    named = [f"{names[row]}: {reason}" for row, reason in reasons.items()]
    for line in named:
        log.info("scene left out: %s", line)
    kept = [row for row in range(len(table)) if row not in reasons]
    chosen = scenes.isel(time=kept)
    if named:
        chosen = chosen.assign_attrs(dropped_scenes="; ".join(named))
    return chosen, clear.isel(time=kept)
