"""Colours for QGIS: a style file beside a class map, and styles inside a GeoPackage."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

import xarray as xr

from geococa._checks import check_kind
from geococa._files import replace_file
from geococa.errors import InputRefused
from geococa.legend import Legend

__all__ = ["add_layer_style", "polygon_style", "raster_style", "write_qml"]

_HEAD = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_LAYER_STYLES = """
CREATE TABLE IF NOT EXISTS layer_styles (
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256), f_table_schema TEXT(256),
  f_table_name TEXT(256), f_geometry_column TEXT(256), styleName TEXT(30), styleQML TEXT, styleSLD TEXT,
  useAsDefault BOOLEAN, description TEXT, owner TEXT(30), ui TEXT(30),
  update_time DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))
"""
_EPOCH = "2000-01-01T00:00:00.000Z"
"""Time of every style: the same table gives the same rows."""


def raster_style(legend: Legend) -> str:
    """QGIS style of a class map: one palette entry for each class.

    Examples
    --------
    >>> 'label="coca"' in raster_style(Legend.of(["coca", "forest"]))
    True
    """
    entries = "".join(
        f'        <paletteEntry value="{code}" label={quoteattr(name.replace("_", " "))} color="{color}" alpha="255"/>\n'
        for code, name, color in zip(legend.codes, legend.names, legend.colors, strict=True)
    )
    return (
        f'{_HEAD}<qgis version="3.28.0" styleCategories="Symbology">\n  <pipe>\n'
        '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">\n'
        f"      <rasterTransparency/>\n      <colorPalette>\n{entries}      </colorPalette>\n"
        "    </rasterrenderer>\n  </pipe>\n  <blendMode>0</blendMode>\n</qgis>\n"
    )


def write_qml(land_cover: xr.DataArray, path: str | Path) -> Path:
    """Write the QGIS style of a land-cover map beside its raster.

    Parameters
    ----------
    land_cover : xarray.DataArray
        Map with CF flags.
    path : path
        The raster, or the ``.qml`` file itself. QGIS takes ``map.qml`` for ``map.tif``.

    Returns
    -------
    pathlib.Path
        The style file.

    Raises
    ------
    KindMismatch
        The array is no land-cover map.

    Examples
    --------
    >>> import geococa as coca
    >>> land_cover = coca.synthetic.simple_land_cover((64, 64), seed=1, years=(2023, 2024), unobserved=0.0)
    >>> import pathlib, tempfile
    >>> coca.write_qml(land_cover, pathlib.Path(tempfile.mkdtemp()) / "map.tif").name
    'map.qml'
    """
    check_kind(land_cover, "land_cover", required=True)
    return replace_file(Path(path).with_suffix(".qml"), raster_style(Legend.from_attrs(land_cover.attrs)).encode())


def polygon_style(column: str | None = None, colors: Mapping[str, str] | None = None) -> str:
    """QGIS style of polygons: outlines, or filled by the values of a column.

    Parameters
    ----------
    column : str, optional
        Column whose values have a colour each; outlines only where not given.
    colors : mapping of str to str, optional
        ``#rrggbb`` for each value of it.
    """
    if column is None:
        renderer = f'<renderer-v2 type="singleSymbol" symbollevels="0">\n<symbols>\n{_symbol("0", None)}</symbols>\n'
    else:
        wanted = dict(colors or {})
        if not wanted:
            raise InputRefused(
                f"a style by column {column!r} needs a colour for each of its values, such as {{'coca': '#d81b60'}}"
            )
        rows = "".join(
            f'<category value={quoteattr(value)} label={quoteattr(value)} symbol="{number}" render="true"/>\n'
            for number, value in enumerate(wanted)
        )
        symbols = "".join(_symbol(str(number), color) for number, color in enumerate(wanted.values()))
        renderer = (
            f'<renderer-v2 type="categorizedSymbol" attr={quoteattr(column)} symbollevels="0">\n'
            f"<categories>\n{rows}</categories>\n<symbols>\n{symbols}</symbols>\n"
        )
    return f'{_HEAD}<qgis version="3.28.0" styleCategories="Symbology">\n{renderer}</renderer-v2>\n</qgis>\n'


def _symbol(name: str, color: str | None) -> str:
    fill = "no" if color is None else "solid"
    red, green, blue = (int((color or "#000000")[place : place + 2], 16) for place in (1, 3, 5))
    options = {
        "color": f"{red},{green},{blue},180",
        "outline_color": "38,38,38,255",
        "outline_style": "solid",
        "outline_width": "0.3",
        "style": fill,
    }
    props = "".join(f'<Option type="QString" name="{key}" value="{value}"/>' for key, value in options.items())
    return (
        f'<symbol type="fill" name="{name}" alpha="1"><layer class="SimpleFill" enabled="1">'
        f'<Option type="Map">{props}</Option></layer></symbol>\n'
    )


def add_layer_style(path: Path, layer: str, qml: str, *, name: str = "geococa") -> None:
    """Put a default style for a layer into a GeoPackage, in the table that QGIS reads.

    Parameters
    ----------
    path : pathlib.Path
        The GeoPackage.
    layer : str
        Table that the style is for.
    qml : str
        From `polygon_style`.
    name : str
        Name of the style.

    Notes
    -----
    ``layer_styles`` is a table of QGIS, not of the GeoPackage standard; it is listed in ``gpkg_contents`` as plain
    attributes, so that other readers see a table and nothing else.
    """
    with sqlite3.connect(path) as base:
        found = base.execute("SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)).fetchone()
        if found is None:
            raise InputRefused(f"{path} has no layer {layer!r} with geometries to give a style to")
        base.execute(_LAYER_STYLES)
        base.execute("DELETE FROM layer_styles WHERE f_table_name = ? AND styleName = ?", (layer, name))
        base.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, styleQML, "
            "styleSLD, useAsDefault, description, owner, update_time) VALUES ('', '', ?, ?, ?, ?, '', 1, '', '', ?)",
            (layer, found[0], name, qml, _EPOCH),
        )
        base.execute(
            "INSERT OR IGNORE INTO gpkg_contents (table_name, data_type, identifier, last_change) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', ?)",
            (_EPOCH,),
        )
    base.close()
