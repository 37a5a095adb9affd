"""Hectares of the cells of a raster, row by row: what `Grid.cell_area_ha` and the zonal sums are made from.

Cells between parallels and meridians have a closed form, one number a row. In any other CRS the area density is a
smooth series, and over some hundred columns a parabola, so that a scene's areas are a small table.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine
from numpy.polynomial import chebyshev

from geococa.area_density import ELLIPSOIDAL, M2_PER_HA, AreaDensity, fit_density, parse_measure
from geococa.errors import InputRefused
from geococa.transforms import is_lonlat

__all__ = ["CellAreas", "cell_areas", "raster_density", "row_areas_ha"]

_PIECE_ERROR = 1e-10
"""Largest relative error of a parabola over a piece of columns."""
_MOST_COLUMNS = 1024
"""Columns of the longest pieces: `_kernels.zonal.PIECE`."""

Array = npt.NDArray[np.float64]


def row_areas_ha(transform: Affine, row_start: int, row_stop: int) -> Array:
    """Hectares of one cell of each row of a rectilinear longitude/latitude grid on WGS84."""
    from geococa._kernels import geodesy

    borders = transform.f + np.arange(row_start, row_stop + 1) * transform.e
    if borders.size and (borders.max() > 90 + 1e-9 or borders.min() < -90 - 1e-9):
        raise InputRefused(f"rows reach latitude {borders.min():.6g} to {borders.max():.6g}, beyond the poles")
    out = np.empty(row_stop - row_start)
    geodesy.parallel_band_areas(np.clip(borders, -90.0, 90.0), transform.a, out)
    return out / M2_PER_HA


@dataclass(frozen=True)
class CellAreas:
    """Hectares of the cells of some rows of a raster, as parabolas over pieces of columns.

    Parameters
    ----------
    pieces_ha : float64 array (rows, pieces, 3)
        The cell in column ``piece * step + i`` has ``a + b i + c i²`` hectares; the last piece holds to the end of the
        row.
    step : int
        Columns of a piece, at most 1024.
    error : float
        Largest relative error, as estimated.
    """

    pieces_ha: Array
    step: int
    error: float

    def expand(self, columns: int) -> Array:
        """Hectares of every cell, ``(rows, columns)``; ``(rows, 1)`` where they don't depend on the column."""
        if self.pieces_ha.shape[1] == 1 and not self.pieces_ha[:, :, 1:].any():
            return self.pieces_ha[:, :, 0]
        piece = np.minimum(np.arange(columns) // self.step, self.pieces_ha.shape[1] - 1)
        place = np.arange(columns) - piece * self.step
        a, b, c = (self.pieces_ha[:, piece, term] for term in range(3))
        out: Array = a + place * (b + place * c)
        return out


def cell_areas(
    crs: pyproj.CRS, transform: Affine, shape: tuple[int, int], rows: tuple[int, int], area: str = ELLIPSOIDAL
) -> CellAreas:
    """Areas of the cells of rows ``rows[0]..rows[1]`` of a raster; see `CellAreas`."""
    planar = parse_measure(area)
    if planar is None and transform.b == 0 and transform.d == 0 and is_lonlat(crs):
        return _alike(row_areas_ha(transform, *rows), 1e-15)
    density = raster_density(crs, transform, shape, planar)
    middles = np.arange(*rows, dtype=np.float64) + 0.5
    if density.coefficients.shape[1] == 1:
        return _alike(density.at(np.array([0.5]), middles, cell=True)[:, 0] / M2_PER_HA, density.error)
    step, error = _step(density, shape[1])
    starts = np.arange(0, max(shape[1], 1), step, dtype=np.float64) + 0.5
    ends = density.at(np.append(starts, starts[-1] + step), middles, cell=True) / M2_PER_HA
    middle = density.at(starts + step * 0.5, middles, cell=True) / M2_PER_HA
    first, last = ends[:, :-1], ends[:, 1:]
    bend = 2 * (first - 2 * middle + last)
    slope = last - first - bend
    pieces = np.stack([first, slope / step, bend / step**2], axis=2)
    return CellAreas(np.ascontiguousarray(pieces), step, density.error + error)


def _alike(row_ha: Array, error: float) -> CellAreas:
    """Rows whose cells are all alike."""
    pieces = np.zeros((row_ha.size, 1, 3))
    pieces[:, 0, 0] = row_ha
    return CellAreas(pieces, _MOST_COLUMNS, error)


def raster_density(
    crs: pyproj.CRS, transform: Affine, shape: tuple[int, int], planar: pyproj.CRS | None = None
) -> AreaDensity:
    """Area behind a cell as a function of (column, row), over a raster and a little beyond its last column."""
    return _raster_density(crs.to_wkt(), tuple(transform)[:6], shape, None if planar is None else planar.to_wkt())


@lru_cache(maxsize=32)
def _raster_density(wkt: str, transform: tuple[float, ...], shape: tuple[int, int], planar: str | None) -> AreaDensity:
    # the last piece may end beyond the raster, but never far beyond it
    window = (0.0, 0.0, shape[1] + min(float(_MOST_COLUMNS), shape[1] / 8 + 1), float(max(shape[0], 1)))
    return fit_density(
        pyproj.CRS.from_wkt(wkt), Affine(*transform), window, None if planar is None else pyproj.CRS.from_wkt(planar)
    )


def _step(density: AreaDensity, columns: int) -> tuple[int, float]:
    """Columns of the longest pieces that parabolas follow, and the relative error they leave."""
    x0, _, x1, _ = density.window
    worst = 0.0
    if density.coefficients.shape[1] > 3:
        third = chebyshev.chebder(density.coefficients, 3, 2 / (x1 - x0), 1)
        side = np.linspace(-1, 1, 33)
        worst = float(np.abs(chebyshev.chebgrid2d(side, side, third)).max() / abs(density.coefficients[0, 0]))
    step = _MOST_COLUMNS
    # a parabola through both ends and the middle of a piece is off by the third derivative times h³ / (72 sqrt 3)
    while step > 1 and (worst * step**3 / 124.7 > _PIECE_ERROR or step > max(1, columns // 8)):
        step //= 2
    return step, worst * step**3 / 124.7 if step > 1 else 0.0
