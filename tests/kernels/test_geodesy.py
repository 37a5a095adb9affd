"""Areas on the ellipsoid against geographiclib (pyproj.Geod) and closed values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyproj
import pytest
import shapely

from geococa._kernels import geodesy
from tests.oracles_areas import polygonal, ring_area_geod_m2, star


def bands(latitudes, width):
    out = np.empty(len(latitudes) - 1)
    geodesy.parallel_band_areas(np.asarray(latitudes, float), width, out)
    return out


def lonlat_area(points):
    x, y = np.array([*points, points[0]], float).T.copy()
    out = np.empty(1)
    geodesy.lonlat_ring_areas(x, y, np.array([0, x.size]), out)
    return out[0]


def test_one_degree_cell_at_the_equator_has_its_golden_area():
    assert bands([0, 1], 1.0)[0] / 1e6 == pytest.approx(12308.464, abs=5e-4)


def test_all_bands_together_are_the_ellipsoid():
    a, f = geodesy.SEMI_MAJOR_M, geodesy.FLATTENING
    e = np.sqrt(f * (2 - f))
    surface = 2 * np.pi * a**2 * (1 + (1 - e**2) / e * np.arctanh(e))
    assert bands(np.linspace(-90, 90, 37), 360.0).sum() == pytest.approx(surface, rel=1e-14)


@pytest.mark.parametrize("latitude", [-60.0, -4.2, 0.0, 3.0, 12.5, 75.0])
@pytest.mark.parametrize("size", [1e-4, 0.01, 1.0, 8.0])
def test_band_equals_geodesics_along_densified_parallels(latitude, size):
    side = np.linspace(0, size, 4001)
    lon = np.r_[side, np.full(4001, size), side[::-1], np.zeros(4001)]
    lat = latitude + np.r_[np.zeros(4001), side, np.full(4001, size), side[::-1]]
    # Geod's own sums are good to some square centimetres
    expected = ring_area_geod_m2(lon, lat)
    assert bands([latitude, latitude + size], size)[0] == pytest.approx(expected, rel=2e-9, abs=0.05)


def test_small_cells_keep_their_digits():
    small = bands(3 + np.arange(1001) * 1e-7, 1e-7)
    assert small.sum() == pytest.approx(bands([3, 3.0001], 1e-7)[0], rel=1e-8)
    assert small.std() / small.mean() < 1e-6


def test_bands_are_positive_whichever_way_rows_run():
    assert bands([1, 0], -1.0)[0] == pytest.approx(bands([0, 1], 1.0)[0], rel=1e-14)


def test_box_between_parallels_equals_the_band():
    assert lonlat_area([(10, 40), (25, 40), (25, 47), (10, 47)]) == pytest.approx(bands([40, 47], 15.0)[0], rel=1e-13)


def test_ring_is_positive_counter_clockwise():
    points = [(-75, 1), (-74, 1), (-74, 2)]
    assert lonlat_area(points) == -lonlat_area(points[::-1]) > 0


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1.0])
def test_ring_equals_geodesics_on_densified_edges(scale):
    rng = np.random.default_rng(5)
    angle = np.sort(rng.uniform(0, 2 * np.pi, 15))
    points = np.c_[-72 + scale * np.cos(angle), 4 + scale * np.sin(angle)]
    closed = np.r_[points, points[:1]]
    steps = np.arange(2000) / 2000
    fine = np.concatenate([a + np.outer(steps, b - a) for a, b in pairwise(closed)])
    assert lonlat_area(points) == pytest.approx(ring_area_geod_m2(*fine.T), rel=1e-9, abs=0.05)


def test_splitting_an_edge_changes_nothing():
    points = [(-75.0, -2.0), (-70.0, 9.0), (-78.0, 6.0)]
    middles = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in zip(points, points[1:] + points[:1], strict=True)]
    more = [point for pair in zip(points, middles, strict=True) for point in pair]
    assert lonlat_area(more) == pytest.approx(lonlat_area(points), rel=1e-13)


def surface_area(x, y, series, scale=(1.0, 0, 1.0, 0), frame=(-np.inf, -np.inf, np.inf, np.inf)):
    out = np.empty(1)
    ends = np.array([0, len(x)])
    geodesy.surface_ring_areas(
        np.array(x, float), np.array(y, float), ends, series, np.array(scale), np.array(frame), out
    )
    return out[0]


def test_ring_on_a_plane_has_its_planar_area():
    # the density 3 integrated along u is 3u: coefficients of T0 and T1
    area = surface_area([0, 4, 4, 1, 0], [0, 0, 2, 2, 0], np.array([[0.0, 3.0]]), (0.1, -0.2, 0.25, -0.5))
    assert area / (0.1 * 0.25) == pytest.approx(3 * 7.0, rel=1e-14)


def test_ring_on_a_curved_density_equals_its_integral():
    # density u² v over the triangle (0,0) (1,0) (1,1): 1/10; along u it integrates to u³ v / 3
    series = np.zeros((2, 4))
    series[1, 1], series[1, 3] = 0.25, 1 / 12
    assert surface_area([0, 1, 1, 0], [0, 0, 1, 0], series) == pytest.approx(0.1, rel=1e-14)


@pytest.mark.parametrize("seed", range(20))
def test_a_frame_cuts_rings_like_an_intersection(seed):
    rng = np.random.default_rng(seed)
    shape = star(rng, 12, *rng.uniform(-1, 1, 2), 1.2)
    series = rng.normal(size=(4, 5))
    frame = (-0.5, -0.6, 0.7, 0.4)
    parts = shapely.orient_polygons(polygonal(shape.intersection(shapely.box(*frame)))).geoms
    expected = sum(surface_area(*np.array(part.exterior.coords).T, series) for part in parts)
    whole = shapely.orient_polygons(shape)
    assert surface_area(*np.array(whole.exterior.coords).T, series, frame=frame) == pytest.approx(
        expected, rel=1e-12, abs=1e-13
    )


def test_a_frame_beside_a_ring_leaves_nothing():
    series = np.array([[0.0, 3.0]])
    assert surface_area([0, 1, 1, 0], [0, 0, 1, 0], series, frame=(2.0, 0, 3, 1)) == pytest.approx(0, abs=1e-15)
    assert surface_area([0, 1, 1, 0], [0, 0, 1, 0], series, frame=(0.0, 2, 1, 3)) == 0


@pytest.mark.parametrize(
    ("code", "x_range"),
    [(32618, (166e3, 834e3)), (32718, (166e3, 834e3)), (9377, (4.2e6, 5.8e6)), (3116, (4e5, 1.9e6))],
)
def test_transverse_mercator_scale_equals_proj(code, x_range):
    from geococa.area_density import _tmerc_density, _tmerc_parameters

    crs = pyproj.CRS.from_epsg(code)
    rng = np.random.default_rng(code)
    x, y = rng.uniform(*x_range, 40), rng.uniform(3e5, 2.5e6, 40)
    lon, lat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x, y)
    factors = pyproj.Proj(crs).get_factors(lon, lat)
    density = _tmerc_density(x, y, _tmerc_parameters(crs.to_wkt()))
    # PROJ differentiates numerically
    np.testing.assert_allclose(density, 1 / factors.areal_scale, rtol=2e-8)


def test_transverse_mercator_scale_on_the_central_meridian():
    from geococa.area_density import _tmerc_density, _tmerc_parameters

    parameters = _tmerc_parameters(pyproj.CRS.from_epsg(32618).to_wkt())
    density = _tmerc_density(np.array([500000.0]), np.array([4e5]), parameters)
    assert density[0] == pytest.approx(1 / 0.9996**2, rel=1e-14)


def test_chebyshev_table_equals_numpy():
    rng = np.random.default_rng(0)
    series, u, v = rng.normal(size=(5, 7)), rng.uniform(-1, 1, 11), rng.uniform(-1, 1, 4)
    out = np.empty((4, 11))
    geodesy.chebyshev_table(series, u, v, out)
    np.testing.assert_allclose(out, np.polynomial.chebyshev.chebgrid2d(v, u, series), rtol=1e-13, atol=1e-13)
