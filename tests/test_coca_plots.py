from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pyproj
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.coca_plots import follow_plots, merge_plots, trace_plots
from geococa.errors import GridMismatch, InputRefused
from geococa.grid import Grid
from geococa.legend import as_land_cover

GRID = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 300_000), (40, 50))


def land_cover_of(codes, grid=GRID, first_year=2015):
    codes = np.asarray(codes, dtype=np.uint8)
    dims = ("time", "y", "x")[-codes.ndim :]
    array = xr.DataArray(codes, dims=dims, attrs={"nodata": 255})
    if codes.ndim == 3:
        array = array.assign_coords(time=pd.to_datetime([f"{first_year + i}-12-31" for i in range(len(codes))]))
    return as_land_cover(grid.attach(array), ["coca", "forest"])


def random_codes(seed, shape=(40, 50), share=0.35):
    rng = np.random.default_rng(seed)
    codes = np.where(rng.random(shape) < share, 1, 2).astype(np.uint8)
    codes[rng.random(shape) < 0.05] = 255
    return codes


def window(land_cover, r0, r1, c0, c1):
    return land_cover.isel(y=slice(r0, r1), x=slice(c0, c1))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_polygons_equal_those_of_rasterio(connectivity):
    from rasterio.features import shapes

    codes = random_codes(1)
    plots = trace_plots(land_cover_of(codes), connectivity=connectivity)
    expected = [
        shapely.geometry.shape(geometry)
        for geometry, value in shapes(codes, mask=codes == 1, connectivity=connectivity, transform=GRID.transform)
        if value == 1
    ]
    assert len(plots) == len(expected)
    # where cells meet at a corner, a valid polygon is written in another way than rasterio's ring that touches itself
    ours = sorted((g.representative_point().coords[0], g) for g in plots.geometry)
    tree = shapely.STRtree(plots.geometry.to_numpy())
    for other in map(shapely.make_valid, expected):
        near = plots.geometry.to_numpy()[tree.query(other)]
        assert min(shapely.area(shapely.symmetric_difference(near, other))) == 0.0
    assert shapely.is_valid([g for _, g in ours]).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
def test_plots_add_up_to_the_hectares_of_the_raster(seed, share):
    codes = random_codes(seed, share=share)
    plots = trace_plots(land_cover_of(codes))
    area = np.broadcast_to(GRID.cell_area_ha(), GRID.shape)
    assert plots.area_ha.sum() == pytest.approx(area[codes == 1].sum(), rel=1e-9)
    assert plots.geometry.area.sum() == pytest.approx(100.0 * (codes == 1).sum(), rel=1e-12)


def test_hectares_are_ellipsoidal_on_a_map_in_degrees():
    grid = Grid("EPSG:4326", (0.001, 0, -72, 0, -0.001, 8), (10, 10))
    codes = np.full((10, 10), 2)
    codes[2:7, 3:9] = 1
    plot = trace_plots(land_cover_of(codes, grid)).iloc[0]
    edges = shapely.segmentize(plot.geometry, 1e-4)
    area, _ = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(shapely.geometry.polygon.orient(edges))
    assert plot.area_ha == pytest.approx(area / 1e4, rel=1e-6)


def test_perimeter_is_geodesic_and_counts_holes():
    codes = np.full((40, 50), 2)
    codes[10:20, 10:20] = 1
    codes[14:16, 14:16] = 2
    plot = trace_plots(land_cover_of(codes)).iloc[0]
    # at the central meridian of a UTM zone a metre on the map is 1/0.9996 m on the ground
    assert plot.perimeter_m == pytest.approx((400 + 80) / 0.9996, rel=1e-5)
    assert plot.compactness == pytest.approx(4 * np.pi * plot.area_ha * 1e4 / plot.perimeter_m**2)


def test_a_square_has_the_compactness_of_a_square():
    codes = np.full((40, 50), 2)
    codes[10:20, 10:20] = 1
    assert trace_plots(land_cover_of(codes)).compactness[0] == pytest.approx(np.pi / 4, rel=1e-4)


def test_mean_probability_is_that_of_the_observed_cells():
    codes = np.full((40, 50), 2)
    codes[5:7, 5:10] = 1
    rng = np.random.default_rng(0)
    values = rng.random((40, 50)).astype(np.float32)
    values[5, 5] = np.nan
    probability = GRID.attach(
        xr.DataArray(
            np.stack([values, 1 - values]), dims=("land_cover", "y", "x"), coords={"land_cover": ["coca", "forest"]}
        )
    )
    plots = trace_plots(land_cover_of(codes), probability=probability)
    assert plots.mean_probability[0] == pytest.approx(np.nanmean(values[5:7, 5:10].astype(float)), rel=1e-9)


def test_probability_of_other_years_is_refused():
    codes = np.stack([random_codes(i) for i in range(2)])
    probability = GRID.attach(
        xr.DataArray(
            np.full((2, 2, 40, 50), 0.5, np.float32),
            dims=("time", "land_cover", "y", "x"),
            coords={"land_cover": ["coca", "forest"], "time": pd.to_datetime(["2001-12-31", "2002-12-31"])},
        )
    )
    with pytest.raises(GridMismatch, match="2001"):
        trace_plots(land_cover_of(codes), probability=probability)


def test_zone_is_the_one_that_holds_most_and_distance_is_signed():
    codes = np.full((40, 50), 2)
    codes[10:12, 10:14] = 1
    codes[30:32, 40:42] = 1
    park = shapely.box(500_000, 299_800, 500_120, 300_000)
    rest = shapely.box(500_120, 299_800, 500_300, 300_000)
    zones = geopandas.GeoDataFrame({"zone": ["park", "reserve"]}, geometry=[park, rest], crs=GRID.crs)
    plots = trace_plots(land_cover_of(codes), zones=zones.to_crs("EPSG:4326"))
    assert plots.zone[0] in ("park", "reserve")
    assert pd.isna(plots.zone[1])
    assert plots.distance_to_edge_m[1] == pytest.approx(-np.hypot(100, 100), abs=0.5)
    inside = codes * 0 + 2
    inside[5:7, 3:5] = 1
    assert trace_plots(land_cover_of(inside), zones=zones).distance_to_edge_m[0] == pytest.approx(30, abs=0.5)


def test_plots_are_numbered_by_year_and_place():
    codes = np.full((2, 40, 50), 2)
    codes[0, 30, 5] = codes[0, 3, 40] = codes[0, 3, 2] = codes[1, 0, 0] = 1
    plots = trace_plots(land_cover_of(codes))
    assert plots.plot_id.tolist() == [1, 2, 3, 4]
    assert plots.year.tolist() == [2015, 2015, 2015, 2016]
    assert [tuple(p) for p in plots.geometry.bounds[["minx", "maxy"]].iloc[:3].to_numpy()] == [
        (500_020, 299_970),
        (500_400, 299_970),
        (500_050, 299_700),
    ]


def test_a_year_without_plots_is_remembered():
    codes = np.full((2, 40, 50), 2)
    codes[0, 3, 3] = 1
    plots = trace_plots(land_cover_of(codes))
    assert plots.attrs["years"] == [2015, 2016]
    assert trace_plots(land_cover_of(codes[1])).empty


def test_unknown_class_is_refused():
    with pytest.raises(InputRefused, match="coco"):
        trace_plots(land_cover_of(random_codes(0)), class_name="coco")


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 500), rows=st.integers(1, 39), columns=st.integers(1, 49))
def test_tiles_merged_are_the_plots_of_the_whole_map(seed, rows, columns):
    land_cover = land_cover_of(np.stack([random_codes(seed), random_codes(seed + 1)]))
    cuts = [(0, rows, 0, columns), (0, rows, columns, 50), (rows, 40, 0, columns), (rows, 40, columns, 50)]
    parts = [trace_plots(window(land_cover, *cut)) for cut in cuts]
    whole, merged = trace_plots(land_cover), merge_plots(parts[::-1])
    assert shapely.equals(whole.geometry.to_numpy(), merged.geometry.to_numpy()).all()
    columns_checked = ["plot_id", "year", "area_ha", "perimeter_m", "compactness"]
    pd.testing.assert_frame_equal(
        pd.DataFrame(whole)[columns_checked], pd.DataFrame(merged)[columns_checked], rtol=1e-9
    )


def test_merge_refuses_plots_in_two_crs():
    plots = trace_plots(land_cover_of(random_codes(0)))
    with pytest.raises(GridMismatch, match="CRS"):
        merge_plots([plots, plots.to_crs("EPSG:4326")])


# --- a story of ten years ------------------------------------------------------------------------------------


def story():
    """Two plots appear, grow, merge, split, are given up and replanted; a third stays as it is."""
    codes = np.full((10, 40, 50), 2)
    codes[:, 35:39, 40:46] = 1  # C: all ten years
    a, b, bridge = (slice(5, 13), slice(5, 13)), (slice(5, 13), slice(16, 22)), (slice(5, 13), slice(13, 16))
    for year in range(8):
        if year == 0:
            codes[year, 5:9, 5:13] = 1  # A, half its later size
        if 1 <= year <= 5:
            codes[year][a] = 1
        if 2 <= year <= 4:
            codes[year][b] = 1
        if year == 3:
            codes[year][bridge] = 1
    codes[5, 5:13, 5:13] = 1
    codes[8:, 5:13, 5:13] = 1  # A again after two years
    return codes


EXPECTED = [
    (2015, 1, "new"),
    (2015, 2, "new"),
    (2016, 1, "expanded"),
    (2016, 2, "persistent"),
    (2017, 1, "persistent"),
    (2017, 2, "persistent"),
    (2017, 3, "new"),
    (2018, 1, "merged"),
    (2018, 2, "persistent"),
    (2019, 1, "split"),
    (2019, 2, "persistent"),
    (2019, 4, "split"),
    (2020, 1, "persistent"),
    (2020, 2, "persistent"),
    (2020, 4, "abandoned"),
    (2021, 1, "abandoned"),
    (2021, 2, "persistent"),
    (2022, 2, "persistent"),
    (2023, 1, "replanted"),
    (2023, 2, "persistent"),
    (2024, 1, "persistent"),
    (2024, 2, "persistent"),
]


def test_a_scripted_story_of_ten_years_is_recovered_exactly():
    codes = story()
    codes[6:8, 5:13, 5:13] = 2
    tracks = follow_plots(trace_plots(land_cover_of(codes)))
    got = sorted(zip(tracks.year.tolist(), tracks.track_id.tolist(), tracks.event.tolist(), strict=True))
    assert got == sorted(EXPECTED)


def test_ages_parents_and_hectares_of_the_story():
    codes = story()
    plots = trace_plots(land_cover_of(codes))
    tracks = follow_plots(plots).set_index(["year", "track_id"])
    assert tracks.loc[(2018, 1), "parents"] == "1 3"
    assert tracks.loc[(2019, 4), "parents"] == "1"
    assert tracks.loc[(2019, 4), "age_years"] == 4  # the split-off part is as old as the oldest parent of the merger
    assert tracks.loc[(2020, 1), "age_years"] == 5
    assert tracks.loc[(2024, 1), "age_years"] == 1
    assert tracks.loc[(2024, 1), "first_year"] == 2015
    assert tracks.loc[(2024, 2), "age_years"] == 9
    assert tracks.groupby("year").area_ha.sum().to_numpy() == pytest.approx(
        plots.groupby("year").area_ha.sum().to_numpy()
    )
    totals = plots.groupby("year").area_ha.sum().diff().iloc[1:]
    assert tracks.groupby("year").change_ha.sum().iloc[1:].to_numpy() == pytest.approx(totals.to_numpy(), abs=1e-9)


def test_track_ids_do_not_depend_on_the_tiles():
    land_cover = land_cover_of(story())
    whole = follow_plots(trace_plots(land_cover))
    cuts = [(0, 8, 0, 15), (0, 8, 15, 50), (8, 40, 0, 15), (8, 40, 15, 50)]
    tiled = follow_plots(merge_plots([trace_plots(window(land_cover, *cut)) for cut in cuts]))
    columns = ["year", "track_id", "event", "age_years", "parents"]
    pd.testing.assert_frame_equal(pd.DataFrame(whole[columns]), pd.DataFrame(tiled[columns]))


def test_a_plot_under_cloud_is_not_abandoned():
    codes = np.full((3, 40, 50), 2)
    codes[:, 5:13, 5:13] = 1
    codes[1] = 255
    land_cover = land_cover_of(codes)
    plots = trace_plots(land_cover)
    assert follow_plots(plots, land_cover=land_cover).event.tolist() == ["new", "unobserved", "persistent"]
    assert follow_plots(plots).event.tolist() == ["new", "abandoned", "replanted"]


def test_shrunk_beyond_the_threshold():
    codes = np.full((2, 40, 50), 2)
    codes[0, 5:15, 5:15] = codes[1, 5:13, 5:15] = 1
    plots = trace_plots(land_cover_of(codes))
    assert follow_plots(plots).event.tolist() == ["new", "shrunk"]
    assert follow_plots(plots, change_share=0.3).event.tolist() == ["new", "persistent"]


def test_follow_refuses_tables_without_years():
    with pytest.raises(InputRefused, match="year"):
        follow_plots(trace_plots(land_cover_of(random_codes(0))).drop(columns="year"))


def test_tracks_go_through_geopackage_and_geoparquet(tmp_path):
    tracks = follow_plots(trace_plots(land_cover_of(story())))
    tracks.to_parquet(tmp_path / "plots.parquet")
    tracks.to_file(tmp_path / "plots.gpkg")
    for back in (geopandas.read_parquet(tmp_path / "plots.parquet"), geopandas.read_file(tmp_path / "plots.gpkg")):
        assert back.event.tolist() == tracks.event.tolist()
        assert back.geometry.geom_equals(tracks.geometry).all()
