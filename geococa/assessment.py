"""The maps of a run against a reference sample: accuracy, and hectares with intervals for the archive and every zone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from geococa.accuracy import adjusted_area, domain_area, error_matrix, map_at_samples
from geococa.errors import AccuracyError, InputRefused

if TYPE_CHECKING:
    from collections.abc import Hashable

    from geopandas import GeoDataFrame

    from geococa.accuracy import ErrorMatrix

log = logging.getLogger("geococa")

_INTERVAL = "wilson"
"""Kind of interval: the normal one covers too little for a class as rare as coca."""

__all__ = ["Assessment", "assess_map", "assess_run"]


@dataclass
class Assessment:
    """What a reference sample says of the maps of a run.

    Attributes
    ----------
    classes : pandas.DataFrame
        One row a year and class: ``year, class, area_ha, se_ha, ci_low_ha, ci_high_ha``, accuracies, ``note``.
    zones : pandas.DataFrame
        One row a zone and year for the class of interest: ``zone, year, area_ha, se_ha, ci_low_ha, ci_high_ha, n, status``.
    matrices : dict of int to pandas.DataFrame
        Error matrix of each year: rows map, columns reference, counts.
    """

    classes: pd.DataFrame
    zones: pd.DataFrame
    matrices: dict[int, pd.DataFrame]


def assess_map(land_cover: xr.DataArray, samples: GeoDataFrame, *, class_name: str = "coca") -> pd.DataFrame:
    """Accuracy of one map and hectares with intervals, from labelled sample points.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` with CF flags, 255 = not observed.
    samples : geopandas.GeoDataFrame
        Points with ``class``; ``stratum`` and ``stratum_area_ha`` where the strata are not the map's classes.
    class_name : str
        Class that the samples must hold where the map has it: without one there is no score.

    Returns
    -------
    pandas.DataFrame
        One row a class, as `geococa.adjusted_area` gives it, with Wilson intervals.

    Raises
    ------
    NoPositives
        No sample is of ``class_name``.
    AccuracyError
        A stratum with area holds no sample.
    """
    from geococa.grid import Grid
    from geococa.legend import Legend

    plain = samples.drop(columns="year", errors="ignore")
    matrix = error_matrix(plain, land_cover, positive=class_name)
    if "stratum_area_ha" in samples:
        return adjusted_area(matrix, mapped_area_ha=_stratum_areas(samples), interval=_INTERVAL).reset_index()
    legend = Legend.from_attrs(land_cover.attrs)
    grid = Grid.from_xarray(land_cover)
    cells = np.broadcast_to(grid.cell_area_ha(), grid.shape)
    codes = np.asarray(land_cover.values)
    mapped = {name: float(cells[codes == code].sum()) for name, code in zip(legend.names, legend.codes, strict=True)}
    return adjusted_area(
        matrix, mapped_area_ha={name: mapped.get(name, 0.0) for name in matrix.strata}, interval=_INTERVAL
    ).reset_index()


def assess_run(
    samples: GeoDataFrame, maps: Mapping[str, xr.DataArray], areas: xr.Dataset, zones: GeoDataFrame, class_name: str
) -> Assessment:
    """Assess the yearly maps of a run with a stratified probability sample.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame
        Points with ``class``, ``year``, ``stratum`` and ``stratum_area_ha`` (hectares of the stratum).
    maps : mapping of str to xarray.DataArray
        Yearly maps ``(time, y, x)`` of each tile; a point reads the first tile, by id, that observed it.
    areas : xarray.Dataset
        Merged hectares of the run: the known area of every zone.
    zones : geopandas.GeoDataFrame
        Zones as of `geococa.read_zones`.
    class_name : str
        Class estimated for every zone.

    Returns
    -------
    Assessment

    Raises
    ------
    InputRefused
        A column is missing.

    Notes
    -----
    Points on unobserved pixels are left out: the estimate takes the observed part of a stratum for the whole of it.
    """
    missing = {"class", "year", "stratum", "stratum_area_ha"} - set(samples.columns)
    if missing:
        raise InputRefused(
            f"the assessment samples lack the columns {sorted(missing)}; a probability sample needs its class, year, stratum "
            "and the stratum's hectares ('geococa sample' writes them)"
        )
    names = _mapped_classes(samples, maps)
    inside = {
        zone: samples.geometry.to_crs(zones.crs).within(shape)
        for zone, shape in zip(zones["zone"], zones.geometry, strict=True)
    }
    known = areas["zone_ha"] - areas["outside_ha"]
    classes, domains, matrices = [], [], {}
    for year in sorted(int(y) for y in samples["year"].unique()):
        of_year = samples["year"] == year
        here = of_year & (names != "")
        drawn = _Drawn(samples[here], names[here].tolist(), _stratum_areas(samples[of_year]), class_name)
        try:
            matrix = drawn.matrix(positive=class_name)
            table = adjusted_area(matrix, mapped_area_ha=drawn.strata_ha, interval=_INTERVAL).reset_index()
        except AccuracyError as error:
            # no score rather than a wrong one; the other years stand
            log.warning("no accuracy for %d: %s", year, error)
            continue
        matrices[year] = matrix.counts
        table.insert(0, "year", year)
        classes.append(table)
        for zone, within in inside.items():
            area = known.sel(zone=zone, time=str(year)).values.ravel()
            domains.append(_zone_row(zone, year, drawn, within[here], float(area[0]) if area.size else np.nan))
    if not classes:
        raise AccuracyError(
            f"no year has assessment samples on observed pixels in every stratum, with {class_name} among them; "
            "check years, classes and CRS of the samples"
        )
    return Assessment(pd.concat(classes, ignore_index=True), pd.DataFrame(domains), matrices)


@dataclass(frozen=True)
class _Drawn:
    """The samples of one year that lie on observed pixels, and the design that they were drawn by."""

    samples: GeoDataFrame
    mapped: list[str]
    strata_ha: dict[str, float]
    class_name: str

    def matrix(self, within: pd.Series[bool] | None = None, positive: str | None = None) -> ErrorMatrix:
        """Error matrix, with a zone as domain where ``within`` says which samples lie in it."""
        return error_matrix(
            self.samples["class"].tolist(),
            self.mapped,
            strata=self.samples["stratum"].tolist(),
            domain=None if within is None else ["inside" if one else "" for one in within],
            positive=positive,
        )


def _zone_row(zone: Hashable, year: int, drawn: _Drawn, within: pd.Series[bool], area_ha: float) -> dict[str, object]:
    """Design-based hectares of a class in one zone, or why there is none."""
    figures = ("area_ha", "se_ha", "ci_low_ha", "ci_high_ha")
    unknown = {"zone": zone, "year": year, **dict.fromkeys(figures, np.nan), "n": int(within.sum())}
    unknown["status"] = "not estimable"
    if not area_ha > 0:
        return unknown
    try:
        table = domain_area(
            drawn.matrix(within),
            mapped_area_ha=drawn.strata_ha,
            class_name=drawn.class_name,
            domain_area_ha={"inside": area_ha},
        )
    except AccuracyError:
        return unknown
    row = table.loc["inside"].to_dict()
    # all samples agreed: that proves neither that there is none nor that there is no error
    return (
        {"zone": zone, "year": year} | {n: row[n] for n in (*figures, "n", "status")} if row["se_ha"] > 0 else unknown
    )


def _stratum_areas(samples: GeoDataFrame) -> dict[str, float]:
    areas = samples.groupby("stratum")["stratum_area_ha"].first()
    return {str(name): float(value) for name, value in areas.items()}


def _mapped_classes(samples: GeoDataFrame, maps: Mapping[str, xr.DataArray]) -> pd.Series[str]:
    """Map class under every sample; empty where no tile observed it that year."""
    found = pd.Series("", index=samples.index, dtype=object)
    for _, land_cover in sorted(maps.items()):
        todo = found == ""
        if todo.any():
            names, usable, _ = map_at_samples(samples[todo], land_cover)
            found[todo] = np.where(usable, names, "")
    return found
