"""Scenes of one tile whose extents differ, as every Landsat acquisition of a path and row has its own.

Their cells lie on one lattice, so that a scene is placed by whole rows and columns and nothing is resampled. Where a scene
does not reach, it has no data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine

from geococa.errors import GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.rasters import read_window
from geococa.scene_refs import BandFile, SceneRef, cells_per_side, finest
from geococa.sensors import QUALITIES

__all__ = ["PlacedBand", "common_grid", "place_scenes"]

LEAST_OVERLAP = 0.5
"""Least share of the smaller of two scenes that lies on the other. Acquisitions of one path and row share some 95 %,
neighbouring ones 10 %: those are tiles of their own."""
_TOLERANCE = 1e-3
"""Most that a corner may lie beside the lattice, in cells."""


@dataclass(frozen=True)
class PlacedBand:
    """One band of a scene on the grid of its tile.

    Attributes
    ----------
    file : BandFile
        Where it is.
    factor : int
        Cells of the tile along one side of its cells.
    row, column : int
        Place of its first cell on the tile's grid; negative where it begins before the tile.
    fill : int, float or None
        Value of cells that the file does not reach; None where there are none.
    """

    file: BandFile
    factor: int
    row: int
    column: int
    fill: float | None

    def read(self, box: Sequence[int]) -> np.ndarray:
        """Read ``(row_start, row_stop, column_start, column_stop)`` of the tile's grid, dims ``(rows, columns)``."""
        r0, r1, c0, c1 = box
        rows, columns = (self.factor * size for size in self.file.shape)
        top, left = max(r0 - self.row, 0), max(c0 - self.column, 0)
        bottom, right = min(r1 - self.row, rows), min(c1 - self.column, columns)
        inside = bottom - top, right - left
        if inside == (r1 - r0, c1 - c0):
            return self._stored((top, bottom, left, right))
        out = np.full((r1 - r0, c1 - c0), self.fill, np.dtype(self.file.dtype))
        if min(inside) > 0:
            row, column = top + self.row - r0, left + self.column - c0
            out[row : row + inside[0], column : column + inside[1]] = self._stored((top, bottom, left, right))
        return out

    def _stored(self, box: tuple[int, int, int, int]) -> np.ndarray:
        file = self.file
        return read_window(file.path, file.driver, file.index, box, factor=self.factor)


def common_grid(members: Iterable[tuple[str, BandFile]], place: object) -> Grid:
    """Grid of some scenes: their own where they share one, else the smallest that holds them all.

    Parameters
    ----------
    members : iterable of tuple
        Name of each scene and the file that stands for its grid.
    place : object
        Where they are, for the message.

    Raises
    ------
    GridMismatch
        Scenes differ in CRS or cells, are shifted by parts of a cell, or hardly overlap.
    """
    (first, anchor), *others = members
    grid = anchor.grid
    rows, columns = grid.shape
    box = [0, rows, 0, columns]
    for name, file in others:
        if (file.shape, file.transform, file.crs_wkt) == (anchor.shape, anchor.transform, anchor.crs_wkt):
            continue
        other = file.grid
        shift = _shift(other, grid)
        shared = 0.0
        if shift is not None:
            ends = shift[0] + other.shape[0], shift[1] + other.shape[1]
            both = min(ends[0], rows) - max(shift[0], 0), min(ends[1], columns) - max(shift[1], 0)
            shared = max(both[0], 0) * max(both[1], 0) / min(rows * columns, other.shape[0] * other.shape[1])
            box = [min(box[0], shift[0]), max(box[1], ends[0]), min(box[2], shift[1]), max(box[3], ends[1])]
        if shared < LEAST_OVERLAP:
            reason = (
                "their cells do not lie on one lattice" if shift is None else f"they share {shared:.0%} of their ground"
            )
            raise GridMismatch(
                f"{place}: scene {name} has {file.shape} cells at {file.transform} in {other.crs.to_string()[:40]}, scene "
                f"{first} {anchor.shape} at {anchor.transform} in {grid.crs.to_string()[:40]}; {reason}: put them into "
                "tiles of their own, or bring them onto one grid first, with gdalwarp -tap"
            )
    if box == [0, rows, 0, columns]:
        return grid
    corner = Affine(*grid.transform[:6]) * Affine.translation(box[2], box[0])
    return Grid(grid.crs, corner, (box[1] - box[0], box[3] - box[2]))


def _shift(grid: Grid, target: Grid) -> tuple[int, int] | None:
    """Rows and columns from a target's corner to that of a grid with the same cells; None where they are not the same."""
    if not (grid.crs == target.crs or grid.crs.equals(target.crs, ignore_axis_order=True)):
        return None
    inverse = ~target.transform
    mine = inverse * grid.transform
    linear = (mine.a - 1, mine.b, mine.d, mine.e - 1)
    row, column = round(mine.f), round(mine.c)
    # cells whose size differs drift apart over the scene
    drift = max(abs(v) for v in linear) * max(grid.shape)
    if drift > _TOLERANCE or max(abs(mine.f - row), abs(mine.c - column)) > _TOLERANCE:
        return None
    return row, column


def place_scenes(
    scenes: Sequence[SceneRef], files: dict[str, list[BandFile]], grid: Grid | None, place: object
) -> tuple[Grid, dict[str, list[PlacedBand]]]:
    """Place the bands of scenes on one grid.

    Parameters
    ----------
    scenes : sequence of SceneRef
        Scenes.
    files : dict
        Files of each variable, one a scene.
    grid : Grid, optional
        Grid to place them on; the finest that holds all where not given.
    place : object
        Where they are, for messages.

    Raises
    ------
    CRSMismatch, GridMismatch
        Bands of a scene do not fit each other, or a scene does not fit the grid by whole cells.
    InputRefused
        A band does not reach over the whole grid and has no value for missing data.
    """
    anchors = [finest([members[number] for members in files.values()]) for number in range(len(scenes))]
    if grid is None:
        finest_of_all = finest(anchors)
        unlike = [anchor for anchor in anchors if abs(anchor.cell_area / finest_of_all.cell_area - 1) > 1e-6]
        for anchor in unlike:
            cells_per_side(anchor, finest_of_all, "of the finest cells")
        alike = [(scene.id, anchor) for scene, anchor in zip(scenes, anchors, strict=True) if anchor not in unlike]
        grid = common_grid(alike, place)
    places: dict[str, list[PlacedBand]] = {name: [] for name in files}
    for number, (scene, anchor) in enumerate(zip(scenes, anchors, strict=True)):
        factor, row, column = _on_grid(anchor, grid, scene)
        for name, members in files.items():
            file = members[number]
            own = factor * cells_per_side(file, anchor, name)
            reach = row + own * file.shape[0], column + own * file.shape[1]
            whole = row <= 0 and column <= 0 and reach[0] >= grid.shape[0] and reach[1] >= grid.shape[1]
            places[name].append(PlacedBand(file, own, row, column, None if whole else _fill(scene, file, name)))
    return grid, places


def _on_grid(anchor: BandFile, grid: Grid, scene: SceneRef) -> tuple[int, int, int]:
    """Factor, row and column of a scene's finest band on a grid."""
    mine = anchor.grid
    factor = round((anchor.cell_area / abs(grid.transform.determinant)) ** 0.5)
    cells = Grid(
        mine.crs, mine.transform * Affine.scale(1 / max(factor, 1)), (mine.shape[0] * factor, mine.shape[1] * factor)
    )
    shift = _shift(cells, grid) if factor >= 1 else None
    if shift is None:
        raise GridMismatch(
            f"{anchor.path}: scene {scene.id} has {mine.shape} cells at {tuple(mine.transform)[:6]} in "
            f"{mine.crs.to_string()[:40]}, the grid {grid.shape} at {tuple(grid.transform)[:6]} in {grid.crs.to_string()[:40]}; "
            "expected a shift of whole cells, bring the scene onto the grid first, with gdalwarp -tap"
        )
    return factor, *shift


def _fill(scene: SceneRef, file: BandFile, name: str) -> float:
    """Value of a band where its scene does not reach."""
    kind: np.dtype[Any] = np.dtype(file.dtype)
    value = file.nodata
    if name in QUALITIES:
        own = scene.own_quality
        quality = own if own is not None and own.name == name else QUALITIES[name]
        codes = [quality.flags[flag] for flag in quality.no_data]
        value = sum(1 << code for code in codes) if quality.bits else next(iter(codes), value or 0)
    if value is None and kind.kind == "f":
        return float("nan")
    if value is None or (
        kind.kind != "f" and not (np.isfinite(value) and np.iinfo(kind).min <= value <= np.iinfo(kind).max)
    ):
        raise InputRefused(
            f"{file.path}: band {name} of scene {scene.id} does not reach over the whole tile, and has no no-data value "
            f"that {kind} holds (found {value}); set one with gdal_edit -a_nodata"
        )
    return float(value)
