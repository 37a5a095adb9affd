"""Labels of several interpreters: read from every tool's file, agreement against other libraries, arbitration."""

from __future__ import annotations

import geopandas
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from geococa.errors import AccuracyError, InputRefused
from geococa.interpretations import agreement, arbitrate, read_interpretation


def drawn(n=6, years=None):
    rows = [(k, year) for year in years or [None] for k in range(1, n + 1)]
    table = pd.DataFrame(rows, columns=["id", "year"])
    table = table if years else table.drop(columns="year")
    return geopandas.GeoDataFrame(
        table.assign(stratum="all"), geometry=geopandas.points_from_xy(table["id"], table["id"]), crs="EPSG:4326"
    )


def answers(labels, ids=None):
    return pd.DataFrame({"id": [str(one) for one in (ids or range(1, len(labels) + 1))], "class": labels})


class TestReading:
    def test_answers_for_years_that_were_not_asked_are_refused_not_lost(self, tmp_path):
        path = tmp_path / "ana.csv"
        path.write_text("id,year,class\n1,2019,coca\n2,2019,forest\n", encoding="utf-8")
        with pytest.raises(InputRefused, match="2 samples for 2019"):
            read_interpretation(path, drawn(years=[2020, 2021]))
        path.write_text("id,year,class\n1,,coca\n", encoding="utf-8")
        with pytest.raises(InputRefused, match="no year"):
            read_interpretation(path, drawn(years=[2020]))
        # a row that answers nothing loses nothing
        path.write_text("id,year,class\n1,2020,coca\n2,2019,\n", encoding="utf-8")
        assert read_interpretation(path, drawn(years=[2020]))["class"].notna().sum() == 1

    def test_semicolons_of_a_spreadsheet_are_read(self, tmp_path):
        path = tmp_path / "ana.csv"
        path.write_text("id;class\n1;coca\n2;forest\n", encoding="utf-8")
        assert read_interpretation(path, drawn())["class"].tolist()[:2] == ["coca", "forest"]

    def test_csv_of_a_response_sheet(self, tmp_path):
        path = tmp_path / "ana.csv"
        path.write_text(
            '"id","year","class","confidence","notes","interpreter"\r\n"1","","coca","high","","Ana"\r\n"2","","","","?","Ana"\r\n',
            encoding="utf-8",
        )
        found = read_interpretation(path, drawn(3))
        assert found["class"].tolist()[0] == "coca"
        assert found["class"].isna().tolist() == [False, True, True]
        assert found["interpreter"].tolist()[0] == "Ana"

    def test_years_are_kept_apart(self, tmp_path):
        path = tmp_path / "a.csv"
        pd.DataFrame({"id": [1, 1, 2], "year": [2020, 2021, 2021], "class": ["coca", "forest", "coca"]}).to_csv(
            path, index=False
        )
        found = read_interpretation(path, drawn(2, years=[2020, 2021])).set_index(["id", "year"])["class"]
        assert found[("1", 2020)] == "coca"
        assert found[("1", 2021)] == "forest"
        assert pd.isna(found[("2", 2020)])

    def test_geopackage_of_acatama(self, tmp_path):
        # columns as AcATaMa 24 saves them: core/response_design.py, save_sampling_labeled
        table = drawn(4).rename(columns={"id": "ID"}).drop(columns="stratum")
        table["Label"] = ["Coca", "Bosque denso", None, "Coca"]
        table["Is labeled as"], table["In thematic map as"], table["Match"] = 1, 2, "No"
        table.to_file(tmp_path / "a.gpkg", driver="GPKG")
        found = read_interpretation(tmp_path / "a.gpkg", drawn(4), classes={"Coca": "coca"})
        assert found["class"].tolist()[:2] == ["coca", "Bosque_denso"]
        assert pd.isna(found["class"].iloc[2])

    def test_csv_of_collect_earth_online(self, tmp_path):
        table = pd.DataFrame({
            "plotid": [9, 9], "sampleid": [1, 2], "lon": [0.0, 1.0], "lat": [0.0, 1.0], "email": "a@b", "flagged": False,
            "collection_time": "2026-01-01", "analysis_duration": "3 secs", "imagery_title": "x", "sample_geom": "POINT",
            "Land cover in the square": ["Coca", "Forest"],
        })  # fmt: skip
        table.to_csv(tmp_path / "ceo.csv", index=False)
        found = read_interpretation(tmp_path / "ceo.csv", drawn(2), classes={"Coca": "coca", "Forest": "forest"})
        assert found["class"].tolist() == ["coca", "forest"]

    @pytest.mark.parametrize(
        ("table", "words"),
        [
            ({"id": [1, 1], "class": ["a", "b"]}, "more than once"),
            ({"id": [77], "class": ["a"]}, "not drawn"),
            ({"nothing": [1]}, "numbers the samples"),
            ({"id": [1], "one": ["a"], "two": ["b"]}, "class_column"),
        ],
    )
    def test_what_does_not_fit_the_sample_is_refused(self, tmp_path, table, words):
        pd.DataFrame(table).to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(InputRefused, match=words):
            read_interpretation(tmp_path / "a.csv", drawn(3))

    def test_missing_and_damaged_files_are_named(self, tmp_path):
        with pytest.raises(InputRefused, match="no labels at"):
            read_interpretation(tmp_path / "none.csv", drawn(1))
        (tmp_path / "bad.gpkg").write_bytes(b"nothing")
        with pytest.raises(InputRefused, match="can't be read"):
            read_interpretation(tmp_path / "bad.gpkg", drawn(1))

    def test_yearless_answers_to_a_panel_are_refused(self, tmp_path):
        pd.DataFrame({"id": [1], "class": ["coca"]}).to_csv(tmp_path / "a.csv", index=False)
        with pytest.raises(InputRefused, match="no year"):
            read_interpretation(tmp_path / "a.csv", drawn(2, years=[2020, 2021]))


def raters(n=200, count=2, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.choice(["coca", "forest", "pasture"], n, p=[0.1, 0.6, 0.3])
    out = {}
    for k in range(count):
        wrong = rng.random(n) < 0.2
        out[f"r{k}"] = answers(np.where(wrong, rng.choice(["coca", "forest", "pasture"], n), truth).tolist())
    return out


class TestAgreement:
    def test_two_interpreters_agree_with_scikit_learn(self):
        labels = raters()
        found = agreement(labels)
        one, two = (table["class"] for table in labels.values())
        assert found.loc["all", "agreement"] == pytest.approx((one == two).mean())
        assert found.loc["all", "kappa"] == pytest.approx(cohen_kappa_score(one, two))
        for name in ("coca", "forest"):
            assert found.loc[name, "kappa"] == pytest.approx(cohen_kappa_score(one == name, two == name))
            both = ((one == name) & (two == name)).sum()
            assert found.loc[name, "agreement"] == pytest.approx(2 * both / ((one == name).sum() + (two == name).sum()))
        assert found.attrs["kappa"] == "Cohen"

    def test_three_interpreters_agree_with_statsmodels(self):
        rater = pytest.importorskip("statsmodels.stats.inter_rater")
        labels = raters(count=3)
        codes = np.stack(
            [pd.Categorical(table["class"], ["coca", "forest", "pasture"]).codes for table in labels.values()], 1
        )
        table, _ = rater.aggregate_raters(codes, 3)
        found = agreement(labels)
        assert found.loc["all", "kappa"] == pytest.approx(rater.fleiss_kappa(table))
        assert found.attrs["kappa"] == "Fleiss"

    def test_fleiss_printed_example(self):
        # Fleiss (1971), table 1 as on many pages: 10 subjects, 14 raters, 5 categories, kappa 0.210
        counts = np.array([
            [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
        ])  # fmt: skip
        rows = [np.repeat([f"c{k}" for k in range(5)], row) for row in counts]
        labels = {f"r{k}": answers([row[k] for row in rows]) for k in range(14)}
        assert agreement(labels).loc["all", "kappa"] == pytest.approx(0.210, abs=5e-4)

    def test_high_agreement_with_low_kappa_comes_with_a_caution(self):
        one = ["coca", "coca"] + ["forest"] * 98
        two = ["forest", "forest"] + ["forest"] * 96 + ["coca", "coca"]
        found = agreement({"a": answers(one), "b": answers(two)})
        assert found.loc["all", "agreement"] == 0.96
        assert found.loc["all", "kappa"] < 0
        assert found.loc["coca", "agreement"] == 0
        assert "rare" in found.attrs["caution"]

    def test_samples_of_one_interpreter_are_left_out_and_weights_count(self):
        one, two = answers(["coca", "forest", None, "coca"]), answers(["coca", "coca", "coca", None])
        found = agreement({"a": one, "b": two})
        assert found.attrs["n"] == 2
        assert found.loc["all", "agreement"] == 0.5
        assert agreement({"a": one, "b": two}, stratum_weight={"1": 3.0, "2": 1.0}).loc["all", "agreement"] == 0.75

    def test_one_interpreter_or_no_common_sample_is_refused(self):
        with pytest.raises(AccuracyError, match="two or more"):
            agreement({"a": answers(["coca"])})
        with pytest.raises(AccuracyError, match="no sample"):
            agreement({"a": answers(["coca", None]), "b": answers([None, "coca"])})


class TestArbitration:
    labels = {  # noqa: RUF012
        "ana": answers(["coca", "coca", "forest", None, "coca", None]),
        "luz": answers(["coca", "forest", "forest", None, "forest", "forest"]),
        "eva": answers(["coca", "coca", "forest", None, "pasture", None]),
    }

    def test_unanimous_answers_settle_and_the_rest_is_in_dispute(self):
        found = arbitrate(drawn(), self.labels)
        assert found["settled_by"].tolist() == [
            "agreement", "dispute", "agreement", "not labelled", "dispute", "one interpreter",
        ]  # fmt: skip
        assert found["class"].isna().tolist() == [False, True, False, True, True, False]
        assert found["class_luz"].tolist()[1] == "forest"
        assert "_nobody" not in " ".join(found.columns)

    def test_majority_settles_more_but_no_tie(self):
        found = arbitrate(drawn(), self.labels, rule="majority")
        assert found["settled_by"].tolist()[1] == "majority"
        assert found["class"].tolist()[1] == "coca"
        assert found["settled_by"].tolist()[4] == "dispute"

    def test_the_arbiter_is_final(self):
        found = arbitrate(drawn(), self.labels, arbiter=answers(["pasture", "forest"], ids=[2, 5]))
        assert found["class"].tolist()[1] == "pasture"
        assert found["class"].tolist()[4] == "forest"
        assert found["settled_by"].tolist()[1] == "arbiter"

    def test_years_are_settled_apart(self):
        table = pd.DataFrame({"id": ["1", "1"], "year": [2020, 2021], "class": ["coca", "forest"]})
        other = table.assign(**{"class": ["coca", "coca"]})
        found = arbitrate(drawn(1, years=[2020, 2021]), {"a": table, "b": other})
        assert found["settled_by"].tolist() == ["agreement", "dispute"]

    def test_unknown_rule_is_refused(self):
        with pytest.raises(InputRefused, match="rule must"):
            arbitrate(drawn(), self.labels, rule="loudest")
