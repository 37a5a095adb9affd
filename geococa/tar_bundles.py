"""Landsat bundles that are still tar files, as they are delivered: read in place, nothing is unpacked.

A Collection 2 bundle is an uncompressed tar file, so each of its rasters is a range of bytes that GDAL reads where it is.
Names in the file are labels only; none of them ever becomes a path.
"""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geococa.errors import InputRefused
from geococa.landsat_mtl import read_mtl
from geococa.metadata import MAX_BYTES, ProductMetadata

__all__ = ["TarBundle", "is_tar", "read_bundle"]

_MEMBER = re.compile(r"(L[A-Z]\w{1,80}?)_((?:SR_|ST_)?B\d{1,2}|QA_PIXEL|QA_RADSAT)\.TIF", re.IGNORECASE)
_MTL = re.compile(r"(L[A-Z]\w{1,80}?)_MTL\.(json|xml|txt)", re.IGNORECASE)
_MAX_MEMBERS = 1000


@dataclass(frozen=True)
class TarBundle:
    """What is in the tar file of a Landsat product.

    Attributes
    ----------
    metadata : ProductMetadata
        From its MTL.
    bands : dict of str to tuple of int
        Native band name to first byte and size.
    """

    metadata: ProductMetadata
    bands: dict[str, tuple[int, int]]


def is_tar(path: Path) -> bool:
    """Whether a file is named like a tar file."""
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2"))


def read_bundle(path: Path) -> TarBundle | None:
    """Find the bands of a Landsat bundle in its tar file; None where it holds none.

    Parameters
    ----------
    path : pathlib.Path
        Tar file.

    Raises
    ------
    InputRefused
        The file is compressed or damaged, holds several products or a name that leads elsewhere, or has no MTL.
    """
    if not path.name.lower().endswith(".tar"):
        raise InputRefused(
            f"{path}: is compressed, so its bands can't be read in place; unpack it with tar -xf {path.name}"
        )
    bands: dict[str, dict[str, tuple[int, int]]] = {}
    metadata: dict[str, ProductMetadata] = {}
    for member, archive in _members(path):
        base = member.name.rsplit("/", 1)[-1]
        if found := _MEMBER.fullmatch(base):
            bands.setdefault(found[1], {})[found[2].upper()] = (member.offset_data, member.size)
        elif (found := _MTL.fullmatch(base)) and found[1] not in metadata and member.size <= MAX_BYTES:
            stream = archive.extractfile(member)
            assert stream is not None
            metadata[found[1]] = _mtl(stream.read(), base)
    if not bands:
        return None
    if len(bands) > 1:
        raise InputRefused(f"{path}: holds {len(bands)} products ({', '.join(sorted(bands)[:3])}); expected one")
    product, members = next(iter(bands.items()))
    if product not in metadata:
        raise InputRefused(f"{path}: no {product}_MTL.json, .xml or .txt in it; fetch the bundle again")
    return TarBundle(metadata[product], members)


def _members(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Plain files in a tar file; links, devices and holes are not looked at."""
    whole = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            for number, member in enumerate(archive):
                if number >= _MAX_MEMBERS:
                    raise InputRefused(f"{path}: more than {_MAX_MEMBERS} members; this is no Landsat bundle")
                if member.name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member.name):
                    raise InputRefused(
                        f"{path}: a member is named {member.name[:80]!r}, which leads elsewhere; fetch it again"
                    )
                if not member.isreg() or member.issparse():
                    continue
                if member.offset_data + member.size > whole:
                    raise InputRefused(f"{path}: is cut off within {member.name[:80]}; fetch it again")
                yield member, archive
    except (tarfile.TarError, EOFError, OSError, UnicodeError, ValueError) as error:
        raise InputRefused(f"{path}: not readable as a tar file ({error}); fetch it again") from error


def _mtl(data: bytes, name: str) -> ProductMetadata:
    with tempfile.TemporaryDirectory(prefix="geococa-mtl-") as folder:
        file = Path(folder) / f"MTL.{name.rsplit('.', 1)[-1].lower()}"
        file.write_bytes(data)
        return read_mtl(file)
