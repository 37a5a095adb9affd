"""Archives of many small tiles that take milliseconds each, and the ways in which a tile breaks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely
from affine import Affine

from geococa.ledger import file_sha256

ROOT = Path(__file__).resolve().parents[2]
BANDS = {"B04": "red", "B08": "nir"}
EPSG = 32618

RULES = """
classes = ["coca", "forest"]
[tree]
test = "ndvi <= 0.6"
[tree.yes]
class = "coca"
[tree.no]
class = "forest"
"""

RECIPE = """
[scenes]
sensor = "sentinel-2-l2a"
[clear_sky]
buffer_m = 0
[reflectance]
radiometric_check = false
[composite]
reducer = "median"
[features]
names = ["ndvi"]
[model]
path = "rules.toml"
[labels]
smooth_window = 3
stabilise = {stabilise}
min_area_ha = 0.05
[zones]
path = "zones.gpkg"
name = "zone"
[areas]
class_name = "coca"
[run]
block_px = 32
"""


def tile_id(number: int) -> str:
    return f"T{number:04d}"


def write_tiny_archive(folder: Path, tiles: int, *, size: int = 24, years: tuple[int, ...] = (2020,)) -> Path:
    """``tiles`` tiles of ``size`` cells of 10 m side by side in rows of ten, two bands and a scene class a date; three zones."""
    folder.mkdir(parents=True)
    (folder / "rules.toml").write_text(RULES)
    (folder / "recipe.toml").write_text(RECIPE.format(stabilise="true" if len(years) > 1 else "false"))
    for number in range(tiles):
        for year in years:
            write_scene(folder, number, year, size)
    side, rows = size * 10, -(-tiles // 10)
    left, top = 600_000, 300_000
    whole = shapely.box(left + 35, top - rows * side + 35, left + 10 * side - 35, top - 35)
    parts = [whole, whole.buffer(-side / 3), shapely.box(left, top - side, left + side, top)]
    zones = geopandas.GeoDataFrame({"zone": ["all", "inner", "first tile"]}, geometry=parts, crs=EPSG)
    zones.to_file(folder / "zones.gpkg")
    return folder


def write_scene(folder: Path, number: int, year: int, size: int) -> Path:
    """One date of a tile: patches of coca in forest, whose place depends on tile and year alone."""
    rng = np.random.default_rng([number, year])
    corner = Affine(10, 0, 600_000 + (number % 10) * size * 10, 0, -10, 300_000 - (number // 10) * size * 10)
    coca = np.kron(rng.random((size // 4, size // 4)) < 0.3, np.ones((4, 4))) > 0
    red = np.where(coca, 1500, 400) + rng.integers(0, 200, (size, size))
    nir = np.where(coca, 2500, 3500) + rng.integers(0, 200, (size, size))
    scl = np.full((size, size), 4)
    scl[rng.random((size, size)) < 0.05] = 9
    name = f"S2A_MSIL2A_{year}0715_{tile_id(number)}"
    scene = folder / tile_id(number) / name
    scene.mkdir(parents=True)
    for stem, data in (("B04", red), ("B08", nir), ("SCL", scl)):
        write_band(scene / f"{stem}.tif", data.astype("uint8" if stem == "SCL" else "uint16"), corner)
    (scene / "item.json").write_text(json.dumps(_item(name, year)))
    return scene


def write_band(path: Path, data: np.ndarray, transform: Affine, epsg: int = EPSG) -> None:
    profile = {"height": data.shape[0], "width": data.shape[1], "count": 1, "dtype": data.dtype, "nodata": 0}
    with rasterio.open(
        path, "w", driver="GTiff", crs=f"EPSG:{epsg}", transform=transform, compress="lzw", **profile
    ) as file:
        file.write(data, 1)


def _item(name: str, year: int) -> dict:
    raster = {"nodata": 0, "data_type": "uint16", "spatial_resolution": 10, "scale": 0.0001, "offset": 0}
    assets = {
        common: {
            "href": f"./{native}.tif",
            "eo:bands": [{"name": native, "common_name": common}],
            "raster:bands": [raster],
        }
        for native, common in BANDS.items()
    }
    assets["scl"] = {"href": "./SCL.tif", "raster:bands": [{"nodata": 0, "data_type": "uint8"}]}
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "links": [], "assets": assets,
        "properties": {
            "datetime": f"{year}-07-15T15:00:00Z", "platform": "sentinel-2a", "constellation": "sentinel-2",
            "s2:processing_baseline": "02.14", "s2:product_type": "S2MSI2A",
        },
    }  # fmt: skip


def write_checksums(archive: Path, tiles: list[str]) -> None:
    """``SHA256SUMS`` of the rasters of some tiles, as ``sha256sum`` writes it."""
    files = [file for tile in tiles for file in sorted((archive / tile).rglob("*.tif"))]
    lines = [f"{file_sha256(file)}  {file.relative_to(archive).as_posix()}\n" for file in files]
    (archive / "SHA256SUMS").write_text("".join(lines))


# --- ten ways in which a tile breaks; each returns words that its reason must hold ---------------------------


def truncated(tile: Path) -> str:
    path = _band(tile)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return "B04.tif"


def flipped_bit(tile: Path) -> str:
    path = _band(tile)
    data = bytearray(path.read_bytes())
    data[-40] ^= 4
    path.write_bytes(data)
    return "B04.tif"


def wrong_crs(tile: Path) -> str:
    path = _band(tile)
    with rasterio.open(path) as file:
        data, transform = file.read(1), file.transform
    write_band(path, data, transform, epsg=32619)
    return "32619"


def missing_band(tile: Path) -> str:
    _band(tile).unlink()
    return "B04|red"


def missing_metadata(tile: Path) -> str:
    for path in tile.glob("*/item.json"):
        path.unlink()
    return "item.json|scale|date|scene"


def all_cloud(tile: Path) -> str:
    for path in tile.glob("*/SCL.tif"):
        with rasterio.open(path) as file:
            data, transform = file.read(1), file.transform
        write_band(path, np.full_like(data, 9), transform)
    return "clear pixel"


def wrong_size(tile: Path) -> str:
    path = _band(tile)
    with rasterio.open(path) as file:
        data, transform = file.read(1), file.transform
    write_band(path, data[:-5, :-3], transform)
    return "B04.tif"


def html_instead(tile: Path) -> str:
    _band(tile).write_text("<html><body>503 Service Unavailable</body></html>")
    return "B04.tif"


def no_permission(tile: Path) -> str:
    _band(tile).chmod(0)
    return "B04.tif"


def zero_bytes(tile: Path) -> str:
    _band(tile).write_bytes(b"")
    return "B04.tif"


BREAKS = (
    truncated, flipped_bit, wrong_crs, missing_band, missing_metadata, all_cloud, wrong_size, html_instead, no_permission,
    zero_bytes,
)  # fmt: skip


def _band(tile: Path) -> Path:
    return sorted(tile.glob("*/B04.tif"))[0]


# --- running and comparing -----------------------------------------------------------------------------------


def command(archive: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "geococa.cli", "-q", "run", str(archive), "--recipe", str(archive / "recipe.toml"),
        "--out", str(out), *more,
    ]  # fmt: skip


def tell(text: str) -> None:
    """Say what a slow proof found (shown by ``pytest -s``)."""
    sys.stdout.write(f"\n{text}\n")


def run(archive: Path, out: Path, *more: str, **how) -> subprocess.CompletedProcess:
    return subprocess.run(command(archive, out, *more), capture_output=True, text=True, timeout=1100, cwd=ROOT, **how)


def results(out: Path) -> dict[str, str]:
    """Checksum of every file under its final name; the ledger and what is hidden are no results."""
    return {
        path.relative_to(out).as_posix(): file_sha256(path)
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(out).parts)
        and not path.name.startswith("ledger.sqlite")
    }


def copy_of(archive: Path, target: Path) -> Path:
    shutil.copytree(archive, target, copy_function=shutil.copy2)
    return target
