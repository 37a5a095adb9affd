"""What is known of the sensors: bands by native and common name, scale, fill value, quality classes and bits."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geococa.errors import InputRefused

__all__ = [
    "COMMON_NAMES",
    "QA_PIXEL",
    "QA_RADSAT",
    "QUALITIES",
    "SCL",
    "Band",
    "Quality",
    "Sensor",
    "get_sensor",
    "landsat_family",
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


@dataclass(frozen=True)
class Band:
    """One band of a sensor.

    Parameters
    ----------
    native : str
        Name that the data provider uses, such as ``B08`` or ``SR_B5``.
    name : str
        STAC common name, which is the variable's name in geococa.
    wavelength_um : float
        Centre wavelength in micrometres; NaN where a band has none (an index product).
    gsd_m : float
        Ground sampling distance in metres.
    role : {"reflectance", "atmosphere", "thermal", "pan"}
        Only ``reflectance`` bands are opened unless others are asked for by name.
    """

    native: str
    name: str
    wavelength_um: float
    gsd_m: float
    role: str = "reflectance"


@dataclass(frozen=True)
class Quality:
    """A quality band: what its values or bits mean.

    Parameters
    ----------
    native, name : str
        Provider's name and variable name.
    flags : mapping of str to int
        Value of each class, or number of each bit (counted from 0).
    bits : bool
        Whether ``flags`` are bit numbers.
    masked : tuple of str
        Flags that make a pixel unusable by default.
    buffered : tuple of str
        Those of them whose surroundings are doubtful too: clouds and their shadows.
    no_data : tuple of str
        Those that mean "not observed": masked, never buffered.
    gsd_m : float
        Ground sampling distance in metres.
    """

    native: str
    name: str
    flags: Mapping[str, int]
    bits: bool
    masked: tuple[str, ...]
    buffered: tuple[str, ...]
    no_data: tuple[str, ...]
    gsd_m: float

    def choose(self, mask: Iterable[str] | None) -> tuple[str, ...]:
        """Return the flags to mask: the default ones, or those named, with "not observed" always among them."""
        if mask is None:
            return self.masked
        chosen = tuple(dict.fromkeys((*self.no_data, *mask)))
        unknown = [name for name in chosen if name not in self.flags]
        if unknown:
            raise InputRefused(
                f"the quality band {self.name} has no flag {', '.join(unknown)}; it has {', '.join(self.flags)}"
            )
        return chosen


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

QUALITIES = {quality.name: quality for quality in (SCL, QA_PIXEL, QA_RADSAT)}
"""Every known quality band by variable name."""

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


@dataclass(frozen=True)
class Sensor:
    """A sensor and processing level: which bands its products have and what their numbers mean.

    Parameters
    ----------
    name : str
        For example ``"sentinel-2-l2a"``.
    bands : tuple of Band
        Bands of its current platforms.
    fill : int, optional
        Digital number that means "no data" by the product's definition, where a file does not say it itself.
    scale, offset : float, optional
        ``reflectance = DN * scale + offset`` where the product definition fixes them for every product.
        None where each product must say it in its own metadata.
    valid : tuple of float or None, optional
        Smallest and largest valid digital number by the product's definition; what lies outside was not observed.
    quality : tuple of Quality
        Quality bands.
    families : mapping of str to tuple of Band
        Bands of platforms that differ from ``bands`` (Landsat 4-7: ``tm``).
    reference : str
        Document that the numbers come from.

    Examples
    --------
    >>> sensor = get_sensor("sentinel-2-l2a")
    >>> sensor.band("B08").name, sensor.band("swir16").native
    ('nir', 'B11')
    """

    name: str
    bands: tuple[Band, ...]
    fill: int | None = None
    scale: float | None = None
    offset: float | None = None
    valid: tuple[float | None, float | None] = (None, None)
    quality: tuple[Quality, ...] = ()
    families: Mapping[str, tuple[Band, ...]] = field(default_factory=dict)
    reference: str = ""

    def of_family(self, family: str | None) -> Sensor:
        """Return the same sensor with the bands of one of its platform families."""
        if family is None or family not in self.families:
            return self
        return Sensor(
            self.name,
            self.families[family],
            self.fill,
            self.scale,
            self.offset,
            self.valid,
            self.quality,
            reference=self.reference,
        )

    def band(self, name: str) -> Band:
        """Return the band with this native or common name.

        Raises
        ------
        InputRefused
            The sensor has no such band.
        """
        found = self.find(name)
        if found is None:
            have = ", ".join(f"{band.name} ({band.native})" for band in self.bands)
            raise InputRefused(f"{self.name} has no band {name!r}; it has {have}")
        return found

    def find(self, name: str) -> Band | None:
        """Return the band with this native or common name (capitals do not matter), or None."""
        wanted = name.lower()
        for band in self.bands:
            if wanted in (band.name, band.native.lower()):
                return band
        return None

    def quality_band(self, name: str) -> Quality | None:
        """Return the quality band with this native or variable name, or None."""
        for quality in self.quality:
            if name.lower() in (quality.name, quality.native.lower()):
                return quality
        return None


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


def read_sensor(path: str | os.PathLike[str]) -> Sensor:
    """Read the description of a sensor that geococa does not know.

    The file is TOML: ``name``, optionally ``fill``, ``scale``, ``offset`` and ``reference``, and one
    ``[[bands]]`` table a band with ``native``, ``name`` and optionally ``wavelength_um`` and ``gsd_m``.

    Parameters
    ----------
    path : path
        The TOML file.

    Raises
    ------
    InputRefused
        The file can't be read, or a setting is missing, unknown or of the wrong type.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputRefused(f"{path}: not a readable sensor description ({error})") from error
    allowed = {"name", "fill", "scale", "offset", "reference", "bands"}
    surplus = sorted(set(values) - allowed)
    if surplus or not isinstance(values.get("name"), str) or not isinstance(values.get("bands"), list):
        raise InputRefused(
            f"{path}: a sensor description has name, [[bands]] and perhaps fill, scale, offset, reference; "
            f"found {', '.join(sorted(values)) or 'nothing'}"
        )
    bands = tuple(_band_of(entry, path) for entry in values["bands"])
    if not bands or len({band.name for band in bands}) != len(bands):
        raise InputRefused(f"{path}: name at least one band, each once, got {[band.name for band in bands]}")
    numbers = {key: values.get(key) for key in ("fill", "scale", "offset")}
    wrong = [key for key, value in numbers.items() if value is not None and not _is_number(value)]
    if wrong:
        raise InputRefused(f"{path}: {', '.join(wrong)} must be numbers, got {[numbers[key] for key in wrong]}")
    return Sensor(
        values["name"],
        bands,
        fill=None if numbers["fill"] is None else int(numbers["fill"]),
        scale=None if numbers["scale"] is None else float(numbers["scale"]),
        offset=None if numbers["offset"] is None else float(numbers["offset"]),
        reference=str(values.get("reference", Path(path).name)),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _band_of(entry: Any, path: str | os.PathLike[str]) -> Band:
    known = {"native", "name", "wavelength_um", "gsd_m", "role"}
    if not isinstance(entry, dict) or not {"native", "name"} <= set(entry) or set(entry) - known:
        raise InputRefused(f"{path}: a band has native, name and perhaps wavelength_um, gsd_m, role; got {entry!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(entry["name"])):
        raise InputRefused(f"{path}: band names are lower-case words such as 'red', got {entry['name']!r}")
    return Band(
        str(entry["native"]),
        str(entry["name"]),
        float(entry.get("wavelength_um", "nan")),
        float(entry.get("gsd_m", "nan")),
        str(entry.get("role", "reflectance")),
    )
