"""Commands for archives and finished runs: what is there, checked again, run again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geococa.command_parts import PATH, Command, json_option, known_output, print_files, print_table

__all__ = ["catalog", "find", "mosaic", "repeat", "verify"]


@click.command(cls=Command)
@click.argument("archive")
@click.option("--pattern", help="Shell-style pattern of tile ids, such as '18N*'.")
@click.option("--sensor", help="Sensor, where no metadata say it.")
@click.option("--collection", "collections", multiple=True, help="Collection of a STAC API to search.")
@click.option("--bbox", nargs=4, type=float, help="West, south, east and north in degrees, for a STAC API.")
@click.option("--dates", help="Dates for a STAC API, such as 2020-01-01/2024-12-31.")
@click.option("--save", type=PATH, help="Item collection (JSON) to write what a STAC API finds to.")
@click.option(
    "--allow-net", "hosts", multiple=True, metavar="HOST", help="Host that may be spoken to; none by default."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def find(
    archive: str,
    pattern: str | None,
    sensor: str | None,
    collections: tuple[str, ...],
    bbox: tuple[float, float, float, float] | None,
    dates: str | None,
    save: Path | None,
    hosts: tuple[str, ...],
    as_json: bool,
) -> None:
    """List the tiles of an archive: a folder, a STAC catalog or table, tar files, Zarr stores; or search a STAC API.

    Example:  geococa find sample_tiles
              geococa find https://stac.example.org/v1 --allow-net stac.example.org --collection sentinel-2-l2a
              --bbox -73 2 -72 3 --dates 2020-01-01/2020-12-31 --save items.json
    """
    import pandas as pd

    from geococa.tiles import find_tiles

    place: str | Path = archive
    if archive.startswith(("http://", "https://")):
        from geococa.stac_search import search_stac

        if save is None:
            raise click.UsageError("--save names the file that the items found are written to")
        place = search_stac(archive, save, collections=collections, bbox=bbox or None, dates=dates, allow_net=hosts)
        click.echo(f"wrote {place}", err=True)
    tiles = find_tiles(place, pattern=pattern, sensor=sensor, allow_net=hosts)
    rows = [
        {
            "tile": tile.tile,
            "sensor": tile.sensor,
            "crs": tile.grid.crs.to_string(),
            "rows": tile.grid.shape[0],
            "columns": tile.grid.shape[1],
            "scenes": len(tile.scenes),
            "years": f"{tile.years[0]}-{tile.years[-1]}",
        }
        for tile in tiles
    ]
    print_table(pd.DataFrame(rows), as_json)


@click.command(cls=Command)
@click.argument("out", type=PATH)
@click.option("--archive", type=PATH, help="Archive that the run was made from; its files are checked as well.")
@click.option("--quick", is_flag=True, help="Checksums only; the numbers are not computed again.")
@click.option("--json", "as_json", is_flag=True, help="Print all findings as JSON.")
@click.pass_context
def verify(ctx: click.Context, out: Path, archive: Path | None, quick: bool, as_json: bool) -> None:
    """Check a finished run again: outputs, inputs, the chain of hashes between them, and its numbers.

    Every output is held against its checksum, and tables and report are made again from the maps. With --archive every
    input is read again, and each table cell that was computed from a changed one is named.

    Example:  geococa verify out/run --archive sample_tiles
    """
    from geococa.verification import findings, verify_run

    known_output(out)
    found = verify_run(out, archive=archive, rebuild=not quick)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        for title, table in findings(found):
            click.echo(f"{title}\n{table.to_string(index=False)}\n")
    for problem in found.problems:
        click.echo(problem, err=True)
    click.echo(found.summary(), err=True)
    if not found.ok:
        ctx.exit(4)


@click.command(cls=Command)
@click.argument("manifest", type=PATH)
@click.argument("archive", type=PATH)
@click.option("--out", required=True, type=PATH, help="Output folder of the new run.")
@click.option(
    "--files", "folders", multiple=True, type=PATH, help="Folder with the recipe's files; the archive's by default."
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes over tiles.")
@json_option
@click.pass_context
def repeat(
    ctx: click.Context, manifest: Path, archive: Path, out: Path, folders: tuple[Path, ...], workers: int, as_json: bool
) -> None:
    """Run again from the manifest of a finished run, and compare every output byte for byte.

    Samples, zones and other files are found by name and must have the checksums that they had.

    Example:  geococa repeat out/run/manifest.json sample_tiles --out out/again
    """
    from geococa.archive import run_archive
    from geococa.verification import recipe_of_manifest, same_outputs

    recipe = recipe_of_manifest(manifest, [*folders, archive if archive.is_dir() else archive.parent])
    run_archive(archive, recipe, out=out, workers=workers)
    table = same_outputs(manifest.parent, out)
    wrong = table[table["status"] != "same"]
    if as_json or len(wrong):
        print_table(table if as_json else wrong, as_json)
    click.echo(f"{len(table) - len(wrong)} of {len(table)} outputs have the same bytes", err=True)
    if len(wrong):
        ctx.exit(4)


@click.command(cls=Command)
@click.argument("out", type=PATH)
@click.option("--crs", help="Coordinate reference system of the COGs; that of most tiles by default.")
@click.option("--vrt-only", is_flag=True, help="Write the VRTs, which take no room, and no COGs.")
@json_option
def mosaic(out: Path, crs: str | None, vrt_only: bool, as_json: bool) -> None:
    """Write one map a year of all tiles of a finished run: a VRT and a COG, for looking.

    Example:  geococa mosaic out/run
    """
    from geococa.mosaics import write_mosaics

    known_output(out)
    print_files(write_mosaics(out, crs=crs, cog=not vrt_only), as_json)


@click.command(cls=Command)
@click.argument("out", type=PATH)
@json_option
def catalog(out: Path, as_json: bool) -> None:
    """Write a STAC catalog of a finished run, with classes, checksums and lineage.

    Example:  geococa catalog out/run
    """
    from geococa.output_catalog import write_catalog

    known_output(out)
    print_files([write_catalog(out)], as_json)
