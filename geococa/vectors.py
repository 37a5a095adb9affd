"""Polygons, points and zone tables for other tools: GeoPackage with a style, GeoParquet, columns as exactextract names them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from geococa._checks import check_type
from geococa._files import replacing
from geococa.errors import CRSMismatch, InputRefused
from geococa.styles import add_layer_style, polygon_style

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["exactextract_table", "write_vector"]


def write_vector(
    frame: GeoDataFrame,
    path: str | os.PathLike[str],
    *,
    layer: str | None = None,
    color_by: str | None = None,
    colors: Mapping[str, str] | None = None,
) -> Path:
    """Write zones, plots or samples as a GeoPackage that opens in QGIS with its colours, or as GeoParquet 1.1.

    Parameters
    ----------
    frame : geopandas.GeoDataFrame
        With a CRS.
    path : path
        ``.gpkg`` or ``.parquet``; a file of that name is replaced when the new one is whole.
    layer : str, optional
        Layer of the GeoPackage; the file's name where not given.
    color_by : str, optional
        Column whose values get a colour each; polygons are drawn as outlines where not given.
    colors : mapping of str to str, optional
        ``#rrggbb`` of each value of that column; those of the palette where not given.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    InputRefused
        The frame or the column is not one, or the suffix is neither of the two.
    CRSMismatch
        The frame has no CRS.

    Examples
    --------
    >>> import geopandas, pathlib, shapely, tempfile
    >>> parks = geopandas.GeoDataFrame({"zone": ["A"]}, geometry=[shapely.box(-73, 1, -72, 2)], crs="EPSG:4326")
    >>> path = write_vector(parks, pathlib.Path(tempfile.mkdtemp()) / "parks.parquet")
    >>> geopandas.read_parquet(path)["zone"].tolist()
    ['A']
    """
    import geopandas

    check_type(frame, geopandas.GeoDataFrame, "frame", "read one with geococa.read_zones, or build a GeoDataFrame")
    target = Path(path)
    if frame.crs is None:
        raise CRSMismatch(f"the frame for {target} has no CRS; set it with frame.set_crs(...)")
    if color_by is not None and color_by not in frame.columns:
        raise InputRefused(f"color_by={color_by!r} is no column; there are {', '.join(map(str, frame.columns))}")
    if target.suffix.lower() == ".parquet":
        with replacing(target) as temporary:
            frame.to_parquet(temporary, schema_version="1.1.0", write_covering_bbox=True, index=False)
        return target
    if target.suffix.lower() != ".gpkg":
        raise InputRefused(f"{target}: written are .gpkg and .parquet, not {target.suffix or 'a file without suffix'}")
    name = layer or target.stem
    with replacing(target) as temporary:
        package = temporary.with_name(f"{temporary.name}.gpkg")  # GDAL wants the suffix
        try:
            frame.to_file(package, driver="GPKG", layer=name, engine="pyogrio")
            if frame.geom_type.str.contains("Polygon").any():
                add_layer_style(package, name, polygon_style(color_by, _colors(frame, color_by, colors)))
            package.replace(temporary)
        finally:
            package.unlink(missing_ok=True)
    return target


def _colors(frame: GeoDataFrame, column: str | None, given: Mapping[str, str] | None) -> dict[str, str]:
    from geococa.legend import PALETTE, Legend

    if column is None:
        return {}
    values = [str(value) for value in pd.unique(frame[column].dropna())]
    if given is None:
        spare = Legend.of([f"value_{number}" for number in range(len(values))]).colors
        return {value: PALETTE.get(value, color) for value, color in zip(values, spare, strict=True)}
    lacking = [value for value in values if value not in given]
    if lacking:
        raise InputRefused(f"colors name no colour for {', '.join(lacking[:5])} of column {column}")
    return {value: given[value] for value in values}


def exactextract_table(table: pd.DataFrame) -> pd.DataFrame:
    """Zone statistics in the layout of exactextract: one row a zone, columns named by band and operation.

    Parameters
    ----------
    table : pandas.DataFrame
        From `geococa.zonal_statistics`.

    Returns
    -------
    pandas.DataFrame
        ``zone`` and the statistics; for an array with layers, ``<layer>_<statistic>`` with one row a zone.

    Examples
    --------
    >>> table = pd.DataFrame({"zone": ["a", "a"], "band": ["red", "nir"], "zone_ha": [1.0, 1.0], "mean": [0.1, 0.4]})
    >>> exactextract_table(table)
      zone  red_mean  nir_mean
    0    a       0.1       0.4
    """
    check_type(table, pd.DataFrame, "table", "make one with geococa.zonal_statistics")
    if not {"zone", "zone_ha"} <= set(table.columns):
        raise InputRefused(
            f"expected a table of geococa.zonal_statistics, got the columns {', '.join(map(str, table.columns))}"
        )
    columns = list(table.columns)
    layer = columns[1] if columns[1] != "zone_ha" else None
    statistics = columns[columns.index("zone_ha") + 1 :]
    if layer is None:
        return table[["zone", *statistics]].reset_index(drop=True)
    texts = [_layer_text(value) for value in table[layer]]
    order = list(dict.fromkeys(texts))
    wide = table.assign(**{layer: texts}).pivot(index="zone", columns=layer, values=statistics)
    wide = wide.reindex(list(dict.fromkeys(table["zone"])))
    out = pd.DataFrame({f"{name}_{stat}": wide[stat][name].to_numpy() for stat in statistics for name in order})
    out.insert(0, "zone", wide.index.to_numpy())
    return out


def _layer_text(value: object) -> str:
    return value.strftime("%Y-%m-%d") if isinstance(value, pd.Timestamp) else str(value)
