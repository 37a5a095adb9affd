"""Response sheets: image chips of every sample over the years in one HTML page that works offline and keeps the answers."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geococa._checks import optional_import
from geococa._files import replace_file
from geococa.errors import InputRefused
from geococa.grid import Grid

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["write_response_sheet"]

Pictures = xr.DataArray | Sequence[xr.DataArray] | Mapping[str, xr.DataArray]


def write_response_sheet(
    samples: GeoDataFrame,
    pictures: Pictures,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str],
    bands: tuple[str, str, str] = ("red", "green", "blue"),
    window_m: float = 400.0,
    chip_px: int = 160,
    years: Sequence[int] | None = None,
    title: str = "Response sheet",
    only_own_year: bool = False,
) -> Path:
    """Write a page to label samples with: for each one, chips of the images of all years, and buttons for the class.

    The page loads nothing from the network. Answers are kept in the browser under the sheet's own name as they are given, and saved
    as a CSV (``id, year, class, confidence, notes, interpreter``) that `geococa.interpretations.read_interpretation` reads
    back. It tells neither what the map says nor the stratum, so that interpreters judge by the image alone.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame
        Points with ``id`` (or ``point``) and perhaps ``year``: a sample with a year is labelled for that year. For a panel, one
        row a point and year.
    pictures : xarray.DataArray, or sequence or mapping of them
        Images ``(time, feature, y, x)``, ``(feature, y, x)``, or a composite as `geococa.composite` gives it, with the bands
        named by ``band`` or ``feature``; NaN = not observed. One for each tile or place; a chip comes from the one that covers
        most of it.
    path : path
        HTML file to write.
    classes : sequence of str
        Classes to choose from.
    bands : tuple of str
        Shown as red, green and blue; stretched between the 2nd and 98th percentile of each picture, over all years alike.
    window_m : float
        Side of a chip on the ground, metres.
    chip_px : int
        Side of a chip on the screen.
    years : sequence of int, optional
        Years shown; all of the pictures where not given.
    title : str
        Name of the sheet; two sheets in one browser need two names.
    only_own_year : bool
        Show only the image of the sample's own year.

    Returns
    -------
    pathlib.Path
        The file. The same input gives the same bytes.

    Raises
    ------
    InputRefused
        There is no id, no class, a band is missing, or no picture covers a sample.
    MissingExtra
        Pillow is not installed.
    """
    if not len(classes) or len(set(classes)) < len(classes):
        raise InputRefused(f"classes must be names, each once, got {list(classes)}")
    name = next((one for one in ("id", "point") if one in samples.columns), None)
    if name is None:
        raise InputRefused(f"the samples have neither id nor point, only {', '.join(map(str, samples.columns))}")
    if samples.crs is None or not (samples.geometry.geom_type == "Point").all():
        raise InputRefused("a response sheet needs sample points with a coordinate reference system")
    layers = [_Layer.of(one, bands, years) for one in _listed(pictures)]
    cards, bare = [], []
    geographic = samples.geometry.to_crs("EPSG:4326")
    places = [samples.geometry.to_crs(layer.grid.crs) for layer in layers]
    for row in range(len(samples)):
        number = str(samples[name].iloc[row])
        year = int(samples["year"].iloc[row]) if "year" in samples.columns else None
        point = geographic.iloc[row]
        spots = [(float(place.iloc[row].x), float(place.iloc[row].y)) for place in places]
        held = [layer.holds(*spot, window_m) for layer, spot in zip(layers, spots, strict=True)]
        best = int(np.argmax(held)) if max(held) else -1
        chips = layers[best].chips(*spots[best], window_m, year if only_own_year else None) if best >= 0 else []
        if not chips:
            bare.append(number)
            continue
        where = f"{point.y:.5f}, {point.x:.5f}"
        cards.append({"id": number, "year": year, "where": where, "chips": chips})
    if bare:
        raise InputRefused(
            f"no picture covers {len(bare)} of {len(samples)} samples ({', '.join(bare[:5])}); give the pictures of all tiles"
        )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return replace_file(target, _page(cards, list(classes), title, chip_px, window_m).encode())


def _listed(pictures: Pictures) -> list[xr.DataArray]:
    if isinstance(pictures, xr.DataArray):
        return [pictures]
    found = list(pictures.values()) if isinstance(pictures, Mapping) else list(pictures)
    if not found:
        raise InputRefused("a response sheet needs pictures, got none")
    return found


class _Layer:
    """Pictures of one tile as bytes, (time, 3, y, x), and which of its cells were seen."""

    def __init__(self, grid: Grid, years: list[int | None], values: np.ndarray, seen: np.ndarray) -> None:
        self.grid, self.years, self.values, self.seen = grid, years, values, seen
        self._cell_m = math.sqrt(float(np.asarray(grid.cell_area_ha()).mean()) * 1e4)

    @classmethod
    def of(cls, picture: xr.DataArray, bands: tuple[str, str, str], years: Sequence[int] | None) -> _Layer:
        dim = next((one for one in ("feature", "band") if one in picture.dims), None)
        if dim is None or not {"y", "x"} <= set(picture.dims):
            raise InputRefused(f"a picture must have the dims (time, feature, y, x), got {picture.dims}")
        known = [str(one) for one in picture[dim].values] if dim in picture.coords else []
        missing = [band for band in bands if band not in known]
        if missing:
            raise InputRefused(
                f"the picture has no {', '.join(missing)}, only {', '.join(known) or 'bands without names'}"
            )
        grid = Grid.from_xarray(picture)
        stack = picture.sel({dim: list(bands)})
        stack = stack if "time" in stack.dims else stack.expand_dims("time")
        dated = "time" in picture.coords
        own: list[int | None] = [int(one) for one in np.atleast_1d(stack["time"].dt.year.values)] if dated else [None]
        keep = [k for k, year in enumerate(own) if years is None or year is None or year in set(years)]
        values = stack.isel(time=keep).transpose("time", dim, "y", "x").values.astype(np.float32)
        seen = np.asarray(np.isfinite(values).all(axis=1))
        out = np.zeros(values.shape, np.uint8)
        for k in range(3):
            inside = values[:, k][seen]
            low, high = np.percentile(inside, [2, 98]) if inside.size else (0.0, 1.0)
            scaled = (values[:, k] - low) / max(float(high - low), 1e-9) * 255
            out[:, k] = np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)
        return cls(grid, [own[k] for k in keep], out, seen)

    def _window(self, x: float, y: float, window_m: float) -> tuple[int, int, int]:
        """Row and column of a place, and the cells to either side of it."""
        column, row = (~self.grid.transform) * (x, y)
        return math.floor(row), math.floor(column), max(round(window_m / self._cell_m / 2), 1)

    def holds(self, x: float, y: float, window_m: float) -> int:
        """Cells of the chip around a place that the picture covers; 0 where its centre is off the picture."""
        row, column, half = self._window(x, y, window_m)
        rows, columns = self.grid.shape
        if not (0 <= row < rows and 0 <= column < columns):
            return 0
        high = min(row + half + 1, rows) - max(row - half, 0)
        return high * (min(column + half + 1, columns) - max(column - half, 0))

    def chips(self, x: float, y: float, window_m: float, only: int | None) -> list[dict[str, Any]]:
        """A chip a year around a place."""
        row, column, half = self._window(x, y, window_m)
        out = []
        for k, year in enumerate(self.years):
            if only is not None and year is not None and year != only:
                continue
            out.append({"year": year, "png": self._chip(k, row, column, half), "cells": 2 * half + 1})
        return out

    def _chip(self, k: int, row: int, column: int, half: int) -> str:
        image = optional_import("PIL.Image", "report")
        side = 2 * half + 1
        chip = np.full((side, side, 3), 128, np.uint8)
        top, left = row - half, column - half
        r0, c0 = max(top, 0), max(left, 0)
        r1, c1 = min(row + half + 1, self.grid.shape[0]), min(column + half + 1, self.grid.shape[1])
        part = np.moveaxis(self.values[k, :, r0:r1, c0:c1], 0, -1).copy()
        part[~self.seen[k, r0:r1, c0:c1]] = 128
        chip[r0 - top : r1 - top, c0 - left : c1 - left] = part
        buffer = io.BytesIO()
        image.fromarray(chip).save(buffer, "PNG", optimize=True)
        return base64.b64encode(buffer.getvalue()).decode("ascii")


def _page(cards: list[dict[str, Any]], classes: list[str], title: str, chip_px: int, window_m: float) -> str:
    style = _STYLE.replace("{chip}", str(int(chip_px)))
    key = hashlib.sha256(json.dumps([title, classes, [[c["id"], c["year"]] for c in cards]]).encode()).hexdigest()[:16]
    payload = {"sheet": f"geococa-{key}", "classes": classes, "file": _file_name(title)}
    body = "\n".join(_card(card, classes, position) for position, card in enumerate(cards))
    policy = (
        f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    data = json.dumps(payload, ensure_ascii=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1>
<p>Look at the middle of each image: the marked cell is the sample. Choose the class in the year asked for; the other years
help. Grey was not seen. Each image is {window_m:g} m wide. Leave a sample open if the images do not tell.</p>
<p class="tools"><label>Interpreter <input id="interpreter" autocomplete="off"></label>
<span id="count" role="status"></span>
<button type="button" id="next">Next open sample</button>
<button type="button" id="save">Save as CSV</button></p>
<noscript><p>JavaScript is off: answers can't be kept. Label in the GeoPackage instead.</p></noscript></header>
<main>
{body}
</main>
<script type="application/json" id="sheet">{data}</script>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _card(card: dict[str, Any], classes: list[str], position: int) -> str:
    asked = "" if card["year"] is None else f", {card['year']}"
    images = []
    for chip in card["chips"]:
        own = card["year"] is not None and chip["year"] == card["year"]
        caption = "image" if chip["year"] is None else str(chip["year"])
        size = 100.0 / chip["cells"]
        # the mark is drawn by an SVG of its own, since a style attribute is forbidden by the page's policy
        images.append(
            f'<figure class="{"own" if own else ""}"><div class="chip">'
            f'<img alt="{caption}" src="data:image/png;base64,{chip["png"]}">'
            f'<svg viewBox="0 0 100 100" aria-hidden="true"><rect x="{50 - size / 2:.3f}" y="{50 - size / 2:.3f}" '
            f'width="{size:.3f}" height="{size:.3f}"/></svg></div><figcaption>{caption}</figcaption></figure>'
        )
    buttons = "".join(
        f'<label><input type="radio" name="c{position}" value="{escape(name)}"> {escape(name.replace("_", " "))}</label>'
        for name in classes
    )
    year = "" if card["year"] is None else card["year"]
    return (
        f'<section data-id="{escape(card["id"])}" data-year="{year}" id="s{position}"><h2>{escape(card["id"])}{asked} '
        f'<small>{card["where"]}</small></h2><div class="chips">{"".join(images)}</div>'
        f"<fieldset><legend>Class{asked}</legend>{buttons}"
        f'<label>Confidence <select><option value=""></option><option>high</option><option>medium</option><option>low</option>'
        f'</select></label><label>Notes <input class="notes"></label>'
        f'<button type="button" class="clear">Clear</button></fieldset></section>'
    )


def _file_name(title: str) -> str:
    plain = "".join(one if one.isascii() and one.isalnum() else "_" for one in title.lower())
    return f"{plain.strip('_') or 'labels'}.csv"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


_STYLE = """
:root { color-scheme: light dark; --rule: #9aa39d; --own: #b8124f; --done: #1f5a49; }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 80rem; padding: 0 1rem 4rem; }
header { position: sticky; top: 0; background: Canvas; border-bottom: 1px solid var(--rule); padding: .3rem 0; z-index: 2; }
h1 { font-size: 1.2rem; margin: 0; } h2 { font-size: 1rem; margin: .2rem 0; } small { font-weight: normal; }
p { margin: .25rem 0; } .tools { display: flex; gap: .8rem; flex-wrap: wrap; align-items: center; }
section { border: 1px solid var(--rule); border-left-width: 6px; border-radius: 6px; margin: .8rem 0; padding: .4rem .8rem;
  scroll-margin-top: 11rem; }
section.done { border-left-color: var(--done); }
.chips { display: flex; flex-wrap: wrap; gap: .5rem; } figure { margin: 0; text-align: center; }
.chip { position: relative; width: {chip}px; height: {chip}px; }
.chip img, .chip svg { position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated; }
.chip rect { fill: none; stroke: #ff0; stroke-width: 1.6; paint-order: stroke; }
figure.own figcaption { font-weight: bold; color: var(--own); } figure.own .chip { outline: 3px solid var(--own); }
fieldset { border: 0; padding: .3rem 0; display: flex; flex-wrap: wrap; gap: .3rem 1rem; align-items: center; }
legend { float: left; font-weight: bold; padding: 0 .8rem 0 0; } input.notes { width: 14rem; }
button, input, select { font: inherit; } label { white-space: nowrap; }
"""

_SCRIPT = """
"use strict";
(() => {
  const sheet = JSON.parse(document.getElementById("sheet").textContent);
  const sections = [...document.querySelectorAll("main section")];
  const who = document.getElementById("interpreter");
  let kept = {};
  try { kept = JSON.parse(localStorage.getItem(sheet.sheet) || "{}"); } catch (error) { kept = {}; }
  const keyOf = (section) => section.dataset.id + "|" + section.dataset.year;
  const keep = () => { try { localStorage.setItem(sheet.sheet, JSON.stringify(kept)); } catch (error) { /* private window */ } };
  const show = () => {
    const done = sections.filter((section) => (kept[keyOf(section)] || {}).class).length;
    document.getElementById("count").textContent = done + " of " + sections.length + " labelled";
    for (const section of sections) section.classList.toggle("done", Boolean((kept[keyOf(section)] || {}).class));
  };
  for (const section of sections) {
    const answer = kept[keyOf(section)] || {};
    const [radios, list, notes] = [section.querySelectorAll("input[type=radio]"), section.querySelector("select"),
      section.querySelector("input.notes")];
    for (const radio of radios) radio.checked = radio.value === answer.class;
    list.value = answer.confidence || "";
    notes.value = answer.notes || "";
    const take = () => {
      const chosen = [...radios].find((radio) => radio.checked);
      kept[keyOf(section)] = {class: chosen ? chosen.value : "", confidence: list.value, notes: notes.value};
      keep();
      show();
    };
    section.addEventListener("change", take);
    notes.addEventListener("input", take);
    section.querySelector("button.clear").addEventListener("click", () => {
      for (const radio of radios) radio.checked = false;
      list.value = ""; notes.value = "";
      take();
    });
  }
  who.value = kept.interpreter || "";
  who.addEventListener("input", () => { kept.interpreter = who.value; keep(); });
  document.getElementById("next").addEventListener("click", () => {
    const open = sections.find((section) => !(kept[keyOf(section)] || {}).class);
    if (open) { open.scrollIntoView(); open.querySelector("input[type=radio]").focus({preventScroll: true}); }
  });
  const quote = (text) => '"' + String(text).replaceAll('"', '""') + '"';
  document.getElementById("save").addEventListener("click", () => {
    const rows = [["id", "year", "class", "confidence", "notes", "interpreter"].join(",")];
    for (const section of sections) {
      const answer = kept[keyOf(section)] || {};
      rows.push([section.dataset.id, section.dataset.year, answer.class || "", answer.confidence || "", answer.notes || "",
        who.value].map(quote).join(","));
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([rows.join("\\r\\n") + "\\r\\n"], {type: "text/csv"}));
    link.download = sheet.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  show();
})();
"""
