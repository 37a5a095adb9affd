"""Accuracy and area: printed cases, textbook formulas, coverage by simulation, designs and guards."""

from __future__ import annotations

import json

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from geococa.accuracy import ErrorMatrix, adjusted_area, allocate, domain_area, error_matrix, sample_design, sample_size
from geococa.errors import AccuracyError, NoPositives
from geococa.grid import Grid
from geococa.legend import Legend
from tests import oracles_statistics as oracle


def case(shared_data, name):
    return json.loads((shared_data / "cases" / name).read_text())


class TestPrintedCases:
    def test_olofsson_2014_table_8_to_the_printed_digits(self, shared_data):
        data = case(shared_data, "olofsson_2014_table8.json")
        expected = data["expected"]
        hectares = np.array(data["mapped_pixels"]) * data["pixel_area_m2"] / 10_000
        table = adjusted_area(data["error_matrix_rows_map"], classes=data["classes"], mapped_area_ha=hectares)
        assert table["area_ha"].round().tolist() == expected["paper_area_ha"]
        assert (1.96 * table["se_ha"]).round().tolist() == expected["paper_ci95_ha"]
        for column, key in (
            ("users_accuracy", "UA"),
            ("users_se", "SE_UA"),
            ("producers_accuracy", "PA"),
            ("producers_se", "SE_PA"),
        ):
            np.testing.assert_allclose(table[column], expected[key], rtol=1e-10)
        np.testing.assert_allclose(table["se_ha"] / hectares.sum(), expected["SE_area"], rtol=1e-10)
        assert table.attrs["overall_accuracy"] == pytest.approx(expected["OA"], abs=1e-12)
        assert table.attrs["overall_se"] == pytest.approx(expected["SE_OA"], abs=1e-12)

    def test_acatama_tinigua_to_the_printed_digits(self, shared_data):
        data = case(shared_data, "acatama_tinigua_simple.json")
        expected = data["expected"]
        table = adjusted_area(
            data["error_matrix_rows_map"], classes=data["classes"], mapped_area_ha=data["mapped_ha"], design="simple",
            population_px=data["pixel_count"], variance="plug_in", confidence=2 * norm.cdf(1.96) - 1,
        )  # fmt: skip
        columns = {"area_ha": "area_ha", "se_ha": "SE_ha", "ci_low_ha": "lower", "ci_high_ha": "upper"}
        for column, key in columns.items():
            np.testing.assert_allclose(table[column], expected[key], atol=6e-6)
        accuracies = {"users_accuracy": "UA", "users_se": "SE_UA", "producers_accuracy": "PA", "producers_se": "SE_PA"}
        for column, key in accuracies.items():
            np.testing.assert_allclose(table[column], expected[key], atol=6e-6)
        assert table.attrs["overall_accuracy"] == expected["OA"]
        assert table.attrs["overall_se"] == pytest.approx(expected["SE_OA"], abs=5e-6)

    def test_unbiased_variance_of_a_simple_sample_is_larger_by_n_over_n_minus_one(self, shared_data):
        data = case(shared_data, "acatama_tinigua_simple.json")
        options = {"classes": data["classes"], "mapped_area_ha": data["mapped_ha"], "design": "simple"}
        right = adjusted_area(data["error_matrix_rows_map"], **options)["se_ha"]
        plug = adjusted_area(data["error_matrix_rows_map"], variance="plug_in", **options)["se_ha"]
        np.testing.assert_allclose((right / plug) ** 2, 500 / 499, rtol=1e-9)


matrices = st.integers(2, 5).flatmap(
    lambda k: st.tuples(
        st.lists(st.lists(st.integers(1, 60), min_size=k, max_size=k), min_size=k, max_size=k),
        st.lists(st.floats(10, 1e6), min_size=k, max_size=k),
    )
)


class TestStratified:
    @settings(max_examples=40, deadline=None)
    @given(matrices)
    def test_any_matrix_agrees_with_the_equations_term_by_term(self, drawn):
        counts, area = np.array(drawn[0]), np.array(drawn[1])
        table = adjusted_area(counts, mapped_area_ha=area)
        expected = oracle.olofsson(counts, area)
        for column, key in (
            ("area_ha",) * 2,
            ("se_ha",) * 2,
            ("users_accuracy", "users"),
            ("users_se",) * 2,
            ("producers_accuracy", "producers"),
        ):
            np.testing.assert_allclose(table[column], expected[key], rtol=1e-9)
        assert table.attrs["overall_se"] == pytest.approx(expected["overall_se"], rel=1e-9)
        assert table["area_ha"].sum() == pytest.approx(area.sum(), rel=1e-12)

    def test_strata_other_than_the_map_classes_agree_with_a_hand_calculation(self):
        # stratum a: 3 of 4 units coca; stratum b: 1 of 5; weights 0.2 and 0.8
        reference = ["coca", "coca", "coca", "forest", "coca", "forest", "forest", "forest", "forest"]
        mapped = ["coca", "coca", "forest", "coca", "forest", "forest", "forest", "coca", "forest"]
        strata = ["a"] * 4 + ["b"] * 5
        table = adjusted_area(error_matrix(reference, mapped, strata=strata), mapped_area_ha={"a": 200.0, "b": 800.0})
        assert table.loc["coca", "area_ha"] == pytest.approx(1000 * (0.2 * 3 / 4 + 0.8 * 1 / 5))
        variance = 0.2**2 * (3 / 4 * 1 / 4 * 4 / 3) / 4 + 0.8**2 * (1 / 5 * 4 / 5 * 5 / 4) / 5
        assert table.loc["coca", "se_ha"] == pytest.approx(1000 * variance**0.5)
        users = (0.2 * 2 / 4) / (0.2 * 3 / 4 + 0.8 * 1 / 5)
        assert table.loc["coca", "users_accuracy"] == pytest.approx(users)
        # Stehman (2014), equation 28, with y = both and x = mapped coca
        y = [np.array([1, 1, 0, 0.0]), np.array([0, 0, 0, 0, 0.0])]
        x = [np.array([1, 1, 0, 1.0]), np.array([0, 0, 0, 1, 0.0])]
        total = 0.2 * x[0].mean() + 0.8 * x[1].mean()
        spread = sum(
            w**2 * (yy.var(ddof=1) + users**2 * xx.var(ddof=1) - 2 * users * np.cov(yy, xx)[0, 1]) / len(yy)
            for w, yy, xx in zip((0.2, 0.8), y, x, strict=True)
        )
        assert table.loc["coca", "users_se"] == pytest.approx(spread**0.5 / total)

    def test_estimated_proportions_sum_to_one_and_to_the_areas(self):
        matrix = ErrorMatrix.from_counts([[40, 10], [5, 95]], ["coca", "other"])
        shares = matrix.proportions({"coca": 100.0, "other": 900.0})
        assert shares.to_numpy().sum() == pytest.approx(1)
        table = adjusted_area(matrix, mapped_area_ha={"coca": 100.0, "other": 900.0})
        np.testing.assert_allclose(shares.sum(axis=0) * 1000, table["area_ha"])

    def test_f1_agrees_with_the_weighted_matrix(self):
        matrix = ErrorMatrix.from_counts([[40, 10], [5, 95]], ["coca", "other"])
        p = matrix.proportions([100.0, 900.0]).to_numpy()
        table = adjusted_area(matrix, mapped_area_ha=[100.0, 900.0])
        assert table.loc["coca", "f1"] == pytest.approx(2 * p[0, 0] / (p[0].sum() + p[:, 0].sum()))

    def test_reference_class_absent_from_the_map_is_estimated(self):
        table = adjusted_area(
            error_matrix(["coca", "forest", "forest", "forest"], ["forest"] * 4), mapped_area_ha={"forest": 400.0}
        )
        assert table.loc["coca", "area_ha"] == pytest.approx(100)
        assert np.isnan(table.loc["coca", "users_accuracy"])

    def test_pixel_counting_bias_stands_beside_the_estimate(self):
        table = adjusted_area([[60, 40], [1, 399]], classes=["coca", "other"], mapped_area_ha=[100.0, 900.0])
        assert table.loc["coca", "bias_ha"] == pytest.approx(100 - (60 + 900 / 400))

    def test_counts_agree_with_scikit_learn(self):
        from sklearn.metrics import confusion_matrix

        rng = np.random.default_rng(0)
        names = ["coca", "forest", "pasture"]
        truth, guess = rng.choice(names, (2, 200))
        ours = error_matrix(truth, guess, names).counts.to_numpy()
        np.testing.assert_array_equal(ours.T, confusion_matrix(truth, guess, labels=names))


class TestOtherDesigns:
    def test_post_stratified_variance_is_cochrans_and_larger_than_the_conditional_one(self):
        counts, area = np.array([[40, 10], [5, 95]]), np.array([300.0, 700.0])
        post = adjusted_area(counts, mapped_area_ha=area, design="post_stratified")
        fixed = adjusted_area(counts, mapped_area_ha=area)
        assert post["area_ha"].tolist() == fixed["area_ha"].tolist()
        weight, n = area / area.sum(), counts.sum(axis=1)
        spread = (counts[:, 0] / n) * (1 - counts[:, 0] / n) * n / (n - 1)
        expected = (weight * spread).sum() / n.sum() + ((1 - weight) * spread).sum() / n.sum() ** 2
        assert post["se_ha"].iloc[0] == pytest.approx(1000 * expected**0.5)

    def test_systematic_is_treated_as_simple(self):
        options = {"classes": ["a", "b"], "mapped_area_ha": [10.0, 20.0]}
        simple, systematic = (adjusted_area([[9, 1], [2, 18]], design=d, **options) for d in ("simple", "systematic"))
        pd.testing.assert_frame_equal(simple, systematic, check_like=False)

    def test_whole_population_sampled_has_no_error(self):
        table = adjusted_area([[9, 1], [2, 18]], mapped_area_ha=[10.0, 20.0], population_px=[10, 20])
        assert table["se_ha"].max() == 0


class TestMissingLabels:
    @pytest.mark.parametrize("nothing", [None, np.nan, "", "  "])
    def test_a_sample_without_a_class_is_refused_not_made_a_class(self, nothing):
        with pytest.raises(AccuracyError, match="1 of 3 samples have no reference class"):
            error_matrix(["coca", nothing, "forest"], ["coca", "forest", "forest"])

    def test_a_sample_without_a_stratum_is_refused(self):
        with pytest.raises(AccuracyError, match="no stratum"):
            error_matrix(["coca", "forest"], ["coca", "forest"], strata=["a", None])

    def test_samples_in_no_zone_form_no_zone(self):
        labels = ["coca", "forest"] * 40
        matrix = error_matrix(labels, labels, domain=pd.Series(["park", None] * 20 + ["park", np.nan] * 20))
        assert domain_area(matrix, mapped_area_ha=[1.0, 9.0]).index.tolist() == ["park"]


class TestFlagsAndGuards:
    def test_wilsons_interval_of_samples_that_all_agree_is_not_called_zero_width(self):
        matrix = error_matrix(["coca"] * 20 + ["other"] * 50, ["coca"] * 20 + ["other"] * 50)
        row = adjusted_area(matrix, mapped_area_ha=[1.0, 9.0], interval="wilson").loc["coca"]
        assert row["ci_low_ha"] < row["area_ha"] < row["ci_high_ha"]
        assert row["note"].startswith("standard error 0")

    @pytest.mark.parametrize("interval", ["normal", "logit", "wilson"])
    def test_a_single_sample_in_a_stratum_gives_no_hectares_at_all(self, interval):
        matrix = error_matrix(["coca"] + ["other"] * 60, ["coca"] + ["other"] * 60, domain=["park"] * 61)
        areas = {"coca": 1.0, "other": 9.0}
        figures = ["area_ha", "se_ha", "ci_low_ha", "ci_high_ha"]
        assert adjusted_area(matrix, mapped_area_ha=areas, interval=interval)[figures].isna().all(axis=None)
        park = domain_area(matrix, mapped_area_ha=areas, interval=interval).loc["park"]
        assert park["status"] == "not estimable"
        assert park[figures].isna().all()

    def test_a_zone_whose_interval_has_no_width_says_so(self):
        labels = ["coca"] * 30 + ["other"] * 90
        matrix = error_matrix(labels, labels, domain=["near"] * 60 + ["far"] * 60)
        areas = {"coca": 5.0, "other": 95.0}
        assert domain_area(matrix, mapped_area_ha=areas).loc["far", "ci_high_ha"] > 0
        normal = domain_area(matrix, mapped_area_ha=areas, interval="normal").loc["far"]
        assert normal["ci_high_ha"] == 0
        assert normal["note"].startswith("zero-width")

    def test_zero_width_interval_is_flagged_and_wilson_has_a_width(self):
        table = adjusted_area([[50, 0], [0, 50]], classes=["coca", "other"], mapped_area_ha=[1.0, 9.0])
        assert table["note"].str.startswith("zero-width").all()
        assert 0.9 < table.loc["coca", "users_ci_low"] < 0.94
        assert table.loc["coca", "users_ci_high"] == 1

    def test_single_unit_in_a_stratum_is_not_estimable(self):
        table = adjusted_area([[1, 0], [3, 50]], classes=["coca", "other"], mapped_area_ha=[1.0, 9.0])
        assert table["se_ha"].isna().all()
        assert table["note"].str.startswith("not estimable").all()

    def test_stratum_with_area_but_no_sample_raises(self):
        with pytest.raises(AccuracyError, match="no sample"):
            adjusted_area([[0, 0], [3, 50]], classes=["coca", "other"], mapped_area_ha=[1.0, 9.0])

    def test_area_of_an_unknown_stratum_raises(self):
        matrix = error_matrix(["coca", "forest"], ["coca", "forest"])
        with pytest.raises(AccuracyError, match="water"):
            adjusted_area(matrix, mapped_area_ha={"coca": 1.0, "forest": 2.0, "water": 3.0})

    def test_logit_interval_never_reaches_zero(self):
        options = {"classes": ["coca", "other"], "mapped_area_ha": [1.0, 999.0]}
        normal = adjusted_area([[20, 5], [1, 300]], **options)
        logit = adjusted_area([[20, 5], [1, 300]], interval="logit", **options)
        assert normal.loc["coca", "ci_low_ha"] == 0
        assert 0 < logit.loc["coca", "ci_low_ha"] < logit.loc["coca", "area_ha"] < logit.loc["coca", "ci_high_ha"]

    def test_test_set_without_coca_raises(self):
        with pytest.raises(NoPositives, match="coca"):
            error_matrix(["forest", "forest"], ["coca", "forest"])
        with pytest.raises(NoPositives, match="no reference sample"):
            error_matrix([], [])
        assert error_matrix(["forest"], ["coca"], positive=None).n == 1

    @pytest.mark.parametrize(
        ("call", "words"),
        [
            (lambda: error_matrix(["coca"], ["coca", "coca"]), "one length"),
            (lambda: error_matrix(["coca", "mud"], ["coca", "coca"], ["coca", "forest"]), "mud"),
            (lambda: error_matrix(["coca"], ["coca"], design="cluster"), "design must be"),
            (lambda: ErrorMatrix.from_counts([[0.5, 0.5], [0.1, 0.9]]), "percentages"),
            (lambda: ErrorMatrix.from_counts([[1, 2, 3], [3, 4, 5]]), "square"),
            (lambda: adjusted_area([[5, 5], [5, 5]], mapped_area_ha=[1.0, -1.0]), "hectares of each"),
            (lambda: adjusted_area([[5, 5], [5, 5]], mapped_area_ha=[1.0, 1.0], confidence=95), "confidence"),
            (lambda: adjusted_area([[5, 5], [5, 5]], mapped_area_ha=[1.0, 1.0], interval="exact"), "interval must be"),
        ],
    )
    def test_misuse_is_refused(self, call, words):
        with pytest.raises(AccuracyError, match=words):
            call()


def landscape_map(shape=(120, 150), seed=0, years=None, grid=None):
    rng = np.random.default_rng(seed)
    grid = grid or Grid("EPSG:32618", (10, 0, 500_000, 0, -10, 900_000), shape)
    codes = rng.choice([1, 2, 3, 255], p=[0.05, 0.6, 0.3, 0.05], size=(len(years) if years else 1, *shape)).astype(
        np.uint8
    )
    dates = pd.DatetimeIndex([f"{year}-12-31" for year in years or [2020]]).astype("datetime64[ns]")
    array = xr.DataArray(codes, dims=("time", "y", "x"), coords={"time": dates})
    array.attrs = {"kind": "land_cover", **Legend.of(["coca", "forest", "pasture"]).to_attrs()}
    return grid.attach(array if years else array.isel(time=0))


class TestMapAndSamples:
    def test_map_is_read_under_points_in_another_crs_in_their_year(self):
        maps = landscape_map(years=[2019, 2020])
        rng = np.random.default_rng(1)
        row, col, year = rng.integers(0, 120, 80), rng.integers(0, 150, 80), rng.choice([2019, 2020], 80)
        expected = maps.values[year - 2019, row, col]
        points = geopandas.points_from_xy(maps["x"].values[col], maps["y"].values[row], crs="EPSG:32618")
        samples = geopandas.GeoDataFrame({"class": "coca", "year": year}, geometry=points).to_crs("EPSG:4326")
        matrix = error_matrix(samples, maps)
        seen = expected != 255
        assert matrix.left_out["unobserved"] == (~seen).sum() > 0
        np.testing.assert_array_equal(matrix.mapped, expected[seen] - 1)

    def test_points_outside_and_of_other_years_are_counted(self):
        maps = landscape_map(years=[2019, 2020])
        points = [shapely.Point(0, 0), shapely.Point(500_005, 899_995), shapely.Point(500_995, 899_005)]
        samples = geopandas.GeoDataFrame(
            {"class": ["coca"] * 3, "year": [2019, 1999, 2020]}, geometry=points, crs="EPSG:32618"
        )
        assert error_matrix(samples, maps).left_out["outside"] == 1
        assert error_matrix(samples, maps).left_out["other_year"] == 1

    def test_polygons_and_yearless_samples_of_a_series_are_refused(self):
        maps = landscape_map(years=[2019, 2020])
        boxes = geopandas.GeoDataFrame(
            {"class": ["coca"]}, geometry=[shapely.box(500_000, 899_900, 500_100, 900_000)], crs="EPSG:32618"
        )
        with pytest.raises(AccuracyError, match="one point a polygon"):
            error_matrix(boxes, maps)
        with pytest.raises(AccuracyError, match="select one year"):
            error_matrix(boxes.set_geometry(boxes.centroid), maps)


class TestDesigns:
    @settings(max_examples=60, deadline=None)
    @given(
        areas=st.lists(st.floats(0.5, 1e6), min_size=1, max_size=8),
        n=st.integers(16, 2000),
        how=st.sampled_from(["neyman", "proportional", "equal"]),
    )
    def test_allocation_sums_to_n_and_leaves_no_stratum_without_a_variance(self, areas, n, how):
        units = allocate({f"s{k}": area for k, area in enumerate(areas)}, n, allocation=how, target="s0")
        assert units.sum() == n
        assert units.min() >= 2

    def test_neyman_allocation_beats_the_others_where_the_expectation_holds(self):
        area = {"coca": 500.0, "forest": 8000.0, "pasture": 1500.0}
        share = {"coca": 0.7, "forest": 0.01, "pasture": 0.05}

        def variance(how):
            units = allocate(area, 600, allocation=how, expected_share=share)
            return sum(area[k] ** 2 * share[k] * (1 - share[k]) / units[k] for k in area)

        assert variance("neyman") < min(variance(how) for how in ("proportional", "equal", "floor"))

    @pytest.mark.parametrize("how", ["neyman", "proportional", "equal", "floor"])
    def test_sample_size_reaches_the_standard_error_and_no_fewer_units_do(self, how):
        area = {"coca": 500.0, "forest": 8000.0, "pasture": 1500.0}
        units = sample_size(40.0, area, allocation=how)
        assert units.attrs["se_ha"] <= 40
        share = {"coca": 0.7, "forest": 0.02, "pasture": 0.02}
        fewer = allocate(area, int(units.sum()) - 1, allocation=how)
        assert sum(area[k] ** 2 * share[k] * (1 - share[k]) / fewer[k] for k in area) ** 0.5 > 40

    def test_stratified_points_lie_in_their_stratum_with_their_inclusion_probability(self):
        land_cover = landscape_map()
        points = sample_design(land_cover, 300, allocation="floor", seed=3)
        codes = Legend.from_attrs(land_cover.attrs)
        for name, group in points.groupby("stratum"):
            pixels = int((land_cover.values == codes.code(name)).sum())
            np.testing.assert_allclose(group["inclusion_probability"], len(group) / pixels)
            assert group["stratum_area_ha"].iloc[0] == pytest.approx(pixels * 0.01, rel=5e-3)
        x, y = land_cover["x"].values[points["col"]], land_cover["y"].values[points["row"]]
        np.testing.assert_allclose(points.geometry.x, x)
        np.testing.assert_allclose(points.geometry.y, y)
        assert len(points) == 300
        assert not points.duplicated(["row", "col"]).any()
        assert points["class"].isna().all()

    def test_same_seed_same_points_another_seed_others(self):
        a, b, c = (sample_design(landscape_map(), 100, seed=seed) for seed in (5, 5, 6))
        assert a.equals(b)
        assert not a[["row", "col"]].equals(c[["row", "col"]])

    def test_lazy_map_gives_the_same_points(self):
        land_cover = landscape_map()
        assert sample_design(land_cover, 100).equals(sample_design(land_cover.chunk({"y": 50}), 100))

    @pytest.mark.parametrize("design", ["simple", "systematic"])
    def test_other_designs_draw_observed_pixels_only(self, design):
        land_cover = landscape_map()
        points = sample_design(land_cover, 200, design=design, seed=1)
        assert (land_cover.values[points["row"], points["col"]] != 255).all()
        assert len(points) == pytest.approx(200, rel=0.15)

    def test_points_survive_a_geopackage_and_can_be_labelled(self, tmp_path):
        points = sample_design(landscape_map(years=[2019, 2020]), 60)
        points.to_file(tmp_path / "points.gpkg", driver="GPKG")
        back = geopandas.read_file(tmp_path / "points.gpkg")
        assert {"stratum", "year", "inclusion_probability", "class"} <= set(back.columns)
        assert back["year"].value_counts().to_dict() == {2019: 60, 2020: 60}

    def test_every_pixel_of_a_stratum_is_drawn_equally_often(self):
        land_cover = landscape_map((12, 12), seed=2)
        counts = np.zeros((12, 12))
        for seed in range(120):
            points = sample_design(land_cover, 30, seed=seed)
            counts[points["row"], points["col"]] += 1
        for code in (2, 3):
            inside = counts[land_cover.values == code]
            expected = inside.mean()
            assert np.abs(inside - expected).max() < 5 * expected**0.5

    def zones(self):
        shapes = [shapely.box(500_100, 899_300, 500_600, 899_900), shapely.box(500_500, 899_000, 501_300, 899_700)]
        return geopandas.GeoDataFrame({"zone": ["north", "south"]}, geometry=shapes, crs="EPSG:32618")

    @pytest.mark.parametrize("design", ["stratified", "simple", "systematic"])
    def test_points_are_drawn_within_zones_only(self, design):
        zones, land_cover = self.zones(), landscape_map()
        points = sample_design(land_cover, 150, design=design, zones=zones.to_crs("EPSG:4326"))
        assert points.within(zones.union_all()).all()
        codes, legend = land_cover.values, Legend.from_attrs(land_cover.attrs)
        x, y = np.meshgrid(land_cover["x"], land_cover["y"])
        inside = shapely.contains_xy(zones.union_all(), x, y)
        for name, part in points.groupby("stratum"):
            pixels = int((inside & (codes == legend.code(name))).sum())
            assert part["stratum_area_ha"].iloc[0] == pytest.approx(0.01 * pixels, rel=2e-3)

    def test_classes_of_zones_are_strata_of_their_own(self):
        zones = self.zones()
        points = sample_design(landscape_map(), 240, zones=zones, by_zone=True, allocation="equal")
        assert points["stratum"].nunique() == 6
        for name, part in points.groupby("stratum"):
            zone = zones.set_index("zone").loc[name.split(": ")[0], "geometry"]
            assert part.within(zone).all()
            size = part["stratum_area_ha"].iloc[0] / 0.01
            assert part["inclusion_probability"].iloc[0] == pytest.approx(len(part) / size, rel=2e-3)
        # the overlap belongs to the first
        overlap = zones.geometry.iloc[0].intersection(zones.geometry.iloc[1])
        assert points[points.within(overlap)]["stratum"].str.startswith("north").all()
        with pytest.raises(AccuracyError, match="need zones"):
            sample_design(landscape_map(), 100, by_zone=True)

    def test_too_many_points_are_refused(self):
        with pytest.raises(AccuracyError, match="too few"):
            sample_design(landscape_map((20, 20)), 200, allocation="equal")
        with pytest.raises(AccuracyError, match="observed pixels"):
            sample_design(landscape_map((20, 20)), 2000, design="simple")


class TestClusters:
    def drawn(self, seed=0, clusters=60):
        rng = np.random.default_rng(seed)
        size = rng.integers(1, 7, clusters)
        cluster = np.repeat(np.arange(clusters), size)
        stratum = np.repeat(rng.choice(["near", "far"], clusters), size)
        reference = np.where(rng.random(len(cluster)) < np.repeat(rng.random(clusters), size), "coca", "forest")
        mapped = np.where(rng.random(len(cluster)) < 0.8, reference, "coca")
        return reference, mapped, stratum, cluster

    def test_clusters_of_one_unit_change_nothing(self):
        reference, mapped, stratum, _ = self.drawn()
        for design in ("simple", "stratified"):
            plain, single = (
                adjusted_area(
                    error_matrix(reference, mapped, strata=stratum, cluster=cluster, design=design),
                    mapped_area_ha={"near": 20.0, "far": 80.0},
                )
                for cluster in (None, np.arange(len(reference)))
            )
            np.testing.assert_allclose(single[["area_ha", "se_ha"]], plain[["area_ha", "se_ha"]])
            np.testing.assert_allclose(single["ci_low_ha"], plain["ci_low_ha"], rtol=1e-6)

    def test_units_looked_at_twice_are_worth_no_more(self):
        reference, mapped, stratum, _ = self.drawn()
        twice = [np.repeat(part, 2) for part in (reference, mapped, stratum)]
        area = {"near": 20.0, "far": 80.0}
        once = adjusted_area(error_matrix(reference, mapped, strata=stratum), mapped_area_ha=area)
        cluster = np.repeat(np.arange(len(reference)), 2)
        again = adjusted_area(error_matrix(*twice[:2], strata=twice[2], cluster=cluster), mapped_area_ha=area)
        for column in ("area_ha", "se_ha", "users_accuracy", "users_se", "producers_accuracy", "producers_se", "f1_se"):
            np.testing.assert_allclose(again[column], once[column])
        naive = adjusted_area(error_matrix(*twice[:2], strata=twice[2]), mapped_area_ha=area)
        assert (naive["se_ha"] < 0.75 * once["se_ha"]).all()

    def test_standard_errors_agree_with_statsmodels(self):
        sm = pytest.importorskip("statsmodels.api")
        reference, mapped, _, cluster = self.drawn()
        table = adjusted_area(
            error_matrix(reference, mapped, cluster=cluster, design="simple"),
            mapped_area_ha={"coca": 30.0, "forest": 70.0},
        )
        hit = (reference == "coca").astype(float)
        fit = sm.OLS(hit, np.ones_like(hit)).fit(cov_type="cluster", cov_kwds={"groups": cluster})
        assert table.loc["coca", "area_ha"] == pytest.approx(100 * fit.params[0])
        assert table.loc["coca", "se_ha"] == pytest.approx(100 * fit.bse[0], rel=1e-6)

    @pytest.mark.parametrize("kind", ["wilson", "normal"])
    def test_intervals_hold_where_neighbours_are_alike(self, kind):
        rng = np.random.default_rng(4)
        held = {"clusters": 0, "ignored": 0}
        for _ in range(150):
            share = rng.beta(0.3, 1.2, 80)
            cluster = np.repeat(np.arange(80), 5)
            reference = np.where(rng.random(400) < share[cluster], "coca", "forest")
            for name, groups in (("clusters", cluster), ("ignored", None)):
                matrix = error_matrix(reference, reference, cluster=groups, design="simple")
                row = adjusted_area(matrix, mapped_area_ha=[20.0, 80.0], interval=kind).loc["coca"]
                held[name] += row["ci_low_ha"] <= 20 <= row["ci_high_ha"]
        assert held["clusters"] > 0.88 * 150 > held["ignored"]

    def test_clusters_across_strata_need_another_design(self):
        reference, mapped, _, cluster = self.drawn()
        matrix = error_matrix(reference, mapped, cluster=cluster)
        with pytest.raises(AccuracyError, match="post_stratified"):
            adjusted_area(matrix, mapped_area_ha=[20.0, 80.0])
        table = adjusted_area(matrix, mapped_area_ha=[20.0, 80.0], design="post_stratified")
        assert (table["se_ha"] > 0).all()

    def test_units_without_a_cluster_are_refused(self):
        with pytest.raises(AccuracyError, match="no cluster"):
            error_matrix(["coca"] * 2, ["coca"] * 2, cluster=["a", None])


class TestDefaultInterval:
    def test_rare_class_gets_wilson_and_others_the_normal_interval(self):
        reference = ["coca"] * 90 + ["forest"] * 10 + ["coca"] * 2 + ["forest"] * 398
        mapped = ["coca"] * 100 + ["forest"] * 400
        area = {"coca": 500.0, "forest": 9500.0}
        table = adjusted_area(error_matrix(reference, mapped), mapped_area_ha=area)
        assert table["interval"].tolist() == ["wilson", "wilson"]
        half = adjusted_area(
            error_matrix(reference[:100] * 5, mapped[:100] * 5, ["coca", "forest"]), mapped_area_ha=[1.0, 0.0]
        )
        assert half["interval"].tolist() == ["normal", "normal"]

    def test_printed_tables_keep_the_interval_that_is_printed_with_them_and_say_where_it_fails(self):
        options = {"classes": ["coca", "forest"], "mapped_area_ha": [500.0, 9500.0]}
        table = adjusted_area([[90, 10], [2, 398]], **options)
        assert table["interval"].tolist() == ["normal"] * 2
        np.testing.assert_allclose(table["ci_high_ha"] - table["area_ha"], table["margin_ha"])
        assert table.loc["coca", "note"].startswith("few samples decide")
        wilson = adjusted_area([[90, 10], [2, 398]], interval="wilson", **options)
        assert wilson.loc["coca", "ci_high_ha"] > table.loc["coca", "ci_high_ha"]


SCENES = {
    "errors of commission and omission": (0.72, 0.015, 0.06),
    "omission almost never": (0.72, 0.005, 0.01),
    "omission often": (0.72, 0.03, 0.06),
}
WEIGHT = np.array([0.04, 0.76, 0.20])
IN_PARK = np.array([0.5, 0.25, 0.4])
NAMES = np.array(["coca", "forest", "pasture"])


def simulate(repeats, share, *, n=600, seed=0, design="stratified"):
    """Coverage, bias and width of the hectares of coca where the truth is known, as a whole and in a park."""
    rng = np.random.default_rng(seed)
    share = np.array(share)
    area = dict(zip(NAMES, 10_000 * WEIGHT, strict=True))
    park_ha = 10_000 * (WEIGHT * IN_PARK).sum()
    truth = {"whole": 10_000 * (WEIGHT * share).sum()} | dict.fromkeys(
        ("park", "park ratio"), 10_000 * (WEIGHT * share * IN_PARK).sum()
    )
    units = allocate(area, n, allocation="floor", floor=100)
    rows = {(key, kind): [] for key in truth for kind in ("normal", "wilson")} | {("whole", "auto"): []}
    for _ in range(repeats):
        strata = (
            np.repeat(np.arange(3), [units[k] for k in NAMES]) if design == "stratified" else rng.choice(3, n, p=WEIGHT)
        )
        coca = rng.random(len(strata)) < share[strata]
        reference = np.where(coca, "coca", np.where(strata == 2, "pasture", "forest"))
        zone = np.where(rng.random(len(strata)) < IN_PARK[strata], "park", "")
        matrix = error_matrix(reference, NAMES[strata], NAMES, domain=zone, design=design)
        for kind in ("normal", "wilson", "auto"):
            options = {"mapped_area_ha": area, "interval": kind}
            rows["whole", kind].append(adjusted_area(matrix, **options).loc["coca"])
            if kind == "auto":
                continue
            rows["park", kind].append(domain_area(matrix, **options).loc["park"])
            rows["park ratio", kind].append(
                domain_area(matrix, domain_area_ha={"park": park_ha}, **options).loc["park"]
            )
    return {key: summary([dict(row) for row in found], truth[key[0]]) for key, found in rows.items()}


def summary(rows, truth):
    table = pd.DataFrame(rows)
    error = table["area_ha"].astype(float) - truth
    return {
        "coverage": float(((table["ci_low_ha"] <= truth) & (truth <= table["ci_high_ha"])).mean()),
        "bias_in_se": float(error.mean() / error.std()),
        "se_ratio": float(table["se_ha"].astype(float).mean() / error.std()),
    }


class TestCoverage:
    @pytest.mark.parametrize("design", ["stratified", "post_stratified"])
    def test_intervals_cover_about_as_often_as_they_say(self, design):
        for (_, kind), result in simulate(60, SCENES["omission often"], design=design, seed=4).items():
            assert result["coverage"] >= (0.8 if kind == "normal" else 0.88)
            assert abs(result["bias_in_se"]) < 0.4

    @pytest.mark.slow
    @pytest.mark.timeout(1200)
    @pytest.mark.parametrize(
        ("scene", "design"), [*((scene, "stratified") for scene in SCENES), ("omission often", "post_stratified")]
    )
    def test_2000_samples_cover_93_to_97_percent_without_bias(self, scene, design, record_property):
        for (key, kind), result in simulate(2000, SCENES[scene], design=design).items():
            record_property(f"{key} {kind}", result)
            print(scene, design, key, kind, result)  # noqa: T201
            assert abs(result["bias_in_se"]) < 0.2
            assert 0.93 <= result["se_ratio"] <= 1.07
            if kind != "normal":
                assert 0.93 <= result["coverage"] <= 0.97

    def test_wilson_interval_has_a_width_where_nothing_was_found_in_a_stratum(self):
        options = {"classes": ["coca", "other"], "mapped_area_ha": [10.0, 990.0]}
        normal = adjusted_area([[50, 0], [0, 50]], **options)
        wilson = adjusted_area([[50, 0], [0, 50]], interval="wilson", **options)
        assert normal.loc["coca", "ci_high_ha"] == normal.loc["coca", "area_ha"] == 10
        assert 60 < wilson.loc["coca", "ci_high_ha"] < 90

    def test_wilson_interval_of_a_simple_sample_is_wilsons(self):
        from scipy.stats import binomtest

        table = adjusted_area(
            [[9, 1], [2, 18]], classes=["a", "b"], mapped_area_ha=[10.0, 20.0], design="simple", interval="wilson"
        )
        expected = binomtest(11, 30).proportion_ci(method="wilson")
        assert table.loc["a", "ci_low_ha"] == pytest.approx(30 * expected.low)
        assert table.loc["a", "ci_high_ha"] == pytest.approx(30 * expected.high)


class TestDomains:
    def matrix(self, n=300, seed=1):
        rng = np.random.default_rng(seed)
        mapped = rng.choice(["coca", "forest"], n, p=[0.4, 0.6])
        reference = np.where(rng.random(n) < 0.85, mapped, "coca")
        zone = rng.choice(["a", "b", "tiny", ""], n, p=[0.4, 0.3, 0.02, 0.28])
        return error_matrix(reference, mapped, domain=zone)

    def test_zones_and_the_rest_add_up_to_the_whole(self):
        matrix = self.matrix()
        area = {"coca": 400.0, "forest": 9600.0}
        whole = adjusted_area(matrix, mapped_area_ha=area).loc["coca", "area_ha"]
        everywhere = error_matrix(
            np.array(matrix.classes)[matrix.reference], np.array(matrix.classes)[matrix.mapped],
            domain=np.where(matrix.domain == "", "rest", matrix.domain),
        )  # fmt: skip
        parts = domain_area(everywhere, mapped_area_ha=area, min_samples=1)
        assert parts["area_ha"].sum() == pytest.approx(whole)

    def test_zone_with_too_few_samples_gets_no_number(self):
        table = domain_area(self.matrix(), mapped_area_ha={"coca": 400.0, "forest": 9600.0})
        assert table.loc["tiny", "status"] == "not estimable"
        assert table.loc["tiny", ["area_ha", "se_ha", "ci_low_ha", "ci_high_ha"]].isna().all()
        assert table.loc["a", "status"] == "estimated"

    def test_known_zone_area_is_honoured(self):
        table = domain_area(
            self.matrix(),
            mapped_area_ha={"coca": 400.0, "forest": 9600.0},
            domain_area_ha={"a": 4000.0, "b": 3000.0, "c": 5.0},
        )
        assert 0 < table.loc["a", "area_ha"] < 4000
        assert table.loc["c", "status"] == "not estimable"
        assert table.loc["c", "n"] == 0

    def test_matrix_without_zones_is_refused(self):
        with pytest.raises(AccuracyError, match="domain="):
            domain_area(error_matrix(["coca"], ["coca"]), mapped_area_ha=[1.0])
