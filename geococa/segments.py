"""Connected components of a map of any size: strips of rows, labelled apart and sewn together at their seams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from geococa.cell_areas import CellAreas, cell_areas
from geococa.errors import InputRefused
from geococa.grid import Grid

__all__ = ["CellWeights", "Segments", "Strip"]

Reader = Callable[[int, int], np.ndarray]
"""Rows ``start .. stop - 1`` of a map, uint8 (rows, columns)."""


def _kernels() -> ModuleType:
    from geococa._kernels import components

    return components


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
        if pieces.shape[1] == 1 and not pieces[:, :, 1:].any():
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
        nodes_ha = self._nodes_ha(self._areas(start, stop))
        step = self.step if nodes_ha.shape[1] > 1 else 1
        nodes = np.rint(nodes_ha * (self.per_ha / step)).astype(np.int64)
        ramp = step * (step - 1) // 2
        sums = np.zeros_like(nodes)
        np.cumsum(nodes[:, :-1] * (step * step - ramp) + nodes[:, 1:] * ramp, axis=1, out=sums[:, 1:])
        return nodes, sums, step

    def least(self, area_ha: float) -> int:
        """Units of a minimum area; a billionth less, so that cells that add up to it exactly are enough."""
        return int(np.ceil(area_ha * self.per_ha * (1.0 - 1e-9)))


@dataclass
class Strip:
    """Runs of some rows and the component of each run."""

    start: int
    stop: int
    columns: int
    row_runs: np.ndarray
    starts: np.ndarray
    codes: np.ndarray
    component: np.ndarray

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First columns, codes and components of the runs of one row (counted in the strip)."""
        part = slice(self.row_runs[index], self.row_runs[index + 1])
        return self.starts[part], self.codes[part], self.component[part]

    def paint(self, component_values: np.ndarray) -> np.ndarray:
        """Rows of the map with the value of each component."""
        out = np.empty((self.stop - self.start, self.columns), dtype=component_values.dtype)
        _kernels().paint_runs(self.starts, self.row_runs, self.columns, component_values[self.component], out)
        return out


def seam(above: Strip, below: Strip) -> Strip:
    """Return the last row of a strip and the first row of the next one as a strip of two rows."""
    upper, lower = above.row(above.stop - above.start - 1), below.row(0)
    row_runs = np.array([0, upper[0].size, upper[0].size + lower[0].size], dtype=np.int64)
    starts, codes, component = (np.concatenate(pair) for pair in zip(upper, lower, strict=True))
    return Strip(above.stop - 1, below.start + 1, above.columns, row_runs, starts, codes, component)


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
    strip_rows : int
        Rows of a strip. Results do not depend on it.
    keep : bool
        Hold the runs of the whole map in memory, instead of finding them again in every pass.
    threads : int
        Threads over strips; ``read`` is called from them one at a time and in order. Results do not depend on it.

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
        strip_rows: int = 512,
        keep: bool = True,
        threads: int = 1,
    ) -> None:
        if connectivity not in (4, 8):
            raise InputRefused(f"connectivity must be 4 or 8, got {connectivity!r}")
        self._read, self._shape, self._weights = read, shape, weights
        self._diagonal = connectivity == 8
        self._bounds = [(start, min(start + strip_rows, shape[0])) for start in range(0, shape[0], strip_rows)]
        self._threads = threads
        self._kept: list[Strip] | None = [] if keep else None
        self._offsets: list[int] = []
        self._number = np.empty(0, dtype=np.int32)
        self.sizes, self.codes = self._label()

    @property
    def diagonal(self) -> bool:
        """Whether cells that share only a corner are neighbours."""
        return self._diagonal

    def strips(self) -> Iterator[Strip]:
        """Strips from the top down, with the final number of every run's component."""
        if self._kept is not None:
            yield from self._kept
            return
        for offset, (strip, _) in zip(self._offsets, self._cut_all(sizes=False), strict=True):
            strip.component = self._number[strip.component + np.int32(offset)]
            yield strip

    def paint(self, component_values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """First row and rows of every strip, with the value of each component, from the top down."""
        if self._kept is None or self._threads <= 1:
            for strip in self.strips():
                yield strip.start, strip.paint(component_values)
            return
        with ThreadPoolExecutor(max_workers=self._threads) as pool:
            rows = pool.map(lambda strip: strip.paint(component_values), self._kept)
            yield from zip([strip.start for strip in self._kept], rows, strict=True)

    def passes(self) -> Iterator[tuple[Strip, int, int]]:
        """Strips and the rows ``first .. last - 1`` of each to compare with the row above, seams included."""
        above: Strip | None = None
        for strip in self.strips():
            if above is None:
                yield strip, 0, strip.stop - strip.start
            else:
                yield seam(above, strip), 1, 2
                yield strip, 1, strip.stop - strip.start
            above = strip

    def _label(self) -> tuple[np.ndarray, np.ndarray]:
        """Label every strip, join the seams, and number the components of the whole map."""
        sizes: list[np.ndarray] = []
        codes: list[np.ndarray] = []
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        above: Strip | None = None
        offset = 0
        for strip, strip_sizes in self._cut_all(sizes=True):
            strip_codes = np.empty(strip_sizes.size, dtype=np.uint8)
            strip_codes[strip.component] = strip.codes
            sizes.append(strip_sizes)
            codes.append(strip_codes)
            if above is not None:
                pairs.append(self._seam_pairs(above, strip, self._offsets[-1], offset))
            if self._kept is not None:
                self._kept.append(strip)
            self._offsets.append(offset)
            offset += strip_sizes.size
            if offset > np.iinfo(np.int32).max:
                raise InputRefused(f"the map has more than {np.iinfo(np.int32).max} patches; cut it into parts")
            above = strip
        kernels = _kernels()
        parent = np.arange(offset, dtype=np.int32)
        for a, b in pairs:
            kernels.join_pairs(a, b, parent)
        self._number = np.empty(offset, dtype=np.int32)
        count = kernels.flatten(parent, self._number)
        del parent
        total = np.zeros(count, dtype=np.int64)
        code = np.empty(count, dtype=np.uint8)
        for position, start in enumerate(self._offsets):
            number = self._number[start : start + sizes[position].size]
            np.add.at(total, number, sizes[position])
            code[number] = codes[position]
            sizes[position] = codes[position] = np.empty(0, dtype=np.uint8)
            if self._kept is not None:
                strip = self._kept[position]
                strip.component = number[strip.component]
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

    def _cut_all(self, *, sizes: bool) -> Iterator[tuple[Strip, np.ndarray]]:
        """Label the strips by themselves, in threads, and give them in order."""
        if self._threads <= 1 or len(self._bounds) <= 1:
            for start, stop in self._bounds:
                yield self._cut(self._read(start, stop), start, stop, sizes)
            return
        with ThreadPoolExecutor(max_workers=self._threads) as pool:
            waiting: deque[Future[tuple[Strip, np.ndarray]]] = deque()
            for start, stop in self._bounds:
                waiting.append(pool.submit(self._cut, self._read(start, stop), start, stop, sizes))
                if len(waiting) > self._threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _cut(self, block: np.ndarray, start: int, stop: int, sizes: bool) -> tuple[Strip, np.ndarray]:
        """Runs of one strip, their components within the strip, and the sizes of these."""
        kernels = _kernels()
        codes = np.ascontiguousarray(block)
        if codes.shape != (stop - start, self._shape[1]) or codes.dtype != np.uint8:
            raise InputRefused(
                f"expected uint8 rows of shape {(stop - start, self._shape[1])}, "
                f"got {codes.dtype} of shape {codes.shape}"
            )
        rows, columns = codes.shape
        row_runs = np.zeros(rows + 1, dtype=np.int64)
        kernels.count_runs(codes, row_runs)
        starts = np.empty(row_runs[-1], dtype=np.int32)
        run_codes = np.empty(row_runs[-1], dtype=np.uint8)
        kernels.fill_runs(codes, row_runs, starts, run_codes)
        parent = np.arange(row_runs[-1], dtype=np.int32)
        kernels.join_rows(starts, run_codes, row_runs, 1, rows, columns, self._diagonal, -1, parent)
        component = np.empty_like(parent)
        total = np.zeros(kernels.flatten(parent, component) if sizes else 0, dtype=np.int64)
        if sizes:
            kernels.add_run_sizes(starts, row_runs, columns, *self._weights.rows(start, stop), component, total)
        else:
            kernels.flatten(parent, component)
        return Strip(start, stop, columns, row_runs, starts, run_codes, component), total
