"""Published coca hectares: the national series, the municipal table, and estimates held against them."""

from __future__ import annotations

import io
import math
from importlib import resources

import numpy as np
import pandas as pd

from geococa.errors import InputRefused
from geococa.official_tables import read_coca_municipal
from geococa.protected_areas import read_protected_areas

__all__ = ["compare_with_reference", "read_coca_municipal", "read_protected_areas", "reconcile", "unodc_national"]


def unodc_national() -> pd.DataFrame:
    """Coca in Colombia at 31 December of 2001 to 2024, as published by UNODC/SIMCI.

    Returns
    -------
    DataFrame
        ``year`` (int64), ``area_ha`` (float64), ``vintage`` (edition that the figure is from), ``small_plot_adjustment``
        ("adjusted" from 2009 on, when the census began to correct for plots too small to see), ``source``, ``note``.

    Notes
    -----
    A new edition may revise past years, so figures of different editions need not agree; the column ``vintage`` keeps them
    apart, and `geococa.area_trend` says in its notice that a trend runs across them.

    Examples
    --------
    >>> unodc_national().set_index("year").area_ha.loc[2012].item()
    47788.0
    """
    text = (resources.files("geococa") / "data" / "unodc_national.csv").read_text(encoding="utf-8")
    table = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype={"year": "int64", "area_ha": "float64"})
    table.attrs = {"title": "Coca in Colombia, hectares at 31 December", "publisher": "UNODC/SIMCI"}
    return table


def compare_with_reference(
    estimates: pd.DataFrame, reference: pd.DataFrame, *, value: str = "area_ha", reference_value: str = "area_ha"
) -> pd.DataFrame:
    """Hold estimates against published figures, year by year.

    Parameters
    ----------
    estimates : DataFrame
        ``year``, ``value``, perhaps ``zone``, and perhaps the interval ``ci_low_ha`` and ``ci_high_ha``.
    reference : DataFrame
        ``year``, ``reference_value``, and ``zone`` where it is of zones; other columns (``vintage``, ``source``) are kept.
    value, reference_value : str
        Columns with hectares.

    Returns
    -------
    DataFrame
        A row for each row of ``estimates``: its ``zone`` and ``year``, ``area_ha``, ``reference_ha``, ``difference_ha``
        (estimate less reference), ``ratio`` (estimate over reference; NaN where the reference is 0), ``inside_interval``
        (boolean; missing where there is no interval or no reference), and ``vintage`` and ``source`` where given.

    Raises
    ------
    InputRefused
        Missing columns, zones on one side only, a year twice in the reference, or no year in common.

    Examples
    --------
    >>> mine = pd.DataFrame({"year": [2023], "area_ha": [245e3], "ci_low_ha": [230e3], "ci_high_ha": [260e3]})
    >>> row = compare_with_reference(mine, unodc_national()).iloc[0]
    >>> float(row.difference_ha), round(float(row.ratio), 3), bool(row.inside_interval)
    (-7572.0, 0.97, True)
    """
    keys = _shared_keys(estimates, reference, value, reference_value)
    kept = [name for name in ("vintage", "source") if name in reference]
    published = reference[[*keys, reference_value, *kept]].rename(columns={reference_value: "reference_ha"})
    if published.duplicated(keys).any():
        first = published[published.duplicated(keys)].iloc[0]
        raise InputRefused(
            f"the reference has {', '.join(f'{k} {first[k]}' for k in keys)} twice; keep one vintage of each figure"
        )
    interval = [name for name in ("ci_low_ha", "ci_high_ha") if name in estimates]
    mine = estimates[[*keys, value, *interval]].rename(columns={value: "area_ha"})
    table = mine.merge(published, on=keys, how="left", validate="many_to_one")
    if table["reference_ha"].isna().all():
        raise InputRefused(
            f"estimates and reference have no {' and '.join(keys)} in common: estimates of {_span(estimates['year'])}, "
            f"reference of {_span(reference['year'])}"
        )
    table["difference_ha"] = table["area_ha"] - table["reference_ha"]
    table["ratio"] = table["area_ha"] / table["reference_ha"].where(table["reference_ha"] != 0)
    inside = pd.Series(pd.NA, index=table.index, dtype="boolean")
    if len(interval) == 2:
        known = table[[*interval, "reference_ha"]].notna().all(axis=1)
        within = table["reference_ha"].between(table["ci_low_ha"], table["ci_high_ha"])
        inside[known] = within[known]
    table["inside_interval"] = inside
    return table[[*keys, "area_ha", "reference_ha", "difference_ha", "ratio", "inside_interval", *kept]]


def _shared_keys(estimates: pd.DataFrame, reference: pd.DataFrame, value: str, reference_value: str) -> list[str]:
    for name, table, column in (("estimates", estimates, value), ("reference", reference, reference_value)):
        missing = [c for c in ("year", column) if c not in table]
        if missing:
            raise InputRefused(
                f"the {name} have no column {', '.join(missing)}, only {', '.join(map(str, table.columns))}"
            )
    if ("zone" in estimates) != ("zone" in reference):
        with_zone, without = ("estimates", "reference") if "zone" in estimates else ("reference", "estimates")
        raise InputRefused(
            f"the {with_zone} are of zones and the {without} are not; add a column zone, or keep one zone and drop the column"
        )
    return ["zone", "year"] if "zone" in estimates else ["year"]


def _span(years: pd.Series) -> str:
    return f"{years.min()} to {years.max()}" if len(years) else "no year"


def reconcile(municipal: pd.DataFrame, national: pd.DataFrame, *, tolerance_percent: float = 0.5) -> pd.DataFrame:
    """Hold the sum of the municipalities against the published national total, year by year.

    Parameters
    ----------
    municipal : DataFrame
        ``year``, ``area_ha``, and perhaps ``department`` and ``code`` (`read_coca_municipal`).
    national : DataFrame
        ``year``, ``area_ha`` (`unodc_national`).
    tolerance_percent : float, default 0.5
        Difference that rounding and revisions may leave, in per cent of the national total.

    Returns
    -------
    DataFrame
        A row for each year of both: ``year``, ``municipal_ha``, ``national_ha``, ``difference_ha``, ``ratio``, ``missing``
        (municipalities without a value), ``status`` and ``note``. The status is "agrees", "does not sum", or "incomplete" where the
        table cannot be expected to sum: values are missing, or it covers part of the country. The latter shows when its sums
        stay below the total by more than 2 per cent in most years. ``attrs["coverage"]`` says which it was.

    Raises
    ------
    InputRefused
        Missing columns or no year in common.

    Examples
    --------
    >>> table = unodc_national()
    >>> table.loc[table.year == 2001, "area_ha"] = 136_918.0
    >>> reconcile(table, unodc_national()).query("status == 'does not sum'").year.tolist()
    [2001]
    """
    for name, table in (("municipal", municipal), ("national", national)):
        missing = [c for c in ("year", "area_ha") if c not in table]
        if missing:
            raise InputRefused(f"the {name} table has no column {', '.join(missing)}")
    grouped = municipal.groupby("year")["area_ha"]
    sums = grouped.agg(municipal_ha=lambda v: math.fsum(v.dropna()), missing=lambda v: int(v.isna().sum()))
    table = national[["year", "area_ha"]].rename(columns={"area_ha": "national_ha"}).merge(sums, on="year")
    if table.empty:
        raise InputRefused(
            f"the municipal table ({_span(municipal['year'])}) and the national series ({_span(national['year'])}) share no year"
        )
    table["difference_ha"] = table["municipal_ha"] - table["national_ha"]
    table["ratio"] = table["municipal_ha"] / table["national_ha"]
    partial = bool((table["ratio"] < 0.98).mean() > 0.5)
    off = table["difference_ha"].abs() > tolerance_percent / 100 * table["national_ha"]
    gaps = table["missing"] > 0
    table["missing"] = table["missing"].astype("int64")
    table["status"] = np.select([gaps | partial, off], ["incomplete", "does not sum"], "agrees")
    table["note"] = [
        _reconcile_note(str(status), int(empty), float(difference))
        for status, empty, difference in zip(table["status"], table["missing"], table["difference_ha"], strict=True)
    ]
    departments = municipal["department"].nunique() if "department" in municipal else None
    of = f" ({departments} departments)" if departments else ""
    table.attrs = {
        "coverage": f"the table covers part of the country{of}" if partial else f"the table covers the country{of}"
    }
    order = ["year", "municipal_ha", "national_ha", "difference_ha", "ratio", "missing", "status", "note"]
    return table.sort_values("year", ignore_index=True)[order]


def _reconcile_note(status: str, missing: int, difference_ha: float) -> str:
    if status == "agrees":
        return ""
    if missing:
        return f"{missing} municipalities have no value in this year"
    if status == "incomplete":
        return "the table covers part of the country, so its sum is not the national total"
    return (
        f"the municipalities sum to {abs(difference_ha):,.0f} ha {'more' if difference_ha > 0 else 'less'} than the published "
        "total: another vintage, or an adjustment that was not spread over them"
    )
