"""Connected components of a map of any size: strips of rows, labelled apart and sewn together at their seams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import TypeVar

import numpy as np

from geococa.cell_areas import CellAreas, cell_areas
from geococa.errors import InputRefused
from geococa.grid import Grid

__all__ = ["CellWeights", "Segments", "Strip"]

T = TypeVar("T")
Reader = Callable[[int, int], np.ndarray]
"""Rows ``start .. stop - 1`` of a map, uint8 (rows, columns)."""


def _kernels() -> ModuleType:
    from geococa._kernels import components

    return components


STRIP_ROWS = 512
"""Rows of a strip of a map in memory: enough work for a thread, and its runs fit in the cache."""
_LINEAR_ERROR = 2e-10
"""Largest relative error of cell areas taken as linear between columns."""
_MOST_COLUMNS = 256


def _linear_step(areas: CellAreas) -> int:
    """Columns over which cell areas may be taken as linear."""
    bend = float(np.abs(areas.pieces_ha[:, :, 2]).max())
    least = float(np.abs(areas.pieces_ha[:, :, 0]).min())
    if bend == 0.0:
        return _MOST_COLUMNS
    # a parabola leaves its chord by bend * step**2 / 4 at the most
    return int(np.clip(np.sqrt(4.0 * _LINEAR_ERROR * least / bend), 1, _MOST_COLUMNS))


def _alike(areas: CellAreas) -> bool:
    """Whether all cells of a row have one area."""
    return areas.pieces_ha.shape[1] == 1 and not areas.pieces_ha[:, :, 1:].any()


@dataclass(frozen=True)
class CellWeights:
    """Cell areas in whole units, so that sums of them are exact whatever their order.

    Parameters
    ----------
    grid : Grid, optional
        Areas on the ellipsoid; every cell counts 1 where not given.
    """

    grid: Grid | None = None
    per_ha: float = field(init=False, default=1.0)
    step: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        if self.grid is None or 0 in self.grid.shape:
            return
        rows, columns = self.grid.shape
        # the same step for all strips of a raster, so that a strip gives the weights of the whole
        some = [self._areas(r, r + 1) for r in sorted({0, rows // 2, rows - 1})]
        object.__setattr__(self, "step", min(_linear_step(areas) for areas in some))
        largest = max(float(self._nodes_ha(areas).max()) for areas in some)
        # a power of two, and small enough that four times the whole raster still fits in an int64
        exponent = 60 - int(np.ceil(np.log2(largest * rows * columns)))
        object.__setattr__(self, "per_ha", float(2.0**exponent))

    def _areas(self, start: int, stop: int) -> CellAreas:
        grid = self.grid
        if grid is None:
            raise InputRefused("cells without a grid have no area")
        return cell_areas(grid.crs, grid.transform, grid.shape, (start, stop))

    def _nodes_ha(self, areas: CellAreas) -> np.ndarray:
        """Hectares at every ``step``-th column, one past the last included; a single column where all are alike."""
        pieces = areas.pieces_ha
        if _alike(areas):
            return pieces[:, :, 0]
        assert self.grid is not None
        at = np.arange(0, self.grid.shape[1] + self.step, self.step)
        piece = np.minimum(at // areas.step, pieces.shape[1] - 1)
        place = at - piece * areas.step
        a, b, c = (pieces[:, piece, term] for term in range(3))
        nodes: np.ndarray = a + place * (b + place * c)
        return nodes

    def rows(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Weights of some rows at every ``step``-th column, their sums before each of these, and ``step``.

        A cell between two such columns weighs what `geococa._kernels.components.add_run_sizes` says.
        """
        if self.grid is None:
            return np.ones((stop - start, 1), dtype=np.int64), np.zeros((stop - start, 1), dtype=np.int64), 1
        areas = self._areas(start, stop)
        if _alike(areas):
            nodes = np.rint(areas.pieces_ha[:, :, 0] * self.per_ha).astype(np.int64)
            return nodes, np.zeros_like(nodes), 1
        shape = (stop - start, -(-self.grid.shape[1] // self.step) + 1)
        nodes, sums = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
        _kernels().area_nodes(areas.pieces_ha, areas.step, self.step, self.per_ha / self.step, nodes, sums)
        return nodes, sums, self.step

    def least(self, area_ha: float) -> int:
        """Units of a minimum area; a billionth less, so that cells that add up to it exactly are enough."""
        return int(np.ceil(area_ha * self.per_ha * (1.0 - 1e-9)))


@dataclass
class Strip:
    """Some rows of a map, their runs, and the component of each run."""

    start: int
    stop: int
    cells: np.ndarray
    row_runs: np.ndarray
    starts: np.ndarray
    codes: np.ndarray
    component: np.ndarray

    @property
    def columns(self) -> int:
        """Columns of the map."""
        return int(self.cells.shape[1])

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First columns, codes and components of the runs of one row (counted in the strip)."""
        part = slice(self.row_runs[index], self.row_runs[index + 1])
        return self.starts[part], self.codes[part], self.component[part]

    def paint(self, component_values: np.ndarray) -> np.ndarray:
        """Rows of the map with the value of each component."""
        out = np.empty(self.cells.shape, dtype=component_values.dtype)
        _kernels().paint_cells(self.cells, self.row_runs, component_values[self.component], out)
        return out

    def number(self, out: np.ndarray) -> None:
        """Write the number of its component into every cell of ``out``, int32 of the shape of the strip."""
        _kernels().paint_cells(self.cells, self.row_runs, self.component, out)

    def repaint(self, component_codes: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Rows of the map with a new code for each component, uint8, in ``out`` where given."""
        out = np.empty_like(self.cells) if out is None else out
        np.copyto(out, self.cells)
        _kernels().repaint_runs(
            self.starts, self.codes, self.row_runs, self.columns, self.component, component_codes, out
        )
        return out


def seam(above: Strip, below: Strip) -> Strip:
    """Return the last row of a strip and the first row of the next one as a strip of two rows."""
    upper, lower = above.row(above.stop - above.start - 1), below.row(0)
    row_runs = np.array([0, upper[0].size, upper[0].size + lower[0].size], dtype=np.int64)
    starts, codes, component = (np.concatenate(pair) for pair in zip(upper, lower, strict=True))
    cells = np.stack([above.cells[-1], below.cells[0]])
    return Strip(above.stop - 1, below.start + 1, cells, row_runs, starts, codes, component)


def in_order(tasks: Iterable[Callable[[], T]], threads: int) -> Iterator[T]:
    """Run tasks in some threads and give their results in order; few are begun before the first is asked for."""
    if threads <= 1:
        for task in tasks:
            yield task()
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        waiting: deque[Future[T]] = deque()
        for task in tasks:
            waiting.append(pool.submit(task))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


class Segments:
    """Components of equal code of a map that is read in strips of rows.

    Parameters
    ----------
    read : callable
        ``read(start, stop)`` gives rows of the map, uint8. It is called again for every pass unless ``keep``.
    shape : tuple of int
        ``(rows, columns)``.
    weights : CellWeights
        What a cell counts.
    connectivity : int
        4 or 8.
    strip_rows : int, optional
        Rows of a strip, 512 where not given. Results do not depend on it.
    keep : bool
        Hold the map and its runs in memory, instead of reading it and finding them again in every pass.
    threads : int
        Threads over strips; ``read`` is called one at a time and in order. Results do not depend on it.

    Attributes
    ----------
    sizes : numpy.ndarray of int64
        Sum of the weights of every component.
    codes : numpy.ndarray of uint8
        Code of every component. Components are numbered in the order of their first cells, row by row.
    """

    def __init__(
        self,
        read: Reader,
        shape: tuple[int, int],
        weights: CellWeights,
        *,
        connectivity: int = 8,
        strip_rows: int | None = None,
        keep: bool = True,
        threads: int = 1,
    ) -> None:
        if connectivity not in (4, 8):
            raise InputRefused(f"connectivity must be 4 or 8, got {connectivity!r}")
        self._read, self._shape, self._weights = read, shape, weights
        self._diagonal = connectivity == 8
        step = STRIP_ROWS if strip_rows is None else strip_rows
        self._bounds = [(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
        self._threads = threads
        self._kept: list[Strip] | None = [] if keep else None
        self._numbers: list[np.ndarray] = []
        self._firsts: list[int] = []
        self.sizes, self.codes = self._label()

    @property
    def diagonal(self) -> bool:
        """Whether cells that share only a corner are neighbours."""
        return self._diagonal

    @property
    def threads(self) -> int:
        """Threads over strips."""
        return self._threads

    def strips(self) -> Iterator[Strip]:
        """Strips from the top down, with the final number of every run's component."""
        if self._kept is not None:
            yield from self._kept
            return
        for number, (strip, _, _) in zip(self._numbers, self._cut_all(sizes=False), strict=True):
            _kernels().renumber(strip.component, number)
            yield strip

    def paint(self, component_values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """First row and rows of every strip, with the value of each component, from the top down."""
        yield from in_order((partial(_painted, strip, component_values) for strip in self.strips()), self._threads)

    def numbers(self) -> np.ndarray:
        """Map of the components' numbers, int32 ``(rows, columns)``."""
        out = np.empty(self._shape, dtype=np.int32)
        tasks = (partial(strip.number, out[strip.start : strip.stop]) for strip in self.strips())
        for _ in in_order(tasks, self._threads):
            pass
        return out

    def repaint(self, component_codes: np.ndarray, out: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """As `paint`, with codes, uint8; faster, since only what changes is painted, and into ``out`` where given."""
        tasks = (partial(_repainted, strip, component_codes, out) for strip in self.strips())
        yield from in_order(tasks, self._threads)

    def visit(self, function: Callable[[Strip | None, Strip, int], T]) -> Iterator[T]:
        """Call ``function(above, strip, first)`` for every strip, in threads, and give the results in order.

        ``above`` is the strip above, None for the first; ``first`` is the number of the first component that begins
        in the strip, so that those before it begin further up.
        """

        def tasks() -> Iterator[Callable[[], T]]:
            above: Strip | None = None
            for strip, first in zip(self.strips(), self._firsts, strict=True):
                yield partial(function, above, strip, first)
                above = strip

        yield from in_order(tasks(), self._threads)

    def _label(self) -> tuple[np.ndarray, np.ndarray]:
        """Label every strip, join the seams, and number the components of the whole map."""
        kernels = _kernels()
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        above: Strip | None = None
        before = offset = 0
        for strip, sizes, codes in self._cut_all(sizes=True):
            parts.append((sizes, codes))
            if above is not None:
                pairs.append(self._seam_pairs(above, strip, before, offset))
            if self._kept is not None:
                self._kept.append(strip)
            above, before = strip, offset
            offset += sizes.size
            if offset > np.iinfo(np.int32).max:
                raise InputRefused(f"the map has more than {np.iinfo(np.int32).max} patches; cut it into parts")
        parent = np.arange(offset, dtype=np.int32)
        for a, b in pairs:
            kernels.join_pairs(a, b, parent)
        number = np.empty(offset, dtype=np.int32)
        count = kernels.flatten(parent, number)
        del parent, pairs
        total = np.zeros(count, dtype=np.int64)
        code = np.empty(count, dtype=np.uint8)
        first = start = 0
        for position, (sizes, codes) in enumerate(parts):
            part = number[start : start + sizes.size]
            kernels.gather(part, sizes, codes, total, code)
            parts[position] = (sizes[:0].copy(), codes[:0].copy())
            self._firsts.append(first)
            self._numbers.append(part)
            first = max(first, int(part.max(initial=-1)) + 1)
            start += part.size
        if self._kept is not None:
            tasks = zip(self._kept, self._numbers, strict=True)
            for _ in in_order(
                (partial(kernels.renumber, strip.component, part) for strip, part in tasks), self._threads
            ):
                pass
            self._numbers = []
        return total, code

    def _seam_pairs(
        self, above: Strip, below: Strip, offset_above: int, offset_below: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Components on both sides of a seam that belong together, as numbers before the join."""
        both = seam(above, below)
        split = both.row_runs[1]
        number = both.component.astype(np.int32)
        number[:split] += offset_above
        number[split:] += offset_below
        parent = np.arange(number.size, dtype=np.int32)
        _kernels().join_rows(both.starts, both.codes, both.row_runs, 1, 2, both.columns, self._diagonal, -1, parent)
        moved = np.flatnonzero(parent != np.arange(parent.size))
        return number[moved], number[parent[moved]]

    def _cut_all(self, *, sizes: bool) -> Iterator[tuple[Strip, np.ndarray, np.ndarray]]:
        """Label the strips by themselves, in threads, and give them in order."""
        tasks = (partial(self._cut, self._read(start, stop), start, stop, sizes) for start, stop in self._bounds)
        yield from in_order(tasks, self._threads)

    def _cut(self, block: np.ndarray, start: int, stop: int, sizes: bool) -> tuple[Strip, np.ndarray, np.ndarray]:
        """Runs of one strip, their components within the strip, and the sizes and codes of these."""
        kernels = _kernels()
        cells = np.ascontiguousarray(block)
        if cells.shape != (stop - start, self._shape[1]) or cells.dtype != np.uint8:
            raise InputRefused(
                f"expected uint8 rows of shape {(stop - start, self._shape[1])}, "
                f"got {cells.dtype} of shape {cells.shape}"
            )
        rows, columns = cells.shape
        row_runs = np.zeros(rows + 1, dtype=np.int64)
        kernels.count_runs(cells, row_runs)
        starts = np.empty(row_runs[-1], dtype=np.int32)
        codes = np.empty(row_runs[-1], dtype=np.uint8)
        kernels.fill_runs(cells, row_runs, starts, codes)
        parent = np.arange(row_runs[-1], dtype=np.int32)
        kernels.join_rows(starts, codes, row_runs, 1, rows, columns, self._diagonal, -1, parent)
        component = np.empty_like(parent)
        count = kernels.flatten(parent, component)
        if not sizes:
            count = 0
        total = np.zeros(count, dtype=np.int64)
        code = np.empty(count, dtype=np.uint8)
        if sizes:
            kernels.add_run_sizes(starts, row_runs, columns, *self._weights.rows(start, stop), component, total)
            kernels.component_codes(component, codes, code)
        return Strip(start, stop, cells, row_runs, starts, codes, component), total, code


def _painted(strip: Strip, component_values: np.ndarray) -> tuple[int, np.ndarray]:
    return strip.start, strip.paint(component_values)


def _repainted(strip: Strip, component_codes: np.ndarray, out: np.ndarray | None) -> tuple[int, np.ndarray]:
    return strip.start, strip.repaint(component_codes, None if out is None else out[strip.start : strip.stop])
