"""Tiles as JSON: what a worker on another machine needs to know of one, in plain values."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime
from typing import Any

from geococa.grid import Grid
from geococa.rasters import crs_of
from geococa.scene_refs import BandFile, SceneRef, TileRef
from geococa.sensor_description import Quality

__all__ = ["tile_from_json", "tile_to_json"]


def tile_to_json(tile: TileRef) -> str:
    """Everything that is known of a tile, as JSON; long texts that many files share are written once."""
    texts: dict[str, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, BandFile):
            entry = _fields(value) | {"crs_wkt": texts.setdefault(value.crs_wkt, len(texts))}
            return {name: plain(part) for name, part in entry.items()}
        if isinstance(value, SceneRef | Quality):
            return {name: plain(part) for name, part in _fields(value).items()}
        if isinstance(value, datetime):
            return value.isoformat()
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [plain(part) for part in value]
        return value

    entry = _fields(tile) | {
        "grid": [tile.grid.crs.to_wkt(), list(tile.grid.transform)[:6], list(tile.grid.shape)],
        "scenes": [plain(scene) for scene in tile.scenes],
    }
    return json.dumps({"tile": entry, "texts": list(texts)})


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def tile_from_json(text: str) -> TileRef:
    """Tile that `tile_to_json` wrote."""
    found = json.loads(text)
    texts, entry = found["texts"], found["tile"]
    wkt, transform, shape = entry["grid"]

    def band(values: dict[str, Any]) -> BandFile:
        return BandFile(
            **{name: _tuples(part) for name, part in values.items()} | {"crs_wkt": texts[values["crs_wkt"]]}
        )

    def scene(values: dict[str, Any]) -> SceneRef:
        own = values["own_quality"]
        return SceneRef(
            **{name: _tuples(part) for name, part in values.items()}
            | {
                "datetime": datetime.fromisoformat(values["datetime"]),
                "files": {name: band(part) for name, part in values["files"].items()},
                "own_quality": None if own is None else Quality(**{name: _tuples(part) for name, part in own.items()}),
            }
        )

    scenes = tuple(scene(values) for values in entry["scenes"])
    grid = Grid(crs_of(wkt), transform, tuple(shape))
    # the very grid that the files have, where one of them has it
    same = (file.grid for one in scenes for file in one.files.values() if file.grid == grid)
    return TileRef(**entry | {"grid": next(same, grid), "scenes": scenes})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
