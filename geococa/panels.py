"""Panels: sample points that are looked at every year, as arrays of points by years."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from geococa.errors import AccuracyError, InputRefused

__all__ = ["Panel"]


@dataclass(frozen=True)
class Panel:
    """Points by years.

    Attributes
    ----------
    years : tuple of int
        Years in order.
    strata : tuple of str
        Names of the strata.
    stratum : numpy.ndarray
        int64 ``(points,)``, number of the stratum.
    area_ha : numpy.ndarray
        float64 ``(strata,)``, hectares.
    hit : numpy.ndarray
        float64 ``(points, years)``: 1 = the class, 0 = another, NaN = not seen.
    age : numpy.ndarray
        float64 ``(points, years)``, days from the image to the cut-off date; 0 where not given.
    inside : numpy.ndarray
        float64 ``(points,)``: 1 in the zone asked for.
    """

    years: tuple[int, ...]
    strata: tuple[str, ...]
    stratum: np.ndarray
    area_ha: np.ndarray
    hit: np.ndarray
    age: np.ndarray
    inside: np.ndarray

    @classmethod
    def of(
        cls,
        samples: pd.DataFrame,
        stratum_area_ha: Any,
        class_name: str,
        id_column: str | None,
        years: Sequence[int] | None,
        within: Any,
        age_column: str | None,
    ) -> Panel:
        """Arrange samples, one row a point and year, and refuse what is no panel."""
        name = id_column or next((one for one in ("point", "id") if one in samples.columns), "point")
        needed = [name, "year", "stratum", "class", *([age_column] if age_column else [])]
        needed += ["stratum_area_ha"] if stratum_area_ha is None else []
        missing = [one for one in needed if one not in samples.columns]
        if missing:
            raise InputRefused(
                f"the samples lack {', '.join(missing)}; a panel has one row a point and year, with its class, stratum and the "
                "stratum's hectares"
            )
        year = samples["year"].to_numpy(dtype=np.int64)
        wanted = np.unique(year) if years is None else np.unique(np.asarray(years, dtype=np.int64))
        absent = sorted(set(wanted.tolist()) - set(year.tolist()))
        if absent:
            raise InputRefused(f"no sample has the years {absent}, only {np.unique(year).tolist()}")
        used = np.isin(year, wanted)
        table = samples[used]
        point, points = pd.factorize(table[name], sort=True)
        column = np.searchsorted(wanted, year[used])
        if len(np.unique(point * len(wanted) + column)) < len(point) or (point < 0).any():
            raise InputRefused(f"some {name} has two rows in one year, or none; a panel has one row a point and year")
        stratum, strata = pd.factorize(table["stratum"].astype(str), sort=True)
        home = np.zeros(len(points), np.int64)
        home[point] = stratum
        if (home[point] != stratum).any():
            raise InputRefused(f"some {name} changes its stratum; a point keeps the stratum that it was drawn in")
        label = table["class"]
        known = (label.notna() & (label != "")).to_numpy(dtype=bool)
        hit, age = np.full((len(points), len(wanted)), np.nan), np.zeros((len(points), len(wanted)))
        hit[point[known], column[known]] = (label[known] == class_name).to_numpy(dtype=float)
        if age_column:
            days = table[age_column].to_numpy(dtype=float)
            if np.isnan(days[known]).any():
                raise InputRefused(
                    f"some labelled samples have no {age_column}; give the day of the image behind each label"
                )
            age[point, column] = np.nan_to_num(days)
        inside = np.ones(len(points))
        if within is not None:
            inside[:] = 0.0
            inside[point[np.asarray(within, dtype=bool)[used]]] = 1.0
        names = tuple(str(one) for one in strata)
        areas = _stratum_areas(table, stratum, names, stratum_area_ha)
        return cls(tuple(wanted.tolist()), names, home, areas, hit, age, inside)

    @property
    def weights(self) -> np.ndarray:
        """Share of the area in each stratum."""
        share: np.ndarray = self.area_ha / self.area_ha.sum()
        return share

    @property
    def total_ha(self) -> float:
        """Hectares of all strata."""
        return float(self.area_ha.sum())

    def seen(self, k: int) -> np.ndarray:
        """Points with a label in a year."""
        return ~np.isnan(self.hit[:, k])


def _stratum_areas(table: pd.DataFrame, stratum: np.ndarray, strata: tuple[str, ...], given: Any) -> np.ndarray:
    if given is None:
        hectares = table["stratum_area_ha"].to_numpy(dtype=float)
        first = np.zeros(len(strata))
        first[stratum] = hectares
        if (np.abs(first[stratum] - hectares) > 1e-9 * first[stratum]).any():
            raise InputRefused("a stratum has more than one area; a panel keeps the strata that it was drawn in")
        known = dict(zip(strata, first.tolist(), strict=True))
    else:
        known = {str(key): float(value) for key, value in given.items()}
    bare = [key for key, value in known.items() if value > 0 and key not in strata]
    if bare:
        raise AccuracyError(
            f"strata {', '.join(bare)} have area but no sample; draw samples there or join them with another"
        )
    out = np.array([known.get(name, np.nan) for name in strata])
    if not (np.isfinite(out) & (out >= 0)).all() or out.sum() <= 0:
        raise InputRefused(f"the hectares of each of the strata {', '.join(strata)} must be given, got {known}")
    return out
