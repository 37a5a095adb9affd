"""Shapes of a landscape in the local frame: blobs, fields, rivers, roads and random points in polygons."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geococa.errors import InputRefused

__all__ = ["blob", "field_block", "meander", "random_points", "track"]


def blob(
    rng: np.random.Generator,
    centre: tuple[float, float],
    area_m2: float,
    *,
    vertices: int = 28,
    roughness: float = 0.18,
    stretch: float = 1.6,
) -> Any:
    """Rounded irregular polygon with exactly the area asked for (in the plane of the local frame).

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the shape.
    centre : tuple of float
        Where the polygon goes, in metres.
    area_m2 : float
        Area in square metres.
    vertices : int
        Number of vertices.
    roughness : float
        Amplitude of the first harmonic of the radius; higher ones fall off.
    stretch : float
        Largest ratio of length to width.
    """
    angle = np.linspace(0.0, 2.0 * np.pi, vertices, endpoint=False)
    radius = np.ones(vertices)
    for harmonic in range(2, 6):
        radius += roughness / (harmonic - 1) * rng.normal() * np.cos(harmonic * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.35, None)
    ratio = rng.uniform(1.0, stretch) ** 0.5
    points = np.column_stack([radius * np.cos(angle) * ratio, radius * np.sin(angle) / ratio])
    return _place(points, rng.uniform(0, np.pi), centre, area_m2)


def field_block(rng: np.random.Generator, centre: tuple[float, float], area_m2: float) -> Any:
    """Four-sided field with rounded-off, uneven corners, as people clear them by hand."""
    ratio = rng.uniform(1.0, 2.2) ** 0.5
    corners = np.array([[-1, -1], [0, -1.05], [1, -1], [1.05, 0], [1, 1], [0, 1.05], [-1, 1], [-1.05, 0]], dtype=float)
    corners += rng.normal(0, 0.09, corners.shape)
    points = _cut_corners(corners) * [ratio, 1 / ratio]
    return _place(points, rng.uniform(0, np.pi), centre, area_m2)


def _cut_corners(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """One round of Chaikin's corner cutting on a closed ring."""
    after = np.roll(points, -1, axis=0)
    return np.stack([0.8 * points + 0.2 * after, 0.2 * points + 0.8 * after], axis=1).reshape(-1, 2)


def _place(points: NDArray[np.float64], turn: float, centre: tuple[float, float], area_m2: float) -> Any:
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shape = shapely.Polygon(points @ rotation.T)
    if not shape.is_valid:
        shape = max(shapely.get_parts(shapely.make_valid(shape)), key=lambda part: float(part.area))
    factor = (area_m2 / shape.area) ** 0.5
    return shapely.transform(shape, lambda xy: xy * factor + np.asarray(centre))


def meander(
    rng: np.random.Generator,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    swing: float,
    step_m: float = 30.0,
) -> Any:
    """Winding line from ``start`` to ``end``: waves of several lengths across the straight line.

    ``swing`` is the amplitude of the longest wave as a share of its wavelength.
    """
    a, b = np.asarray(start, float), np.asarray(end, float)
    length = float(np.hypot(*(b - a)))
    along = np.linspace(0.0, 1.0, max(round(length / step_m), 8) + 1)
    offset = np.zeros_like(along)
    for wave_m, share in ((2600.0, 1.0), (1100.0, 0.6), (480.0, 0.45), (210.0, 0.25)):
        phase, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.2)
        offset += share * size * swing * min(wave_m, length) * np.sin(2 * np.pi * along * length / wave_m + phase)
    normal = np.array([-(b - a)[1], (b - a)[0]]) / max(length, 1e-9)
    return shapely.LineString(a + along[:, None] * (b - a) + offset[:, None] * normal)


def track(rng: np.random.Generator, start: tuple[float, float], end: tuple[float, float]) -> Any:
    """Unpaved road: straighter than a river."""
    return meander(rng, start, end, swing=0.035, step_m=45.0)


def random_points(rng: np.random.Generator, region: Any, count: int) -> NDArray[np.float64]:
    """Points drawn uniformly inside a polygon or multi-polygon.

    Parts are proposed in proportion to their bounding boxes and points outside the part are rejected, which
    makes the density the same everywhere.

    Returns
    -------
    numpy.ndarray of float64, shape (count, 2)
        Coordinates in the CRS of ``region``.
    """
    parts = [part for part in shapely.get_parts(region) if part.geom_type == "Polygon" and part.area > 0]
    if not parts:
        raise InputRefused("cannot draw points from an empty region")
    boxes = shapely.bounds(np.asarray(parts, dtype=object))
    weight = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shapely.prepare(parts)
    found: list[NDArray[np.float64]] = []
    missing = count
    while missing > 0:
        pick = rng.choice(len(parts), size=4 * missing + 16, p=weight / weight.sum())
        xy = boxes[pick, :2] + rng.random((len(pick), 2)) * (boxes[pick, 2:] - boxes[pick, :2])
        inside = shapely.contains_xy(np.asarray(parts, dtype=object)[pick], xy[:, 0], xy[:, 1])
        found.append(xy[inside][:missing])
        missing -= len(found[-1])
    return np.concatenate(found) if found else np.empty((0, 2))
