"""Reader of Landsat MTL files: surface or top-of-atmosphere reflectance as scale and offset a band."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from geococa.errors import InputRefused
from geococa.metadata import ProductMetadata, local_name, parse_number, parse_time, parse_xml, read_bytes, read_json
from geococa.sensors import get_sensor, landsat_family

__all__ = ["ESUN", "earth_sun_distance_au", "read_mtl"]

ESUN: dict[str, dict[str, float]] = {
    "LANDSAT_4": {"B1": 1983.0, "B2": 1795.0, "B3": 1539.0, "B4": 1028.0, "B5": 219.8, "B7": 83.49},
    "LANDSAT_5": {"B1": 1983.0, "B2": 1796.0, "B3": 1536.0, "B4": 1031.0, "B5": 220.0, "B7": 83.44},
    "LANDSAT_7": {"B1": 1997.0, "B2": 1812.0, "B3": 1533.0, "B4": 1039.0, "B5": 230.8, "B7": 84.90, "B8": 1362.0},
}
"""Mean solar irradiance outside the atmosphere, W m-2 um-1, for products whose MTL gives radiance only.

Tables 3 and 4 of Chander, Markham & Helder (2009), Remote Sensing of Environment 113, 893-903,
doi:10.1016/j.rse.2009.01.007.
"""


def read_mtl(path: str | os.PathLike[str]) -> ProductMetadata:
    """Read a Landsat MTL file, text, JSON or XML, of Collection 1 or 2 or the pre-collection format.

    Level 2 gives surface reflectance, Level 1 reflectance at the top of the atmosphere: with the
    reflectance coefficients where the file has them, else from radiance,
    ``pi * d**2 * (gain * DN + bias) / (ESUN * sin(sun elevation))``. Both are linear in the digital number,
    so they come as scale and offset.

    Parameters
    ----------
    path : path
        The MTL file.

    Raises
    ------
    InputRefused
        The file is not an MTL, or lacks a value that is needed.

    References
    ----------
    Chander, Markham & Helder (2009), doi:10.1016/j.rse.2009.01.007, equations 2 and 4.
    """
    groups = _mtl_groups(path)
    flat: dict[str, str] = {}
    for values in groups.values():
        for key, value in values.items():
            flat.setdefault(key, value)
    platform = flat.get("SPACECRAFT_ID", "").upper().replace("-", "_").replace("LANDSAT", "LANDSAT_").replace("__", "_")
    family = landsat_family(platform)
    if family is None:
        raise InputRefused(
            f"{path}: SPACECRAFT_ID is {platform or 'missing'!r}; expected LANDSAT_4 ... LANDSAT_9 in an MTL"
        )
    if "DATE_ACQUIRED" not in flat:
        raise InputRefused(f"{path}: no DATE_ACQUIRED; expected it in an MTL")
    clock = flat.get("SCENE_CENTER_TIME", "").strip('"') or "00:00:00"
    clock = re.sub(r"([.][0-9]{6})[0-9]*", r"\1", clock)  # the MTL has seven digits, ISO 8601 readers take six
    acquired = parse_time(f"{flat['DATE_ACQUIRED']}T{clock}", path)
    level = flat.get("PROCESSING_LEVEL") or flat.get("DATA_TYPE") or ""
    product = flat.get("LANDSAT_PRODUCT_ID") or flat.get("LANDSAT_SCENE_ID") or Path(path).stem.removesuffix("_MTL")
    version = flat.get("PROCESSING_SOFTWARE_VERSION", "")
    if level.startswith("L2"):
        surface = groups.get("LEVEL2_SURFACE_REFLECTANCE_PARAMETERS", {})
        scale, offset = _coefficients(surface, "SR_B", path)
        sensor = get_sensor("landsat-c2-l2").of_family(family)
        if not scale and sensor.scale is not None and sensor.offset is not None:
            scale = {band.native: sensor.scale for band in sensor.bands if band.role == "reflectance"}
            offset = dict.fromkeys(scale, sensor.offset)
        return ProductMetadata(product, "landsat-c2-l2", family, acquired, version, scale, offset)
    scale, offset = _toa(groups, flat, platform, acquired, path)
    return ProductMetadata(product, "landsat-l1", family, acquired, version, scale, offset)


def _coefficients(values: Mapping[str, str], prefix: str, path: object) -> tuple[dict[str, float], dict[str, float]]:
    scale: dict[str, float] = {}
    offset: dict[str, float] = {}
    for key, value in values.items():
        found = re.fullmatch(r"REFLECTANCE_(MULT|ADD)_BAND_(\d+)", key)
        if found:
            (scale if found.group(1) == "MULT" else offset)[f"{prefix}{found.group(2)}"] = parse_number(
                value, key, path
            )
    both = [name for name in scale if name in offset]
    return {name: scale[name] for name in both}, {name: offset[name] for name in both}


def _toa(
    groups: Mapping[str, Mapping[str, str]], flat: Mapping[str, str], platform: str, acquired: datetime, path: object
) -> tuple[dict[str, float], dict[str, float]]:
    """Scale and offset from digital numbers to reflectance at the top of the atmosphere, by native band name."""
    rescaling = groups.get("LEVEL1_RADIOMETRIC_RESCALING") or groups.get("RADIOMETRIC_RESCALING") or {}
    elevation = parse_number(flat.get("SUN_ELEVATION"), "SUN_ELEVATION", path)
    if not 0 < elevation <= 90:
        raise InputRefused(f"{path}: SUN_ELEVATION is {elevation} degrees; reflectance needs the sun above the horizon")
    sine = math.sin(math.radians(elevation))
    scale, offset = _coefficients(rescaling, "B", path)
    if scale:
        return {k: v / sine for k, v in scale.items()}, {k: v / sine for k, v in offset.items()}
    stated = flat.get("EARTH_SUN_DISTANCE")
    distance = parse_number(stated, "EARTH_SUN_DISTANCE", path) if stated else earth_sun_distance_au(acquired)
    for band, irradiance in ESUN.get(platform, {}).items():
        gain, bias = (rescaling.get(f"RADIANCE_{part}_BAND_{band[1:]}") for part in ("MULT", "ADD"))
        if gain is None or bias is None:
            continue
        factor = math.pi * distance**2 / (irradiance * sine)
        scale[band] = factor * parse_number(gain, f"RADIANCE_MULT of {band}", path)
        offset[band] = factor * parse_number(bias, f"RADIANCE_ADD of {band}", path)
    if not scale:
        raise InputRefused(
            f"{path}: no REFLECTANCE_MULT or RADIANCE_MULT of a band of {platform}, so no reflectance can be computed"
        )
    return scale, offset


def earth_sun_distance_au(moment: datetime) -> float:
    """Distance between Earth and Sun in astronomical units at a time (UTC), to about 5e-5.

    Parameters
    ----------
    moment : datetime.datetime
        Time; without a zone it is taken as UTC.

    Examples
    --------
    >>> from datetime import datetime
    >>> round(earth_sun_distance_au(datetime(2019, 12, 1, 15, 13, 51)), 4)
    0.9861

    References
    ----------
    Meeus (1998), Astronomical Algorithms, 2nd edition, chapter 25 (low accuracy).
    """
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    days = (aware - datetime(2000, 1, 1, 12, tzinfo=UTC)).total_seconds() / 86400.0
    t = days / 36525.0
    anomaly = math.radians((357.52911 + 35999.05029 * t - 0.0001537 * t * t) % 360.0)
    eccentricity = 0.016708634 - 0.000042037 * t
    centre = math.radians(
        (1.914602 - 0.004817 * t) * math.sin(anomaly)
        + (0.019993 - 0.000101 * t) * math.sin(2 * anomaly)
        + 0.000289 * math.sin(3 * anomaly)
    )
    return 1.000001018 * (1 - eccentricity**2) / (1 + eccentricity * math.cos(anomaly + centre))


def _mtl_groups(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """Return the groups of an MTL and their values as text, whichever of the three formats it has."""
    readers: dict[str, Callable[[str | os.PathLike[str]], dict[str, dict[str, str]]]] = {
        ".json": _mtl_json,
        ".xml": _mtl_xml,
    }
    groups = readers.get(Path(path).suffix.lower(), _mtl_text)(path)
    if not groups:
        raise InputRefused(f"{path}: no GROUP in it; expected a Landsat MTL file")
    return groups


def _mtl_json(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    content = read_json(path)
    inner = next((value for value in content.values() if isinstance(value, dict)), {})
    return {
        str(group): {str(k): str(v) for k, v in values.items() if not isinstance(v, dict | list)}
        for group, values in inner.items()
        if isinstance(values, dict)
    }


def _mtl_xml(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    root = parse_xml(read_bytes(path), str(path))
    return {
        local_name(group.tag): {local_name(entry.tag): (entry.text or "").strip() for entry in group} for group in root
    }


def _mtl_text(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    stack: list[str] = []
    # some copies are padded with NUL bytes to the size of the archive's block
    for line in read_bytes(path).rstrip(b"\0").decode("utf-8", "replace").splitlines():
        key, separator, value = (part.strip() for part in line.partition("="))
        if key == "END" or (not separator and not key):
            continue
        if not separator:
            raise InputRefused(f"{path}: line {line[:60]!r} is not KEY = VALUE; expected a Landsat MTL text file")
        if key == "GROUP":
            stack.append(value)
            groups.setdefault(value, {})
        elif key == "END_GROUP":
            if not stack or stack.pop() != value:
                raise InputRefused(f"{path}: END_GROUP = {value} closes no open group; the file is damaged")
        elif stack:
            groups[stack[-1]][key] = value.strip('"')
    if stack:
        raise InputRefused(f"{path}: group {stack[-1]} is never closed; the file is cut off")
    return groups
