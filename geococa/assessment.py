"""The maps of a run against a reference sample: accuracy, and hectares with intervals for the archive and every zone."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa.accuracy import adjusted_area, domain_area, error_matrix, map_at_samples
from geococa.errors import AccuracyError, InputRefused
from geococa.grid import Grid
from geococa.legend import Legend

if TYPE_CHECKING:
    from collections.abc import Hashable

    from geopandas import GeoDataFrame

    from geococa.accuracy import ErrorMatrix

log = logging.getLogger("geococa")

_INTERVAL = "wilson"
"""Kind of interval: the normal one covers too little for a class as rare as coca."""

_MIN_SAMPLES = 30
"""Zones with fewer samples get no design-based number."""

__all__ = ["Assessment", "assess_map", "assess_run", "assess_zones"]


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
    direct : pandas.DataFrame
        ``zone, year, area_ha, se_ha, n`` of every zone with samples, however few: what `geococa.small_areas` starts from, not
        to be shown as it is.
    """

    classes: pd.DataFrame
    zones: pd.DataFrame
    matrices: dict[int, pd.DataFrame]
    direct: pd.DataFrame


def of_one_year(samples: GeoDataFrame, year: int | None) -> GeoDataFrame:
    """Samples of the year of a map, without the column.

    Raises
    ------
    AccuracyError
        The samples are of several years and none is named, or of other years only.
    """
    if "year" not in samples.columns:
        return samples
    years = sorted({int(one) for one in samples["year"].dropna().unique()})
    if year is None and len(years) > 1:
        raise AccuracyError(f"the samples are of the years {years}; say which of them the map is of")
    if year is not None and years and year not in years:
        raise AccuracyError(f"no sample is of {year}, only of {years}")
    chosen = samples if year is None or not years else samples[samples["year"].isna() | (samples["year"] == year)]
    return chosen.drop(columns="year").reset_index(drop=True)


def design_of(samples: pd.DataFrame) -> str:
    """Design to estimate by: samples that say they were drawn without strata are weighed by the map's classes afterwards.

    Raises
    ------
    AccuracyError
        The samples are of several designs, or of an unknown one.
    """
    if "design" not in samples.columns:
        return "stratified"
    found = sorted({str(one) for one in samples["design"].dropna().unique()})
    known = {"stratified": "stratified", "simple": "post_stratified", "systematic": "post_stratified"}
    if len(found) != 1 or found[0] not in known:
        raise AccuracyError(
            f"the samples must be of one design out of {', '.join(known)}, got {', '.join(found) or 'none'}"
        )
    return known[found[0]]


def assess_map(
    land_cover: xr.DataArray, samples: GeoDataFrame, *, class_name: str = "coca", year: int | None = None
) -> pd.DataFrame:
    """Accuracy of one map and hectares with intervals, from labelled sample points.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` with CF flags, 255 = not observed.
    samples : geopandas.GeoDataFrame
        Points with ``class``; ``stratum`` and ``stratum_area_ha`` where the strata are not the map's classes.
    class_name : str
        Class that the samples must hold where the map has it: without one there is no score.
    year : int, optional
        Year of the map, where the samples are of several.

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
    plain = of_one_year(samples, year)
    matrix = error_matrix(plain, land_cover, positive=class_name, design=design_of(plain))
    _say_left_out(matrix)
    matrix, areas = _with_areas(plain, land_cover, matrix)
    return adjusted_area(matrix, mapped_area_ha=areas, interval=_INTERVAL).reset_index()


def assess_zones(
    land_cover: xr.DataArray,
    samples: GeoDataFrame,
    zones: GeoDataFrame,
    *,
    class_name: str = "coca",
    year: int | None = None,
    min_samples: int = 30,
) -> pd.DataFrame:
    """Hectares of a class with intervals for every zone, from one sample of the whole map.

    Parameters
    ----------
    land_cover, samples, class_name, year
        As for `assess_map`.
    zones : geopandas.GeoDataFrame
        Zones as of `geococa.read_zones`; only their part on the map is estimated.
    min_samples : int
        Zones with fewer samples are "not estimable".

    Returns
    -------
    pandas.DataFrame
        As `geococa.accuracy.domain_area` gives it, with ``zone`` as a column.
    """
    from geococa.zones import coverage_fraction

    plain = of_one_year(samples, year)
    share = coverage_fraction(zones, Grid.from_xarray(land_cover), allow_outside=True)
    cells = np.broadcast_to(share.grid.cell_area_ha(), share.grid.shape)
    known = {}
    for zone in share.zone_names:
        row, col, part = share.cells(zone)
        known[str(zone)] = float((part * cells[row, col]).sum())
    places = plain.geometry.to_crs(zones.crs)
    figures = ("area_ha", "se_ha", "ci_low_ha", "ci_high_ha")
    lacking = dict.fromkeys(figures, np.nan) | {"n": 0, "n_class": 0, "status": "not estimable"}
    rows: list[dict[Any, Any]] = []
    for zone, shape in zip(zones["zone"], zones.geometry, strict=True):
        # zones may overlap, so each is a domain of its own
        inside = np.where(places.within(shape), "inside", "")
        matrix = error_matrix(
            plain.assign(_zone=inside),
            land_cover,
            positive=class_name,
            domain_column="_zone",
            design=design_of(plain),
        )
        if not rows:
            _say_left_out(matrix)
        seen = set() if matrix.domain is None else set(matrix.domain.tolist())
        if not known[str(zone)] > 0 or "inside" not in seen:
            rows.append(lacking | {"zone": str(zone)})
            continue
        matrix, strata_ha = _with_areas(plain, land_cover, matrix)
        table = domain_area(
            matrix,
            mapped_area_ha=strata_ha,
            class_name=class_name,
            domain_area_ha={"inside": known[str(zone)]},
            min_samples=min_samples,
        )
        rows.append(table.loc["inside"].to_dict() | {"zone": str(zone)})
    out = pd.DataFrame(rows)
    out.insert(0, "zone", out.pop("zone"))
    return out


def _say_left_out(matrix: ErrorMatrix) -> None:
    """Warn of samples that no pixel of the map answers for."""
    lost = {name.replace("_", " "): count for name, count in matrix.left_out.items() if count}
    if lost:
        log.warning(
            "%d of %d samples are left out (%s): the others of their strata stand for all the hectares of the strata, which holds "
            "only if the map covers what was sampled and misses none of it by the kind of ground",
            sum(lost.values()),
            matrix.n + sum(lost.values()),
            ", ".join(f"{count} {name}" for name, count in lost.items()),
        )


def _with_areas(
    samples: GeoDataFrame, land_cover: xr.DataArray, matrix: ErrorMatrix
) -> tuple[ErrorMatrix, dict[str, float]]:
    """Hectares of the strata, with the map classes that no sample lies in, and the matrix with the design that they allow."""
    areas = _map_areas(samples, land_cover, matrix)
    if matrix.design != "post_stratified":
        return matrix, areas
    counts = np.bincount(matrix.stratum, minlength=len(matrix.strata))
    bare = any(areas.get(name, 0.0) > 0 and n < 2 for name, n in zip(matrix.strata, counts, strict=True))
    # a sample drawn without strata may miss a rare class, or hit it once: then it is weighed as it was drawn
    return (replace(matrix, design="simple") if bare else matrix), areas


def _map_areas(samples: GeoDataFrame, land_cover: xr.DataArray, matrix: ErrorMatrix) -> dict[str, float]:
    """Hectares of the strata: as the sample says, else of the classes of the map."""
    mapped = _class_areas(land_cover)
    if "stratum_area_ha" not in samples:
        return {name: mapped.get(name, 0.0) for name in matrix.strata}
    if "stratum" not in samples:
        raise InputRefused(
            f"the samples have stratum_area_ha but no column stratum, only {', '.join(map(str, samples.columns))}; keep both "
            "columns of the sample as it was drawn, or leave out both where the strata are the classes of this map"
        )
    given = _stratum_areas(samples)
    if all(name in mapped and np.isclose(area, mapped[name], rtol=1e-6) for name, area in given.items()):
        # drawn from the whole of this map: its other classes are ground without a sample
        return {name: area for name, area in mapped.items() if area > 0} | given
    return given


def _class_areas(land_cover: xr.DataArray) -> dict[str, float]:
    """Hectares of every class of a map."""
    legend = Legend.from_attrs(land_cover.attrs)
    grid = Grid.from_xarray(land_cover)
    cells = np.broadcast_to(grid.cell_area_ha(), grid.shape)
    codes = np.asarray(land_cover.values)
    return {name: float(cells[codes == code].sum()) for name, code in zip(legend.names, legend.codes, strict=True)}


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
    whole = _lasting_strata(samples)
    classes, domains, direct, matrices = [], [], [], {}
    for year in sorted(int(y) for y in samples["year"].unique()):
        of_year = samples["year"] == year
        here = of_year & (names != "")
        drawn = _Drawn(samples[here], names[here].tolist(), whole or _stratum_areas(samples[of_year]), class_name)
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
            row, own = _zone_rows(zone, year, drawn, within[here], float(area[0]) if area.size else np.nan)
            domains.append(row)
            direct += own
    if not classes:
        raise AccuracyError(
            f"no year has assessment samples on observed pixels in every stratum, with {class_name} among them; "
            "check years, classes and CRS of the samples"
        )
    columns = ["zone", "year", "area_ha", "se_ha", "n"]
    return Assessment(
        pd.concat(classes, ignore_index=True), pd.DataFrame(domains), matrices, pd.DataFrame(direct, columns=columns)
    )


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
            design=design_of(self.samples),
        )


def _zone_rows(
    zone: Hashable, year: int, drawn: _Drawn, within: pd.Series[bool], area_ha: float
) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Design-based hectares of a class in one zone, or why there is none; and what its own samples say, however few."""
    figures = ("area_ha", "se_ha", "ci_low_ha", "ci_high_ha")
    unknown = {"zone": zone, "year": year, **dict.fromkeys(figures, np.nan), "n": int(within.sum())}
    unknown["status"] = "not estimable"
    if not area_ha > 0:
        return unknown, []
    try:
        table = domain_area(
            drawn.matrix(within),
            mapped_area_ha=drawn.strata_ha,
            class_name=drawn.class_name,
            domain_area_ha={"inside": area_ha},
            min_samples=1,
        )
    except AccuracyError:
        return unknown, []
    row = table.loc["inside"].to_dict()
    own: list[dict[str, object]] = [{"zone": zone, "year": year} | {n: row[n] for n in ("area_ha", "se_ha", "n")}]
    # all samples agreed: that proves neither that there is none nor that there is no error
    if not row["se_ha"] > 0 or row["n"] < _MIN_SAMPLES:
        return unknown, own
    return {"zone": zone, "year": year} | {n: row[n] for n in (*figures, "n", "status")}, own


def _stratum_areas(samples: GeoDataFrame) -> dict[str, float]:
    areas = samples.groupby("stratum")["stratum_area_ha"].first()
    return {str(name): float(value) for name, value in areas.items()}


def _lasting_strata(samples: GeoDataFrame) -> dict[str, float]:
    """Hectares of all strata where they are the same in all years, so that a year without one of them is seen to lack it."""
    if samples["year"].nunique() < 2 or samples.groupby("stratum")["stratum_area_ha"].nunique().max() != 1:
        return {}
    return _stratum_areas(samples)


def _mapped_classes(samples: GeoDataFrame, maps: Mapping[str, xr.DataArray]) -> pd.Series[str]:
    """Map class under every sample; empty where no tile observed it that year."""
    found = pd.Series("", index=samples.index, dtype=object)
    for _, land_cover in sorted(maps.items()):
        todo = found == ""
        if todo.any():
            names, usable, _ = map_at_samples(samples[todo], land_cover)
            found[todo] = np.where(usable, names, "")
    return found
