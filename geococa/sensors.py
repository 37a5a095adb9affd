"""What is known of the sensors: bands by native and common name, scale, fill value, quality classes and bits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from geococa.errors import InputRefused
from geococa.sensor_description import Band, Quality, Sensor, read_sensor

__all__ = [
    "COMMON_NAMES",
    "OWN_QUALITY",
    "QA_PIXEL",
    "QA_RADSAT",
    "QUALITIES",
    "SCL",
    "TOP_OF_ATMOSPHERE",
    "Band",
    "Quality",
    "Sensor",
    "get_sensor",
    "landsat_family",
    "quality_attributes",
    "quality_of",
    "read_sensor",
    "sensor_names",
]

COMMON_NAMES = (
    "coastal",
    "blue",
    "green",
    "red",
    "rededge071",
    "rededge075",
    "rededge078",
    "nir",
    "nir08",
    "nir09",
    "cirrus",
    "swir16",
    "swir22",
    "lwir",
    "lwir11",
    "lwir12",
    "pan",
    "ndvi",
    "evi",
    "vv",
    "vh",
)
"""Band names that a file may use to say what a band is, after the STAC electro-optical extension."""

TOP_OF_ATMOSPHERE = ("sentinel-2-l1c", "landsat-l1")
"""Sensors whose reflectance is that at the top of the atmosphere."""


SCL = Quality(
    native="SCL",
    name="scl",
    flags={
        "no_data": 0,
        "saturated_or_defective": 1,
        "dark_area": 2,
        "cloud_shadow": 3,
        "vegetation": 4,
        "not_vegetated": 5,
        "water": 6,
        "unclassified": 7,
        "cloud_medium_probability": 8,
        "cloud_high_probability": 9,
        "thin_cirrus": 10,
        "snow_ice": 11,
    },
    bits=False,
    # dark areas stay usable: besides shaded slopes the class holds dark water and burnt ground, and masking
    # it would take whole places out of every year
    masked=(
        "no_data",
        "saturated_or_defective",
        "cloud_shadow",
        "cloud_medium_probability",
        "cloud_high_probability",
        "thin_cirrus",
        "snow_ice",
    ),
    buffered=("cloud_shadow", "cloud_medium_probability", "cloud_high_probability", "thin_cirrus"),
    no_data=("no_data", "saturated_or_defective"),
    gsd_m=20.0,
)
"""Scene classification of Sentinel-2 Level-2A (Sen2Cor)."""

QA_PIXEL = Quality(
    native="QA_PIXEL",
    name="qa_pixel",
    flags={
        "fill": 0,
        "dilated_cloud": 1,
        "cirrus": 2,
        "cloud": 3,
        "cloud_shadow": 4,
        "snow": 5,
        "clear": 6,
        "water": 7,
    },
    bits=True,
    masked=("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow"),
    buffered=("cirrus", "cloud", "cloud_shadow"),
    no_data=("fill",),
    gsd_m=30.0,
)
"""Pixel quality bits of Landsat Collection 2."""

QA_RADSAT = Quality(
    native="QA_RADSAT",
    name="qa_radsat",
    # bit 5 is the thermal band of Landsat 4-7: where it is saturated the ground burns, so it may mask as well
    flags={**{f"band{n}_saturated": n - 1 for n in range(1, 8)}, "dropped": 9, "terrain_occlusion": 11},
    bits=True,
    masked=(*(f"band{n}_saturated" for n in range(1, 8)), "dropped", "terrain_occlusion"),
    buffered=(),
    no_data=("dropped", "terrain_occlusion"),
    gsd_m=30.0,
)
"""Radiometric saturation bits of Landsat Collection 2."""

OWN_QUALITY = Quality("", "quality", {}, bits=False, masked=(), buffered=(), no_data=(), gsd_m=float("nan"))
"""Stands for the quality band of a sensor that a ``sensor.toml`` describes; its flags travel with the scenes."""

QUALITIES = {quality.name: quality for quality in (SCL, QA_PIXEL, QA_RADSAT, OWN_QUALITY)}
"""Every known quality band by variable name."""


def quality_of(name: str, attrs: Mapping[Any, Any]) -> Quality:
    """Return what a quality variable means: the known band of its name, or what its own attributes say.

    Parameters
    ----------
    name : str
        Variable name.
    attrs : mapping
        Attributes of the variable: CF ``flag_meanings`` with ``flag_values`` or ``flag_masks``, and the names of
        the flags that are ``masked``, ``buffered`` and ``no_data``.

    Raises
    ------
    InputRefused
        The variable is called ``quality`` and does not say what it means.
    """
    if name != OWN_QUALITY.name:
        return QUALITIES[name]
    bits = "flag_masks" in attrs
    codes = attrs.get("flag_masks" if bits else "flag_values")
    names = str(attrs.get("flag_meanings", "")).split()
    if codes is None or len(names) != len(codes):
        raise InputRefused(
            "the variable quality has no flag_meanings with flag_values or flag_masks; open the tile with its sensor.toml"
        )
    values = [int(code).bit_length() - 1 if bits else int(code) for code in codes]
    chosen = {key: tuple(str(attrs.get(key, "")).split()) for key in ("masked", "buffered", "no_data")}
    return Quality("", name, dict(zip(names, values, strict=True)), bits, **chosen, gsd_m=float("nan"))


def quality_attributes(quality: Quality) -> dict[str, Any]:
    """Attributes from which `quality_of` reads a quality band again; none are needed for the known ones."""
    if quality.name != OWN_QUALITY.name:
        return {}
    return {key: " ".join(getattr(quality, key)) for key in ("masked", "buffered", "no_data")}


_MSI = (
    Band("B01", "coastal", 0.443, 60),
    Band("B02", "blue", 0.490, 10),
    Band("B03", "green", 0.560, 10),
    Band("B04", "red", 0.665, 10),
    Band("B05", "rededge071", 0.704, 20),
    Band("B06", "rededge075", 0.740, 20),
    Band("B07", "rededge078", 0.783, 20),
    Band("B08", "nir", 0.842, 10),
    Band("B8A", "nir08", 0.865, 20),
    Band("B09", "nir09", 0.945, 60, "atmosphere"),
    Band("B10", "cirrus", 1.375, 60, "atmosphere"),
    Band("B11", "swir16", 1.610, 20),
    Band("B12", "swir22", 2.190, 20),
)


def _tm(prefix: str, thermal: str) -> tuple[Band, ...]:
    return (
        Band(f"{prefix}B1", "blue", 0.485, 30),
        Band(f"{prefix}B2", "green", 0.560, 30),
        Band(f"{prefix}B3", "red", 0.660, 30),
        Band(f"{prefix}B4", "nir", 0.830, 30),
        Band(f"{prefix}B5", "swir16", 1.650, 30),
        Band(thermal, "lwir", 11.45, 30, "thermal"),
        Band(f"{prefix}B7", "swir22", 2.215, 30),
    )


def _oli(prefix: str) -> tuple[Band, ...]:
    return (
        Band(f"{prefix}B1", "coastal", 0.443, 30),
        Band(f"{prefix}B2", "blue", 0.482, 30),
        Band(f"{prefix}B3", "green", 0.561, 30),
        Band(f"{prefix}B4", "red", 0.655, 30),
        Band(f"{prefix}B5", "nir08", 0.865, 30),
        Band(f"{prefix}B6", "swir16", 1.609, 30),
        Band(f"{prefix}B7", "swir22", 2.201, 30),
    )


_OLI_L1 = (
    *_oli(""),
    Band("B8", "pan", 0.590, 15, "pan"),
    Band("B9", "cirrus", 1.373, 30, "atmosphere"),
    Band("B10", "lwir11", 10.9, 30, "thermal"),
    Band("B11", "lwir12", 12.0, 30, "thermal"),
)
_ETM_L1 = (*_tm("", "B6"), Band("B8", "pan", 0.710, 15, "pan"))


_LANDSAT_C2 = "USGS LSDS-1618/1619, Landsat Collection 2 Level 2 Science Product Guides (2.75e-5, -0.2, fill 0)"
_SENSORS = {
    sensor.name: sensor
    for sensor in (
        Sensor(
            "sentinel-2-l2a",
            tuple(band for band in _MSI if band.native != "B10"),
            fill=0,
            # 65535 marks saturation
            valid=(None, 65534),
            quality=(SCL,),
            reference="ESA Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD)",
        ),
        Sensor(
            "sentinel-2-l1c",
            _MSI,
            fill=0,
            # 65535 marks saturation
            valid=(None, 65534),
            reference="ESA Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD)",
        ),
        Sensor(
            "landsat-c2-l2",
            (*_oli("SR_"), Band("ST_B10", "lwir11", 10.9, 30, "thermal")),
            fill=0,
            scale=2.75e-5,
            offset=-0.2,
            quality=(QA_PIXEL, QA_RADSAT),
            families={"tm": _tm("SR_", "ST_B6"), "etm": _tm("SR_", "ST_B6")},
            reference=_LANDSAT_C2,
        ),
        Sensor(
            "landsat-l1",
            _OLI_L1,
            fill=0,
            quality=(QA_PIXEL, QA_RADSAT),
            families={"tm": _tm("", "B6"), "etm": _ETM_L1},
            reference="Chander, Markham & Helder (2009), doi:10.1016/j.rse.2009.01.007; Landsat 8 Data Users Handbook",
        ),
        Sensor(
            "modis-13q1",
            (Band("NDVI", "ndvi", float("nan"), 231.656), Band("EVI", "evi", float("nan"), 231.656)),
            fill=-3000,
            # copies with lossy compression have fill values near -3000, which only the valid range tells from data
            valid=(-2000, 10_000),
            scale=1e-4,
            offset=0.0,
            reference="MODIS Vegetation Index User's Guide, Collection 6 (Didan et al. 2015)",
        ),
    )
}


def sensor_names() -> tuple[str, ...]:
    """Names that `get_sensor` knows."""
    return tuple(_SENSORS)


def get_sensor(name: str | Sensor) -> Sensor:
    """Return a sensor by name.

    Parameters
    ----------
    name : str or Sensor
        ``"sentinel-2-l2a"``, ``"sentinel-2-l1c"``, ``"landsat-c2-l2"``, ``"landsat-l1"``, ``"modis-13q1"``,
        or the path of a ``sensor.toml`` that describes another one (see `read_sensor`).

    Raises
    ------
    InputRefused
        No such sensor.

    Examples
    --------
    >>> get_sensor("landsat-c2-l2").scale
    2.75e-05
    """
    if isinstance(name, Sensor):
        return name
    if str(name).endswith(".toml"):
        return read_sensor(name)
    found = _SENSORS.get(str(name).lower().replace("_", "-"))
    if found is None:
        raise InputRefused(f"no sensor {name!r}; known are {', '.join(_SENSORS)}, or give the path of a sensor.toml")
    return found


def landsat_family(platform: str) -> str | None:
    """``"tm"``, ``"etm"`` or ``"oli"`` for a Landsat platform or product id, None where it is neither.

    Examples
    --------
    >>> landsat_family("LANDSAT_5"), landsat_family("LE07_L2SP_008059_20010101"), landsat_family("landsat-9")
    ('tm', 'etm', 'oli')
    """
    text = platform.upper()
    found = re.search(r"LANDSAT[_-]?(\d)", text) or re.match(r"L[COTEM]0?(\d)", text)
    return {"4": "tm", "5": "tm", "7": "etm", "8": "oli", "9": "oli"}.get(found.group(1)) if found else None
