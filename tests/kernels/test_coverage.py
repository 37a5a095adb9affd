"""The coverage sweep against polygon intersections, and its invariances."""

from __future__ import annotations

from itertools import pairwise

import numba
import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geococa._kernels.coverage import fill_dense, ring_areas, sweep
from geococa.polygons import rings_of
from tests.oracles_areas import polygonal, shares_by_intersection, star

PLAIN = numba.config.DISABLE_JIT
PAIRS = 60 if PLAIN else 500


def strips_of(shapes, rows, columns, row_start=0, row_stop=None):
    rings = rings_of(shapes)
    stop = rows if row_stop is None else row_stop
    arrays = (rings.x, rings.y, rings.ring_offsets, rings.hole, rings.zone_rings)
    return sweep(*arrays, 0, len(rings), row_start, stop, columns)


def shares_of(shape, rows, columns):
    shapes = [shape] if isinstance(shape, shapely.Geometry) else shape
    result = strips_of(shapes, rows, columns)
    assert result[8] == -1
    out = np.zeros((len(shapes), rows, columns))
    fill_dense(*result[:8], 0, out)
    return out[0] if isinstance(shape, shapely.Geometry) else out


def random_shape(rng, rows, columns):
    shape = star(
        rng, rng.integers(3, 40), rng.uniform(-3, columns + 3), rng.uniform(-3, rows + 3), rng.uniform(0.05, 10)
    )
    kind = rng.integers(0, 6)
    middle = shape.centroid
    if kind == 0:
        shape = shape.difference(star(rng, 8, middle.x, middle.y, 1.5))
    elif kind == 1:
        shape = shape.union(star(rng, 8, middle.x + 5, middle.y - 2, 2.0))
    elif kind == 2:
        shape = shapely.make_valid(shapely.set_precision(shape, 1.0))
    elif kind == 3:
        shape = shape.difference(shapely.box(middle.x - 0.5, middle.y - 20, middle.x + 0.25, middle.y + 20))
    return polygonal(shape)


def test_shares_equal_polygon_intersections_on_random_pairs():
    worst = 0.0
    for seed in range(PAIRS):
        rng = np.random.default_rng(seed)
        rows, columns = rng.integers(1, 14, 2)
        shape = random_shape(rng, rows, columns)
        difference = np.abs(shares_of(shape, rows, columns) - shares_by_intersection(shape, rows, columns))
        worst = max(worst, float(difference.max()))
    assert worst < 1e-11


DEGENERATE = {
    "whole raster": shapely.box(0, 0, 6, 5),
    "beyond all sides": shapely.box(-10, -10, 20, 20),
    "along grid lines": shapely.box(1, 2, 4, 4),
    "row cut by an edge along it": shapely.box(-1, 1.25, 9, 1.75),
    "inside one cell": shapely.box(2.2, 3.1, 2.3, 3.9),
    "sliver": shapely.Polygon([(0, 0), (6, 1e-7), (6, 0)]),
    "thin needle": shapely.Polygon([(0.5, 0), (0.5 + 1e-9, 5), (0.5 - 1e-9, 5)]),
    "corner to corner": shapely.Polygon([(0, 0), (6, 5), (6, 0)]),
    "hole that fills a cell": shapely.box(0, 0, 5, 5).difference(shapely.box(2, 2, 3, 3)),
    "hole touching the shell": shapely.Polygon([(0, 0), (5, 0), (5, 5), (0, 5)], [[(0, 2), (2, 1), (2, 3)]]),
    "parts touching at a point": shapely.MultiPolygon([shapely.box(0, 0, 2, 2), shapely.box(2, 2, 4, 4)]),
    "left of the raster": shapely.box(-5, 1, -1, 3),
    "right of the raster": shapely.box(7, 1, 9, 3),
    "above the raster": shapely.box(1, -4, 3, -1),
    "below the raster": shapely.box(1, 6, 3, 9),
    "half left of the raster": shapely.Polygon([(-4, 1), (3, 0), (3, 4), (-4, 3)]),
    "half right of the raster": shapely.Polygon([(10, 1), (3, 0), (3, 4), (10, 3)]),
    "repeated vertices": shapely.Polygon([(1, 1), (1, 1), (4, 1), (4, 1), (4, 4), (1, 4), (1, 4)]),
    "vertices on grid corners": shapely.Polygon([(1, 0), (3, 2), (5, 0), (5, 4), (3, 2), (1, 4)]).buffer(0),
    "flat edge above a cell border": shapely.box(0.5, 1 - 1e-15, 3.5, 2 + 1e-15),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_polygon_equals_polygon_intersections(name):
    shape = polygonal(DEGENERATE[name])
    np.testing.assert_allclose(shares_of(shape, 5, 6), shares_by_intersection(shape, 5, 6), rtol=0, atol=1e-11)


def test_cells_inside_are_spans_and_only_the_border_is_listed():
    _, _, span_offsets, start, stop, cell_offsets, column, share, _ = strips_of([shapely.box(0.5, 0, 9, 1)], 1, 10)
    assert (start.tolist(), stop.tolist()) == ([1], [9])
    assert (column.tolist(), share.tolist()) == ([0], [0.5])
    assert (span_offsets.tolist(), cell_offsets.tolist()) == ([0, 1], [0, 1])


def test_edges_on_grid_lines_leave_no_border_cells():
    result = strips_of([shapely.box(1, 2, 4, 4).difference(shapely.box(2, 2, 3, 3))], 6, 6)
    assert result[6].size == 0


def test_strips_come_in_order_of_zone_and_row():
    zone, row = strips_of([shapely.box(0, 3, 2, 6), shapely.box(0, 0, 2, 4)], 8, 4)[:2]
    assert list(zip(zone, row, strict=True)) == [(0, 3), (0, 4), (0, 5), (1, 0), (1, 1), (1, 2), (1, 3)]


def test_ring_orientation_does_not_matter():
    shape = shapely.box(0.3, 0.4, 5.2, 4.9).difference(shapely.box(1.1, 1.2, 3.3, 2.9))
    turned = shapely.Polygon(list(shape.exterior.coords)[::-1], [list(ring.coords) for ring in shape.interiors])
    assert np.array_equal(shares_of(shape, 5, 6), shares_of(turned, 5, 6))


@pytest.mark.parametrize("cuts", [[0, 20], [0, 1, 20], [0, 7, 8, 13, 20]])
def test_row_limits_only_leave_rows_out(cuts):
    rng = np.random.default_rng(3)
    shapes = [polygonal(star(rng, 30, 10, 10, 12)) for _ in range(3)]
    whole = np.zeros((3, 20, 20))
    fill_dense(*strips_of(shapes, 20, 20)[:8], 0, whole)
    parts = np.zeros_like(whole)
    for first, last in pairwise(cuts):
        fill_dense(*strips_of(shapes, 20, 20, first, last)[:8], 0, parts)
    assert np.array_equal(whole, parts)


def test_a_polygon_that_overlaps_itself_is_reported():
    bow_tie = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])
    twice = shapely.MultiPolygon([shapely.box(0, 0, 3, 3), shapely.box(1, 1, 4, 4)])
    assert strips_of([shapely.box(0, 0, 1, 1), bow_tie], 5, 5)[8] == 1
    assert strips_of([twice], 5, 5)[8] == 0


def test_far_vertices_do_not_overflow():
    shape = shapely.box(-1e18, 0.5, 1e18, 2)
    np.testing.assert_allclose(shares_of(shape, 3, 4), [[0.5] * 4, [1.0] * 4, [0.0] * 4])


def test_a_row_with_many_border_cells_is_sorted():
    teeth = [(column + side, 0.2 if side else 0.8) for column in range(200) for side in (0.0, 0.5)]
    rng = np.random.default_rng(0)
    comb = shapely.Polygon([*teeth, (200, 1.5), (0, 1.5)])
    parts = [shapely.box(column + 0.1, 2.1, column + 0.6, 2.9) for column in rng.permutation(200)]
    shape = shapely.MultiPolygon([comb, *parts])
    np.testing.assert_allclose(shares_of(shape, 3, 200), shares_by_intersection(shape, 3, 200), atol=1e-12)


def test_ring_areas_are_signed():
    x, y = np.array([0.0, 2, 2, 0, 0, 0, 0, 1, 0]), np.array([0.0, 0, 1, 1, 0, 0, 1, 0, 0])
    out = np.empty(2)
    ring_areas(x, y, np.array([0, 5, 9]), out)
    assert out.tolist() == [2.0, -0.5]


def test_dense_leaves_out_rows_beyond_the_window():
    result = strips_of([shapely.box(0, 0, 2, 6)], 6, 2)
    out = np.zeros((1, 2, 2))
    fill_dense(*result[:8], 3, out)
    assert np.array_equal(out, np.ones((1, 2, 2)))


# Invariances -----------------------------------------------------------------------------------------------------------

SIZE = 9
seeds = st.integers(0, 10**9)
few = settings(max_examples=15 if PLAIN else 60, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(seeds, st.integers(-4, 4), st.integers(-4, 4))
def test_a_shift_by_whole_cells_shifts_the_shares(seed, right, down):
    rng = np.random.default_rng(seed)
    shape = star(rng, 12, SIZE / 2, SIZE / 2, 4.0)
    moved = shapely.transform(shape, lambda points: points + np.array([right + 10, down + 10]))
    whole = shares_of(moved, SIZE + 20, SIZE + 20)
    here = whole[10 + down : 10 + down + SIZE, 10 + right : 10 + right + SIZE]
    np.testing.assert_allclose(here, shares_of(shape, SIZE, SIZE), rtol=0, atol=1e-13)


@few
@given(seeds)
def test_flips_and_transposition_move_the_shares_along(seed):
    shape = polygonal(random_shape(np.random.default_rng(seed), SIZE, SIZE))
    shares = shares_of(shape, SIZE, SIZE)
    mirrored = shapely.transform(shape, lambda points: np.c_[SIZE - points[:, 0], points[:, 1]])
    flipped = shapely.transform(shape, lambda points: np.c_[points[:, 0], SIZE - points[:, 1]])
    turned = shapely.transform(shape, lambda points: points[:, ::-1])
    for other, expected in ((mirrored, shares[:, ::-1]), (flipped, shares[::-1]), (turned, shares.T)):
        np.testing.assert_allclose(shares_of(other, SIZE, SIZE), expected, rtol=0, atol=1e-12)


@few
@given(seeds, st.floats(-3, 12), st.floats(-3, 12), st.floats(0, np.pi))
def test_the_parts_of_a_cut_polygon_add_up_to_it(seed, x, y, angle):
    shape = polygonal(random_shape(np.random.default_rng(seed), SIZE, SIZE))
    across, along = np.array([np.cos(angle), np.sin(angle)]) * 100, np.array([-np.sin(angle), np.cos(angle)]) * 100
    middle = np.array([x, y])
    half = shapely.Polygon([middle - along, middle + along, middle + along + across, middle - along + across])
    parts = [polygonal(shape.intersection(half)), polygonal(shape.difference(half))]
    together, whole = shares_of(parts, SIZE, SIZE).sum(axis=0), shares_of(shape, SIZE, SIZE)
    np.testing.assert_allclose(together, whole, rtol=0, atol=1e-12)
    # coordinates of the cut are rounded: 1e-15 cells along edges of some cells
    assert together.sum() == pytest.approx(whole.sum(), rel=1e-12, abs=1e-13)


@few
@given(seeds)
def test_a_triangulation_shares_every_cell_out_completely(seed):
    rng = np.random.default_rng(seed)
    points = shapely.multipoints(np.r_[rng.uniform(0, SIZE, (12, 2)), [[0, 0], [SIZE, 0], [0, SIZE], [SIZE, SIZE]]])
    triangles = list(shapely.get_parts(shapely.delaunay_triangles(points)))
    np.testing.assert_allclose(shares_of(triangles, SIZE, SIZE).sum(axis=0), 1.0, rtol=0, atol=1e-12)


@few
@given(seeds)
def test_the_sum_of_shares_is_the_area(seed):
    shape = star(np.random.default_rng(seed), 25, 10, 10, 9.5)
    assert shares_of(shape, 20, 20).sum() == pytest.approx(shape.area, rel=1e-12)


@few
@given(seeds)
def test_more_vertices_on_the_same_edges_change_nothing(seed):
    shape = star(np.random.default_rng(seed), 10, 4, 4, 5)
    dense = shapely.segmentize(shape, 0.01)
    np.testing.assert_allclose(shares_of(dense, SIZE, SIZE), shares_of(shape, SIZE, SIZE), rtol=0, atol=1e-12)
