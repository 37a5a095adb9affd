"""STAC catalog of what a run left: an item for every tile and year, with classes, checksums and lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyproj

from geococa._checks import optional_import
from geococa.ledger import file_sha256
from geococa.legend import Legend
from geococa.provenance import read_provenance
from geococa.rasters import Header, crs_of, read_header
from geococa.recipe import Recipe
from geococa.run_folder import find_maps, read_manifest, write_text
from geococa.tiles import read_raster

__all__ = ["write_catalog"]

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_TABLES = {
    ".csv": "text/csv",
    ".parquet": "application/vnd.apache.parquet",
    ".html": "text/html",
    ".json": "application/json",
}
_SHA256 = "1220"
"""Multihash prefix of a SHA-256, see the STAC file extension."""


def write_catalog(folder: Path) -> Path:
    """Write a STAC catalog of a finished run: ``catalog.json`` and ``stac/``.

    Links are relative, so the folder can be moved or served as it is. The same run gives the same bytes.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of a run.

    Returns
    -------
    pathlib.Path
        ``catalog.json``.

    Raises
    ------
    InputRefused
        The folder is not that of a finished run.
    MissingExtra
        pystac is not installed.

    References
    ----------
    STAC 1.1 with the extensions projection 2.0, raster 2.0, file 2.1, classification 2.0 and processing 1.2.
    """
    pystac = optional_import("pystac", "stac")
    manifest, chain = read_manifest(folder), read_provenance(folder)
    recipe = Recipe.model_validate(manifest["recipe"])
    catalog = pystac.Catalog("geococa", f"{recipe.report.title}. Maps, tables and report of a run of geococa.")
    items = []
    for tile, files in find_maps(folder, manifest).items():
        items += [_item(pystac, folder, manifest, chain, tile, year, path) for year, path in sorted(files.items())]
    years = chain["years"]
    boxes = [item.bbox for item in items] or [[-180.0, -90.0, 180.0, 90.0]]
    whole = [min(b[0] for b in boxes), min(b[1] for b in boxes), max(b[2] for b in boxes), max(b[3] for b in boxes)]
    first, last = (
        pystac.utils.str_to_datetime(f"{years[0]}-01-01T00:00:00Z"),
        pystac.utils.str_to_datetime(f"{years[-1]}-12-31T23:59:59Z"),
    )
    collection = pystac.Collection(
        "land-cover",
        "Yearly land cover of every tile; hectares by zone and year in the tables.",
        pystac.Extent(pystac.SpatialExtent([whole]), pystac.TemporalExtent([[first, last]])),
        license="other",
        title=recipe.report.title,
    )
    for name in sorted(chain["outputs"]):
        path = folder / name
        if path.suffix in _TABLES and path.is_file():
            collection.add_asset(
                name, _asset(pystac, path, f"../{name}", _TABLES[path.suffix], ["metadata"], path.stem)
            )
            collection.assets[name].extra_fields.update(_checksum(path))
    catalog.add_child(collection)
    collection.add_items(items)
    return _save(pystac, folder, catalog, collection, items)


def _save(pystac: Any, folder: Path, catalog: Any, collection: Any, items: list[Any]) -> Path:
    """Write the documents where their links say, without absolute paths."""
    place = folder / "stac"
    place.mkdir(exist_ok=True)
    base = "/catalog"  # a name for the folder, so that links come out relative to it
    catalog.set_self_href(f"{base}/catalog.json")
    collection.set_self_href(f"{base}/stac/collection.json")
    for item in items:
        item.set_self_href(f"{base}/stac/{item.id}.json")
    catalog.catalog_type = pystac.CatalogType.SELF_CONTAINED
    documents = [(folder / "catalog.json", catalog), (place / "collection.json", collection)]
    documents += [(place / f"{item.id}.json", item) for item in items]
    wanted = {path for path, _ in documents}
    for path in place.glob("*.json"):  # of a run with other tiles or years
        if path not in wanted:
            path.unlink()
    for path, thing in documents:
        text = json.dumps(thing.to_dict(include_self_link=False), indent=1, sort_keys=True, ensure_ascii=False)
        write_text(path, text + "\n")
    return folder / "catalog.json"


def _item(
    pystac: Any, folder: Path, manifest: Mapping[str, Any], chain: Mapping[str, Any], tile: str, year: int, path: Path
) -> Any:
    header = read_header(path)
    ring = _ring(header)
    xs, ys = [point[0] for point in ring], [point[1] for point in ring]
    start, end = (pystac.utils.str_to_datetime(f"{year}-{day}Z") for day in ("01-01T00:00:00", "12-31T23:59:59"))
    scenes = len(manifest["scenes"].get(tile, []))
    item = pystac.Item(
        f"{tile}_{year}",
        {"type": "Polygon", "coordinates": [ring]},
        [min(xs), min(ys), max(xs), max(ys)],
        None,
        {
            "title": f"Land cover of {tile} in {year}",
            "processing:software": {
                name: str(manifest["made_with"][name]) for name in ("geococa", "gdal") if name in manifest["made_with"]
            },
            "processing:lineage": f"Classified from {scenes} scenes of {tile}; recipe {chain['recipe_sha256'][:16]}, model "
            f"{chain['model_sha256'][:16]}, chain {chain['digests']['maps'][tile][str(year)]}",
            "gsd": abs(header.transform[0]) if crs_of(header.crs_wkt).is_projected else None,
        },
        start_datetime=start,
        end_datetime=end,
    )
    if item.properties["gsd"] is None:
        del item.properties["gsd"]
    item.stac_extensions = [
        f"https://stac-extensions.github.io/{name}/schema.json"
        for name in ("projection/v2.0.0", "raster/v2.0.0", "file/v2.1.0", "classification/v2.0.0", "processing/v1.2.0")
    ]
    item.properties |= _projection(header)
    for name in sorted(chain["tiles"][tile]["maps"][str(year)]):
        file = folder / "maps" / name
        layer = name.removesuffix(".tif").removeprefix(f"{tile}_{year}_")
        roles = ["data"] if layer == "land_cover" else ["data-mask"] if layer == "inside" else ["metadata"]
        asset = _asset(pystac, file, f"../maps/{name}", _COG, roles, layer.replace("_", " "))
        found = read_header(file)
        asset.extra_fields |= {"data_type": found.dtypes[0], **_checksum(file), **_nodata(found)}
        if layer == "land_cover":
            asset.extra_fields["classification:classes"] = _classes(file)
        item.add_asset(layer, asset)
    record = folder / "inputs" / f"{tile}.json"
    if record.is_file():
        inputs = _asset(
            pystac, record, f"../inputs/{tile}.json", "application/json", ["metadata"], "inputs with checksums"
        )
        inputs.extra_fields.update(_checksum(record))
        item.add_asset("inputs", inputs)
    return item


def _asset(pystac: Any, path: Path, href: str, kind: str, roles: list[str], title: str) -> Any:
    return pystac.Asset(
        href, title=title, media_type=kind, roles=roles, extra_fields={"file:size": path.stat().st_size}
    )


def _checksum(path: Path) -> dict[str, str]:
    return {"file:checksum": _SHA256 + file_sha256(path)}


def _nodata(header: Header) -> dict[str, Any]:
    value = header.nodata[0]
    if value is None:
        return {}
    return {"nodata": "nan" if value != value else int(value)}


def _classes(path: Path) -> list[dict[str, Any]]:
    legend = Legend.from_attrs(read_raster(path, window=(0, 1, 0, 1)).attrs)
    classes = [
        {
            "value": int(code),
            "name": name,
            "description": name.replace("_", " "),
            "color_hint": colour.lstrip("#").upper(),
        }
        for code, name, colour in zip(legend.codes, legend.names, legend.colors, strict=True)
    ]
    return [*classes, {"value": 255, "name": "not_observed", "description": "not observed", "nodata": True}]


def _projection(header: Header) -> dict[str, Any]:
    crs = crs_of(header.crs_wkt)
    code = crs.to_authority()
    named = {"proj:code": ":".join(code)} if code else {"proj:code": None, "proj:wkt2": header.crs_wkt}
    return {**named, "proj:shape": list(header.shape), "proj:transform": [*header.transform, 0.0, 0.0, 1.0]}


def _ring(header: Header) -> list[list[float]]:
    """Outline in longitude and latitude, counter-clockwise, with points along the edges."""
    left, bottom, right, top = header.grid.bounds
    steps = [i / 8 for i in range(8)]
    edge = [(left + s * (right - left), bottom) for s in steps] + [(right, bottom + s * (top - bottom)) for s in steps]
    edge += [(right - s * (right - left), top) for s in steps] + [(left, top - s * (top - bottom)) for s in steps]
    change = pyproj.Transformer.from_crs(crs_of(header.crs_wkt), "EPSG:4326", always_xy=True)
    ring = [[round(float(value), 9) for value in change.transform(x, y)] for x, y in edge]
    return [*ring, ring[0]]
