"""Samples: reading, extraction under points and polygons, and splits that share no place."""

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

from geococa.errors import CRSMismatch, GridMismatch, InputRefused, KindMismatch, NoPositives, SampleLeak
from geococa.extraction import extract_samples, sampled_pixels
from geococa.grid import Grid
from geococa.samples import check_no_leak, read_samples, spatial_folds, split_samples, training_table

GRID = Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), (60, 50))
YEARS = pd.to_datetime(["2019-12-31", "2020-12-31", "2021-12-31"])


def stack(shape=(3, 2, 60, 50), grid=GRID, seed=0):
    values = np.random.default_rng(seed).random(shape, dtype=np.float32)
    array = xr.DataArray(
        values,
        dims=("time", "feature", "y", "x"),
        coords={"time": YEARS[: shape[0]], "feature": ["ndvi", "nbr"]},
        attrs={"kind": "features"},
    )
    return grid.attach(array)


def frame(geometries, classes, years=None, crs="EPSG:32618"):
    columns = {"class": classes} | ({} if years is None else {"year": years})
    return geopandas.GeoDataFrame(columns, geometry=list(geometries), crs=crs)


def centre(row, col):
    return shapely.Point(500_000 + 10 * (col + 0.5), 900_000 - 10 * (row + 0.5))


class TestExtraction:
    def test_point_takes_the_pixel_that_holds_it_in_its_own_year(self):
        features = stack()
        table = extract_samples(frame([centre(7, 11)], ["coca"], [2020]), features)
        assert table[["row", "col", "year"]].to_numpy().tolist() == [[7, 11, 2020]]
        expected = features.sel(time="2020").values[0, :, 7, 11]
        np.testing.assert_array_equal(table[["ndvi", "nbr"]].to_numpy()[0], expected)
        assert (table["x"][0], table["y"][0]) == (500_115.0, 899_925.0)

    def test_sample_without_year_takes_every_slice(self):
        table = extract_samples(frame([centre(1, 1)], ["coca"]), stack())
        assert table["year"].tolist() == [2019, 2020, 2021]

    def test_polygon_takes_the_pixels_whose_centre_lies_inside(self):
        polygon = shapely.Polygon([(500_033, 899_800), (500_290, 899_950), (500_200, 899_600)])
        polygon = polygon.difference(shapely.box(500_150, 899_750, 500_200, 899_800))
        table = extract_samples(frame([polygon], ["coca"], [2021]), stack())
        inside = {(row, col) for row in range(60) for col in range(50) if polygon.contains(centre(row, col))}
        assert inside
        assert set(zip(table["row"], table["col"], strict=True)) == inside

    def test_huge_polygon_is_tested_in_strips_with_the_same_result(self, monkeypatch):
        polygon = np.array([shapely.Point(500_250, 899_700).buffer(180)])
        whole = sampled_pixels(polygon, GRID)
        monkeypatch.setattr("geococa.extraction._CELLS_AT_ONCE", 100)
        parts = sampled_pixels(polygon, GRID)
        np.testing.assert_array_equal(whole.row, parts.row)
        np.testing.assert_array_equal(whole.col, parts.col)

    def test_samples_in_another_crs_are_reprojected(self):
        samples = frame([centre(7, 11), shapely.box(500_100, 899_700, 500_200, 899_800)], ["coca", "forest"])
        here, there = (extract_samples(s, stack()) for s in (samples, samples.to_crs("EPSG:4326")))
        pd.testing.assert_frame_equal(here, there)

    def test_rotated_grid_finds_the_same_pixels_as_shapely(self):

        grid = Grid("EPSG:32618", (8, 6, 500_000, 6, -8, 900_000), (40, 40))
        polygon = shapely.Point(500_250, 899_950).buffer(90)
        found = sampled_pixels(np.array([polygon]), grid)
        a, b, c, d, e, f = tuple(grid.transform)[:6]
        expected = {
            (row, col)
            for row in range(40)
            for col in range(40)
            if polygon.contains(
                shapely.Point(a * (col + 0.5) + b * (row + 0.5) + c, d * (col + 0.5) + e * (row + 0.5) + f)
            )
        }
        assert expected
        assert set(zip(found.row, found.col, strict=True)) == expected

    def test_dask_features_give_the_same_table(self):
        samples = frame([centre(7, 11), shapely.box(500_100, 899_500, 500_300, 899_800)], ["coca", "forest"])
        features = stack()
        lazy = features.chunk({"time": 1, "feature": 1, "y": 17, "x": 9})
        pd.testing.assert_frame_equal(extract_samples(samples, features), extract_samples(samples, lazy))

    def test_unobserved_pixels_are_dropped_and_counted(self):
        features = stack()
        features[{"time": 1, "feature": 0, "y": 7, "x": 11}] = np.nan
        table = extract_samples(frame([centre(7, 11)], ["coca"]), features)
        assert table["year"].tolist() == [2019, 2021]
        assert table.attrs["unobserved"] == 1

    def test_pixel_claimed_by_two_classes_is_dropped_and_counted(self):
        boxes = [shapely.box(500_000, 899_900, 500_100, 900_000), shapely.box(500_050, 899_900, 500_200, 900_000)]
        table = extract_samples(frame(boxes, ["coca", "forest"], [2020, 2020]), stack())
        assert table.attrs["conflicting"] == 50
        assert len(table) == 150
        assert not table.duplicated(["row", "col", "year"]).any()

    def test_pixel_may_change_class_between_years(self):
        table = extract_samples(frame([centre(5, 5)] * 2, ["coca", "forest"], [2019, 2021]), stack())
        assert table["class"].tolist() == ["coca", "forest"]
        assert table.attrs["conflicting"] == 0

    def test_pixel_claimed_twice_by_one_class_is_kept_once(self):
        table = extract_samples(frame([centre(5, 5)] * 3, ["coca"] * 3, [2020] * 3), stack())
        assert len(table) == 1
        assert table.attrs["duplicates"] == 2

    def test_left_out_samples_are_counted_by_reason(self):
        geometries = [centre(500, 0), centre(0, 0), shapely.box(500_001, 899_991, 500_003, 899_993)]
        table = extract_samples(frame(geometries, ["coca"] * 3, [2020, 1999, 2020]), stack())
        assert table.empty
        assert [table.attrs[key] for key in ("outside", "other_year", "no_centre")] == [1, 1, 1]

    def test_features_without_time_keep_the_samples_year(self):
        table = extract_samples(frame([centre(5, 5)], ["coca"], [2017]), stack().isel(time=0, drop=True))
        assert table["year"].tolist() == [2017]

    def test_one_selected_year_still_knows_its_year(self):
        table = extract_samples(frame([centre(5, 5)] * 2, ["coca"] * 2, [2019, 2020]), stack().isel(time=1))
        assert table["year"].tolist() == [2020]
        assert table.attrs["other_year"] == 1

    def test_two_dates_of_one_year_are_refused(self):
        features = stack().assign_coords(time=pd.to_datetime(["2019-12-31", "2020-01-31", "2020-12-31"]))
        with pytest.raises(GridMismatch, match="composite"):
            extract_samples(frame([centre(5, 5)], ["coca"]), features)

    def test_label_map_is_refused(self):
        labels = stack().assign_attrs(kind="probability")
        with pytest.raises(KindMismatch):
            extract_samples(frame([centre(5, 5)], ["coca"]), labels)

    @pytest.mark.parametrize(
        ("samples", "error", "words"),
        [
            (frame([centre(1, 1)], [None]), InputRefused, "label or remove"),
            (frame([shapely.LineString([(0, 0), (1, 1)])], ["coca"]), InputRefused, "points or polygons"),
            (frame([shapely.Point()], ["coca"]), InputRefused, "empty"),
            (frame([centre(1, 1)], ["coca"]).rename(columns={"class": "kind"}), InputRefused, "class_column="),
            (frame([centre(1, 1)], ["coca"], crs=None), CRSMismatch, "set_crs"),
        ],
        ids=["no class", "line", "empty point", "no column", "no crs"],
    )
    def test_unusable_samples_are_refused_with_the_remedy(self, samples, error, words):
        with pytest.raises(error, match=words):
            extract_samples(samples, stack())


class TestReading:
    def test_geopackage_and_geojson_and_parquet_give_the_same_samples(self, tmp_path):
        samples = frame([centre(1, 1), centre(2, 2)], ["coca", "other crops"], [2019, 2020])
        samples.to_file(tmp_path / "s.gpkg", driver="GPKG")
        samples.to_parquet(tmp_path / "s.parquet")
        samples.to_crs("EPSG:4326").to_file(tmp_path / "s.geojson", driver="GeoJSON")
        read = [read_samples(tmp_path / f"s.{suffix}") for suffix in ("gpkg", "parquet", "geojson")]
        for table in read:
            assert table["class"].tolist() == ["coca", "other_crops"]
            assert table["year"].tolist() == [2019, 2020]
        assert read[0].crs == read[1].crs == samples.crs

    def test_csv_with_longitude_latitude_and_label_is_read_as_degrees(self, shared_data):
        samples = read_samples(shared_data / "rasters/modis_sinop_2013_2014/samples_sinop_crop.csv")
        assert samples.crs == pyproj.CRS("EPSG:4326")
        assert samples.geometry.iloc[0].coords[0] == (-55.65931, -11.76267)
        assert {"Pasture", "Forest"} <= set(samples["class"])

    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("a.csv", "lon,lat,class\n-200,5,coca\n", "first row 2"),
            ("a.csv", "lon,class\n-70,coca\n", "longitude and latitude"),
            ("a.csv", "lon,lat,kind\n-70,5,coca\n", "class_column="),
            ("a.csv", "lon,lat,class\n-70,5,\n", "drop_unlabelled"),
            ("a.csv", "lon,lat,class,year\n-70,5,coca,2019.5\n", "whole numbers"),
            ("a.gpkg", "<OGRVRTDataSource></OGRVRTDataSource>", "not what its name says"),
            ("a.geojson", "<OGRVRTDataSource></OGRVRTDataSource>", "not what its name says"),
            ("a.geojson", '{"type": "FeatureCollection", "features": [', "can't be read"),
            ("a.vrt", "<OGRVRTDataSource></OGRVRTDataSource>", "samples are read from"),
        ],
    )
    def test_unusable_files_are_refused_with_the_reason(self, tmp_path, name, content, words):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputRefused, match=words):
            read_samples(tmp_path / name)

    def test_missing_file_is_refused(self, tmp_path):
        with pytest.raises(InputRefused, match="no samples at"):
            read_samples(tmp_path / "none.gpkg")

    def test_unlabelled_samples_can_be_left_out(self, tmp_path):
        (tmp_path / "a.csv").write_text("lon,lat,class\n-70,5,coca\n-70,6,\n")
        assert len(read_samples(tmp_path / "a.csv", drop_unlabelled=True)) == 1


def scattered(count=400, seed=1, coca=0.3, polygons=True):
    """A training table of clustered polygon samples over about 20 km."""
    rng = np.random.default_rng(seed)
    sample = np.repeat(np.arange(count), 4 if polygons else 1)
    corner = rng.uniform(0, 20_000, (count, 2))[sample]
    step = np.tile([[0, 0], [0, 10], [10, 0], [10, 10]], (count, 1)) if polygons else 0
    xy = np.floor((corner + step) / 10) * 10 + 5
    names = np.where(rng.random(count) < coca, "coca", np.where(rng.random(count) < 0.5, "forest", "pasture"))
    table = pd.DataFrame({"class": names[sample], "x": 500_000 + xy[:, 0], "y": 900_000 - xy[:, 1], "sample": sample})
    table = table.drop_duplicates(["x", "y"]).reset_index(drop=True)
    table.attrs["crs"] = "EPSG:32618"
    return table


def nearest(a, b):
    difference = a[["x", "y"]].to_numpy()[:, None] - b[["x", "y"]].to_numpy()[None]
    return np.sqrt((difference**2).sum(-1)).min()


class TestSplits:
    def test_training_table_has_blocks_and_refuses_samples_that_see_nothing(self):
        table = training_table(frame([centre(5, 5), centre(59, 49)], ["coca", "forest"]), stack(), block_m=100)
        assert table["block"].nunique() == 2
        with pytest.raises(InputRefused, match="none of the 1 samples"):
            training_table(frame([centre(500, 500)], ["coca"]), stack())

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 10_000), block=st.sampled_from([300.0, 1000.0, 4000.0]), share=st.floats(0.1, 0.6))
    def test_split_shares_no_pixel_sample_or_block(self, seed, block, share):
        table = scattered(120, seed=seed)
        train, test = split_samples(table, share, block_m=block, seed=seed, positive=None)
        assert len(train) + len(test) == len(table)
        assert not set(train["sample"]) & set(test["sample"])
        check_no_leak(train, test, block)

    def test_split_meets_the_share_of_every_class(self):
        _, test = split_samples(scattered(), 0.3, block_m=1000, seed=3)
        whole = scattered()["class"].value_counts()
        np.testing.assert_allclose(test["class"].value_counts() / whole, 0.3, atol=0.03)

    def test_buffer_is_honoured_between_the_sides(self):
        train, test = split_samples(scattered(), 0.3, block_m=2000, buffer_m=400, seed=3)
        assert len(train)
        assert nearest(train, test) >= 400 * 0.999
        assert nearest(*split_samples(scattered(), 0.3, block_m=2000, seed=3)) < 400

    def test_same_seed_same_split_and_another_seed_another(self):
        table = scattered()
        first, again, other = (split_samples(table, block_m=1000, seed=seed)[1].index for seed in (4, 4, 5))
        assert first.equals(again)
        assert not first.equals(other)

    def test_folds_test_every_row_once_and_never_split_a_sample(self):
        table = scattered()
        folds = spatial_folds(table, 5, block_m=1000, seed=2)
        assert np.array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(len(table)))
        for train, test in folds:
            check_no_leak(table.iloc[train], table.iloc[test], 1000)

    def test_folds_are_balanced_in_the_rare_class(self):
        table = scattered(coca=0.08)
        counts = [(table["class"].iloc[test] == "coca").sum() for _, test in spatial_folds(table, 4, block_m=1000)]
        assert max(counts) - min(counts) <= 4

    def test_folds_honour_the_buffer(self):
        table = scattered(200)
        for train, test in spatial_folds(table, 3, block_m=3000, buffer_m=500):
            assert nearest(table.iloc[train], table.iloc[test]) >= 500 * 0.999

    def test_fold_without_positives_raises(self):
        table = scattered(60, coca=0.0)
        table.loc[table["sample"] == 0, "class"] = "coca"
        with pytest.raises(NoPositives, match="coca"):
            spatial_folds(table, 3, block_m=1000)
        assert len(spatial_folds(table, 3, block_m=1000, positive=None)) == 3

    def test_one_shared_pixel_raises(self):
        train, test = split_samples(scattered(), block_m=1000)
        with pytest.raises(SampleLeak, match=r"1 of \d+ test rows share a pixel"):
            check_no_leak(train, pd.concat([test, train.iloc[[5]]]))

    def test_one_shared_block_raises(self):
        train, test = split_samples(scattered(), block_m=500)
        moved = train.iloc[[5]].assign(x=train["x"].iloc[5] + 0.5, sample=10_000)
        with pytest.raises(SampleLeak, match="block of 500 m"):
            check_no_leak(train, pd.concat([test, moved]), 500)

    def test_one_place_seen_from_two_utm_zones_stays_on_one_side(self):
        rng = np.random.default_rng(5)
        lon, lat = -72 + rng.uniform(-0.05, 0.05, 300), 8.5 + rng.uniform(-0.05, 0.05, 300)
        crs = {"18P": "EPSG:32618", "19P": "EPSG:32619"}
        parts = []
        for tile, code in crs.items():
            x, y = pyproj.Transformer.from_crs("EPSG:4326", code, always_xy=True).transform(lon, lat)
            parts.append(
                pd.DataFrame({"class": ["coca", "forest"] * 150, "x": x, "y": y, "tile": tile, "place": range(300)})
            )
        table = pd.concat(parts, ignore_index=True)
        train, test = split_samples(table, 0.4, block_m=500, crs=crs)
        assert not set(train["place"]) & set(test["place"])

    def test_table_that_hides_its_crs_is_refused(self):
        table = scattered()
        table.attrs = {}
        with pytest.raises(CRSMismatch, match="crs="):
            split_samples(table)

    def test_geographic_blocks_have_the_stated_size_on_the_ground(self):
        lon, lat = np.meshgrid(np.linspace(-72, -71.9, 200), np.linspace(8, 8.1, 200))
        table = pd.DataFrame({"x": lon.ravel(), "y": lat.ravel()})
        from geococa.samples import spatial_blocks

        blocks = spatial_blocks(table, 1000.0, crs="EPSG:4326")
        geod = pyproj.Geod(ellps="WGS84")
        for number in np.unique(blocks)[20:25]:
            inside = table[blocks == number]
            width = geod.inv(inside["x"].min(), 8.05, inside["x"].max(), 8.05)[2]
            assert width <= 1010
