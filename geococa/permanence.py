"""Permanence of a class at every pixel over the last years."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused
from geococa.legend import NO_DATA, Legend
from geococa.zone_blocks import map_years

__all__ = ["persistence"]


def persistence(
    land_cover: xr.DataArray,
    *,
    class_name: str = "coca",
    window_years: int = 10,
    permanent_share: float = 0.7,
    intermittent_share: float = 0.3,
    new_years: int = 2,
    abandoned_years: int = 3,
    min_observed_years: int = 3,
) -> xr.DataArray:
    """Permanence of a class at every pixel over the last years: permanent, intermittent, new, abandoned, ...

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(time, y, x)`` with CF flags, one time a year; 255 = not observed. NumPy or Dask.
    class_name : str
        The class.
    window_years : int
        The last so many years of the series count.
    permanent_share, intermittent_share : float
        Shares of the observed years with the class from which on a pixel is permanent or intermittent.
    new_years : int
        First seen in the last so many years, and observed before: new.
    abandoned_years : int
        Seen before, but in none of the last so many years, all but one of which at least were observed: abandoned.
    min_observed_years : int
        Pixels observed in fewer years get 255.

    Returns
    -------
    xarray.DataArray
        uint8 ``(y, x)`` with CF flags 1 permanent, 2 intermittent, 3 new, 4 abandoned, 5 occasional (in fewer years than
        intermittent), 6 absent (observed, never of the class), 255. It is a land-cover map, so `geococa.zonal_area` gives the hectares.

    Raises
    ------
    InputRefused
        A parameter is out of range or the legend lacks the class.

    Notes
    -----
    The rules are tried in the order new, abandoned, permanent, intermittent, occasional.

    Examples
    --------
    >>> codes = np.array([1, 1, 1, 2, 1, 1, 1, 1], dtype="uint8").reshape(8, 1, 1)
    >>> from geococa import as_land_cover
    >>> int(persistence(as_land_cover(xr.DataArray(codes, dims=("time", "y", "x")), ["coca", "forest"])).squeeze())
    1
    """
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "time", "y", "x")
    if not 0.0 < intermittent_share <= permanent_share <= 1.0:
        raise InputRefused(
            "expected 0 < intermittent_share <= permanent_share <= 1, got "
            f"{intermittent_share!r} and {permanent_share!r}"
        )
    for name, value in (
        ("window_years", window_years),
        ("new_years", new_years),
        ("abandoned_years", abandoned_years),
        ("min_observed_years", min_observed_years),
    ):
        if value < 1:
            raise InputRefused(f"{name} must be at least 1, got {value}")
    code = Legend.from_attrs(land_cover.attrs).code(class_name)
    ordered = land_cover.transpose("time", "y", "x")
    years = np.array(map_years(ordered))
    ordered = ordered.isel(time=np.flatnonzero(years > years[-1] - window_years))
    years = years[years > years[-1] - window_years]

    def classes(block: np.ndarray) -> np.ndarray:
        present, seen = block == code, block != NO_DATA
        late, last = years > years[-1] - new_years, years > years[-1] - abandoned_years
        rate = present.sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
        new = present[late].any(axis=0) & ~present[~late].any(axis=0) & seen[~late].any(axis=0)
        gone = (
            ~present[last].any(axis=0) & (seen[last].sum(axis=0) >= max(1, abandoned_years - 1)) & present.any(axis=0)
        )
        rules = [
            seen.sum(axis=0) < min_observed_years,
            ~present.any(axis=0),
            new,
            gone,
            rate >= permanent_share,
            rate >= intermittent_share,
        ]
        return np.select(rules, [NO_DATA, 6, 3, 4, 1, 2], default=5).astype(np.uint8)

    if is_lazy(ordered):
        data = ordered.data.rechunk({0: -1})
        result = data.map_blocks(classes, drop_axis=0, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    else:
        result = classes(np.asarray(ordered.data))
    out = ordered.isel(time=0, drop=True).copy(data=result).rename("persistence")
    legend = Legend(
        ("permanent", "intermittent", "new", "abandoned", "occasional", "absent"),
        (1, 2, 3, 4, 5, 6),
        ("#7a0177", "#dd3497", "#fa9fb5", "#fdd49e", "#fcc5c0", "#f0f0f0"),
    )
    out.attrs = {
        "kind": "land_cover",
        "long_name": f"permanence of {class_name} {years[0]}-{years[-1]}",
        "units": "1",
        "nodata": NO_DATA,
        **legend.to_attrs(),
    }
    return out
