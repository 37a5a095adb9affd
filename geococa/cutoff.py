"""Hectares at 31 December: observed, age of the image, unseen, eradicated, line by line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from geococa.errors import InputRefused
from geococa.hazards import Hazards, hazards_from_change, hazards_from_panel
from geococa.image_ages import age_table
from geococa.survey_estimators import normal_quantile

__all__ = ["LINES", "Hazards", "age_table", "cutoff_area", "hazards_from_change", "hazards_from_panel"]

LINES = ("observed", "age_correction", "unseen", "eradicated")
"""Lines of the account; their sum is the line ``total``."""
_DAYS = 365.25


def cutoff_area(
    ages: pd.DataFrame,
    hazards: Hazards,
    *,
    eradicated_ha: Mapping[str, float] | None = None,
    replanted_share: float = 0.0,
    replanted_se: float = 0.0,
    unseen: str = "observed_share",
    unseen_share: Mapping[str, float] | None = None,
    unseen_relative_se: float = 0.0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Account for the hectares of coca at the cut-off date, line by line.

    Between its image and the cut-off, land without coca is planted and coca is given up at the rates of ``hazards``: the coca
    of a group of pixels moves towards ``planting / (planting + clearing)`` of its area (a two-state Markov process; backwards for
    images after the cut-off).

    Parameters
    ----------
    ages : pandas.DataFrame
        One row a zone and image age, as `age_table` makes it: ``zone``, ``image_age_days``, ``coca_ha``, ``other_ha``, perhaps
        ``unseen_ha`` and ``coca_se_ha`` (standard error of the observed hectares). With a column ``year``, as in the
        ``image_ages`` table of a run, every year is accounted for on its own; the hectares eradicated are then those of
        one year, so such a table takes none.
    hazards : Hazards
        Rates per year.
    eradicated_ha : mapping of str to float, optional
        Hectares eradicated in each zone between the image and the cut-off date.
    replanted_share, replanted_se : float
        Share of the eradicated hectares that stood again by the cut-off, and its standard error.
    unseen : {"observed_share", "given", "none"}
        Unobserved land holds coca like the observed land of its zone at the cut-off; or the shares ``unseen_share``; or none.
    unseen_share : mapping of str to float, optional
        Share of coca in the unobserved land of each zone, for ``"given"``.
    unseen_relative_se : float
        Relative standard error of that assumption.
    confidence : float
        Level of the intervals.

    Returns
    -------
    pandas.DataFrame
        ``zone, line, area_ha, se_ha, ci_low_ha, ci_high_ha``: for each zone, and for all zones together ("all zones"; zones
        must not overlap), the lines ``observed, age_correction, unseen, eradicated`` and ``total``, which is their sum;
        before them ``year`` where ``ages`` has it.
        ``attrs`` repeats the assumptions.

    Raises
    ------
    InputRefused
        Columns are missing, hectares are negative, or more was eradicated than there was.
    """
    if "year" in ages.columns:
        if eradicated_ha and ages["year"].nunique() > 1:
            raise InputRefused("eradicated_ha are the hectares of one year; give the rows of one year of the age table")
        settings: dict[str, Any] = {
            "eradicated_ha": eradicated_ha, "replanted_share": replanted_share, "replanted_se": replanted_se,
            "unseen": unseen, "unseen_share": unseen_share, "unseen_relative_se": unseen_relative_se,
            "confidence": confidence,
        }  # fmt: skip
        yearly = []
        for year, part in ages.groupby("year", sort=True):
            yearly.append(cutoff_area(part.drop(columns="year"), hazards, **settings))
            yearly[-1].insert(0, "year", year)
        if yearly:
            joined = pd.concat(yearly, ignore_index=True)
            joined.attrs = yearly[0].attrs
            return joined
    table = _checked(ages)
    zones = list(dict.fromkeys(table["zone"]))
    given = {str(key): float(value) for key, value in (unseen_share or {}).items()}
    gone = {str(key): float(value) for key, value in (eradicated_ha or {}).items()}
    _check_assumptions(zones, unseen, given, gone, replanted_share)
    rates = np.array([hazards.planting_per_year, hazards.clearing_per_year, 1.0, replanted_share])
    errors = np.array([hazards.planting_se, hazards.clearing_se, unseen_relative_se, replanted_se])
    values, shared, own = [], [], []
    for zone in zones:
        group = table[table["zone"] == zone]
        lines = _lines_of(group, unseen, given.get(zone, 0.0), gone.get(zone, 0.0))
        coca = group["coca_ha"].to_numpy()
        value = lines(coca, rates)
        if value.sum() < -1e-9 * max(coca.sum(), 1.0):
            raise InputRefused(
                f"zone {zone}: {gone.get(zone, 0.0):g} ha eradicated is more than the {value[:3].sum():.1f} ha that stood"
            )
        values.append(value)
        shared.append(_slopes(lambda r, lines=lines, coca=coca: lines(coca, r), rates) * errors)  # type: ignore[misc]
        own.append(_slopes(lambda c, lines=lines: lines(c, rates), coca) * group["coca_se_ha"].to_numpy())  # type: ignore[misc]
    frames = [
        _account(zone, value, [s, o], confidence) for zone, value, s, o in zip(zones, values, shared, own, strict=True)
    ]
    # rates are common to all zones, so their errors add up; errors of the observed hectares are independent
    frames.append(
        _account("all zones", np.sum(values, axis=0), [np.sum(shared, axis=0), np.concatenate(own, axis=1)], confidence)
    )
    out = pd.concat(frames, ignore_index=True)
    out.attrs.update(
        {
            "unseen": unseen,
            "planting_per_year": hazards.planting_per_year,
            "confidence": confidence,
            "clearing_per_year": hazards.clearing_per_year,
            "replanted_share": replanted_share,
        }
    )
    return out


def _checked(ages: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in ("zone", "image_age_days", "coca_ha", "other_ha") if name not in ages.columns]
    if missing:
        raise InputRefused(f"the age table lacks {', '.join(missing)}; make it with geococa.cutoff.age_table")
    if ages.empty:
        raise InputRefused("the age table has no rows, so there is nothing to account for")
    table = ages.assign(zone=ages["zone"].astype(str))
    for name in ("unseen_ha", "coca_se_ha"):
        table[name] = table[name].astype(float) if name in table.columns else 0.0
    for name in ("coca_ha", "other_ha", "unseen_ha", "coca_se_ha"):
        # the unseen remainder is a difference of sums and may miss zero by rounding
        low = float(table[name].min())
        if not low >= -1e-6:
            raise InputRefused(f"{name} must be zero or more, got {low}")
        table[name] = table[name].clip(lower=0.0)
    if not np.isfinite(table["image_age_days"].to_numpy(dtype=float)).all():
        raise InputRefused("image_age_days must be a number everywhere; unobserved land belongs into unseen_ha")
    return table


def _check_assumptions(
    zones: list[str], unseen: str, given: dict[str, float], gone: dict[str, float], replanted_share: float
) -> None:
    if unseen not in ("observed_share", "given", "none"):
        raise InputRefused(f"unseen must be 'observed_share', 'given' or 'none', got {unseen!r}")
    if unseen == "given" and set(zones) - set(given):
        raise InputRefused(f"unseen_share lacks {', '.join(sorted(set(zones) - set(given)))}")
    strange = sorted((set(given) | set(gone)) - set(zones))
    if strange:
        raise InputRefused(f"no zone called {', '.join(strange)} in the age table, which has {', '.join(zones)}")
    if not 0 <= replanted_share <= 1 or any(not 0 <= value <= 1 for value in given.values()):
        raise InputRefused("replanted_share and unseen_share must lie between 0 and 1")
    if any(value < 0 for value in gone.values()):
        raise InputRefused(f"eradicated_ha must be zero or more, got {gone}")


def _lines_of(
    group: pd.DataFrame, unseen: str, given: float, gone: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The four lines of one zone as a function of its observed hectares and of the rates."""
    area = (group["coca_ha"] + group["other_ha"]).to_numpy()
    years = group["image_age_days"].to_numpy(dtype=float) / _DAYS
    hidden = float(group["unseen_ha"].sum())

    def lines(coca: np.ndarray, rates: np.ndarray) -> np.ndarray:
        planting, clearing, assumption, replanted = rates
        speed = planting + clearing
        # (1 - exp(-speed * t)) / speed, which is t where nothing happens
        reach = -np.expm1(-speed * years) / speed if speed > 0 else years
        moved = np.clip(coca + (planting * (area - coca) - clearing * coca) * reach, 0.0, area)
        share = moved.sum() / area.sum() if unseen == "observed_share" and area.sum() > 0 else given
        filled = 0.0 if unseen == "none" else hidden * share * assumption
        return np.array([coca.sum(), moved.sum() - coca.sum(), filled, 0.0 - gone * (1 - replanted)])

    return lines


def _slopes(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """Derivative of the lines by each input, ``(4, inputs)``, by central differences."""
    columns = []
    for k in range(len(at)):
        step = 1e-5 * max(abs(at[k]), 1e-2)
        # a rate at zero has no other side
        low = max(at[k] - step, 0.0)
        up, down = at.copy(), at.copy()
        up[k], down[k] = at[k] + step, low
        columns.append((function(up) - function(down)) / (at[k] + step - low))
    return np.stack(columns, axis=1) if columns else np.zeros((4, 0))


def _account(zone: str, value: np.ndarray, contributions: list[np.ndarray], confidence: float) -> pd.DataFrame:
    """Lines and total of one zone with their intervals."""
    parts = np.concatenate(contributions, axis=1)
    area = np.append(value, value.sum())
    se = np.sqrt((np.vstack([parts, parts.sum(axis=0)]) ** 2).sum(axis=1))
    half = normal_quantile(confidence) * se
    columns: dict[str, Any] = {"zone": zone, "line": [*LINES, "total"], "area_ha": area, "se_ha": se}
    return pd.DataFrame(columns | {"ci_low_ha": area - half, "ci_high_ha": area + half})
