"""Steps from one year of a map to the next: which pixels they rest on, which changes last, and how well they were observed."""

from __future__ import annotations

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind
from geococa.coverage import Coverage, check_grid
from geococa.errors import InputRefused
from geococa.legend import Legend

__all__ = ["Support", "interval_coords", "lasting", "maps_of", "unseen"]


class Support:
    """What the changes of one class rest on, per zone and step: flicker, years observed, and dates behind the pixels.

    Parameters
    ----------
    steps, zones : int
        Numbers of both.
    years_before, years_after : int
        As in `geococa.transitions`.
    """

    def __init__(self, steps: int, zones: int, *, years_before: int = 2, years_after: int = 2) -> None:
        if years_before < 1 or years_after < 1:
            raise InputRefused(f"years_before and years_after must be at least 1, got {years_before} and {years_after}")
        self._around = (years_before, years_after)
        self.flicker, self.decided, self.dates, self.dated = (np.zeros((steps, zones)) for _ in range(4))
        self.years, self.total = np.zeros(zones), np.zeros(zones)

    def add(
        self, zone: int, present: np.ndarray, seen: np.ndarray, weights: np.ndarray, counts: np.ndarray | None
    ) -> None:
        """Count the cells of a block: presence of the class and whether observed ``(times, cells)``, and hectares."""
        self.total[zone] += weights.sum()
        self.years[zone] += (seen.sum(axis=0) * weights).sum()
        for t in range(len(seen) - 1):
            both = seen[t] & seen[t + 1]
            lasts, decided = lasting(present, seen, t, *self._around)
            decided = decided & both & (present[t] != present[t + 1])
            self.decided[t, zone] += weights[decided].sum()
            self.flicker[t, zone] += weights[decided & ~lasts].sum()
            if counts is not None:
                self.dates[t, zone] += (np.minimum(counts[t], counts[t + 1])[both] * weights[both]).sum()
                self.dated[t, zone] += weights[both].sum()

    def columns(self, factor: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of a table in the order of zone and step; hectares are closed by the factor of each zone."""
        return {
            "flicker_ha": (self.flicker * factor).T.ravel(),
            "decided_ha": (self.decided * factor).T.ravel(),
            "flicker_share": _ratio(self.flicker, self.decided).T.ravel(),
            "observed_years": np.repeat(_ratio(self.years, self.total), len(self.flicker)),
            "observations": _ratio(self.dates, self.dated).T.ravel(),
        }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def maps_of(land_cover: xr.DataArray, share: Coverage) -> tuple[xr.DataArray, Legend]:
    """Map with time first and its legend, checked: on the grid of the coverage, two times or more."""
    check_kind(land_cover, "land_cover")
    check_dims(land_cover, "time", "y", "x")
    check_grid(land_cover, share, "land_cover")
    if land_cover.dtype != np.uint8:
        raise InputRefused(f"a land-cover map is uint8, got {land_cover.dtype}; make one with geococa.as_land_cover")
    if land_cover.sizes["time"] < 2:
        raise InputRefused("change needs a map of at least two times, got one")
    return land_cover.transpose("time", "y", "x"), Legend.from_attrs(land_cover.attrs)


def lasting(codes: np.ndarray, seen: np.ndarray, t: int, before: int, after: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether the times around a step from ``t`` to ``t + 1`` agree with it, and whether all of them were observed."""
    first, last = t - before + 1, t + after
    if first < 0 or last >= codes.shape[0]:
        nothing = np.zeros(codes.shape[1], dtype=bool)
        return nothing, nothing
    old = (codes[first : t + 1] == codes[t]).all(axis=0)
    new = (codes[t + 1 : last + 1] == codes[t + 1]).all(axis=0)
    return np.asarray(old & new), np.asarray(seen[first : last + 1].all(axis=0))


def unseen(unobserved_ha: np.ndarray, share: Coverage, total: np.ndarray) -> np.ndarray:
    """Hectares not observed; a zone on the raster that no cell holds was not observed at all."""
    return np.where((total == 0)[None, :], share.inside_ha[None, :], unobserved_ha)


def interval_coords(maps: xr.DataArray) -> dict[str, object]:
    """Coordinates of the steps: the later time of each, and the earlier one."""
    if "time" not in maps.coords:
        return {}
    return {"time": maps["time"].values[1:], "from_time": ("time", maps["time"].values[:-1])}
