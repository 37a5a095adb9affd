"""What a run leaves for people: tables, comparison with truth and samples, the report, public files."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pandas as pd
import xarray as xr

from geococa.areas import areas_table
from geococa.assessment import Assessment, assess_run
from geococa.backscatter import radar_files
from geococa.coca_plots import trace_plots
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.ground import ground_inputs
from geococa.ledger import file_sha256
from geococa.publish import publish
from geococa.recipe import Recipe
from geococa.recipe_files import files_of_recipe, recipe_files
from geococa.report import write_report
from geococa.run_estimates import ESTIMATE_TABLES, run_estimates
from geococa.run_folder import (
    CHANGE_TABLES,
    TileMaps,
    TilePictures,
    areas_from_table,
    find_maps,
    own_ground,
    read_manifest,
    read_maps,
    write_plots,
    write_table,
    write_text,
    write_zones,
)
from geococa.samples import read_samples
from geococa.trends import area_trend
from geococa.zones import own_tiles, valid_footprint

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = [
    "Outputs",
    "compare_with_truth",
    "provenance",
    "publish_run",
    "read_published",
    "rewrite_report",
    "write_outputs",
]

PACKAGES = ("geococa", "numpy", "numba", "rasterio", "shapely", "pyproj", "xarray", "pandas", "scipy", "scikit-learn")
"""Packages whose versions a result may depend on."""


@dataclass
class Outputs:
    """Tables and files of a run.

    Attributes
    ----------
    trends : pandas.DataFrame
        One row a zone (`geococa.area_trend`).
    truth : pandas.DataFrame or None
        ``zone, year, area_ha, true_ha, error_ha, error_percent``, for simulated archives.
    assessment : Assessment or None
        Accuracy and hectares with intervals from the reference sample.
    report : pathlib.Path
        The report.
    class_name : str
        Class reported.
    files : list of pathlib.Path
        Every file written.
    """

    trends: pd.DataFrame
    truth: pd.DataFrame | None
    assessment: Assessment | None
    report: Path
    class_name: str
    files: list[Path] = field(default_factory=list)

    def text(self) -> str:
        """Tables for the terminal."""
        parts = []
        if self.truth is not None:
            shown = self.truth.rename(columns={"area_ha": "mapped_ha"})
            parts.append("Mapped against true hectares (simulated landscape)\n" + _to_text(shown))
        if self.assessment is not None:
            whole = self.assessment.classes
            whole = whole[whole["class"] == self.class_name]
            figures = ["year", "area_ha", "ci_low_ha", "ci_high_ha", "users_accuracy", "producers_accuracy"]
            parts.append(
                f"{self.class_name} estimated from the reference sample, whole archive\n" + _to_text(whole[figures])
            )
            zones = self.assessment.zones
            zones = zones[zones["status"] != "not estimable"]
            if len(zones):
                parts.append(f"{self.class_name} estimated for each zone with enough samples\n" + _to_text(zones))
        columns = ["zone", "slope_ha_per_year", "slope_low", "slope_high", "p_value", "n_years", "verdict"]
        parts.append("Trend\n" + _to_text(self.trends[columns]))
        return "\n\n".join(parts)


def _to_text(table: pd.DataFrame) -> str:
    return table.to_string(index=False, float_format=lambda value: f"{value:.3f}")


def write_outputs(
    folder: Path,
    areas: xr.Dataset,
    recipe: Recipe,
    zones: GeoDataFrame,
    *,
    maps: Mapping[str, Mapping[int, Path]],
    inputs: Mapping[str, list[str]],
    failed: Mapping[str, str],
    ages: pd.DataFrame | None = None,
    fractions: xr.Dataset | None = None,
    change: Mapping[str, pd.DataFrame] | None = None,
    plots: GeoDataFrame | None = None,
    skill: pd.DataFrame | None = None,
) -> Outputs:
    """Write tables, report and manifest of a run.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder.
    areas : xarray.Dataset
        Merged hectares.
    recipe, zones
        What they were made with.
    maps : mapping
        Land-cover file of each tile and year.
    inputs : mapping
        Product ids of each tile.
    failed : mapping
        Reason of each failed tile.
    ages : pandas.DataFrame, optional
        Hectares by zone, year and age of the image (`geococa.image_ages`).
    fractions : xarray.Dataset, optional
        Merged hectares of the class reported from its area fractions, and of all else.
    change : mapping, optional
        Change tables by name (`geococa.change_tables.merge_tables`), where the recipe asks for them.
    plots : geopandas.GeoDataFrame, optional
        Plots followed over the years, where the recipe asks for them.
    skill : pandas.DataFrame, optional
        The cross-validated model beside its nulls (`geococa.run_estimates.skill_of_run`).
    """
    name = recipe.areas.class_name
    # a year in which nothing of a zone was seen is missing, not zero
    series = areas["area_ha"].sel(land_cover=name).where(areas["area_ha"].sum("land_cover") > 0)
    trends = area_trend(series, test=recipe.trends.test, confidence=recipe.trends.confidence)
    truth = compare_with_truth(areas, recipe.assessment.truth, name) if recipe.assessment.truth else None
    pictures = TileMaps(maps)
    assessment = samples = None
    if recipe.assessment.samples is not None and pictures:
        samples = read_samples(recipe.assessment.samples)
        assessment = assess_run(samples, pictures, areas, zones, name)
    files = [*write_table(areas_table(areas), folder / "areas"), *write_table(trends, folder / "trends")]
    if fractions is not None:
        files += write_table(areas_table(fractions), folder / "fraction_areas")
    if ages is not None:
        files += write_table(ages, folder / "image_ages")
    files += _write_change(folder, change or {}, plots)
    if recipe.report.reference is not None:
        files += write_table(read_published(recipe.report.reference), folder / "published")
    if truth is not None:
        files += write_table(truth, folder / "truth_comparison")
    if assessment is not None:
        files += write_table(assessment.classes, folder / "accuracy")
        files += write_table(assessment.zones, folder / "zone_estimates")
        matrices = [
            table.rename_axis("map").reset_index().assign(year=year) for year, table in assessment.matrices.items()
        ]
        files += write_table(
            pd.concat(matrices, ignore_index=True).rename_axis(columns=None), folder / "error_matrices"
        )
    estimates = run_estimates(recipe, samples, None if assessment is None else assessment.direct, areas, zones, ages)
    files += _write_estimates(folder, estimates | ({} if skill is None else {"skill": skill}))
    files.append(write_zones(zones, folder / "zones.parquet"))
    manifest = {
        "made_with": provenance(),
        "recipe": recipe.settings(),
        "model_sha256": file_sha256(folder / "model.geococa"),
        "zones_sha256": file_sha256(recipe.zones.path) if recipe.zones.path else None,
        "scenes": {tile: list(scenes) for tile, scenes in inputs.items()},
        "failed": dict(failed),
        "recipe_files": recipe_files(files_of_recipe(recipe)),
    }
    if ground := ground_inputs(recipe):
        manifest["features_sha256"] = ground
    if recipe.sar.path is not None:
        manifest["radar"] = {tile: [file.name for file in radar_files(recipe.sar.path, tile)] for tile in inputs}
    files.append(write_text(folder / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n"))
    report = rewrite_report(folder, folder / "report.html", language=recipe.report.language, pictures=pictures)
    return Outputs(trends, truth, assessment, report, name, [*files, report])


def _write_estimates(folder: Path, tables: Mapping[str, pd.DataFrame]) -> list[Path]:
    """Write estimates, and take away those of an earlier run that this one does not have."""
    files = [path for name, table in tables.items() for path in write_table(table, folder / name)]
    for path in (folder / f"{name}.{kind}" for name in ESTIMATE_TABLES for kind in ("csv", "parquet")):
        if path not in files:
            path.unlink(missing_ok=True)
    return files


def _write_change(folder: Path, tables: Mapping[str, pd.DataFrame], plots: GeoDataFrame | None) -> list[Path]:
    """Write change tables and plots, and take away those of an earlier run that this one was not asked for."""
    files = [path for name, table in tables.items() for path in write_table(table, folder / name)]
    if plots is not None:
        files += write_plots(plots, folder / "plots")
    possible = [folder / f"{name}.{kind}" for name in CHANGE_TABLES for kind in ("csv", "parquet")]
    for path in [*possible, folder / "plots.gpkg", folder / "plots.parquet"]:
        if path not in files:
            path.unlink(missing_ok=True)
    return files


def rewrite_report(
    folder: Path,
    path: Path,
    *,
    language: Literal["en", "es"] = "en",
    pictures: Mapping[str, xr.DataArray] | None = None,
) -> Path:
    """Write the report of a finished run from the files in its folder.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of a run.
    path : pathlib.Path
        File to write.
    language : {"en", "es"}
        Language it opens in.
    pictures : mapping, optional
        Yearly maps of each tile, where they are in memory already.

    Raises
    ------
    InputRefused
        The folder is not that of a finished run.
    """
    import geopandas

    manifest = read_manifest(folder)
    recipe = Recipe.model_validate(manifest["recipe"])
    zones = geopandas.read_parquet(folder / "zones.parquet")
    table = pd.read_parquet(folder / "areas.parquet")
    if pictures is None:
        pictures = TileMaps(find_maps(folder, manifest))

    def optional(name: str) -> pd.DataFrame | None:
        file = folder / f"{name}.parquet"
        return pd.read_parquet(file) if file.is_file() else None

    return write_report(
        areas_from_table(table),
        pd.read_parquet(folder / "trends.parquet"),
        path,
        maps=pictures or None,
        pictures=TilePictures(folder / "maps", pictures),
        zones=zones,
        truth=optional("truth_comparison"),
        accuracy=optional("accuracy"),
        matrices=_matrices(optional("error_matrices")),
        intervals=optional("zone_estimates"),
        reference=optional("published") if recipe.report.reference is not None else None,
        transitions=_involved(optional("transitions"), recipe.areas.class_name),
        estimates={name: found for name in ESTIMATE_TABLES if (found := optional(name)) is not None},
        provenance=manifest,
        title=recipe.report.title,
        class_name=recipe.areas.class_name,
        language=language,
        min_observed_share=recipe.areas.min_observed_share,
    )


def read_published(path: Path) -> pd.DataFrame:
    """Published hectares to show beside the run's own: a CSV with zone, year, area_ha, perhaps low_ha, high_ha, source."""
    table = pd.read_csv(path).rename(columns={"park": "zone"})
    missing = [name for name in ("zone", "year", "area_ha") if name not in table.columns]
    if missing:
        raise InputRefused(
            f"{path} lacks the columns {missing}, has {list(map(str, table.columns))}; expected zone, year, area_ha, and "
            "perhaps low_ha, high_ha and source"
        )
    kept = ["zone", "year", "area_ha", *(name for name in ("low_ha", "high_ha", "source") if name in table.columns)]
    return table[kept].astype({"zone": str})


def _involved(table: pd.DataFrame | None, name: str) -> pd.DataFrame | None:
    """Transitions from or to a class, for the report."""
    return None if table is None else table[(table["from"] == name) != (table["to"] == name)]


def _matrices(table: pd.DataFrame | None) -> dict[int, pd.DataFrame] | None:
    if table is None:
        return None
    return {int(str(year)): part.drop(columns="year").set_index("map") for year, part in table.groupby("year")}


def publish_run(
    folder: Path, target: Path, *, minimum_plots: int = 5, cell_km: int = 1, include_plots: bool = False
) -> list[Path]:
    """Write the public files of a finished run: coarse cells and zone totals with noise that give no plot away.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of a run.
    target : pathlib.Path
        Folder for the public files.
    minimum_plots : int
        Cells and zones with fewer plots have no hectares.
    cell_km : int
        Side of a cell in whole kilometres.
    include_plots : bool
        Also write plot outlines, marked as restricted.

    Returns
    -------
    list of pathlib.Path
    """
    import geopandas

    manifest = read_manifest(folder)
    recipe = Recipe.model_validate(manifest["recipe"])
    maps = {tile: read_maps(paths) for tile, paths in find_maps(folder, manifest).items()}
    own = _owned_only(maps)
    name = recipe.areas.class_name
    plots = None
    if include_plots:
        traced = [trace_plots(land_cover, class_name=name) for land_cover in own.values()]
        plots = pd.concat([part.to_crs("EPSG:4326") for part in traced], ignore_index=True)
    areas = areas_from_table(pd.read_parquet(folder / "areas.parquet"))
    return publish(
        areas,
        target,
        plots=plots,
        land_cover=own or None,
        zones=geopandas.read_parquet(folder / "zones.parquet"),
        class_name=name,
        k=minimum_plots,
        cell_km=cell_km,
        include_plots=include_plots,
    )


def _owned_only(maps: Mapping[str, xr.DataArray], strip: int = 512) -> dict[str, xr.DataArray]:
    """Blank the ground of each tile's map that another tile owns, so that no patch is counted twice.

    As in the run itself, ground belongs to a tile that saw it.
    """
    grids = {tile: Grid.from_xarray(land_cover) for tile, land_cover in maps.items()}
    seen = {tile: valid_footprint(land_cover) for tile, land_cover in maps.items()} if len(maps) > 1 else None
    owners = own_tiles(grids, footprints=seen)
    return {tile: own_ground(land_cover, owners, tile, strip=strip) for tile, land_cover in maps.items()}


def compare_with_truth(areas: xr.Dataset, path: Path, class_name: str) -> pd.DataFrame:
    """Mapped against true hectares of a class, per zone and year.

    Parameters
    ----------
    areas : xarray.Dataset
        From `geococa.zonal_area`.
    path : pathlib.Path
        Table with columns ``park`` (or ``zone``), ``year``, ``class`` and ``area_ha``.
    class_name : str
        Class compared.

    Returns
    -------
    pandas.DataFrame
        ``zone, year, area_ha, true_ha, error_ha, error_percent`` (NaN where the truth is 0).
    """
    truth = pd.read_csv(path).rename(columns={"park": "zone", "class": "land_cover"})
    missing = {"zone", "year", "land_cover", "area_ha"} - set(truth.columns)
    if missing:
        raise InputRefused(f"{path} lacks the columns {sorted(missing)}; expected park, year, class, area_ha")
    # only what lies inside the tiles can be mapped
    column = "inside_ha" if "inside_ha" in truth else "area_ha"
    truth = truth[truth["land_cover"] == class_name].assign(true_ha=truth[column])
    mapped = areas["area_ha"].sel(land_cover=class_name, drop=True).to_dataframe().reset_index()
    mapped["year"] = mapped.pop("time").dt.year
    both = mapped.merge(truth[["zone", "year", "true_ha"]], on=["zone", "year"], how="left")
    both["error_ha"] = both["area_ha"] - both["true_ha"]
    both["error_percent"] = 100 * both["error_ha"] / both["true_ha"].where(both["true_ha"] > 0)
    return both[["zone", "year", "area_ha", "true_ha", "error_ha", "error_percent"]].sort_values(
        ["zone", "year"], ignore_index=True
    )


def provenance() -> dict[str, str]:
    """Versions of the packages that results depend on, with Python, GDAL and PROJ."""
    import pyproj
    import rasterio

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | {"gdal": rasterio.__gdal_version__, "proj": pyproj.proj_version_str}
