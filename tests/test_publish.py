"""What leaves through the public export, and what does not."""

from __future__ import annotations

import itertools
import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box

from geococa.errors import InputRefused
from geococa.publish import _base_cells, _Rules, public_areas, public_cells, publish
from tests.report_data import areas_dataset, land_cover_maps

TO_DEGREES = pyproj.Transformer.from_crs("EPSG:6933", "EPSG:4326", always_xy=True)
HEIGHT = 1000 / np.cos(np.radians(30))


def plots_in_cells(cells, year=2024, zone=None):
    """Plots at the middle of 1 km cells: {(row, column): [hectares, ...]}."""
    rows = []
    for (row, column), sizes in cells.items():
        lon, lat = TO_DEGREES.transform((column + 0.5) * 1000, (row + 0.5) * HEIGHT)
        for i, size in enumerate(sizes):
            rows.append(
                {
                    "year": year,
                    "area_ha": size,
                    "longitude": lon + 1e-5 * i,
                    "latitude": lat,
                    "row": row,
                    "column": column,
                }
            )
    frame = pd.DataFrame(rows)
    if zone is not None:
        frame["zone"] = [zone(row, column) for row, column in zip(frame["row"], frame["column"], strict=True)]
    return frame.drop(columns=["row", "column"])


def cell_names(table):
    return set(table["cell"])


def test_a_cell_with_fewer_than_k_plots_has_no_row():
    cells = public_cells(plots_in_cells({(10, 10): [1.0] * 4, (20, 20): [1.0] * 2, (30, 30): [1.0] * 5}))
    assert cell_names(cells) == {"1km_N30_E30"}


def test_a_suppressed_cell_can_not_be_told_from_an_empty_one():
    shown = {(30, 30): [1.0] * 6}
    few = {(10, 10): [0.7] * 3, (11, 10): [0.4] * 3}
    pd.testing.assert_frame_equal(public_cells(plots_in_cells(shown)), public_cells(plots_in_cells(shown | few)))


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 8), min_size=16, max_size=16),
    first=st.lists(st.floats(0.05, 9.0), min_size=8, max_size=8),
    second=st.lists(st.floats(0.05, 9.0), min_size=8, max_size=8),
    size=st.sampled_from([1, 2, 3, 4]),
)
def test_no_export_at_any_resolution_depends_on_hectares_that_were_left_out(counts, first, second, size):
    """Two worlds that differ only inside cells left out give the same bytes, so no difference of exports tells them apart."""
    places = [(r, c) for r in range(8, 12) for c in range(8, 12)]
    one = {p: first[:n] for p, n in zip(places, counts, strict=True) if n}
    if not one:
        return
    hidden = _base_cells(plots_in_cells(one), _Rules(5, 1, 1.0))
    hidden = {(r, c) for r, c, shown in zip(hidden["row"], hidden["column"], hidden["shown"], strict=True) if not shown}
    other = {p: (second[: len(sizes)] if p in hidden else sizes) for p, sizes in one.items()}
    pd.testing.assert_frame_equal(
        public_cells(plots_in_cells(one), cell_km=size), public_cells(plots_in_cells(other), cell_km=size)
    )


def test_two_resolutions_differ_by_nothing_that_was_left_out():
    data = plots_in_cells(
        {(0, 0): [2.0] * 6, (0, 1): [3.0] * 7, (1, 0): [1.0] * 9, (1, 1): [5.0] * 2, (9, 9): [1.0] * 3}
    )
    fine, coarse = public_cells(data), public_cells(data, cell_km=2)
    assert coarse["area_ha"].sum() == fine["area_ha"].sum()


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=25, max_size=25), k=st.integers(2, 7))
def test_zone_total_minus_its_cells_covers_k_plots_in_two_cells(counts, k):
    places = [(r, c) for r in range(5) for c in range(5)]
    if not any(counts):
        return
    data = plots_in_cells(
        {p: [1.0] * n for p, n in zip(places, counts, strict=True) if n}, zone=lambda r, c: "AB"[c // 3]
    )
    cells = _base_cells(data, _Rules(k, 1, 1.0))
    for half in (cells["column"] < 3, cells["column"] >= 3, cells["column"] >= 0):
        part = cells[half]
        hidden = part[~part["shown"]]
        everything_hidden = not part["shown"].any()
        assert hidden.empty or everything_hidden or (hidden["plots"].sum() >= k and len(hidden) >= 2)


def test_leaving_out_one_plot_moves_a_cell_by_whole_bases_only():
    sizes = [0.31, 0.72, 1.4, 0.55, 0.9, 0.63, 2.2]
    whole = public_cells(plots_in_cells({(3, 3): sizes}))["area_ha"].item()
    for i in range(len(sizes)):
        less = public_cells(plots_in_cells({(3, 3): sizes[:i] + sizes[i + 1 :]}))["area_ha"].item()
        assert (whole - less) % 1.0 == 0.0


def test_cells_do_not_move_with_the_extent_of_the_input():
    west = {(5, 5): [1.0] * 6}
    both = public_cells(plots_in_cells(west | {(40, 90): [1.0] * 6}))
    assert cell_names(public_cells(plots_in_cells(west))) <= cell_names(both)


@pytest.mark.parametrize("latitude", [-29.5, -12.0, 0.0, 4.0, 29.5])
def test_both_sides_of_a_cell_are_at_least_a_kilometre_on_the_ground(latitude):
    data = pd.DataFrame({"year": 2024, "area_ha": [1.0] * 6, "longitude": -74.0, "latitude": latitude})
    cell = public_cells(data).iloc[0]
    geod = pyproj.Geod(ellps="WGS84")
    _, _, wide = geod.inv(cell.west, cell.south, cell.east, cell.south)
    _, _, high = geod.inv(cell.west, cell.south, cell.west, cell.north)
    assert min(wide, high) >= 999.5


def test_plots_beyond_the_latitudes_of_the_grid_are_refused():
    data = pd.DataFrame({"year": 2024, "area_ha": [1.0], "longitude": 0.0, "latitude": 45.0})
    with pytest.raises(InputRefused, match=r"45\.0 degrees"):
        public_cells(data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cell_km", 0.5),
        ("cell_km", 1.5),
        ("cell_km", 0),
        ("k", 1),
        ("k", 0),
        ("base_ha", 0.1),
        ("base_ha", float("nan")),
    ],
)
def test_rules_finer_than_the_minimum_are_refused(name, value):
    with pytest.raises(InputRefused, match=name):
        public_cells(plots_in_cells({(1, 1): [1.0] * 5}), **{name: value})


def plot_layer(n=12):
    shapes = [box(-76 + i * 4e-4, 1.0, -76 + i * 4e-4 + 2e-4, 1.0002) for i in range(n)]
    return gpd.GeoDataFrame(
        {"plot_id": range(n), "year": 2024, "area_ha": 0.5, "zone": "Caño Claro"}, geometry=shapes, crs="EPSG:4326"
    )


def test_default_export_holds_no_plot_geometry(tmp_path):
    files = publish(areas_dataset(), tmp_path / "public", plots=plot_layer())
    assert [path.name for path in files] == [
        "README.txt",
        "areas_public.csv",
        "cells_public.csv",
        "cells_public.geojson",
    ]
    cells = json.loads((tmp_path / "public/cells_public.geojson").read_text())
    for feature in cells["features"]:
        west, south = feature["geometry"]["coordinates"][0][0]
        east, north = feature["geometry"]["coordinates"][0][2]
        assert east - west > 0.0089
        assert north - south > 0.0089
        assert set(feature["properties"]) == {"cell", "year", "area_ha"}


def test_plots_leave_only_when_asked_for_and_are_marked(tmp_path):
    publish(None, tmp_path / "p", plots=plot_layer(), include_plots=True)
    marked = json.loads((tmp_path / "p/plots_RESTRICTED.geojson").read_text())
    assert marked["notice"].startswith("RESTRICTED")
    assert all(feature["properties"]["restricted"] is True for feature in marked["features"])
    assert "RESTRICTED" in (tmp_path / "p/README.txt").read_text()


def test_a_later_export_without_plots_removes_the_restricted_file(tmp_path):
    publish(None, tmp_path / "p", plots=plot_layer(), include_plots=True)
    publish(None, tmp_path / "p", plots=plot_layer())
    assert not (tmp_path / "p/plots_RESTRICTED.geojson").exists()


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "precious.tif").write_text("x")
    with pytest.raises(InputRefused, match=r"precious\.tif"):
        publish(areas_dataset(), tmp_path)


def test_same_input_gives_the_same_bytes(tmp_path):
    first = publish(areas_dataset(), tmp_path / "a", plots=plot_layer())
    second = publish(areas_dataset(), tmp_path / "b", plots=plot_layer())
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_zone_table_rounds_and_leaves_out_zones_below_a_square_kilometre():
    areas = areas_dataset(names=("Large", "Small"))
    areas["zone_ha"].values[:] = [90000.0, 60.0]
    table = public_areas(areas)
    assert set(table["zone"]) == {"Large"}
    assert (table["area_ha"] % 1.0 == 0).all()


def test_unobserved_zone_is_missing_rather_than_zero():
    areas = areas_dataset(names=("Seen", "Unseen"))
    areas["area_ha"].loc[{"zone": "Unseen"}] = 0.0
    table = public_areas(areas).set_index("zone")
    assert table.loc["Unseen", "area_ha"].isna().all()


def test_names_that_a_spreadsheet_would_run_are_defused():
    table = public_areas(areas_dataset(names=("=HYPERLINK(1)", "@SUM(A1)")))
    assert set(table["zone"]) == {"'=HYPERLINK(1)", "'@SUM(A1)"}


def test_patches_of_a_map_count_as_plots():
    maps = land_cover_maps(years=[2024])
    pytest.importorskip("scipy")
    from geococa.publish import _patches

    patches = _patches(maps, "coca")
    cells = int((maps.values == 1).sum())
    assert patches["area_ha"].sum() == pytest.approx(cells * 0.01, rel=3e-3)
    assert patches["latitude"].between(2.06, 2.10).all()


def test_nothing_to_publish_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="nothing to publish"):
        publish(None, tmp_path / "x")


# ---- an adversary who holds two exports ---------------------------------------------------------------------------------


def world(seed, n=400):
    """Plots of random size, clustered, in a square of 20 km, with two years of which the second loses and gains plots."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, 20_000, size=(12, 2))
    where = centres[rng.integers(0, 12, size=n)] + rng.normal(0, 900, size=(n, 2))
    lon, lat = TO_DEGREES.transform(-7_000_000 + where[:, 0], 300_000 + where[:, 1])
    size = np.round(rng.lognormal(-0.3, 0.6, size=n), 2)
    return pd.DataFrame({"year": 2024, "area_ha": size, "longitude": lon, "latitude": lat})


def zone_frame(plots, members, names=("all", "less")):
    """Areas and named plots of two zones: one holds every plot, the other those of ``members`` only."""
    both = pd.concat([plots.assign(zone=names[0]), plots[members].assign(zone=names[1])], ignore_index=True)
    areas = areas_dataset(names=names, years=sorted(set(plots["year"])))
    areas["zone_ha"].values[:] = 40_000.0
    return areas, both


def published(plots, members, **rules):
    areas, both = zone_frame(plots, members)
    return public_areas(areas, plots=both, **rules).set_index(["zone", "year"])["area_ha"]


def attacks(exact):
    """Errors of the guess that the difference of two zones is what lies between them, in parts of the truth."""
    errors = []
    for seed in range(16):
        plots = world(seed)
        rng = np.random.default_rng([seed, 1])
        for few in (1, 2, 3, 4):
            target = rng.choice(len(plots), size=few, replace=False)
            members = np.ones(len(plots), dtype=bool)
            members[target] = False
            truth = plots["area_ha"].to_numpy()[target].sum()
            if exact:
                guess = round(plots["area_ha"].sum()) - round(plots["area_ha"][members].sum())
            else:
                told = published(plots, members)
                guess = told["all", 2024] - told["less", 2024]
            errors.append((few, (guess - truth) / truth))
    return np.array(errors)


def test_two_zone_sets_that_differ_by_few_plots_do_not_tell_them():
    """The same guess on rounded sums, as they were before, is nearly always right: the test can fail."""
    naive, ours = attacks(exact=True), attacks(exact=False)
    near = {few: np.mean(np.abs(naive[naive[:, 0] == few, 1]) < 0.6) for few in (2, 3, 4)}
    assert min(near.values()) > 0.8
    found = {few: np.mean(np.abs(ours[ours[:, 0] == few, 1]) < 0.6) for few in (1, 2, 3, 4)}
    assert max(found.values()) < 0.5
    # neither does the sign tell whether there is any plot in between
    assert 0.2 < np.mean(ours[:, 1] < -1) < 0.7


def test_noise_is_zero_on_average_and_small_beside_a_zone_of_many_plots():
    errors = []
    for seed in range(30):
        plots = world(seed)
        total = plots["area_ha"].sum()
        told = published(plots, np.ones(len(plots), dtype=bool))["all", 2024]
        assert abs(told - total) <= 2 * plots["area_ha"].max() + 0.5
        errors.append((told - total) / total)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(30)
    assert np.std(errors) < 0.03


def test_asking_again_tells_nothing_new():
    """The same plots have the same figure under other names, in another order, in another year, at another k."""
    plots = world(3)
    first = published(plots, np.ones(len(plots), dtype=bool))
    assert first["all", 2024] == first["less", 2024]
    again = published(plots.sample(frac=1, random_state=1).assign(year=2023), np.ones(len(plots), dtype=bool), k=7)
    assert again["all", 2023] == first["all", 2024]


@settings(max_examples=12, deadline=None)
@given(counts=st.lists(st.integers(0, 12), min_size=25, max_size=25))
def test_a_second_k_shows_no_cell_and_no_figure_that_the_smaller_does_not(counts):
    if not any(counts):
        return
    places = [(r, c) for r in range(5) for c in range(5)]
    data = plots_in_cells(
        {p: [0.7] * n for p, n in zip(places, counts, strict=True) if n}, zone=lambda r, c: "AB"[c // 3]
    )
    rows = [public_cells(data, k=k).set_index("cell")["area_ha"] for k in (3, 5, 6, 9)]
    for small, large in itertools.pairwise(rows):
        assert large.to_dict().items() <= small.to_dict().items()


def test_two_years_do_not_tell_one_new_plot_of_a_cell():
    sizes = np.random.default_rng(7).uniform(0.4, 1.6, size=(400, 9)).round(3).tolist()
    before = plots_in_cells({(4, i): row[:8] for i, row in enumerate(sizes)}, year=2023)
    after = plots_in_cells({(4, i): row for i, row in enumerate(sizes)}, year=2024)
    told = public_cells(pd.concat([before, after], ignore_index=True)).set_index(["cell", "year"])["area_ha"].unstack()
    assert len(told) == 400
    last = np.array([row[8] for row in sizes])
    guesses = (told[2024] - told[2023]).loc[[f"1km_N4_E{i}" for i in range(400)]].to_numpy() / last - 1
    assert np.mean(np.abs(guesses) < 0.5) < 0.35
    # a cell that did not change has the same figure in both years
    same = plots_in_cells({(4, 4): [0.9, 1.1, 0.7, 0.8, 1.3]})
    told = public_cells(pd.concat([same, same.assign(year=2025)], ignore_index=True))
    assert told["area_ha"].nunique() == 1


def test_a_finer_rounding_has_the_same_noise():
    plots = world(8)
    whole = np.ones(len(plots), dtype=bool)
    coarse, fine = (published(plots, whole, base_ha=base)["all", 2024] for base in (5.0, 0.5))
    assert abs(coarse - fine) <= 2.75


def test_a_zone_of_few_plots_has_no_hectares_and_can_not_be_told_from_an_empty_one():
    plots = world(2)
    for few in (0, 1, 4):
        members = np.zeros(len(plots), dtype=bool)
        members[:few] = True
        areas, both = zone_frame(plots, members)
        table = public_areas(areas, plots=both).set_index("zone")
        assert np.isnan(table.loc["less", "area_ha"])
        assert table.loc["less", "note"] == "fewer than 5 plots"
    members[:5] = True
    areas, both = zone_frame(plots, members)
    assert np.isfinite(public_areas(areas, plots=both).set_index("zone").loc["less", "area_ha"])


def test_overlapping_zones_hold_the_plots_whose_centre_lies_in_them():
    plots = world(5)
    west, east = plots["longitude"].min(), plots["longitude"].max()
    south, north = plots["latitude"].min(), plots["latitude"].max()
    middle = plots["longitude"].median()
    zones = gpd.GeoDataFrame(
        {"zone": ["whole", "west", "west again"]},
        geometry=[box(west, south, east, north), *[box(west, south, middle, north)] * 2],
        crs="EPSG:4326",
    ).to_crs("EPSG:32618")
    areas = areas_dataset(names=("whole", "west", "west again"), years=[2024])
    table = public_areas(areas, plots=plots, zones=zones).set_index("zone")["area_ha"]
    half = plots[plots["longitude"] <= middle]
    assert abs(table["west"] - half["area_ha"].sum()) <= 2 * half["area_ha"].max() + 1
    assert table["west"] == table["west again"]
    assert table["whole"] > table["west"]


def test_zones_that_hold_none_of_the_plots_by_name_are_refused():
    plots = world(1).assign(zone="Elsewhere")
    with pytest.raises(InputRefused, match="Elsewhere"):
        public_areas(areas_dataset(years=[2024]), plots=plots)


def test_public_figures_are_those_of_the_maps_whether_outlines_leave_or_not(tmp_path):
    maps = land_cover_maps(years=[2024])
    publish(None, tmp_path / "a", land_cover=maps, k=2)
    publish(None, tmp_path / "b", land_cover=maps, plots=plot_layer(), include_plots=True, k=2)
    assert (tmp_path / "a/cells_public.csv").read_bytes() == (tmp_path / "b/cells_public.csv").read_bytes()
