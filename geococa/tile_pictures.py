"""A small picture of each tile, made of the very features that its maps were made of: the background of the report.

For looking only: every n-th cell of the latest year that saw it, in natural colours where the features hold them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from geococa.grid import Block, Grid
from geococa.tiles import write_cog

__all__ = ["NO_PICTURE", "TilePicture"]

NO_PICTURE = -32768
"""No data in the file of a picture."""

_CHOICES = (("red", "green", "blue"), ("swir16", "nir", "red"), ("nir", "red", "green"), ("nir",), ("ndvi",))
_SIDE = 800
_SCALE = 10_000.0


class TilePicture:
    """Cells of a tile, thinned to a picture as its blocks come in.

    Blocks may come in any order and from several threads: each writes its own cells only.

    Parameters
    ----------
    grid : Grid
        Grid of the tile.
    side : int
        Largest side of the picture in cells.
    """

    def __init__(self, grid: Grid, side: int = _SIDE) -> None:
        self._step = max(1, math.ceil(max(grid.shape) / side))
        rows, columns = (-(-n // self._step) for n in grid.shape)
        t = grid.transform
        step = float(self._step)
        # a cell of the picture is as large as the cells it stands for, so that the picture lies where the tile lies
        self.grid = Grid(grid.crs, (t.a * step, t.b * step, t.c, t.d * step, t.e * step, t.f), (rows, columns))
        self._values = np.full((3, rows, columns), np.nan, dtype=np.float32)
        self._bands: Sequence[str] = ()

    def put(self, block: Block, features: xr.DataArray) -> None:
        """Take the cells of a block from its features (time, feature, y, x), the latest year first."""
        names = [str(name) for name in features["feature"].values]
        chosen = next((bands for bands in _CHOICES if set(bands) <= set(names)), None)
        if chosen is None:
            return
        self._bands = chosen
        r0, r1, c0, c1 = block.inner
        rows, columns = (np.arange(-(-a // self._step), -(-b // self._step)) for a, b in ((r0, r1), (c0, c1)))
        if not rows.size or not columns.size:
            return
        own = features.transpose("time", "feature", "y", "x")
        order = np.argsort(own["time"].values)[::-1]
        for i in range(3):
            band = own.isel(feature=names.index(chosen[min(i, len(chosen) - 1)]))
            inside = (slice(None), rows[:, None] * self._step - block.outer[0], columns * self._step - block.outer[2])
            values = np.asarray(band.values)[inside].astype(np.float32)
            out = np.full(values.shape[1:], np.nan, dtype=np.float32)
            for year in order:
                out = np.where(np.isnan(out), values[year], out)
            self._values[i, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = out

    def write(self, path: Path) -> Path | None:
        """Write the picture as a GeoTIFF of three int16 bands; None where there is nothing to see, or no band for it."""
        seen = np.isfinite(self._values).all(axis=0)
        if not seen.any():
            return None
        whole = np.clip(np.where(seen, self._values, 0) * _SCALE, -32767, 32767)
        data = np.where(seen, np.rint(whole), NO_PICTURE).astype(np.int16)
        bands = ("red", "green", "blue") if len(self._bands) == 3 else ("grey",) * 3
        array = xr.DataArray(data, dims=("band", "y", "x"), name="picture", attrs={"nodata": NO_PICTURE})
        array.attrs["long_name"] = f"{', '.join(self._bands)} as {', '.join(dict.fromkeys(bands))}; for looking only"
        return write_cog(self.grid.attach(array), path, overviews=False)
