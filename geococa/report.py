"""The report: one HTML file with hectares, intervals, trends, maps and provenance, which opens from disk offline.

Names of zones come from files that strangers made. They are shown as text, in three layers: the template escapes,
the script writes only text nodes, and a content security policy allows no script, style or request but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from geococa import __version__
from geococa._checks import optional_import
from geococa._files import replace_file
from geococa.errors import InputRefused
from geococa.report_charts import area_chart
from geococa.report_maps import CHANGE_COLORS, map_payload, zones_payload
from geococa.report_sections import (
    accuracy_section,
    estimate_sections,
    headline_tiles,
    matrix_sections,
    plain_section,
    provenance_rows,
    ranking_rows,
    transition_section,
)
from geococa.report_tables import (
    DATE_COLUMNS,
    ZoneSeries,
    area_series,
    format_number,
    format_percent,
    overlap_area_ha,
    total_series,
    truth_summary,
    wide_table,
    with_reference,
)
from geococa.report_text import Key, Phrases

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["write_report"]


def write_report(
    areas: xr.Dataset,
    trends: pd.DataFrame | None,
    path: str | os.PathLike[str],
    *,
    maps: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
    pictures: Mapping[str, xr.DataArray] | xr.DataArray | None = None,
    zones: GeoDataFrame | None = None,
    truth: pd.DataFrame | None = None,
    accuracy: pd.DataFrame | None = None,
    matrices: Mapping[int, pd.DataFrame] | pd.DataFrame | None = None,
    intervals: pd.DataFrame | None = None,
    reference: pd.DataFrame | None = None,
    transitions: pd.DataFrame | None = None,
    estimates: Mapping[str, pd.DataFrame] | None = None,
    provenance: Mapping[str, Any] | None = None,
    title: str = "Coca in protected areas",
    class_name: str = "coca",
    language: Literal["en", "es"] = "en",
    min_observed_share: float = 0.7,
) -> Path:
    """Write the report as one HTML file that loads nothing from the network.

    Parameters
    ----------
    areas : xarray.Dataset
        ``area_ha`` (time, zone, land_cover), ``unobserved_ha`` and ``outside_ha`` (time, zone), ``zone_ha`` (zone),
        hectares, as `geococa.zonal_area` gives them. One map a year.
    trends : pandas.DataFrame or None
        One row a zone, as `geococa.area_trend` gives it.
    path : path-like
        File to write; its folder is made where missing. An existing file is replaced in one step.
    maps : xarray.DataArray or mapping of str to xarray.DataArray, optional
        Land-cover maps ((time,) y, x), uint8 with CF flags, 255 = not observed; one, or one per tile. Any CRS.
        Drawn as small pictures; hectares never come from them.
    pictures : xarray.DataArray or mapping of str to xarray.DataArray, optional
        Background picture of a tile, (band, y, x) with three bands (red, green, blue), any number type,
        NaN = no data, stretched between the 2nd and 98th percentile of each band over all. Keys as in ``maps``.
    zones : geopandas.GeoDataFrame, optional
        Polygons with the column ``zone``, to draw outlines and to warn of overlaps.
    truth : pandas.DataFrame, optional
        True hectares of simulated data: ``zone`` (or ``park``), ``year``, ``area_ha`` (or ``true_ha``).
    accuracy : pandas.DataFrame, optional
        Estimates per class (column or index ``land_cover`` or ``class``), such as ``area_ha``, ``se_ha``,
        ``ci_low_ha``, ``ci_high_ha`` and accuracies; perhaps ``year``.
    matrices : pandas.DataFrame or mapping of int to pandas.DataFrame, optional
        Error matrix, or one a year; rows are map classes, columns reference classes.
    intervals : pandas.DataFrame, optional
        ``zone``, ``year``, ``area_ha``, ``ci_low_ha``, ``ci_high_ha``: estimates per zone and year, hectares.
    reference : pandas.DataFrame, optional
        Published hectares: ``year``, ``area_ha``, and ``zone`` where they belong to one of the zones (``all``: to all of
        them together); perhaps ``low_ha`` and ``high_ha``, their interval, and ``source``.
    transitions : pandas.DataFrame, optional
        ``from``, ``to``, ``area_ha``, perhaps ``zone``, ``year_from``, ``year_to``, and ``sustained_ha``, the part that
        lasted.
    estimates : mapping of str to pandas.DataFrame, optional
        Tables of a run by name: ``skill``, ``yearly_estimates``, ``change_estimates``, ``composite_estimates`` (labelled as
        model-based), ``cutoff_account``.
    provenance : mapping, optional
        How the numbers were made; nested mappings are flattened. The only place for a time stamp.
    title : str
        Headline.
    class_name : str
        Class whose hectares are reported.
    language : {"en", "es"}
        Language the page opens in; readers can switch.
    min_observed_share : float
        Share 0..1; a zone and year observed less is marked.

    Returns
    -------
    pathlib.Path
        The file. The same input gives the same bytes.

    Raises
    ------
    InputRefused
        Tables lack columns, or name no zone of the areas; the class is unknown; the language is not en or es.
    MissingExtra
        Jinja2 is not installed.

    Notes
    -----
    Sums over zones count overlaps more than once; the report says so when ``zones`` are given. An estimate is called
    an estimate only where ``accuracy`` or ``intervals`` are given; otherwise the page says that it is pixel counting.

    References
    ----------
    .. [1] Olofsson et al. (2014), Remote Sensing of Environment 148, 42-57.
    .. [2] W3C, Content Security Policy Level 3.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, pandas as pd, xarray as xr
    >>> areas = xr.Dataset(
    ...     {"area_ha": (("time", "zone", "land_cover"), [[[3.0, 90.0]], [[5.0, 85.0]]]),
    ...      "unobserved_ha": (("time", "zone"), [[7.0], [10.0]]), "outside_ha": (("time", "zone"), [[0.0], [0.0]]),
    ...      "zone_ha": ("zone", [100.0])},
    ...     coords={"time": pd.to_datetime(["2023-12-31", "2024-12-31"]), "zone": ["Park"],
    ...             "land_cover": ["coca", "forest"]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write_report(areas, None, pathlib.Path(folder) / "report.html").read_text(encoding="utf-8")
    >>> "pixel counting, not an estimate" in page
    True
    """
    if language not in ("en", "es"):
        raise InputRefused(f"language must be 'en' or 'es', got {language!r}")
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputRefused(f"{target.parent} can't be made for {target.name}: {error.strerror}") from None
    table, classes = wide_table(areas, class_name)
    extra = {
        "estimate": (intervals, "area_ha"),
        "low": (intervals, "ci_low_ha"),
        "high": (intervals, "ci_high_ha"),
        "truth": (truth, "true_ha" if truth is not None and "true_ha" in truth.columns else "area_ha"),
    }
    series = area_series(table, class_name, trends, extra)
    series, total = with_reference(series, total_series(series, ""), reference)
    phrases = Phrases(_asset("text.json"), language)
    changes = None if estimates is None else estimates.get("change_estimates")
    tiles = headline_tiles(
        series, total, phrases, class_name, accuracy, has_intervals=intervals is not None, changes=changes
    )
    context = _numbers(series, total, tiles, phrases, intervals, min_observed_share)
    context |= _sections(phrases, class_name, accuracy, matrices, reference, transitions)
    context["estimates"] = estimate_sections(estimates, phrases)
    context |= _page(table, classes, phrases, title, provenance)
    context |= _pictures(series, maps, pictures, zones, class_name)
    replace_file(target, _render(context, phrases).encode())
    return target


def _numbers(
    series: Sequence[ZoneSeries],
    total: ZoneSeries,
    tiles: list[dict[str, Any]],
    phrases: Phrases,
    intervals: pd.DataFrame | None,
    min_observed_share: float,
) -> dict[str, Any]:
    """Headlines, charts and the ranking."""
    truth_rows, errors = truth_summary(series)
    ranking = ranking_rows(series)
    kinds = {name for one in (*series, total) for name in one.extra}
    with_trend = any(one.trend["verdict"] or _finite(one.trend["slope_ha_per_year"]) for one in series)
    share = format_number(100 * min_observed_share, 0)

    def chart(one: ZoneSeries, width: float, height: float) -> Any:
        return area_chart(one, width=width, height=height, min_observed_share=min_observed_share)

    return {
        "series": series,
        "years": series[0].years,
        "total": total,
        "total_wide": chart(total, 620, 365 if len(tiles) > 4 else 290),
        "total_narrow": chart(total, 330, 210),
        "cards": [(row["s"], chart(row["s"], 340, 196)) for row in ranking],
        "keys": phrases.chart_keys(kinds, with_trend, share),
        "ranking": ranking,
        "has_intervals": intervals is not None,
        "has_trends": with_trend,
        "min_observed_share": min_observed_share,
        "tiles": tiles,
        "truth_rows": truth_rows,
        "truth_args": {
            name: format_number(value, 0 if name in ("rows", "percent") else 1, sign=name in ("bias", "percent"))
            for name, value in errors.items()
        },
    }


def _sections(
    phrases: Phrases,
    class_name: str,
    accuracy: pd.DataFrame | None,
    matrices: Mapping[int, pd.DataFrame] | pd.DataFrame | None,
    reference: pd.DataFrame | None,
    transitions: pd.DataFrame | None,
) -> dict[str, Any]:
    """Accuracy, error matrices, transitions and published figures."""
    columns, rows = plain_section(reference, phrases, "ref")
    return {
        "accuracy": accuracy_section(accuracy, phrases),
        "matrices": matrix_sections(matrices, phrases),
        "reference_columns": columns,
        "reference_rows": rows,
        **transition_section(transitions, phrases, class_name),
        "class_name": class_name,
        "cls": phrases.class_key(class_name),
    }


def _page(
    table: pd.DataFrame, classes: list[str], phrases: Phrases, title: str, provenance: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Everything that is neither a number of one zone nor a picture."""
    dates = [name for name in DATE_COLUMNS if name in table and table[name].notna().any()]
    rows = [
        {
            "zone": row["zone"],
            "year": row["year"],
            "areas": [row[name] for name in classes],
            "unobserved": row["unobserved_ha"],
            "outside": row["outside_ha"],
            "zone_ha": row["zone_ha"],
            "observed": row["observed_share"],
            "dates": [100 * row[name] if name == "fallback_share" else row[name] for name in dates],
        }
        for row in table.to_dict("records")
    ]
    return {
        "rows": rows,
        # shares are shown in percent
        "date_columns": [name.replace("_share", "_percent") for name in dates],
        "classes": classes,
        "title": title,
        "language": phrases.language,
        "provenance": provenance_rows(provenance or {}),
        "version": __version__,
    }


def _pictures(
    series: Sequence[ZoneSeries],
    maps: xr.DataArray | Mapping[str, xr.DataArray] | None,
    pictures: xr.DataArray | Mapping[str, xr.DataArray] | None,
    zones: GeoDataFrame | None,
    class_name: str,
) -> dict[str, Any]:
    """Map pictures, outlines, and the hectares that overlapping zones share."""
    drawn = map_payload(maps, class_name, pictures=pictures) if maps is not None else {}
    anchors = {one.zone: one.anchor for one in series}
    outlines = None
    if drawn and zones is not None:
        outlines = zones_payload(zones, anchors, min(tile["pixel_m"] for tile in drawn["tiles"]))
    return {
        "map": drawn,
        "outlines": outlines,
        "change_colors": sorted(CHANGE_COLORS.items(), key=lambda item: ("new", "stable", "gone").index(item[0])),
        "overlap_ha": overlap_area_ha(zones, list(anchors)) if zones is not None else 0.0,
        "values": {one.anchor: [format_number(v) for v in one.area_ha] for one in series},
    }


def _render(context: dict[str, Any], phrases: Phrases) -> str:
    jinja2 = optional_import("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.DictLoader({name: _asset(name) for name in ("report.html.j2", "macros.html.j2")}),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    share = context["min_observed_share"]
    steps = [share, share + (1 - share) / 3, share + 2 * (1 - share) / 3, 1.0]

    def heat(value: float) -> str:
        return "h0" if not value >= steps[0] else "h1" if value < steps[1] else "h2" if value < steps[2] else "h3"

    environment.globals.update(
        t=phrases.markup,
        label=phrases.label,
        key=phrases.class_key,
        verdict=phrases.verdict,
        said=phrases.said,
        n=_number,
        pct=format_percent,
        rate=_rate,
        raw=_raw,
        year=_year,
        finite=_finite,
        heat=heat,
        interval=_interval,
        chart_label=lambda one: _chart_label(one, phrases),
    )
    style = _leaflet_style() + _asset("report.css")
    scripts = [_leaflet_script(), _asset("report.js")] if context["map"] else [_asset("report.js")]
    payload = {
        "text": phrases.table,
        "map": context["map"] or None,
        "outlines": context["outlines"],
        "values": context["values"],
        "years": list(context["years"]),
    }
    return str(
        environment.get_template("report.html.j2").render(
            **context,
            navigation=_navigation(context),
            cls_html=phrases.markup("col.class_only", **{"class": context["cls"]}),
            heat_steps=[f"{100 * a:.0f}–{100 * b:.0f}" for a, b in pairwise(steps)],
            payload=payload,
            licence=_asset("leaflet/LICENSE"),
            style=style,
            scripts=scripts,
            csp=_policy(style, scripts),
        )
    )


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Content security policy that allows the page's own scripts, style and embedded images, and nothing else."""
    hashes = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _navigation(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    items = [
        ("summary", "nav.summary"),
        ("map-section", "nav.map"),
        ("ranking", "nav.ranking"),
        ("zones", "nav.parks"),
        ("transitions", "nav.change"),
        ("truth", "nav.truth"),
        ("accuracy", "nav.accuracy"),
        ("reference", "reference.title"),
        ("quality", "nav.quality"),
        ("table", "nav.table"),
        ("methods", "nav.methods"),
    ]
    absent = {
        "map-section": "map",
        "transitions": "transition_rows",
        "truth": "truth_rows",
        "reference": "reference_rows",
    }
    return [(anchor, key) for anchor, key in items if anchor not in absent or context[absent[anchor]]]


def _chart_label(one: ZoneSeries, phrases: Phrases) -> Any:
    seen = np.flatnonzero(np.isfinite(one.area_ha))
    name = one.zone or Key("total.title")
    if not len(seen):
        return phrases.label("chart.aria.none", name=name)
    first, last = seen[0], seen[-1]
    return phrases.label(
        "chart.aria",
        name=name,
        first=_year(one.years[first]),
        last=_year(one.years[last]),
        first_value=format_number(one.area_ha[first]),
        last_value=format_number(one.area_ha[last]),
    )


def _asset(name: str) -> str:
    return resources.files("geococa").joinpath("report_assets", *name.split("/")).read_text(encoding="utf-8")


def _leaflet_style() -> str:
    """Leaflet's style without its image files and Internet Explorer behaviours: nothing to fetch."""
    fetched = re.compile(r"^\s*(background-image|behavior):\s*url\([^)]*\);\s*$", re.M)
    style = fetched.sub("", _asset("leaflet/leaflet.css"))
    if "url(" in style:
        raise InputRefused(
            "the style of Leaflet refers to a file; the installation of geococa is damaged, reinstall it"
        )
    return style


def _leaflet_script() -> str:
    return re.sub(r"^//# sourceMappingURL=.*$", "", _asset("leaflet/leaflet.js"), flags=re.M)


def _number(value: Any, digits: int = 1, sign: bool = False) -> str:
    return format_number(value, digits, sign=sign)


def _signed(value: Any, digits: int = 1) -> str:
    return format_number(value, digits, sign=True)


def _rate(value: Any) -> str:
    """Slopes: two decimals below 10, one above."""
    return _signed(value, 1 if _finite(value) and abs(value) >= 10 else 2)


def _interval(low: Any, high: Any) -> str:
    return f"{_rate(low)} … {_rate(high)}" if _finite(low) and _finite(high) else "–"


def _finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and math.isfinite(value)


def _raw(value: Any) -> str:
    """Machine-readable number for sorting and CSV: full precision to 1e-6, empty where unknown."""
    if not _finite(value):
        return ""
    return str(value) if isinstance(value, int | np.integer) else json.dumps(round(float(value), 6))


def _year(year: int | None) -> str:
    return "–" if year is None else str(year)
