"""The model file: one versioned, checked container of a JSON header and plain arrays; no pickle.

Layout, byte for byte::

    8 bytes    b"GEOCOCA" and the format version (1)
    8 bytes    length of the header, little-endian unsigned
    header     JSON, UTF-8
    arrays     a zip archive of .npy members (as numpy.savez_compressed writes), no object dtype
    32 bytes   SHA-256 of everything before

Reading checks the digest, the size of every member before it is unpacked, and that each array is as long
as its own header says. What the arrays mean is checked by `geococa.models`.

Beside the arrays of its engine, a file may hold (each left out where the model does not know it)::

    training_range      float64 (2, features)           smallest and largest value in training
    transitions         float64 (classes, classes)      yearly transitions of sampled places
    summary_count       int64   (classes,)              training rows of each class
    summary_values      float64 (4, classes, features)  mean, standard deviation, smallest, largest
    training_points     float32 (points, features)      with the header's training_set, see geococa.training_space
    training_scaling    float64 (3, features)           mean, standard deviation, weight of each feature
    calibration_start   int64   (maps + 1,)             with the header's calibration, see geococa.calibration_maps
    calibration_table   float64 (rows, 2)               knots, or the two numbers of each sigmoid

and in the header the texts ``feature_units`` and ``feature_scales``. These were added to format 1: a file without them
is as valid as before, and a reader that does not know them refuses the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from geococa._checks import check_type
from geococa._files import replace_file
from geococa.errors import InputRefused, ModelRefused

__all__ = ["FORMAT", "MAX_BYTES", "check_header", "plain", "read_container", "write_container"]

MAGIC = b"GEOCOCA\x01"
FORMAT = "geococa model 1"
MAX_BYTES = 4 << 30
"""Largest sum of the unpacked arrays that is read."""
_MAX_HEADER = 16 << 20
_MAX_RATIO = 1100  # DEFLATE can't do better than 1032:1
_DIGEST = 32
_KINDS = "fiub"
_ENTRIES = {
    "kind": str,
    "features": list,
    "classes": list,
    "colors": list,
    "columns": list,
    "settings": dict,
    "provenance": dict,
}
"""What every header holds."""


def write_container(path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write a model file; the same header and arrays always give the same bytes.

    The file appears whole or not at all: it is written beside its place, flushed to disk and moved there.

    Parameters
    ----------
    path : path
        File to write; an existing one is replaced, a missing folder is made.
    header : mapping
        Anything JSON can hold; numbers must be finite.
    arrays : mapping of str to numpy.ndarray
        Arrays of floats, integers or booleans.

    Returns
    -------
    pathlib.Path
    """
    target = _target(path)
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    body = MAGIC + len(text).to_bytes(8, "little") + text + _pack(arrays)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return replace_file(target, body + hashlib.sha256(body).digest())
    except OSError as error:
        raise InputRefused(f"{target}: can't be written ({error.strerror}); give another path") from None


def _target(path: str | os.PathLike[str]) -> Path:
    check_type(path, (str, os.PathLike), "path", "name the model file to write")
    target = Path(path)
    if target.is_dir():
        raise InputRefused(f"{target} is a folder; name a file in it")
    return target


def read_container(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read a model file back into its header and arrays.

    Raises
    ------
    ModelRefused
        The file is not a model file, is damaged, or holds more than it may.
    """
    check_type(path, (str, os.PathLike), "path", "name a model file")
    source = Path(path)
    try:
        size = source.stat().st_size
        if size > MAX_BYTES:
            raise ModelRefused(f"{source}: a model file of {size} bytes is larger than the {MAX_BYTES} allowed")
        content = source.read_bytes()
    except OSError as error:
        raise ModelRefused(
            f"{source}: can't be read ({error.strerror}); give the path of a file that "
            "'geococa train' or Model.write made"
        ) from None
    try:
        return _parse(content)
    except ModelRefused as error:
        raise ModelRefused(f"{source}: {error}") from None


def _parse(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if content[:7] != MAGIC[:7]:
        raise ModelRefused(
            "not a geococa model file (no GEOCOCA at its start); pickled estimators are never loaded: "
            "convert the fitted estimator with Model.from_estimator(...).write(path)"
        )
    if content[7:8] != MAGIC[7:]:
        raise ModelRefused(
            f"model format version {content[7:8].hex()} is not known here, which reads version 01; update geococa"
        )
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise ModelRefused("the file is damaged: its SHA-256 does not match; copy it again or train again")
    length = int.from_bytes(body[8:16], "little")
    if length > min(_MAX_HEADER, len(body) - 16):
        raise ModelRefused(f"the header claims {length} bytes, the file has {len(body)}")
    try:
        header = json.loads(body[16 : 16 + length].decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"the header is not JSON ({error})") from None
    if not isinstance(header, dict):
        raise ModelRefused(f"the header must be a JSON object, got {type(header).__name__}")
    return header, _unpack(body[16 + length :])


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(arrays[name]), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED, 6)
    return buffer.getvalue()


def _unpack(packed: bytes) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > MAX_BYTES or total > _MAX_RATIO * len(packed) or len(members) > 64:
                raise ModelRefused(f"{len(members)} arrays of {total} bytes unpacked from {len(packed)} are too many")
            return {m.filename.removesuffix(".npy"): _read_array(m.filename, archive.read(m)) for m in members}
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
        EOFError,
        OverflowError,
        KeyError,
        UnicodeError,
    ) as error:
        raise ModelRefused(f"the arrays can't be unpacked ({error})") from None
    except Exception as error:  # zlib.error is not exported under a common base
        if type(error).__module__ != "zlib":
            raise
        raise ModelRefused(f"the arrays can't be unpacked ({error})") from None


def _read_array(name: str, data: bytes) -> np.ndarray:
    """Parse one .npy member without trusting the shape it states."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ModelRefused(f"array {name} is not in .npy version 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=10_000)
    start = stream.tell()
    count = 1
    for length in shape:
        count *= length
    if dtype.kind not in _KINDS or dtype.hasobject or not dtype.isnative:
        raise ModelRefused(f"array {name} has dtype {dtype}; expected native floats, integers or booleans")
    if fortran or len(shape) > 4 or any(n < 0 for n in shape) or count * dtype.itemsize != len(data) - start:
        raise ModelRefused(f"array {name} states shape {shape} of {dtype}, but holds {len(data) - start} bytes")
    return np.frombuffer(data, dtype=dtype, offset=start).reshape(shape).copy()


def plain(value: Any) -> Any:
    """Make JSON types of numpy numbers and of anything that has a text form."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def check_header(header: Mapping[str, Any]) -> None:
    """Refuse a header of another format, or without what every model has."""
    if header.get("format") != FORMAT:
        raise ModelRefused(f"expected format {FORMAT!r}, got {header.get('format')!r}")
    for name, kind in _ENTRIES.items():
        if not isinstance(header.get(name), kind):
            raise ModelRefused(f"the header's {name!r} must be a {kind.__name__}, got {header.get(name)!r:.80}")
    for name in ("features", "classes", "colors"):
        if not all(isinstance(entry, str) for entry in header[name]):
            raise ModelRefused(f"the header's {name!r} must hold strings")
    if not all(type(entry) is int for entry in header["columns"]):
        raise ModelRefused("the header's 'columns' must hold integers")
