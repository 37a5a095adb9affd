"""Figures for papers and briefings: vector or raster files with scale bar, north arrow, legend and units.

Every function returns a `matplotlib.figure.Figure` that pyplot does not know of, so nothing is shown, kept or changed
behind the caller's back; `save_figure` writes it with the same bytes every time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from geococa._checks import check_kind, check_same_grid, optional_import
from geococa._files import replacing
from geococa.errors import InputRefused
from geococa.figure_charts import (
    area_series_figure,
    edge_profile_figure,
    error_matrix_figure,
    plain_text,
    reliability_diagram,
    transitions_figure,
)
from geococa.figure_maps import add_north_arrow, add_scale_bar, add_zones, map_axes, pooled_image
from geococa.legend import NO_DATA, Legend

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from matplotlib.figure import Figure

__all__ = [
    "area_series_figure",
    "change_map_figure",
    "edge_profile_figure",
    "error_matrix_figure",
    "map_figure",
    "reliability_diagram",
    "save_figure",
    "transitions_figure",
]

_UNSEEN = "#e2e4e9"
_CHANGE = {"new": "#d55e00", "stayed": "#7b3294", "gone": "#0072b2"}


def map_figure(
    land_cover: xr.DataArray,
    *,
    year: int | None = None,
    zones: GeoDataFrame | None = None,
    class_name: str = "coca",
    title: str | None = None,
    width_in: float = 7.0,
) -> Figure:
    """Map of one year, with zones, scale bar, north arrow and legend.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ((time,) y, x) with CF flags; 255 = not observed.
    year : int, optional
        Year to draw; the last where not given.
    zones : geopandas.GeoDataFrame, optional
        Outlines, reprojected where need be; labelled with the column ``zone``.
    class_name : str
        Class that keeps every cell however small the figure.
    title : str, optional
        Title; the year where not given.
    width_in : float
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputRefused
        The year is not in the map.
    """
    codes, shown_year = _one_year(check_kind(land_cover, "land_cover"), year)
    legend = Legend.from_attrs(land_cover.attrs).with_unclassified()
    figure: Figure
    figure, axes, grid = map_axes(land_cover, width_in)
    image, extent = pooled_image(codes, grid, keep=legend.code(class_name))
    colors = _rgb_table(dict(zip(legend.codes, legend.colors, strict=True)))
    axes.imshow(_hatched(colors[image], image), extent=extent, interpolation="nearest", aspect="equal")
    present = set(np.unique(codes).tolist())
    names = [
        (name.replace("_", " "), color)
        for code, name, color in zip(legend.codes, legend.names, legend.colors, strict=True)
        if code in present
    ]
    if NO_DATA in present:
        names.append(("not observed", _UNSEEN))
    _finish_map(axes, grid, zones, names, "Land cover")
    axes.set_title(
        title or (str(shown_year) if shown_year is not None else "Land cover"), loc="left", fontweight="bold"
    )
    return figure


def change_map_figure(
    before: xr.DataArray,
    after: xr.DataArray,
    *,
    zones: GeoDataFrame | None = None,
    class_name: str = "coca",
    title: str | None = None,
    width_in: float = 7.0,
) -> Figure:
    """Map of where a class is new, stayed or is gone between two maps; cells not seen in either stay apart.

    Parameters
    ----------
    before, after : xarray.DataArray
        uint8 (y, x) on the same grid, with CF flags.
    zones : geopandas.GeoDataFrame, optional
        Outlines.
    class_name : str
        Class whose change is drawn.
    title : str, optional
        Title.
    width_in : float
        Width in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    GridMismatch
        The maps are on different grids.
    """
    check_same_grid(before, after, names=("before", "after"))
    first, _ = _one_year(check_kind(before, "land_cover"), None)
    last, _ = _one_year(check_kind(after, "land_cover"), None)
    was = first == Legend.from_attrs(before.attrs).code(class_name)
    now = last == Legend.from_attrs(after.attrs).code(class_name)
    seen = (first != NO_DATA) & (last != NO_DATA)
    codes = np.select([~seen, now & ~was, now & was, was & ~now], [NO_DATA, 3, 2, 1], 0).astype(np.uint8)
    figure: Figure
    figure, axes, grid = map_axes(after, width_in)
    image, extent = pooled_image(codes, grid, keep=(2, 1, 3))
    colors = _rgb_table({0: "#f3f1ea", 1: _CHANGE["gone"], 2: _CHANGE["stayed"], 3: _CHANGE["new"]})
    axes.imshow(_hatched(colors[image], image), extent=extent, interpolation="nearest", aspect="equal")
    readable = class_name.replace("_", " ")
    names = [
        (f"new {readable}", _CHANGE["new"]),
        (f"{readable} that stayed", _CHANGE["stayed"]),
        (f"{readable} that is gone", _CHANGE["gone"]),
        ("neither", "#f3f1ea"),
        ("not seen in both years", _UNSEEN),
    ]
    _finish_map(axes, grid, zones, names, "Change")
    axes.set_title(title or f"Change of {readable}", loc="left", fontweight="bold")
    return figure


def save_figure(fig: Figure, path: str | os.PathLike[str], *, dpi: int = 200) -> Path:
    """Write a figure as SVG, PDF or PNG by the name's ending; the same figure gives the same bytes.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
        Figure.
    path : path-like
        File to write; an existing one is replaced in one step.
    dpi : int
        Resolution of PNG, and of pictures inside SVG and PDF.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputRefused
        Another ending, or no such folder.

    Examples
    --------
    >>> import tempfile, pandas as pd
    >>> matrix = pd.DataFrame([[9, 1], [2, 8]], index=["coca", "other"], columns=["coca", "other"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_figure(error_matrix_figure(matrix), folder + "/matrix.svg").name
    'matrix.svg'
    """
    target = Path(path)
    ending = target.suffix.lower()
    # without these, each format writes the time or the library's version into the file
    metadata: dict[str, dict[str, Any]] = {
        ".svg": {"Date": None},
        ".pdf": {"CreationDate": None, "ModDate": None},
        ".png": {"Software": None},
    }
    if ending not in metadata:
        raise InputRefused(f"a figure's name must end in .svg, .pdf or .png, got {target.name!r}")
    if not target.parent.is_dir():
        raise InputRefused(f"{target.parent} is not a folder; create it before writing {target.name}")
    matplotlib = optional_import("matplotlib", "report")
    fixed = {"svg.hashsalt": "geococa", "svg.fonttype": "path", "pdf.fonttype": 42}
    with replacing(target) as temporary, matplotlib.rc_context(fixed):
        fig.savefig(temporary, format=ending[1:], dpi=dpi, metadata=metadata[ending])
    return target


def _one_year(land_cover: xr.DataArray, year: int | None) -> tuple[np.ndarray, int | None]:
    if "time" not in land_cover.dims:
        own = land_cover.coords.get("time")
        return np.asarray(land_cover.values), int(own.dt.year) if own is not None and own.ndim == 0 else year
    years = land_cover["time"].dt.year.values.tolist()
    chosen = years[-1] if year is None else year
    if chosen not in years:
        raise InputRefused(f"no map of {chosen}; the years are {', '.join(map(str, years))}")
    return np.asarray(land_cover.isel(time=years.index(chosen)).values), int(chosen)


def _rgb_table(colors: dict[int, str]) -> np.ndarray:
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[NO_DATA] = (226, 228, 233)
    for code, color in colors.items():
        table[code] = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return table


def _hatched(picture: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Diagonal lines over what was not observed, so that it differs from every class by more than colour."""
    rows, columns = np.ogrid[: codes.shape[0], : codes.shape[1]]
    wide = max(1, round(max(codes.shape) / 300))
    out = picture.copy()
    out[(codes == NO_DATA) & ((rows + columns) // wide % 5 == 0)] = (150, 154, 163)
    return out


def _finish_map(axes: Any, grid: Any, zones: GeoDataFrame | None, names: list[tuple[str, str]], heading: str) -> None:
    patches = optional_import("matplotlib.patches", "report")
    if zones is not None:
        add_zones(axes, grid, zones, plain_text)
    add_scale_bar(axes, grid)
    add_north_arrow(axes, grid)
    handles = [
        patches.Patch(
            facecolor=color, edgecolor="#9aa09c", linewidth=0.4, label=name, hatch="////" if color == _UNSEEN else None
        )
        for name, color in names
    ]
    axes.legend(
        handles=handles,
        title=heading,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        fontsize=8,
        title_fontsize=9,
        alignment="left",
    )
