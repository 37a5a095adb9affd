"""The report in a real browser, opened from disk: nothing fetched, nothing run that is not the page's own."""

from __future__ import annotations

import csv
import io
import itertools
import shutil

import numpy as np
import pandas as pd
import pytest

from geococa.report import write_report
from tests.hostile_names import HOSTILE
from tests.report_data import (
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
)

pytestmark = pytest.mark.browser

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """Chromium with a fresh profile."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with api.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            accept_downloads=True,
            viewport={"width": 1280, "height": 900},
        )
        yield context
        context.close()


class Opened:
    """A page with all that it asked for, said and tried."""

    def __init__(self, context, path, **viewport):
        self.requests, self.messages, self.dialogs = [], [], []
        self.page = context.new_page()
        self.page.set_viewport_size(viewport or {"width": 1280, "height": 900})
        self.page.on("request", lambda r: self.requests.append(r.url) if not r.url.startswith("data:") else None)
        self.page.on("console", lambda m: self.messages.append(f"{m.type}: {m.text}"))
        self.page.on("pageerror", lambda e: self.messages.append(f"error: {e}"))
        self.page.on("dialog", lambda d: (self.dialogs.append(d.message), d.dismiss()))
        self.page.goto(path.as_uri())
        self.url = path.as_uri()

    def column(self, table, index):
        return self.page.eval_on_selector_all(
            f"#{table} tbody tr", "(rows, i) => rows.map(r => r.cells[i].dataset.v ?? r.cells[i].textContent)", index
        )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    areas = areas_dataset()
    return write_report(
        areas,
        trend_table(areas),
        tmp_path_factory.mktemp("page") / "report.html",
        maps={"18NXG": land_cover_maps()},
        zones=park_polygons(),
        truth=truth_table(areas),
        accuracy=accuracy_table(),
        matrices={2024: error_matrix_table()},
        intervals=interval_table(areas),
        transitions=transition_table(),
        reference=published_table(areas),
        estimates={"change_estimates": change_table()},
        pictures={"18NXG": picture()},
        title="Coca in six parks",
    )


@pytest.fixture
def opened(chromium, report):
    one = Opened(chromium, report)
    yield one
    one.page.close()


def test_opens_from_disk_without_a_request_or_a_message(opened):
    opened.page.wait_for_selector("#map[data-ready=true]")
    opened.page.check("input[name=background][value=cover]")
    for name in ("change", "coca"):
        opened.page.check(f"input[name=overlay][value={name}]")
    opened.page.check("input[name=background][value=plain]")
    opened.page.click("[data-language=es]")
    opened.page.wait_for_timeout(300)
    assert opened.requests == [opened.url]
    assert opened.messages == []


def test_slider_changes_year_and_picture(opened):
    page = opened.page
    picture = "() => document.querySelector('.leaflet-coca-pane img').src"
    shown = []
    for position in range(6):
        page.eval_on_selector("#year", "(e, v) => { e.value = v; e.dispatchEvent(new Event('input')); }", position)
        shown.append((page.inner_text("#year-shown"), page.evaluate(picture)))
    assert [year for year, _ in shown] == ["2019", "2020", "2021", "2022", "2023", "2024"]
    assert len({src for _, src in shown}) == 6


def test_arrow_keys_move_the_year(opened):
    opened.page.focus("#year")
    opened.page.keyboard.press("ArrowLeft")
    assert opened.page.inner_text("#year-shown") == "2023"
    assert opened.page.get_attribute("#year", "aria-valuetext") == "2023"


def test_play_runs_to_the_last_year_and_stops(opened):
    page = opened.page
    page.eval_on_selector("#year", "e => { e.value = 4; e.dispatchEvent(new Event('input')); }")
    page.click("#play")
    assert page.inner_text("#play") == "Pause"
    page.wait_for_selector("#play[aria-pressed=false]", timeout=6000)
    assert page.inner_text("#year-shown") == "2024"


def test_every_coca_pixel_of_the_picture_is_at_least_a_screen_pixel(opened):
    ratio = opened.page.evaluate(
        "async () => { const i = document.querySelector('.leaflet-coca-pane img'); await i.decode();"
        " return i.getBoundingClientRect().width / i.naturalWidth; }"
    )
    assert ratio >= 0.99


def test_picture_lies_under_its_outlines(opened):
    """The picture covers the outlines of zones that were drawn inside the grid."""
    inside = opened.page.evaluate(
        "() => { const a = document.querySelector('.leaflet-cover-pane img').getBoundingClientRect();"
        " return [...document.querySelectorAll('.leaflet-overlay-pane path.leaflet-interactive')].map(p => {"
        " const b = p.getBoundingClientRect(); return b.left >= a.left - 3 && b.right <= a.right + 3"
        " && b.top >= a.top - 3 && b.bottom <= a.bottom + 3; }); }"
    )
    assert len(inside) == len(NAMES)
    assert all(inside)


def test_popup_names_the_zone(opened):
    opened.page.locator(".leaflet-overlay-pane path.leaflet-interactive").first.click(force=True)
    opened.page.wait_for_selector(".leaflet-popup-content")
    assert NAMES[0] in opened.page.inner_text(".leaflet-popup-content")


def test_heading_sorts_down_then_up(opened):
    page = opened.page
    button = page.locator("#areas-table thead th").nth(2).locator("button")
    button.click()
    down = [float(v) for v in opened.column("areas-table", 2)]
    assert down == sorted(down, reverse=True)
    button.click()
    up = [float(v) for v in opened.column("areas-table", 2)]
    assert up == sorted(up)
    assert page.locator("#areas-table thead th").nth(2).get_attribute("aria-sort") == "ascending"


def test_sorting_by_keyboard(opened):
    opened.page.locator("#ranking-table thead th").first.locator("button").focus()
    opened.page.keyboard.press("Enter")
    zones = opened.column("ranking-table", 0)
    expected = opened.page.evaluate(
        "names => names.sort(new Intl.Collator('en', {numeric: true}).compare)", list(NAMES)
    )
    assert zones == expected


def test_unknown_values_sort_last_both_ways(chromium, tmp_path):
    areas = areas_dataset(names=("A", "B", "C"))
    areas["area_ha"][-1, 1] = 0.0
    one = Opened(chromium, write_report(areas, None, tmp_path / "r.html"))
    button = one.page.locator("#ranking-table thead th").nth(1).locator("button")
    for _ in range(2):
        button.click()
        assert one.column("ranking-table", 1)[-1] == ""
    one.page.close()


def download(page, table):
    with page.expect_download() as event:
        page.click(f"[data-download={table}]")
    text = event.value.path().read_bytes().decode("utf-8-sig")
    return event.value.suggested_filename, list(csv.reader(io.StringIO(text, newline="")))


def test_download_holds_every_row_at_full_precision(opened):
    name, rows = download(opened.page, "areas-table")
    assert name == "geococa_areas.csv"
    table = pd.DataFrame(rows[1:], columns=rows[0])
    areas = areas_dataset()
    assert len(table) == 36
    for zone, year, value in zip(table["zone"], table["year"], table["coca_ha"], strict=True):
        expected = float(areas["area_ha"].sel(zone=zone, land_cover="coca", time=f"{year}-12-31"))
        assert float(value) == pytest.approx(expected, abs=1e-6)


def test_ranking_download_has_the_intervals(opened):
    _, rows = download(opened.page, "ranking-table")
    assert rows[0] == [
        "zone",
        "area_ha",
        "estimate_ha",
        "ci_low_ha",
        "ci_high_ha",
        "change_ha",
        "share_percent",
        "observed_percent",
        "slope_ha_per_year",
        "slope_low",
        "slope_high",
        "p_value",
        "verdict",
    ]
    assert all(float(row[3]) < float(row[2]) < float(row[4]) for row in rows[1:])


def test_filter_keeps_rows_of_a_zone_without_accents(opened):
    opened.page.fill("[data-filter=areas-table]", "cano")
    visible = opened.page.eval_on_selector_all("#areas-table tbody tr", "rows => rows.filter(r => !r.hidden).length")
    assert visible == 6
    assert opened.page.inner_text("[data-count=areas-table]") == "6 of 36 rows"


def test_language_switch_translates_all_and_back(opened):
    page = opened.page
    english = page.inner_text("main")
    page.click("[data-language=es]")
    assert page.get_attribute("html", "lang") == "es"
    spanish = page.inner_text("main")
    assert "Cada zona, cada año" in spanish
    assert "Every zone" not in spanish
    assert page.get_attribute("#map", "aria-label").startswith("Mapa de coca")
    page.click("[data-language=en]")
    assert page.inner_text("main") == english


def test_page_opened_in_spanish_equals_the_page_switched_to_it(chromium, report, tmp_path, opened):
    areas = areas_dataset()
    spanish = write_report(
        areas,
        trend_table(areas),
        tmp_path / "es.html",
        maps={"18NXG": land_cover_maps()},
        zones=park_polygons(),
        truth=truth_table(areas),
        accuracy=accuracy_table(),
        matrices={2024: error_matrix_table()},
        intervals=interval_table(areas),
        transitions=transition_table(),
        reference=published_table(areas),
        estimates={"change_estimates": change_table()},
        pictures={"18NXG": picture()},
        title="Coca in six parks",
        language="es",
    )
    other = Opened(chromium, spanish)
    opened.page.click("[data-language=es]")
    for one in (opened, other):
        # the zoom, and so the scale, is that of the page's first layout
        one.page.evaluate("() => document.querySelector('.leaflet-control-scale').remove()")
    assert opened.page.inner_text("main") == other.page.inner_text("main")
    other.page.close()


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_page_is_never_wider_than_the_screen(chromium, report, width):
    one = Opened(chromium, report, width=width, height=740)
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    cut = one.page.evaluate(
        "() => [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, #map, .hidden, svg') &&"
        " e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )
    assert cut == []
    one.page.close()


def test_long_names_do_not_widen_a_phone_screen(chromium, tmp_path):
    areas = areas_dataset(names=("A" * 200, "Parque " * 30))
    one = Opened(chromium, write_report(areas, None, tmp_path / "r.html", title="B" * 120), width=360, height=740)
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 360
    one.page.close()


def test_sixty_hostile_names_run_nothing(chromium, tmp_path):
    areas = areas_dataset(names=HOSTILE, years=[2023, 2024])
    path = write_report(
        areas,
        trend_table(areas),
        tmp_path / "r.html",
        maps=land_cover_maps(years=[2023, 2024]),
        zones=park_polygons(names=HOSTILE),
        title="Hostile names",
        provenance={HOSTILE[0]: HOSTILE[2]},
    )
    one = Opened(chromium, path)
    one.page.wait_for_selector("#map[data-ready=true]")
    for index in (0, 10, 20):
        one.page.evaluate(
            "i => document.querySelectorAll('path.leaflet-interactive')[i].dispatchEvent(new MouseEvent('click', {bubbles: true}))",
            index,
        )
    one.page.click("[data-language=es]")
    one.page.wait_for_timeout(400)
    assert one.page.title() == "Hostile names"
    assert one.dialogs == []
    assert one.requests == [one.url]
    assert one.messages == []
    assert (
        one.page.locator("main img:not(.leaflet-image-layer), main iframe, main script, main object, main form").count()
        == 0
    )
    shown = [name.replace("\r", "\n") for name in one.column("ranking-table", 0)]
    assert sorted(shown) == sorted(name.replace("\r", "\n") for name in HOSTILE)
    one.page.close()


def test_download_of_hostile_names_holds_no_formula(chromium, tmp_path):
    areas = areas_dataset(names=HOSTILE, years=[2024])
    one = Opened(chromium, write_report(areas, None, tmp_path / "r.html"))
    _, rows = download(one.page, "areas-table")
    assert len(rows) == 61
    assert not [row[0] for row in rows if row[0][:1] in ("=", "+", "-", "@", "\t", "\r")]
    one.page.close()


def test_policy_blocks_what_a_hole_in_the_escaping_would_let_in(chromium, report, tmp_path):
    holed = tmp_path / "holed.html"
    attack = (
        "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
        "<img src='http://127.0.0.1:9/p.gif'><style>h1 { display: none }</style><h2 id=hole>hole</h2>"
    )
    holed.write_text(
        report.read_text(encoding="utf-8").replace('<main class="wrap">', f'<main class="wrap">{attack}', 1),
        encoding="utf-8",
    )
    one = Opened(chromium, holed)
    one.page.wait_for_timeout(300)
    assert one.page.locator("#hole").count() == 1
    assert one.page.title() == "Coca in six parks"
    assert one.page.is_visible("h1")
    assert any("Content Security Policy" in message for message in one.messages)
    assert not any(message.startswith("error") and "owned" in message for message in one.messages)
    one.page.close()


def test_prints_every_row_and_no_buttons(opened, tmp_path):
    page = opened.page
    page.emulate_media(media="print")
    assert not page.is_visible("nav.sections")
    assert not page.is_visible("[data-download=areas-table]")
    clipped = page.eval_on_selector_all(
        ".scroll",
        "all => all.filter(e => e.scrollHeight > e.clientHeight + 1 && getComputedStyle(e).overflowY !== 'visible').length",
    )
    assert clipped == 0
    page.emulate_media(media="screen")
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(opened, scheme):
    """WCAG 2.2 AA: 4.5:1 for text, measured on the computed colours of every element with text of its own."""
    opened.page.emulate_media(color_scheme=scheme)
    found = opened.page.evaluate(
        """() => {
          const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
          const rgb = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1);
            return [...canvas.getImageData(0, 0, 1, 1).data]; };
          const background = (e) => { for (; e; e = e.parentElement) {
            const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255, 255]; };
          const rows = new Map();
          for (const e of document.querySelectorAll("body *")) {
            if (e.closest("#map, script, noscript, .hidden, svg") || !e.getClientRects().length) continue;
            if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
            rows.set(e.tagName + "." + e.className + rgb(getComputedStyle(e).color) + background(e),
                     [e.tagName + "." + e.className + ": " + e.textContent.slice(0, 30), rgb(getComputedStyle(e).color), background(e)]);
          }
          return [...rows.values()];
        }"""
    )

    def luminance(color):
        channel = np.asarray(color[:3]) / 255
        linear = np.where(channel <= 0.04045, channel / 12.92, ((channel + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(a, b):
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    assert len(found) > 20
    assert [(text, round(contrast(ink, paper), 2)) for text, ink, paper in found if contrast(ink, paper) < 4.5] == []


def test_every_control_has_a_name_and_every_picture_a_label(opened):
    nameless = opened.page.evaluate(
        "() => [...document.querySelectorAll('button, input, a[href], [role=img], [role=group], nav, [role=application]')].filter(e => {"
        " const labelled = e.getAttribute('aria-label') || (e.getAttribute('aria-labelledby') || '').split(' ')"
        ".map(i => i && document.getElementById(i)?.textContent).join('') || e.textContent.trim() || e.closest('label')?.textContent.trim()"
        " || (e.id && document.querySelector(`label[for=${e.id}]`)?.textContent); return !labelled; }).map(e => e.outerHTML.slice(0, 90))"
    )
    assert nameless == []


def test_headings_descend_one_level_at_a_time(opened):
    levels = opened.page.eval_on_selector_all("h1, h2, h3, h4", "all => all.map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_ids_are_unique(opened):
    ids = opened.page.eval_on_selector_all("[id]", "all => all.map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_background_is_the_picture_of_the_data_and_can_be_changed(opened):
    page = opened.page
    source = "() => document.querySelector('.leaflet-cover-pane img').src.slice(0, 15)"
    assert page.evaluate(source) == "data:image/jpeg"
    assert page.is_hidden("[data-legend=cover] >> nth=0")
    page.check("input[name=background][value=cover]")
    assert page.evaluate(source) == "data:image/png;"
    assert page.is_visible("[data-legend=cover] >> nth=0")


@pytest.mark.parametrize("background", ["picture", "cover"])
def test_the_whole_picture_is_inside_the_map(chromium, report, background):
    one = Opened(chromium, report)
    one.page.check(f"input[name=background][value={background}]")
    one.page.click("#whole")
    one.page.wait_for_timeout(500)
    inside = one.page.evaluate(
        "() => { const a = document.querySelector('#map').getBoundingClientRect();"
        " const b = document.querySelector('.leaflet-coca-pane img').getBoundingClientRect();"
        " return [b.left - a.left, a.right - b.right, b.top - a.top, a.bottom - b.bottom]; }"
    )
    assert min(inside) >= -1
    one.page.close()


def test_published_hectares_stand_in_the_charts_with_their_interval(opened):
    squares = opened.page.locator("#zones figure rect.reference, #zone-all svg.wide rect.reference")
    assert squares.count() == 3 + 2
    assert "UNODC" in opened.page.inner_text("#reference")
    titles = opened.page.eval_on_selector_all("line.reference-range title", "all => all.map(e => e.textContent)")
    assert "2020: published 10.0\u00a0ha, 8.0 to 12.0\u00a0ha" in titles


def test_long_tables_unfold_by_keyboard_and_sort(opened):
    page = opened.page
    assert not page.is_visible("#change_estimates-table")
    page.focus("#change_estimates-title")
    page.keyboard.press("Enter")
    assert page.is_visible("#change_estimates-table")
    assert "all zones" in page.inner_text("#change_estimates-table")
    page.locator("#change_estimates-table thead th").nth(1).locator("button").click()
    assert opened.column("change_estimates-table", 1) == ["2023", "2022"]


AXE = """async (tags) => { const found = await axe.run(document, {runOnly: {type: "tag", values: tags}});
  return found.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html.slice(0, 120))]); }"""
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_serious(chromium, report, scheme, width):
    """The rules of axe-core, from the package that carries it, on the page with every fold open."""
    files = pytest.importorskip("importlib.resources")
    pytest.importorskip("axe_playwright_python", reason="axe is not installed: pip install axe-playwright-python")
    source = files.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    one = Opened(chromium, report, width=width, height=800)
    one.page.emulate_media(color_scheme=scheme)
    one.page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true; })")
    one.page.evaluate(source)
    found = one.page.evaluate(AXE, TAGS)
    assert [entry for entry in found if entry[0] in ("serious", "critical")] == []
    # axe finds what is wrong, so that no finding means something
    one.page.evaluate("() => document.querySelector('#year').labels.forEach(l => l.remove())")
    assert any(name == "label" for _, name, _ in one.page.evaluate(AXE, TAGS))
    one.page.close()
