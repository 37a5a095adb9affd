"""What was worked out for the zones of one tile, kept for the next: an archive has the same zones in tile after tile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyproj

from geococa.polygons import Rings

__all__ = ["once", "rings_key"]

_KEPT = 8
"""Longitude and latitude, two or three UTM zones, and hectares of each."""
_MOST_VERTICES = 2_000_000
"""Zones with more vertices are worked out anew: eight times these would fill the memory of a worker."""

T = TypeVar("T")


@lru_cache(maxsize=_KEPT)
def _box(key: bytes) -> list[Any]:
    """An empty box for each key, the same one as long as it is kept."""
    del key
    return []


def once(key: bytes | None, work: Callable[[], T]) -> T:
    """Result of ``work``, which is done once for each key of the last few.

    Parameters
    ----------
    key : bytes, optional
        From `rings_key`; of None nothing is kept.
    work : callable
        Depends on nothing but what the key was made of. Its result must not be changed by who gets it.
    """
    if key is None:
        return work()
    box: list[T] = _box(key)
    if not box:
        box.append(work())
    return box[0]


def rings_key(rings: Rings, *others: Any) -> bytes | None:
    """Digest of rings, to the last bit, and of the arrays, CRSs and texts beside them; None where there are too many.

    Examples
    --------
    >>> import shapely
    >>> from geococa.polygons import rings_of
    >>> one, same, moved = (rings_of([shapely.box(x, 0, 2, 1)]) for x in (0.0, 0.0, 1e-15))
    >>> rings_key(one, "a") == rings_key(same, "a"), rings_key(one, "a") == rings_key(moved, "a")
    (True, False)
    """
    if rings.x.size > _MOST_VERTICES:
        return None
    digest = hashlib.blake2b(digest_size=32)
    for part in (rings.x, rings.y, rings.ring_offsets, rings.hole, rings.zone_rings, *others):
        text = part.to_wkt() if isinstance(part, pyproj.CRS) else part
        data = text.encode() if isinstance(text, str) else np.ascontiguousarray(text).tobytes()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()
