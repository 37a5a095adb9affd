from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from geococa.grid import Grid
from geococa.segments import CellWeights, Segments


def random_map(rng):
    shape = rng.integers(1, 25, size=2)
    if rng.random() < 0.1:
        # a single row, a single column or a single cell
        shape[rng.integers(2)] = 1
    classes = rng.integers(1, 5)
    codes = rng.integers(0, classes, size=shape).astype(np.uint8)
    if rng.random() < 0.5:
        # patches of several cells, not just salt
        codes = np.kron(codes, np.ones(rng.integers(1, 4, size=2), dtype=np.uint8))
    codes[rng.random(codes.shape) < rng.choice([0.0, 0.08, 0.5])] = 255
    return np.ascontiguousarray(codes)


def numbers(codes, connectivity, **options):
    segments = Segments(lambda a, b: codes[a:b], codes.shape, CellWeights(), connectivity=connectivity, **options)
    return segments, segments.numbers()


def check_against_scipy(seed, connectivity):
    rng = np.random.default_rng(seed)
    codes = random_map(rng)
    options = {"strip_rows": int(rng.integers(1, 30)), "keep": bool(rng.random() < 0.5)}
    segments, number = numbers(codes, connectivity, **options)
    structure = np.ones((3, 3)) if connectivity == 8 else None
    total = 0
    for code in np.unique(codes):
        here = codes == code
        expected, count = scipy.ndimage.label(here, structure=structure)
        total += count
        # the same partition: as many pairs of numbers as there are numbers on either side
        pairs = np.unique(expected[here] * np.int64(codes.size + 1) + number[here])
        assert pairs.size == count == np.unique(number[here]).size, (seed, connectivity)
    assert segments.sizes.size == total
    np.testing.assert_array_equal(segments.sizes, np.bincount(number.ravel(), minlength=total))
    assert (segments.codes[number] == codes).all()


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_equal_scipys_on_1000_random_maps(connectivity):
    for seed in range(1000):
        check_against_scipy(seed, connectivity)


def test_painting_gives_each_cell_the_value_of_its_component():
    rng = np.random.default_rng(5)
    codes = random_codes_of_patches(rng)
    segments, number = numbers(codes, 8, strip_rows=7, threads=2)
    values = rng.random(segments.sizes.size)
    painted = np.concatenate([rows for _, rows in segments.paint(values)])
    np.testing.assert_array_equal(painted, values[number])


@pytest.mark.parametrize("keep", [True, False])
def test_repainting_gives_each_cell_the_new_code_of_its_component(keep):
    rng = np.random.default_rng(6)
    codes = random_codes_of_patches(rng)
    before = codes.copy()
    segments, number = numbers(codes, 8, strip_rows=7, keep=keep)
    new = rng.integers(0, 4, segments.sizes.size).astype(np.uint8)
    out = np.full_like(codes, 99)
    assert [start for start, _ in segments.repaint(new, out)] == list(range(0, codes.shape[0], 7))
    np.testing.assert_array_equal(out, new[number])
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in segments.repaint(new)]), out)
    np.testing.assert_array_equal(codes, before)


def random_codes_of_patches(rng):
    codes = np.kron(rng.integers(0, 4, size=(13, 11)).astype(np.uint8), np.ones((3, 2), dtype=np.uint8))
    codes[rng.random(codes.shape) < 0.1] = 7
    return codes


@pytest.mark.parametrize("connectivity", [4, 8])
def test_numbers_follow_the_first_cells_whatever_the_strips_and_threads(connectivity):
    rng = np.random.default_rng(7)
    codes = rng.integers(0, 2, size=(60, 40)).astype(np.uint8)
    _, whole = numbers(codes, connectivity, strip_rows=1000)
    firsts = [np.flatnonzero(whole.ravel() == i)[0] for i in range(whole.max() + 1)]
    assert firsts == sorted(firsts)
    for options in ({"strip_rows": 1}, {"strip_rows": 7, "keep": False}, {"strip_rows": 7, "threads": 3}):
        np.testing.assert_array_equal(numbers(codes, connectivity, **options)[1], whole)


def test_a_spiral_through_every_seam_is_one_component():
    codes = np.zeros((41, 41), dtype=np.uint8)
    y, x, dy, dx = 0, 0, 0, 1
    codes[0, 0] = 1
    for length in [40, 40, 40, *[n for n in range(38, 0, -2) for _ in range(2)]]:
        for _ in range(length):
            y, x = y + dy, x + dx
            codes[y, x] = 1
        dy, dx = dx, -dy
    segments, _ = numbers(codes, 4, strip_rows=3)
    assert (segments.codes == 1).sum() == 1


def test_empty_map_has_no_component():
    segments, _ = numbers(np.zeros((1, 0), dtype=np.uint8), 8)
    assert segments.sizes.size == 0


def test_sizes_are_sums_of_cell_weights():
    class Weights(CellWeights):
        def rows(self, start, stop):
            weights = np.arange(start * 7, stop * 7, dtype=np.int64).reshape(-1, 7)
            sums = np.concatenate([np.zeros((stop - start, 1), np.int64), np.cumsum(weights, axis=1)], axis=1)
            return np.pad(weights, ((0, 0), (0, 1))), sums, 1

    rng = np.random.default_rng(3)
    codes = rng.integers(0, 3, size=(9, 7)).astype(np.uint8)
    segments = Segments(lambda a, b: codes[a:b], codes.shape, Weights(), connectivity=8, strip_rows=4)
    number = segments.numbers()
    expected = np.bincount(number.ravel(), weights=np.arange(63))
    np.testing.assert_array_equal(segments.sizes, expected.astype(int))


@pytest.mark.parametrize("crs", ["EPSG:32618", "EPSG:3116", "EPSG:4326"])
def test_weights_are_the_cell_areas_of_the_grid(crs):
    cell, left, top = (0.001, -73.0, 8.0) if crs == "EPSG:4326" else (300.0, 800_000.0, 900_000.0)
    grid = Grid(crs, (cell, 0, left, 0, -cell, top), (30, 601))
    codes = np.tile(np.arange(601) // 7 % 200, (30, 1)).astype(np.uint8)
    weights = CellWeights(grid)
    segments = Segments(lambda a, b: codes[a:b], codes.shape, weights, connectivity=4, strip_rows=11)
    number = segments.numbers()
    area = np.broadcast_to(grid.cell_area_ha(), grid.shape)
    np.testing.assert_allclose(segments.sizes / weights.per_ha, np.bincount(number.ravel(), area.ravel()), rtol=1e-9)
