"""Polygons moved by a distance, and the rings made so, against distances measured point by point."""

from __future__ import annotations

import geopandas
import numpy as np
import pyproj
import pytest
import shapely

from geococa import border_offsets
from geococa.border_offsets import offset_polygon
from geococa.zones import buffer_rings
from tests.oracles_areas import polygonal, star

GEOD = pyproj.Geod(ellps="WGS84")
# a park at sea with long straight sides, cut out of the outline of a real one
PARK = shapely.Polygon(
    [(-78.0968, 2.9306), (-78.2302, 2.8140), (-78.2968, 2.8140), (-78.2968, 3.0973), (-78.0968, 3.0973)]
)


def many_vertices(bend):
    """A square whose sides are nearly straight chains of 200 vertices, bent inwards by some metres."""
    side = np.linspace(0, 20_000, 201)[:-1]
    sag = bend * (1 - ((side - 10_000) / 10_000) ** 2)
    x = np.concatenate([side, 20_000 - sag, 20_000 - side, sag])
    y = np.concatenate([sag, side, 20_000 - sag, 20_000 - side])
    return shapely.Polygon(np.c_[x, y])


def worst_distance(outline, border, distance):
    places = shapely.points(shapely.get_coordinates(shapely.segmentize(shapely.boundary(outline), distance / 50)))
    return np.abs(shapely.distance(shapely.boundary(border), places) - distance).max()


@pytest.mark.parametrize("distance", [1000, -1000, 8000, -8000])
@pytest.mark.parametrize("bend", [0.5, 20.0, -20.0])
def test_outlines_lie_at_the_distance(bend, distance):
    square = many_vertices(bend)
    moved = offset_polygon(square, distance)
    assert worst_distance(moved, square, abs(distance)) <= 3e-4 * abs(distance) + 1e-3


def test_ragged_outlines_lie_at_the_distance():
    rng = np.random.default_rng(8)
    shape = polygonal(star(rng, 100, 0, 0, 20_000).difference(star(rng, 40, 0, 0, 4_000)))
    for distance in (500, -200, 3000):
        assert worst_distance(offset_polygon(shape, distance), shape, abs(distance)) <= 3e-4 * abs(distance) + 1e-3


@pytest.mark.parametrize("distance", [2000, -2000, -9000])
def test_a_wrong_outline_is_made_anew_from_every_edge(monkeypatch, distance):
    square = many_vertices(3.0)
    expected = offset_polygon(square, distance)
    wrong = shapely.affinity.scale(expected, 1.01)
    assert not border_offsets._at_distance(wrong, square, abs(distance))
    monkeypatch.setattr(border_offsets, "_at_distance", lambda *_: False)
    anew = offset_polygon(square, distance)
    assert worst_distance(anew, square, abs(distance)) <= 3e-4 * abs(distance) + 1e-3
    assert anew.area == pytest.approx(expected.area, rel=1e-5)


def test_nothing_is_left_deep_inside_a_narrow_polygon():
    assert offset_polygon(shapely.box(0, 0, 100, 5000), -60).is_empty


def test_outlines_of_rings_lie_at_their_distance_on_the_ellipsoid():
    park = geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[PARK], crs="EPSG:4326")
    rings = buffer_rings(park, [0, 1000, 5000, 10_000])
    assert len(rings) == 7
    border = np.asarray(shapely.segmentize(PARK.exterior, 0.0005).coords)
    for ring in rings.itertuples():
        limits = [abs(value) for value in (ring.from_m, ring.to_m) if np.isfinite(value)]
        for x, y in shapely.get_coordinates(ring.geometry)[::15]:
            many = np.full(len(border), x), np.full(len(border), y)
            metres = GEOD.inv(*many, border[:, 0], border[:, 1])[2].min()
            # the border is known every 55 m only
            off = min(abs(np.sqrt(max(metres**2 - 28**2, 0)) - limit) for limit in limits)
            assert off < 30 if min(limits, key=lambda v: abs(v - metres)) == 0 else off < 4
