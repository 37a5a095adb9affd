"""What a run estimates beyond its maps: change from common points, small zones, the account at the cut-off date, skill."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa.cutoff import Hazards, cutoff_area, hazards_from_panel
from geococa.errors import AccuracyError, InputRefused
from geococa.panel_estimates import panel_area
from geococa.report_tables import overlap_area_ha
from geococa.skill import NULLS, add_history, skill_table
from geococa.small_areas import composite_area

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

    from geococa.recipe import Recipe

__all__ = [
    "ESTIMATE_TABLES", "account_table", "change_tables", "composite_table", "is_panel", "read_rows", "run_estimates",
    "skill_of_run", "validation_rows", "write_rows",
]  # fmt: skip

log = logging.getLogger("geococa")

ESTIMATE_TABLES = ("yearly_estimates", "change_estimates", "composite_estimates", "cutoff_account", "skill")
"""Tables that a run writes where it has what they need."""
_WHOLE = "all"


def is_panel(samples: pd.DataFrame) -> bool:
    """Whether the same points were looked at in several years, each in the stratum that it was drawn in."""
    name = next((one for one in ("point", "id") if one in samples.columns), None)
    if name is None or samples["year"].nunique() < 2 or samples.duplicated([name, "year"]).any():
        return False
    strata = samples.groupby(name)["stratum"].nunique().max() == 1
    areas = samples.groupby("stratum")["stratum_area_ha"].nunique().max() == 1
    return bool(strata and areas and samples[name].duplicated().any())


def run_estimates(
    recipe: Recipe,
    samples: GeoDataFrame | None,
    direct: pd.DataFrame | None,
    areas: xr.Dataset,
    zones: GeoDataFrame,
    ages: pd.DataFrame | None,
) -> dict[str, pd.DataFrame]:
    """Make every estimate that the inputs of a run allow.

    Parameters
    ----------
    recipe : Recipe
        Its sections ``[areas]``, ``[assessment]`` and ``[account]``.
    samples : geopandas.GeoDataFrame or None
        Reference sample with ``class``, ``year``, ``stratum``, ``stratum_area_ha``; change needs a panel.
    direct : pandas.DataFrame or None
        What each zone's own samples say, however few (``direct`` of `geococa.assessment.assess_run`).
    areas : xarray.Dataset
        Merged hectares of the maps.
    zones : geopandas.GeoDataFrame
        Zones as of `geococa.read_zones`.
    ages : pandas.DataFrame or None
        Hectares by zone, year and age of the image.

    Returns
    -------
    dict of str to pandas.DataFrame
        Some of `ESTIMATE_TABLES`; what can't be estimated is left out, and the log says why.
    """
    name = recipe.areas.class_name
    out: dict[str, pd.DataFrame] = {}
    panel = samples is not None and is_panel(samples)
    if samples is not None and panel:
        try:
            out["yearly_estimates"], out["change_estimates"] = change_tables(samples, areas, zones, name)
        except AccuracyError as error:
            log.warning("no change from common points: %s", error)
    if direct is not None and recipe.assessment.composite:
        table = composite_table(direct, areas, name)
        if len(table):
            out["composite_estimates"] = table
    if ages is not None and len(ages):
        try:
            account = account_table(recipe, ages, samples if panel else None, zones)
        except (AccuracyError, InputRefused) as error:
            log.warning("no account at the cut-off date: %s", error)
        else:
            if account is not None:
                out["cutoff_account"] = account
    return out


def change_tables(
    samples: GeoDataFrame, areas: xr.Dataset, zones: GeoDataFrame, class_name: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hectares of every year and their changes, for the whole ground of the sample and every zone with enough points."""
    inside: dict[str, Any] = {_WHOLE: None}
    for zone, shape in zip(zones["zone"], zones.geometry, strict=True):
        inside[str(zone)] = samples.geometry.to_crs(zones.crs).within(shape).to_numpy()
    known = (areas["zone_ha"] - areas["outside_ha"]).min("time")
    yearly, changes = [], []
    for zone, within in inside.items():
        hectares = None if within is None else float(known.sel(zone=zone))
        if hectares is not None and not hectares > 0:
            continue
        found = panel_area(samples, class_name=class_name, within=within, domain_area_ha=hectares)
        yearly.append(found.areas.reset_index().assign(zone=zone))
        changes.append(found.changes.assign(zone=zone))
    tables = []
    for parts in (yearly, changes):
        table = pd.concat(parts, ignore_index=True)
        table.insert(0, "zone", table.pop("zone"))
        tables.append(table)
    return tables[0], tables[1][tables[1]["change_ha"].notna()].reset_index(drop=True)


def composite_table(direct: pd.DataFrame, areas: xr.Dataset, class_name: str) -> pd.DataFrame:
    """Model-based hectares of every zone and year that has zones enough to learn from, see `geococa.small_areas`."""
    parts = []
    for year, rows in direct.groupby("year"):
        here = areas.sel(time=str(year)).isel(time=0)
        ground = (here["zone_ha"] - here["outside_ha"]).to_series()
        ground = ground[ground > 0]
        mapped = here["area_ha"].sel(land_cover=class_name).to_series()
        own = rows.set_index("zone")
        own = own[own.index.isin(ground.index)]
        try:
            table = composite_area(own[["area_ha", "se_ha", "n"]], ground, mapped.reindex(ground.index))
        except AccuracyError as error:
            log.info("no composite estimates for %s: %s", year, error)
            continue
        table = table.reset_index()
        table.insert(1, "year", year)
        parts.append(table)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def account_table(
    recipe: Recipe, ages: pd.DataFrame, samples: pd.DataFrame | None, zones: GeoDataFrame | None = None
) -> pd.DataFrame | None:
    """Account at the cut-off date with the rates of the recipe, or those of a panel of points; None without either.

    Where ``zones`` overlap there are no lines for all zones together: they would count the common ground twice.
    """
    settings = recipe.account
    if settings.planting_per_year is not None and settings.clearing_per_year is not None:
        rates = Hazards(
            settings.planting_per_year, settings.clearing_per_year, settings.planting_se, settings.clearing_se
        )
        origin = "given"
    elif samples is not None:
        rates, origin = hazards_from_panel(samples, class_name=recipe.areas.class_name), "from the reference sample"
    else:
        return None
    if not np.isfinite(ages["image_age_days"].to_numpy(dtype=float)).all():
        log.info("no account at the cut-off date: the age of some images is not known")
        return None
    table = cutoff_area(ages, rates, unseen=settings.unseen, unseen_relative_se=settings.unseen_relative_se)
    if zones is not None and overlap_area_ha(zones, list(map(str, zones["zone"]))) > 0:
        table = table[table["zone"] != "all zones"].reset_index(drop=True)
    return table.assign(
        planting_per_year=rates.planting_per_year, clearing_per_year=rates.clearing_per_year, rates=origin,
        basis="pixel counting, brought to the cut-off date",
    )  # fmt: skip


def skill_of_run(
    rows: pd.DataFrame, maps: Mapping[str, xr.DataArray], *, class_name: str, index: str, folds: int
) -> pd.DataFrame:
    """Score the cross-validated model beside its nulls on the same folds.

    Parameters
    ----------
    rows : pandas.DataFrame
        One row a tested sample: ``tile, row, col, year, x, y, class, predicted, fold``, ``train_1`` to ``train_k`` (whether
        the row trained that fold) and the index where the model had it.
    maps : mapping of str to xarray.DataArray
        Yearly maps of each tile, the history that persistence and the historical mean go by. They were made by a model that knew
        all samples and, where years inform each other, later years too: that favours the nulls, never the model.
    class_name, index : str
        Class in question, and the column that the index threshold is found for.
    folds : int
        Number of folds.

    Returns
    -------
    pandas.DataFrame
        As `geococa.skill_table` with ``competitor`` as a column, and ``whole_verdict``. Where no score exists, one row that says
        why: then no skill may be claimed.
    """
    parts = []
    for tile, part in rows.groupby("tile", sort=True):
        if str(tile) in maps:
            parts.append(add_history(part, maps[str(tile)], class_name=class_name))
    if not parts:
        return _no_skill("there are no maps of earlier years")
    table = pd.concat(parts)
    table = table.loc[sorted(table.index)].reset_index(drop=True)
    pairs = [
        (np.flatnonzero(table[f"train_{k}"].to_numpy(dtype=bool)), np.flatnonzero((table["fold"] == k).to_numpy()))
        for k in range(1, folds + 1)
    ]
    try:
        found = skill_table(table, pairs, class_name=class_name, index=index)
    except (AccuracyError, InputRefused) as error:
        return _no_skill(str(error))
    out = found.reset_index()
    out["whole_verdict"] = found.attrs["verdict"]
    out["n"] = found.attrs["n"]
    return out


def _no_skill(reason: str) -> pd.DataFrame:
    verdicts = ["not scored", *["not run"] * len(NULLS)]
    return pd.DataFrame(
        {"competitor": ["model", *NULLS], "verdict": verdicts, "whole_verdict": f"skill not shown: {reason}"}
    )


def validation_rows(table: pd.DataFrame, found: Any, index: str) -> pd.DataFrame:
    """Rows of a cross-validation that `skill_of_run` needs: place, year, reference, out-of-fold label, fold, sides."""
    tested = found.predictions
    columns = [name for name in ("tile", "row", "col", "year", "x", "y", index) if name in table.columns]
    rows = table.loc[tested.index, columns].copy()
    for name in ("class", "predicted", "fold"):
        rows[name] = tested[name].to_numpy()
    positions = table.index.get_indexer(tested.index)
    for number, (inside, _) in enumerate(found.folds, start=1):
        rows[f"train_{number}"] = np.isin(positions, inside)
    return rows.reset_index(drop=True)


def write_rows(rows: pd.DataFrame, path: Path) -> Path:
    """Write the rows of a cross-validation for a later run that reuses it."""
    from geococa._files import replace_file

    return replace_file(path, rows.to_csv(index=False, float_format="%.17g", lineterminator="\n").encode())


def read_rows(path: Path) -> pd.DataFrame:
    """Read them back."""
    return pd.read_csv(path, dtype={"tile": str, "class": str, "predicted": str})
