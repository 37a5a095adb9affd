"""Change per zone and ring, what it rests on, and the tables and plots of a whole run."""

from __future__ import annotations

import shutil

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr

from geococa.archive import run_archive
from geococa.areas import zonal_area
from geococa.change import (
    associated_forest_loss,
    expansion_rate,
    new_and_abandoned,
    ring_table,
    sustained_change,
    transitions,
)
from geococa.change_tables import follow_run, merge_tables, tile_tables
from geococa.coca_plots import follow_plots, trace_plots
from geococa.errors import InputRefused, RecipeError
from geococa.ledger import file_sha256
from geococa.models import read_model
from geococa.recipe import Recipe
from geococa.zones import buffer_rings, coverage_fraction
from tests.test_change import everywhere, flickering, grid_of, land_cover_of

BASIS = ["flicker_ha", "decided_ha", "flicker_share", "observed_years", "observations"]


def park_of(grid, margin=0.3):
    left, bottom, right, top = grid.bounds
    dx, dy = margin * (right - left), margin * (top - bottom)
    shape = shapely.box(left + dx, bottom + dy, right - dx, top - dy)
    return geopandas.GeoDataFrame({"zone": ["park"]}, geometry=[shape], crs=grid.crs)


@pytest.fixture(scope="module")
def scene():
    rng = np.random.default_rng(0)
    codes = rng.choice(np.array([1, 2, 3, 255], np.uint8), size=(5, 60, 70), p=[0.2, 0.4, 0.3, 0.1])
    return land_cover_of(codes), park_of(grid_of(60, 70))


# --- rings ---------------------------------------------------------------------------------------------------


def test_ring_hectares_are_those_of_zonal_area_on_the_rings(scene):
    land_cover, park = scene
    table = ring_table(land_cover, park, [50, 150])
    rings = buffer_rings(park, [50, 150])
    areas = zonal_area(land_cover, coverage_fraction(rings, grid_of(60, 70), allow_outside=True))
    shape = (len(rings), 5)
    expected = areas.area_ha.sel(land_cover="coca").transpose("zone", "time")
    np.testing.assert_allclose(table.area_ha.to_numpy().reshape(shape), expected, rtol=1e-9)
    np.testing.assert_allclose(
        table.unobserved_ha.to_numpy().reshape(shape), areas.unobserved_ha.T, rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(table.outside_ha.to_numpy().reshape(shape), areas.outside_ha.T, atol=1e-9)
    np.testing.assert_allclose(table.observed_ha + table.unobserved_ha + table.outside_ha, table.ring_ha, rtol=1e-9)


def test_rings_inside_a_park_add_up_to_the_park(scene):
    land_cover, park = scene
    inside = ring_table(land_cover, park, [50, 150], sides=["inside"]).groupby("year").area_ha.sum()
    whole = zonal_area(land_cover, coverage_fraction(park, grid_of(60, 70))).area_ha.sel(land_cover="coca", zone="park")
    np.testing.assert_allclose(inside, whole, rtol=1e-6)


def test_ring_change_is_that_of_new_and_abandoned_on_the_ring(scene):
    land_cover, park = scene
    rings = coverage_fraction(buffer_rings(park, [100]), grid_of(60, 70), allow_outside=True)
    table, steps = ring_table(land_cover, rings), new_and_abandoned(land_cover, rings)
    later = table[table.year > 2015]
    np.testing.assert_allclose(later.change_ha, steps.new_ha + steps.replanted_ha - steps.lost_ha, atol=1e-9)
    np.testing.assert_allclose(later[BASIS[:4]], steps[BASIS[:4]], rtol=1e-9)
    assert table[table.year == 2015].change_ha.isna().all()


def test_ring_table_takes_a_single_map_and_dask(scene):
    pytest.importorskip("dask")
    land_cover, park = scene
    one = ring_table(land_cover.isel(time=0, drop=True), park, [100])
    assert (one.year == -1).all()
    both = ring_table(land_cover, park, [100])
    assert one.area_ha.tolist() == pytest.approx(both[both.year == 2015].area_ha.tolist(), rel=1e-12)
    pd.testing.assert_frame_equal(ring_table(land_cover.chunk({"time": 1, "y": 13}), park, [100]), both)


def test_ring_table_refuses_zones_that_are_no_rings(scene):
    land_cover, park = scene
    with pytest.raises(InputRefused, match="buffer_rings"):
        ring_table(land_cover, coverage_fraction(park, grid_of(60, 70)))


# --- what change rests on ------------------------------------------------------------------------------------


def test_every_change_table_says_how_much_flickers_and_what_it_was_seen_with(scene):
    land_cover, park = scene
    share = coverage_fraction(park, grid_of(60, 70))
    dates = xr.full_like(land_cover, 4, dtype=np.uint16)
    for table in (
        new_and_abandoned(land_cover, share, observations=dates),
        associated_forest_loss(land_cover, share, observations=dates),
        ring_table(land_cover, park, [100], observations=dates),
    ):
        assert set(BASIS) <= set(table.columns)
        np.testing.assert_allclose(table.observations, 4.0)
        assert table.observed_years.between(4.3, 4.7).all()
        assert table.flicker_share.dropna().between(0, 1).all()
        assert table.flicker_share.notna().any()
    expansion = expansion_rate(new_and_abandoned(land_cover, share, observations=dates))
    assert {"flicker_share", "observed_years", "observations"} <= set(expansion.columns)
    steps = transitions(land_cover, share, observations=dates)
    assert {"flicker_ha", "flicker_share", "observed_years", "observations"} <= set(steps.data_vars)
    assert {"flicker_share", "observed_years"} <= set(sustained_change(land_cover, share).data_vars)


def test_a_blink_is_all_flicker_and_a_lasting_change_none():
    grid = grid_of(1, 1, 100.0)
    share = coverage_fraction(everywhere(grid), grid)

    def shares(series):
        codes = np.array(series, np.uint8).reshape(-1, 1, 1)
        return new_and_abandoned(land_cover_of(codes, 100.0), share).flicker_share.tolist()[1:-1]

    np.testing.assert_array_equal(shares([2, 2, 1, 2, 2, 2]), [1.0, 1.0, np.nan])
    np.testing.assert_array_equal(shares([2, 2, 2, 1, 1, 1]), [np.nan, 0.0, np.nan])
    np.testing.assert_array_equal(shares([2, 255, 2, 1, 1, 1]), [np.nan, np.nan, np.nan])


@pytest.mark.parametrize("seed", [1, 2])
def test_raw_steps_overstate_sustained_change_threefold_and_the_estimate_does_not(seed):
    truth, codes = flickering(0.015, 0.03, seed=seed, years=7, side=260)
    grid = grid_of(*truth.shape[1:])
    share = coverage_fraction(everywhere(grid), grid)
    land_cover = land_cover_of(codes)
    true = float((truth[1:] != truth[:-1]).sum()) * 0.010008
    steps = new_and_abandoned(land_cover, share)
    raw = float((steps.new_ha + steps.replanted_ha + steps.lost_ha).sum())
    ours = sustained_change(land_cover, share)
    assert raw >= 3 * true
    assert float((ours.gain_ha + ours.loss_ha).sum()) == pytest.approx(true, rel=0.10)
    # the flicker share of the plain table tells the same without a model
    lasting = 1 - steps.flicker_ha.sum() / steps.decided_ha.sum()
    assert lasting == pytest.approx(true / raw, abs=0.07)


def test_expansion_is_the_yearly_rate_on_ground_seen_in_both_years():
    codes = np.full((3, 1, 8), 2, np.uint8)
    codes[0, 0, :2] = codes[1, 0, :4] = 1
    codes[2, 0, :4] = 1
    codes[1, 0, 3] = 255  # seen again a year later: no growth in between
    grid = grid_of(1, 8, 100.0)
    changes = new_and_abandoned(land_cover_of(codes, 100.0), coverage_fraction(everywhere(grid), grid))
    row = expansion_rate(changes).iloc[0]
    assert row.rate_per_year == pytest.approx(np.log(3 / 2) / 2, rel=1e-6)
    assert (row.from_year, row.to_year, row.steps) == (2015, 2017, 2)
    assert (row.gain_share, row.loss_share) == (pytest.approx(1 / 5), 0.0)


def test_expansion_without_the_class_is_not_a_number():
    grid = grid_of(1, 4)
    changes = new_and_abandoned(land_cover_of(np.full((3, 1, 4), 2)), coverage_fraction(everywhere(grid), grid))
    row = expansion_rate(changes).iloc[0]
    assert np.isnan(row.rate_per_year)
    assert row.steps == 0


# --- tables of a run -----------------------------------------------------------------------------------------


def test_tables_of_tiles_add_up_to_those_of_the_whole(scene):
    land_cover, park = scene
    recipe = Recipe(change={"ring_distances_m": [100], "forest_distance_m": 1e-6})
    rng = np.random.default_rng(3)
    dates = xr.DataArray(
        rng.integers(1, 9, land_cover.shape).astype(np.uint16), coords=land_cover.coords, dims=land_cover.dims
    )
    rings = buffer_rings(park, [100])

    def tables(columns):
        part = land_cover.isel(x=columns)
        grid = grid_of(60, 70).window(0, 60, columns.start, columns.stop)
        near, share = (coverage_fraction(zones, grid, allow_outside=True) for zones in (rings, park))
        return tile_tables(part, share, recipe, rings=near, observations=dates.isel(x=columns))

    whole = merge_tables([tables(slice(0, 70))])
    halves = merge_tables([tables(slice(0, 31)), tables(slice(31, 70))])
    assert set(whole) == {"transitions", "changes", "expansion", "permanence", "rings", "forest_loss"}
    for name in set(whole) - {"forest_loss"}:
        keys = [column for column in whole[name] if whole[name][column].dtype == object]
        left, right = (one[name].sort_values(keys, kind="stable", ignore_index=True) for one in (whole, halves))
        # dates behind permanence are means over steps in each tile; hectares of a core of ten cells close by each tile
        pd.testing.assert_frame_equal(left, right, rtol={"permanence": 1e-2, "rings": 1e-3}.get(name, 1e-6))


def test_plots_of_two_crs_have_ids_of_their_own_and_clouds_do_not_abandon():
    codes = np.full((3, 20, 20), 2, np.uint8)
    codes[:, 3:8, 3:8] = 1
    codes[1] = 255
    one = land_cover_of(codes)
    other = land_cover_of(codes)
    from geococa.grid import Grid

    moved = Grid("EPSG:32619", (10, 0, 200_000, 0, -10, 300_000), (20, 20))
    other = moved.attach(other.drop_vars(["x", "y", "spatial_ref"]))
    other.attrs = one.attrs
    tracks = follow_run({"a": one, "b": other}, Recipe(), park_of(grid_of(20, 20)))
    assert tracks.crs.to_epsg() == 4326
    assert sorted(tracks.track_id.unique()) == [1, 2]
    assert tracks.dropna(subset="plot_id").plot_id.is_unique
    assert tracks.event.value_counts().to_dict() == {"new": 2, "unobserved": 2, "persistent": 2}


def test_several_maps_serve_the_plots_of_several_tiles():
    codes = np.full((3, 20, 20), 2, np.uint8)
    codes[:, 3:8, 3:8] = 1
    codes[1] = 255
    land_cover = land_cover_of(codes)
    plots = trace_plots(land_cover)
    halves = [land_cover.isel(x=slice(0, 10)), land_cover.isel(x=slice(10, 20))]
    assert follow_plots(plots, land_cover=halves).event.tolist() == ["new", "unobserved", "persistent"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[change]\npermanent_share = 0.2\n", "intermittent_share"),
        ("[labels]\nsieve_rule = 'biggest'\n", "sieve_rule"),
        ("[labels]\ntransitions = 'guess'\n", "transitions"),
        ("[labels]\nevidence = 0\n", "evidence"),
    ],
)
def test_recipe_refuses_impossible_rules_of_change(tmp_path, text, message):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        Recipe.read(tmp_path / "recipe.toml")


@pytest.fixture(scope="module")
def changed(small_archive, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    recipe = small_archive / "recipe_change.toml"
    text = (small_archive / "recipe.toml").read_text()
    text += "\n[change]\ntables = true\nplots = true\nring_distances_m = [100, 300]\n"
    recipe.write_text(text)
    run_archive(small_archive, recipe, out=out)
    return out, recipe


def test_a_run_writes_change_tables_and_followed_plots(changed):
    out, _ = changed
    for name in ("transitions", "changes", "expansion", "permanence", "rings", "forest_loss"):
        table = pd.read_csv(out / f"{name}.csv")
        assert len(table) == len(pd.read_parquet(out / f"{name}.parquet")) > 0
        assert {"flicker_share", "observed_years", "observations"} <= set(table.columns)
    plots = geopandas.read_parquet(out / "plots.parquet")
    package = geopandas.read_file(out / "plots.gpkg")
    assert plots.event.tolist() == package.event.tolist()


def test_change_tables_close_on_the_hectares_of_the_run(changed):
    out, _ = changed
    areas, steps = pd.read_csv(out / "areas.csv"), pd.read_csv(out / "transitions.csv")
    whole = steps.groupby(["zone", "to_year"]).agg(mapped=("area_ha", "sum"), unobserved=("unobserved_ha", "first"))
    zones = areas.drop_duplicates(["zone", "year"]).set_index(["zone", "year"])
    for (zone, year), row in whole.iterrows():
        held = zones.loc[(zone, year)]
        assert row.mapped + row.unobserved + held.outside_ha == pytest.approx(held.zone_ha, rel=1e-9)


def test_a_second_run_changes_no_byte_and_one_without_change_takes_the_files_away(changed, small_archive, tmp_path):
    before, recipe = changed
    out = tmp_path / "out"
    shutil.copytree(before, out)
    names = ["plots.gpkg", "plots.parquet", "rings.csv", "transitions.parquet"]
    before = [file_sha256(out / name) for name in names]
    (out / "plots.gpkg").unlink()
    assert run_archive(small_archive, recipe, out=out).computed == ()
    assert [file_sha256(out / name) for name in names] == before
    run_archive(small_archive, small_archive / "recipe.toml", out=out)
    assert not any((out / name).exists() for name in names)


@pytest.mark.slow
def test_transitions_estimated_on_the_archive_are_in_the_model_and_change_no_byte_by_blocks(small_archive, tmp_path):
    text = (small_archive / "recipe.toml").read_text()
    digests = []
    for number, size in enumerate((512, 40)):
        recipe = small_archive / f"recipe_estimate_{number}.toml"
        recipe.write_text(text + f"\n[run]\nblock_px = {size}\n")
        try:
            out = run_archive(small_archive, recipe, out=tmp_path / str(number), workers=1 + number, threads=1).out
        finally:
            recipe.unlink()
        digests.append(
            [file_sha256(out / "model.geococa"), *(file_sha256(p) for p in sorted((out / "maps").glob("*.tif")))]
        )
    assert digests[0] == digests[1]
    matrix = read_model(out / "model.geococa").transitions
    np.testing.assert_allclose(matrix.sum(axis=1), 1.0)
    assert np.ptp(matrix[0, 1:]) > 1e-4, "estimated, not the same to every class"


@pytest.mark.parametrize(("chosen", "refused"), [("auto", False), ("estimate", True)])
def test_tiles_that_tell_nothing_of_transitions_leave_persistence_or_are_refused(chosen, refused):
    from geococa.models import train
    from geococa.pipeline import with_estimated_transitions

    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "class": ["coca", "forest"] * 30})
    model = train(table, ["a"], method="gaussian")
    recipe = Recipe(labels={"transitions": chosen})
    if refused:
        with pytest.raises(InputRefused, match="transitions = 'persistence'"):
            with_estimated_transitions([], recipe, model, [2020, 2021])
    else:
        kept = with_estimated_transitions([], recipe, model, [2020, 2021]).transitions
        np.testing.assert_allclose(kept, [[0.9, 0.1], [0.1, 0.9]])
