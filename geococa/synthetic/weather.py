"""Clouds, their shadows, haze and swath gaps of one acquisition, and the scene classification that half sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geococa.synthetic.noise import fractal_field, generator, hashed_uniform, lattice_field, stream
from geococa.synthetic.spectra import BANDS

__all__ = ["Sky", "Weather", "apply_weather", "draw_weather", "scene_classification"]

#                         blue  green red   re071 re075 re078 nir   nir08 swir16 swir22
_CLOUD = np.array([0.56, 0.55, 0.56, 0.57, 0.58, 0.59, 0.60, 0.60, 0.42, 0.33])
_HAZE = np.array([0.075, 0.058, 0.044, 0.036, 0.030, 0.027, 0.023, 0.021, 0.008, 0.005])
_SHADE = np.array([0.38, 0.44, 0.50, 0.53, 0.56, 0.58, 0.60, 0.60, 0.64, 0.66])  # share of light that is lost
_SCALES_M = (900.0, 450.0, 220.0, 110.0, 55.0)
_EDGE = 0.45  # width of a cloud's edge, in standard deviations of the cloud field
_DISPLACED_M = 25.0  # the mask of the scene classification lies beside the cloud by about this

NO_DATA, SHADOW, VEGETATION, BARE, WATER, UNSURE, CLOUD, DENSE_CLOUD, CIRRUS = 0, 3, 4, 5, 6, 7, 8, 9, 10


@dataclass(frozen=True)
class Weather:
    """Weather of one acquisition: the same for all tiles that it covers.

    Attributes
    ----------
    key : int
        Stream number of the acquisition.
    threshold : float
        Value of the cloud field above which there is cloud; infinite for a cloudless sky.
    shadow_m : tuple of float
        From a cloud to its shadow, east and north in metres.
    haze : float
        Amount of haze (0 = none, 1 = strong).
    gap : tuple of float or None
        Swath edge ``a * x + b * y > c`` beyond which nothing was recorded, in the local frame.
    """

    key: int
    threshold: float
    shadow_m: tuple[float, float]
    haze: float
    gap: tuple[float, float, float] | None


@dataclass(frozen=True)
class Sky:
    """State of the sky over given points, all arrays of their shape.

    Attributes
    ----------
    cloud : numpy.ndarray of float64
        Opacity of cloud, 0..1.
    shadow : numpy.ndarray of float64
        Depth of cloud shadow, 0..1.
    haze : numpy.ndarray of float64
        Amount of haze.
    gap : numpy.ndarray of bool
        Not recorded.
    """

    cloud: NDArray[np.float64]
    shadow: NDArray[np.float64]
    haze: NDArray[np.float64]
    gap: NDArray[np.bool_]


def draw_weather(extent: tuple[float, float, float, float], cover: float, seed: int, day: int) -> Weather:
    """Draw the weather of a day with about the share ``cover`` of the extent under cloud."""
    key = stream(seed, "weather", day)
    rng = generator(seed, "weather details", day)
    west, south, east, north = extent
    x, y = np.meshgrid(np.linspace(west, east, 61), np.linspace(south, north, 41))
    field = _cloud_field(x, y, key)
    threshold = float(np.quantile(field, 1.0 - cover)) if cover > 0 else float("inf")
    sun, height_m = np.radians(rng.uniform(25.0, 40.0)), rng.uniform(350.0, 1100.0)
    azimuth = np.radians(rng.choice([55.0, 125.0]) + rng.uniform(-15, 15))
    reach = height_m * np.tan(sun)
    gap = None
    if rng.random() < 0.14:
        tilt = np.radians(rng.uniform(-16.0, -10.0) + (180.0 if rng.random() < 0.5 else 0.0))
        a, b = float(np.cos(tilt)), float(np.sin(tilt))
        edge = a * (west + east) / 2 + b * (south + north) / 2 + rng.uniform(0.05, 0.35) * (east - west)
        gap = (a, b, float(edge))
    haze = float(np.clip(rng.gamma(1.3, 0.22), 0.0, 1.2))
    shadow = (float(-reach * np.sin(azimuth)), float(-reach * np.cos(azimuth)))
    return Weather(key, threshold, shadow, haze, gap)


def _cloud_field(x: NDArray[np.float64], y: NDArray[np.float64], key: int) -> NDArray[np.float64]:
    return fractal_field(x, y, _SCALES_M, stream(key, "cloud"), decay=0.55)


def _opacity(weather: Weather, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    if not np.isfinite(weather.threshold):
        return np.zeros(np.shape(x))
    depth = np.clip((_cloud_field(x, y, weather.key) - weather.threshold) / _EDGE + 0.35, 0.0, 1.0)
    return np.asarray(depth * depth * (3.0 - 2.0 * depth))


def observe_sky(weather: Weather, x: NDArray[np.float64], y: NDArray[np.float64]) -> Sky:
    """State of the sky over points of the local frame (metres)."""
    dx, dy = weather.shadow_m
    gap = np.zeros(np.shape(x), dtype=bool)
    if weather.gap is not None:
        a, b, edge = weather.gap
        gap = a * x + b * y > edge
    veil = 0.5 + 0.5 * np.tanh(lattice_field(x, y, 1500.0, stream(weather.key, "haze")))
    return Sky(_opacity(weather, x, y), _opacity(weather, x - dx, y - dy), weather.haze * veil, gap)


def apply_weather(
    ground: NDArray[np.float64], sky: Sky, glare: NDArray[np.float64], bands: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Reflectance as the sensor sees it: shadow dims the ground, haze brightens it, cloud covers it.

    Parameters
    ----------
    ground : numpy.ndarray of float64, shape (band, y, x)
        Reflectance of the ground.
    sky : Sky
        State of the sky over the same pixels.
    glare : numpy.ndarray of float64, shape (y, x)
        Brightness of the clouds relative to their mean.
    bands : numpy.ndarray of int
        Positions of the bands in `BANDS`.
    """
    lost, path, cloud = (table[bands][:, None, None] for table in (_SHADE, _HAZE, _CLOUD))
    dimmed = ground * (1.0 - lost * sky.shadow)
    hazy = dimmed * (1.0 - 0.25 * sky.haze) + path * sky.haze
    return np.asarray(hazy * (1.0 - sky.cloud) + cloud * glare * sky.cloud)


def cloud_glare(weather: Weather, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brightness of the clouds relative to their mean: tops and flanks."""
    return np.asarray(np.exp(0.08 * fractal_field(x, y, (700.0, 300.0), stream(weather.key, "glare"))))


def scene_classification(
    weather: Weather, x: NDArray[np.float64], y: NDArray[np.float64], ground: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Scene classification (SCL) with the faults of a real one.

    Cloud edges lie some metres beside the true ones, thin cloud and haze are often missed, shadows are found
    in part and displaced, bright soil and roofs are now and then called cloud, and water now and then shadow.

    Parameters
    ----------
    weather : Weather
        Weather of the acquisition.
    x, y : numpy.ndarray of float64, shape (y, x)
        Cell centres in the local frame (20 m cells).
    ground : numpy.ndarray of float64, shape (10, y, x)
        Reflectance of the ground in the order of `BANDS`.
    """
    key = weather.key
    shift = generator(key, "mask shift").normal(0.0, _DISPLACED_M, 4)
    seen = observe_sky(weather, x + shift[0], y + shift[1])
    doubt = fractal_field(x, y, (160.0, 60.0), stream(key, "doubt"))
    opacity = seen.cloud * (1.0 + 0.8 * doubt * (1.0 - seen.cloud)) + 0.12 * np.maximum(seen.haze - 0.45, 0.0)
    scl = _ground_class(ground)
    blue, red = ground[BANDS.index("blue")], ground[BANDS.index("red")]
    chance = lattice_field(x, y, 70.0, stream(key, "false cloud"))
    scl[(blue + red > 0.15) & (chance > 0.95)] = CLOUD
    scl[(scl == WATER) & (chance < -1.25)] = SHADOW
    shade = observe_sky(weather, x + shift[2], y + shift[3]).shadow
    scl[(shade > 0.45) & (doubt > -0.75)] = SHADOW
    scl[(opacity > 0.16) & (doubt > 0.1)] = CIRRUS
    scl[opacity > 0.38] = CLOUD
    scl[opacity > 0.68] = DENSE_CLOUD
    pixel = hashed_uniform(np.rint(x).astype(np.int64), np.rint(y).astype(np.int64), stream(key, "unsure"))
    scl[(pixel.reshape(scl.shape) < 0.004) & (scl < CLOUD)] = UNSURE
    scl[observe_sky(weather, x, y).gap] = NO_DATA
    return scl


def _ground_class(ground: NDArray[np.float64]) -> NDArray[np.uint8]:
    green, red, nir, swir = (ground[BANDS.index(name)] for name in ("green", "red", "nir", "swir16"))
    ndvi = (nir - red) / np.maximum(nir + red, 1e-6)
    wet = (green - swir) / np.maximum(green + swir, 1e-6)
    scl = np.where(ndvi > 0.42, VEGETATION, BARE).astype(np.uint8)
    scl[(wet > 0.15) & (ndvi < 0.3)] = WATER
    return scl
