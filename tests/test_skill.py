"""Skill: nulls on the same folds, and no claim without a lead over all of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from sklearn.metrics import f1_score, jaccard_score

from geococa.errors import AccuracyError, NoPositives, SampleLeak
from geococa.grid import Grid
from geococa.legend import Legend
from geococa.samples import spatial_folds
from geococa.skill import _best_threshold, add_history, skill_table


def samples(n=1500, seed=0, model_error=0.05, change=0.3):
    """Reference labels, last year's map that misses the change, and a model of a given error rate."""
    rng = np.random.default_rng(seed)
    coca = rng.random(n) < 0.3
    flip = lambda share: np.where(rng.random(n) < share, ~coca, coca)  # noqa: E731
    table = pd.DataFrame({
        "class": np.where(coca, "coca", "forest"),
        "x": 500_000 + rng.uniform(0, 20_000, n),
        "y": 900_000 - rng.uniform(0, 20_000, n),
        "predicted": np.where(flip(model_error), "coca", "forest"),
        "previous": flip(change).astype(float),
        "history": np.clip(flip(change) * 0.6 + rng.uniform(-0.2, 0.2, n), 0, 1),
        "ndvi": np.where(coca, 0.6, 0.7) + rng.normal(0, 0.1, n),
    })  # fmt: skip
    table.attrs["crs"] = "EPSG:32618"
    return table


def folds_of(table, folds=5):
    return spatial_folds(table, folds, block_m=2000)


class TestVerdict:
    def test_model_that_beats_every_null_has_skill(self):
        table = samples()
        result = skill_table(table, folds_of(table))
        assert result.attrs["verdict"].startswith("skill over")
        assert (result.loc[["persistence", "historical_mean", "index_threshold"], "verdict"] == "model beats it").all()
        assert (result["advantage"].dropna() > 0).all()

    def test_copy_of_last_years_map_has_no_skill_over_persistence(self):
        table = samples(change=0.05)
        table["predicted"] = np.where(table["previous"] == 1, "coca", "forest")
        result = skill_table(table, folds_of(table))
        assert result.attrs["verdict"] == "no skill over persistence"
        assert result.loc["persistence", "advantage"] == 0

    def test_advantage_within_the_spread_of_folds_is_no_skill(self):
        table = samples(model_error=0.2, change=0.205)
        assert skill_table(table, folds_of(table)).attrs["verdict"].startswith("no skill over")

    def test_skill_is_not_claimed_without_all_nulls(self):
        table = samples().drop(columns="previous")
        result = skill_table(table, folds_of(table))
        assert result.attrs["verdict"] == "skill not shown: persistence not run"
        assert result.loc["persistence", "verdict"] == "not run"

    def test_previous_may_be_class_names(self):
        table = samples()
        named = table.assign(previous=np.where(table["previous"] == 1, "coca", "forest"))
        folds = folds_of(table)
        pd.testing.assert_frame_equal(skill_table(table, folds), skill_table(named, folds))


class TestScores:
    def test_scores_agree_with_scikit_learn_fold_by_fold(self):
        table = samples()
        folds = folds_of(table, 4)
        result = skill_table(table, folds)
        truth, guess = table["class"] == "coca", table["predicted"] == "coca"
        assert result.loc["model", "f1"] == pytest.approx(
            np.mean([f1_score(truth.iloc[t], guess.iloc[t]) for _, t in folds])
        )
        assert result.loc["model", "iou"] == pytest.approx(
            np.mean([jaccard_score(truth.iloc[t], guess.iloc[t]) for _, t in folds])
        )

    def test_threshold_is_the_best_of_all_on_the_training_rows(self):
        rng = np.random.default_rng(3)
        for _ in range(4):
            values, truth = rng.normal(size=60).round(1), rng.random(60) < 0.4
            cut, above = _best_threshold(values, truth)
            ours = f1_score(truth, values >= cut if above else values < cut)
            best = max(
                max(f1_score(truth, values >= c, zero_division=0), f1_score(truth, values < c, zero_division=0))
                for c in np.unique(values)
            )
            assert ours == pytest.approx(best)

    def test_rows_without_history_are_left_out_for_all(self):
        table = samples()
        table.loc[:99, "history"] = np.nan
        assert skill_table(table, folds_of(table)).attrs["n"] == len(table) - 100


class TestGuards:
    def test_fold_without_coca_raises(self):
        table = samples()
        folds = folds_of(table)
        forest = np.flatnonzero(table["class"] == "forest")
        with pytest.raises(NoPositives, match="fold 1"):
            skill_table(table, [(folds[0][0], np.intersect1d(folds[0][1], forest)), *folds[1:]])

    def test_one_shared_pixel_raises(self):
        table = samples()
        folds = folds_of(table)
        train, test = folds[0]
        with pytest.raises(SampleLeak, match="tests 1 rows"):
            skill_table(table, [(np.append(train, test[0]), test), *folds[1:]])

    def test_single_fold_is_refused(self):
        table = samples()
        with pytest.raises(AccuracyError, match="2 folds"):
            skill_table(table, folds_of(table)[:1])


class TestHistory:
    def maps(self):
        codes = np.array([[[1, 2]], [[255, 1]], [[2, 1]]], np.uint8)
        dates = pd.DatetimeIndex(["2018-12-31", "2019-12-31", "2020-12-31"]).astype("datetime64[ns]")
        array = xr.DataArray(codes, dims=("time", "y", "x"), coords={"time": dates})
        array.attrs = {"kind": "land_cover", **Legend.of(["coca", "forest"]).to_attrs()}
        return Grid("EPSG:32618", (10, 0, 0, 0, -10, 10), (1, 2)).attach(array)

    @pytest.mark.parametrize("lazy", [False, True])
    def test_earlier_maps_only_and_unobserved_years_are_skipped(self, lazy):
        maps = self.maps().chunk({"time": 1}) if lazy else self.maps()
        table = pd.DataFrame({"row": [0, 0, 0], "col": [0, 1, 0], "year": [2020, 2021, 2018]})
        out = add_history(table, maps)
        np.testing.assert_allclose(out["previous"], [1.0, 1.0, np.nan])
        np.testing.assert_allclose(out["history"], [1.0, 2 / 3, np.nan])


def test_one_pixel_in_training_and_test_raises_by_row_and_column_too():
    table = samples().drop(columns=["x", "y"]).assign(tile="T", row=range(1500), col=0)
    halves = np.arange(0, 750), np.arange(750, 1500)
    skill_table(table, [halves, halves[::-1]])
    table.loc[1000, "row"] = 10
    with pytest.raises(SampleLeak, match="1 rows on pixels"):
        skill_table(table, [halves, halves[::-1]])
    # the same row and column of another tile is another pixel
    table.loc[1000, "tile"] = "U"
    skill_table(table, [halves, halves[::-1]])


def test_two_points_of_one_pixel_are_shared_though_their_coordinates_differ():
    table = samples().assign(row=range(1500), col=0)
    table.loc[1000, "row"] = 10
    halves = np.arange(0, 750), np.arange(750, 1500)
    with pytest.raises(SampleLeak):
        skill_table(table, [halves, halves[::-1]])
