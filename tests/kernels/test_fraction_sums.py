"""Hectares from fractions: strips against plain sums over dense shares."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from geococa._kernels import fraction_sums
from geococa._kernels.coverage import fill_dense, sweep
from geococa.polygons import rings_of
from tests.oracles_areas import polygonal, star

ROWS, COLUMNS, CLASSES = 12, 37, 3


@pytest.fixture(scope="module")
def zones():
    rng = np.random.default_rng(2)
    shapes = [polygonal(star(rng, 14, x, 6, 9)) for x in (4, 15, 30)]
    shapes.append(shapely.box(0, 0, COLUMNS, ROWS))
    rings = rings_of(shapes)
    strips = sweep(rings.x, rings.y, rings.ring_offsets, rings.hole, rings.zone_rings, 0, 4, 0, ROWS, COLUMNS)[:8]
    dense = np.zeros((4, ROWS, COLUMNS))
    fill_dense(*strips, 0, dense)
    return strips, dense


def maps(seed=0, missing=0.2, dtype=np.float32):
    rng = np.random.default_rng(seed)
    values = np.moveaxis(rng.dirichlet(np.full(CLASSES, 0.3), (2, ROWS, COLUMNS)), -1, 1).astype(dtype)
    gone = rng.random((2, ROWS, COLUMNS)) < missing
    values[:, 1][gone] = np.nan
    return values, gone


def summed(strips, values, pieces, step, chosen=None, row_start=0, out=None):
    out = np.zeros((2, 4, CLASSES + 1)) if out is None else out
    wrong = np.full((4, 3), -1)
    chosen = np.arange(strips[0].size) if chosen is None else chosen
    fraction_sums.fraction_areas(chosen, *strips, values, row_start, pieces, step, wrong, out)
    return out, wrong


def plain(values, gone, dense, cell_ha):
    values = values.astype(np.float64)
    share = np.where(gone[:, None], 0, values / values.sum(axis=1, keepdims=True))
    classes = np.einsum("tkrc,zrc,rc->tzk", share, dense, cell_ha)
    return np.concatenate([classes, np.einsum("trc,zrc,rc->tz", gone, dense, cell_ha)[..., None]], axis=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("step", [1, 4, 16, 256])
def test_areas_equal_a_plain_sum_with_cell_areas_in_parabolas(zones, step, dtype):
    strips, dense = zones
    values, gone = maps(step, dtype=dtype)
    pieces = np.random.default_rng(step).uniform(1, 2, (ROWS, -(-COLUMNS // step), 3)) * [1, 0.1, 0.01]
    piece = np.minimum(np.arange(COLUMNS) // step, pieces.shape[1] - 1)
    place = np.arange(COLUMNS) - piece * step
    cell_ha = pieces[:, piece, 0] + place * pieces[:, piece, 1] + place**2 * pieces[:, piece, 2]
    found, wrong = summed(strips, values, pieces, step)
    np.testing.assert_allclose(found, plain(values, gone, dense, cell_ha), rtol=1e-12, atol=1e-12)
    assert (wrong == -1).all()


def test_classes_and_gaps_add_up_to_the_cells(zones):
    strips, dense = zones
    values, _ = maps(3)
    found, _ = summed(strips, values, np.broadcast_to([2.0, 0, 0], (ROWS, 1, 3)).copy(), 256)
    np.testing.assert_allclose(found.sum(axis=2), np.tile(2 * dense.sum(axis=(1, 2)), (2, 1)), rtol=1e-13)


def test_blocks_of_rows_give_the_same_bytes(zones):
    strips, _ = zones
    values, _ = maps(4)
    pieces = np.random.default_rng(4).uniform(1, 2, (ROWS, 3, 3)) * [1, 0.1, 0.01]
    whole, _ = summed(strips, values, pieces, 16)
    cut = np.zeros_like(whole)
    for start, stop in ((0, 5), (5, 6), (6, ROWS)):
        chosen = np.flatnonzero((strips[1] >= start) & (strips[1] < stop))
        part = np.ascontiguousarray(values[:, :, start:stop])
        summed(strips, part, pieces[start:stop].copy(), 16, chosen, start, cut)
    assert cut.tobytes() == whole.tobytes()


@pytest.mark.parametrize("bad", [[0.7, 0.5, 0.2], [1.2, -0.2, 0.0], [0.0, 0.0, 0.0], [np.inf, 0.0, 0.0]])
def test_a_cell_whose_fractions_are_no_shares_is_pointed_out(zones, bad):
    strips, _ = zones
    values, _ = maps(5, missing=0)
    values[1, :, 7, 20] = bad
    with np.errstate(all="ignore"):
        _, wrong = summed(strips, values, np.broadcast_to([1.0, 0, 0], (ROWS, 1, 3)).copy(), 256)
    assert wrong[3].tolist() == [1, 7, 20]
