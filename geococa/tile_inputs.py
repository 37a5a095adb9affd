"""The files that a tile's maps are made from: whether they changed, what they hold, and whether that is what was sent.

Their state is known quickly from names, sizes and times, and surely from their SHA-256. Where a folder brings a list of
checksums (``SHA256SUMS``, as ``sha256sum`` writes it), files that differ from it are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geococa.errors import InputRefused
from geococa.ledger import file_fingerprint, file_sha256
from geococa.scene_refs import TileRef

__all__ = [
    "CHECKSUM_LIST",
    "InputFile",
    "check_listed",
    "content_key",
    "read_checksums",
    "tile_digests",
    "tile_fingerprint",
]

CHECKSUM_LIST = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_SMALL = 8 * 2**20
"""Files up to this size that are no bands are taken for metadata, and their bytes count."""


@dataclass(frozen=True)
class InputFile:
    """One input of a tile.

    Attributes
    ----------
    name : str
        Tile id and path below the tile's folder.
    size : int
        Bytes.
    sha256 : str
        SHA-256 of its bytes, hexadecimal.
    path : pathlib.Path
        Where it is.
    """

    name: str
    size: int
    sha256: str
    path: Path


def tile_fingerprint(tile: TileRef) -> list[Any]:
    """State of all files of a tile's scenes by name, size and time, and what a sensor's description says of them."""
    found: list[Any] = []
    root = Path(tile.path)
    for scene in tile.scenes:
        place = Path(scene.path)
        found += [file_fingerprint(member, root) for member in _members(place)] if place.exists() else [scene.path]
        # bands of an item of a catalog may lie anywhere in the archive
        others = {file.source for file in scene.files.values() if file.source is not None} - {place.resolve()}
        outside = sorted(source for source in others if not source.is_relative_to(place.resolve()))
        found += [file_fingerprint(member, root) for source in outside for member in _members(source)]
        found.append(_described(scene))
    return found


def tile_digests(
    tile: TileRef, bands: Iterable[str] | None, *, known: Mapping[str, tuple[int, str]] | None = None
) -> list[InputFile]:
    """SHA-256 of every file of a tile that is read: bands asked for, quality bands and metadata, in order of names.

    Parameters
    ----------
    tile : TileRef
        Tile.
    bands : iterable of str or None
        Bands that are read; all where None.
    known : mapping, optional
        Size and SHA-256 by name of files that need not be read again.

    Raises
    ------
    InputRefused
        A file can't be read.
    """
    paths = sorted(set(_read_files(tile, bands)))
    try:
        return [_digest(path, _name(path, tile), known or {}) for path in paths]
    except OSError as error:
        raise InputRefused(
            f"{error.filename}: can't be read ({error.strerror or error}); check the path and its rights"
        ) from error


def _digest(path: Path, name: str, known: Mapping[str, tuple[int, str]]) -> InputFile:
    size, digest = known[name] if name in known else (path.stat().st_size, file_sha256(path))
    return InputFile(name, size, digest, path)


def content_key(tile: TileRef, files: Iterable[tuple[str, str]]) -> list[Any]:
    """State of a tile's inputs by name and SHA-256; what `tile_fingerprint` is by names, sizes and times."""
    return [list(file) for file in files] + [_described(scene) for scene in tile.scenes]


def _described(scene: Any) -> list[Any]:
    # what a sensor.toml says of the numbers is in no file of the scene
    return [scene.id, sorted(scene.scale.items()), sorted(scene.offset.items()), str(scene.own_quality)]


def _members(path: Path) -> list[Path]:
    return sorted(member for member in path.rglob("*") if member.is_file()) if path.is_dir() else [path]


def _read_files(tile: TileRef, bands: Iterable[str] | None) -> Iterator[Path]:
    for scene in tile.scenes:
        wanted = scene.files if bands is None else [*bands, *scene.quality]
        used = {file.source for name in wanted if (file := scene.band_file(name)) is not None}
        for source in used - {None}:
            assert source is not None
            yield from _members(source)  # a store is a folder
        rasters = {file.source for file in scene.files.values()}
        place = Path(scene.path)
        if not place.is_dir():
            yield from [place.resolve()] if place.is_file() else []  # an item of a catalog, or the raster itself
            continue
        if place.resolve() in rasters:
            continue
        for member in _members(place):
            if member.resolve() not in rasters and member.stat().st_size <= _SMALL and not _is_raster(member):
                yield member.resolve()


def _is_raster(path: Path) -> bool:
    return path.suffix.lower() in {".tif", ".tiff", ".jp2", ".png", ".jpg"} or path.name == CHECKSUM_LIST


def _name(path: Path, tile: TileRef) -> str:
    root = Path(tile.path).resolve()
    return f"{tile.tile}/{path.relative_to(root).as_posix()}" if path.is_relative_to(root) else path.name


# --- lists of checksums ----------------------------------------------------------------------------


def read_checksums(tile: TileRef) -> dict[Path, str]:
    """SHA-256 that the lists in the archive, the tile and its scenes give for files; empty where there are none.

    Raises
    ------
    InputRefused
        A list can't be read.
    """
    place = Path(tile.path)
    folders = [place.parent, place, *(Path(scene.path) for scene in tile.scenes)]
    found: dict[Path, str] = {}
    for folder in dict.fromkeys(folders):
        found |= _listed(folder)
    return found


def _listed(folder: Path) -> dict[Path, str]:
    path = folder / CHECKSUM_LIST
    if not path.is_file():
        return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise InputRefused(
                f"{path}: line {number} is not 'SHA-256, two blanks, file name'; make it again with sha256sum"
            )
        found[(folder / match[2]).resolve()] = match[1].lower()
    return found


def check_listed(files: Iterable[InputFile], listed: dict[Path, str]) -> None:
    """Compare files with the checksums that came with them.

    Raises
    ------
    InputRefused
        A file has other bytes than its list says.
    """
    for file in files:
        expected = listed.get(file.path)
        if expected is not None and expected != file.sha256:
            raise InputRefused(
                f"{file.path}: has SHA-256 {file.sha256[:12]}..., but {CHECKSUM_LIST} says {expected[:12]}...: its bytes have "
                "changed since the list was made; fetch the file again"
            )
