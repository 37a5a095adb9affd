"""Radar backscatter beside the optical bands: calibrated Sentinel-1 GeoTIFFs, in linear power, one image a year."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from geococa.composites import composite
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.layouts import tile_in
from geococa.rasters import read_header, read_window
from geococa.scene_refs import BandFile, SceneRef, cells_per_side

__all__ = ["BACKSCATTER_BANDS", "Backscatter", "open_backscatter", "radar_files", "read_backscatter"]

BACKSCATTER_BANDS = ("vv", "vh")
"""Bands of radar backscatter."""

_UNITS = {"db": "dB", "decibel": "dB", "linear": "linear", "lin": "linear", "power": "linear"}
_QUANTITIES = {"sigma0": "sigma0", "sigma": "sigma0", "gamma0": "gamma0", "gamma": "gamma0"}
_UNCALIBRATED = ("beta0", "beta", "amplitude", "dn")

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Backscatter:
    """Radar scenes of a tile, found without reading a pixel.

    Attributes
    ----------
    grid : Grid
        Grid of the tile, on which they are read.
    scenes : tuple of SceneRef
        In order of time.
    units : str
        ``"linear"`` or ``"dB"``, what the numbers in the files are.
    quantity : str
        ``"sigma0"`` or ``"gamma0"``.
    """

    grid: Grid
    scenes: tuple[SceneRef, ...]
    units: str
    quantity: str

    def read(self, window: Window | None = None, years: Iterable[int] | None = None) -> xr.Dataset:
        """Linear power of a window of the tile, ``vv`` and ``vh`` float32 ``(time, y, x)``, NaN = not observed."""
        rows, columns = self.grid.shape
        box = (0, rows, 0, columns) if window is None else window
        chosen = [s for s in self.scenes if years is None or s.datetime.year in set(years)]
        times = np.array([scene.datetime.replace(tzinfo=None) for scene in chosen], "datetime64[ns]")
        shape = (len(chosen), box[1] - box[0], box[3] - box[2])
        bands = {}
        for name in BACKSCATTER_BANDS:
            values = np.empty(shape, np.float32)
            for plane, scene in zip(values, chosen, strict=True):
                plane[:] = self._power(scene, name, box)
            bands[name] = (
                ("time", "y", "x"),
                values,
                {"units": "1", "long_name": f"{self.quantity} {name}, linear power"},
            )
        coords = {"time": times, **self.grid.window(*box).coordinates()}
        return xr.Dataset(bands, coords=coords, attrs={"kind": "reflectance", "quantity": self.quantity})

    def yearly(self, window: Window | None = None, years: Iterable[int] | None = None) -> xr.Dataset:
        """Median of each year, ``vv`` and ``vh`` float32 ``(time, y, x)``; years without a scene are absent."""
        series = self.read(window, years)
        if not series.sizes["time"]:
            return series
        return composite(series, reducer="median")[list(BACKSCATTER_BANDS)]

    def _power(self, scene: SceneRef, name: str, box: Window) -> np.ndarray:
        file = scene.files[name]
        raw = read_window(file.path, file.driver, file.index, box, factor=cells_per_side(file, self.grid, name))
        values = raw.astype(np.float32)
        if file.nodata is not None:
            values[raw == file.nodata] = np.nan
        if name in scene.scale:
            values = values * np.float32(scene.scale[name]) + np.float32(scene.offset[name])
        # an empty border is 0 in linear power, which has no decibels
        values[~np.isfinite(values) | ((values == 0) & (self.units == "linear"))] = np.nan
        _check_plausible(values, self.units, f"{file.path} ({name})")
        return np.float32(10) ** (values / np.float32(10)) if self.units == "dB" else values


def _check_plausible(values: np.ndarray, units: str, what: str) -> None:
    """Refuse numbers that can't be in the units stated."""
    seen = values[~np.isnan(values)]
    if not seen.size:
        return
    if units == "linear" and seen.min() < 0:
        raise InputRefused(
            f"{what}: stated as linear power but holds {seen.min():g}; power is not negative, these look like decibels: set "
            "units = 'dB'"
        )
    if units == "dB" and (seen.max() > 60 or (seen.min() >= 0 and seen.size >= 100)):
        raise InputRefused(
            f"{what}: stated as decibels but holds {seen.min():g} to {seen.max():g}; land backscatter lies below 0 dB nearly "
            "everywhere, these look like linear power or uncalibrated numbers: set units = 'linear', or calibrate"
        )


def open_backscatter(
    path: str | os.PathLike[str],
    grid: Grid,
    *,
    tile: str | None = None,
    units: str | None = None,
    quantity: str | None = None,
) -> Backscatter:
    """Find the radar scenes of a tile.

    Parameters
    ----------
    path : path
        Folder of GeoTIFFs with a date in their names, each with the bands ``vv`` and ``vh`` (by description) or one of them
        (by name, as in ``S1A_20220105_gamma0_VV_db.tif``); or a folder of such folders named like the tiles.
    grid : Grid
        Grid of the tile; the files must have its CRS and corner, and cells that are a whole number of its cells.
    tile : str, optional
        Tile id, the name of the folder to take below ``path``.
    units : {"linear", "dB"}, optional
        Units of the numbers; from the words ``linear``, ``power`` or ``db`` in descriptions, names or tags where not given.
    quantity : {"sigma0", "gamma0"}, optional
        What was calibrated for; from the files' words where not given.

    Raises
    ------
    InputRefused
        No scene, a band is missing, the units or quantity are not stated, contradict each other or are those of
        uncalibrated numbers.
    GridMismatch
        A file does not fit the tile's grid.
    """
    root = Path(path)
    if not root.exists():
        raise InputRefused(f"{root}: does not exist; give the folder of the radar scenes")
    place = root / tile if tile is not None and (root / tile).is_dir() else root
    found = tile_in(place, None)
    if found is None:
        raise InputRefused(f"{place}: no radar scene in it; expected GeoTIFFs with a date in their names")
    stated = [_stated(scene, name) for scene in found.scenes for name in _checked_bands(scene)]
    for scene in found.scenes:
        for name in BACKSCATTER_BANDS:
            cells_per_side(scene.files[name], grid, name)
    return Backscatter(
        grid,
        found.scenes,
        _agreed("units", units, [pair[0] for pair in stated], ("linear", "dB"), place),
        _agreed("quantity", quantity, [pair[1] for pair in stated], ("sigma0", "gamma0"), place),
    )


def radar_files(path: str | os.PathLike[str], tile: str) -> list[Path]:
    """Files of the radar scenes of a tile, for provenance and to see whether one changed."""
    root = Path(path)
    place = root / tile if (root / tile).is_dir() else root
    return sorted(file for file in place.rglob("*") if file.is_file())


def _checked_bands(scene: SceneRef) -> tuple[str, ...]:
    missing = [name for name in BACKSCATTER_BANDS if name not in scene.files]
    if missing:
        raise InputRefused(
            f"{scene.path}: radar scene {scene.id} has no band {', '.join(missing)}, only {', '.join(scene.files)}; name the "
            "bands VV and VH in their descriptions or file names"
        )
    return BACKSCATTER_BANDS


def _stated(scene: SceneRef, name: str) -> tuple[str | None, str | None]:
    """Units and quantity that a file states in words, None where it does not."""
    file: BandFile = scene.files[name]
    header = read_header(file.path)
    texts = [header.descriptions[file.index - 1] or "", Path(file.path).stem]
    texts += [
        f"{key} {value}"
        for key, value in header.tags.items()
        if re.search(r"unit|calib|quantity|backscatter", key, re.I)
    ]
    words = [word for text in texts for word in re.split(r"[^a-z0-9]+", text.lower()) if word]
    raw = [word for word in words if word in _UNCALIBRATED]
    if raw or (np.dtype(file.dtype).kind in "iu" and name not in scene.scale):
        reason = f"its words say {raw[0]}" if raw else f"it holds {file.dtype} numbers without a scale"
        raise InputRefused(f"{file.path}: is not calibrated backscatter: {reason}; calibrate to sigma0 or gamma0 first")
    return _one({_UNITS[w] for w in words if w in _UNITS}), _one({_QUANTITIES[w] for w in words if w in _QUANTITIES})


def _one(found: set[str]) -> str | None:
    return found.pop() if len(found) == 1 else None


def _agreed(what: str, given: str | None, stated: list[Any], known: tuple[str, ...], place: Path) -> str:
    if given is not None and given not in known:
        raise InputRefused(f"{what} of backscatter must be one of {', '.join(known)}, got {given!r}")
    words = sorted({text for text in stated if text is not None})
    if len(words) > 1 or (given is not None and words and words != [given]):
        raise InputRefused(
            f"{place}: {what} contradict: {'given ' + given + ', ' if given else ''}the files say {', '.join(words)}; keep "
            "scenes of one kind together"
        )
    if given is None and (not words or None in stated):
        raise InputRefused(
            f"{place}: the {what} of the backscatter are not stated; set {what} to one of {', '.join(known)} under [sar]"
        )
    return given or words[0]


def read_backscatter(
    path: str | os.PathLike[str],
    grid: Grid,
    *,
    units: str | None = None,
    quantity: str | None = None,
    window: Window | None = None,
    years: Iterable[int] | None = None,
) -> xr.Dataset:
    """Read calibrated radar backscatter as linear power on a tile's grid.

    Parameters
    ----------
    path, grid, units, quantity
        As for `open_backscatter`.
    window : tuple of int, optional
        ``(row_start, row_stop, column_start, column_stop)`` of the grid.
    years : iterable of int, optional
        Years to keep.

    Returns
    -------
    xarray.Dataset
        ``vv`` and ``vh`` float32 ``(time, y, x)``, linear power, NaN = not observed. `geococa.composite` makes yearly images
        of it, and formulas such as ``"rvi_sar=4*vh/(vv+vh)"`` features, see `geococa.spectral_features`.

    Raises
    ------
    InputRefused
        As `open_backscatter`; or numbers that can't be in the units stated.
    """
    return open_backscatter(path, grid, units=units, quantity=quantity).read(window, years)
