"""Negatives near positives, thinning, and the weights that undo it."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.errors import CRSMismatch, InputRefused, NoPositives
from geococa.grid import Grid
from geococa.legend import as_land_cover
from geococa.negatives import local_negatives
from geococa.samples import balance, prior_weights, read_samples, training_table

GRID = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), (200, 200))


def plots(crs="EPSG:32618", years=None):
    """Two coca plots, a coca point and a forest polygon."""
    shapes = [
        shapely.box(500_300, 899_300, 500_380, 899_370),
        shapely.box(500_500, 899_300, 500_560, 899_400),
        shapely.Point(501_503, 898_604),
        shapely.box(500_400, 899_300, 500_480, 899_370),
    ]
    names = ["coca", "coca", "coca", "forest"]
    columns = {"class": names} | ({} if years is None else {"year": years})
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:32618", index=[10, 11, 12, 13])
    return frame.to_crs(crs)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), low=st.floats(0, 100), width=st.floats(60, 400))
def test_negatives_lie_in_the_ring_and_clear_of_every_positive(seed, low, width):
    samples = plots()
    found = local_negatives(samples, GRID, distance_m=(low, low + width), per_positive=8, seed=seed)
    coca = samples[samples["class"] == "coca"].geometry
    own = found.geometry.distance(coca.loc[found["near"]], align=False)
    np.testing.assert_allclose(found["distance_m"], own, atol=1e-6)
    assert own.between(low, low + width).all()
    nearest = shapely.distance(found.geometry.to_numpy()[:, None], coca.to_numpy()[None]).min(axis=1)
    assert (nearest >= max(low, np.hypot(10, 10)) - 1e-9).all()
    assert not found.geometry.intersects(samples.geometry.loc[13]).any(), "a pixel of another sample was drawn"
    assert not found.geometry.duplicated().any()


def test_every_positive_gets_its_share_at_pixel_centres():
    found = local_negatives(plots(), GRID, per_positive=6)
    assert found["near"].value_counts().to_dict() == {10: 6, 11: 6, 12: 6}
    assert found.attrs["short"] == 0
    assert ((found.geometry.x % 10 == 5) & (found.geometry.y % 10 == 5)).all()


def test_the_draw_is_even_over_the_ring():
    found = local_negatives(plots().loc[[12]], GRID, distance_m=(50, 400), per_positive=2000, seed=1)
    # of a ring around a point, the inner half of the radii holds less than half of the area
    middle = 225.0
    expected = (middle**2 - 50**2) / (400**2 - 50**2)
    share = (found["distance_m"] < middle).mean()
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 2000))


def test_the_same_seed_draws_the_same_points_and_another_seed_others():
    first, again, other = (local_negatives(plots(), GRID, seed=seed) for seed in (3, 3, 4))
    assert first.equals(again)
    assert not first.geometry.equals(other.geometry)


def test_nothing_is_drawn_in_or_near_what_is_to_be_avoided():
    avoid = shapely.box(500_200, 899_100, 500_700, 899_290)
    free = local_negatives(plots(), GRID, per_positive=200)
    assert free.geometry.within(avoid).any()
    for given_as in (avoid, geopandas.GeoSeries([avoid], crs=GRID.crs).to_crs(4326)):
        found = local_negatives(plots(), GRID, per_positive=200, avoid=given_as)
        assert (found.geometry.distance(avoid) >= 30 - 1e-3).all()


def test_pixels_that_were_never_observed_are_not_drawn():
    values = np.ones((2, 1, 200, 200), dtype=np.float32)
    values[:, :, :, 35:] = np.nan
    dims = ("time", "feature", "y", "x")
    times = pd.to_datetime(["2020-12-31", "2021-12-31"])
    features = GRID.attach(xr.DataArray(values, dims=dims, coords={"time": times, "feature": ["ndvi"]}))
    found = local_negatives(plots(), features, per_positive=20)
    assert (found.geometry.x < 500_350).all()
    assert found.attrs["short"] > 0


def test_samples_in_degrees_give_metres():
    here, there = (local_negatives(plots(crs), GRID, per_positive=20) for crs in ("EPSG:32618", "EPSG:4326"))
    assert here.geometry.equals(there.geometry)


def test_a_grid_in_degrees_is_measured_in_metres():
    import pyproj

    grid = Grid("EPSG:4326", (1e-4, 0, -75.0, 0, -1e-4, 8.15), (300, 300))
    samples = geopandas.GeoDataFrame({"class": ["coca"]}, geometry=[shapely.Point(-74.985, 8.135)], crs=4326)
    found = local_negatives(samples, grid, distance_m=(100, 400), per_positive=50)
    x, y = found.geometry.x.to_numpy(), found.geometry.y.to_numpy()
    distance = pyproj.Geod(ellps="WGS84").inv(np.full(50, -74.985), np.full(50, 8.135), x, y)[2]
    assert distance.min() >= 99
    assert distance.max() <= 401


def test_without_a_map_candidates_wait_for_a_label(tmp_path):
    found = local_negatives(plots(years=[2019, 2020, 2021, 2020]), GRID, per_positive=2)
    assert found["class"].isna().all()
    assert set(found["source"]) == {"unlabelled"}
    assert found["year"].tolist() == [2019, 2019, 2020, 2020, 2021, 2021]
    found.to_file(tmp_path / "candidates.gpkg", driver="GPKG")
    with pytest.raises(InputRefused, match="drop_unlabelled"):
        read_samples(tmp_path / "candidates.gpkg")
    assert read_samples(tmp_path / "candidates.gpkg", drop_unlabelled=True).empty


def maps(years):
    """Forest in the west, pasture in the east; the later map has coca where the earlier had pasture, east of 500,600."""
    codes = np.full((len(years), 200, 200), 2, dtype=np.uint8)
    codes[:, :, 40:] = 3
    codes[1:, :, 60:] = 1
    array = xr.DataArray(codes, dims=("time", "y", "x"), coords={"time": pd.to_datetime([f"{y}-12-31" for y in years])})
    return as_land_cover(GRID.attach(array), {1: "coca", 2: "forest", 3: "pasture"})


def test_a_map_names_the_class_of_the_year_or_the_latest_before():
    samples = plots(years=[2018, 2021, 2016, 2020])
    found = local_negatives(samples, GRID, per_positive=40, class_from=maps([2018, 2020]))
    east = found.geometry.x > 500_400
    assert found["class"][~east].eq("forest").all()
    assert found["class"][east].eq("pasture").all()
    late = found[found["near"] == 11]
    assert (late.geometry.x < 500_600).all(), "the map of 2020 shows coca there"
    assert not (found["near"] == 12).any(), "no map is as early as 2016"
    assert set(found["source"]) == {"map"}


def test_labelled_candidates_go_into_a_training_table():
    found = local_negatives(plots(), GRID, per_positive=10, class_from=maps([2018]).isel(time=0, drop=True))
    rng = np.random.default_rng(0)
    values = GRID.attach(
        xr.DataArray(rng.random((1, 200, 200), np.float32), dims=("feature", "y", "x"), coords={"feature": ["ndvi"]})
    )
    both = pd.concat([plots(), found[["class", "geometry"]]], ignore_index=True)
    table = training_table(both, values)
    assert len(table[table["sample"] >= 4]) == len(found)
    assert table.attrs["conflicting"] == 0


@pytest.mark.parametrize(
    ("samples", "options", "error", "words"),
    [
        (plots(), {"positive": "poppy"}, NoPositives, "poppy"),
        (plots(), {"distance_m": (500, 30)}, InputRefused, "smallest, largest"),
        (plots(), {"distance_m": (-1, 30)}, InputRefused, "distance_m"),
        (plots(), {"per_positive": 0}, InputRefused, "at least 1"),
        (plots().rename(columns={"class": "kind"}), {}, InputRefused, "class_column="),
        (plots().set_crs(None, allow_override=True), {}, CRSMismatch, "set_crs"),
        (
            plots().translate(50_000).to_frame("geometry").assign(**{"class": "coca"}),
            {},
            InputRefused,
            "no pixel of the grid",
        ),
    ],
    ids=["class", "order", "negative", "none", "column", "crs", "elsewhere"],
)
def test_what_cannot_be_drawn_is_refused(samples, options, error, words):
    with pytest.raises(error, match=words):
        local_negatives(samples, GRID, **options)


def test_a_map_on_another_grid_is_refused():
    with pytest.raises(InputRefused, match="another grid"):
        local_negatives(
            plots(), Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), (100, 100)), class_from=maps([2018])
        )


def thick():
    sample = np.repeat([0, 1, 2, 3], [50, 5, 20, 25])
    names = np.asarray(["forest", "coca", "coca", "pasture"])[sample]
    return pd.DataFrame({"class": names, "sample": sample, "ndvi": np.arange(100.0)}, index=np.arange(100, 200))


def test_balance_keeps_as_many_as_the_smallest_class_and_says_what_it_kept():
    found = balance(thick())
    assert found["class"].value_counts().to_dict() == {"forest": 25, "coca": 25, "pasture": 25}
    assert found.attrs["kept_share"] == {"coca": 1.0, "forest": 0.5, "pasture": 1.0}
    assert found.index.is_monotonic_increasing
    assert found["ndvi"].tolist() == (found.index - 100.0).tolist()


def test_big_polygons_are_thinned_before_the_classes():
    found = balance(thick(), 12, per_sample=8)
    assert found["sample"].value_counts().max() == 8
    assert found["class"].value_counts().to_dict() == {"coca": 12, "forest": 8, "pasture": 8}
    assert balance(thick(), {"forest": 3})["class"].value_counts().to_dict() == {"coca": 25, "pasture": 25, "forest": 3}


def test_balance_draws_by_its_seed():
    first, again, other = (balance(thick(), seed=seed) for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.index.equals(other.index)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"per_class": 0}, "at least 1"), ({"per_class": "all"}, "'smallest'"), ({"per_class": {"tree": 1}}, "tree")],
)
def test_a_balance_that_is_none_is_refused(options, words):
    with pytest.raises(InputRefused, match=words):
        balance(thick(), **options)


def test_prior_weights_make_the_table_count_as_the_landscape():
    table = thick()
    weights = prior_weights(table, {"coca": 1, "forest": 80, "pasture": 19})
    mass = table["class"].map(weights).groupby(table["class"]).sum()
    np.testing.assert_allclose(mass / mass.sum(), [0.01, 0.80, 0.19])
    assert table["class"].map(weights).mean() == pytest.approx(1)
    with pytest.raises(InputRefused, match="each of coca, forest, pasture"):
        prior_weights(table, {"coca": 1.0})
