"""Hectares of the cells of a raster, row by row: what `Grid.cell_area_ha` and the zonal sums are made from.

Cells between parallels and meridians have a closed form, one number a row. In any other CRS the area density is a
smooth series, taken at every so many columns and linear between, so that a scene's areas are a small table.
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

__all__ = ["CellAreas", "cell_areas", "row_areas_ha"]

_NODE_ERROR = 2e-10
"""Largest relative error of linear interpolation between columns."""

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
    """Hectares of the cells of some rows of a raster, at every ``step``-th column and linear between.

    Parameters
    ----------
    nodes_ha : float64 array (rows, nodes)
        Hectares of the cells in columns 0, ``step``, 2 ``step``, ...; a single node holds for the whole row.
    step : int
        Columns between nodes, at most 256 where there are several.
    error : float
        Largest relative error, as estimated.
    """

    nodes_ha: Array
    step: int
    error: float

    def expand(self, columns: int) -> Array:
        """Hectares of every cell, ``(rows, columns)``; ``(rows, 1)`` where they don't depend on the column."""
        if self.nodes_ha.shape[1] == 1:
            return self.nodes_ha
        node = np.minimum(np.arange(columns) // self.step, self.nodes_ha.shape[1] - 2)
        share = (np.arange(columns) - node * self.step) / self.step
        out: Array = self.nodes_ha[:, node] * (1 - share) + self.nodes_ha[:, node + 1] * share
        return out


def cell_areas(
    crs: pyproj.CRS, transform: Affine, shape: tuple[int, int], rows: tuple[int, int], area: str = ELLIPSOIDAL
) -> CellAreas:
    """Areas of the cells of rows ``rows[0]..rows[1]`` of a raster; see `CellAreas`."""
    planar = parse_measure(area)
    if planar is None and transform.b == 0 and transform.d == 0 and is_lonlat(crs):
        return CellAreas(row_areas_ha(transform, *rows)[:, None], max(shape[1], 1), 1e-15)
    wkt = None if planar is None else planar.to_wkt()
    density = _raster_density(crs.to_wkt(), tuple(transform)[:6], shape, wkt)
    middle_rows = np.arange(*rows, dtype=np.float64) + 0.5
    if density.coefficients.shape[1] == 1:
        return CellAreas(
            density.at(np.array([0.5]), middle_rows, cell=True) / M2_PER_HA, max(shape[1], 1), density.error
        )
    step, error = _node_step(density, shape)
    nodes = np.arange(0, shape[1] + step, step, dtype=np.float64) + 0.5
    return CellAreas(density.at(nodes, middle_rows, cell=True) / M2_PER_HA, step, density.error + error)


@lru_cache(maxsize=32)
def _raster_density(wkt: str, transform: tuple[float, ...], shape: tuple[int, int], planar: str | None) -> AreaDensity:
    # nodes may lie up to 256 columns beyond the last one, but never far beyond the raster itself
    window = (0.0, 0.0, shape[1] + min(256.0, 0.1 * shape[1] + 1), float(max(shape[0], 1)))
    return fit_density(
        pyproj.CRS.from_wkt(wkt), Affine(*transform), window, None if planar is None else pyproj.CRS.from_wkt(planar)
    )


def _node_step(density: AreaDensity, shape: tuple[int, int]) -> tuple[int, float]:
    """Widest spacing of nodes, and the relative error of linear interpolation between them."""
    x0, _, x1, _ = density.window
    bend = chebyshev.chebder(density.coefficients, 2, 2 / (x1 - x0), 1) if density.coefficients.shape[1] > 2 else None
    worst = 0.0
    if bend is not None:
        side = np.linspace(-1, 1, 33)
        worst = float(np.abs(chebyshev.chebgrid2d(side, side, bend)).max() / abs(density.coefficients[0, 0]))
    step = 256
    while step > 1 and (worst * step * step / 8 > _NODE_ERROR or step > max(1, shape[1] // 16)):
        step //= 2
    return step, worst * step * step / 8 if step > 1 else 0.0
