"""Images of the landscape: area-weighted mixing of patch spectra, texture, weather, noise and digital numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyproj
import shapely
import xarray as xr
from numpy.typing import NDArray

from geococa.errors import GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.synthetic.acquisitions import Acquisition, product_id
from geococa.synthetic.cover import CLASSES
from geococa.synthetic.frame import GEOGRAPHIC, to_local
from geococa.synthetic.mixing import unit_shares
from geococa.synthetic.noise import fractal_field, generator, hashed_normal, stream
from geococa.synthetic.spectra import BANDS, COARSE_BANDS, FINE_BANDS, LATENT, TEXTURE_SD, mean_spectra
from geococa.synthetic.weather import Weather, apply_weather, cloud_glare, observe_sky, scene_classification

if TYPE_CHECKING:
    from geococa.synthetic.world import Landscape

__all__ = ["Scene", "class_fractions", "outline", "render", "scene", "sky"]

SCALE = 1e-4
_TEXTURE_SCALES_M = ((16.0, 45.0), (25.0, 90.0), (30.0, 120.0), (20.0, 60.0))  # of the four latent variables
_NOISE_FACTOR = np.array([1.0, 1.0, 1.0, 1.2, 1.5, 1.6, 1.7, 1.6, 1.4, 1.2])
_GAIN_SD = 0.015  # of the calibration and atmospheric correction of a date


@dataclass(frozen=True)
class Scene:
    """One image at native resolution.

    Attributes
    ----------
    bands : dict of str to numpy.ndarray of uint16
        Digital numbers by common name, 0 = no data; coarse bands have half the rows and columns.
    scl : numpy.ndarray of uint8
        Scene classification on the coarse grid.
    """

    bands: dict[str, NDArray[np.uint16]]
    scl: NDArray[np.uint8]


@dataclass(frozen=True)
class _Mixture:
    """Shares of the units of one year in the pixels of a grid, and the texture there."""

    patches: NDArray[np.int64]
    shares: Any  # csr (pixels, units)
    texture: NDArray[np.float64]  # (pixels, 4): latent deviations inside the classes
    covered: NDArray[np.float64]  # (pixels,)


_KEPT = 4  # mixtures of one year serve all its dates


def coarse_grid(grid: Grid) -> Grid:
    """Grid with cells twice as large over the same ground."""
    if grid.shape[0] % 2 or grid.shape[1] % 2:
        raise GridMismatch(f"a grid to draw on needs even numbers of rows and columns, got {grid.shape}")
    return Grid(grid.crs, grid.transform * grid.transform.scale(2), (grid.shape[0] // 2, grid.shape[1] // 2))


def outline(grid: Grid, edges: int | None = None) -> Any:
    """Ground that a grid covers, in longitude and latitude: a vertex every 50 m, or ``edges`` edges a side."""
    left, bottom, right, top = grid.bounds
    longest = 50.0 if edges is None else 1.001 * max(right - left, top - bottom) / edges
    box = shapely.segmentize(shapely.box(left, bottom, right, top), longest)
    transformer = pyproj.Transformer.from_crs(grid.crs, GEOGRAPHIC, always_xy=True)
    return shapely.transform(box, lambda xy: np.column_stack(transformer.transform(xy[:, 0], xy[:, 1])))


def _centres(grid: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cell centres in the local frame, shape (y, x)."""
    columns, rows = np.meshgrid(np.arange(grid.shape[1]) + 0.5, np.arange(grid.shape[0]) + 0.5)
    t = grid.transform
    return to_local(t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f, grid.crs)


def class_fractions(world: Landscape, grid: Grid, year: int) -> xr.DataArray:
    """Exact share of each class in each pixel, see `Landscape.class_fractions`."""
    cover = world.truth[year]
    shares = unit_shares(cover.geometry.to_numpy(), GEOGRAPHIC, grid).toarray()
    out = np.zeros((len(CLASSES), *grid.shape))
    for position, name in enumerate(cover["class"]):
        out[CLASSES.index(name)] = shares[:, position].reshape(grid.shape)
    array = xr.DataArray(out, dims=("land_cover", "y", "x"), coords={"land_cover": list(CLASSES)}, attrs={"units": "1"})
    return grid.attach(array)


def _mixture(world: Landscape, grid: Grid, year: int) -> _Mixture:
    key = (year, grid.crs.to_string(), tuple(grid.transform), grid.shape)
    kept: _Mixture | None = world._mixtures.get(key)
    if kept is not None:
        return kept
    patches, shown = world._units(world._slice(year))
    shares = unit_shares(shown, GEOGRAPHIC, grid)
    codes = world._patches.cover[patches, world._slice(year)]
    deviation = np.stack([TEXTURE_SD[int(code)] for code in codes])
    x, y = (part.ravel() for part in _centres(grid))
    fields = np.stack(
        [
            fractal_field(x, y, scales, stream(world.seed, "texture", number), decay=0.8)
            for number, scales in enumerate(_TEXTURE_SCALES_M)
        ],
        axis=1,
    )
    mixture = _Mixture(patches, shares, fields * (shares @ deviation), np.asarray(shares.sum(axis=1)).ravel())
    world._mixtures[key] = mixture
    while len(world._mixtures) > _KEPT:
        world._mixtures.popitem(last=False)
    return mixture


def _ground(world: Landscape, grid: Grid, acquisition: Acquisition) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Reflectance of the ground, shape (10, y, x), and where the landscape is known."""
    year = acquisition.moment.year
    index = world._slice(year)
    mixture = _mixture(world, grid, year)
    patches = mixture.patches
    cover, age = world._patches.cover[patches, index], world._patches.age[patches, index]
    spectra = mean_spectra(acquisition.day, cover, age, patches, world._traits)
    mixed = mixture.shares @ spectra
    mixed *= 1.0 + mixture.texture @ LATENT
    rng = generator(world.seed, "gain", int(acquisition.day))
    mixed *= 1.0 + rng.normal(0, _GAIN_SD) + rng.normal(0, _GAIN_SD / 2, len(BANDS))
    known = (mixture.covered > 1.0 - 1e-5).reshape(grid.shape)
    return np.ascontiguousarray(mixed.T).reshape(len(BANDS), *grid.shape), known


def _coarsen(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of two by two cells, which is the exact mixture of the larger cell."""
    shape = (*array.shape[:-2], array.shape[-2] // 2, 2, array.shape[-1] // 2, 2)
    return np.asarray(array.reshape(shape).mean(axis=(-3, -1)))


def sky(grid: Grid, acquisition: Acquisition) -> xr.Dataset:
    """True state of the sky, see `Landscape.sky`."""
    state = observe_sky(acquisition.weather, *_centres(grid))
    parts = {"cloud": state.cloud, "shadow": state.shadow, "haze": state.haze, "gap": state.gap}
    arrays = {name: grid.attach(xr.DataArray(value, dims=("y", "x"))) for name, value in parts.items()}
    return xr.Dataset(arrays)


def scene(world: Landscape, grid: Grid, acquisition: Acquisition, *, weather: bool = True, noise: bool = True) -> Scene:
    """Draw an image at native resolution."""
    coarse = coarse_grid(grid)
    ground, known = _ground(world, grid, acquisition)
    coarse_ground = _coarsen(ground)
    x, y = _centres(coarse)
    if weather:
        scl = scene_classification(acquisition.weather, x, y, coarse_ground)
    else:
        scl = scene_classification(_clear(acquisition), x, y, coarse_ground)
    known_coarse = _coarsen(known.astype(np.float64)) == 1.0
    scl[~known_coarse] = 0
    seen = scl > 0
    seen_fine = np.repeat(np.repeat(seen, 2, axis=0), 2, axis=1)
    bands: dict[str, NDArray[np.uint16]] = {}
    for names, where, values, observed in (
        (FINE_BANDS, grid, ground, seen_fine),
        (COARSE_BANDS, coarse, coarse_ground, seen),
    ):
        positions = np.array([BANDS.index(name) for name in names])
        at_sensor = values[positions]
        cloud = np.zeros(where.shape)
        if weather:
            px, py = _centres(where)
            state = observe_sky(acquisition.weather, px, py)
            cloud = state.cloud
            at_sensor = apply_weather(at_sensor, state, cloud_glare(acquisition.weather, px, py), positions)
        if noise:
            sd = float(world.settings["noise_sd"]) * _NOISE_FACTOR[positions][:, None, None]
            # opaque cloud saturates the small differences that noise makes
            at_sensor = at_sensor + sd * (1.0 - 0.97 * cloud) * _noise(world, where, acquisition, positions)
        for name, layer in zip(names, at_sensor, strict=True):
            bands[name] = _digital_numbers(layer, acquisition.offset, observed, int(world.settings["dn_step"]))
    return Scene({name: bands[name] for name in BANDS}, scl)


def _clear(acquisition: Acquisition) -> Weather:
    return replace(acquisition.weather, threshold=float("inf"), haze=0.0, gap=None)


def _noise(world: Landscape, grid: Grid, acquisition: Acquisition, positions: NDArray[np.int_]) -> NDArray[np.float64]:
    """Independent normal numbers for each pixel, band and date; the same for a pixel in every window."""
    t = grid.transform
    column = (np.arange(grid.shape[1]) + np.rint(t.c / t.a)).astype(np.int64)[None, :]
    row = (np.arange(grid.shape[0]) + np.rint(t.f / t.e)).astype(np.int64)[:, None]
    zone = grid.crs.to_string()
    keys = [stream(world.seed, "noise", zone, int(acquisition.day), int(band)) for band in positions]
    return np.stack([hashed_normal(column, row, key) for key in keys])


def _digital_numbers(
    reflectance: NDArray[np.float64], offset: float, seen: NDArray[np.bool_], step: int
) -> NDArray[np.uint16]:
    numbers = step * np.rint((reflectance - offset) / (SCALE * step))
    return np.where(seen, np.clip(numbers, step, 65535 // step * step), 0).astype(np.uint16)


def render(
    world: Landscape,
    grid: Grid,
    acquisition: Acquisition,
    *,
    bands: Iterable[str] | None,
    weather: bool,
    noise: bool,
    tile: str | None,
) -> xr.Dataset:
    """Image on one grid, see `Landscape.render`."""
    wanted = list(BANDS) if bands is None else [str(name) for name in bands]
    unknown = [name for name in wanted if name not in BANDS]
    if unknown or not wanted:
        raise InputRefused(f"no band {unknown} in the simulated images, which have {', '.join(BANDS)}")
    drawn = scene(world, grid, acquisition, weather=weather, noise=noise)
    name = tile or next((key for key, one in world.frame.grids.items() if one.same_as(grid)), "00XXX")
    moment = np.array([acquisition.moment.replace(tzinfo=None)], dtype="datetime64[ns]")
    coords = {
        "time": moment,
        "band": wanted,
        "scale": (("time", "band"), np.full((1, len(wanted)), SCALE)),
        "offset": (("time", "band"), np.full((1, len(wanted)), acquisition.offset)),
        "scene": ("time", [product_id(acquisition, name)]),
        "processing_baseline": ("time", [acquisition.baseline]),
    }
    layers = {band: _full_size(drawn.bands[band], grid) for band in wanted} | {"scl": _full_size(drawn.scl, grid)}
    arrays = {}
    for key, layer in layers.items():
        array = xr.DataArray(layer[None], dims=("time", "y", "x"), coords={"time": moment}, attrs={"nodata": 0})
        arrays[key] = grid.attach(array)
    out = xr.Dataset(arrays).assign_coords(coords)
    out.attrs = {"kind": "scenes", "sensor": "sentinel-2-l2a"}
    return out


def _full_size(layer: NDArray[Any], grid: Grid) -> NDArray[Any]:
    if layer.shape == grid.shape:
        return layer
    return np.repeat(np.repeat(layer, 2, axis=0), 2, axis=1)
