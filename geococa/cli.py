"""Command line: one subcommand is one public call; data on stdout, log and progress on stderr."""

from __future__ import annotations

import difflib
import json
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from geococa import __version__
from geococa.archive_commands import catalog, find, mosaic, repeat, verify
from geococa.command_parts import PATH, Command, json_option, naming, print_files, print_table, read_land_cover
from geococa.errors import GeococaError
from geococa.run_commands import FAILED_TILES, print_summary, run, status
from geococa.run_progress import show_progress
from geococa.sample_commands import assess, sample, settle, sheet

if TYPE_CHECKING:
    import pandas as pd

    from geococa.models import Model

INTERRUPTED = 130


class _Commands(click.Group):
    """A group that suggests the nearest command, keeps pipeline order, and turns errors into one line and a code."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else f" Commands: {', '.join(self.commands)}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GeococaError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; run the same command again to resume", err=True)
            ctx.exit(INTERRUPTED)


@click.group(
    "geococa", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="geococa")
@click.option("-v", "--verbose", count=True, help="Say more on stderr (twice: with tracebacks).")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.option(
    "--allow-net", "hosts", multiple=True, metavar="HOST", help="Host that files of STAC items may be read from."
)
@click.pass_context
def main(ctx: click.Context, verbose: int, quiet: bool, hosts: tuple[str, ...]) -> None:
    """Hectares of coca per national park and year from satellite tiles, with honest uncertainty and trend.

    Start with:  geococa demo --out out/demo
    """
    level = logging.ERROR if quiet else logging.WARNING - 10 * min(verbose, 2)
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(message)s")
    if hosts:
        from geococa.network import allow_net

        ctx.with_resource(allow_net(hosts))
    ctx.obj = {"quiet": quiet}


main.add_command(run)


@main.command()
@click.argument("archive", type=PATH)
@click.option("--recipe", required=True, type=PATH, help="Recipe file to write.")
@click.option("--zones", type=PATH, help="Park polygons to name in it.")
@click.option("--samples", type=PATH, help="Reference samples to name in it.")
@click.option("--overwrite", is_flag=True, help="Replace an existing recipe.")
@json_option
def init(archive: Path, recipe: Path, zones: Path | None, samples: Path | None, overwrite: bool, as_json: bool) -> None:
    """Look at an archive and write a commented recipe for it.

    Example:  geococa init sample_tiles --recipe my.toml --zones parks.gpkg --samples samples.gpkg
    """
    from geococa.preflight import propose_recipe

    propose_recipe(archive, recipe, zones=zones, samples=samples, overwrite=overwrite)
    then = f"wrote {recipe}; read it, then: geococa run {archive} --recipe {recipe} --out out"
    print_files([recipe], as_json, text=then)


@main.command()
@click.argument("archive", type=PATH)
@click.option("--recipe", required=True, type=PATH, help="Recipe to check.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def check(archive: Path, recipe: Path, as_json: bool) -> None:
    """Check a recipe against an archive before any work: settings, files, bands, years.

    Example:  geococa check sample_tiles --recipe sample_tiles/recipe.toml
    """
    from geococa.preflight import check_recipe

    print_table(check_recipe(archive, recipe), as_json)


@main.command()
@click.argument("archive", type=PATH)
@click.option("--recipe", required=True, type=PATH, help="Recipe whose [model] section is used.")
@click.option("--out", required=True, type=PATH, help="Model file to write.")
@click.option(
    "--cross-validate", "validate", is_flag=True, help="Test the method on spatial folds and print the result."
)
@click.option(
    "--tune", "trials", type=click.IntRange(1), help="Search the method's settings with so many trials first."
)
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
@click.pass_context
def train(
    ctx: click.Context,
    archive: Path,
    recipe: Path,
    out: Path,
    validate: bool,
    trials: int | None,
    as_json: bool,
) -> None:
    """Train a model from the recipe's samples and write it to a file.

    Folds, blocks and buffer are those of the recipe's [model] section; 5 folds where it has none.

    Example:  geococa train sample_tiles --recipe sample_tiles/recipe.toml --out coca.model --cross-validate
    """
    from geococa.archive import training_rows
    from geococa.models import train as train_method
    from geococa.recipe import Recipe

    if out.is_dir():
        raise click.UsageError(f"--out {out} is a folder; name a file in it")
    settings = Recipe.read(recipe)
    method, options = settings.model.method, dict(settings.model.options)
    how: dict[str, Any] = {
        "method": method,
        "folds": settings.model.folds or 5,
        "block_m": settings.model.block_m,
        "buffer_m": settings.model.buffer_m,
        "seed": settings.model.seed,
        "positive": settings.areas.class_name,
    }
    tables: dict[str, pd.DataFrame] = {}
    with show_progress(ctx.obj["quiet"]) as progress:
        table, names = training_rows(archive, settings, progress=progress)
        if trials:
            from geococa.tuning import tune

            found = tune(table, names, trials=trials, progress=progress, **{**options, **how})
            options = dict(found.settings)
            tables[f"trials ({found.metric}, mean over folds; chosen by {found.rule})"] = found.trials.reset_index()
        if trials and settings.model.calibration == "none":
            model = found.model
        else:
            model = train_method(
                table,
                names,
                method=method,
                seed=settings.model.seed,
                calibration=settings.model.calibration,
                **options,
            )
        if validate:
            from geococa.validation import cross_validate

            tested = cross_validate(table, names, progress=progress, **{**options, **how})
            tables["folds"], tables["classes"] = tested.by_fold.reset_index(), tested.by_class.reset_index()
            tables["error matrix (rows = predicted, columns = reference)"] = tested.matrix().reset_index()
    model.write(out)
    _print_training(tables, as_json, out, model)
    if trials and validate and not ctx.obj["quiet"]:
        click.echo("the settings were chosen on these folds: their scores are a little too good", err=True)


@main.command()
@click.argument("tile", type=PATH)
@click.option("--recipe", required=True, type=PATH, help="Settings of every stage.")
@click.option("--model", required=True, type=PATH, help="Model file from 'geococa train'.")
@click.option("--out", required=True, type=PATH, help="Folder for one land-cover COG a year.")
@click.option("--threads", type=click.IntRange(1), help="Threads; by default one a processor.")
@json_option
def classify(tile: Path, recipe: Path, model: Path, out: Path, threads: int | None, as_json: bool) -> None:
    """Classify one tile: one land-cover COG a year.

    Example:  geococa classify sample_tiles/18NXG --recipe sample_tiles/recipe.toml --model coca.model --out maps
    """
    from geococa.models import read_model
    from geococa.pipeline import run_tile
    from geococa.recipe import Recipe

    result = run_tile(tile, Recipe.read(recipe), read_model(model), out, threads=threads)
    print_files(result.maps.values(), as_json)


@main.command()
@click.argument("land_cover", metavar="MAP", type=PATH)
@click.option(
    "--zones",
    required=True,
    type=PATH,
    help="Polygons: GeoPackage, GeoJSON, Shapefile, FlatGeobuf, GeoParquet.",
)
@click.option("--name", help="Column that names the zones; recognised where not given.")
@click.option("--layer", help="Layer of the zone file, where several could be the zones.")
@click.option(
    "--duplicates",
    default="refuse",
    show_default=True,
    type=click.Choice(["refuse", "number", "dissolve"]),
    help="What to do with a zone name that occurs twice.",
)
@click.option("--classes", help="Names of the codes, for maps that do not carry them: 1=coca,2=forest.")
@click.option("--nodata", type=int, help="Code that means not observed, for maps that do not say.")
@click.option("--area", default="ellipsoidal", show_default=True, help="ellipsoidal, or planar:EPSG:32618.")
@click.option(
    "--method",
    default="exact",
    show_default=True,
    type=click.Choice(["exact", "centre"]),
    help="Cells count with their share in the zone, or whole by their centre as in older tools.",
)
@click.option(
    "--min-observed",
    type=click.FloatRange(0, 1),
    help="Give no table where less than this share of a zone was observed, such as 0.7.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON rather than CSV.")
def areas(
    land_cover: Path,
    zones: Path,
    name: str | None,
    layer: str | None,
    duplicates: Literal["refuse", "number", "dissolve"],
    classes: str | None,
    nodata: int | None,
    area: str,
    method: Literal["exact", "centre"],
    min_observed: float | None,
    as_json: bool,
) -> None:
    """Hectares of every class in every zone, of any classified raster.

    Example:  geococa areas map.tif --zones parks.gpkg --name park --classes 1=coca,2=forest
    """
    from geococa.areas import areas_table, require_observed, zonal_area
    from geococa.grid import Grid
    from geococa.zones import coverage_fraction, read_zones

    labels = read_land_cover(land_cover, classes, nodata)
    ground = read_zones(zones, name=name, layer=layer, duplicates=duplicates)
    found = zonal_area(labels, coverage_fraction(ground, Grid.from_xarray(labels)), area=area, method=method)
    if min_observed is not None:
        require_observed(found, min_observed)
    print_table(areas_table(found), as_json, csv=True)


for _command in (sample, sheet, settle, assess):
    main.add_command(_command)


@main.command()
@click.argument("table", type=PATH)
@click.option("--value", default="area_ha", show_default=True, help="Column with the hectares.")
@click.option("--se", default="se_ha", show_default=True, help="Column with their standard errors, where there is one.")
@click.option("--zone", default=None, help="Column that names the zones [default: zone, park or code].")
@click.option(
    "--land-cover",
    "class_name",
    default="coca",
    show_default=True,
    help="Class, where the table has several.",
)
@click.option(
    "--by",
    type=click.Choice(["municipality", "department", "country"]),
    default="municipality",
    show_default=True,
    help="Sums to take of the raw municipal table.",
)
@click.option("--decimal", multiple=True, metavar="YEAR=MARK", help="Decimal mark of a year's column, such as 2020=,")
@click.option(
    "--test",
    default="auto",
    show_default=True,
    help="auto, mann_kendall, mann_kendall_normal, mann_kendall_ar1, ols, wls or gls.",
)
@click.option("--confidence", default=0.95, show_default=True, help="Level of the intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON rather than CSV.")
def trends(
    table: Path,
    value: str,
    se: str,
    zone: str | None,
    class_name: str,
    by: str,
    decimal: tuple[str, ...],
    test: str,
    confidence: float,
    as_json: bool,
) -> None:
    r"""Trend of every zone: slope with interval, test, bends and a verdict.

    TABLE has the columns zone, year and hectares, or a column for every year; the raw municipal table "Deteccion de
    cultivos de coca" is read as published; 'unodc' stands for the published national series. The verdict is growing,
    shrinking, stable or cannot tell; the column notice says what one line hides.

    \b
    Examples:  geococa trends out/areas.csv
               geococa trends municipal.csv --by department
               geococa trends unodc --json
    """
    from geococa.trend_tables import municipal_notes, read_trend_table, with_places
    from geococa.trends import area_trend

    marks = _decimal_marks(decimal)
    series = read_trend_table(table, value=value, se=se, zone=zone, class_name=class_name, by=by, decimal=marks)
    for note in municipal_notes(table, marks):
        click.echo(note, err=True)
    with naming(table):
        found = area_trend(series, value=value, se=se, zone=zone, test=test, confidence=confidence)
    print_table(with_places(found, series), as_json, csv=True)


def _decimal_marks(pairs: tuple[str, ...]) -> dict[str, str]:
    marks = {}
    for pair in pairs:
        year, _, mark = pair.partition("=")
        if mark not in (".", ","):
            raise click.BadParameter(f"expected --decimal YEAR=, or YEAR=. got {pair!r}")
        marks[year] = mark
    return marks


@main.command()
@click.argument("out", type=PATH)
@click.option(
    "--language",
    type=click.Choice(["en", "es"]),
    default="en",
    show_default=True,
    help="Language it opens in.",
)
@click.option("--to", "path", type=PATH, help="File to write; report.html in the folder by default.")
@json_option
def report(out: Path, language: str, path: Path | None, as_json: bool) -> None:
    """Write the report of a finished run again.

    Example:  geococa report out/run --language es --to informe.html
    """
    from geococa.outputs import rewrite_report

    made = rewrite_report(out, path or out / "report.html", language="es" if language == "es" else "en")
    print_files([made], as_json)


@main.command()
@click.argument("out", type=PATH)
@click.option("--to", "folder", required=True, type=PATH, help="Folder for the public files.")
@click.option(
    "--minimum-plots",
    default=5,
    show_default=True,
    type=click.IntRange(2),
    help="Cells with fewer plots are suppressed.",
)
@click.option(
    "--cell-km", default=1, show_default=True, type=click.IntRange(1), help="Side of a cell in whole kilometres."
)
@click.option("--include-plots", is_flag=True, help="Also export plot outlines, marked as restricted.")
@json_option
def publish(out: Path, folder: Path, minimum_plots: int, cell_km: int, include_plots: bool, as_json: bool) -> None:
    """Write public tables that give no plot away: cells of 1 km and zones with noise, small counts suppressed.

    Example:  geococa publish out/run --to public
    """
    from geococa.outputs import publish_run

    made = publish_run(out, folder, minimum_plots=minimum_plots, cell_km=cell_km, include_plots=include_plots)
    print_files(made, as_json)


for _command in (status, find, verify, repeat, mosaic, catalog):
    main.add_command(_command)


@main.command()
@click.argument("archive", type=PATH)
@click.option("--size", "size_m", default=2200.0, show_default=True, type=float, help="Side of a tile in metres.")
@click.option("--tiles", default=2, show_default=True, type=click.IntRange(1), help="Number of overlapping tiles.")
@click.option("--years", default="2018-2024", show_default=True, help="First and last year.")
@click.option("--dates-per-year", default=4, show_default=True, type=click.IntRange(1), help="Scenes a tile and year.")
@click.option(
    "--cloud-cover",
    default=0.4,
    show_default=True,
    type=click.FloatRange(0, 0.95),
    help="Mean share of cloud.",
)
@click.option("--seed", default=7, show_default=True, type=int, help="Same seed, same bytes.")
@click.option("--overwrite", is_flag=True, help="Replace an archive that is there.")
@json_option
def simulate(
    archive: Path,
    size_m: float,
    tiles: int,
    years: str,
    dates_per_year: int,
    cloud_cover: float,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write a simulated archive with its parks, samples and true hectares.

    Example:  geococa simulate my_archive --size 2000 --years 2018-2024 --seed 1
    """
    from geococa.synthetic import landscape, write_archive

    scene = landscape(
        size_m=size_m,
        tiles=tiles,
        years=_years(years),
        dates_per_year=dates_per_year,
        cloud_cover=cloud_cover,
        seed=seed,
    )
    print_files([write_archive(scene, archive, overwrite=overwrite)], as_json)


@main.command()
@click.option(
    "--archive",
    default=Path("sample_tiles"),
    show_default=True,
    type=PATH,
    help="Simulated archive; made where missing.",
)
@click.option("--out", default=Path("out/demo"), show_default=True, type=PATH, help="Output folder.")
@json_option
@click.pass_context
def demo(ctx: click.Context, archive: Path, out: Path, as_json: bool) -> None:
    """Run the main job on the simulated sample archive and compare with its truth.

    Example:  geococa demo --out out/demo
    """
    from geococa.archive import run_archive
    from geococa.recipe import Recipe

    if not archive.exists():
        from geococa.synthetic import landscape, write_archive

        click.echo(f"no archive at {archive}: simulating a small one there", err=True)
        write_archive(landscape(seed=7), archive)
    settings = Recipe.read(archive / "recipe.toml")
    # the demo shows what coca replaced, too
    settings = settings.model_copy(update={"change": settings.change.model_copy(update={"tables": True})})
    with show_progress(ctx.obj["quiet"]) as progress:
        result = run_archive(archive, settings, out=out, progress=progress)
    print_summary(result, as_json)
    if result.failed:
        ctx.exit(FAILED_TILES)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def versions(as_json: bool) -> None:
    """Print the versions that results depend on.

    Example:  geococa versions --json
    """
    from geococa.outputs import provenance

    found = provenance()
    click.echo(
        json.dumps(found, indent=2) if as_json else "\n".join(f"{name} {version}" for name, version in found.items())
    )


# What the commands share ------------------------------------------------------------------------------------------


def _years(text: str) -> range:
    first, _, last = text.partition("-")
    try:
        years = range(int(first), int(last or first) + 1)
    except ValueError:
        raise click.BadParameter(f"expected years such as 2018-2024, got {text!r}", param_hint="--years") from None
    if not years:
        raise click.BadParameter(f"the last year lies before the first: {text!r}", param_hint="--years")
    return years


def _print_training(tables: dict[str, pd.DataFrame], as_json: bool, out: Path, model: Model) -> None:
    """Print what a search and a cross-validation found, then where the model is."""
    if as_json:
        found = {name.split(" (")[0]: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        click.echo(json.dumps({"model": str(out), "classes_of_model": list(model.classes)} | found, indent=2))
        return
    for name, table in tables.items():
        shown = table.map(lambda value: "none" if value is None else "" if value != value else value).infer_objects()
        click.echo(f"{name}\n{shown.to_string(index=False, float_format='{:.3f}'.format)}\n")
    click.echo(f"wrote {out}: {model.kind}, {len(model.features)} features, classes {', '.join(model.classes)}")


if __name__ == "__main__":
    main()
