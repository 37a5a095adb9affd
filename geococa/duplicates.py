"""One acquisition under several processing baselines: which of its products count."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from geococa.metadata import baseline_number

if TYPE_CHECKING:
    from geococa.scene_refs import SceneRef

__all__ = ["newest_products"]

log = logging.getLogger("geococa")

_SENTINEL2 = re.compile(r"(S2[A-D])_MSI(L1C|L2A)_(\d{8}T\d{6})_N(\d{4})_(R\d{3})_(T\w{5})_(\d{8}T\d{6})")
_EARTH_SEARCH = re.compile(r"(S2[A-D])_(\d{2}[A-Z]{3})_(\d{8})_\d+_(L1C|L2A)")
_LANDSAT = re.compile(r"(L[COTEM]\d\d_L\w{3}_\d{6}_\d{8})_(\d{8})_(\d\d)_(\w\w)")


def newest_products(scenes: Iterable[SceneRef]) -> tuple[SceneRef, ...]:
    """Keep of each acquisition the products of its newest processing, and log those left out.

    An archive that was filled over years often holds an acquisition twice, as first delivered and as reprocessed.
    Counted twice it would weigh double in every composite, with two offsets. Products are of one acquisition where
    satellite, sensing time, orbit and tile in their names agree (Landsat: satellite, level, path, row and date), or,
    for other names, sensor and sensing time to the second. Two products of one baseline stay both: they are the two
    halves of a tile that a datastrip border cuts.

    Parameters
    ----------
    scenes : iterable of SceneRef
        Scenes of one tile.

    Returns
    -------
    tuple of SceneRef
        In the order given.
    """
    scenes = tuple(scenes)
    groups: dict[tuple[str, ...], list[SceneRef]] = {}
    for scene in scenes:
        groups.setdefault(_acquisition(scene), []).append(scene)
    dropped: set[int] = set()
    for group in groups.values():
        newest = max(_processing(scene) for scene in group)
        older = [scene for scene in group if _processing(scene) < newest]
        kept = next(scene for scene in group if _processing(scene) == newest)
        for scene in older:
            log.info(
                "%s: the same acquisition as %s under baseline %s instead of %s; only the newer one counts",
                scene.id, kept.id, scene.baseline or "unknown", kept.baseline or "unknown",
            )  # fmt: skip
            dropped.add(id(scene))
        names = [scene.id for scene in group]
        for position, scene in enumerate(group):
            if _is_product_id(scene.id) and scene.id in names[:position]:
                log.info("%s: lies twice in the archive, the copy at %s does not count", scene.id, scene.path)
                dropped.add(id(scene))
    return tuple(scene for scene in scenes if id(scene) not in dropped)


def _is_product_id(name: str) -> bool:
    return any(pattern.match(name) for pattern in (_SENTINEL2, _EARTH_SEARCH, _LANDSAT))


def _acquisition(scene: SceneRef) -> tuple[str, ...]:
    """Tell what was acquired, without how it was processed."""
    if found := _SENTINEL2.match(scene.id):
        satellite, level, sensed, _, orbit, tile, _ = found.groups()
        return satellite, level, sensed, orbit, tile
    if found := _LANDSAT.match(scene.id):
        return (found.group(1),)
    if found := _EARTH_SEARCH.match(scene.id):
        # processing moves the sensing time of a tile by seconds; a satellite comes back after an orbit of 100 minutes
        return (*found.groups(), scene.datetime.strftime("%H"))
    return scene.sensor, scene.datetime.strftime("%Y%m%dT%H%M%S"), *sorted(scene.default)


def _processing(scene: SceneRef) -> tuple[float, str]:
    """Return how new the processing is: baseline first, then for Landsat the date of processing."""
    if found := _SENTINEL2.match(scene.id):
        return int(found.group(4)) / 100, ""
    if found := _LANDSAT.match(scene.id):
        return 0.0, f"{found.group(3)}{found.group(2)}"
    return baseline_number(scene.baseline) or 0.0, ""
