"""Response sheets: chips of the right place and year, nothing of the map or from the network, answers that come back."""

from __future__ import annotations

import base64
import io
import re
import shutil

import geopandas
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.interpretations import read_interpretation
from geococa.response_sheets import write_response_sheet

pytest.importorskip("PIL")
GRID = Grid("EPSG:32618", (10, 0, 600_000, 0, -10, 300_000), (60, 80))
CLASSES = ["coca", "forest", "secondary_forest"]


def pictures(years=(2020, 2021), grid=GRID, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.02, 0.4, (len(years), 3, *grid.shape)).astype(np.float32)
    dates = pd.DatetimeIndex([f"{year}-12-31" for year in years]).astype("datetime64[ns]")
    array = xr.DataArray(
        values, dims=("time", "feature", "y", "x"), coords={"time": dates, "feature": ["red", "green", "blue"]}
    )
    return grid.attach(array)


def samples(n=4, years=None, seed=1):
    rng = np.random.default_rng(seed)
    row, col = rng.integers(5, 55, n), rng.integers(5, 75, n)
    table = pd.DataFrame({"id": np.arange(1, n + 1), "row": row, "col": col, "stratum": "mapped_as_coca"})
    parts = [table.assign(year=year) for year in years] if years else [table]
    table = pd.concat(parts, ignore_index=True)
    points = geopandas.points_from_xy(600_005 + 10 * table["col"], 299_995 - 10 * table["row"])
    return geopandas.GeoDataFrame(table, geometry=points, crs=GRID.crs)


def chips(page):
    from PIL import Image

    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


class TestPage:
    def test_chip_shows_the_place_of_the_sample_in_each_year(self, tmp_path):
        image = pictures()
        drawn = samples(3)
        page = write_response_sheet(drawn, image, tmp_path / "s.html", classes=CLASSES, window_m=90).read_text("utf-8")
        found = chips(page)
        assert len(found) == 6
        assert found[0].shape == (9, 9, 3)
        values = image.values
        for k, chip in enumerate(found):
            row, col = drawn["row"].iloc[k // 2], drawn["col"].iloc[k // 2]
            for band in range(3):
                low, high = np.percentile(values[:, band], [2, 98])
                expected = np.clip((values[k % 2, band, row, col] - low) / (high - low) * 255, 0, 255)
                assert chip[4, 4, band] == pytest.approx(expected, abs=1.01)

    def test_samples_in_degrees_get_the_same_page(self, tmp_path):
        one = write_response_sheet(samples(), pictures(), tmp_path / "a.html", classes=CLASSES)
        two = write_response_sheet(samples().to_crs("EPSG:4326"), pictures(), tmp_path / "b.html", classes=CLASSES)
        assert one.read_bytes() == two.read_bytes()

    def test_unseen_cells_and_what_is_off_the_picture_are_grey(self, tmp_path):
        image = pictures(years=(2020,))
        image[:, :, :, :40] = np.nan
        drawn = samples(1)
        drawn["geometry"] = geopandas.points_from_xy([600_005], [299_995])
        page = write_response_sheet(drawn, image, tmp_path / "s.html", classes=CLASSES, window_m=50).read_text("utf-8")
        assert (chips(page)[0] == 128).all()

    def test_page_tells_nothing_of_the_map_and_loads_nothing(self, tmp_path):
        page = write_response_sheet(samples(), pictures(), tmp_path / "s.html", classes=CLASSES).read_text("utf-8")
        assert "mapped_as_coca" not in page
        assert "http://" not in page
        assert "https://" not in page
        assert "default-src 'none'" in page
        assert " style=" not in page

    def test_hostile_names_stay_text(self, tmp_path):
        drawn = samples(1)
        drawn["id"] = ['<script>alert("x")</script>']
        title = '</title><script>alert("y")</script>'
        page = write_response_sheet(
            drawn, pictures(), tmp_path / "s.html", classes=['"><b>', "</script><i>"], title=title
        ).read_text("utf-8")
        assert page.count("<script") == 2
        assert "<b>" not in page
        assert "<i>" not in page

    def test_second_tile_serves_samples_that_the_first_does_not_cover(self, tmp_path):
        east = Grid("EPSG:32618", (10, 0, 600_800, 0, -10, 300_000), (60, 80))
        drawn = samples(2)
        drawn["geometry"] = geopandas.points_from_xy([600_105, 601_005], [299_705, 299_705])
        page = write_response_sheet(
            drawn, {"w": pictures(), "e": pictures(grid=east)}, tmp_path / "s.html", classes=CLASSES
        )
        assert len(chips(page.read_text("utf-8"))) == 4

    def test_only_the_own_year_where_asked(self, tmp_path):
        options = {"classes": CLASSES, "window_m": 50}
        drawn = samples(2, years=[2020, 2021])
        page = write_response_sheet(drawn, pictures(), tmp_path / "s.html", only_own_year=True, **options).read_text(
            "utf-8"
        )
        assert len(chips(page)) == 4
        assert page.count('class="own"') == 4

    @pytest.mark.parametrize(
        ("change", "options", "words"),
        [
            (lambda t: t.drop(columns="id"), {}, "neither id nor point"),
            (lambda t: t, {"classes": []}, "each once"),
            (lambda t: t, {"bands": ("nir", "red", "green")}, "no nir"),
            (lambda t: t.set_geometry(t.geometry.translate(99_999)), {}, "no picture covers"),
            (lambda t: t.set_geometry(t.geometry.buffer(5)), {}, "sample points"),
        ],
    )
    def test_misuse_is_refused(self, tmp_path, change, options, words):
        with pytest.raises(InputRefused, match=words):
            write_response_sheet(change(samples()), pictures(), tmp_path / "s.html", **({"classes": CLASSES} | options))


CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.mark.browser
def test_answers_given_in_a_browser_come_back_as_labels(tmp_path):
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    drawn = samples(3, years=[2021])
    sheet = write_response_sheet(drawn, pictures(), tmp_path / "s.html", classes=CLASSES, title="Hoja 2021")
    asked, said = [], []
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=CHROMIUM, headless=True, args=["--no-sandbox", "--disable-gpu"],
            accept_downloads=True,
        )  # fmt: skip
        page = context.new_page()
        page.on("request", lambda r: asked.append(r.url) if not r.url.startswith(("data:", "blob:")) else None)
        page.on("console", lambda m: said.append(m.text))
        page.on("pageerror", lambda e: said.append(str(e)))
        page.goto(sheet.as_uri())
        page.fill("#interpreter", "Ana")
        page.check("#s0 input[value=coca]")
        page.check("#s2 input[value=secondary_forest]")
        page.fill("#s2 input.notes", 'rows, "regular"')
        page.reload()
        assert page.text_content("#count") == "2 of 3 labelled"
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "ana.csv")
        context.close()
    assert asked == [sheet.as_uri()] * 2
    assert said == []
    found = read_interpretation(tmp_path / "ana.csv", drawn)
    assert found["class"].tolist()[::2] == ["coca", "secondary_forest"]
    assert pd.isna(found["class"].iloc[1])
    assert found["notes"].tolist()[2] == 'rows, "regular"'
    assert found["interpreter"].tolist()[0] == "Ana"
