"""Class areas and cell lists from strips, against plain sums over dense shares."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from geococa._kernels import zonal
from geococa._kernels.coverage import fill_dense, sweep
from geococa.polygons import rings_of
from tests.oracles_areas import class_areas_plain, polygonal, star

ROWS, COLUMNS = 12, 37


@pytest.fixture(scope="module")
def zones():
    rng = np.random.default_rng(2)
    shapes = [polygonal(star(rng, 14, x, 6, 9)) for x in (4, 15, 30)]
    shapes.append(shapely.box(0, 0, COLUMNS, ROWS))
    rings = rings_of(shapes)
    strips = sweep(rings.x, rings.y, rings.ring_offsets, rings.hole, rings.zone_rings, 0, 4, 0, ROWS, COLUMNS)
    dense = np.zeros((4, ROWS, COLUMNS))
    fill_dense(*strips[:8], 0, dense)
    return rings, strips[:8], dense


CODES = np.array([0, 1, 2], np.uint8)


def summed(strips, labels, pieces, step, chosen=None, row_start=0, out=None):
    out = np.zeros((labels.shape[0], 4, 4)) if out is None else out
    chosen = np.arange(strips[0].size) if chosen is None else chosen
    zonal.class_areas(chosen, *strips, labels, row_start, pieces, step, CODES, out)
    return out


def cell_ha_of(pieces, step):
    piece = np.minimum(np.arange(COLUMNS) // step, pieces.shape[1] - 1)
    place = np.arange(COLUMNS) - piece * step
    return pieces[:, piece, 0] + place * pieces[:, piece, 1] + place**2 * pieces[:, piece, 2]


@pytest.mark.parametrize("step", [1, 4, 16, 256])
def test_areas_equal_a_plain_sum_with_cell_areas_in_parabolas(zones, step):
    _, strips, dense = zones
    rng = np.random.default_rng(step)
    labels = rng.integers(0, 4, (2, ROWS, COLUMNS)).astype(np.uint8)
    pieces = rng.uniform(1, 2, (ROWS, -(-COLUMNS // step), 3)) * [1, 0.1, 0.01]
    expected = np.array([class_areas_plain(layer, dense, cell_ha_of(pieces, step), [0, 1, 2, 3]) for layer in labels])
    found = summed(strips, labels, pieces, step)
    np.testing.assert_allclose(found[:, :, :3], expected[:, :, :3], rtol=1e-12, atol=1e-12)
    assert (found[:, :, 3] > 0).all()


def test_codes_without_a_place_go_to_the_last_one(zones):
    _, strips, dense = zones
    labels = np.full((1, ROWS, COLUMNS), 200, np.uint8)
    found = summed(strips, labels, np.broadcast_to([2.0, 0, 0], (ROWS, 1, 3)).copy(), 256)
    np.testing.assert_allclose(found[0, :, 3], 2 * dense.sum(axis=(1, 2)), rtol=1e-13)
    assert not found[0, :, :3].any()


def test_one_constant_piece_holds_for_the_row(zones):
    _, strips, dense = zones
    labels = np.random.default_rng(0).integers(0, 4, (1, ROWS, COLUMNS)).astype(np.uint8)
    pieces = np.zeros((ROWS, 1, 3))
    pieces[:, 0, 0] = np.linspace(1, 2, ROWS)
    expected = class_areas_plain(labels[0], dense, pieces[:, :, 0], [0, 1, 2, 3])
    np.testing.assert_allclose(summed(strips, labels, pieces, 8)[0], expected, rtol=1e-13, atol=1e-13)


def test_long_spans_do_not_overflow_the_counters():
    columns = 100_000
    rings = rings_of([shapely.box(0, 0, columns, 1)])
    strips = sweep(rings.x, rings.y, rings.ring_offsets, rings.hole, rings.zone_rings, 0, 1, 0, 1, columns)[:8]
    out = np.zeros((1, 1, 4))
    labels, pieces = np.zeros((1, 1, columns), np.uint8), np.array([[[1.0, 0, 0]]])
    zonal.class_areas(np.arange(1), *strips, labels, 0, pieces, 256, CODES, out)
    assert out[0, 0].tolist() == [columns, 0, 0, 0]


@pytest.mark.parametrize("cut", [1, 5, 11])
def test_blocks_of_rows_give_the_same_bits(zones, cut):
    _, strips, _ = zones
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, (3, ROWS, COLUMNS)).astype(np.uint8)
    nodes = rng.uniform(1, 2, (ROWS, 10, 3))
    whole = summed(strips, labels, nodes, 4)
    out = np.zeros_like(whole)
    for first, last in ((0, cut), (cut, ROWS)):
        chosen = np.flatnonzero((strips[1] >= first) & (strips[1] < last))
        summed(strips, np.ascontiguousarray(labels[:, first:last]), nodes[first:last], 4, chosen, first, out)
    assert np.array_equal(whole, out)


def test_unknown_codes_are_found_in_spans_and_borders(zones):
    _, strips, dense = zones
    known = np.zeros(256, bool)
    known[1] = True
    chosen = np.flatnonzero(strips[0] == 0)
    for place in (np.argwhere(dense[0] == 1)[0], np.argwhere((dense[0] > 0) & (dense[0] < 1))[0]):
        labels = np.ones((1, ROWS, COLUMNS), np.uint8)
        labels[0, place[0], place[1]] = 9
        found = np.array([-1])
        zonal.unknown_label(chosen, strips[1], *strips[2:7], labels, 0, known, found)
        assert found[0] == 9


def test_unknown_codes_outside_zones_do_not_matter(zones):
    _, strips, dense = zones
    labels = np.where(dense[0] > 0, 1, 9).astype(np.uint8)[None]
    known = np.zeros(256, bool)
    known[1] = True
    found = np.array([-1])
    zonal.unknown_label(np.flatnonzero(strips[0] == 0), strips[1], *strips[2:7], labels, 0, known, found)
    assert found[0] == -1


def test_expanded_cells_equal_the_dense_shares(zones):
    _, strips, dense = zones
    chosen = np.flatnonzero(strips[0] == 1)
    count = int((dense[1] > 0).sum())
    rows, columns, shares = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count)
    zonal.expand_strips(chosen, *strips[1:], 0, rows, columns, shares)
    again = np.zeros((ROWS, COLUMNS))
    again[rows, columns] = shares
    assert np.array_equal(again, dense[1])


def test_centre_cells_are_those_whose_centre_lies_inside(zones):
    rings, _, _ = zones
    shapes = rings.geometries()
    down, across = np.mgrid[0:ROWS, 0:COLUMNS] + 0.5
    for zone, shape in enumerate(shapes):
        out = np.zeros((ROWS, COLUMNS), np.int8)
        zonal.centre_cells(
            rings.x, rings.y, rings.ring_offsets, rings.zone_rings[zone : zone + 2], 0, ROWS, COLUMNS, out
        )
        assert np.array_equal(out == 1, shapely.contains_xy(shape, across, down))


def test_a_centre_on_a_shared_edge_belongs_to_one_of_the_two():
    rings = rings_of(
        [shapely.box(0, 0, 2.5, 4), shapely.box(2.5, 0, 5, 4), shapely.box(0, 4, 5, 6.5), shapely.box(0, 6.5, 5, 8)]
    )
    total = np.zeros((8, 5), int)
    for zone in range(4):
        out = np.zeros((8, 5), np.int8)
        zonal.centre_cells(rings.x, rings.y, rings.ring_offsets, rings.zone_rings[zone : zone + 2], 0, 8, 5, out)
        total += out
    assert (total == 1).all()


def test_centre_cells_can_be_asked_for_some_rows():
    rings = rings_of([shapely.box(-3, -3, 20, 20)])
    out = np.zeros((2, 4), np.int8)
    zonal.centre_cells(rings.x, rings.y, rings.ring_offsets, rings.zone_rings, 5, 7, 4, out)
    assert out.all()
