from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import scipy.spatial
import shapely
import xarray as xr

from geococa.areas import zonal_area
from geococa.change import (
    associated_forest_loss,
    concentration,
    density_grid,
    enclaves,
    new_and_abandoned,
    persistence,
    sustained_change,
    transitions,
)
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import Legend, as_land_cover
from geococa.zones import coverage_fraction

CLASSES = ["coca", "forest", "pasture"]


def grid_of(rows, columns, cell=10.0):
    return Grid("EPSG:32618", (cell, 0, 500_000, 0, -cell, 300_000), (rows, columns))


def land_cover_of(codes, cell=10.0, first_year=2015, classes=CLASSES):
    codes = np.asarray(codes, dtype=np.uint8)
    times = pd.to_datetime([f"{first_year + i}-12-31" for i in range(len(codes))])
    array = xr.DataArray(codes, dims=("time", "y", "x"), coords={"time": times}, attrs={"nodata": 255})
    return as_land_cover(grid_of(*codes.shape[1:], cell).attach(array), classes)


def parks(grid):
    left, bottom, right, top = grid.bounds
    width, height = right - left, top - bottom
    shapes = [
        shapely.box(left + 0.13 * width, bottom + 0.21 * height, left + 0.61 * width, bottom + 0.87 * height),
        shapely.Point(left + 0.7 * width, bottom + 0.4 * height).buffer(0.27 * width),
        shapely.box(right - 0.2 * width, bottom, right + 0.3 * width, bottom + 0.3 * height),
    ]
    return geopandas.GeoDataFrame({"zone": ["box", "disc", "beyond"]}, geometry=shapes, crs=grid.crs)


def everywhere(grid):
    return geopandas.GeoDataFrame({"zone": ["all"]}, geometry=[shapely.box(*grid.bounds)], crs=grid.crs)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    codes = rng.choice(np.array([1, 2, 3, 255], np.uint8), size=(6, 30, 40), p=[0.2, 0.4, 0.3, 0.1])
    land_cover = land_cover_of(codes)
    return land_cover, coverage_fraction(parks(grid_of(30, 40)), grid_of(30, 40))


# --- transitions ---------------------------------------------------------------------------------------------


def test_transitions_equal_plain_sums_over_exact_shares(scene):
    land_cover, share = scene
    out = transitions(land_cover, share)
    codes = land_cover.values
    weights = share.dense().values * np.broadcast_to(share.grid.cell_area_ha(), share.grid.shape)
    for zone in range(3):
        factor = share.inside_ha[zone] / weights[zone].sum()
        for t in range(5):
            for a in (1, 2, 3):
                for b in (1, 2, 3):
                    expected = factor * weights[zone][(codes[t] == a) & (codes[t + 1] == b)].sum()
                    assert float(out.area_ha[t, zone, a - 1, b - 1]) == pytest.approx(expected, rel=1e-9)


def test_transitions_unobserved_and_outside_close_on_the_zone(scene):
    land_cover, share = scene
    out = transitions(land_cover, share)
    whole = out.area_ha.sum(["from_class", "to_class"]) + out.unobserved_ha + out.outside_ha
    np.testing.assert_allclose(whole, np.broadcast_to(out.zone_ha, whole.shape), rtol=1e-9)


def test_changed_hectares_are_sustained_flicker_or_undecided(scene):
    out = transitions(*scene)
    off_diagonal = out.area_ha.sum(["from_class", "to_class"]) - sum(
        out.area_ha.sel(from_class=c, to_class=c) for c in CLASSES
    )
    np.testing.assert_allclose(out.changed_ha, off_diagonal, rtol=1e-9)
    parts = out.sustained_ha.sum(["from_class", "to_class"]) + out.flicker_ha + out.undecided_ha
    np.testing.assert_allclose(parts, out.changed_ha, rtol=1e-9, atol=1e-9)


def test_stable_hectares_agree_with_zonal_area_where_all_is_observed():
    rng = np.random.default_rng(1)
    codes = rng.integers(1, 4, size=(3, 30, 40))
    grid = grid_of(30, 40)
    share = coverage_fraction(parks(grid), grid)
    land_cover = land_cover_of(codes)
    out, areas = transitions(land_cover, share), zonal_area(land_cover, share)
    np.testing.assert_allclose(out.area_ha.sum("to_class"), areas.area_ha.values[:-1], rtol=1e-9)
    np.testing.assert_allclose(out.area_ha.sum("from_class"), areas.area_ha.values[1:], rtol=1e-9)


def one_pixel(series):
    codes = np.array(series, dtype=np.uint8).reshape(-1, 1, 1)
    grid = grid_of(1, 1, 100.0)
    out = transitions(land_cover_of(codes, 100.0), coverage_fraction(everywhere(grid), grid))
    return out.isel(zone=0)


def test_a_change_with_two_years_on_both_sides_is_sustained():
    out = one_pixel([2, 2, 1, 1])
    assert out.sustained_ha.sel(from_class="forest", to_class="coca").values.round(2).tolist() == [0.0, 1.0, 0.0]
    assert float(out.flicker_ha.sum()) == 0.0


def test_a_blink_is_flicker():
    out = one_pixel([2, 2, 2, 1, 2, 2, 2])
    assert float(out.sustained_ha.where(out.from_class != out.to_class).sum()) == 0.0
    assert out.flicker_ha.values.round(2).tolist() == [0, 0, 1.0, 1.0, 0, 0]
    assert out.flicker_share.values[2:4].tolist() == [1.0, 1.0]


def test_a_change_beside_an_unobserved_year_or_the_end_is_undecided():
    assert one_pixel([255, 2, 1, 1]).undecided_ha.values.round(2).tolist() == [0, 1.0, 0]
    assert one_pixel([2, 2, 2, 1]).undecided_ha.values.round(2).tolist() == [0, 0, 1.0]


def test_an_unobserved_pixel_is_never_a_change():
    out = one_pixel([1, 255, 2, 255])
    assert float(out.area_ha.sum()) == 0.0
    assert out.unobserved_ha.values.round(2).tolist() == [1.0, 1.0, 1.0]
    assert float(out.observed_years) == 2.0


def test_observations_are_those_of_the_scarcer_year(scene):
    land_cover, share = scene
    counts = xr.full_like(land_cover, 5, dtype=np.uint16)
    counts[2] = 3
    out = transitions(land_cover, share, observations=counts)
    np.testing.assert_allclose(out.observations.isel(zone=0), [5, 3, 3, 5, 5])


def test_transitions_refuse_a_single_year(scene):
    land_cover, share = scene
    with pytest.raises(InputRefused, match="two times"):
        transitions(land_cover.isel(time=[0]), share)


def test_dask_gives_the_same_hectares(scene):
    pytest.importorskip("dask")
    land_cover, share = scene
    lazy = land_cover.chunk({"time": 1, "y": 7, "x": 11})
    xr.testing.assert_identical(transitions(lazy, share), transitions(land_cover, share))
    xr.testing.assert_identical(persistence(lazy).compute(), persistence(land_cover))


# --- new and abandoned, persistence --------------------------------------------------------------------------


def test_new_stable_lost_and_replanted():
    codes = np.array([[2, 1, 1, 1, 2, 255], [1, 1, 2, 2, 2, 1], [1, 1, 1, 2, 255, 1]], np.uint8).reshape(3, 1, 6)
    grid = grid_of(1, 6, 100.0)
    table = new_and_abandoned(land_cover_of(codes, 100.0), coverage_fraction(everywhere(grid), grid)).round(2)
    assert table.year.tolist() == [2016, 2017]
    assert table[["stable_ha", "new_ha", "replanted_ha", "lost_ha", "unobserved_ha"]].values.tolist() == [
        [1.0, 1.0, 0.0, 2.0, 1.0],
        [3.0, 0.0, 1.0, 0.0, 1.0],
    ]
    assert table.net_share.tolist() == pytest.approx([-1 / 3, 1 / 3], abs=0.01)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([1] * 10, "permanent"),
        ([1, 1, 1, 2, 1, 1, 1, 2, 2, 1], "permanent"),
        ([1, 2, 2, 1, 2, 2, 1, 2, 1, 2], "intermittent"),
        ([2] * 8 + [1, 1], "new"),
        ([1] * 7 + [2] * 3, "abandoned"),
        ([1] * 7 + [2, 255, 2], "abandoned"),
        ([1] * 7 + [255, 255, 2], "permanent"),
        ([2, 2, 1, 2, 2, 2, 2, 1, 2, 2], "occasional"),
        ([2] * 10, "absent"),
        ([255] * 8 + [1, 1], None),
    ],
)
def test_permanence_follows_its_rule(series, expected):
    out = persistence(land_cover_of(np.array(series).reshape(-1, 1, 1)))
    code = int(out.squeeze())
    assert code == 255 if expected is None else Legend.from_attrs(out.attrs).code(expected) == code


def test_permanence_is_a_map_whose_hectares_zonal_area_gives(scene):
    land_cover, share = scene
    areas = zonal_area(persistence(land_cover), share)
    assert "permanent" in areas.land_cover.values
    np.testing.assert_allclose(
        areas.area_ha.sum("land_cover") + areas.unobserved_ha + areas.outside_ha, areas.zone_ha, rtol=1e-9
    )


def test_only_the_last_years_count():
    series = [1] * 6 + [2] * 10
    assert int(persistence(land_cover_of(np.array(series).reshape(-1, 1, 1))).squeeze()) == 6


# --- sustained change ----------------------------------------------------------------------------------------


def flickering(change_rate, flip_rate, seed, years=7, side=320, missing=0.0):
    """Series with a constant rate of true change that lasts, and labels that flip at random."""
    rng = np.random.default_rng(seed)
    truth = np.empty((years, side, side), dtype=bool)
    truth[0] = rng.random((side, side)) < 0.3
    changed = np.zeros((side, side), dtype=bool)
    for t in range(1, years):
        now = (rng.random((side, side)) < change_rate / (1 - changed.mean())) & ~changed
        changed |= now
        truth[t] = truth[t - 1] ^ now
    labels = truth ^ (rng.random(truth.shape) < flip_rate)
    codes = np.where(labels, 1, 2).astype(np.uint8)
    codes[rng.random(codes.shape) < missing] = 255
    return truth, codes


@pytest.mark.parametrize("change_rate", [0.015, 0.0025])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_sustained_change_is_told_from_flicker(change_rate, missing):
    truth, codes = flickering(change_rate, 0.03, seed=4, missing=missing)
    grid = grid_of(*truth.shape[1:])
    share = coverage_fraction(everywhere(grid), grid)
    out = sustained_change(land_cover_of(codes), share)
    true = float((truth[1:] != truth[:-1]).sum()) * 0.010008
    raw = float((out.raw_gain_ha + out.raw_loss_ha).sum())
    ours = float((out.gain_ha + out.loss_ha).sum())
    assert raw >= 3 * true * (1 - missing) ** 2
    assert ours == pytest.approx(true, rel=0.10)
    assert out.attrs["false_presence_rate"] == pytest.approx(0.03, abs=0.003)
    assert float(out.flicker_share.mean()) > 0.5


def test_sustained_change_splits_gain_and_loss():
    truth, codes = flickering(0.01, 0.03, seed=8)
    grid = grid_of(*truth.shape[1:])
    out = sustained_change(land_cover_of(codes), coverage_fraction(everywhere(grid), grid))
    gain = (~truth[:-1] & truth[1:]).sum() * 0.010008
    loss = (truth[:-1] & ~truth[1:]).sum() * 0.010008
    assert float(out.gain_ha.sum()) == pytest.approx(gain, rel=0.10)
    assert float(out.loss_ha.sum()) == pytest.approx(loss, rel=0.10)


def test_labels_without_flicker_are_taken_at_their_word():
    _, codes = flickering(0.02, 0.0, seed=5, side=100)
    grid = grid_of(100, 100)
    out = sustained_change(land_cover_of(codes), coverage_fraction(everywhere(grid), grid))
    np.testing.assert_allclose(out.gain_ha, out.raw_gain_ha, rtol=0.02)


def test_sustained_change_needs_four_years(scene):
    land_cover, share = scene
    with pytest.raises(InputRefused, match="4 to 39 consecutive years"):
        sustained_change(land_cover.isel(time=slice(0, 3)), share)


# --- forest loss near coca -----------------------------------------------------------------------------------


def test_associated_loss_lies_within_the_distance_of_coca():
    rng = np.random.default_rng(3)
    codes = rng.choice(np.array([2, 3, 255], np.uint8), size=(3, 40, 40), p=[0.6, 0.3, 0.1])
    codes[1, 5, 7] = codes[2, 30, 20] = 1
    grid = grid_of(40, 40, 100.0)
    table = associated_forest_loss(land_cover_of(codes, 100.0), coverage_fraction(everywhere(grid), grid))
    area = np.broadcast_to(grid.cell_area_ha(), grid.shape)
    y, x = np.mgrid[:40, :40] * 100.0
    for t in range(2):
        lost = (codes[t] == 2) & np.isin(codes[t + 1], [1, 3])
        coca = np.argwhere((codes[t] == 1) | (codes[t + 1] == 1)) * 100.0
        distance = scipy.spatial.KDTree(coca).query(np.column_stack([y.ravel(), x.ravel()]))[0].reshape(40, 40)
        row = table.iloc[t]
        assert row.forest_loss_ha == pytest.approx(area[lost].sum(), rel=1e-6)
        assert row.associated_ha == pytest.approx(area[lost & (distance <= 1000)].sum(), rel=1e-6)
        assert row.direct_ha == pytest.approx(area[lost & (codes[t + 1] == 1)].sum(), rel=1e-6, abs=1e-9)


def test_without_coca_no_loss_is_associated():
    codes = np.stack([np.full((5, 5), 2), np.full((5, 5), 3)])
    grid = grid_of(5, 5)
    table = associated_forest_loss(land_cover_of(codes), coverage_fraction(everywhere(grid), grid))
    assert table.associated_ha.tolist() == [0.0]
    assert table.forest_loss_ha[0] > 0


# --- density -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", [30.0, 70.0])
def test_density_grid_keeps_the_hectares_also_where_cells_do_not_nest(cell):
    rng = np.random.default_rng(6)
    codes = rng.choice(np.array([1, 2, 255], np.uint8), size=(2, 55, 61))
    density = density_grid(land_cover_of(codes, cell))
    area = np.broadcast_to(grid_of(55, 61, cell).cell_area_ha(), (55, 61))
    for t in range(2):
        assert float(density.area_ha[t].sum()) == pytest.approx(area[codes[t] == 1].sum(), rel=1e-12)
        assert float(density.observed_ha[t].sum()) == pytest.approx(area[codes[t] != 255].sum(), rel=1e-12)
    left, _, _, top = Grid.from_xarray(density.area_ha).bounds
    assert left % 1000 == 0
    assert top % 1000 == 0


def test_density_is_hectares_per_observed_square_kilometre():
    codes = np.full((1, 10, 10), 2)
    codes[0, :, :5] = 255
    codes[0, 0, 5:] = 1
    density = density_grid(land_cover_of(codes, 100.0))
    assert float(density.density_ha_km2.max()) == pytest.approx(10.0, rel=1e-3)


def test_density_refuses_degrees():
    grid = Grid("EPSG:4326", (0.01, 0, -72, 0, -0.01, 8), (5, 5))
    land_cover = as_land_cover(grid.attach(xr.DataArray(np.ones((5, 5), np.uint8), dims=("y", "x"))), CLASSES)
    with pytest.raises(InputRefused, match="projected"):
        density_grid(land_cover)


def test_lorenz_curve_of_even_and_of_gathered_coca():
    even = concentration(density_grid(land_cover_of(np.ones((1, 40, 40)), 100.0)))
    assert even.gini[0] == pytest.approx(0, abs=1e-6)
    codes = np.full((1, 40, 40), 2)
    codes[0, :10, :10] = 1
    gathered = concentration(density_grid(land_cover_of(codes, 100.0)), points=161)
    assert gathered.gini[0] == pytest.approx(1 - 1 / 16, abs=1e-3)
    assert gathered.year[0] == 2015
    assert np.interp(0.0625, gathered.territory_share, gathered.area_share) == pytest.approx(1.0, abs=0.02)


def test_enclaves_are_groups_of_dense_cells():
    codes = np.full((1, 60, 60), 2)
    codes[0, 0:20, 0:10] = 1
    codes[0, 45:50, 45:50] = 1
    table = enclaves(density_grid(land_cover_of(codes, 100.0)), min_density_ha_km2=20)
    assert table.cells.tolist() == [2, 1]
    assert table.area_ha.tolist() == pytest.approx([200.2, 25.0], rel=1e-3)
    assert table.share.sum() == pytest.approx(1.0)
