"""How a sensor is described: its bands, what its numbers mean, its quality band; and the ``sensor.toml`` of any other."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geococa.errors import InputRefused

__all__ = ["Band", "Quality", "Sensor", "read_sensor"]


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
    >>> from geococa.sensors import get_sensor
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

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Sensor:
        """Read the description of another sensor from a ``sensor.toml``, see `read_sensor`."""
        return read_sensor(path)

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


_SETTINGS = ("name", "fill", "scale", "offset", "valid_min", "valid_max", "reference", "bands", "quality")
_BAND_SETTINGS = ("native", "name", "wavelength_um", "gsd_m", "role")
_QUALITY_SETTINGS = ("native", "flags", "bits", "masked", "buffered", "no_data", "gsd_m")
_ROLES = ("reflectance", "atmosphere", "thermal", "pan")


def read_sensor(path: str | os.PathLike[str]) -> Sensor:
    """Read the description of a sensor that geococa does not know.

    Parameters
    ----------
    path : path
        A TOML file with ``name``; optionally ``fill`` (no-data number), ``scale`` and ``offset`` (reflectance =
        number * scale + offset, where every product has the same), ``valid_min``, ``valid_max`` and ``reference``; one
        ``[[bands]]`` table a band with ``native`` (name in the files) and ``name`` (such as ``"red"``), optionally
        ``wavelength_um``, ``gsd_m`` and ``role`` ("reflectance", "atmosphere", "thermal", "pan"); and optionally a
        ``[quality]`` table with ``native``, ``flags`` (value or bit number by name), ``bits`` (whether they are bit
        numbers), ``masked``, ``buffered`` and ``no_data`` (lists of flag names). The quality band opens as the
        variable ``quality``.

    Returns
    -------
    Sensor

    Raises
    ------
    InputRefused
        The file can't be read, or a setting is missing, unknown or of the wrong type.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> text = '''
    ... name = "planetscope"
    ... scale = 1e-4
    ... offset = 0.0
    ... fill = 0
    ... [[bands]]
    ... native = "red"
    ... name = "red"
    ... wavelength_um = 0.665
    ... [quality]
    ... native = "udm"
    ... flags = {blank = 0, cloud = 1}
    ... bits = true
    ... masked = ["blank", "cloud"]
    ... buffered = ["cloud"]
    ... no_data = ["blank"]
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder) / "sensor.toml"
    ...     _ = file.write_text(text)
    ...     sensor = Sensor.read(file)
    >>> sensor.band("red").wavelength_um, sensor.quality[0].masked
    (0.665, ('blank', 'cloud'))
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputRefused(f"{path}: not a readable sensor description ({error})") from error
    surplus = sorted(set(values) - set(_SETTINGS))
    if surplus or not isinstance(values.get("name"), str) or not isinstance(values.get("bands"), list):
        raise InputRefused(
            f"{path}: a sensor description has name, [[bands]] and perhaps {', '.join(_SETTINGS[1:-2])} and [quality]; "
            f"found {', '.join(sorted(values)) or 'nothing'}"
        )
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", values["name"]):
        raise InputRefused(f"{path}: name must be of letters, digits, '_', '.', '-', got {values['name']!r}")
    bands = tuple(_band_of(entry, path) for entry in values["bands"])
    for what in ("name", "native"):
        named = [str(getattr(band, what)).lower() for band in bands]
        if not named or len(set(named)) != len(named):
            raise InputRefused(f"{path}: name at least one band, each once, got {named}")
    number = {key: _number(values, key, path) for key in ("fill", "scale", "offset", "valid_min", "valid_max")}
    if number["scale"] is not None and number["scale"] <= 0:
        raise InputRefused(f"{path}: scale must be positive, got {number['scale']}")
    if number["fill"] is not None and not float(number["fill"]).is_integer():
        raise InputRefused(f"{path}: fill must be a whole number, got {number['fill']}")
    return Sensor(
        values["name"],
        bands,
        fill=None if number["fill"] is None else int(number["fill"]),
        scale=number["scale"],
        offset=number["offset"],
        valid=(number["valid_min"], number["valid_max"]),
        quality=(_quality_of(values["quality"], path),) if "quality" in values else (),
        reference=str(values.get("reference", Path(path).name)),
    )


def _number(values: Mapping[str, Any], key: str, path: str | os.PathLike[str]) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InputRefused(f"{path}: {key} must be a finite number, got {value!r}")
    return float(value)


def _band_of(entry: Any, path: str | os.PathLike[str]) -> Band:
    if not isinstance(entry, dict) or not {"native", "name"} <= set(entry) or set(entry) - set(_BAND_SETTINGS):
        raise InputRefused(f"{path}: a band has native, name and perhaps wavelength_um, gsd_m, role; got {entry!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", str(entry["name"])) or entry["name"] == "quality":
        raise InputRefused(f"{path}: band names are lower-case words such as 'red', got {entry['name']!r}")
    role = entry.get("role", "reflectance")
    if role not in _ROLES:
        raise InputRefused(f"{path}: role of band {entry['name']} must be one of {', '.join(_ROLES)}, got {role!r}")
    sizes = [_number(entry, key, path) for key in ("wavelength_um", "gsd_m")]
    wave, gsd = (math.nan if value is None else value for value in sizes)
    return Band(str(entry["native"]), str(entry["name"]), wave, gsd, role)


def _quality_of(entry: Any, path: str | os.PathLike[str]) -> Quality:
    if not isinstance(entry, dict) or not {"native", "flags"} <= set(entry) or set(entry) - set(_QUALITY_SETTINGS):
        raise InputRefused(
            f"{path}: [quality] has native, flags and perhaps {', '.join(_QUALITY_SETTINGS[2:])}; got {entry!r}"
        )
    flags, bits = entry["flags"], entry.get("bits", False)
    highest = 15 if bits is True else 255
    if (
        not isinstance(bits, bool)
        or not isinstance(flags, dict)
        or not flags
        or not all(re.fullmatch(r"[a-z][a-z0-9_]*", str(name)) for name in flags)
        or not all(type(code) is int and 0 <= code <= highest for code in flags.values())
        or len(set(flags.values())) != len(flags)
    ):
        raise InputRefused(
            f"{path}: flags of [quality] are lower-case names with different whole numbers from 0 to {highest}, and bits "
            f"is true or false; got flags = {flags!r}, bits = {bits!r}"
        )
    chosen = {key: _flag_names(entry, key, flags, path) for key in ("masked", "buffered", "no_data")}
    chosen["masked"] = tuple(dict.fromkeys((*chosen["no_data"], *chosen["masked"], *chosen["buffered"])))
    gsd = _number(entry, "gsd_m", path)
    return Quality(str(entry["native"]), "quality", dict(flags), bits, **chosen, gsd_m=math.nan if gsd is None else gsd)


def _flag_names(entry: Mapping[str, Any], key: str, flags: Mapping[str, Any], path: object) -> tuple[str, ...]:
    names = entry.get(key, [])
    if not isinstance(names, list) or not set(map(str, names)) <= set(flags):
        raise InputRefused(f"{path}: {key} of [quality] lists some of the flags {', '.join(flags)}; got {names!r}")
    return tuple(map(str, names))
