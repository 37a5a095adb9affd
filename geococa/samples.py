"""Reference samples: read them from files and turn them into a training table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa.errors import CRSMismatch, InputRefused
from geococa.extraction import extract_samples
from geococa.sample_balance import balance, prior_weights
from geococa.sample_splits import check_no_leak, spatial_blocks, spatial_folds, split_samples

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = [
    "balance",
    "check_no_leak",
    "prior_weights",
    "read_points",
    "read_samples",
    "spatial_blocks",
    "spatial_folds",
    "split_samples",
    "training_table",
]

_MAGIC = {
    ".gpkg": (b"SQLite format 3\0",),
    ".geojson": (b"{", b"[", b"\xef\xbb\xbf{"),
    ".json": (b"{", b"[", b"\xef\xbb\xbf{"),
    ".fgb": (b"fgb",),
    ".parquet": (b"PAR1",),
    ".shp": (b"\x00\x00\x27\x0a",),
}
"""First bytes of each vector format: GDAL would follow a virtual dataset that only bears another format's name."""

_CLASS_NAMES = ("class", "label", "class_name", "land_cover")
_LONGITUDE = ("longitude", "lon", "long", "lng")
_LATITUDE = ("latitude", "lat")


def read_samples(
    path: str | os.PathLike[str],
    *,
    class_column: str = "class",
    year_column: str = "year",
    layer: str | None = None,
    drop_unlabelled: bool = False,
) -> GeoDataFrame:
    r"""Read reference points or polygons.

    Parameters
    ----------
    path : path
        GeoPackage, GeoJSON, FlatGeobuf, Shapefile, GeoParquet, or CSV with longitude and latitude columns
        (degrees, WGS84).
    class_column : str
        Column with the class name; where it is missing, one called ``label``, ``class_name`` or
        ``land_cover`` is taken.
    year_column : str
        Column with the year; may be missing, and empty for samples that hold for every year.
    layer : str, optional
        Layer of the file; the only one where not given.
    drop_unlabelled : bool
        Leave out samples without a class (a sample that is still being labelled) instead of refusing them.

    Returns
    -------
    geopandas.GeoDataFrame
        ``class`` (str; blanks inside a name become underscores, as CF flag meanings need), ``year`` (Int64, if
        the file has years), ``geometry``, then the file's other columns. Index 0, 1, 2, ...

    Raises
    ------
    InputRefused
        The file is missing, is not what its name says, has no class column, holds samples without a class, or
        impossible years or coordinates.
    CRSMismatch
        The layer has no coordinate reference system.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "samples.csv"
    >>> _ = path.write_text("longitude,latitude,label\n-72.6,8.5,coca\n-72.5,8.6,forest\n")
    >>> read_samples(path)["class"].tolist()
    ['coca', 'forest']
    """
    source = Path(path)
    if not source.is_file():
        raise InputRefused(f"no samples at {source}: expected a vector file or a CSV")
    frame = _read_csv(source) if source.suffix.lower() == ".csv" else _read_vector(source, layer)
    column = _class_column(frame, class_column, source)
    labels = frame[column].astype("str").str.strip()
    empty = (frame[column].isna() | (labels == "")).to_numpy()
    if empty.any() and not drop_unlabelled:
        raise InputRefused(
            f"{source}: {int(empty.sum())} of {len(frame)} samples have no {column}; label them, or leave them out "
            "with drop_unlabelled=True (then the rest is a probability sample only if they miss at random)"
        )
    out = frame.drop(columns=[column])
    if out.geometry.name != "geometry":
        out = out.rename_geometry("geometry")
    out.insert(0, "class", labels.str.replace(r"\s+", "_", regex=True))
    if year_column in frame.columns:
        out = out.drop(columns=[year_column])
        out.insert(1, "year", _years(frame[year_column], source))
    return out[~empty].reset_index(drop=True)


def read_points(path: str | os.PathLike[str], *, layer: str | None = None) -> GeoDataFrame:
    """Read sample points that need no labels yet, with all their columns.

    Parameters
    ----------
    path : path
        GeoPackage, GeoJSON, FlatGeobuf, Shapefile, GeoParquet, or CSV with longitude and latitude columns.
    layer : str, optional
        Layer of the file; the only one where not given.

    Returns
    -------
    geopandas.GeoDataFrame

    Raises
    ------
    InputRefused
        The file is missing, or is not what its name says.
    """
    source = Path(path)
    if not source.is_file():
        raise InputRefused(f"no samples at {source}: expected a vector file or a CSV")
    return _read_csv(source) if source.suffix.lower() == ".csv" else _read_vector(source, layer)


def _read_vector(source: Path, layer: str | None) -> GeoDataFrame:
    import geopandas

    suffix = source.suffix.lower()
    if suffix not in _MAGIC:
        raise InputRefused(
            f"{source}: samples are read from {', '.join([*_MAGIC, '.csv'])}, not {suffix or 'a file without suffix'}"
        )
    with source.open("rb") as file:
        head = file.read(64).lstrip() if suffix in (".geojson", ".json") else file.read(64)
    if not head.startswith(_MAGIC[suffix]):
        raise InputRefused(
            f"{source} is not what its name says: its first bytes are {head[:8]!r}; convert it to GeoPackage"
        )
    try:
        if suffix == ".parquet":
            frame = geopandas.read_parquet(source)
        else:
            frame = geopandas.read_file(source, layer=layer) if layer else geopandas.read_file(source)
    except Exception as error:  # pyogrio and pyarrow raise many kinds for a damaged file
        raise InputRefused(f"{source} can't be read as samples: {error}") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise InputRefused(f"{source} has no geometry; expected points or polygons")
    if frame.crs is None:
        raise CRSMismatch(
            f"{source} has no coordinate reference system; assign one, for example with QGIS or ogr2ogr -a_srs"
        )
    return frame


def _read_csv(source: Path) -> GeoDataFrame:
    import geopandas

    try:
        table = pd.read_csv(source)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise InputRefused(f"{source} can't be read as CSV: {error}") from error
    names = {str(name).strip().lower(): name for name in table.columns}
    lon = next((names[key] for key in _LONGITUDE if key in names), None)
    lat = next((names[key] for key in _LATITUDE if key in names), None)
    if lon is None or lat is None:
        raise InputRefused(
            f"{source} needs longitude and latitude columns (WGS84), it has {', '.join(map(str, table.columns))}"
        )
    x, y = (pd.to_numeric(table[name], errors="coerce").to_numpy(float) for name in (lon, lat))
    bad = ~((np.abs(x) <= 180) & (np.abs(y) <= 90))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputRefused(
            f"{source}: {int(bad.sum())} rows without a position in degrees, first row {row + 2}: "
            f"{lon} = {table[lon].iloc[row]!r}, {lat} = {table[lat].iloc[row]!r}"
        )
    return geopandas.GeoDataFrame(
        table.drop(columns=[lon, lat]), geometry=geopandas.points_from_xy(x, y), crs="EPSG:4326"
    )


def _class_column(frame: GeoDataFrame, wanted: str, source: Path) -> str:
    if wanted in frame.columns:
        return wanted
    found = [name for name in _CLASS_NAMES if name in frame.columns]
    if wanted == "class" and found:
        return found[0]
    raise InputRefused(
        f"{source} has no column {wanted!r}, only {', '.join(map(str, frame.columns))}; name it with class_column="
    )


def _years(column: pd.Series[Any], source: Path) -> pd.Series[Any]:
    years = pd.to_numeric(column, errors="coerce")
    wrong = (years.isna() & column.notna()) | (years.notna() & ((years % 1 != 0) | ~years.between(1900, 2200)))
    if wrong.any():
        raise InputRefused(f"{source}: years must be whole numbers from 1900 to 2200, got {column[wrong].iloc[0]!r}")
    return years.astype("Int64")


def training_table(
    samples: GeoDataFrame,
    features: xr.DataArray,
    *,
    block_m: float = 1000.0,
    class_column: str = "class",
    year_column: str = "year",
) -> pd.DataFrame:
    """Extract feature values under samples and say in which spatial block each row lies.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame
        From `read_samples`.
    features : xarray.DataArray
        float ``(time, feature, y, x)`` or ``(feature, y, x)``, NaN = not observed.
    block_m : float
        Side of the spatial blocks in metres.
    class_column, year_column : str
        Columns of the samples.

    Returns
    -------
    pandas.DataFrame
        ``class, year, row, col, x, y, sample, block`` (int64) and one column a feature; counts of what was left
        out in ``attrs``, see `geococa.extract_samples`.

    Raises
    ------
    InputRefused
        No sample lies on an observed pixel.

    Examples
    --------
    >>> import geococa as coca
    >>> scenes = coca.open_tile("sample_tiles/18NXG", years=[2024], bands=["red", "nir"])
    >>> annual = coca.composite(coca.to_reflectance(scenes, where=coca.clear_sky(scenes)))
    >>> samples = coca.read_samples("sample_tiles/samples.gpkg")
    >>> table = coca.training_table(samples, coca.spectral_features(annual, ["ndvi"]))
    >>> "ndvi" in table and set(table["year"]) == {2024}
    True
    """
    table = extract_samples(samples, features, class_column=class_column, year_column=year_column)
    if table.empty:
        left_out = {key: value for key, value in table.attrs.items() if key != "crs"}
        raise InputRefused(
            f"none of the {len(samples)} samples lies on an observed pixel of the features ({left_out}); "
            f"check their CRS ({samples.crs}) and years"
        )
    table.insert(list(table.columns).index("sample") + 1, "block", spatial_blocks(table, block_m))
    return table
