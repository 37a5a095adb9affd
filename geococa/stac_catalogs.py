"""STAC items of an archive: static catalogs, item collections and GeoParquet tables of items, from files on disk.

Links are followed within the archive's folder only; addresses elsewhere are fetched from allowed hosts only
(`geococa.network`), and from none unless the user names one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from geococa._checks import optional_import
from geococa.errors import InputRefused
from geococa.network import allowed_hosts, check_address, fetch, is_address

__all__ = ["ItemSource", "catalog_in", "items_in", "resolve_href"]

MAX_DOCUMENT = 512 * 2**20
"""Largest collection of items that is read, bytes."""
MAX_DOCUMENTS = 200_000
_MAX_DEPTH = 32

ItemSource = tuple[dict[str, Any], str]
"""An item, and the path or address that its links count from."""


def catalog_in(folder: Path) -> Path | None:
    """Catalog, collection or item collection at the top of a folder; None where it has none."""
    for name in ("catalog.json", "collection.json", "items.json", "items.parquet", "items.geoparquet"):
        if (folder / name).is_file():
            return folder / name
    return None


def items_in(path: Path) -> Iterator[ItemSource]:
    """Items of a catalog, a collection, an item collection, a table of items, or one item.

    Parameters
    ----------
    path : pathlib.Path
        JSON or Parquet file. Its folder is the archive that no link leads out of.

    Raises
    ------
    InputRefused
        Not a STAC document, damaged, or a link that leads outside.
    """
    if path.suffix.lower() in (".parquet", ".geoparquet"):
        for item in _table_items(path):
            yield item, str(path)
        return
    root = path.parent.resolve()
    kind = _document(str(path.resolve()), root)
    if kind.get("type") == "FeatureCollection":
        features = kind.get("features")
        for item in features if isinstance(features, list) else []:
            if isinstance(item, dict):
                yield item, str(path.resolve())
    elif kind.get("type") == "Feature":
        yield kind, str(path.resolve())
    else:
        yield from _walk(path.resolve(), root)


def _walk(path: Path, root: Path) -> Iterator[ItemSource]:
    """Items below a catalog, depth first in the order of its links, each document once."""
    pystac = optional_import("pystac", "stac")
    waiting: list[tuple[str, int]] = [(str(path), 0)]
    seen: set[str] = set()
    while waiting:
        place, depth = waiting.pop()
        if place in seen:
            continue  # catalogs may point back at their parents
        seen.add(place)
        if len(seen) > MAX_DOCUMENTS or depth > _MAX_DEPTH:
            raise InputRefused(
                f"{path}: more than {MAX_DOCUMENTS} documents or {_MAX_DEPTH} levels; name a part of the catalog"
            )
        found = _document(place, root)
        if found.get("type") == "Feature":
            yield found, place
            continue
        if found.get("type") == "FeatureCollection":
            yield from ((item, place) for item in found.get("features") or [] if isinstance(item, dict))
            continue
        links = _links(pystac, found, place)
        waiting += [
            (target, depth + 1) for link in reversed(links) if (target := _target(link, place, root)) is not None
        ]


def _links(pystac: Any, found: Mapping[str, Any], place: str) -> list[str]:
    """Addresses of the children and items of a catalog or collection, as pystac reads it."""
    entries = found.get("links")
    if found.get("type") not in ("Catalog", "Collection") and "stac_version" not in found:
        raise InputRefused(f"{place}: not a STAC catalog, collection or item")
    links = []
    for entry in entries if isinstance(entries, list) else []:
        try:
            link = pystac.Link.from_dict(entry)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # a link without an address leads nowhere
        # the address as it is written: pystac turns backslashes, which is another address
        if link.rel in ("child", "item", "items") and isinstance(entry["href"], str):
            links.append(entry["href"])
    return links


def _target(href: str, place: str, root: Path) -> str | None:
    found = resolve_href(href, place, root)
    return None if found is None else str(found)


def resolve_href(href: str, place: str, root: Path) -> Path | str | None:
    """Where an address in a document leads.

    Parameters
    ----------
    href : str
        Path, relative or absolute, or address.
    place : str
        Path or address of the document.
    root : pathlib.Path
        Folder of the archive.

    Returns
    -------
    pathlib.Path, str or None
        A path below ``root`` (which need not exist), an address on an allowed host, or None for an address elsewhere.

    Raises
    ------
    InputRefused
        The path leads outside, or is none.
    """
    text = href.strip()
    if "://" in place and not is_address(text):
        text = urljoin(place, text)
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        text = parts.path
    elif is_address(text):
        if parts.scheme not in ("http", "https") or not allowed_hosts():
            return None
        try:
            return check_address(text)
        except InputRefused:
            return None
    if not text or "\0" in text or text.startswith("<"):
        raise InputRefused(f"{place}: {href[:80]!r} is no path")
    base = Path(place)
    folder = base.parent if base.suffix else base
    try:
        path = (folder / unquote(text)).resolve()
    except (OSError, ValueError) as error:
        raise InputRefused(f"{place}: {href[:80]!r} is no path ({error})") from None
    if not path.is_relative_to(root):
        raise InputRefused(f"{place}: {href[:80]!r} leads outside the archive {root}; keep its files below that folder")
    return path


def _document(place: str, root: Path) -> dict[str, Any]:
    """JSON document of a path below the archive or of an allowed host."""
    try:
        if "://" in place:
            data = fetch(place)
        else:
            path = Path(place)
            if not path.resolve().is_relative_to(root):
                raise InputRefused(f"{path}: a link that leads outside the archive {root}")
            if path.stat().st_size > MAX_DOCUMENT:
                raise InputRefused(f"{path}: more than {MAX_DOCUMENT} bytes; split the collection")
            data = path.read_bytes()
        value = json.loads(data.decode("utf-8"))
    except InputRefused:
        raise
    except Exception as error:  # a missing file, bad JSON, a host that does not answer
        raise InputRefused(f"{place}: can't be read as STAC ({error}); fetch the catalog again") from error
    if not isinstance(value, dict):
        raise InputRefused(f"{place}: expected a JSON object, found {type(value).__name__}")
    return value


# --- tables of items ---------------------------------------------------------------------------------


def _table_items(path: Path) -> Iterator[dict[str, Any]]:
    """Items of a table in the STAC GeoParquet layout: one row an item, its properties as columns of their own."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name != "geometry"]
            if not {"id", "assets"} <= set(names):
                raise InputRefused(
                    f"{path}: not a table of STAC items; expected the columns id and assets, found {names[:8]}"
                )
            for batch in file.iter_batches(batch_size=256, columns=names):
                for row in batch.to_pylist():
                    yield _item_of_row(row)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputRefused(f"{path}: not readable as Parquet ({error}); fetch the table again") from error


_TOP = {"type", "stac_version", "stac_extensions", "id", "bbox", "geometry", "links", "assets", "collection"}


def _item_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: _plain(value) for key, value in row.items()}
    item = {key: value for key, value in plain.items() if key in _TOP and value is not None}
    item["properties"] = {key: value for key, value in plain.items() if key not in _TOP and value is not None}
    assets = item.get("assets")
    if isinstance(assets, str):
        assets = json.loads(assets)
    elif isinstance(assets, list):  # a map comes as pairs
        assets = dict(assets)
    item["assets"] = {key: value for key, value in (assets or {}).items() if isinstance(value, dict)}
    return {"type": "Feature", **item}


def _plain(value: Any) -> Any:
    """Values as JSON has them: a missing member of a struct is no member, times are text."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float) and math.isnan(value):
        return None
    return value
