"""Figures: what they draw, and that they are the same every time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pyproj
import pytest

from geococa.errors import GridMismatch, InputRefused
from geococa.figure_maps import pooled_image
from geococa.grid import Grid
from tests.report_data import (
    NAMES,
    areas_dataset,
    error_matrix_table,
    interval_table,
    land_cover_maps,
    park_polygons,
    transition_table,
    trend_table,
    truth_table,
    utm_grid,
)

pytest.importorskip("matplotlib")
from geococa import figures

MAKERS = {
    "map": lambda: figures.map_figure(land_cover_maps(), zones=park_polygons()),
    "change": lambda: figures.change_map_figure(land_cover_maps().isel(time=0), land_cover_maps().isel(time=5)),
    "series": lambda: figures.area_series_figure(
        areas_dataset(), intervals=interval_table(areas_dataset()), truth=truth_table(areas_dataset())
    ),
    "matrix": lambda: figures.error_matrix_figure(error_matrix_table()),
    "transitions": lambda: figures.transitions_figure(transition_table()),
    "edge": lambda: figures.edge_profile_figure(
        pd.DataFrame({"from_m": [-1000, 0], "to_m": [0, 1000], "area_ha": [2.0, 6.0]})
    ),
    "trend": lambda: figures.area_series_figure(areas_dataset(), trends=broken_trends(), reference=published()),
}


def broken_trends():
    """Trends of which one has a bend in 2021."""
    table = trend_table(areas_dataset())
    return table.assign(breaks=["2021", *[""] * (len(table) - 1)])


def published():
    """Published hectares with an interval, of two zones."""
    table = truth_table(areas_dataset(), seed=9)
    table = table[table["zone"].isin(NAMES[:2])]
    return table.assign(low_ha=0.8 * table["area_ha"], high_ha=1.2 * table["area_ha"])


def texts(figure):
    figure.canvas.draw_idle()
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    for axes in figure.axes:
        found += [axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()]
        if axes.get_legend() is not None:
            found += [text.get_text() for text in axes.get_legend().get_texts()]
    return found


@pytest.mark.parametrize(
    ("name", "ending"),
    [("map", "svg"), ("map", "png"), ("series", "pdf"), *[(n, "svg") for n in MAKERS if n != "map"], ("map", "pdf")],
)
def test_same_figure_gives_the_same_bytes(name, ending, tmp_path):
    first = figures.save_figure(MAKERS[name](), tmp_path / f"a.{ending}", dpi=60).read_bytes()
    second = figures.save_figure(MAKERS[name](), tmp_path / f"b.{ending}", dpi=60).read_bytes()
    assert first == second


@pytest.mark.parametrize("name", list(MAKERS))
def test_svg_is_valid_xml_without_date(name, tmp_path):
    import xml.etree.ElementTree as ET

    path = figures.save_figure(MAKERS[name](), tmp_path / "f.svg", dpi=60)
    ET.parse(path)
    assert "<dc:date>" not in path.read_text()


def test_map_names_classes_units_north_and_scale():
    found = texts(MAKERS["map"]())
    assert {"coca", "secondary forest", "not observed", "easting (km)", "northing (km)", "N", "2024"} <= set(found)
    assert any(text.endswith((" m", " km")) for text in found)


def test_scale_bar_has_its_length_on_the_ground():
    grid = utm_grid()
    figure = figures.map_figure(land_cover_maps(years=[2024]))
    axes = figure.axes[0]
    label = next(t.get_text() for t in axes.texts if t.get_text().endswith(" m"))
    halves = [p for p in axes.patches if p.get_linewidth() == pytest.approx(0.6)]
    x0, y0 = halves[0].get_x(), halves[0].get_y()
    x1 = halves[-1].get_x() + halves[-1].get_width()
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    (lon0, lat0), (lon1, lat1) = to_degrees.transform(x0, y0), to_degrees.transform(x1, y0)
    assert pyproj.Geod(ellps="WGS84").inv(lon0, lat0, lon1, lat1)[2] == pytest.approx(float(label.split()[0]), rel=1e-4)


def test_thinning_keeps_a_single_cell_of_the_class_to_keep():
    codes = np.full((5000, 4000), 2, dtype=np.uint8)
    codes[4321, 1234] = 1
    image, extent = pooled_image(codes, Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), codes.shape), keep=1)
    assert max(image.shape) <= 1600
    row, column = np.argwhere(image == 1)[0]
    left, right, bottom, top = extent
    x = left + (column + 0.5) * (right - left) / image.shape[1]
    y = top - (row + 0.5) * (top - bottom) / image.shape[0]
    assert abs(x - (600000 + 1234.5 * 10)) < 21
    assert abs(y - (300000 - 4321.5 * 10)) < 21


def test_change_counts_cells_of_each_kind():
    maps = land_cover_maps()
    before, after = maps.isel(time=0), maps.isel(time=5)
    image = figures.change_map_figure(before, after).axes[0].get_images()[0].get_array()
    new = (before.values != 1) & (before.values != 255) & (after.values == 1)
    assert int((np.asarray(image) == (0xD5, 0x5E, 0x00)).all(axis=-1).sum()) == int(new.sum())


def test_change_on_different_grids_is_refused():
    other = land_cover_maps(years=[2024], grid=utm_grid(cell_m=20.0)).isel(time=0)
    with pytest.raises(GridMismatch):
        figures.change_map_figure(land_cover_maps(years=[2023]).isel(time=0), other)


def test_year_that_is_not_there_is_refused():
    with pytest.raises(InputRefused, match="no map of 1999"):
        figures.map_figure(land_cover_maps(), year=1999)


def test_series_leaves_a_gap_where_nothing_was_observed():
    areas = areas_dataset(names=("A",))
    areas["area_ha"].values[2] = 0.0
    line = figures.area_series_figure(areas).axes[0].get_lines()[0]
    assert np.isnan(line.get_ydata()[2])
    assert np.isfinite(np.delete(line.get_ydata(), 2)).all()


def test_trend_turns_on_the_middle_of_the_years_with_its_slope_and_breaks():
    areas, trends = areas_dataset(), broken_trends()
    figure = figures.area_series_figure(areas, zones=[NAMES[0]], trends=trends, reference=published())
    axes = figure.axes[0]
    line = next(one for one in axes.get_lines() if one.get_label() == "trend")
    x, y = line.get_xdata(), line.get_ydata()
    slope = trends.loc[0, "slope_ha_per_year"]
    assert (y[-1] - y[0]) / (x[-1] - x[0]) == pytest.approx(slope)
    values = areas["area_ha"].sel(zone=NAMES[0], land_cover="coca").values
    years = areas["time"].dt.year.values
    # as many years above the line as below it
    assert np.median(values - (y[0] + slope * (years - x[0]))) == pytest.approx(0, abs=1e-9)
    assert [one.get_xdata()[0] for one in axes.get_lines() if one.get_label() == "break"] == [2021.0]
    square = next(one for one in axes.get_lines() if one.get_label() == "published reference")
    assert square.get_ydata() == pytest.approx(published().query("zone == @NAMES[0]")["area_ha"].to_numpy())
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"trend", "95 % interval of the trend", "break", "published reference"} <= set(shown)


def test_unknown_zone_is_refused():
    with pytest.raises(InputRefused, match="Nowhere"):
        figures.area_series_figure(areas_dataset(), zones=["Nowhere"])


def test_error_matrix_margins_are_users_and_producers_accuracy():
    found = texts(MAKERS["matrix"]())
    assert {"0.81", "0.78"} <= set(found)  # 61/75 and 61/78


def test_error_matrix_with_unequal_classes_is_refused():
    with pytest.raises(InputRefused, match="same classes"):
        figures.error_matrix_figure(pd.DataFrame([[1, 2], [3, 4]], index=["a", "b"], columns=["b", "a"]))


def test_transitions_leave_out_small_flows_and_say_so():
    title = figures.transitions_figure(transition_table(), min_share=0.1).axes[0].get_title(loc="left")
    assert "15.3 ha in smaller flows left out" in title


def test_dollar_signs_in_names_stay_text(tmp_path):
    areas = areas_dataset(names=(r"Costa $\frac{$", "B"))
    figures.save_figure(figures.area_series_figure(areas), tmp_path / "x.png", dpi=40)


def test_unknown_ending_is_refused(tmp_path):
    with pytest.raises(InputRefused, match=r"\.svg, \.pdf or \.png"):
        figures.save_figure(MAKERS["matrix"](), tmp_path / "x.bmp")


def test_making_figures_never_touches_pyplot():
    code = (
        "import sys; from geococa import figures; from tests.report_data import transition_table;"
        "figures.transitions_figure(transition_table()); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_edge_profile_draws_shares_where_rings_are_given():
    table = pd.DataFrame({"from_m": [-1000, 0], "to_m": [0, 1000], "area_ha": [2.0, 6.0], "ring_ha": [100.0, 200.0]})
    axes = figures.edge_profile_figure(table).axes[0]
    assert [bar.get_height() for bar in axes.patches] == [2.0, 3.0]
