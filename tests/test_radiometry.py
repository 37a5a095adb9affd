"""The radiometric check: faults of offsets are found in the data, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.errors import InputRefused, KindMismatch, OffsetConflict
from geococa.offset_steps import find_steps
from geococa.radiometry import check_radiometry
from geococa.reflectance import clear_sky, to_reflectance
from geococa.tiles import open_tile
from tests.offset_scenes import FAULTS as SCENE_FAULTS
from tests.offset_scenes import make
from tests.offset_series import FAULTS, Series, simulate

# --- simulated series ------------------------------------------------------------------------------


def _found(series: Series) -> bool:
    sizes = sorted({round(abs(float(value)), 6) for value in series.offset if value})
    steps = find_steps(series.values, series.waves, sizes)
    return bool(steps.shifted.any() or steps.wrong.any())


def _rates(seeds) -> tuple[float, float]:
    """Share of faults that are found, and share of faultless series that are accused."""
    caught = [_found(simulate(seed, FAULTS[seed % len(FAULTS)])) for seed in seeds]
    accused = [_found(simulate(seed)) for seed in seeds]
    return float(np.mean(caught)), float(np.mean(accused))


def test_faults_of_every_kind_are_found_and_faultless_series_pass():
    caught, accused = _rates(range(40))
    assert caught == 1.0
    assert accused == 0.0


@pytest.mark.slow
def test_of_300_series_99_percent_of_the_faults_are_found_and_at_most_1_percent_accused_falsely():
    caught, accused = _rates(range(60_000, 60_300))
    assert caught >= 0.99
    assert accused <= 0.01


def _image_rates(seeds) -> tuple[float, float]:
    """The same for small images of places, see `tests.offset_scenes`; faults that nobody can see are left out."""
    caught, accused = [], []
    for seed in seeds:
        case = make(seed, SCENE_FAULTS[seed % len(SCENE_FAULTS)])
        if case.seeable:
            caught.append(_refused(case))
        accused.append(_refused(make(seed)))
    assert len(caught) > 0.95 * len(accused)
    return float(np.mean(caught)), float(np.mean(accused))


def _refused(case) -> bool:
    table = check_radiometry(case.scenes, where=case.where, on_conflict="report")
    return not table["verdict"].isin(["agrees", "not checked"]).all()


def test_faults_of_images_of_other_places_and_sensors_are_found():
    caught, accused = _image_rates(range(7000, 7024))
    assert caught >= 23 / 24
    assert accused <= 1 / 24


@pytest.mark.slow
def test_of_300_series_of_images_99_percent_of_the_faults_are_found_and_at_most_1_percent_accused_falsely():
    caught, accused = _image_rates(range(40_000, 40_300))
    assert caught >= 0.99
    assert accused <= 0.01


def test_a_place_of_dry_grass_seen_through_the_air_is_not_too_bright():
    # the light of the air lies on everything at the top of the atmosphere
    accused = [seed for seed in (12, 43, 49, 95, 103, 108, 124) if _refused(make(seed))]
    assert accused == []


@pytest.mark.parametrize("fault", FAULTS)
def test_the_wrong_dates_are_named_and_the_right_ones_are_not(fault):
    named, wrongly, total = 0, 0, 0
    for seed in range(500, 512):
        series = simulate(seed, fault)
        steps = find_steps(series.values, series.waves)
        seen = series.faulty & (steps.pixels >= 100)
        named += int((steps.wrong[seen] != 0).sum())
        total += int(seen.sum())
        wrongly += int((steps.wrong[~series.faulty] != 0).sum())
    assert named >= 0.85 * total
    assert wrongly <= 0.05 * total


def test_the_size_of_the_step_is_measured_and_not_assumed():
    for seed, size in ((3, 0.1), (3, 0.15), (3, 0.22)):
        series = simulate(seed)
        later = series.days > np.median(series.days)
        series.values[later] += size
        steps = find_steps(series.values, series.waves)
        between = np.nanmedian(steps.shift[later]) - np.nanmedian(steps.shift[~later])
        assert between == pytest.approx(size, abs=0.01)


# --- scenes ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scenes(sample_tiles):
    """A simulated tile over the border of the processing baselines, with clouds, haze and noise."""
    bands = ["blue", "green", "red", "nir", "swir16", "swir22"]
    return open_tile(sample_tiles / "18NXG", bands=bands, window=(0, 120, 0, 120))


def _with_offset(scenes, offset):
    return scenes.assign_coords(offset=scenes["offset"].copy(data=np.broadcast_to(offset, scenes["offset"].shape)))


def test_a_faultless_tile_agrees(scenes):
    table = check_radiometry(scenes)
    assert set(table["verdict"]) <= {"agrees", "not checked"}
    assert (table["verdict"] == "agrees").sum() >= 22
    assert sorted(table["declared_offset"].unique()) == [-0.1, 0.0]


def test_an_undeclared_offset_is_refused_with_dates_bands_size_scenes_and_remedy(scenes):
    with pytest.raises(OffsetConflict) as caught:
        check_radiometry(_with_offset(scenes, 0.0))
    message = str(caught.value)
    for part in ("18NXG", "too bright", "2022", "S2", "red +0.", "swir22 +0.", "not applied", "pass offset="):
        assert part in message
    evidence = caught.value.evidence
    bright = evidence[evidence["verdict"] == "too bright"]
    assert (bright["time"] >= "2022-01-25").all()
    assert bright["shift"].median() == pytest.approx(0.1, abs=0.02)


def test_an_offset_applied_twice_is_refused_as_too_dark(scenes):
    with pytest.raises(OffsetConflict, match=r"too dark.*applied twice"):
        check_radiometry(_with_offset(scenes, 2 * scenes["offset"].values))


def test_a_series_that_is_wrong_as_a_whole_is_refused_without_a_step(scenes):
    later = scenes.isel(time=scenes["time"].dt.year.values >= 2022)
    with pytest.raises(OffsetConflict, match="too bright"):
        check_radiometry(_with_offset(later, 0.0))
    with pytest.raises(OffsetConflict, match="too dark"):
        check_radiometry(_with_offset(later, -0.2))


def test_reflectance_is_checked_like_scenes(scenes):
    clear = clear_sky(scenes)
    check_radiometry(to_reflectance(scenes, where=clear))
    wrong = to_reflectance(scenes, where=clear, offset=0.0)
    with pytest.raises(OffsetConflict, match="too bright"):
        check_radiometry(wrong)
    assert (check_radiometry(wrong, on_conflict="report")["verdict"] == "too bright").any()


def test_scaling_checks_on_demand(scenes):
    clear = clear_sky(scenes)
    xr.testing.assert_identical(to_reflectance(scenes, where=clear, check=True), to_reflectance(scenes, where=clear))
    with pytest.raises(OffsetConflict, match=r"declared offset 0\)"):
        to_reflectance(scenes, where=clear, offset=0.0, check=True)


def test_lazy_scenes_give_the_same_table(scenes):
    lazy = scenes.chunk({"time": 1, "y": 20, "x": 30})
    pd.testing.assert_frame_equal(check_radiometry(lazy), check_radiometry(scenes))


def test_a_mask_of_the_caller_replaces_the_quality_band(scenes):
    nothing = clear_sky(scenes).copy(data=np.zeros(scenes["red"].shape, bool))
    assert set(check_radiometry(scenes, where=nothing)["verdict"]) == {"not checked"}


def test_series_without_visible_bands_are_not_checked_and_not_refused(scenes):
    only = scenes[["nir", "swir16", "scl"]].assign_attrs(scenes.attrs)
    assert set(check_radiometry(only)["verdict"]) == {"not checked"}


def test_what_is_no_series_is_refused(scenes):
    with pytest.raises(KindMismatch):
        check_radiometry(scenes.assign_attrs(kind="composite"))
    with pytest.raises(InputRefused, match="on_conflict"):
        check_radiometry(scenes, on_conflict="ignore")
    with pytest.raises(InputRefused, match="max_pixels"):
        check_radiometry(scenes, max_pixels=3)
