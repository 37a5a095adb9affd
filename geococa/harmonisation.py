"""Reflectance of one sensor as another would have seen it: published band adjustments between Landsat and Sentinel-2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_dims, check_kind
from geococa.errors import InputRefused
from geococa.sensors import TOP_OF_ATMOSPHERE, landsat_family

__all__ = ["TARGETS", "Adjustment", "coefficients", "harmonise"]

TARGETS = ("landsat-8", "sentinel-2")
"""Sensors that `harmonise` knows as targets; ``sentinel-2`` is Sentinel-2A."""


class Adjustment(NamedTuple):
    """``OLI = slope * reflectance + intercept`` for a band of a platform, and who published it."""

    platform: str
    band: str
    slope: float
    intercept: float
    source: str


_HLS = "HLS v2.0 User Guide, Table 5 (Claverie et al. 2018, doi:10.1016/j.rse.2018.09.002)"
_ROY = "Roy et al. 2016, Table 2, surface reflectance, least squares (doi:10.1016/j.rse.2015.12.024)"
_OLI = "the target itself; OLI-2 is taken for OLI, as HLS does"

_BANDS = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
_TO_OLI: dict[str, tuple[str, tuple[tuple[float, float] | None, ...]]] = {
    "sentinel-2a": (
        _HLS,
        (
            (0.9959, -0.0002),
            (0.9778, -0.0040),
            (1.0053, -0.0009),
            (0.9765, 0.0009),
            (0.9983, -0.0001),
            (0.9987, -0.0011),
            (1.0030, -0.0012),
        ),
    ),
    "sentinel-2b": (
        _HLS,
        (
            (0.9959, -0.0002),
            (0.9778, -0.0040),
            (1.0075, -0.0008),
            (0.9761, 0.0010),
            (0.9966, 0.0000),
            (1.0000, -0.0003),
            (0.9867, 0.0004),
        ),
    ),
    "sentinel-2c": (
        _HLS,
        (
            (1.0030, 0.0000),
            (0.9851, -0.0027),
            (1.0038, -0.0009),
            (0.9718, 0.0011),
            (0.9995, -0.0003),
            (0.9994, -0.0007),
            (0.9910, 0.0004),
        ),
    ),
    "landsat-7": (
        _ROY,
        (
            None,
            (0.8474, 0.0003),
            (0.8483, 0.0088),
            (0.9047, 0.0061),
            (0.8462, 0.0412),
            (0.8937, 0.0254),
            (0.9071, 0.0172),
        ),
    ),
    "landsat-8": (_OLI, ((1.0, 0.0),) * 7),
    "landsat-9": (_OLI, ((1.0, 0.0),) * 7),
}


def coefficients() -> pd.DataFrame:
    """Return the table of adjustments to Landsat 8 OLI: ``platform, band, slope, intercept, source``.

    Examples
    --------
    >>> table = coefficients().set_index(["platform", "band"])
    >>> float(table.loc[("sentinel-2a", "blue"), "slope"])
    0.9778
    """
    return pd.DataFrame(_rows())


def _rows() -> list[Adjustment]:
    return [
        Adjustment(platform, band, *pair, source)
        for platform, (source, pairs) in _TO_OLI.items()
        for band, pair in zip(_BANDS, pairs, strict=True)
        if pair is not None
    ]


def harmonise(
    reflectance: xr.Dataset, to: str = "landsat-8", *, platforms: str | Sequence[str] | None = None
) -> xr.Dataset:
    """Adjust surface reflectance to the bands of another sensor, so that Landsat and Sentinel-2 make one series.

    Parameters
    ----------
    reflectance : xarray.Dataset
        From `geococa.to_reflectance`: float32 per band ``(time, y, x)``, NaN = not observed.
    to : {"landsat-8", "sentinel-2"}
        ``"landsat-8"``: ``slope * reflectance + intercept`` of `coefficients`. ``"sentinel-2"``: from there to Sentinel-2A
        by its own adjustment turned around.
    platforms : str or sequence of str, optional
        Platform of all dates or of each: ``"sentinel-2a"``, ``"sentinel-2b"``, ``"sentinel-2c"``, ``"landsat-7"``,
        ``"landsat-8"``, ``"landsat-9"``. Read from the product ids of the ``scene`` coordinate where not given.

    Returns
    -------
    xarray.Dataset
        Like the input, with ``attrs["harmonised"]``. Dask in, Dask out.

    Raises
    ------
    InputRefused
        A platform is not known or has no published adjustment (Landsat 4 and 5), a band has none (red edge, Sentinel-2's
        broad ``nir``: use ``nir08``), or the reflectance is that at the top of the atmosphere.

    Notes
    -----
    The adjustments are for surface reflectance with the view angle normalised (nadir); angles are not touched here.

    References
    ----------
    Claverie, M. et al. (2018). The Harmonized Landsat and Sentinel-2 surface reflectance data set. Remote Sensing of
    Environment 219, 145-161.
    Roy, D. P. et al. (2016). Characterization of Landsat-7 to Landsat-8 reflective wavelength and normalized difference
    vegetation index continuity. Remote Sensing of Environment 185, 57-70.

    Examples
    --------
    >>> red = xr.DataArray(np.float32([[[0.1]]]), dims=("time", "y", "x"))
    >>> round(harmonise(xr.Dataset({"red": red}), platforms="sentinel-2a").red.item(), 5)
    0.09855
    """
    check_kind(reflectance, "reflectance")
    check_dims(reflectance, "time", "y", "x", optional=("band",))
    if to not in TARGETS:
        raise InputRefused(f"harmonise to one of {', '.join(TARGETS)}, got {to!r}")
    sensor = str(reflectance.attrs.get("sensor", ""))
    if any(name in sensor for name in TOP_OF_ATMOSPHERE):
        raise InputRefused(
            f"the adjustments are for surface reflectance, {sensor} is reflectance at the top of the atmosphere; use level-2 "
            "products"
        )
    if "harmonised" in reflectance.attrs:
        raise InputRefused(f"the reflectance is already that of {reflectance.attrs['harmonised']}; adjust it once")
    dates = _platforms(reflectance, platforms)
    out = reflectance.copy()
    for name, band in reflectance.data_vars.items():
        slopes, intercepts = _pairs(str(name), dates, to)
        adjusted = band.data * slopes[:, None, None] + intercepts[:, None, None]
        out[name] = band.copy(data=adjusted)
        out[name].encoding = band.encoding
    out.attrs["harmonised"] = to
    return out


def _pairs(band: str, dates: list[str], to: str) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of a band for each date, float32 ``(time,)``."""
    known = {(row.platform, row.band): (row.slope, row.intercept) for row in _rows()}
    pairs = []
    for platform in dates:
        # Landsat's near infrared is narrow whatever it is called; Sentinel-2 has a broad one beside it
        name = "nir08" if band == "nir" and platform.startswith("landsat") else band
        pair = known.get((platform, name))
        if pair is None:
            have = ", ".join(row.band for row in _rows() if row.platform == platform)
            hint = "; open nir08 in its place" if band == "nir" else "; leave it out, or do without harmonising"
            raise InputRefused(f"no adjustment of band {band} of {platform} was published, only of {have}{hint}")
        if to == "sentinel-2":
            slope, intercept = known["sentinel-2a", name]
            pair = pair[0] / slope, (pair[1] - intercept) / slope
            pair = (1.0, 0.0) if platform == "sentinel-2a" else pair
        pairs.append(pair)
    slopes, intercepts = np.array(pairs, np.float32).reshape(-1, 2).T
    return slopes, intercepts


def _platforms(reflectance: xr.Dataset, given: str | Sequence[str] | None) -> list[str]:
    count = reflectance.sizes["time"]
    if given is not None:
        names = [given] * count if isinstance(given, str) else [str(name) for name in given]
        if len(names) != count:
            raise InputRefused(
                f"platforms names {len(names)} platforms for {count} dates; name one for each, or one for all"
            )
    elif "scene" in reflectance.coords:
        names = [_platform_of(str(scene)) for scene in reflectance["scene"].values]
    else:
        raise InputRefused(
            "the reflectance has no scene coordinate that tells its platforms; name them with platforms="
        )
    unknown = [name for name in names if name not in _TO_OLI]
    if unknown:
        raise InputRefused(
            f"no published adjustment for {unknown[0]!r}; there are some for {', '.join(_TO_OLI)}; leave these scenes out, "
            "or name their platform with platforms="
        )
    return names


def _platform_of(scene: str) -> str:
    """Platform by product id, or the id itself where it does not tell.

    Examples
    --------
    >>> _platform_of("S2B_MSIL2A_20220105T151659_N0301_R025_T18NXG"), _platform_of("LE07_L2SP_008059_20010101_02_T1")
    ('sentinel-2b', 'landsat-7')
    """
    found = re.match(r"S2([ABC])_", scene, re.IGNORECASE)
    if found:
        return f"sentinel-2{found.group(1).lower()}"
    number = re.match(r"L[COTEM]0?(\d)", scene, re.IGNORECASE)
    return f"landsat-{number.group(1)}" if landsat_family(scene) and number else scene
