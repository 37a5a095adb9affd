"""What a product says of itself: scale and offset a band, read from Sentinel-2 MTD XML; safe XML and JSON for all.

Nothing here guesses: where a product does not say its offset, or says it twice and differently, the reader
raises `geococa.errors.UnknownOffset` with what it found.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder

from geococa.errors import InputRefused, UnknownOffset
from geococa.sensors import get_sensor

__all__ = ["ProductMetadata", "parse_xml", "read_sentinel2_metadata"]

MAX_BYTES = 16 * 1024 * 1024
"""Largest metadata file that is read; real ones are under 1 MB."""


@dataclass(frozen=True)
class ProductMetadata:
    """What a product says of itself.

    Attributes
    ----------
    id : str
        Product id.
    sensor : str
        Name for `geococa.sensors.get_sensor`.
    family : str or None
        Platform family of Landsat (``tm``, ``etm``, ``oli``).
    acquired : datetime.datetime
        Sensing time, UTC.
    baseline : str
        Processing baseline or software version, empty where it has none.
    scale, offset : dict of str to float
        By native band name: ``reflectance = DN * scale + offset``. Bands that are not reflectance are left out.
    problem : str
        Why scale and offset are not known, empty where they are.
    stated : bool
        Whether the product says anything of its scale or offset, contradictory as it may be.
    """

    id: str
    sensor: str
    family: str | None
    acquired: datetime
    baseline: str
    scale: dict[str, float] = field(default_factory=dict)
    offset: dict[str, float] = field(default_factory=dict)
    problem: str = ""
    stated: bool = True


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    file = Path(path)
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise InputRefused(
                f"{file}: metadata of {size} bytes; expected at most {MAX_BYTES}, so this is another file"
            )
        return file.read_bytes()
    except OSError as error:
        raise InputRefused(
            f"{file}: can't be read ({error.strerror or error}); check the path and its rights"
        ) from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(path).decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputRefused(f"{path}: not valid JSON ({error}); fetch the product's metadata again") from error
    if not isinstance(value, dict):
        raise InputRefused(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def parse_xml(text: bytes, name: str) -> Element:
    """Parse XML, refusing document types and entities: a metadata file has none, an attack does.

    Parameters
    ----------
    text : bytes
        The document.
    name : str
        File name for messages.

    Raises
    ------
    InputRefused
        The document is malformed, nested too deeply, or declares a document type or an entity.
    """
    from xml.parsers import expat

    builder, depth = TreeBuilder(), [0]

    def start(tag: str, attributes: dict[str, str]) -> None:
        depth[0] += 1
        if depth[0] > 64:
            raise InputRefused(f"{name}: XML nested deeper than 64 elements, which no product metadata is")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        depth[0] -= 1
        builder.end(tag)

    def refuse(*_: object) -> Any:
        raise InputRefused(f"{name}: the XML declares a document type or entity, which product metadata never do")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = refuse
    try:
        parser.Parse(text, True)
        return builder.close()
    except (expat.ExpatError, AssertionError) as error:
        raise InputRefused(f"{name}: not valid XML ({error}); fetch the product's metadata again") from error


def local_name(tag: str) -> str:
    """Return a tag without its namespace prefix or URI."""
    return tag.rsplit("}", 1)[-1].rsplit(":", 1)[-1]


def _texts(root: Element, *names: str) -> list[Element]:
    return [element for element in root.iter() if local_name(element.tag) in names]


def parse_time(text: str, name: object) -> datetime:
    try:
        value = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise InputRefused(f"{name}: {text!r} is not a date and time; expected ISO 8601") from error
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def parse_number(value: object, what: str, name: object) -> float:
    try:
        number = float(str(value).strip())
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputRefused(f"{name}: {what} is {value!r}; expected a finite number")
    return number


def baseline_number(text: str) -> float | None:
    """Return the processing baseline as a number (``"05.09"`` -> 5.09), or None where it is not one."""
    return float(text) if re.fullmatch(r"\d{1,2}\.\d{1,2}", text.strip()) else None


def read_sentinel2_metadata(path: str | os.PathLike[str]) -> ProductMetadata:
    """Read ``MTD_MSIL2A.xml`` or ``MTD_MSIL1C.xml`` of a Sentinel-2 product.

    Parameters
    ----------
    path : path
        The XML file.

    Returns
    -------
    ProductMetadata
        Scale ``1 / quantification value`` and offset ``add offset / quantification value`` of every band.

    Raises
    ------
    InputRefused
        The file can't be read as product metadata.
    UnknownOffset
        The quantification value is missing, or offsets and processing baseline contradict each other.

    References
    ----------
    ESA, Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD (offsets since baseline 04.00).
    """
    root = parse_xml(read_bytes(path), str(path))

    def first(*names: str) -> str:
        found = _texts(root, *names)
        return (found[0].text or "").strip() if found else ""

    level = "sentinel-2-l1c" if "1C" in first("PROCESSING_LEVEL") else "sentinel-2-l2a"
    baseline = first("PROCESSING_BASELINE")
    sensed = first("DATATAKE_SENSING_START", "PRODUCT_START_TIME")
    if not sensed:
        raise InputRefused(f"{path}: no sensing time; expected DATATAKE_SENSING_START in product metadata")
    divisors = (
        ("QUANTIFICATION_VALUE",)
        if level.endswith("1c")
        else ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE")
    )
    quantification = first(*divisors)
    if not quantification:
        raise UnknownOffset(f"{path}: no {divisors[0]}, so the scale is not known; fetch the product's metadata again")
    divisor = parse_number(quantification, divisors[0], path)
    if divisor <= 0:
        raise UnknownOffset(f"{path}: {divisors[0]} is {divisor}; expected a positive number")
    bands = _band_ids(root)
    tag = "RADIO_ADD_OFFSET" if level.endswith("1c") else "BOA_ADD_OFFSET"
    declared = {
        bands.get(element.get("band_id", ""), ""): parse_number(element.text, tag, path) / divisor
        for element in _texts(root, tag)
    }
    agree_with_baseline(baseline, declared, str(path))
    known = get_sensor(level)
    scale = {band.native: 1.0 / divisor for band in known.bands}
    offset = (
        {name: declared.get(name, 0.0) for name in scale}
        if not declared
        else {k: declared[k] for k in scale if k in declared}
    )
    product = first("PRODUCT_URI", "PRODUCT_URI_2A", "PRODUCT_URI_1C").removesuffix(".SAFE")
    return ProductMetadata(
        product or Path(path).parent.name, level, None, parse_time(sensed, path), baseline, scale, offset
    )


def _band_ids(root: Element) -> dict[str, str]:
    """Native band name by the number that offsets refer to; the order of the standard where a file omits the list."""
    order = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
    ids = {str(number): native for number, native in enumerate(order)}
    for element in _texts(root, "Spectral_Information"):
        name = element.get("physicalBand", "").upper()
        if re.fullmatch(r"B\d{1,2}A?", name):
            ids[element.get("bandId", "")] = name if name.endswith("A") else f"B{int(name[1:]):02d}"
    return ids


def agree_with_baseline(baseline: str, offsets: Mapping[str, float], name: str, *, applied: bool | None = None) -> None:
    """Refuse offsets that the processing baseline contradicts."""
    number = baseline_number(baseline)
    shifted = sorted(band for band, value in offsets.items() if value != 0)
    if applied and shifted:
        raise UnknownOffset(
            f"{name}: the offset is said to be applied already, yet an offset of {offsets[shifted[0]]} is declared for "
            f"{', '.join(shifted[:3])}; find out which holds and pass offset= to to_reflectance"
        )
    if number is None:
        return
    if number < 4 and shifted:
        raise UnknownOffset(
            f"{name}: baseline {baseline} has no offset by definition, yet {offsets[shifted[0]]} is declared for "
            f"{', '.join(shifted[:3])}; find out which holds and pass offset= to to_reflectance"
        )
    if number >= 4 and not shifted and not applied:
        found = "declares an offset of 0" if offsets else "declares none"
        raise UnknownOffset(
            f"{name}: products since baseline 04.00 (this is {baseline}) are stored with an offset, yet the metadata "
            f"{found} and does not say that it was applied; pass offset= to to_reflectance if you know it"
        )
