"""Zarr stores on disk: what is in them by their metadata alone, and windows of their arrays.

The metadata of a store name the codecs that its chunks are decoded with, and some of them run what they find: only arrays
of plain numbers with well-known compressors are read, and only below the store's own folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from geococa._checks import optional_import
from geococa.errors import InputRefused

__all__ = ["ZARR", "ZarrArray", "is_store", "read_zarr_window", "zarr_arrays"]

ZARR = "Zarr"
"""Name of the driver in a `geococa.scene_refs.BandFile`."""

_CODECS = {
    "bytes", "gzip", "blosc", "zstd", "crc32c", "transpose", "sharding_indexed", "zlib", "lz4", "lzma", "bz2", "shuffle", "delta",
    "fixedscaleoffset", "numcodecs.zlib", "numcodecs.zstd", "numcodecs.blosc", "numcodecs.shuffle",
}  # fmt: skip
_MAX_METADATA = 16 * 2**20
_MAX_CHUNK = 512 * 2**20


@dataclass(frozen=True)
class ZarrArray:
    """What the metadata of an array say.

    Attributes
    ----------
    path : str
        Folder of the array.
    name : str
        Its name in the store.
    shape : tuple of int
        Shape.
    dtype : str
        Type of its numbers.
    dims : tuple of str
        Names of its dims; empty where it does not say.
    attrs : dict
        Its attributes.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    attrs: dict[str, Any]


def is_store(folder: Path) -> bool:
    """Whether a folder is a Zarr group, version 2 or 3."""
    return (folder / ".zgroup").is_file() or (folder / "zarr.json").is_file()


def zarr_arrays(store: Path) -> dict[str, ZarrArray]:
    """Arrays of a group, by name.

    Raises
    ------
    InputRefused
        Metadata can't be read, or an array leads out of the store or is not of plain numbers in plain codecs.
    """
    root = store.resolve()
    found = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))):
        array = _array(folder)
        if array is not None:
            if not folder.resolve().is_relative_to(root):
                raise InputRefused(f"{folder}: leads out of {store}; copy the array into the store")
            found[array.name] = array
    return found


def _array(folder: Path) -> ZarrArray | None:
    """Array of a folder from ``zarr.json`` (version 3) or ``.zarray`` (version 2); None where it is none."""
    if (folder / "zarr.json").is_file():
        meta = _json(folder / "zarr.json")
        if meta.get("node_type") != "array":
            return None
        grid = meta.get("chunk_grid", {}).get("configuration", {}).get("chunk_shape", [])
        names = _codec_names(meta.get("codecs"))
        dims, attrs, text = meta.get("dimension_names") or (), meta.get("attributes") or {}, meta.get("data_type")
        if meta.get("storage_transformers"):
            names.append("storage transformer")
    elif (folder / ".zarray").is_file():
        meta = _json(folder / ".zarray")
        attrs = _json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
        grid, dims, text = meta.get("chunks", []), attrs.get("_ARRAY_DIMENSIONS") or (), meta.get("dtype")
        listed = [meta.get("compressor"), *(meta.get("filters") or [])]
        names = [str(entry.get("id")) for entry in listed if isinstance(entry, dict)]
    else:
        return None
    strange = [name for name in names if name.lower() not in _CODECS]
    if strange:
        raise InputRefused(
            f"{folder}: is stored with {strange[0]!r}, which geococa does not decode; write it with zstd or blosc"
        )
    return ZarrArray(
        str(folder), folder.name, *_sized(folder, meta.get("shape"), grid, text), tuple(map(str, dims)), dict(attrs)
    )


def _codec_names(codecs: object) -> list[str]:
    names = []
    for entry in codecs if isinstance(codecs, list) else []:
        names.append(str(entry.get("name")) if isinstance(entry, dict) else str(entry))
        inner = entry.get("configuration") if isinstance(entry, dict) else None
        if isinstance(inner, dict):  # what a shard is made of
            names += _codec_names(inner.get("codecs")) + _codec_names(inner.get("index_codecs"))
    return names


def _sized(folder: Path, shape: object, chunks: object, text: object) -> tuple[tuple[int, ...], str]:
    try:
        dtype = np.dtype(str(text))
        sizes = tuple(int(value) for value in shape)  # type: ignore[attr-defined]
        block = [int(value) for value in chunks]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InputRefused(
            f"{folder}: its metadata give no shape, chunks and type of numbers; found {text!r}"
        ) from None
    if dtype.kind not in "uif" and folder.name != "spatial_ref" and dtype.kind not in "Mm":
        raise InputRefused(f"{folder}: holds {text!r}; expected numbers")
    if any(value < 1 for value in block) or any(value < 0 for value in sizes):
        raise InputRefused(f"{folder}: chunks of {block}; expected one cell or more")
    if int(np.prod(block, dtype=object)) * dtype.itemsize > _MAX_CHUNK:
        raise InputRefused(f"{folder}: chunks of {block} need more than {_MAX_CHUNK} bytes each; write smaller ones")
    return sizes, dtype.name


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_METADATA:
            raise InputRefused(f"{path}: metadata of more than {_MAX_METADATA} bytes; this is another file")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputRefused(f"{path}: not readable as Zarr metadata ({error})") from error
    if not isinstance(value, dict):
        raise InputRefused(f"{path}: not readable as Zarr metadata (found {type(value).__name__})")
    return value


def values_of(array: ZarrArray) -> np.ndarray:
    """All values of a coordinate array."""
    if int(np.prod(array.shape, dtype=object)) > 2**24:
        raise InputRefused(f"{array.path}: {array.shape} values; expected a coordinate")
    return np.asarray(_opened(array.path)[...])


@lru_cache(maxsize=64)
def _opened(path: str) -> Any:
    _array(Path(path))  # its codecs, before a library looks at them
    zarr = optional_import("zarr", "interop")
    return zarr.open_array(path, mode="r")


def read_zarr_window(path: str, step: int, window: tuple[int, int, int, int]) -> np.ndarray:
    """Rows and columns of one step of an array with the dims (time, y, x), or of an array (y, x).

    Parameters
    ----------
    path : str
        Folder of the array.
    step : int
        Step counted from 1, as bands of a raster are.
    window : tuple of int
        ``(row_start, row_stop, column_start, column_stop)``.

    Raises
    ------
    InputRefused
        A chunk can't be read.
    """
    r0, r1, c0, c1 = window
    try:
        array = _opened(path)
        part = array[step - 1, r0:r1, c0:c1] if len(array.shape) == 3 else array[r0:r1, c0:c1]
    except InputRefused:
        raise
    except Exception as error:  # codecs raise what they like
        raise InputRefused(f"{path}: damaged or not readable as Zarr ({error}); fetch the store again") from error
    return np.asarray(part)
