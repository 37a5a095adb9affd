"""Masks, reflectance and composites."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.errors import GridMismatch, InputRefused, KindMismatch, UnknownOffset
from geococa.grid import Grid
from geococa.reflectance import clear_sky, composite, to_reflectance
from geococa.tiles import open_tile
from tests.scene_files import write_bundle, write_scene

GRID = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (24, 30))


def _scenes(scl=4, dates=("2021-07-01", "2023-06-25"), red=None, nodata=0):
    shape = (len(dates), *GRID.shape)
    rng = np.random.default_rng(0)
    values = (
        rng.integers(1, 4000, shape).astype("uint16") if red is None else np.broadcast_to(red, shape).astype("uint16")
    )
    dims = ("time", "y", "x")
    return xr.Dataset(
        {
            "red": (dims, values, {"nodata": nodata}),
            "nir": (dims, (values + 1000).astype("uint16"), {"nodata": nodata}),
            "scl": (dims, np.broadcast_to(np.asarray(scl, "uint8"), shape).copy()),
        },
        coords={
            **GRID.coordinates(),
            "time": pd.to_datetime(list(dates)).values.astype("datetime64[ns]"),
            "band": ["red", "nir"],
            "scale": (("time", "band"), np.full((len(dates), 2), 1e-4)),
            "offset": (("time", "band"), np.full((len(dates), 2), -0.1)),
            "scene": ("time", [f"S{i}" for i in range(len(dates))]),
        },
        attrs={"kind": "scenes", "sensor": "sentinel-2-l2a"},
    )


# --- masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "usable"),
    [
        (0, 0),
        (1, 0),
        (2, 1),
        (3, 0),
        (4, 1),
        (5, 1),
        (6, 1),
        (7, 1),
        (8, 0),
        (9, 0),
        (10, 0),
        (11, 0),
        (12, 0),
        (255, 0),
    ],
)
def test_every_scene_class_is_usable_or_not_as_documented(code, usable):
    assert clear_sky(_scenes(scl=code), buffer_m=0).values.all() == bool(usable)


@pytest.mark.parametrize(("code", "widened"), [(0, 0), (1, 0), (3, 1), (8, 1), (9, 1), (10, 1), (11, 0)])
def test_clouds_and_shadows_are_widened_and_missing_data_are_not(code, widened):
    scl = np.full(GRID.shape, 4, "uint8")
    scl[10, 10] = code
    clear = clear_sky(_scenes(scl=scl), buffer_m=20).values[0]
    assert not clear[10, 10]
    assert clear[10, 12] == (not widened)
    assert clear[10, 13]
    assert clear[12, 12]  # 28 m away: the buffer is round


def test_chosen_flags_replace_the_default_ones():
    scl = np.full(GRID.shape, 4, "uint8")
    scl[0, :3] = (0, 9, 11)
    clear = clear_sky(_scenes(scl=scl), buffer_m=0, mask=["snow_ice"]).values[0]
    assert clear[0, :4].tolist() == [False, True, False, True]


def test_an_unknown_flag_is_refused():
    with pytest.raises(InputRefused, match="fog"):
        clear_sky(_scenes(), mask=["fog"])


def test_no_data_in_one_band_makes_the_pixel_unusable():
    scenes = _scenes()
    scenes.nir[0, 2, 3] = 0
    clear = clear_sky(scenes, buffer_m=60).values
    assert not clear[0, 2, 3]
    assert clear.sum() == clear.size - 1


def test_scenes_without_a_quality_band_are_usable_where_they_have_data():
    scenes = _scenes().drop_vars("scl")
    scenes.red[1, 0, 0] = 0
    assert clear_sky(scenes).values.sum() == scenes.red.size - 1


@pytest.mark.parametrize("bit", range(16))
def test_every_landsat_quality_bit_does_what_its_name_says(tmp_path, bit):
    scenes = open_tile(write_bundle(tmp_path, qa=1 << bit))
    # fill, dilated cloud, cirrus, cloud, shadow and snow mask; clear, water and the confidences do not
    assert clear_sky(scenes, buffer_m=0).values.any() == (bit > 5)


def test_saturated_landsat_pixels_are_unusable(tmp_path):
    scenes = open_tile(write_bundle(tmp_path))
    scenes.qa_radsat[0, 4, 4] = 1 << 3
    clear = clear_sky(scenes, buffer_m=60).values
    assert clear.sum() == clear.size - 1


def test_lazy_masks_equal_eager_ones_across_block_borders():
    scl = np.where(np.random.default_rng(4).random((2, *GRID.shape)) < 0.02, 9, 4).astype("uint8")
    scenes = _scenes(scl=scl)
    for chunks in ({"y": 7, "x": 11}, {"y": 1, "x": 30}, {"time": 1, "y": 24, "x": 3}):
        lazy = clear_sky(scenes.chunk(chunks), buffer_m=35)
        assert lazy.chunks is not None
        xr.testing.assert_identical(lazy.compute(), clear_sky(scenes, buffer_m=35))


def test_lazy_masks_in_degrees_equal_eager_ones():
    grid = Grid("EPSG:4326", (0.001, 0, -75, 0, -0.05, 60), GRID.shape)
    scl = np.where(np.random.default_rng(4).random((2, *GRID.shape)) < 0.02, 9, 4).astype("uint8")
    scenes = _scenes(scl=scl).assign_coords(grid.coordinates())
    eager = clear_sky(scenes, buffer_m=500)
    assert not eager.values.all()
    xr.testing.assert_identical(clear_sky(scenes.chunk({"y": 5, "x": 8}), buffer_m=500).compute(), eager)


def test_masks_of_a_map_are_refused():
    with pytest.raises(KindMismatch, match="open_tile"):
        clear_sky(_scenes().assign_attrs(kind="composite"))


# --- reflectance -----------------------------------------------------------------------------------


def test_no_data_never_becomes_a_reflectance():
    scenes = _scenes()
    scenes.red[0, 1, 1] = 0
    scenes.scl[1, 2, 2] = 0
    reflectance = to_reflectance(scenes, where=clear_sky(scenes, buffer_m=0))
    for band in ("red", "nir"):
        assert np.isnan(reflectance[band].values[0, 1, 1])
        assert np.isnan(reflectance[band].values[1, 2, 2])
        assert np.isnan(reflectance[band].values).sum() == 2
    assert np.isnan(to_reflectance(scenes).nir.values[0, 1, 1])


def test_a_flat_series_has_no_step_where_the_offset_begins(tmp_path):
    tile = tmp_path / "18NXG"
    for year in range(2019, 2026):
        later = year >= 2022
        write_scene(
            tile, f"S2A_{year}", f"{year}-07-01T15:00:00Z",
            baseline="05.09" if later else "03.01", offset=-0.1 if later else 0,
            red=1432 if later else 432, nir=4123 if later else 3123,
        )  # fmt: skip
    scenes = open_tile(tile, bands=["red", "nir"])
    annual = composite(to_reflectance(scenes, where=clear_sky(scenes)))
    for band, level in (("red", 0.0432), ("nir", 0.3123)):
        assert np.abs(annual[band].values - level).max() < 1e-6


@pytest.mark.parametrize(
    "settings",
    [
        {"offset": 0},
        {"offset": None},
        {"scale": None},
        {"baseline": None, "offset": 0},
        {"baseline": None, "offset": None},
        {"baseline": "03.01", "offset": -0.1},
        {"properties": {"earthsearch:boa_offset_applied": True}},
        {"offset": 0, "properties": {"earthsearch:boa_offset_applied": False}},
    ],
)
def test_wrong_offset_metadata_is_refused_with_the_evidence_and_can_be_overridden(tmp_path, settings):
    write_scene(tmp_path / "T", "S2A_GOOD", "2021-07-01T15:00:00Z", baseline="03.01", offset=0)
    write_scene(tmp_path / "T", "S2A_BAD", "2023-07-01T15:00:00Z", **settings)
    scenes = open_tile(tmp_path / "T")
    with pytest.raises(UnknownOffset, match=r"S2A_BAD.*item\.json"):
        to_reflectance(scenes)
    assert float(to_reflectance(scenes, scale=1e-4, offset=-0.1).red[0, 0, 0]) == pytest.approx(0.05, abs=1e-6)


def test_overrides_by_band():
    reflectance = to_reflectance(_scenes(red=2000), scale={"red": 2e-4}, offset={"nir": 0.0})
    assert float(reflectance.red[0, 0, 0]) == pytest.approx(0.3, abs=1e-6)
    assert float(reflectance.nir[0, 0, 0]) == pytest.approx(0.3, abs=1e-6)


def test_overrides_of_bands_that_are_not_there_are_refused():
    with pytest.raises(InputRefused, match="rde"):
        to_reflectance(_scenes(), scale={"rde": 1.0})


def test_a_mask_of_other_dates_or_cells_is_refused():
    scenes = _scenes()
    clear = clear_sky(scenes)
    with pytest.raises(GridMismatch):
        to_reflectance(scenes, where=clear.isel(time=[0]))
    with pytest.raises(GridMismatch):
        to_reflectance(scenes, where=clear.isel(time=[1, 0]))
    with pytest.raises(GridMismatch):
        to_reflectance(scenes, where=clear.isel(x=slice(1, None)))


def test_input_is_left_alone_and_output_carries_grid_and_kind():
    scenes = _scenes()
    before = scenes.copy(deep=True)
    reflectance = to_reflectance(scenes, where=clear_sky(scenes))
    xr.testing.assert_identical(scenes, before)
    assert reflectance.attrs["kind"] == "reflectance"
    assert {str(reflectance[name].dtype) for name in reflectance.data_vars} == {"float32"}
    assert Grid.from_xarray(reflectance).same_as(GRID)


def test_lazy_reflectance_equals_eager():
    scenes = _scenes()
    lazy = to_reflectance(scenes.chunk({"time": 1, "y": 5, "x": 9}), where=clear_sky(scenes))
    assert lazy.chunks
    xr.testing.assert_identical(lazy.compute(), to_reflectance(scenes, where=clear_sky(scenes)))


# --- composites ------------------------------------------------------------------------------------


def _series(seed=0, missing=0.5, dates=14):
    rng = np.random.default_rng(seed)
    shape = (dates, *GRID.shape)
    gone = rng.random(shape) < missing
    dims = ("time", "y", "x")
    bands = {
        name: (dims, np.where(gone, np.nan, level + rng.normal(0, 0.03, shape)).astype("float32"))
        for name, level in (("red", 0.05), ("nir", 0.4), ("swir16", 0.2))
    }
    times = pd.date_range("2020-02-01", periods=dates, freq="45D").values.astype("datetime64[ns]")
    return xr.Dataset(bands, coords={**GRID.coordinates(), "time": times}, attrs={"kind": "reflectance"})


@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning", "ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.parametrize(
    ("reducer", "plain"),
    [
        ("median", lambda a: np.nanmedian(a, axis=0)),
        ("mean", lambda a: np.nanmean(a.astype("float64"), axis=0)),
        ("p25", lambda a: np.nanpercentile(a.astype("float64"), 25, axis=0)),
        ("p100", lambda a: np.nanmax(a, axis=0)),
    ],
)
def test_band_by_band_reducers_equal_numpy_for_each_year(reducer, plain):
    series = _series()
    annual = composite(series, reducer=reducer)
    for year in annual.time.dt.year.values:
        chosen = series.isel(time=np.flatnonzero(series.time.dt.year.values == year))
        for band in ("red", "nir", "swir16"):
            expected = plain(chosen[band].values)
            np.testing.assert_allclose(annual[band].sel(time=f"{year}-12-31").values.squeeze(), expected, rtol=1e-6)


def test_years_are_labelled_by_their_last_day_and_empty_years_are_absent():
    series = _series()
    later = series.assign_coords(time=series.time + np.timedelta64(3 * 365, "D"))
    annual = composite(xr.concat([series.isel(time=[0, 1]), later.isel(time=[0, 1, 2])], "time"))
    assert [str(day)[:10] for day in annual.time.values] == ["2020-12-31", "2023-12-31"]


def test_observations_count_the_usable_dates():
    series = _series()
    annual = composite(series)
    valid = np.isfinite(series.red.values)
    for i, year in enumerate(annual.time.dt.year.values):
        expected = valid[series.time.dt.year.values == year].sum(axis=0)
        np.testing.assert_array_equal(annual.observations.values[i], expected)
    assert annual.observations.dtype == np.uint16


def test_pixels_with_too_few_dates_stay_unobserved_and_keep_their_count():
    annual = composite(_series(), min_observations=4)
    few = annual.observations.values < 4
    assert few.any()
    for band in ("red", "nir", "swir16"):
        np.testing.assert_array_equal(np.isnan(annual[band].values), few)


@pytest.mark.parametrize("reducer", ["medoid", "max_ndvi"])
def test_picked_spectra_were_all_observed_on_one_date(reducer):
    series = _series(dates=8)
    annual = composite(series.isel(time=series.time.dt.year.values == 2020), reducer=reducer)
    source = series.isel(time=series.time.dt.year.values == 2020)
    stacked = np.stack([source[b].values for b in ("red", "nir", "swir16")], axis=1)
    picked = np.stack([annual[b].values[0] for b in ("red", "nir", "swir16")])
    same = (stacked == picked).all(axis=1).any(axis=0)
    assert (same | np.isnan(picked[0])).all()
    assert (annual.observations.values[0] > 0).sum() == same.sum()


def test_max_ndvi_picks_the_greenest_date():
    series = _series()
    annual = composite(series, reducer="max_ndvi")
    ndvi = (series.nir - series.red) / (series.nir + series.red)
    expected = ndvi.groupby("time.year").max().values
    found = ((annual.nir - annual.red) / (annual.nir + annual.red)).values
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_max_ndvi_without_red_is_refused():
    with pytest.raises(InputRefused, match="red"):
        composite(_series()[["nir", "swir16"]].assign_attrs(kind="reflectance"), reducer="max_ndvi")


@pytest.mark.parametrize("reducer", ["median", "mean", "geomedian", "medoid", "max_ndvi", "p10"])
def test_lazy_composites_equal_eager_ones_and_compute_nothing_early(reducer):
    series = _series()
    lazy = composite(series.chunk({"time": 3, "y": 10, "x": 16}), reducer=reducer)
    assert all(lazy[name].chunks for name in lazy.data_vars)
    xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), composite(series, reducer=reducer))


@pytest.mark.parametrize("reducer", ["median", "geomedian", "medoid"])
def test_composites_do_not_depend_on_threads_or_blocks(reducer, monkeypatch):
    import geococa.reducers as reducers

    series = _series()
    whole = composite(series, reducer=reducer)
    monkeypatch.setattr(reducers, "_STRIP", 64)
    xr.testing.assert_identical(composite(series, reducer=reducer, threads=4), whole)
    part = composite(series.isel(y=slice(5, 17), x=slice(3, 21)), reducer=reducer)
    np.testing.assert_array_equal(part.red.values, whole.red.values[:, 5:17, 3:21])


def test_a_date_that_lacks_one_band_is_left_out_for_all():
    series = _series(missing=0.0)
    series.nir[0, 0, 0] = np.nan
    annual = composite(series)
    assert annual.observations.values[0, 0, 0] == annual.observations.values[0, 0, 1] - 1
    expected = np.median(series.red.values[1 : annual.observations.values[0, 0, 1], 0, 0])
    assert annual.red.values[0, 0, 0] == np.float32(expected)


@pytest.mark.parametrize(
    "options",
    [{"reducer": "best"}, {"reducer": "p101"}, {"period": "month"}, {"min_observations": 0}, {"min_observations": 1.5}],
)
def test_faulty_options_are_refused(options):
    with pytest.raises(InputRefused):
        composite(_series(), **options)


def test_scenes_are_no_reflectance():
    with pytest.raises(KindMismatch, match="to_reflectance"):
        composite(_scenes())
