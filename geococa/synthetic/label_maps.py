"""Land-cover maps of any size in a moment: random but spatially coherent, for benchmarks and tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyproj
import xarray as xr

from geococa.grid import Grid
from geococa.legend import NO_DATA, Legend
from geococa.synthetic.cover import CLASSES
from geococa.synthetic.noise import generator

__all__ = ["simple_land_cover"]

_SHARES = (0.05, 0.52, 0.12, 0.17, 0.06, 0.03, 0.03, 0.02)  # in the order of the classes
_CELLS = 9  # typical size of a patch, in cells


def simple_land_cover(
    shape: tuple[int, int],
    seed: int = 0,
    years: Sequence[int] = (2024,),
    *,
    pixel_m: float = 10.0,
    unobserved: float = 0.02,
    change: float = 0.25,
) -> xr.DataArray:
    """Make a land-cover map without geometry behind it: patches of random classes that drift over the years.

    Unlike `landscape` it has no vector truth; it is for benchmarks and for tests that need some map.

    Parameters
    ----------
    shape : tuple of int
        ``(rows, columns)``.
    seed : int
        Seed; the same arguments give the same map.
    years : sequence of int
        Years, one slice each.
    pixel_m : float
        Pixel size in metres; the map lies in UTM zone 18N at about 2.2 N.
    unobserved : float
        Share of pixels that were not observed (255), in blobs.
    change : float
        How much the map changes from one year to the next (0 = not at all).

    Returns
    -------
    xarray.DataArray of uint8, dims (time, y, x)
        ``kind="land_cover"``, classes 1..8 with CF flags, 255 = not observed, time = 31 December.

    Examples
    --------
    >>> simple_land_cover((40, 60), seed=1, years=[2020, 2021]).shape
    (2, 40, 60)
    """
    from scipy import ndimage

    rng = generator(seed, "simple land cover", *shape)
    cuts = np.cumsum(_SHARES)[:-1]
    step = np.arctan(change)

    def field() -> np.ndarray:
        noise = rng.standard_normal(shape, dtype=np.float32)
        return np.asarray(ndimage.gaussian_filter(noise, _CELLS / 2, mode="reflect", truncate=2.5))

    def rank(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
        return np.asarray(np.searchsorted(np.quantile(values, limits), values, side="right"))

    slices = []
    state = field()
    for _ in years:
        codes = (1 + rank(state, cuts)).astype(np.uint8)
        if unobserved > 0:
            codes[rank(field(), np.array([1.0 - unobserved])) > 0] = NO_DATA
        slices.append(codes)
        state = np.cos(step) * state + np.sin(step) * field()
    time = np.array([f"{year}-12-31" for year in years], dtype="datetime64[ns]")
    array = xr.DataArray(np.stack(slices), dims=("time", "y", "x"), coords={"time": time}, name="land_cover")
    array.attrs = {"kind": "land_cover", "long_name": "land cover", "nodata": NO_DATA, "units": "1"}
    array.attrs["_FillValue"] = np.uint8(NO_DATA)
    array.attrs |= Legend.of(CLASSES).to_attrs()
    return Grid(pyproj.CRS.from_epsg(32618), (pixel_m, 0, 600000.0, 0, -pixel_m, 250020.0), shape).attach(array)
