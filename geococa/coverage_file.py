"""Coverage files: shares of cells kept on disk, so that another year or run need not measure the zones again.

A coverage file is an uncompressed NumPy ``.npz`` archive (a zip of ``.npy`` arrays, no pickles) with a member for each
array of `geococa.Coverage`, the zones' rings in pixels, their hectares on the ellipsoid, and ``header``, the bytes of a
JSON object::

    {"format": "geococa coverage", "version": 2, "key": "<SHA-256>", "digest": "<SHA-256>", "zones": 12,
     "shape": [10980, 10980]}

The digest is that of the arrays, so that shares which were changed in the file don't become hectares. The key is the
digest of the grid, the zones (names, coordinates, CRS), the ground owned and the version, so a file is only ever used for
what it was made from. Zones and grid themselves are not in it: who reads it has them.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyproj
import shapely

from geococa._files import replacing
from geococa.errors import GridMismatch, InputRefused
from geococa.grid import Grid

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["ARRAYS", "coverage_key", "read_coverage", "write_coverage"]

FORMAT, VERSION = "geococa coverage", 2

ARRAYS: dict[str, str] = {
    "strip_zone": "int32",
    "strip_row": "int32",
    "span_offsets": "int64",
    "span_start": "int32",
    "span_stop": "int32",
    "cell_offsets": "int64",
    "cell_column": "int32",
    "cell_fraction": "float64",
    "ring_x": "float64",
    "ring_y": "float64",
    "ring_offsets": "int64",
    "ring_hole": "bool",
    "zone_rings": "int64",
    "zone_ha": "float64",
    "inside_ha": "float64",
}
"""Members of a coverage file besides ``header``, all one-dimensional, with their dtypes."""

Arrays = dict[str, npt.NDArray[Any]]


def coverage_key(zones: GeoDataFrame, grid: Grid, owned: Any = None) -> str:
    """Digest of everything that a coverage depends on.

    Parameters
    ----------
    zones : geopandas.GeoDataFrame
        With the column ``zone``.
    grid : Grid
        Grid of the map.
    owned : shapely geometry, optional
        Ground that counts.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()

    def add(*parts: bytes | str) -> None:
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "little") + data)

    add(FORMAT, str(VERSION), grid.crs.to_wkt(), repr(tuple(grid.transform)[:6]), repr(grid.shape))
    add(pyproj.CRS.from_user_input(zones.crs).to_wkt(), str(len(zones)))
    for name, shape in zip(zones["zone"], shapely.to_wkb(np.asarray(zones.geometry.values, dtype=object)), strict=True):
        add(str(name), shape or b"")
    add(b"" if owned is None else shapely.to_wkb(owned))
    return digest.hexdigest()


def arrays_digest(arrays: Arrays) -> str:
    """SHA-256 of the arrays of a coverage file, in their order."""
    digest = hashlib.sha256()
    for name in ARRAYS:
        digest.update(arrays[name].size.to_bytes(8, "little"))
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def write_coverage(path: Path, arrays: Arrays, key: str, shape: tuple[int, int]) -> Path:
    """Write a coverage file, whole or not at all; the same arrays give the same bytes."""
    members: dict[str, Any] = {name: np.ascontiguousarray(arrays[name], dtype) for name, dtype in ARRAYS.items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "key": key,
        "digest": arrays_digest(members),
        "zones": arrays["zone_ha"].size,
        "shape": list(shape),
    }
    text = np.frombuffer(json.dumps(header, sort_keys=True).encode(), np.uint8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, header=text, **members)
    return path


def read_coverage(path: Path, key: str, zones: int, shape: tuple[int, int]) -> Arrays:
    """Read a coverage file and make sure that kernels may trust it.

    Raises
    ------
    GridMismatch
        It was made from another grid, other zones or other owned ground.
    InputRefused
        It is no coverage file, is damaged, or holds numbers that no coverage has.
    """
    members = _members(path)
    try:
        header = json.loads(members["header"].tobytes().decode())
        format_, version, found = header["format"], header["version"], header["key"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise InputRefused(f"{path} is not a coverage file; make it again with Coverage.save") from None
    if format_ != FORMAT or version != VERSION:
        raise InputRefused(
            f"{path} is {str(format_)[:40]!r} of version {str(version)[:20]}, expected {FORMAT!r} of version {VERSION}; "
            "make it again with Coverage.save"
        )
    if found != key:
        raise GridMismatch(
            f"{path} was made for another grid, other zones or other owned ground than these; make the coverage again "
            "with geococa.coverage_fraction"
        )
    _check(path, members, zones, shape)
    if header.get("digest") != arrays_digest(members):
        raise InputRefused(
            f"{path} is damaged: its arrays are not those that were saved; make it again with Coverage.save"
        )
    return members


def _members(path: Path) -> Arrays:
    """Arrays of a zip whose members are stored as they are, so that none can be larger than the file."""
    if not path.is_file():
        raise InputRefused(f"{path}: no such coverage file; make one with Coverage.save")
    wanted = {f"{name}.npy" for name in ("header", *ARRAYS)}
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            stored = all(info.compress_type == zipfile.ZIP_STORED for info in infos)
            if {info.filename for info in infos} != wanted or len(infos) != len(wanted) or not stored:
                raise InputRefused(
                    f"{path} is not a coverage file (it holds {sorted(info.filename for info in infos)[:5]}); make it "
                    "again with Coverage.save"
                )
            out: Arrays = {}
            for info in infos:
                with archive.open(info) as file:
                    out[info.filename.removesuffix(".npy")] = _array(file, info.file_size, path)
            return out
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InputRefused(f"{path} is damaged ({error}); make it again with Coverage.save") from None


def _array(file: Any, size: int, path: Path) -> npt.NDArray[Any]:
    """Read one ``.npy`` member; its header must promise no more bytes than there are."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise InputRefused(f"{path} holds arrays of an unknown kind; make it again with Coverage.save")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or dtype.kind not in "iufb" or len(shape) != 1 or fortran:
        raise InputRefused(f"{path} holds an array of {dtype} {shape}, which no coverage has; make it again")
    count = int(shape[0])
    data = file.read()
    if count < 0 or len(data) != count * dtype.itemsize or len(data) > size:
        raise InputRefused(f"{path} is damaged (an array is cut short); make it again with Coverage.save")
    return np.frombuffer(data, dtype).copy()


def _check(path: Path, arrays: Arrays, zones: int, shape: tuple[int, int]) -> None:
    """Refuse arrays that kernels would follow out of bounds, or shares that are none."""
    for name, dtype in ARRAYS.items():
        if arrays[name].dtype != np.dtype(dtype):
            raise InputRefused(f"{path}: {name} is {arrays[name].dtype}, expected {dtype}; make the file again")
    a = arrays
    strips, spans, cells = a["strip_zone"].size, a["span_start"].size, a["cell_column"].size
    place = a["strip_zone"].astype(np.int64) * max(shape[0], 1) + a["strip_row"]
    right = {
        "strip_zone": _within(a["strip_zone"], 0, zones),
        "strip_row": a["strip_row"].size == strips and _within(a["strip_row"], 0, shape[0]),
        "order of strips": a["strip_row"].size == strips and bool((np.diff(place) > 0).all()),
        "span_offsets": _offsets(a["span_offsets"], strips, spans),
        "cell_offsets": _offsets(a["cell_offsets"], strips, cells),
        "span_start": _within(a["span_start"], 0, shape[1]),
        "span_stop": a["span_stop"].size == spans
        and _within(a["span_stop"], 1, shape[1] + 1)
        and bool((a["span_stop"] > a["span_start"]).all()),
        "cell_column": _within(a["cell_column"], 0, shape[1]),
        "cell_fraction": a["cell_fraction"].size == cells and _finite(a["cell_fraction"], 0.0, 1.0 + 1e-9),
        "rings": _offsets(a["zone_rings"], zones, a["ring_hole"].size)
        and _offsets(a["ring_offsets"], a["ring_hole"].size, a["ring_x"].size)
        and a["ring_x"].size == a["ring_y"].size
        and _finite(a["ring_x"], -np.inf, np.inf)
        and _finite(a["ring_y"], -np.inf, np.inf),
        "zone_ha": a["zone_ha"].size == zones and _finite(a["zone_ha"], 0.0, 6e10),
        "inside_ha": a["inside_ha"].size == zones
        and a["zone_ha"].size == zones
        and _finite(a["inside_ha"], 0.0, 6e10)
        and bool((a["inside_ha"] <= a["zone_ha"] * (1 + 1e-6)).all()),
    }
    wrong = [name for name, good in right.items() if not good]
    if wrong:
        raise InputRefused(
            f"{path} is damaged: {', '.join(wrong)} can't be those of {zones} zones on {shape[0]} x {shape[1]} cells; make "
            "it again with Coverage.save"
        )


def _within(values: npt.NDArray[Any], low: int, stop: int) -> bool:
    return not values.size or bool(values.min() >= low and values.max() < stop)


def _finite(values: npt.NDArray[Any], low: float, high: float) -> bool:
    return bool(np.isfinite(values).all() and (values >= low).all() and (values <= high).all())


def _offsets(values: npt.NDArray[Any], count: int, total: int) -> bool:
    return bool(values.size == count + 1 and values[0] == 0 and values[-1] == total and (np.diff(values) >= 0).all())
