"""Public exports that give no plot away: coarse cells with enough plots, perturbed hectares of administrative units.

A map of single plots can be misused against the people who live beside them. Public files therefore hold nothing finer
than one kilometre or an administrative unit, nothing of fewer than ``k`` plots, and no exact sum: every figure carries
noise that belongs to its set of plots (`geococa.disclosure`), so that the difference of two figures is not what lies
between them.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyproj
import xarray as xr

from geococa._checks import check_kind
from geococa._files import replace_file
from geococa.disclosure import hidden_cells, noisy_sum, plot_keys, value_key
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA, Legend

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["public_areas", "public_cells", "publish"]

_CRS = "EPSG:6933"
# cells are higher than wide in this projection, so that both sides are at least cell_km on the ground up to 30 degrees
_HEIGHT = 1.0 / math.cos(math.radians(30.0))
_LARGEST_LATITUDE = 30.0
_MARK = (
    "RESTRICTED: outlines of single plots. Not for publication or onward transfer. Exported on explicit request "
    "(include_plots=True)."
)
_FILES = ("areas_public.csv", "cells_public.csv", "cells_public.geojson", "README.txt", "plots_RESTRICTED.geojson")


@dataclass(frozen=True)
class _Rules:
    """What may leave: minimum plots, cell side, rounding."""

    k: int
    cell_km: int
    base_ha: float


_PLOT_HA = 1.0
"""Hectares that a plot is taken to have where the plots of a zone are not known."""


def publish(
    areas: xr.Dataset | None,
    out: str | os.PathLike[str],
    *,
    plots: GeoDataFrame | None = None,
    land_cover: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
    zones: GeoDataFrame | None = None,
    class_name: str = "coca",
    k: int = 5,
    cell_km: int = 1,
    base_ha: float = 1.0,
    include_plots: bool = False,
) -> list[Path]:
    """Write the public files of a run into a folder of their own.

    Parameters
    ----------
    areas : xarray.Dataset or None
        Hectares per zone and year (`geococa.zonal_area`); zones are taken to be administrative units.
    out : path-like
        Folder to make or to refresh. A folder with any other file in it is refused.
    plots : geopandas.GeoDataFrame, optional
        Plots with ``year``, ``area_ha`` and geometry (`geococa.trace_plots`), perhaps ``zone``.
    land_cover : xarray.DataArray or mapping of str to xarray.DataArray, optional
        Land-cover maps; where given, their patches are counted rather than ``plots``. Tiles must not overlap.
    zones : geopandas.GeoDataFrame, optional
        Outlines of the zones of ``areas`` (column ``zone``): plots count in the zones that hold their centre. Where not
        given, the column ``zone`` of ``plots`` says so.
    class_name : str
        Class of the plots.
    k : int
        Cells and zones with fewer plots have no hectares, at least 2.
    cell_km : int
        Side of a cell in whole kilometres, at least 1.
    base_ha : float
        Hectares are rounded to a multiple of this, at least 0.5.
    include_plots : bool
        Also write the outlines of the plots, marked as restricted in the file's name, its head and every feature.

    Returns
    -------
    list of pathlib.Path
        Files written, sorted. The same input gives the same bytes.

    Raises
    ------
    InputRefused
        Nothing to publish, rules finer than the minimum, foreign files in the folder, or plots beyond 30 degrees.

    Notes
    -----
    Differencing: every sum carries noise of up to twice its largest plot, drawn from the plots it is made of. The same
    set of plots always has the same noise, whatever the zone, the year, ``k`` or the export, so asking again tells
    nothing new; another set has other noise, so a difference of two sums tells neither what lies between them nor
    whether anything does. Cells lie on one fixed grid. Coarser cells add up the published 1 km cells and nothing else. A
    cell that is left out at some ``k`` is left out at every larger one. Where the cells left out of a zone and year hold
    fewer than ``k`` plots, or are a single one, more cells are left out. Hectares of a zone are those of the whole plots
    whose centre it holds; where its plots are not known, a plot is taken to have 1 ha. Many exports of many slightly
    different zone sets wear the noise down: publish one set.

    References
    ----------
    .. [1] Hundepool et al. (2012), Statistical Disclosure Control, Wiley, chapter 4 (primary and secondary suppression).
    .. [2] Fraser & Wooton (2005), A proposed method for confidentialising tabular output to protect against
       differencing, UNECE work session on statistical data confidentiality, Geneva.

    Examples
    --------
    >>> import tempfile, geopandas as gpd
    >>> from shapely.geometry import box
    >>> squares = [box(-76 + i * 5e-4, 1.0, -76 + i * 5e-4 + 3e-4, 1.0003) for i in range(8)]
    >>> plots = gpd.GeoDataFrame({"year": [2024] * 8, "area_ha": 0.8}, geometry=squares, crs="EPSG:4326")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in publish(None, folder + "/public", plots=plots)]
    ['README.txt', 'cells_public.csv', 'cells_public.geojson']
    """
    rules = _checked_rules(k, cell_km, base_ha)
    if areas is None and plots is None and land_cover is None:
        raise InputRefused("nothing to publish: give areas, plots or land_cover")
    if include_plots and plots is None:
        raise InputRefused("include_plots needs plots; make them with geococa.trace_plots(land_cover)")
    points = _points(plots, land_cover, class_name)
    files: dict[str, str] = {}
    if areas is not None:
        table = public_areas(areas, plots=points, zones=zones, class_name=class_name, k=k, base_ha=base_ha)
        files["areas_public.csv"] = table.to_csv(index=False, lineterminator="\n")
    if points is not None:
        cells = public_cells(points, zones=zones, k=k, cell_km=cell_km, base_ha=base_ha)
        files["cells_public.csv"] = cells.to_csv(index=False, lineterminator="\n")
        files["cells_public.geojson"] = _geojson(cells, rules)
    if include_plots and plots is not None:
        files["plots_RESTRICTED.geojson"] = _restricted(plots)
    files["README.txt"] = _readme(rules, class_name, include_plots=include_plots, counted=points is not None)
    folder = _folder(Path(out))
    for stale in set(_FILES) - set(files):
        (folder / stale).unlink(missing_ok=True)
    return [replace_file(folder / name, text.encode()) for name, text in sorted(files.items())]


def public_cells(
    plots: pd.DataFrame,
    *,
    zones: GeoDataFrame | None = None,
    k: int = 5,
    cell_km: int = 1,
    base_ha: float = 1.0,
) -> pd.DataFrame:
    """Hectares per cell and year with noise, cells with fewer than ``k`` plots left out.

    Parameters
    ----------
    plots : pandas.DataFrame or geopandas.GeoDataFrame
        ``year``, ``area_ha`` and geometry, or ``longitude`` and ``latitude`` of the plots; perhaps ``zone``.
        A plot counts in the cell of its centroid.
    zones : geopandas.GeoDataFrame, optional
        Zones (column ``zone``) whose hectares are published too; more cells are left out for them.
    k, cell_km, base_ha
        As in `publish`.

    Returns
    -------
    pandas.DataFrame
        ``cell``, ``year``, ``west, south, east, north`` (degrees), ``area_ha`` (with noise, rounded). A cell without a
        row has fewer than ``k`` plots, perhaps none: the two can't be told apart.
    """
    rules = _checked_rules(k, cell_km, base_ha)
    base = _base_cells(plots, rules, zones)
    shown = base[base["shown"]]
    shown = shown.assign(column=shown["column"] // rules.cell_km, row=shown["row"] // rules.cell_km)
    total = shown.groupby(["year", "row", "column"])[["public_ha"]].sum().reset_index()
    total = total.sort_values(["year", "row", "column"], ignore_index=True)
    width, height = 1000.0 * rules.cell_km, 1000.0 * rules.cell_km * _HEIGHT
    back = _transformer(_CRS, "EPSG:4326")
    column, row = total["column"].to_numpy(np.float64), total["row"].to_numpy(np.float64)
    west, south = back.transform(column * width, row * height)
    east, north = back.transform((column + 1) * width, (row + 1) * height)
    names = [
        f"{rules.cell_km}km_{'N' if r >= 0 else 'S'}{abs(int(r))}_{'E' if c >= 0 else 'W'}{abs(int(c))}"
        for r, c in zip(row, column, strict=True)
    ]
    return pd.DataFrame(
        {
            "cell": names,
            "year": total["year"].astype(np.int64),
            "west": np.round(west, 6),
            "south": np.round(south, 6),
            "east": np.round(east, 6),
            "north": np.round(north, 6),
            "area_ha": total["public_ha"].astype(np.float64),
        }
    )


def public_areas(
    areas: xr.Dataset,
    *,
    plots: pd.DataFrame | None = None,
    zones: GeoDataFrame | None = None,
    class_name: str = "coca",
    k: int = 5,
    base_ha: float = 1.0,
    min_zone_ha: float = 100.0,
) -> pd.DataFrame:
    """Hectares per zone and year with noise; zones smaller than one square kilometre are left out.

    Parameters
    ----------
    areas : xarray.Dataset
        As `geococa.zonal_area` gives them.
    plots, zones
        As in `publish`. Where the plots of the zones are not known, a plot is taken to have 1 ha.
    class_name : str
        Class whose hectares are published.
    k : int
        Zones with fewer plots have no hectares.
    base_ha : float
        Rounding.
    min_zone_ha : float
        Smaller zones resolve less than a square kilometre.

    Returns
    -------
    pandas.DataFrame
        ``zone, year, area_ha, observed_percent, zone_ha, note``; ``area_ha`` is missing where nothing was observed and
        where fewer than ``k`` plots were, perhaps none: ``note`` says which of the two.

    Raises
    ------
    InputRefused
        The class is unknown, or no plot belongs to one of the zones of the areas.
    """
    rules = _checked_rules(k, 1, base_ha)
    if class_name not in list(map(str, areas["land_cover"].values)):
        raise InputRefused(
            f"no class {class_name!r} in the areas, which have {', '.join(map(str, areas.land_cover.values))}"
        )
    dated = areas if "time" in areas["area_ha"].dims else areas.expand_dims(time=[np.datetime64("NaT", "ns")])
    area = dated["area_ha"].transpose("time", "zone", "land_cover")
    mapped = area.sel(land_cover=class_name).values
    zone_ha = np.asarray(areas["zone_ha"].values, dtype=np.float64).reshape(-1, area.sizes["zone"])[0]
    seen = area.sum("land_cover").values
    names = list(map(str, dated["zone"].values))
    sums = _zone_sums(plots, zones, names, rules)
    rows = []
    for j, zone in enumerate(names):
        if zone_ha[j] < min_zone_ha:
            continue
        for i, year in enumerate(pd.DatetimeIndex(dated["time"].values).year):
            share = seen[i, j] / zone_ha[j]
            value = _value_alone(float(mapped[i, j]), rules) if sums is None else sums.get((zone, int(year)), math.nan)
            note = "not observed" if not share > 0 else "" if math.isfinite(value) else f"fewer than {rules.k} plots"
            rows.append(
                {
                    "zone": _spreadsheet_safe(zone),
                    "year": year,
                    "area_ha": value if share > 0 else np.nan,
                    "observed_percent": math.floor(100 * min(share, 1.0) + 1e-9),
                    "zone_ha": _rounded(zone_ha[j], max(base_ha, 1.0)),
                    "note": note,
                }
            )
    return pd.DataFrame(rows, columns=["zone", "year", "area_ha", "observed_percent", "zone_ha", "note"])


def _zone_sums(
    plots: pd.DataFrame | None, zones: GeoDataFrame | None, names: list[str], rules: _Rules
) -> dict[tuple[str, int], float] | None:
    """Published hectares by zone and year where there are ``k`` plots; None where nobody knows which plots are whose."""
    if plots is None or (zones is None and "zone" not in plots.columns):
        return None
    pairs = _memberships(plots, zones)
    if len(pairs) and not set(pairs["zone"]) & set(names):
        raise InputRefused(
            f"no plot lies in a zone of the areas: the plots are in {sorted(set(pairs['zone']))[:5]}, the areas have "
            f"{names[:5]}; give zones= with the same names"
        )
    area, key = plots["area_ha"].to_numpy(np.float64), plot_keys(*_centres(plots), plots["area_ha"])
    year = plots["year"].to_numpy()
    out = {}
    for zone, part in pairs.groupby("zone"):
        rows = part["plot"].to_numpy()
        for one in np.unique(year[rows]):
            own = rows[year[rows] == one]
            if len(own) >= rules.k:
                out[str(zone), int(one)] = _rounded(noisy_sum(area[own], key[own]), rules.base_ha)
    return out


def _value_alone(value: float, rules: _Rules) -> float:
    """Hectares of a zone whose plots nobody counted: each is taken to have one hectare."""
    if not value >= rules.k * _PLOT_HA:
        return math.nan
    return _rounded(noisy_sum(np.array([value]), value_key(value), largest=_PLOT_HA), rules.base_ha)


def _memberships(plots: pd.DataFrame, zones: GeoDataFrame | None) -> pd.DataFrame:
    """Pairs of ``plot`` (position) and ``zone``: the zones that hold the plot's centre, else the plot's own column."""
    if zones is None:
        if "zone" not in plots.columns:
            return pd.DataFrame({"plot": np.zeros(0, np.int64), "zone": np.zeros(0, object)})
        named = plots["zone"].astype(str).to_numpy()
        known = np.flatnonzero(~plots["zone"].isna().to_numpy() & (named != ""))
        return pd.DataFrame({"plot": known, "zone": named[known]})
    import shapely

    if zones.crs is None:
        raise InputRefused("zones have no coordinate reference system; set one with zones.set_crs(...)")
    if "zone" not in zones.columns:
        raise InputRefused(f"zones lack the column 'zone', have {list(zones.columns)}; geococa.read_zones makes it")
    here = zones.to_crs("EPSG:4326")
    tree = shapely.STRtree(shapely.points(*_centres(plots)))
    zone, plot = tree.query(np.asarray(here.geometry.values, dtype=object), predicate="intersects")
    return pd.DataFrame({"plot": plot, "zone": here["zone"].astype(str).to_numpy()[zone]})


def _base_cells(plots: pd.DataFrame, rules: _Rules, zones: GeoDataFrame | None = None) -> pd.DataFrame:
    """1 km cells by year: hectares, plots, and whether they may be shown; coarser cells are made of these only."""
    missing = [name for name in ("year", "area_ha") if name not in plots.columns]
    if missing:
        raise InputRefused(f"plots lack {missing}, have {list(plots.columns)}; geococa.trace_plots makes them")
    longitude, latitude = _centres(plots)
    if len(latitude) and not (np.abs(latitude) <= _LARGEST_LATITUDE).all():
        raise InputRefused(
            f"plots reach {np.abs(latitude).max():.1f} degrees of latitude; cells keep their kilometre up to "
            f"{_LARGEST_LATITUDE:.0f} degrees only"
        )
    x, y = _transformer("EPSG:4326", _CRS).transform(longitude, latitude)
    data = pd.DataFrame(
        {
            "year": plots["year"].to_numpy(),
            "area_ha": plots["area_ha"].to_numpy(np.float64),
            "column": np.floor(np.asarray(x) / 1000.0).astype(np.int64),
            "row": np.floor(np.asarray(y) / (1000.0 * _HEIGHT)).astype(np.int64),
            "key": plot_keys(longitude, latitude, plots["area_ha"]),
        }
    )
    grouped = data.groupby(["year", "row", "column"], sort=True)
    cells = grouped.agg(plots=("area_ha", "size"), area_ha=("area_ha", "sum")).reset_index()
    # noise and rounding of each cell, not of sums, keep a difference of two sums free of what was left out
    cells["public_ha"] = [
        _rounded(noisy_sum(part["area_ha"].to_numpy(), part["key"].to_numpy()), rules.base_ha) for _, part in grouped
    ]
    cell = grouped.ngroup().to_numpy()
    pairs = _memberships(plots, zones)
    own = pd.DataFrame(
        {"zone": pairs["zone"], "year": data["year"].to_numpy()[pairs["plot"]], "cell": cell[pairs["plot"]]}
    )
    groups = [list(part.index) for _, part in cells.groupby("year")]
    groups += [sorted(set(part["cell"])) for _, part in own.groupby(["zone", "year"])]
    place = np.lexsort((cells["column"], cells["row"]))
    hidden = hidden_cells(cells["plots"].to_numpy(), groups, place, rules.k)
    return cells.assign(shown=~hidden)


@functools.lru_cache(maxsize=4)
def _transformer(source: str, target: str) -> pyproj.Transformer:
    """Transformers take tens of milliseconds to make."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _points(
    plots: GeoDataFrame | None, land_cover: xr.DataArray | Mapping[str, xr.DataArray] | None, class_name: str
) -> pd.DataFrame | None:
    """Plots as points; patches of the maps where there are maps, so that public figures do not depend on outlines."""
    if land_cover is not None:
        tiles = land_cover.values() if isinstance(land_cover, Mapping) else [land_cover]
        return pd.concat([_patches(tile, class_name) for tile in tiles], ignore_index=True)
    table: pd.DataFrame | None = plots
    return table


def _patches(land_cover: xr.DataArray, class_name: str) -> pd.DataFrame:
    """Centre and hectares of every patch of a class (cells that touch, corners included), year by year."""
    from scipy import ndimage

    check_kind(land_cover, "land_cover")
    code = Legend.from_attrs(land_cover.attrs).code(class_name)
    grid = Grid.from_xarray(land_cover)
    dated = land_cover if "time" in land_cover.dims else land_cover.expand_dims("time")
    years = pd.DatetimeIndex(dated["time"].values).year if "time" in dated.coords else [-1]
    to_degrees = pyproj.Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    cell_ha = np.broadcast_to(np.asarray(grid.cell_area_ha(), dtype=np.float64), grid.shape)
    parts = []
    for i, year in enumerate(years):
        codes = np.asarray(dated.isel(time=i).values)
        labels, count = ndimage.label((codes == code) & (codes != NO_DATA), structure=np.ones((3, 3)))
        numbers = np.arange(1, count + 1)
        centres = np.asarray(ndimage.center_of_mass(labels > 0, labels, numbers)).reshape(-1, 2)
        column, row, t = centres[:, 1] + 0.5, centres[:, 0] + 0.5, grid.transform
        x, y = t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f
        longitude, latitude = to_degrees.transform(x, y)
        parts.append(
            pd.DataFrame(
                {
                    "year": int(year),
                    "area_ha": ndimage.sum_labels(cell_ha, labels, numbers),
                    "longitude": longitude,
                    "latitude": latitude,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _centres(plots: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    if {"longitude", "latitude"} <= set(plots.columns):
        return plots["longitude"].to_numpy(np.float64), plots["latitude"].to_numpy(np.float64)
    crs = getattr(plots, "crs", None)
    if crs is None:
        raise InputRefused("plots have no coordinate reference system; set one with plots.set_crs(...)")
    centres = plots.to_crs(_CRS).geometry.centroid.to_crs("EPSG:4326")  # type: ignore[operator]
    return centres.x.to_numpy(np.float64), centres.y.to_numpy(np.float64)


def _checked_rules(k: int, cell_km: int, base_ha: float) -> _Rules:
    if k < 2 or int(k) != k:
        raise InputRefused(f"k must be a whole number of at least 2 plots, got {k!r}")
    if cell_km < 1 or int(cell_km) != cell_km:
        raise InputRefused(
            f"cell_km must be a whole number of kilometres, at least 1, got {cell_km!r}; finer cells "
            "give plots away, and cells that do not nest can be subtracted from each other"
        )
    if not base_ha >= 0.5 or not math.isfinite(base_ha):
        raise InputRefused(f"base_ha must be at least 0.5 ha, got {base_ha!r}")
    return _Rules(int(k), int(cell_km), float(base_ha))


def _rounded(value: float, base: float) -> float:
    return float(round(math.floor(value / base + 0.5) * base, 6)) if math.isfinite(value) else math.nan


def _spreadsheet_safe(text: str) -> str:
    """A cell that a spreadsheet would run as a formula gets an apostrophe (OWASP ASVS 1.2.10)."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _geojson(cells: pd.DataFrame, rules: _Rules) -> str:
    features = [
        {
            "type": "Feature",
            "properties": {"cell": c["cell"], "year": c["year"], "area_ha": c["area_ha"]},
            "geometry": {
                "type": "Polygon",
                "coordinates": [
                    [
                        [c["west"], c["south"]],
                        [c["east"], c["south"]],
                        [c["east"], c["north"]],
                        [c["west"], c["north"]],
                        [c["west"], c["south"]],
                    ]
                ],
            },
        }
        for c in cells.to_dict("records")
    ]
    head = {
        "type": "FeatureCollection",
        "notice": f"cells of {rules.cell_km} km with at least {rules.k} plots; hectares rounded to {rules.base_ha:g}",
        "features": features,
    }
    return json.dumps(head, ensure_ascii=False, separators=(",", ":")) + "\n"


def _restricted(plots: GeoDataFrame) -> str:
    data = json.loads(plots.to_crs("EPSG:4326").to_json(drop_id=True))
    for feature in data["features"]:
        feature["properties"] = {"restricted": True, **feature["properties"]}
    marked = {"type": "FeatureCollection", "notice": _MARK, "features": data["features"]}
    return json.dumps(marked, ensure_ascii=False, separators=(",", ":")) + "\n"


def _readme(rules: _Rules, class_name: str, *, include_plots: bool, counted: bool) -> str:
    lines = [
        f"Public hectares of {class_name}.",
        "",
        "No figure is exact: each carries noise of up to twice its largest plot, always the same for the same plots, so",
        "that two figures can't be subtracted to find what lies between them. On average the noise is zero.",
        f"Cells are {rules.cell_km} km wide at least, on one fixed grid (EPSG:6933).",
        f"A 1 km cell is shown only with {rules.k} or more plots in the year; more cells are left out where a difference",
        "between a zone and its cells would tell what a cell left out holds. Coarser cells add up the shown ones.",
        "A cell without a row has few plots or none; the files do not tell which. Cells do not add up to zones.",
        f"Hectares are rounded to {rules.base_ha:g} ha. Zones below 1 square kilometre are left out.",
        f"A zone with fewer than {rules.k} plots, perhaps none, has no hectares. A plot counts whole in the zones that",
        "hold its centre."
        if counted
        else "Plots were not counted: a zone with less than one hectare for each of these plots has no hectares.",
        "Mapped hectares are pixel counting, not an estimate.",
    ]
    if include_plots:
        lines += ["", "plots_RESTRICTED.geojson holds outlines of single plots. " + _MARK]
    return "\n".join(lines) + "\n"


def _folder(folder: Path) -> Path:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InputRefused(f"{folder} is not a folder of its own; choose another")
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in _FILES) if folder.is_dir() else []
    if foreign:
        raise InputRefused(
            f"{folder} holds other files ({', '.join(foreign[:5])}); public files need a folder of their own"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return folder
