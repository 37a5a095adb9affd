"""Series of hectares per zone, read from whatever holds them: arrays, datasets, tidy tables, a single series."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from geococa.errors import InputRefused

__all__ = ["Covariance", "Trendable", "ZoneSeries", "read_zone_series"]

F64 = npt.NDArray[np.float64]

_ZONE_COLUMNS = ("zone", "park", "code")
_VINTAGE_COLUMNS = ("vintage", "small_plot_adjustment", "adjusted")
"""Columns that say how a figure was made; one trend across several of their values is announced."""


@dataclass(frozen=True)
class ZoneSeries:
    """One zone: ascending years that have a value.

    Attributes
    ----------
    zone : str
        Name.
    years, values : ndarray of float64, shape (n,)
        Years and hectares; missing years are left out.
    se : ndarray of float64, shape (n,), or None
        Standard errors of the hectares.
    vintages : tuple of str
        Vintages or adjustments that differ within the series, where the table says so.
    covariance : ndarray of float64, shape (n, n), or None
        Covariance of the errors of the hectares, where years share errors.
    """

    zone: str
    years: F64
    values: F64
    se: F64 | None = None
    vintages: tuple[str, ...] = ()
    covariance: F64 | None = None

    @property
    def errors(self) -> F64 | None:
        """Covariance of the errors of the hectares where it is known, else their standard errors, else None."""
        return self.se if self.covariance is None else self.covariance


Covariance = npt.ArrayLike | Mapping[str, npt.ArrayLike]
"""Covariance of the errors of one zone's years, or of each zone by its name."""

Trendable = xr.DataArray | xr.Dataset | pd.DataFrame | pd.Series


def read_zone_series(
    series: Trendable, *, value: str, se: str, zone: str | None = None, covariance: Covariance | None = None
) -> list[ZoneSeries]:
    """Read the series of every zone.

    Parameters
    ----------
    series : DataArray, Dataset, DataFrame or Series
        ``(time, zone)`` or ``(time,)`` array; Dataset with such variables ``value`` and perhaps ``se``; tidy table with
        columns zone, year, ``value`` and perhaps ``se``; or a pandas Series indexed by year.
    value, se : str
        Variables or columns with hectares and their standard errors.
    zone : str, optional
        Column that names the zones; "zone", "park" or "code" by default, and without any of them one series.
    covariance : array-like, or mapping of str to array-like, optional
        Covariance of the errors, rows and columns in the order in which the years of a zone stand in ``series``; the array
        alone where there is one zone.

    Returns
    -------
    list of ZoneSeries
        In the order in which the zones first appear.

    Raises
    ------
    InputRefused
        Other dims, missing columns, text where numbers belong, a year twice in one zone, infinite or negative errors.
    """
    found = _read(series, value, se, zone)
    if covariance is None:
        return [_clean(one) for one in found]
    return [_clean(one) for one in _with_covariance(found, covariance)]


def _read(series: Trendable, value: str, se: str, zone: str | None) -> list[ZoneSeries]:
    """Series as they stand, before they are ordered and checked."""
    if isinstance(series, xr.DataArray):
        return list(_from_array(series, None))
    if isinstance(series, xr.Dataset):
        if value not in series:
            raise InputRefused(
                f"the dataset has no variable {value!r}, only {', '.join(map(str, series.data_vars))}; name it with value="
            )
        return list(_from_array(series[value], series.get(se)))
    if isinstance(series, pd.Series):
        table = pd.DataFrame({"year": series.index, value: series.to_numpy()})
        return list(_from_table(table.assign(zone=str(series.name or "all")), value, se, "zone"))
    if isinstance(series, pd.DataFrame):
        return list(_from_table(series, value, se, zone))
    raise InputRefused(
        f"expected a (time, zone) DataArray, a Dataset, a table with columns zone, year, {value}, or a Series by year, "
        f"got {type(series).__name__}"
    )


def _from_array(array: xr.DataArray, errors: xr.DataArray | None) -> Iterator[ZoneSeries]:
    _check_dims(array)
    if "zone" not in array.dims:
        name = array.coords["zone"].item() if "zone" in array.coords else "all"
        array = array.drop_vars("zone", errors="ignore").expand_dims(zone=[str(name)])
        errors = None if errors is None else errors.drop_vars("zone", errors="ignore").expand_dims(zone=[str(name)])
    array = array.transpose("time", "zone")
    names = [str(name) for name in array["zone"].values]
    years = _years_of(array["time"].values)
    values = _numbers(array.values, str(array.name or "the array"))
    if errors is None:
        spread = None
    else:
        _check_dims(errors)
        spread = _numbers(errors.transpose("time", "zone").values, str(errors.name))
    for k, name in enumerate(names):
        if names.index(name) != k:
            raise InputRefused(f"zone {name!r} occurs twice; give every zone its own name")
        yield ZoneSeries(name, years, values[:, k], None if spread is None else spread[:, k])


def _check_dims(array: xr.DataArray) -> None:
    surplus = [str(dim) for dim in array.dims if dim not in ("time", "zone")]
    if surplus or "time" not in array.dims:
        remedy = (
            f"pick one value of {surplus[0]}, for example areas.area_ha.sel(land_cover='coca')"
            if surplus
            else "give it a time dim of years or dates"
        )
        raise InputRefused(f"a trend takes dims (time, zone), got {tuple(map(str, array.dims))}; {remedy}")


def _from_table(table: pd.DataFrame, value: str, se: str, zone: str | None) -> Iterator[ZoneSeries]:
    if zone is None:
        zone = next((name for name in _ZONE_COLUMNS if name in table), None)
    wanted = [name for name in (zone, "year", value) if name is not None]
    missing = [name for name in wanted if name not in table]
    if missing:
        raise InputRefused(
            f"the table has no column {', '.join(map(repr, missing))}, only {', '.join(map(str, table.columns))}; expected "
            f"zone, year, {value}: rename them, or name them with zone= and value= (on the command line --zone and --value)"
        )
    if "land_cover" in table and table["land_cover"].nunique() > 1:
        classes = ", ".join(sorted(map(str, table["land_cover"].unique())))
        raise InputRefused(f"the table holds several land covers ({classes}); keep the rows of one of them")
    groups: list[tuple[Hashable, pd.DataFrame]] = [("all", table)]
    if zone is not None:
        if table[zone].isna().any():
            raise InputRefused(f"column {zone!r} has empty names; name every zone or drop those rows")
        groups = list(table.groupby(zone, sort=False))
    for name, rows in groups:
        years = _years_of(rows["year"].to_numpy())
        values = _numbers(rows[value].to_numpy(), f"{value} of zone {name}")
        errors = _numbers(rows[se].to_numpy(), f"{se} of zone {name}") if se in rows else None
        yield ZoneSeries(str(name), years, values, errors, _vintages(rows[np.isfinite(values)]))


def _vintages(rows: pd.DataFrame) -> tuple[str, ...]:
    """Vintages and adjustments that differ within a series, each with the years that it holds for."""
    found: list[str] = []
    for column in (name for name in _VINTAGE_COLUMNS if name in rows):
        known = rows[["year", column]].dropna()
        if known[column].nunique() < 2:
            continue
        for value, part in known.groupby(column, sort=False):
            name = f"{column} {value}" if rows[column].dtype == bool else str(value)
            years = pd.to_numeric(part["year"], errors="coerce")
            found.append(f"{name} {years.min():g}-{years.max():g}")
    return tuple(found)


def _numbers(values: npt.NDArray[np.generic], what: str) -> F64:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        pass
    try:
        return np.asarray(pd.to_numeric(pd.Series(values)), dtype=np.float64)
    except (TypeError, ValueError) as error:
        remedy = "write years as 2019" if what == "year" else "write hectares as plain numbers, missing ones empty"
        raise InputRefused(f"{what} is not all numbers ({error}); {remedy}") from None


def _years_of(times: npt.NDArray[np.generic]) -> F64:
    """Years as numbers: the calendar year where every date falls on the same day, else the decimal year."""
    if np.issubdtype(times.dtype, np.datetime64):
        dates = pd.DatetimeIndex(times)
        if dates.hasnans:
            raise InputRefused("the series has dates that are not set; give every value its year or date")
        if len({(d.month, d.day) for d in dates}) == 1:
            return np.asarray(dates.year, dtype=np.float64)
        length = np.where(dates.is_leap_year, 366, 365)
        return np.asarray(dates.year + (dates.day_of_year - 1) / length, dtype=np.float64)
    if times.dtype == object and len(times) and all(hasattr(t, "year") for t in times):
        return _years_of(np.asarray(pd.DatetimeIndex([pd.Timestamp(str(t)) for t in times]).values))
    years = _numbers(times, "year")
    if not np.isfinite(years).all():
        raise InputRefused("the series has empty years; give every value its year")
    return years


def _with_covariance(found: list[ZoneSeries], given: Covariance) -> list[ZoneSeries]:
    """Series with the covariance of their errors; those that none is given for stay as they are."""
    if not isinstance(given, Mapping):
        if len(found) != 1:
            raise InputRefused(f"one covariance for {len(found)} zones; give a mapping of zone names to covariances")
        given = {found[0].zone: given}
    unknown = sorted(set(given) - {one.zone for one in found})
    if unknown:
        raise InputRefused(f"covariance names {', '.join(map(repr, unknown))}, which is no zone of the series")
    out = []
    for one in found:
        if one.zone not in given:
            out.append(one)
            continue
        matrix = _numbers(np.asarray(given[one.zone]), f"covariance of zone {one.zone}")
        if matrix.shape != (one.years.size,) * 2:
            raise InputRefused(
                f"the covariance of zone {one.zone!r} has shape {matrix.shape}, expected one row and column for each of its "
                f"{one.years.size} years"
            )
        out.append(replace(one, covariance=matrix))
    return out


def _clean(raw: ZoneSeries) -> ZoneSeries:
    """Order by year, drop what is missing, refuse what can't be right."""
    zone, years, values = raw.zone, raw.years, raw.values
    repeated = pd.Series(years)[pd.Series(years).duplicated()]
    if len(repeated):
        raise InputRefused(
            f"zone {zone!r} has year {repeated.iloc[0]:g} twice; a trend takes one value a year: sum or choose first"
        )
    if np.isinf(values).any():
        raise InputRefused(f"zone {zone!r} has infinite hectares; write missing values as NaN")
    place = np.flatnonzero(np.isfinite(values))
    place = place[np.argsort(years[place], kind="stable")]
    matrix = None if raw.covariance is None else _checked_covariance(raw.covariance[np.ix_(place, place)], zone)
    se = raw.se[place] if raw.se is not None else None if matrix is None else np.sqrt(np.diag(matrix))
    if se is not None and (not np.isfinite(se).all() or (se < 0).any()):
        raise InputRefused(
            f"zone {zone!r} has hectares whose standard error is missing, infinite or negative; give every estimate its "
            "standard error, or leave the column out"
        )
    return ZoneSeries(zone, years[place], values[place], se, raw.vintages, matrix)


def _checked_covariance(matrix: F64, zone: str) -> F64:
    largest = float(np.abs(matrix).max(initial=0.0))
    if (
        not np.isfinite(matrix).all()
        or not np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12 * largest)
        or (matrix.size and np.linalg.eigvalsh(matrix)[0] < -1e-9 * largest)
    ):
        raise InputRefused(
            f"the covariance of zone {zone!r} is none: expected a finite, symmetric matrix without negative eigenvalues, "
            "in hectares squared"
        )
    return matrix
