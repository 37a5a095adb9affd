"""The maps of a run against a reference sample: accuracy, and hectares with intervals for the archive and every zone."""

from __future__ import annotations

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


def assess_map(land_cover: xr.DataArray, samples: GeoDataFrame) -> pd.DataFrame:
    """Accuracy of one map and hectares with intervals, from labelled sample points.

    Parameters
    ----------
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` with CF flags, 255 = not observed.
    samples : geopandas.GeoDataFrame
        Points with ``class``; ``stratum`` and ``stratum_area_ha`` where the strata are not the map's classes.

    Returns
    -------
    pandas.DataFrame
        One row a class, as `geococa.adjusted_area` gives it.
    """
    from geococa.grid import Grid
    from geococa.legend import Legend

    plain = samples.drop(columns="year", errors="ignore")
    matrix = error_matrix(plain, land_cover, positive=None)
    if "stratum_area_ha" in samples:
        return adjusted_area(matrix, mapped_area_ha=_stratum_areas(samples)).reset_index()
    legend = Legend.from_attrs(land_cover.attrs)
    grid = Grid.from_xarray(land_cover)
    cells = np.broadcast_to(grid.cell_area_ha(), grid.shape)
    codes = np.asarray(land_cover.values)
    mapped = {name: float(cells[codes == code].sum()) for name, code in zip(legend.names, legend.codes, strict=True)}
    return adjusted_area(matrix, mapped_area_ha={name: mapped[name] for name in matrix.strata}).reset_index()


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
        here = (samples["year"] == year) & (names != "")
        if not here.any():
            continue
        part = samples[here]
        strata = _stratum_areas(part)

        def matrix_of(
            domain: pd.Series[bool] | None = None, part: GeoDataFrame = part, here: pd.Series[bool] = here
        ) -> ErrorMatrix:
            where = None if domain is None else ["inside" if within else "" for within in domain[here]]
            return error_matrix(
                part["class"].tolist(),
                names[here].tolist(),
                strata=part["stratum"].tolist(),
                domain=where,
                positive=None,
            )

        matrix = matrix_of()
        matrices[year] = matrix.counts
        table = adjusted_area(matrix, mapped_area_ha=strata).reset_index()
        table.insert(0, "year", year)
        classes.append(table)
        for zone, within in inside.items():
            area = known.sel(zone=zone, time=str(year)).values.ravel()
            domains.append(
                _zone_row(zone, year, matrix_of(within), strata, float(area[0]) if area.size else np.nan, class_name)
            )
    if not classes:
        raise AccuracyError(
            "no assessment sample lies on an observed pixel of its year's map; check years and CRS of the samples"
        )
    return Assessment(pd.concat(classes, ignore_index=True), pd.DataFrame(domains), matrices)


def _zone_row(
    zone: Hashable, year: int, matrix: ErrorMatrix, strata: dict[str, float], area_ha: float, class_name: str
) -> dict[str, object]:
    """Design-based hectares of a class in one zone, or why there is none."""
    empty = {
        "zone": zone,
        "year": year,
        **dict.fromkeys(("area_ha", "se_ha", "ci_low_ha", "ci_high_ha"), np.nan),
        "n": 0,
    }
    if class_name not in matrix.classes or not area_ha > 0:
        return empty | {"status": "not estimable"}
    try:
        table = domain_area(matrix, mapped_area_ha=strata, class_name=class_name, domain_area_ha={"inside": area_ha})
    except AccuracyError:
        return empty | {"status": "not estimable"}
    row = table.loc["inside"].to_dict()
    if not row["se_ha"] > 0:
        # all samples agreed: that proves neither that there is none nor that there is no error
        return empty | {"n": int(row["n"]), "status": "not estimable"}
    return {"zone": zone, "year": year} | {
        name: row[name] for name in ("area_ha", "se_ha", "ci_low_ha", "ci_high_ha", "n", "status")
    }


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
