"""Commands around reference samples: draw them, label them on a page, settle the labels, assess a map by them."""

from __future__ import annotations

from pathlib import Path

import click

from geococa.command_parts import PATH, Command, json_option, print_files, print_table, read_land_cover

__all__ = ["assess", "sample", "settle", "sheet"]


@click.command(cls=Command)
@click.argument("land_cover", metavar="MAP", type=PATH)
@click.option("--count", default=600, show_default=True, type=click.IntRange(1), help="Number of sample points.")
@click.option(
    "--target-se",
    type=click.FloatRange(0, min_open=True),
    help="Draw as many points as this standard error of the class takes, hectares; in place of --count.",
)
@click.option("--land-cover", "class_name", default="coca", show_default=True, help="Class whose hectares matter.")
@click.option("--allocation", default="neyman", show_default=True, help="neyman, proportional, equal or floor.")
@click.option("--design", default="stratified", show_default=True, help="stratified, simple or systematic.")
@click.option("--zones", type=PATH, help="Polygons: draw within them only.")
@click.option("--name", help="Column that names the zones; recognised where not given.")
@click.option("--by-zone", is_flag=True, help="Every class of every zone is a stratum of its own.")
@click.option("--year", type=int, help="Year of the map: interpreters are then asked for the class in that year.")
@click.option("--seed", default=0, show_default=True, type=int, help="Seed of the draw.")
@click.option("--classes", help="Names of the codes, for maps that do not carry them: 1=coca,2=forest.")
@click.option(
    "--out",
    required=True,
    type=PATH,
    help="GeoPackage to write: points with stratum and inclusion probability.",
)
@json_option
def sample(
    land_cover: Path,
    count: int,
    target_se: float | None,
    class_name: str,
    allocation: str,
    design: str,
    zones: Path | None,
    name: str | None,
    by_zone: bool,
    year: int | None,
    seed: int,
    classes: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Draw a probability sample from a map, to be labelled by interpreters.

    Example:  geococa sample out/maps/18NXG_2024_land_cover.tif --count 600 --out points.gpkg
    """
    from geococa.accuracy import mapped_areas, sample_design, sample_size
    from geococa.legend import Legend
    from geococa.zones import read_zones

    labels = read_land_cover(land_cover, classes, None)
    _check_new_package(out)
    known = Legend.from_attrs(labels.attrs).names
    if design == "stratified" and (allocation == "neyman" or target_se is not None) and class_name not in known:
        raise click.UsageError(
            f"{land_cover} has no class {class_name!r}, only {', '.join(known)}; name it with --land-cover"
        )
    parks = None if zones is None else read_zones(zones, name=name)
    if target_se is not None:
        areas = mapped_areas(labels, zones=parks)
        units = sample_size(target_se, areas, allocation=allocation, target=class_name)
        count = int(units.sum())
        click.echo(f"{count} points for a standard error of {units.attrs['se_ha']:.1f} ha", err=True)
    points = sample_design(
        labels,
        count,
        allocation=allocation,
        design=design,
        seed=seed,
        target=class_name,
        zones=parks,
        by_zone=by_zone,
    )
    if year is not None:
        points.insert(1, "year", year)
    points.to_file(out, driver="GPKG", layer="samples")
    then = (
        f"wrote {len(points)} points to {out}; fill the empty label column, or label on a page from geococa sheet; then: "
        f"geococa assess MAP --samples {out}"
    )
    print_files([out], as_json, text=then)


@click.command(cls=Command)
@click.argument("tiles", nargs=-1, required=True, type=PATH)
@click.option("--samples", required=True, type=PATH, help="Points to label, as 'geococa sample' wrote them.")
@click.option("--recipe", type=PATH, help="How images are masked and composed; the defaults where not given.")
@click.option("--classes", required=True, help="Classes to choose from: coca,forest,pasture.")
@click.option("--bands", default="red,green,blue", show_default=True, help="Shown as red, green and blue.")
@click.option("--window", "window_m", default=400.0, show_default=True, help="Side of an image in metres.")
@click.option("--title", default="Response sheet", show_default=True, help="Name of the sheet.")
@click.option(
    "--only-open", is_flag=True, help="Only samples without a class: after 'geococa settle', those in dispute."
)
@click.option("--out", required=True, type=PATH, help="HTML file to write; it opens from disk and loads nothing.")
@json_option
def sheet(
    tiles: tuple[Path, ...],
    samples: Path,
    recipe: Path | None,
    classes: str,
    bands: str,
    window_m: float,
    title: str,
    only_open: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Write a page to label samples with: images of every year, buttons for the class, answers saved as CSV.

    Example:  geococa sheet sample_tiles/18NXG --samples points.gpkg --classes coca,forest,pasture --out sheet.html
    """
    from geococa.recipe import Recipe
    from geococa.response_sheets import write_response_sheet
    from geococa.samples import read_points
    from geococa.sheet_pictures import sample_pictures

    names = tuple(name.strip() for name in bands.split(","))
    if len(names) != 3:
        raise click.BadParameter(f"expected three bands such as red,green,blue, got {bands!r}")
    settings = Recipe.read(recipe) if recipe is not None else Recipe()
    points = read_points(samples)
    if only_open and "class" in points.columns:
        points = points[points["class"].isna() | (points["class"] == "")].reset_index(drop=True)
        if points.empty:
            raise click.UsageError(f"every sample of {samples} has a class; there is nothing left to label")
    pictures = sample_pictures(tiles, points, settings, names, window_m=window_m)
    kinds = [name.strip() for name in classes.split(",") if name.strip()]
    page = write_response_sheet(points, pictures, out, classes=kinds, bands=names, window_m=window_m, title=title)
    print_files([page], as_json)


@click.command(cls=Command)
@click.argument("samples", type=PATH)
@click.option(
    "--labels", multiple=True, required=True, type=PATH, help="What one interpreter answered; give it for each."
)
@click.option("--arbiter", type=PATH, help="Answers to the samples in dispute; they are final.")
@click.option(
    "--rule",
    default="unanimous",
    show_default=True,
    type=click.Choice(["unanimous", "majority"]),
    help="What settles a sample without the arbiter.",
)
@click.option("--class-column", help="Column with the answer; recognised where not given.")
@click.option("--out", required=True, type=PATH, help="GeoPackage to write: the sample with its settled labels.")
@click.option("--json", "as_json", is_flag=True, help="Print the agreement as JSON.")
def settle(
    samples: Path,
    labels: tuple[Path, ...],
    arbiter: Path | None,
    rule: str,
    class_column: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Read the labels of interpreters back, say how far they agree, and settle them; disputes are left for an arbiter.

    Example:  geococa settle points.gpkg --labels ana.csv --labels luz.csv --out labelled.gpkg
    """
    from geococa.interpretations import agreement, arbitrate, read_interpretation
    from geococa.samples import read_points

    _check_new_package(out)
    points = read_points(samples)
    answers = {path.stem: read_interpretation(path, points, class_column=class_column) for path in labels}
    if len(answers) < len(labels):
        raise click.UsageError("two label files have one name; the file name tells interpreters apart")
    final = None if arbiter is None else read_interpretation(arbiter, points, class_column=class_column)
    settled = arbitrate(points, answers, arbiter=final, rule=rule)
    settled.to_file(out, driver="GPKG", layer="samples")
    if len(answers) > 1:
        table = agreement(answers)
        print_table(table.reset_index(), as_json)
        click.echo(f"kappa is {table.attrs['kappa']}'s; {table.attrs['caution']}", err=True)
    open_ones = settled[settled["class"].isna()]
    disputes = int((settled["settled_by"] == "dispute").sum())
    click.echo(
        f"wrote {out}: {len(settled) - len(open_ones)} labelled, {disputes} in dispute, "
        f"{len(open_ones) - disputes} without a label",
        err=True,
    )


@click.command(cls=Command)
@click.argument("land_cover", metavar="MAP", type=PATH)
@click.option("--samples", required=True, type=PATH, help="Labelled points.")
@click.option("--class-column", default="class", show_default=True, help="Column with the reference class.")
@click.option("--year", type=int, help="Year of the map, where the samples are of several.")
@click.option("--zones", type=PATH, help="Polygons: hectares of the class for each, from the same sample.")
@click.option("--name", help="Column that names the zones; recognised where not given.")
@click.option("--land-cover", "class_name", default="coca", show_default=True, help="Class whose hectares matter.")
@click.option("--classes", help="Names of the codes, for maps that do not carry them: 1=coca,2=forest.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON rather than a table.")
def assess(
    land_cover: Path,
    samples: Path,
    class_column: str,
    year: int | None,
    zones: Path | None,
    name: str | None,
    class_name: str,
    classes: str | None,
    as_json: bool,
) -> None:
    """Accuracy of a map and design-based hectares with intervals, from labelled samples; of zones with --zones.

    Example:  geococa assess out/maps/18NXG_2024_land_cover.tif --samples points.gpkg
    """
    from geococa.assessment import assess_map, assess_zones
    from geococa.samples import read_samples
    from geococa.zones import read_zones

    labels = read_land_cover(land_cover, classes, None)
    points = read_samples(samples, class_column=class_column)
    if zones is None:
        print_table(assess_map(labels, points, class_name=class_name, year=year), as_json)
        return
    parks = read_zones(zones, name=name)
    print_table(assess_zones(labels, points, parks, class_name=class_name, year=year), as_json)


def _check_new_package(out: Path) -> None:
    """Refuse to write a GeoPackage over a file, or under a name that says another format; make its folder."""
    if out.exists():
        raise click.UsageError(f"{out} exists; choose another name")
    if out.suffix.lower() != ".gpkg":
        raise click.UsageError(f"{out} is to be a GeoPackage; give it a name that ends in .gpkg")
    out.parent.mkdir(parents=True, exist_ok=True)
