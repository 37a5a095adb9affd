"""Writing a landscape as an archive of products, with its parks, reference points and truth."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.synthetic.acquisitions import Acquisition, product_id
from geococa.synthetic.images import SCALE, Scene, coarse_grid, outline, scene

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geococa.synthetic.world import Landscape

__all__ = ["write_archive"]

# common name: native name, centre wavelength and full width at half maximum in micrometres (Sentinel-2A)
_BANDS = {
    "blue": ("B02", 0.492, 0.066),
    "green": ("B03", 0.560, 0.036),
    "red": ("B04", 0.665, 0.031),
    "rededge071": ("B05", 0.704, 0.015),
    "rededge075": ("B06", 0.741, 0.015),
    "rededge078": ("B07", 0.783, 0.020),
    "nir": ("B08", 0.833, 0.106),
    "nir08": ("B8A", 0.865, 0.021),
    "swir16": ("B11", 1.614, 0.091),
    "swir22": ("B12", 2.202, 0.175),
}
_EXTENSIONS = [
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("eo/v1.1.0", "raster/v1.1.0", "projection/v1.1.0", "grid/v1.1.0")
]
_LAYERS = ("parks.gpkg", "samples.gpkg", "validation.gpkg", "truth_plots.gpkg")
_TABLE = "truth.csv"
_STAMP = "2025-01-01T00:00:00.000Z"  # GeoPackages hold a time of last change, which must not make bytes differ


def write_archive(world: Landscape, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write a landscape as an archive: a folder for each tile, in it a folder for each product.

    ``path/<tile>/<product id>/`` holds a tiled GeoTIFF for each band (``B02.tif`` ... ``B12.tif``, uint16,
    0 = no data; ``SCL.tif``, uint8) and ``item.json``, a STAC item with scale and offset of every band.
    Beside the tiles lie ``parks.gpkg``, ``samples.gpkg``, ``validation.gpkg``, ``truth_plots.gpkg`` and
    ``truth.csv``. The same landscape gives the same bytes.

    Parameters
    ----------
    world : Landscape
        Made by `landscape`.
    path : path
        Folder; made where missing.
    overwrite : bool
        Whether to replace what an earlier call wrote there: the tile folders of the landscape and the files
        above. Anything else in the folder is left as it is.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputRefused
        The folder is not empty and ``overwrite`` is not given, or the path is a file.

    References
    ----------
    STAC 1.0.0; extensions eo 1.1, raster 1.1, projection 1.1, grid 1.1.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InputRefused(f"{folder} is a file; give a folder for the archive")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputRefused(f"{folder} is not empty; give another folder, or overwrite=True (--overwrite)")
    folder.mkdir(parents=True, exist_ok=True)
    for tile, grid in world.grids.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{tile}-") as scratch:
            made = Path(scratch) / tile
            for acquisition in world.acquisitions:
                _write_product(world, made, tile, grid, acquisition)
            if (folder / tile).exists():
                shutil.rmtree(folder / tile)
            made.replace(folder / tile)
    for name, layer in zip(_LAYERS, (world.parks, world.samples, world.validation, world.plots), strict=True):
        _write_layer(layer, folder / name)
    world.truth_areas().to_csv(folder / _TABLE, index=False, float_format="%.9f", lineterminator="\n")
    return folder


def _write_layer(layer: GeoDataFrame, path: Path) -> None:
    import pyogrio

    made = path.with_name(f".{path.name}")
    made.unlink(missing_ok=True)
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _STAMP})
    try:
        pyogrio.write_dataframe(layer, made, layer=path.stem, driver="GPKG")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
    made.replace(path)


def _write_product(world: Landscape, folder: Path, tile: str, grid: Grid, acquisition: Acquisition) -> None:
    drawn = scene(world, grid, acquisition)
    name = product_id(acquisition, tile)
    product = folder / name
    product.mkdir(parents=True)
    coarse = coarse_grid(grid)
    for band, numbers in drawn.bands.items():
        _write_band(product / f"{_BANDS[band][0]}.tif", numbers, grid if numbers.shape == grid.shape else coarse)
    _write_band(product / "SCL.tif", drawn.scl, coarse)
    item = _stac_item(name, tile, grid, acquisition, drawn)
    text = json.dumps(item, separators=(",", ":"), ensure_ascii=False)
    (product / "item.json").write_text(text + "\n", encoding="utf-8", newline="\n")


def _write_band(path: Path, numbers: NDArray[Any], grid: Grid) -> None:
    import rasterio

    # a tile as large as the image where that is small: padding costs bytes
    block = [max(16, min(512, -(-n // 16) * 16)) for n in numbers.shape]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=numbers.shape[0],
        width=numbers.shape[1],
        count=1,
        dtype=numbers.dtype,
        crs=rasterio.crs.CRS.from_epsg(grid.crs.to_epsg()),
        transform=grid.transform,
        nodata=0,
        tiled=True,
        blockysize=block[0],
        blockxsize=block[1],
        compress="deflate",
        predictor=2,
        zlevel=9,
    ) as target:
        target.write(numbers, 1)


def _stac_item(name: str, tile: str, grid: Grid, acquisition: Acquisition, drawn: Scene) -> dict[str, Any]:
    ground = outline(grid, edges=4)
    corners = [[round(float(v), 7) for v in point] for point in ground.exterior.coords]
    seen = drawn.scl > 0
    cloudy = np.isin(drawn.scl, (8, 9, 10))
    assets = {band: _asset(band, grid, acquisition.offset) for band in drawn.bands}
    assets["scl"] = _scl_asset(grid)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": _EXTENSIONS,
        "id": name,
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "bbox": [round(float(value), 7) for value in ground.bounds],
        "properties": {
            "datetime": acquisition.moment.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "platform": acquisition.platform,
            "constellation": "sentinel-2",
            "instruments": ["msi"],
            "description": "SIMULATED by geococa.synthetic; not an observation",
            "eo:cloud_cover": round(100.0 * float(cloudy.sum()) / max(int(seen.sum()), 1), 4),
            "grid:code": f"MGRS-{tile}",
            "proj:epsg": grid.crs.to_epsg(),
            "s2:mgrs_tile": tile,
            "s2:nodata_pixel_percentage": round(100.0 * float(1.0 - seen.mean()), 4),
            "s2:processing_baseline": acquisition.baseline,
            "s2:product_type": "S2MSI2A",
        },
        "links": [],
        "assets": assets,
    }


def _projection(grid: Grid) -> dict[str, Any]:
    return {"proj:shape": list(grid.shape), "proj:transform": list(tuple(grid.transform)[:6])}


def _asset(band: str, grid: Grid, offset: float) -> dict[str, Any]:
    native, wavelength, width = _BANDS[band]
    own = grid if native in ("B02", "B03", "B04", "B08") else coarse_grid(grid)
    size = own.transform.a
    number = {"name": native, "common_name": band, "center_wavelength": wavelength, "full_width_half_max": width}
    raster = {"nodata": 0, "data_type": "uint16", "spatial_resolution": size, "scale": SCALE, "offset": offset}
    return {
        "href": f"./{native}.tif",
        "type": "image/tiff; application=geotiff",
        "roles": ["data", "reflectance"],
        "gsd": size,
        "eo:bands": [number],
        "raster:bands": [{**raster, "offset": offset or 0}],
        **_projection(own),
    }


def _scl_asset(grid: Grid) -> dict[str, Any]:
    own = coarse_grid(grid)
    return {
        "href": "./SCL.tif",
        "type": "image/tiff; application=geotiff",
        "roles": ["data"],
        "title": "Scene classification",
        "gsd": own.transform.a,
        "raster:bands": [{"nodata": 0, "data_type": "uint8", "spatial_resolution": own.transform.a}],
        **_projection(own),
    }
