"""Files in the folder of a run: written whole, left alone where they already say the same, and read back."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._files import replace_file
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA
from geococa.report_tables import DATE_COLUMNS
from geococa.tiles import read_raster
from geococa.zones import coverage_fraction

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = [
    "CHANGE_TABLES",
    "TileMaps",
    "TilePictures",
    "areas_from_table",
    "find_maps",
    "own_ground",
    "read_manifest",
    "read_maps",
    "write_data",
    "write_plots",
    "write_table",
    "write_text",
    "write_zones",
]

CHANGE_TABLES = ("transitions", "changes", "expansion", "permanence", "rings", "forest_loss")
"""Tables that a run writes where ``[change]`` asks for them."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Manifest of a finished run."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputRefused(f"{folder} is not the output folder of a finished run (it has no manifest.json)")
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def find_maps(folder: Path, manifest: Mapping[str, Any]) -> dict[str, dict[int, Path]]:
    """Land-cover files of a finished run, by tile and year."""
    found: dict[str, dict[int, Path]] = {}
    for tile in sorted(set(manifest["scenes"]) - set(manifest["failed"])):
        files = sorted((folder / "maps").glob(f"{tile}_????_land_cover.tif"))
        found[tile] = {int(file.name.removeprefix(f"{tile}_")[:4]): file for file in files}
    return {tile: files for tile, files in found.items() if files}


class TileMaps(Mapping[str, xr.DataArray]):
    """The yearly maps of every tile, read when asked for, so that only one tile is in memory at a time.

    Parameters
    ----------
    paths : mapping
        Land-cover file of each tile and year.
    """

    def __init__(self, paths: Mapping[str, Mapping[int, Path]]) -> None:
        self._paths = paths

    def __getitem__(self, tile: str) -> xr.DataArray:
        return read_maps(self._paths[tile])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class TilePictures(Mapping[str, xr.DataArray]):
    """The background pictures of the tiles of a run that have one, read when asked for; NaN = no data.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the maps.
    tiles : iterable of str
        Tiles to look for.
    """

    def __init__(self, folder: Path, tiles: Iterable[str]) -> None:
        paths = {tile: folder / f"{tile}_picture.tif" for tile in tiles}
        self._paths = {tile: path for tile, path in paths.items() if path.is_file()}

    def __getitem__(self, tile: str) -> xr.DataArray:
        picture = read_raster(self._paths[tile])
        return picture.where(picture != picture.attrs["nodata"]).astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def read_maps(paths: Mapping[int, Path]) -> xr.DataArray:
    """Read the yearly maps of a tile into one ``(time, y, x)`` array."""
    yearly = [
        read_raster(path).expand_dims(time=[np.datetime64(f"{year}-12-31", "ns")])
        for year, path in sorted(paths.items())
    ]
    return xr.concat(yearly, dim="time", combine_attrs="override")


def own_ground(land_cover: xr.DataArray, owners: GeoDataFrame, tile: str, *, strip: int = 512) -> xr.DataArray:
    """Map of a tile with the ground blanked that other tiles own (``owners`` from `geococa.own_tiles`)."""
    owned = owners[owners["tile"] == tile].rename(columns={"tile": "zone"})
    share = coverage_fraction(owned, Grid.from_xarray(land_cover), allow_outside=True)
    data = land_cover.values.copy()
    for row in range(0, data.shape[-2], strip):
        rows = slice(row, min(row + strip, data.shape[-2]))
        data[..., rows, :][..., share.dense(rows.start, rows.stop).values[0] < 0.5] = NO_DATA
    return land_cover.copy(data=data)


def areas_from_table(table: pd.DataFrame) -> xr.Dataset:
    """Rebuild the areas dataset from the tidy table of `geococa.areas_table`."""
    time = pd.to_datetime(table["year"].astype(str) + "-12-31")
    cube = table.assign(time=time).set_index(["time", "zone", "land_cover"])["area_ha"].to_xarray()
    order = {"zone": list(dict.fromkeys(table["zone"])), "land_cover": list(dict.fromkeys(table["land_cover"]))}
    yearly = table.assign(time=time).drop_duplicates(["time", "zone"]).set_index(["time", "zone"])
    out = xr.Dataset({"area_ha": cube})
    for column in ("unobserved_ha", "outside_ha", *(name for name in DATE_COLUMNS if name in table)):
        out[column] = yearly[column].to_xarray()
    out["zone_ha"] = table.drop_duplicates("zone").set_index("zone")["zone_ha"].to_xarray()
    if "surface" in table:
        out.attrs["area"] = str(table["surface"].iloc[0])
    return out.sel(order)


def write_data(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all; one that already holds the same is left alone."""
    return path if path.is_file() and path.read_bytes() == data else replace_file(path, data)


def write_text(path: Path, text: str) -> Path:
    """Write a text file as `write_data` does."""
    return write_data(path, text.encode())


def write_table(table: pd.DataFrame, stem: Path) -> list[Path]:
    """Write a table as CSV and as Parquet."""
    return [
        write_text(stem.with_suffix(".csv"), table.to_csv(index=False)),
        write_data(stem.with_suffix(".parquet"), _parquet(table)),
    ]


def write_zones(zones: GeoDataFrame, path: Path) -> Path:
    """Write the zones as GeoParquet: unlike a GeoPackage it holds no time stamp."""
    return write_data(path, _parquet(zones))


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def write_plots(plots: GeoDataFrame, stem: Path) -> list[Path]:
    """Write followed plots as GeoPackage and GeoParquet."""
    import pyogrio

    data = _parquet(plots)
    parquet, package = stem.with_suffix(".parquet"), stem.with_suffix(".gpkg")
    if package.is_file() and parquet.is_file() and parquet.read_bytes() == data:
        return [package, parquet]
    # a GeoPackage holds the time it was written, unless it is given
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    with tempfile.TemporaryDirectory(prefix=".plots-", dir=stem.parent) as scratch:
        new = Path(scratch) / package.name
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"})
        try:
            plots.to_file(new, layer="plots", driver="GPKG", engine="pyogrio")
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
        replace_file(package, new.read_bytes())
    return [package, replace_file(parquet, data)]
