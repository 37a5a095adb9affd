"""Names of the features of an index series: ``ndvi_d001, ndvi_d017, ...``, the index and the day of the period."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geococa.errors import InputRefused

__all__ = ["LAST_DAY", "SeriesLayout", "read_series_names", "series_name"]

LAST_DAY = 366
"""Largest day of a period, of which the first is 1."""
_PATTERN = re.compile(r"(?P<index>.+)_d(?P<day>\d{3})")


@dataclass(frozen=True)
class SeriesLayout:
    """Where the values of index series stand among the features.

    Attributes
    ----------
    indices : tuple of str
        Names of the indices.
    days : numpy.ndarray
        float64 ``(dates,)``, rising: day of the period, 1 is its first.
    place : numpy.ndarray
        int32 ``(indices, dates)``: position of each value among the features.
    """

    indices: tuple[str, ...]
    days: np.ndarray
    place: np.ndarray


def series_name(index: str, day: int) -> str:
    """Name of the value of an index on a day of the period (1 to 366).

    Examples
    --------
    >>> series_name("ndvi", 17)
    'ndvi_d017'
    """
    return f"{index}_d{day:03d}"


def read_series_names(names: Sequence[str]) -> SeriesLayout:
    """Find indices and days in the names of features, which may stand in any order.

    Raises
    ------
    InputRefused
        A name is not that of a series, or the indices have other days than each other.

    Examples
    --------
    >>> layout = read_series_names(["ndvi_d001", "ndvi_d017", "ndvi_d033"])
    >>> layout.indices, layout.days.tolist()
    (('ndvi',), [1.0, 17.0, 33.0])
    """
    found: dict[str, dict[int, int]] = {}
    for position, name in enumerate(names):
        match = _PATTERN.fullmatch(str(name))
        if match is None or not 1 <= int(match["day"]) <= LAST_DAY:
            raise InputRefused(
                f"feature {name!r} is not one of a series, which are named index_dDDD, as in ndvi_d017, with the day "
                "of the period from 001 to 366; make them with geococa.series_features and give no other features"
            )
        found.setdefault(match["index"], {})[int(match["day"])] = position
    days = sorted(next(iter(found.values()), {}))
    for index, places in found.items():
        if sorted(places) != days:
            raise InputRefused(
                f"the series of {index} has the days {sorted(places)[:20]}, that of {next(iter(found))} has {days[:20]}; "
                "all indices of a series need the same days"
            )
    if len(days) < 2:
        raise InputRefused(f"a series needs at least 2 dates, got {list(names)[:5]}")
    place = np.asarray([[places[day] for day in days] for places in found.values()], dtype=np.int32)
    return SeriesLayout(tuple(found), np.asarray(days, dtype=np.float64), place)
