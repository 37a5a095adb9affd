"""What is known of a tile before a pixel is read: its scenes, their bands' files, and the grid they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from affine import Affine

from geococa.errors import CRSMismatch, GridMismatch
from geococa.grid import Grid
from geococa.rasters import Header, crs_of
from geococa.sensors import QUALITIES, Quality

__all__ = ["UNKNOWN_SENSOR", "BandFile", "SceneRef", "TileRef", "cells_per_side", "finest"]

UNKNOWN_SENSOR = "unknown"
"""Sensor of scenes that nobody names one for."""


@dataclass(frozen=True)
class BandFile:
    """Where one band of a scene is: file, band number, and what its header said."""

    path: str
    driver: str
    index: int
    shape: tuple[int, int]
    transform: tuple[float, ...]
    crs_wkt: str
    dtype: str
    nodata: float | None
    valid: tuple[float | None, float | None] = (None, None)

    @classmethod
    def of(cls, header: Header, index: int = 1) -> BandFile:
        """Band ``index`` (from 1) of a raster."""
        return cls(
            header.path,
            header.driver,
            index,
            header.shape,
            header.transform,
            header.crs_wkt,
            header.dtypes[index - 1],
            header.nodata[index - 1],
        )

    @property
    def source(self) -> Path | None:
        """File or store on disk that the band is in; None where it is remote."""
        if self.path.startswith("/vsisubfile/"):  # a member of a tar file: /vsisubfile/<offset>_<size>,<file>
            return Path(self.path.split(",", 1)[1])
        return None if self.path.startswith("/vsi") else Path(self.path)

    @property
    def cell_area(self) -> float:
        """Area of a cell in squared units of the CRS."""
        return float(abs(Affine(*self.transform).determinant))

    @property
    def grid(self) -> Grid:
        """Grid of the file."""
        return Grid(crs_of(self.crs_wkt), Affine(*self.transform), self.shape)


@dataclass(frozen=True)
class SceneRef:
    """One date of a tile, as found on disk.

    Attributes
    ----------
    id : str
        Product id, or the file's name.
    datetime : datetime.datetime
        Sensing time, UTC.
    path : str
        Folder or file.
    sensor : str
        Sensor name, ``"unknown"`` where neither metadata nor the caller say it.
    files : dict of str to BandFile
        By variable name; quality bands among them.
    default : tuple of str
        Bands that are opened where none are asked for.
    scale, offset : dict of str to float
        By variable name; bands whose numbers are not known are absent.
    baseline : str
        Processing baseline or software version.
    problem : str
        Why scale and offset are not known.
    own_quality : Quality or None
        Quality band that the sensor's own description brings.
    """

    id: str
    datetime: datetime
    path: str
    sensor: str
    files: Mapping[str, BandFile] = field(hash=False)
    default: tuple[str, ...]
    scale: Mapping[str, float] = field(hash=False)
    offset: Mapping[str, float] = field(hash=False)
    baseline: str = ""
    problem: str = ""
    own_quality: Quality | None = field(default=None, hash=False)

    @property
    def quality(self) -> tuple[str, ...]:
        """Names of its quality bands."""
        return tuple(name for name in self.files if name in QUALITIES)

    def band_file(self, name: str) -> BandFile | None:
        """File of a band; ``nir`` is served by ``nir08`` and the reverse where a sensor has only the other."""
        other = {"nir": "nir08", "nir08": "nir"}.get(name, name)
        return self.files.get(name) or self.files.get(other)

    def coefficient(self, name: str, values: Mapping[str, float]) -> float:
        """Scale or offset of a band, NaN where it is not known."""
        other = {"nir": "nir08", "nir08": "nir"}.get(name, name)
        return values.get(name if name in self.files else other, float("nan"))


@dataclass(frozen=True)
class TileRef:
    """A tile: its grid and its scenes, found without reading a pixel.

    Attributes
    ----------
    tile : str
        Tile id: the name of its folder or file.
    path : str
        Folder or file.
    sensor : str
        Sensor of its scenes.
    grid : Grid
        Finest grid among its reflectance and quality bands.
    scenes : tuple of SceneRef
        In order of time.

    Examples
    --------
    >>> import geococa as coca
    >>> tile = coca.find_tiles("sample_tiles")[0]
    >>> tile.tile, tile.years[0], tile.grid.shape
    ('18NXG', 2018, (220, 220))
    """

    tile: str
    path: str
    sensor: str
    grid: Grid
    scenes: tuple[SceneRef, ...]

    @property
    def years(self) -> tuple[int, ...]:
        """Calendar years (UTC) with at least one scene."""
        return tuple(sorted({scene.datetime.year for scene in self.scenes}))

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of bands that every scene can give."""
        common = set.intersection(*({*scene.files} for scene in self.scenes))
        if common & {"nir", "nir08"}:
            common |= {"nir", "nir08"}
        first = self.scenes[0].files
        return tuple(
            sorted(
                common - set(QUALITIES),
                key=lambda name: (name not in first, list(first).index(name) if name in first else 0),
            )
        )


def finest(files: Iterable[BandFile]) -> BandFile:
    """File with the smallest cells, the first of several."""
    return min(files, key=lambda file: file.cell_area)


def cells_per_side(file: BandFile, target: BandFile | Grid, name: str) -> int:
    """How many cells of the target grid lie along one side of a file's cell.

    Raises
    ------
    CRSMismatch, GridMismatch
        The grids do not share CRS, origin and extent, or the ratio is not a whole number.
    """
    grid = target.grid if isinstance(target, BandFile) else target
    mine = file.grid
    if not (mine.crs == grid.crs or mine.crs.equals(grid.crs, ignore_axis_order=True)):
        raise CRSMismatch(
            f"{file.path}: band {name} is in {mine.crs.to_string()[:60]}, the tile in {grid.crs.to_string()[:60]}; "
            "keep one CRS in a tile"
        )
    ratio = (mine.transform.a / grid.transform.a) if grid.transform.a else mine.transform.b / grid.transform.b
    factor: int = round(ratio)
    fitting = factor >= 1 and all(
        abs(a - factor * b) <= 1e-6 * abs(ratio) * max(abs(grid.transform.a), abs(grid.transform.b))
        for a, b in zip(_linear(mine.transform), _linear(grid.transform), strict=True)
    )
    # how far apart the first corners are, in cells of the tile
    inverse = ~grid.transform
    x, y = mine.transform.c, mine.transform.f
    corner = (inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f)
    covered = all(0 <= factor * n - m < factor for n, m in zip(mine.shape, grid.shape, strict=True))
    if not fitting or max(abs(v) for v in corner) > 1e-3 or not covered:
        raise GridMismatch(
            f"{file.path}: band {name} has {mine.shape} cells at {tuple(mine.transform)[:6]}, the tile {grid.shape} at "
            f"{tuple(grid.transform)[:6]}; expected the same corner and a whole number of cells to a side, "
            "bring it onto the tile's grid first"
        )
    return factor


def _linear(transform: Affine) -> tuple[float, float, float, float]:
    return transform.a, transform.b, transform.d, transform.e
