"""The report as a file: contents, safety, determinism and size. What a browser does with it is in test_report_browser."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pandas as pd
import pyproj
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.errors import InputRefused, KindMismatch
from geococa.grid import Grid
from geococa.report import write_report
from geococa.report_charts import nice_ticks
from geococa.report_maps import (
    change_codes,
    map_payload,
    mark_codes,
    mercator_centres,
    mercator_frame,
    nearest_codes,
    png_bytes,
)
from geococa.report_tables import DATE_COLUMNS, format_number, overlap_area_ha, wide_table
from geococa.report_text import Phrases
from tests.hostile_names import HOSTILE
from tests.report_data import (
    CLASSES,
    NAMES,
    accuracy_table,
    areas_dataset,
    change_table,
    error_matrix_table,
    interval_table,
    land_cover_maps,
    park_polygons,
    picture,
    published_table,
    transition_table,
    trend_table,
    truth_table,
    utm_grid,
)

pytest.importorskip("jinja2")

ASSETS = resources.files("geococa").joinpath("report_assets")


class Page(HTMLParser):
    """Just enough of a document: tables by id as rows of (text, data-v), scripts, styles, attributes."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tables, self.attributes, self.raw, self.texts = {}, [], [], []
        self._table = self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.attributes.append((tag, attrs))
        if tag == "table":
            self._table = self.tables.setdefault(attrs.get("id", ""), [])
        elif tag == "tr" and self._table is not None:
            self._table.append([])
        elif tag in ("td", "th") and self._table is not None:
            self._cell = [attrs.get("data-v"), ""]
            self._table[-1].append(self._cell)
        if tag in ("script", "style"):
            self.raw.append([tag, attrs, ""])

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = None
        if tag == "table":
            self._table = None

    def handle_data(self, data):
        if self.raw and self.lasttag in ("script", "style") and not self.raw[-1][2]:
            self.raw[-1][2] = data
        if self._cell is not None:
            self._cell[1] += data
        self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).replace("\u202f", " ").replace("\xa0", " ").split())


def page(tmp_path, areas=None, trends=None, **options):
    path = write_report(areas_dataset() if areas is None else areas, trends, tmp_path / "report.html", **options)
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    areas = areas_dataset()
    return write_report(
        areas,
        trend_table(areas),
        tmp_path_factory.mktemp("report") / "report.html",
        maps={"18NXG": land_cover_maps()},
        zones=park_polygons(),
        truth=truth_table(areas),
        accuracy=accuracy_table(),
        matrices={2024: error_matrix_table()},
        intervals=interval_table(areas),
        transitions=transition_table(),
        reference=pd.DataFrame({"zone": NAMES[0], "year": [2020, 2021], "area_ha": [10.0, 12.0]}),
        provenance={"recipe": {"sha256": "0" * 64}, "bands": ["red", "nir"]},
    )


def test_every_zone_and_year_is_in_the_table_with_its_hectares(everything):
    rows = Page(everything.read_text(encoding="utf-8")).tables["areas-table"]
    areas = areas_dataset()
    found = {(row[0][0], row[1][0]): float(row[2][0]) for row in rows[1:]}
    for zone in NAMES:
        for i, year in enumerate(range(2019, 2025)):
            expected = float(areas["area_ha"].sel(zone=zone, land_cover="coca")[i])
            assert found[zone, str(year)] == pytest.approx(expected, abs=1e-6)
    assert len(found) == len(NAMES) * 6


def test_the_dates_behind_the_hectares_are_in_the_full_table(tmp_path):
    areas = areas_dataset(names=NAMES[:2], years=range(2022, 2024))
    shape = (2, 2)
    values = {"mean_observations": 7.25, "fallback_share": 0.125, "mean_age_days": 41.5, "median_age_days": np.nan}
    dated = areas.assign({name: (("time", "zone"), np.full(shape, value)) for name, value in values.items()})
    text = write_report(dated, None, tmp_path / "report.html").read_text(encoding="utf-8")
    for column in ("mean_observations", "fallback_percent", "mean_age_days"):
        assert f'data-csv="{column}"' in text
    # what no zone has gets no column
    assert 'data-csv="median_age_days"' not in text
    for value in ("7.25", "12.5", "41.5"):
        assert text.count(f'data-v="{value}"') >= 4
    plain = write_report(areas, None, tmp_path / "plain.html").read_text(encoding="utf-8")
    assert 'data-csv="mean_' not in plain
    assert "methods.dates" not in plain.split('id="geococa-data"')[0]


def test_table_rows_add_up_to_the_zone(everything):
    for row in Page(everything.read_text(encoding="utf-8")).tables["areas-table"][1:]:
        values = [float(cell[0]) for cell in row[2:-1]]
        assert sum(values[:-1]) == pytest.approx(values[-1], abs=1e-4)


def test_no_reference_sample_means_pixel_counting_not_an_estimate(tmp_path):
    text = page(tmp_path).text
    assert "pixel counting, not an estimate" in text
    assert "Estimated coca" not in text


def test_accuracy_table_gives_the_headline_an_estimate_with_its_interval(tmp_path):
    text = page(tmp_path, accuracy=accuracy_table()).text
    assert "Estimated coca, 2024" in text
    assert "95 % interval 300.3 to 504.1 ha" in text


def test_estimate_of_another_year_is_not_the_headline(tmp_path):
    assert "Estimated coca, 2024" not in page(tmp_path, accuracy=accuracy_table(year=2020)).text


def test_headline_is_the_sum_of_the_last_year(tmp_path):
    areas = areas_dataset()
    total = float(areas["area_ha"].sel(land_cover="coca").isel(time=-1).sum())
    assert (
        f"Mapped coca, 2024 {format_number(total, 0 if total >= 1000 else 1)}".replace("\u202f", " ")
        in page(tmp_path, areas).text
    )


def test_unobserved_zone_is_not_zero_hectares(tmp_path):
    areas = areas_dataset(names=("Seen", "Never seen"))
    areas["area_ha"].loc[{"zone": "Never seen"}] = 0.0
    areas["unobserved_ha"].loc[{"zone": "Never seen"}] = areas["zone_ha"].sel(zone="Never seen")
    found = page(tmp_path, areas)
    ranking = {row[0][0]: row for row in found.tables["ranking-table"][1:]}
    assert ranking["Never seen"][1] == ["", "–"]
    assert "never observed" in str([a for _, a in found.attributes if "aria-label" in a])


def test_zones_not_seen_in_the_last_year_rank_last(tmp_path):
    areas = areas_dataset(names=("A", "B"))
    areas["area_ha"][-1, 0] = 0.0
    assert [row[0][0] for row in page(tmp_path, areas).tables["ranking-table"][1:]] == ["B", "A"]


def test_truth_errors_are_listed_and_summed(tmp_path):
    areas = areas_dataset(names=("A",), years=[2023, 2024])
    mapped = areas["area_ha"].sel(land_cover="coca", zone="A").values
    truth = pd.DataFrame({"park": "A", "year": [2023, 2024], "area_ha": mapped - [1.0, -3.0]})
    found = page(tmp_path, areas, truth=truth)
    assert [float(row[4][0]) for row in found.tables["truth-table"][1:]] == pytest.approx([1.0, -3.0], abs=1e-5)
    assert "mean absolute error 2.0 ha" in found.text
    assert "root mean square error 2.2 ha" in found.text
    assert "Simulated data" in found.text


def test_without_optional_tables_their_sections_are_absent(tmp_path):
    ids = {attrs.get("id") for _, attrs in page(tmp_path).attributes}
    assert not {"truth", "transitions", "map-section", "reference"} & ids
    assert {"summary", "ranking", "zones", "accuracy", "quality", "table", "methods"} <= ids


def test_error_matrix_and_transitions_are_shown(everything):
    tables = Page(everything.read_text(encoding="utf-8")).tables
    assert [cell[1] for cell in tables["matrix-1"][1]] == ["coca", "61", "4", "10", "75"]
    assert ["Caño Claro", "2023–2024", "forest", "coca", "42.5"] in [
        [c[1] for c in row] for row in tables["transitions-table"]
    ]


def test_overlapping_zones_are_pointed_out(tmp_path):
    assert "Zones overlap" in page(tmp_path, zones=park_polygons()).text


def test_zones_that_only_touch_do_not_overlap():
    import geopandas as gpd
    from shapely.geometry import box

    zones = gpd.GeoDataFrame({"zone": ["a", "b"]}, geometry=[box(0, 0, 1, 1), box(1, 0, 2, 1)], crs="EPSG:4326")
    assert overlap_area_ha(zones, ["a", "b"]) == 0.0


def test_overlap_of_two_known_squares():
    import geopandas as gpd
    from shapely.geometry import box

    zones = gpd.GeoDataFrame(
        {"zone": ["a", "b"]}, geometry=[box(0, 0, 2000, 1000), box(1000, 0, 3000, 1000)], crs="EPSG:6933"
    )
    assert overlap_area_ha(zones, ["a", "b"]) == pytest.approx(100.0)


def test_spanish_page_opens_in_spanish_and_carries_both_languages(tmp_path):
    found = page(tmp_path, language="es")
    assert ("html", {"lang": "es"}) in found.attributes
    assert "conteo de píxeles, no una estimación" in found.text
    assert '"Pixel counting, not an estimate."' in found.text


def phrases():
    return json.loads(ASSETS.joinpath("text.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("key", "pair"), phrases().items())
def test_both_languages_have_the_phrase_with_the_same_placeholders(key, pair):
    english, spanish = pair
    assert english
    assert spanish
    assert set(re.findall(r"{(\w+)}", english)) == set(re.findall(r"{(\w+)}", spanish))


def test_no_phrase_is_unused():
    package = resources.files("geococa")
    files = [package.joinpath(f"report{part}.py") for part in ("", "_text", "_sections")]
    files += [ASSETS.joinpath(name) for name in ("report.html.j2", "macros.html.j2", "report.js")]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    # looked up by a name that comes with the data
    open_ended = ("class.", "verdict.", "acc.", "ref.", "estimates.", "say.")
    dynamic = {"map.new", "map.stable", "map.gone", "col.fallback_percent"}
    dynamic |= {f"col.{name}" for name in DATE_COLUMNS}
    assert [
        key for key in phrases() if not key.startswith(open_ended) and key not in dynamic and f'"{key}"' not in source
    ] == []


@pytest.mark.parametrize("language", ["en", "es"])
def test_same_input_gives_the_same_bytes(tmp_path, language):
    areas = areas_dataset()
    options = {
        "maps": land_cover_maps(years=[2023, 2024]),
        "zones": park_polygons(),
        "truth": truth_table(areas),
        "language": language,
        "provenance": {"b": 1, "a": {"d": 2, "c": 3}},
    }
    first = write_report(areas, trend_table(areas), tmp_path / "1.html", **options).read_bytes()
    second = write_report(areas, trend_table(areas), tmp_path / "2.html", **options).read_bytes()
    assert first == second


def test_order_of_provenance_and_tiles_does_not_matter(tmp_path):
    maps = {"b": land_cover_maps(years=[2024]), "a": land_cover_maps(years=[2024], grid=utm_grid(zone=17), seed=2)}
    first = write_report(areas_dataset(), None, tmp_path / "1.html", maps=maps, provenance={"x": 1, "y": 2})
    second = write_report(
        areas_dataset(), None, tmp_path / "2.html", maps=dict(reversed(maps.items())), provenance={"y": 2, "x": 1}
    )
    assert first.read_bytes() == second.read_bytes()


# ---- safety -----------------------------------------------------------------------------------------------------------


def policy_of(found):
    return next(
        a["content"]
        for tag, a in found.attributes
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )


def test_policy_allows_the_pages_own_scripts_and_style_only(everything):
    text = everything.read_text(encoding="utf-8")
    policy = policy_of(Page(text))
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    blocks = re.findall(r"<(script|style)>(.*?)</\1>", text, flags=re.S)
    assert [tag for tag, _ in blocks] == ["style", "script", "script"]
    for tag, content in blocks:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src" in policy
        assert f"'sha256-{digest}'" in policy


def test_nothing_in_the_page_is_fetched(everything):
    for tag, attrs in Page(everything.read_text(encoding="utf-8")).attributes:
        for name in ("src", "srcset", "data", "action", "poster", "background"):
            assert name not in attrs, (tag, attrs)
        assert attrs.get("href", "#").startswith("#"), (tag, attrs)
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert "style" not in attrs, (tag, attrs)
    style = re.search(r"<style>(.*?)</style>", everything.read_text(encoding="utf-8"), flags=re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style
    assert "sourceMappingURL" not in everything.read_text(encoding="utf-8")


def test_licence_of_the_map_library_is_in_the_page(everything):
    assert "Volodymyr Agafonkin" in everything.read_text(encoding="utf-8")


def test_sixty_hostile_names_stay_text(tmp_path):
    assert len(set(HOSTILE)) == 60
    areas = areas_dataset(names=HOSTILE, years=[2023, 2024])
    harmless = areas_dataset(names=[f"zone {i}" for i in range(60)], years=[2023, 2024])
    plain = page(tmp_path, harmless, trend_table(harmless), title="t", provenance={"a": "b"})
    found = page(tmp_path, areas, trend_table(areas), title=HOSTILE[0], provenance={HOSTILE[1]: HOSTILE[2]})
    assert {tag for tag, _ in found.attributes} == {tag for tag, _ in plain.attributes}
    shown = {row[0][0] for row in found.tables["areas-table"][1:]}
    # HTML turns a carriage return in an attribute's source into a line feed
    assert {name.replace("\r", "\n") for name in shown} == {name.replace("\r", "\n") for name in HOSTILE}


def test_data_island_can_not_be_closed_by_a_name(tmp_path):
    zones = park_polygons(names=HOSTILE[:4])
    areas = areas_dataset(names=HOSTILE[:4], years=[2024])
    path = write_report(areas, None, tmp_path / "r.html", maps=land_cover_maps(years=[2024]), zones=zones)
    island = re.search(
        r'<script type="application/json" id="geococa-data">(.*?)</script>',
        path.read_text(encoding="utf-8"),
        flags=re.S,
    )
    payload = json.loads(island.group(1))
    assert [feature["properties"]["zone"] for feature in payload["outlines"]["features"]] == list(HOSTILE[:4])
    assert "<" not in island.group(1)


# ---- size -------------------------------------------------------------------------------------------------------------


def test_fifty_zones_and_ten_years_fit_in_five_megabytes(tmp_path):
    years = range(2015, 2025)
    names = [f"Parque Nacional Natural Número {i}" for i in range(50)]
    areas = areas_dataset(names=names, years=years)
    rng = np.random.default_rng(1)
    grid = utm_grid(900, 1000)
    maps = land_cover_maps(years=years, grid=utm_grid(90, 100))
    noisy = np.repeat(np.repeat(maps.values, 10, axis=1), 10, axis=2)
    noisy[rng.random(noisy.shape) < 0.05] = 3
    large = grid.attach(
        maps.isel(x=0, y=0, drop=True).drop_vars("spatial_ref").expand_dims(y=900, x=1000, axis=(1, 2)).copy(data=noisy)
    )
    path = write_report(
        areas,
        trend_table(areas),
        tmp_path / "r.html",
        maps=large,
        truth=truth_table(areas),
        intervals=interval_table(areas),
        zones=park_polygons(names=names, grid=grid),
    )
    assert path.stat().st_size <= 5_000_000


# ---- refusals ---------------------------------------------------------------------------------------------------------


def test_unknown_class_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="no class 'poppy'"):
        write_report(areas_dataset(), None, tmp_path / "r.html", class_name="poppy")


def test_table_without_a_known_zone_is_refused(tmp_path):
    truth = pd.DataFrame({"zone": ["Elsewhere"], "year": [2024], "area_ha": [1.0]})
    with pytest.raises(InputRefused, match="Elsewhere"):
        write_report(areas_dataset(), None, tmp_path / "r.html", truth=truth)


def test_two_rows_for_one_zone_and_year_are_refused(tmp_path):
    truth = pd.DataFrame({"zone": [NAMES[0]] * 2, "year": [2024] * 2, "area_ha": [1.0, 2.0]})
    with pytest.raises(InputRefused, match="two rows"):
        write_report(areas_dataset(), None, tmp_path / "r.html", truth=truth)


def test_missing_variable_is_named(tmp_path):
    with pytest.raises(InputRefused, match="unobserved_ha"):
        write_report(areas_dataset().drop_vars("unobserved_ha"), None, tmp_path / "r.html")


def test_unknown_language_is_refused(tmp_path):
    with pytest.raises(InputRefused, match="'en' or 'es'"):
        write_report(areas_dataset(), None, tmp_path / "r.html", language="fr")


def test_a_missing_folder_is_made(tmp_path):
    assert write_report(areas_dataset(), None, tmp_path / "new" / "r.html").is_file()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputRefused, match="can't be made"):
        write_report(areas_dataset(), None, tmp_path / "file" / "r.html")


def test_map_of_another_kind_is_refused(tmp_path):
    maps = land_cover_maps(years=[2024])
    maps.attrs["kind"] = "probability"
    with pytest.raises(KindMismatch):
        write_report(areas_dataset(), None, tmp_path / "r.html", maps=maps)


def test_refused_input_leaves_the_old_report(tmp_path):
    path = write_report(areas_dataset(), None, tmp_path / "r.html")
    before = path.read_bytes()
    with pytest.raises(InputRefused):
        write_report(areas_dataset(), None, path, class_name="poppy")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_inputs_are_not_changed(tmp_path):
    areas, trends, truth = areas_dataset(), trend_table(areas_dataset()), truth_table(areas_dataset())
    copies = areas.copy(deep=True), trends.copy(), truth.copy()
    write_report(areas, trends, tmp_path / "r.html", truth=truth)
    assert areas.identical(copies[0])
    pd.testing.assert_frame_equal(trends, copies[1])
    pd.testing.assert_frame_equal(truth, copies[2])


def test_areas_of_a_single_map_without_time_are_reported(tmp_path):
    areas = areas_dataset(years=[2024]).isel(time=0, drop=True)
    assert len(page(tmp_path, areas).tables["areas-table"]) == 1 + len(NAMES)


# ---- numbers and pictures ---------------------------------------------------------------------------------------------


@given(st.floats(-1e9, 1e9), st.integers(0, 4))
def test_written_numbers_read_back_to_half_a_unit(value, digits):
    text = format_number(value, digits).replace("\u202f", "").replace("−", "-")
    if text[0] in "<>":
        assert 0 < abs(value) < abs(float(text[1:]))
        assert (text[0] == ">") == (value < 0)
    else:
        assert abs(float(text) - value) <= 10.0**-digits * (0.5 + 1e-9) + abs(value) * 1e-12


def test_a_trace_is_not_written_as_zero():
    assert format_number(0.004) == "<0.1"
    assert format_number(0.0) == "0.0"


@given(st.floats(1e-3, 1e7))
def test_axis_covers_the_largest_value_in_a_few_steps(largest):
    ticks = nice_ticks(largest)
    assert ticks[-1] >= largest * (1 - 1e-9)
    assert 2 <= len(ticks) <= 6


def test_class_order_of_the_table_starts_with_the_class_asked_for():
    _, classes = wide_table(areas_dataset(), "pasture")
    assert classes[0] == "pasture"
    assert sorted(classes) == sorted(CLASSES)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 200), st.integers(0, 2**31))
def test_png_decodes_to_the_codes_it_was_made_of(rows, columns, levels, seed):
    import io

    image = pytest.importorskip("PIL.Image")
    codes = np.random.default_rng(seed).integers(0, levels, size=(rows, columns)).astype(np.uint8)
    colors = {code: (code, 255 - code, code // 2, 255) for code in range(1, levels)}
    decoded = np.asarray(image.open(io.BytesIO(png_bytes(codes, colors))).convert("RGBA"))
    assert (decoded[..., 3] == np.where(codes > 0, 255, 0)).all()
    assert (decoded[..., 0][codes > 0] == codes[codes > 0]).all()


@pytest.mark.parametrize("crs_zone", [17, 18, 19])
def test_picture_pixels_show_the_cell_that_lies_there(crs_zone):
    grid = utm_grid(zone=crs_zone)
    codes = np.random.default_rng(0).integers(1, 9, size=grid.shape).astype(np.uint8)
    frame = mercator_frame(grid, 300)
    picture = nearest_codes(frame, codes, 255)
    to_mercator = pyproj.Transformer.from_crs(grid.crs, "EPSG:3857", always_xy=True)
    for row, column in np.random.default_rng(1).integers(0, 120, size=(200, 2)):
        x, y = to_mercator.transform(*(grid.transform * (float(column) + 0.5, float(row) + 0.5)))
        assert picture[int((frame.top - y) / frame.pixel), int((x - frame.left) / frame.pixel)] == codes[row, column]


@pytest.mark.parametrize("side", [16, 50, 333])
def test_no_coca_cell_is_lost_however_small_the_picture(side):
    grid = utm_grid(900, 700)
    codes = np.zeros(grid.shape, dtype=np.uint8)
    places = np.random.default_rng(4).integers(0, 700, size=(40, 2))
    codes[places[:, 0], places[:, 1]] = 1
    frame = mercator_frame(grid, side)
    row, column = np.nonzero(codes)
    picture = mark_codes(frame, codes, *mercator_centres(grid, row, column), codes[row, column], (1,))
    to_mercator = pyproj.Transformer.from_crs(grid.crs, "EPSG:3857", always_xy=True)
    for row, column in places:
        x, y = to_mercator.transform(*(grid.transform * (float(column) + 0.5, float(row) + 0.5)))
        assert picture[int((frame.top - y) / frame.pixel), int((x - frame.left) / frame.pixel)] == 1


def test_bounds_of_the_picture_are_its_corners():
    grid = Grid("EPSG:3857", (100.0, 0, -8_300_000.0, 0, -100.0, 300_000.0), (30, 40))
    south_west, north_east = mercator_frame(grid, 1000).bounds
    back = pyproj.Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True)
    west, south = back.transform(-8_300_000.0, 297_000.0)
    east, north = back.transform(-8_296_000.0, 300_000.0)
    assert [*south_west, *north_east] == pytest.approx([south, west, north, east], abs=1e-8)


def test_change_knows_new_lasting_gone_and_leaves_the_unseen_out():
    before, now = np.array([2, 1, 1, 255, 1, 2]), np.array([1, 1, 2, 1, 255, 2])
    assert change_codes(before, now, 1).tolist() == [1, 2, 3, 0, 0, 0]


def test_pictures_shrink_until_they_fit():
    maps = land_cover_maps(years=[2024], grid=utm_grid(400, 400))
    maps.values[:] = np.random.default_rng(0).integers(1, 9, size=maps.shape)
    pictures = map_payload(maps, "coca", budget=60_000)["tiles"][0]["years"]["2024"]
    assert len(pictures["cover"]) + sum(map(len, pictures["coca"])) <= 60_000


def test_pictures_are_readable_png():
    payload = map_payload(land_cover_maps(years=[2024]), "coca")
    data = base64.b64decode(payload["tiles"][0]["years"]["2024"]["cover"])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    start = data.index(b"IDAT")
    length = int.from_bytes(data[start - 4 : start], "big")
    assert zlib.decompress(data[start + 4 : start + 4 + length])


def test_map_in_a_crs_without_code_is_drawn():
    grid = Grid(
        "+proj=sinu +lon_0=0 +x_0=0 +y_0=0 +R=6371007.181 +units=m",
        (231.65, 0, -8_200_000, 0, -231.65, 220_000),
        (60, 70),
    )
    payload = map_payload(land_cover_maps(years=[2024], grid=grid), "coca")
    assert math.isclose(payload["tiles"][0]["bounds"][1][0], 1.978, abs_tol=0.01)


def test_background_picture_is_embedded_as_jpeg(tmp_path):
    import xarray as xr

    pytest.importorskip("PIL")
    grid = utm_grid()
    bands = grid.attach(
        xr.DataArray(np.random.default_rng(0).random((3, *grid.shape), dtype=np.float32), dims=("band", "y", "x"))
    )
    path = write_report(
        areas_dataset(), None, tmp_path / "r.html", maps={"t": land_cover_maps(years=[2024])}, pictures={"t": bands}
    )
    assert "data:image/jpeg;base64," in path.read_text(encoding="utf-8")


def test_neighbouring_pictures_are_stretched_alike(tmp_path):
    """Two tiles that show the same number show the same grey, whatever else lies in them."""
    import io

    image = pytest.importorskip("PIL.Image")
    bands = {"a": picture(utm_grid(zone=17)) * 0 + 0.2, "b": picture(utm_grid(zone=18)) * 0 + 0.2}
    bands["b"][:, :60] = 1.0
    maps = {name: land_cover_maps(years=[2024], grid=utm_grid(zone=zone)) for name, zone in (("a", 17), ("b", 18))}
    tiles = map_payload(maps, "coca", pictures=bands)["tiles"]
    greys = []
    for tile in tiles:
        data = base64.b64decode(tile["picture"].split(",")[1])
        shown = np.asarray(image.open(io.BytesIO(data)).convert("L"))
        greys.append(int(shown[int(shown.shape[0] * 0.8), shown.shape[1] // 2]))
    assert abs(greys[0] - greys[1]) <= 2


def test_what_coca_replaced_and_became_adds_up(tmp_path):
    table = transition_table()
    table["sustained_ha"] = 0.25 * table["area_ha"]
    text = page(tmp_path, transitions=table).text
    # forest 50.9 and secondary forest 31.0 to coca, coca to pasture 12.25 and secondary forest 3.1
    assert "What coca replaced 81.9 ha in all, of which 25 % lasted" in text
    assert "forest 50.9 ha, 62 %" in text
    assert re.search(r"What became of coca 15\.[34] ha in all, of which 25 % lasted", text)
    assert re.search(r"pasture 12\.[23] ha, 80 %", text)


def test_estimated_change_of_the_last_step_is_a_headline_with_its_interval(tmp_path):
    tables = {"change_estimates": change_table()}
    text = page(tmp_path, accuracy=accuracy_table(), estimates=tables).text
    assert "Estimated change since 2023" in text
    assert "95 % interval −40.0 to +16.0 ha" in text
    other = page(tmp_path, areas_dataset(years=[2021, 2022]), accuracy=accuracy_table(2022), estimates=tables).text
    assert "Estimated change since 2021" not in other
    assert "Change since 2021" in other


def test_published_hectares_of_zones_and_of_all_are_drawn_others_stay_in_the_table(tmp_path):
    areas = areas_dataset()
    found = page(tmp_path, reference=published_table(areas))
    squares = [a for tag, a in found.attributes if tag == "rect" and a.get("class") == "reference"]
    # three of the zone, two of all in the wide and the narrow chart, and the key of the legend
    assert len(squares) == 3 + 2 * 2 + 1
    assert "Elsewhere" in found.text
    without_zone = page(tmp_path, reference=pd.DataFrame({"year": [2020], "area_ha": [253_000.0]}))
    assert not [a for tag, a in without_zone.attributes if tag == "rect" and a.get("class") == "reference"]
    with pytest.raises(InputRefused, match="year and area_ha"):
        page(tmp_path, reference=pd.DataFrame({"zone": [NAMES[0]], "year": [2020]}))


@pytest.mark.parametrize(
    ("said", "spanish"),
    [
        (
            "only 6 samples of this class: the interval is rough",
            "solo 6 muestras de esta clase: el intervalo es aproximado",
        ),
        ("no skill over historical mean", "sin habilidad frente a media histórica"),
        ("age_correction", "edad de la imagen"),
        (
            "2 years are too few for a test. the slope changes: 2019-2021 +3 ha a year; 2021-2024 -12 ha a year",
            "2 años son muy pocos para una prueba; la pendiente cambia: 2019-2021 +3\xa0ha/a; 2021-2024 -12\xa0ha/a",
        ),
    ],
)
def test_notes_of_the_stages_are_said_in_spanish(said, spanish):
    shown = Phrases(ASSETS.joinpath("text.json").read_text(encoding="utf-8"), "es").said(said)
    assert re.sub(r"<[^>]+>", "", shown) == spanish


def test_a_note_that_nobody_knows_stays_as_it_is_and_is_text():
    shown = Phrases(ASSETS.joinpath("text.json").read_text(encoding="utf-8"), "es").said("a <b> note")
    assert shown == '<span lang="en">a &lt;b&gt; note</span>'


def test_every_status_and_notice_of_the_stages_has_a_phrase():
    """Notices that the trend stage writes for short, bent and mixed series, and the accuracy stage's notes."""
    from geococa.accuracy import _note
    from geococa.trends import area_trend

    phrases = Phrases(ASSETS.joinpath("text.json").read_text(encoding="utf-8"), "es")
    rng = np.random.default_rng(1)
    years = np.arange(2001, 2021)
    bent = np.where(years < 2011, years - 2000.0, 2021.0 - years) * 20 + rng.normal(0, 1, size=20) + 50
    rows = [{"zone": "bent", "year": y, "area_ha": v} for y, v in zip(years, bent, strict=True)]
    rows += [{"zone": "short", "year": y, "area_ha": 5.0 + y - 2000} for y in (2001, 2002)]
    notices = area_trend(pd.DataFrame(rows))["notice"].tolist()
    base = {"n_reference": 20, "se_ha": 1.0, "interval": "wilson", "users_se": 0.1, "deciding": 20, "area_ha": 1.0}
    for change in ({}, {"n_reference": 3}, {"users_se": 0.0}, {"n_reference": 0}, {"se_ha": 0.0}):
        notices.append(_note(pd.Series(base | change)))
    said = [notice for notice in notices if notice]
    assert len(said) >= 5
    assert [notice for notice in said if 'lang="en"' in phrases.said(notice)] == []
