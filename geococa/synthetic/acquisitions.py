"""Acquisitions of the simulated satellite: dates, processing baselines, product names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from geococa.synthetic.noise import generator
from geococa.synthetic.weather import Weather, draw_weather

__all__ = ["OFFSET_DATE", "Acquisition", "acquisition_on", "plan_acquisitions", "product_id"]

OFFSET_DATE = datetime(2022, 1, 25, tzinfo=UTC)
"""From this day on Sentinel-2 products (baseline 04.00) carry the offset of -1000 digital numbers."""
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_ORBIT = 25
# first day and name of the processing baselines of Sentinel-2 L2A
_BASELINES = (
    (datetime(2015, 1, 1, tzinfo=UTC), "02.06"),
    (datetime(2018, 5, 23, tzinfo=UTC), "02.08"),
    (datetime(2018, 11, 6, tzinfo=UTC), "02.11"),
    (datetime(2019, 5, 6, tzinfo=UTC), "02.12"),
    (datetime(2020, 2, 3, tzinfo=UTC), "02.14"),
    (datetime(2021, 3, 30, tzinfo=UTC), "03.00"),
    (OFFSET_DATE, "04.00"),
    (datetime(2022, 12, 6, tzinfo=UTC), "05.09"),
    (datetime(2023, 12, 13, tzinfo=UTC), "05.10"),
    (datetime(2024, 7, 23, tzinfo=UTC), "05.11"),
)


@dataclass(frozen=True)
class Acquisition:
    """One overpass.

    Attributes
    ----------
    moment : datetime.datetime
        Time of acquisition (UTC).
    platform : {"sentinel-2a", "sentinel-2b"}
        Satellite.
    baseline : str
        Processing baseline, such as ``"04.00"``.
    offset : float
        Reflectance = DN * 0.0001 + offset: 0 before 25 January 2022, -0.1 from then on.
    weather : Weather
        Clouds, haze and swath edge.
    """

    moment: datetime
    platform: str
    baseline: str
    offset: float
    weather: Weather

    @property
    def day(self) -> float:
        """Days since 1 January 2000."""
        return (self.moment - _EPOCH) / timedelta(days=1)


def _acquisition(moment: datetime, cover: float, extent: tuple[float, float, float, float], seed: int) -> Acquisition:
    baseline = [name for first, name in _BASELINES if moment >= first][-1]
    number = (moment - _EPOCH).days
    return Acquisition(
        moment,
        "sentinel-2a" if (number // 5) % 2 else "sentinel-2b",
        baseline,
        -0.1 if moment >= OFFSET_DATE else 0.0,
        draw_weather(extent, cover, seed, number),
    )


def acquisition_on(date: object, cover: float, extent: tuple[float, float, float, float], seed: int) -> Acquisition:
    """Overpass on any day, with a cloud cover drawn around the mean ``cover``."""
    day = np.datetime64(date, "D").astype(datetime)  # type: ignore[call-overload]
    moment = datetime(day.year, day.month, day.day, 15, 26, 41, tzinfo=UTC)
    rng = generator(seed, "cover of a day", (moment - _EPOCH).days)
    drawn = float(rng.beta(*_beta(cover))) if 0 < cover < 1 else cover
    return _acquisition(moment, drawn, extent, seed)


def _beta(mean: float) -> tuple[float, float]:
    """Shape of the distribution of cloud cover: wide, with many clear and many overcast days."""
    return 1.6 * mean, 1.6 * (1.0 - mean)


def plan_acquisitions(
    years: Sequence[int], dates_per_year: int, cloud_cover: float, extent: tuple[float, float, float, float], seed: int
) -> tuple[Acquisition, ...]:
    """Choose the overpasses of all years: spread over the year, on the five-day cycle of the two satellites.

    The cloud covers of a year are one draw from each of ``dates_per_year`` equal slices of their distribution,
    so that every year has a fairly clear date, as in an archive that somebody picked.
    """
    from scipy.stats import beta

    found = []
    for year in years:
        rng = generator(seed, "dates", year)
        slots = (np.arange(dates_per_year) + rng.uniform(0.15, 0.85, dates_per_year)) / dates_per_year
        quantile = rng.permutation((np.arange(dates_per_year) + rng.random(dates_per_year)) / dates_per_year)
        cover = beta.ppf(quantile, *_beta(cloud_cover)) if 0 < cloud_cover < 1 else np.full(dates_per_year, cloud_cover)
        start = datetime(year, 1, 1, 15, 26, 41, tzinfo=UTC)
        last = (datetime(year, 12, 31, tzinfo=UTC) - _EPOCH).days
        taken: set[int] = set()
        for slot, part in zip(slots, cover, strict=True):
            number = (start - _EPOCH).days + int(slot * 365)
            number += -number % 5
            while number in taken or number > last:
                number += 5 if number + 5 <= last and number in taken else -5
            taken.add(number)
            moment = _EPOCH + timedelta(days=number, hours=15, minutes=26, seconds=41)
            found.append(_acquisition(moment, float(part), extent, seed))
    return tuple(sorted(found, key=lambda one: one.moment))


def product_id(acquisition: Acquisition, tile: str) -> str:
    """Name of a product in the Sentinel-2 naming convention.

    For example ``S2A_MSIL2A_20190115T152641_N0211_R025_T18NXG_20190115T190000``.
    """
    satellite = acquisition.platform[-2:].upper().replace("2", "S2")
    day = acquisition.moment.strftime("%Y%m%d")
    number = acquisition.baseline.replace(".", "")
    return f"{satellite}_MSIL2A_{day}T152641_N{number}_R{_ORBIT:03d}_T{tile}_{day}T190000"
