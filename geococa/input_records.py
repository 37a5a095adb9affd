"""What a tile was made from, file by file: scenes, their files and checksums, kept beside a run's outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geococa.ledger import file_sha256
from geococa.scene_refs import SceneRef, TileRef
from geococa.tile_inputs import InputFile

__all__ = ["RecordedFile", "check_inputs", "locate_inputs", "record_bytes", "record_inputs"]


@dataclass(frozen=True)
class RecordedFile:
    """One file that a scene was read from.

    Attributes
    ----------
    path : str
        Path below the tile's folder, or the archive where the tile has none; an address for a remote file.
    bytes : int
        Size.
    sha256 : str
        Checksum, hexadecimal; empty for a remote file, which is not read whole.
    """

    path: str
    bytes: int
    sha256: str


def record_inputs(tile: TileRef, files: list[InputFile]) -> dict[str, Any]:
    """Record of the scenes of a tile and the files that they were read from.

    Parameters
    ----------
    tile : TileRef
        From `geococa.find_tiles`.
    files : list of InputFile
        The files that are read, with their checksums (`geococa.tile_inputs.tile_digests`). A file that no scene has for
        itself, such as metadata for several, counts for each of them.

    Returns
    -------
    dict
        Plain values: ``tile`` and ``scenes``, each with ``id``, ``datetime`` and ``files`` (`RecordedFile`).
    """
    root = Path(tile.path).resolve()
    base = root if root.is_dir() else root.parent
    owned = [{file.source for file in scene.files.values()} for scene in tile.scenes]
    anyones = set().union(*owned)
    scenes = []
    for scene, sources in zip(tile.scenes, owned, strict=True):
        own = [file for file in files if _belongs(file.path, scene, sources, anyones)]
        entries = [RecordedFile(_relative(file.path, base), file.size, file.sha256) for file in own]
        entries += [
            RecordedFile(path, 0, "") for path in sorted({f.path for f in scene.files.values() if f.source is None})
        ]
        plain = [vars(entry) for entry in sorted(entries, key=lambda entry: entry.path)]
        scenes.append({"id": scene.id, "datetime": scene.datetime.isoformat(), "files": plain})
    return {"tile": tile.tile, "scenes": scenes}


def _belongs(path: Path, scene: SceneRef, sources: set[Path | None], anyones: set[Path | None]) -> bool:
    if any(source is not None and (path == source or path.is_relative_to(source)) for source in sources):
        return True
    if any(source is not None and (path == source or path.is_relative_to(source)) for source in anyones):
        return False  # a band of another scene
    place = Path(scene.path).resolve()
    return path == place or path.is_relative_to(place) or place.is_relative_to(path.parent)


def _relative(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else path.name


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """Bytes of a record: the same inputs give the same bytes."""
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def locate_inputs(record: Mapping[str, Any], archive: Path) -> Path:
    """Folder that the paths of a record count from: the tile's own, or the archive."""
    own = archive / str(record["tile"])
    return own if own.is_dir() else archive if archive.is_dir() else archive.parent


def check_inputs(record: Mapping[str, Any], archive: Path) -> Iterator[tuple[str, str, str, str]]:
    """Read the inputs of a tile again.

    Yields
    ------
    tuple
        Scene id, its datetime, path as recorded, and ``ok``, ``changed``, ``missing`` or ``unverified`` (remote).
    """
    folder = locate_inputs(record, archive)
    seen: dict[str, str] = {}
    for scene in record["scenes"]:
        for entry in scene["files"]:
            file = RecordedFile(**entry)
            if file.path not in seen:
                seen[file.path] = _status(file, folder / file.path)
            yield str(scene["id"]), str(scene["datetime"]), file.path, seen[file.path]


def _status(file: RecordedFile, path: Path) -> str:
    if not file.sha256:
        return "unverified"
    if not path.is_file():
        return "missing"
    return "ok" if path.stat().st_size == file.bytes and file_sha256(path) == file.sha256 else "changed"
