"""How archives lie on disk: which folders and files are scenes of a tile, and which file holds which band.

Recognised are scene folders with a STAC item, Sentinel-2 SAFE folders, Landsat bundles, and GeoTIFF or
JPEG 2000 files with a date in their names. Only headers and metadata are read here, never pixels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlparse

from geococa.duplicates import newest_products
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.landsat_mtl import read_mtl
from geococa.metadata import ProductMetadata, read_sentinel2_metadata
from geococa.rasters import Header, read_header, read_member_header
from geococa.scene_grids import common_grid
from geococa.scene_refs import UNKNOWN_SENSOR, BandFile, SceneRef, TileRef, cells_per_side, finest
from geococa.sensors import COMMON_NAMES, QUALITIES, Sensor, get_sensor, landsat_family
from geococa.stac_items import read_stac_item
from geococa.tar_bundles import is_tar, read_bundle

__all__ = [
    "UNKNOWN_SENSOR",
    "BandFile",
    "SceneRef",
    "TileRef",
    "cells_per_side",
    "finest",
    "is_product",
    "keep_finest",
    "known_name",
    "scene_from",
    "tile_grid",
    "tile_in",
    "tile_of",
]

_RASTER = re.compile(r"\.(tiff?|jp2)$", re.IGNORECASE)
_IDS = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")


def tile_of(
    path: str | os.PathLike[str], sensor: str | Sensor | None = None, *, date: str | datetime | None = None
) -> TileRef:
    """Find the scenes of a tile.

    Parameters
    ----------
    path : path
        Tile folder, one scene folder, or one raster.
    sensor : str or Sensor, optional
        Needed only where no metadata say it.
    date : str or datetime.datetime, optional
        Sensing time of a raster that does not say it.

    Raises
    ------
    InputRefused
        No scene is found, or one is unusable.
    """
    place = Path(path)
    if not place.exists():
        raise InputRefused(f"{place}: does not exist; give the folder of a tile, of a scene, or a GeoTIFF")
    tile = tile_in(place, None if sensor is None else get_sensor(sensor), date)
    if tile is None:
        raise InputRefused(
            f"{place}: no scene in it; expected scene folders (STAC item.json, SAFE, Landsat bundle) or rasters with a "
            "date in their names"
        )
    return tile


def tile_in(place: Path, sensor: Sensor | None, date: str | datetime | None = None) -> TileRef | None:
    """Return the tile that a folder or file is, or None where it holds no scene."""
    found = scenes_of(place, sensor, date)
    if not found:
        return None
    name = place.stem if place.is_file() else place.resolve().name
    if not _IDS.fullmatch(name):
        raise InputRefused(
            f"{place}: a tile's name must be of letters, digits, '_', '.', '-', at most 100; got {name!r}"
        )
    scenes = newest_products(sorted(found, key=lambda scene: (scene.datetime, scene.id)))
    sensors = sorted({scene.sensor for scene in scenes})
    return TileRef(name, str(place), ", ".join(sensors), tile_grid(place, scenes), scenes)


def scenes_of(place: Path, sensor: Sensor | None = None, date: str | datetime | None = None) -> list[SceneRef]:
    """Scenes in a folder or file; an empty list where there is none."""
    if place.is_file():
        return [_tar_scene(place, sensor)] if is_tar(place) else [_file_scene(place, sensor, date)]
    own = _folder_scenes(place, sensor)
    if own:
        return own
    found: list[SceneRef] = []
    for child in sorted(place.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            found += _folder_scenes(child, sensor)
    return found or _dated_scenes(place, sensor)


def is_product(folder: Path) -> bool:
    """Whether a folder is one product with its metadata, rather than a tile of several."""
    return (folder / "item.json").is_file() or _product_xml(folder) is not None or any(folder.glob("*_MTL.*"))


def tile_grid(place: Path, scenes: Iterable[SceneRef]) -> Grid:
    """Grid of a tile's scenes, each by its finest default band: the one they share, or the smallest that holds them all."""
    anchors = []
    for scene in scenes:
        wanted = [scene.files[name] for name in (*scene.default, *scene.quality)] or list(scene.files.values())
        anchors.append((scene.id, finest(wanted)))
    return common_grid(anchors, place)


# --- scene folders ---------------------------------------------------------------------------------


def _folder_scenes(folder: Path, sensor: Sensor | None) -> list[SceneRef]:
    """Scenes that a folder is (one product) or holds as flat Landsat bundles."""
    if (folder / "item.json").is_file():
        return [_stac_scene(folder, folder / "item.json", sensor)]
    xml = _product_xml(folder)
    if xml is not None:
        return [_safe_scene(folder, xml, sensor)]
    bundles = _landsat_scenes(folder, sensor) + _tar_scenes(folder, sensor)
    if bundles:
        return bundles
    items = [file for file in sorted(folder.glob("*.json")) if b'"stac_version"' in _head(file)]
    return [_stac_scene(folder, items[0], sensor)] if len(items) == 1 else []


def _product_xml(folder: Path) -> Path | None:
    """Metadata of a SAFE folder: as named since baseline 02.04 (December 2016), or as before."""
    for name in ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml"):
        if (folder / name).is_file():
            return folder / name
    earlier = sorted(folder.glob("S2[ABC]_*_MTD_SAFL[12][AC]_*.xml"))
    return earlier[0] if len(earlier) == 1 else None


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(1_000_000)


def scene_from(
    metadata: ProductMetadata, place: Path, sensor: Sensor, files: Mapping[str, BandFile], given: Sensor | None
) -> SceneRef:
    """Scene of a product from its metadata and files, by variable name, in the order of the sensor's bands.

    Raises
    ------
    InputRefused
        No file is a band, or the sensor is another than ``given``.
    """
    if given is not None and given.name != sensor.name:
        raise InputRefused(f"{place}: is {sensor.name} by its metadata, but sensor={given.name!r} was asked for")
    if not any(name not in QUALITIES for name in files):
        raise InputRefused(
            f"{place}: no band of {sensor.name} is on disk; expected for example {sensor.bands[0].native}"
        )
    names = {band.native: band.name for band in sensor.bands}
    order = {band.name: position for position, band in enumerate(sensor.bands)}
    ordered = dict(sorted(files.items(), key=lambda item: order.get(item[0], 99)))
    reflective = {band.name for band in sensor.bands if band.role == "reflectance"}
    return SceneRef(
        metadata.id,
        metadata.acquired,
        str(place),
        sensor.name,
        {name: _defined(file, name, sensor) for name, file in ordered.items()},
        tuple(name for name in ordered if name in reflective),
        {names[key]: value for key, value in metadata.scale.items() if key in names},
        {names[key]: value for key, value in metadata.offset.items() if key in names},
        metadata.baseline,
        metadata.problem,
    )


def _defined(file: BandFile, name: str, sensor: Sensor) -> BandFile:
    """Add what the product's definition says of missing data where the file itself does not."""
    if name in QUALITIES:
        return file
    fill = None if sensor.fill is None else float(sensor.fill)
    return replace(file, nodata=fill if file.nodata is None else file.nodata, valid=sensor.valid)


def keep_finest(files: dict[str, BandFile], name: str, header: Header) -> None:
    """Keep the finest of several files of a band."""
    file = BandFile.of(header)
    files[name] = finest([files[name], file]) if name in files else file


def _stac_scene(folder: Path, item: Path, given: Sensor | None) -> SceneRef:
    metadata, assets = read_stac_item(item)
    sensor = get_sensor(metadata.sensor).of_family(metadata.family)
    files: dict[str, BandFile] = {}
    for asset in assets:
        name = next((found for text in asset.names if (found := known_name(text, sensor))), None)
        path = _asset_path(folder, asset.href, item) if name else None
        if name and path is not None:
            keep_finest(files, name, read_header(path))
    for name in ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml"):
        if (folder / name).is_file():
            metadata = _agreeing(metadata, read_sentinel2_metadata(folder / name), item)
    return scene_from(metadata, folder, sensor, files, given)


def _agreeing(item: ProductMetadata, product: ProductMetadata, path: Path) -> ProductMetadata:
    """Metadata of an item beside the product's own XML, which must not contradict it and says what the item does not."""
    if not item.scale and not item.offset and item.problem and not item.stated:
        if item.baseline in ("", product.baseline):
            return replace(item, scale=product.scale, offset=product.offset, baseline=product.baseline, problem="")
        text = f"{path}: processing baseline {item.baseline}, the product's XML beside it says {product.baseline}"
        return replace(item, problem=f"{text}; pass offset= to to_reflectance")
    for band, offset in product.offset.items():
        if band in item.offset and abs(item.offset[band] - offset) > 1e-9:
            text = f"{path}: offset {item.offset[band]} for {band}, the product's XML beside it says {offset}"
            return replace(item, scale={}, offset={}, problem=f"{text}; pass offset= to to_reflectance")
    return item


def known_name(text: str, sensor: Sensor) -> str | None:
    """Variable name of a band or quality band of a sensor, by any of its names; None where it has none of that name."""
    bare = re.sub(r"_\d+m$", "", text)
    found, quality = sensor.find(bare), sensor.quality_band(bare)
    return found.name if found else quality.name if quality else None


def _asset_path(folder: Path, href: str, item: Path) -> Path | None:
    """Path of an asset below the scene's folder, or None where it is not on this disk."""
    address = urlparse(href)
    if address.scheme not in ("", "file"):
        # a downloaded item still names the remote file; its copy lies beside the item
        href = address.path.rsplit("/", 1)[-1]
    elif address.scheme == "file":
        href = address.path
    path = (folder / unquote(href)).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InputRefused(f"{item}: asset {href!r} leads outside its folder; keep the files of a scene below {folder}")
    return path if path.is_file() else None


def _safe_scene(folder: Path, xml: Path, given: Sensor | None) -> SceneRef:
    metadata = read_sentinel2_metadata(xml)
    sensor = get_sensor(metadata.sensor)
    granules = [child for child in sorted(folder.glob("GRANULE/*")) if child.is_dir()]
    if len(granules) != 1:
        raise InputRefused(f"{folder}: {len(granules)} granules; expected one (products before 2016 must be split)")
    best: dict[str, tuple[int, Path]] = {}
    for file in sorted(granules[0].glob("IMG_DATA/**/*")):
        # before December 2016 the scene classes were named ..._SCL_L2A_..._T18NXG_20m.jp2
        found = re.search(r"_(B\d{2}|B8A|SCL)(?:_L2A_\w+?)?(?:_(\d+)m)?\.(jp2|tiff?)$", file.name, re.I)
        name = known_name(found.group(1), sensor) if found else None
        if found and name:
            metres = int(found.group(2) or 0)
            if name not in best or metres < best[name][0]:
                best[name] = (metres, file)
    files: dict[str, BandFile] = {}
    for name, (_, file) in best.items():
        keep_finest(files, name, read_header(file))
    if metadata.id == folder.name:
        metadata = replace(metadata, id=folder.name.removesuffix(".SAFE"))
    return scene_from(metadata, folder, sensor, files, given)


def _landsat_scenes(folder: Path, given: Sensor | None) -> list[SceneRef]:
    bundles: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        found = re.fullmatch(r"(L[A-Z]\w+?)_((?:SR_|ST_)?B\d{1,2}|QA_PIXEL|QA_RADSAT)\.TIF", file.name, re.IGNORECASE)
        if found and file.is_file():
            bundles.setdefault(found.group(1), {})[found.group(2).upper()] = file
    scenes = []
    for product, members in sorted(bundles.items()):
        metadata = _landsat_metadata(folder, product)
        sensor = get_sensor(metadata.sensor).of_family(metadata.family)
        files: dict[str, BandFile] = {}
        for native, file in members.items():
            name = known_name(native, sensor)
            if name:
                keep_finest(files, name, read_header(file))
        scenes.append(scene_from(metadata, folder, sensor, files, given))
    return scenes


def _tar_scenes(folder: Path, given: Sensor | None) -> list[SceneRef]:
    """Scenes of the Landsat bundles in a folder that are still tar files; one that is unpacked beside it is left out."""
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and is_tar(file)]
    loose = {match.group(1) for file in folder.glob("L*_MTL.*") if (match := re.match(r"(\w+)_MTL\.", file.name))}
    return [_tar_scene(file, given) for file in files if file.name.split(".")[0] not in loose]


def _tar_scene(file: Path, given: Sensor | None) -> SceneRef:
    bundle = read_bundle(file)
    if bundle is None:
        raise InputRefused(
            f"{file}: no bands of a Landsat product in it; geococa reads Collection 2 bundles from tar files"
        )
    sensor = get_sensor(bundle.metadata.sensor).of_family(bundle.metadata.family)
    files: dict[str, BandFile] = {}
    for native, (offset, size) in bundle.bands.items():
        name = known_name(native, sensor)
        if name:
            keep_finest(files, name, read_member_header(file, offset, size))
    return scene_from(bundle.metadata, file, sensor, files, given)


def _landsat_metadata(folder: Path, product: str) -> ProductMetadata:
    for suffix in ("json", "xml", "txt"):
        file = folder / f"{product}_MTL.{suffix}"
        if file.is_file():
            return read_mtl(file)
    family, moment = landsat_family(product), _date_in(product)
    if family is None or moment is None or "_L2S" not in product:
        raise InputRefused(f"{folder}: no {product}_MTL.json, .xml or .txt; a Landsat bundle needs one for its scale")
    sensor = get_sensor("landsat-c2-l2").of_family(family)
    names = [band.native for band in sensor.bands if band.role == "reflectance"]
    # Collection 2 Level 2 fixes scale and offset for every product, so the bundle is usable without its MTL
    scale, offset = dict.fromkeys(names, sensor.scale or 0.0), dict.fromkeys(names, sensor.offset or 0.0)
    return ProductMetadata(product, sensor.name, family, moment, "", scale, offset)


# --- plain rasters ---------------------------------------------------------------------------------


def _date_in(text: str) -> datetime | None:
    """First date in a name: YYYY-MM-DD, YYYYMMDD, AYYYYDDD, or a Landsat scene id; None where there is none."""
    # a time of day may follow without a break: 202003081423
    clock = r"(?!\d)|(?=(?:[01]\d|2[0-3])[0-5]\d(?:[0-5]\d\d{0,3})?(?!\d))"
    for found in re.finditer(rf"(?<!\d)((?:19|20)\d{{2}})[-_.]?(\d{{2}})[-_.]?(\d{{2}})(?:{clock})", text):
        try:
            return datetime(*(int(part) for part in found.groups()), tzinfo=UTC)  # type: ignore[arg-type, misc]
        except ValueError:
            continue
    found_day = re.search(r"(?:L[A-Z]\d\d{6}|(?<![A-Za-z])A)((?:19|20)\d{2})(\d{3})(?!\d)", text)
    if found_day and 1 <= int(found_day.group(2)) <= 366:
        return datetime(int(found_day.group(1)), 1, 1, tzinfo=UTC) + timedelta(days=int(found_day.group(2)) - 1)
    return None


def _dated_scenes(folder: Path, sensor: Sensor | None) -> list[SceneRef]:
    """Scenes of a folder of rasters with dates in their names; files of one date make one scene."""
    single: dict[datetime, list[SceneRef]] = {}
    for file in sorted(folder.iterdir()):
        if file.is_file() and _RASTER.search(file.name) and _date_in(file.stem) is not None:
            scene = _file_scene(file, sensor, None)
            single.setdefault(scene.datetime, []).append(scene)
    return [_merged(scenes) for _, scenes in sorted(single.items())]


def _merged(scenes: list[SceneRef]) -> SceneRef:
    if len(scenes) == 1:
        return scenes[0]
    files: dict[str, BandFile] = {}
    for scene in scenes:
        twice = sorted(set(files) & set(scene.files))
        if twice:
            raise InputRefused(
                f"{scene.path}: band {twice[0]} of {scene.datetime:%Y-%m-%d} is also in {files[twice[0]].path}; "
                "keep one file a band and date"
            )
        files.update(scene.files)
    first = scenes[0]
    return replace(
        first,
        id=f"{first.datetime:%Y-%m-%d}",
        path=str(Path(first.path).parent),
        files=files,
        default=tuple(name for scene in scenes for name in scene.default),
        scale={name: value for scene in scenes for name, value in scene.scale.items()},
        offset={name: value for scene in scenes for name, value in scene.offset.items()},
    )


def _file_scene(file: Path, given: Sensor | None, date: str | datetime | None) -> SceneRef:
    """One raster as a scene: bands by description, scale from an MTL beside it, the sensor or the file's own tags."""
    header = read_header(file)
    named = _date_in(file.stem) or next(
        filter(None, (_date_in(v) for k, v in header.tags.items() if "ACQ" in k.upper())), None
    )
    if isinstance(date, str):
        date = datetime.fromisoformat(date)
    moment = date.replace(tzinfo=date.tzinfo or UTC) if date is not None else named
    metadata = _mtl_beside(file, moment) if given is None or given.name.startswith("landsat") else None
    sensor = get_sensor(metadata.sensor).of_family(metadata.family) if metadata else given or _sensor_in(file.name)
    moment = metadata.acquired if metadata else moment
    if moment is None:
        raise InputRefused(f"{file}: no date in its name or tags; give date='YYYY-MM-DD'")
    names = list(_band_names(file, header, sensor))
    files = {name: BandFile.of(header, index) for index, name in enumerate(names, start=1)}
    if sensor is not None and _numbered(sensor):
        # the description says which bands of which files are meant; the rest is not looked at
        files = {name: file for name, file in files.items() if sensor.find(name) or sensor.quality_band(name)}
    if sensor is None:
        sensor = Sensor(UNKNOWN_SENSOR, ())
    base = ProductMetadata(
        file.stem, sensor.name, None, moment, "", problem=f"{file}: does not say its scale and offset"
    )
    scaling = _file_scaling(header, names, sensor, metadata)
    roles = {band.name: band.role for band in sensor.bands}
    return SceneRef(
        file.stem,
        moment,
        str(file),
        sensor.name,
        {name: _defined(entry, name, sensor) for name, entry in files.items()},
        tuple(n for n in files if n not in QUALITIES and roles.get(n, "reflectance") == "reflectance"),
        {name: pair[0] for name, pair in scaling.items()},
        {name: pair[1] for name, pair in scaling.items()},
        metadata.baseline if metadata else "",
        "" if scaling else base.problem,
        next((quality for quality in sensor.quality if quality.name == "quality"), None),
    )


def _file_scaling(
    header: Header, names: list[str], sensor: Sensor, metadata: ProductMetadata | None
) -> dict[str, tuple[float, float]]:
    scaling: dict[str, tuple[float, float]] = {}
    for position, name in enumerate(names):
        band = sensor.find(name)
        own = header.scales[position], header.offsets[position]
        if metadata is not None:
            if band is not None and band.native in metadata.scale:
                scaling[name] = metadata.scale[band.native], metadata.offset[band.native]
        elif own != (1.0, 0.0):
            scaling[name] = own
        elif sensor.scale is not None and sensor.offset is not None and name not in QUALITIES:
            scaling[name] = sensor.scale, sensor.offset
    return scaling


def _sensor_in(name: str) -> Sensor | None:
    return get_sensor("modis-13q1") if re.search(r"MODIS|MOD13Q1|MYD13Q1", name, re.IGNORECASE) else None


def _mtl_beside(file: Path, moment: datetime | None) -> ProductMetadata | None:
    """Metadata of the one MTL beside a raster of the same date, if there is one."""
    found = [f for f in sorted(file.parent.iterdir()) if re.search(r"_MTL\.(json|xml|txt)$", f.name, re.IGNORECASE)]
    products = {f.name[: f.name.upper().rindex("_MTL.")]: f for f in found}
    if len(products) != 1:
        return None
    metadata = read_mtl(next(iter(products.values())))
    return metadata if moment is None or moment.date() == metadata.acquired.date() else None


def _numbered(sensor: Sensor) -> dict[str, str]:
    """Bands that a description names by file and band number, such as ``AnalyticMS_SR:3``: native to variable name."""
    named = [(band.native, band.name) for band in sensor.bands] + [(own.native, own.name) for own in sensor.quality]
    return {native: name for native, name in named if re.fullmatch(r".*:\d+", native)}


def _numbered_name(sensor: Sensor, stem: str, number: int) -> str | None:
    for native, name in _numbered(sensor).items():
        part, _, index = native.rpartition(":")
        if int(index) == number and part.lower() in stem.lower():
            return name
    return None


def _band_names(file: Path, header: Header, sensor: Sensor | None) -> Iterator[str]:
    """Variable name of each band: a common name in its description, a native name of the sensor, else its number."""
    seen: set[str] = set()
    for position in range(header.count):
        text = header.descriptions[position] or (file.stem if header.count == 1 else "")
        tokens = [text.lower(), *(token for token in re.split(r"[^a-z0-9]+", text.lower()) if token)]
        name = None if sensor is None else _numbered_name(sensor, file.stem, position + 1)
        if name is None:
            name = next((token for token in tokens if token in COMMON_NAMES), None)
        if name is None and sensor is not None:
            name = next((found for token in tokens if (found := known_name(token, sensor))), None)
        if name is None and header.descriptions[position]:
            plain = re.sub(r"\W+", "_", text.lower()).strip("_")
            name = plain if re.fullmatch(r"[a-z_]\w*", plain) else None
        name = name if name is not None and name not in seen else f"band_{position + 1}"
        seen.add(name)
        yield name
