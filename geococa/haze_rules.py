"""Thin haze and shadow that quality bands miss, found by comparing each date with the clearest ones of its year.

Both tests look at one pixel and one calendar year at a time, so a block, a tile and a series give the same answer,
and neither can take a pixel's only observation away: what has nothing to be compared with stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geococa._checks import optional_import
from geococa.mask_rules import is_dask

__all__ = ["HAZE_BANDS", "HAZE_RISE", "SHADOW_RATIO", "hazy_or_shadowed"]

HAZE_BANDS = ("blue", "red", "nir", "swir16")
"""Bands that the tests need."""

HAZE_RISE = 0.025
"""Rise of ``blue - red / 2`` above its minimum of the year from which a date is hazy, in reflectance.

The haze-optimised transform of Zhang et al. (2002) in the fixed form of Zhu and Woodcock (2012): soil, plants and roofs
lie along a line on which it hardly changes (a clearing moves it by 0.01), haze and thin cloud leave that line.
"""

SHADOW_RATIO = 0.6
"""Share of the year's median, in near and short-wave infrared at once, below which a date is shadowed.

The idea of Zhu and Woodcock (2014, Tmask), as a ratio. Water that covers land is told from shadow by its red, which
does not fall.
"""


def hazy_or_shadowed(bands: Sequence[Any], usable: Any, years: np.ndarray) -> Any:
    """Return where a usable observation is hazy or lies in shadow.

    Parameters
    ----------
    bands : sequence of 4 arrays (time, y, x) float32
        Reflectance in the order of `HAZE_BANDS`, numpy or Dask.
    usable : array (time, y, x) bool
        What the quality band leaves.
    years : numpy.ndarray of int, shape (time,)
        Calendar year of each date.

    Returns
    -------
    array (time, y, x) bool
        Lazy where the input is.

    References
    ----------
    Zhang, Guindon & Cihlar (2002), doi:10.1016/S0034-4257(02)00034-2. Zhu & Woodcock (2012),
    doi:10.1016/j.rse.2011.10.028. Zhu & Woodcock (2014), doi:10.1016/j.rse.2014.06.012.
    """
    if not any(is_dask(part) for part in (*bands, usable)):
        return _flags(years, np.asarray(usable), *(np.asarray(band) for band in bands))
    da = optional_import("dask.array", "dask")
    first = next(part for part in (*bands, usable) if is_dask(part))
    chunks = ((first.shape[0],), *first.chunks[1:])

    def whole_series(part: Any) -> Any:
        return part.rechunk(chunks) if is_dask(part) else da.from_array(part, chunks=chunks)

    def flags(mask: np.ndarray, *parts: np.ndarray) -> np.ndarray:
        return _flags(years, mask, *parts)

    lazy = da.map_blocks(
        flags, *(whole_series(part) for part in (usable, *bands)), dtype=bool, meta=np.empty((0, 0, 0), bool)
    )
    return lazy.rechunk(first.chunks)


def _flags(
    years: np.ndarray, usable: np.ndarray, blue: np.ndarray, red: np.ndarray, nir: np.ndarray, swir: np.ndarray
) -> np.ndarray:
    out = np.zeros(usable.shape, bool)
    for year in np.unique(years):
        dates = np.flatnonzero(years == year)
        clear = usable[dates]
        rise = blue[dates] - 0.5 * red[dates]
        base = np.where(clear, rise, np.float32(np.inf)).min(axis=0)
        hazy = clear & (rise - base > np.float32(HAZE_RISE))
        rest = clear & ~hazy
        dark = rest.copy()
        for band in (nir, swir):
            dark &= band[dates] < np.float32(SHADOW_RATIO) * _masked_median(band[dates], rest)
        # water over land is no darker in the red than the land was
        dark &= red[dates] < _masked_median(red[dates], rest) + np.float32(0.01)
        out[dates] = hazy | dark
    return out


def _masked_median(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Median over time of the masked-in values, NaN where there are none."""
    ordered = np.sort(np.where(mask, values, np.float32(np.nan)), axis=0)  # NaN last
    count = mask.sum(axis=0)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, len(values) - 1)
    pick = [np.take_along_axis(ordered, index[np.newaxis], axis=0)[0] for index in (low, high)]
    middle: np.ndarray = (pick[0] + pick[1]) * np.float32(0.5)
    return middle
