"""Checksums that an archive states of its own files: in STAC items and in the manifests of Sentinel-2 products.

GDAL reads a raster with a flipped bit without a word in most codecs, so only a checksum tells. ``file:checksum`` of STAC
assets and ``manifest.safe`` state them; lists as ``sha256sum`` writes them are seen to by `geococa.tile_inputs`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlparse

from geococa.errors import InputRefused
from geococa.metadata import local_name, parse_xml, read_bytes, read_json
from geococa.scene_refs import SceneRef, TileRef

__all__ = ["Stated", "check_stated", "stated_checksums"]

_MULTIHASH = {"1114": "sha1", "1220": "sha256", "1340": "sha512", "1620": "sha3_256", "d50110": "md5"}
"""Prefixes of the multihash table that the STAC file extension refers to: code and length, hexadecimal."""
_SAFE_NAMES = {"MD5": "md5", "SHA3-256": "sha3_256", "SHA-256": "sha256", "SHA256": "sha256"}

Stated = tuple[str, str, str]
"""Algorithm, checksum, and the file that states it."""


def check_stated(tile: TileRef) -> int:
    """Hold the files of a tile against the checksums that its products state; return how many were held.

    Raises
    ------
    InputRefused
        A file has another checksum, or can't be read.
    """
    held = 0
    for scene in tile.scenes:
        stated = stated_checksums(scene)
        sources = {file.source for file in scene.files.values()}
        for path in sorted(source for source in sources if source is not None and source in stated):
            _check(path, stated[path])
            held += 1
    return held


def _check(path: Path, stated: Stated) -> None:
    algorithm, expected, source = stated
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise InputRefused(
            f"{path}: can't be read ({error.strerror or error}); check the disk and its rights"
        ) from error
    if found != expected.lower():
        raise InputRefused(
            f"{path}: its {algorithm} is {found[:12]}..., but {source} states {expected.lower()[:12]}...; the file is damaged "
            "or was replaced, fetch it again"
        )


def stated_checksums(scene: SceneRef) -> dict[Path, Stated]:
    """Checksums that a scene's own metadata state, by file."""
    place = Path(scene.path)
    folder = place if place.is_dir() else place.parent
    found: dict[Path, Stated] = {}
    if (folder / "manifest.safe").is_file():
        found |= _from_safe(folder / "manifest.safe")
    items = [place] if place.suffix.lower() == ".json" else sorted(folder.glob("*.json")) if place.is_dir() else []
    for item in items:
        found |= _from_item(item, scene.id)
    return found


def _from_safe(path: Path) -> dict[Path, Stated]:
    """Checksums of a SAFE manifest: each ``byteStream`` has a ``fileLocation`` and a ``checksum``."""
    found = {}
    for stream in parse_xml(read_bytes(path), str(path)).iter():
        if local_name(stream.tag) != "byteStream":
            continue
        parts = {local_name(child.tag): child for child in stream}
        if {"fileLocation", "checksum"} <= set(parts):
            algorithm = _SAFE_NAMES.get(parts["checksum"].get("checksumName", "").upper())
            file = _inside(path.parent, parts["fileLocation"].get("href", ""))
            if algorithm and file:
                found[file] = (algorithm, (parts["checksum"].text or "").strip(), path.name)
    return found


def _from_item(path: Path, scene: str) -> dict[Path, Stated]:
    """``file:checksum`` of the assets of a STAC item, or of the one item of a collection that a scene is."""
    try:
        head = read_json(path)
    except InputRefused:
        return {}  # some other JSON beside the scene; the item itself was read when the tile was found
    items = head.get("features") if head.get("type") == "FeatureCollection" else [head]
    found = {}
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict) or (len(items or []) > 1 and item.get("id") != scene):
            continue
        assets = item.get("assets")
        for asset in assets.values() if isinstance(assets, dict) else []:
            if not isinstance(asset, dict) or not isinstance(asset.get("file:checksum"), str):
                continue
            prefix = next((p for p in _MULTIHASH if asset["file:checksum"].lower().startswith(p)), None)
            file = _inside(path.parent, str(asset.get("href", "")))
            if prefix and file:
                found[file] = (
                    _MULTIHASH[prefix],
                    asset["file:checksum"][len(prefix) :],
                    f"{path.name} (file:checksum)",
                )
    return found


def _inside(folder: Path, href: str) -> Path | None:
    address = urlparse(href)
    if address.scheme not in ("", "file"):
        href = address.path.rsplit("/", 1)[-1]
    path = (folder / unquote(href)).resolve()
    return path if path.is_file() else None
