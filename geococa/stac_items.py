"""Reader of STAC items: where a product's bands are, and their scale and offset."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geococa.errors import InputRefused, UnknownOffset
from geococa.metadata import (
    ProductMetadata,
    agree_with_baseline,
    baseline_number,
    parse_number,
    parse_time,
    read_json,
)
from geococa.sensors import Sensor, get_sensor, landsat_family

__all__ = ["StacAsset", "read_stac_item", "stac_metadata"]

_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")


@dataclass(frozen=True)
class StacAsset:
    """One raster of a STAC item: where it is, and which band it holds."""

    key: str
    href: str
    names: tuple[str, ...]
    scale: float | None
    offset: float | None


def read_stac_item(path: str | os.PathLike[str]) -> tuple[ProductMetadata, tuple[StacAsset, ...]]:
    """Read a STAC item of a Sentinel-2 or Landsat product: ``raster:bands`` or STAC 1.1 ``bands``.

    Parameters
    ----------
    path : path
        The item as a JSON file.

    Returns
    -------
    metadata : ProductMetadata
        With ``problem`` set, and no scale, where the item does not settle scale and offset.
    assets : tuple of StacAsset
        Rasters that hold bands, in the item's order.

    Raises
    ------
    InputRefused
        The file is not a STAC item, or of a product that geococa does not know.

    References
    ----------
    STAC 1.1 common metadata, raster extension 1.1 and 2.0, electro-optical extension.
    """
    return stac_metadata(read_json(path), path)


def stac_metadata(
    item: Mapping[str, Any], path: str | os.PathLike[str]
) -> tuple[ProductMetadata, tuple[StacAsset, ...]]:
    """Read a STAC item that is in memory already, as `read_stac_item` does; ``path`` names it in messages."""
    properties, assets = item.get("properties"), item.get("assets")
    if not isinstance(properties, dict) or not isinstance(assets, dict) or item.get("type") != "Feature":
        raise InputRefused(f"{path}: not a STAC item (expected a Feature with properties and assets)")
    name = str(item.get("id", Path(path).stem))
    sensor, family = _stac_sensor(properties, assets, name, path)
    moment = properties.get("datetime") or properties.get("start_datetime")
    if not moment:
        raise InputRefused(f"{path}: the item has no datetime")
    rasters = tuple(
        asset
        for key, value in assets.items()
        if isinstance(value, dict) and (asset := _stac_asset(key, value, item, path))
    )
    baseline = str(
        properties.get("s2:processing_baseline")
        or properties.get("sentinel:processing_baseline")
        or properties.get("processing:version")
        or _baseline_in_name(properties)
        or ""
    )
    base = ProductMetadata(name, sensor.name, family, parse_time(str(moment), path), baseline)
    try:
        scale, offset = _scaling(sensor.of_family(family), properties, rasters, baseline, str(path))
    except UnknownOffset as error:
        silent = all(raster.scale is None and raster.offset is None for raster in rasters)
        flagged = any(key in properties for key in _APPLIED)
        return replace(base, problem=str(error), stated=flagged or not silent), rasters
    return replace(base, scale=scale, offset=offset), rasters


def _baseline_in_name(properties: Mapping[str, Any]) -> str:
    for key in ("s2:product_uri", "sentinel:product_id"):
        found = re.search(r"_N(\d{2})(\d{2})_", str(properties.get(key, "")))
        if found:
            return f"{found.group(1)}.{found.group(2)}"
    return ""


def _stac_sensor(
    properties: Mapping[str, Any], assets: Mapping[str, Any], name: str, path: object
) -> tuple[Sensor, str | None]:
    platform = str(properties.get("platform") or properties.get("eo:platform") or "").lower()
    constellation = str(properties.get("constellation", "")).lower()
    if "sentinel-2" in constellation or "sentinel-2" in platform or re.match(r"S2[ABC]_", name):
        product = str(properties.get("s2:product_type", "")) + str(properties.get("processing:level", "")) + name
        has_scl = any(str(key).lower() in ("scl", "scl_20m") for key in assets)
        if re.search(r"2A\b|L2A|2A$", product) or has_scl:
            return get_sensor("sentinel-2-l2a"), None
        return get_sensor("sentinel-2-l1c"), None
    family = landsat_family(platform) or landsat_family(name)
    if family is None:
        raise InputRefused(f"{path}: platform {platform or 'not named'!r} is none that geococa knows; give sensor=")
    correction = str(properties.get("landsat:correction", "")) + name
    surface = "L2S" in correction or any(str(key).upper().startswith("SR_B") for key in assets)
    return get_sensor("landsat-c2-l2" if surface else "landsat-l1"), family


def _stac_asset(key: str, asset: Mapping[str, Any], item: Mapping[str, Any], path: object) -> StacAsset | None:
    """Return the asset as a band raster, or None for thumbnails, metadata and archives."""
    href, kind = asset.get("href"), str(asset.get("type", ""))
    if (
        not isinstance(href, str)
        or not re.search(r"\.(tiff?|jp2)$", href, re.IGNORECASE)
        or kind.startswith("image/png")
    ):
        return None
    described = _dicts(asset.get("bands")) or _eo_bands(asset, item)
    if len(described) > 1 or {"overview", "thumbnail", "visual"} & {str(role) for role in asset.get("roles") or ()}:
        return None  # a picture for people, not a band
    names = [str(key)]
    for band in described[:1]:
        names += [str(band[k]) for k in ("name", "common_name", "eo:common_name") if isinstance(band.get(k), str)]
    rasters = _dicts(asset.get("raster:bands")) or _dicts(asset.get("bands"))
    first: Mapping[str, Any] = rasters[0] if rasters else {}

    def value(field_name: str) -> float | None:
        for source, name in ((first, field_name), (first, f"raster:{field_name}"), (asset, f"raster:{field_name}")):
            if source.get(name) is not None:
                return parse_number(source[name], f"{field_name} of asset {key}", path)
        return None

    return StacAsset(str(key), href, tuple(dict.fromkeys(names)), value("scale"), value("offset"))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _eo_bands(asset: Mapping[str, Any], item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``eo:bands`` of an asset; before STAC 1.0 they were numbers that refer to the item's list."""
    listed = asset.get("eo:bands")
    if isinstance(listed, list) and listed and all(isinstance(entry, int) for entry in listed):
        table = _dicts(item.get("properties", {}).get("eo:bands"))
        return [table[entry] for entry in listed if 0 <= entry < len(table)]
    return _dicts(listed)


def _scaling(
    sensor: Sensor, properties: Mapping[str, Any], rasters: Iterable[StacAsset], baseline: str, path: str
) -> tuple[dict[str, float], dict[str, float]]:
    """Scale and offset by native band name, or `UnknownOffset` where the item leaves them open."""
    scale: dict[str, float] = {}
    offset: dict[str, float] = {}
    for raster in rasters:
        band = next((found for name in raster.names if (found := sensor.find(name)) is not None), None)
        if band is None or band.role in ("thermal", "pan"):
            continue
        if raster.scale is not None and raster.scale <= 0:
            raise UnknownOffset(f"{path}: the scale of {raster.key} is {raster.scale}; expected a positive number")
        for target, value in ((scale, raster.scale), (offset, raster.offset)):
            if value is not None and target.setdefault(band.native, value) != value:
                raise UnknownOffset(
                    f"{path}: band {band.native} is declared with {target[band.native]} and with {value}; "
                    "find out which holds and pass scale= and offset= to to_reflectance"
                )
    if sensor.name.startswith("sentinel-2"):
        _settle_sentinel2(sensor, properties, scale, offset, baseline, path)
    elif sensor.scale is not None and sensor.offset is not None:
        _settle_by_definition(sensor, scale, offset, path)
    both = [name for name in scale if name in offset]
    return {name: scale[name] for name in both}, {name: offset[name] for name in both}


def _settle_by_definition(sensor: Sensor, scale: dict[str, float], offset: dict[str, float], path: str) -> None:
    """Fill in what the product definition fixes, and refuse an item that says otherwise."""
    for band in sensor.bands:
        if band.role != "reflectance":
            continue
        for target, value in ((scale, sensor.scale), (offset, sensor.offset)):
            if value is not None and abs(target.setdefault(band.native, value) - value) > 1e-9:
                raise UnknownOffset(
                    f"{path}: {target[band.native]} is declared for {band.native}, {value} by the definition of "
                    f"{sensor.name} ({sensor.reference}); pass scale= and offset= to to_reflectance"
                )


def _settle_sentinel2(
    sensor: Sensor,
    properties: Mapping[str, Any],
    scale: dict[str, float],
    offset: dict[str, float],
    baseline: str,
    path: str,
) -> None:
    """Refuse what contradicts itself; fill in zero offsets where the product definition has none."""
    named, number = _baseline_in_name(properties), baseline_number(baseline)
    if named and number is not None and baseline_number(named) != number:
        raise UnknownOffset(f"{path}: processing baseline {baseline} in the properties, {named} in the product's name")
    flags = [properties[key] for key in _APPLIED if key in properties]
    if len({bool(flag) for flag in flags}) > 1:
        raise UnknownOffset(f"{path}: {' and '.join(_APPLIED)} say different things")
    applied = bool(flags[0]) if flags else None
    if number is None and applied is None and not any(offset.values()):
        raise UnknownOffset(
            f"{path}: no processing baseline and no offset, so it is not known whether the numbers are shifted; "
            "pass offset= to to_reflectance if you know it"
        )
    agree_with_baseline(baseline, offset, path, applied=applied)
    before_offsets = number is not None and number < 4
    if not offset and (before_offsets or applied):
        offset.update({band.native: 0.0 for band in sensor.bands})
    if not scale and before_offsets:
        scale.update({band.native: 1e-4 for band in sensor.bands})
    if not scale or not offset:
        lacking = "scale" if not scale else "offset"
        raise UnknownOffset(f"{path}: no {lacking} is declared for any band; pass {lacking}= to to_reflectance")
