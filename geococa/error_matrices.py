"""Error matrices: what a map says at the sampled places beside what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from geococa._checks import check_kind, check_positives
from geococa.errors import AccuracyError, NoPositives
from geococa.extraction import sampled_pixels
from geococa.grid import Grid
from geococa.legend import NO_DATA, UNCLASSIFIED, Legend
from geococa.survey_estimators import DESIGNS

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

__all__ = ["ErrorMatrix", "error_matrix", "map_at_samples"]


@dataclass(frozen=True)
class ErrorMatrix:
    """Reference and map class of every sampled unit, with the design that it was drawn by.

    Parameters
    ----------
    classes : tuple of str
        Class names in order.
    reference, mapped : numpy.ndarray
        int64 ``(n,)``, class numbers.
    stratum : numpy.ndarray
        int64 ``(n,)``, stratum numbers.
    strata : tuple of str
        Names of the strata; the classes where the map was the stratification.
    design : str
        stratified, simple, systematic or post_stratified.
    domain : numpy.ndarray or None
        str ``(n,)``, zone of each unit, for estimates per park.
    left_out : dict of str to int
        Samples that could not be used, by reason.
    cluster : numpy.ndarray or None
        int64 ``(n,)``, cluster of each unit, where clusters of units were drawn.
    """

    classes: tuple[str, ...]
    reference: np.ndarray
    mapped: np.ndarray
    stratum: np.ndarray
    strata: tuple[str, ...]
    design: str = "stratified"
    domain: np.ndarray | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    cluster: np.ndarray | None = None

    @classmethod
    def from_counts(
        cls, counts: Any, classes: Sequence[str] | None = None, *, design: str = "stratified"
    ) -> ErrorMatrix:
        """Make an error matrix from a published table of counts, rows = map, columns = reference.

        Examples
        --------
        >>> ErrorMatrix.from_counts([[8, 2], [1, 9]], ["coca", "other"]).n
        20
        """
        names = [str(name) for name in (classes if classes is not None else getattr(counts, "columns", []))]
        table = np.asarray(counts)
        names = names or [f"class_{k + 1}" for k in range(len(table))]
        whole = np.issubdtype(table.dtype, np.number) and bool(np.all((table >= 0) & (table == np.round(table))))
        if table.ndim != 2 or table.shape != (len(names), len(names)) or not whole:
            raise AccuracyError(
                f"an error matrix is a square of counts, one row and column for each of {names}, got "
                f"{table.shape} {table.dtype}; give sampled units, not percentages"
            )
        if isinstance(counts, pd.DataFrame) and [str(name) for name in counts.index] != names:
            raise AccuracyError(
                f"rows {list(counts.index)} and columns {names} of the error matrix must be the same classes in order"
            )
        mapped, reference = np.indices(table.shape)
        repeats = table.astype(np.int64).ravel()
        mapped, reference = (np.repeat(code.ravel(), repeats) for code in (mapped, reference))
        _check_design(design)
        return cls(tuple(names), reference, mapped, mapped, tuple(names), design)

    @property
    def n(self) -> int:
        """Number of sampled units."""
        return len(self.reference)

    @property
    def counts(self) -> pd.DataFrame:
        """Sampled units, rows = map classes, columns = reference classes."""
        table = np.zeros((len(self.classes),) * 2, np.int64)
        np.add.at(table, (self.mapped, self.reference), 1)
        return pd.DataFrame(table, pd.Index(self.classes, name="map"), pd.Index(self.classes, name="reference"))

    def proportions(self, stratum_area_ha: Any) -> pd.DataFrame:
        """Estimated share of the area in each cell of the matrix, given the hectares of each stratum."""
        weights = self.stratum_weights(stratum_area_ha)
        per_unit = np.full(self.n, 1.0 / self.n)
        if self.design not in ("simple", "systematic"):
            per_unit = weights[self.stratum] / np.bincount(self.stratum, minlength=len(weights))[self.stratum]
        table = np.zeros((len(self.classes),) * 2)
        np.add.at(table, (self.mapped, self.reference), per_unit)
        return self.counts.astype(float) * 0 + table

    def stratum_areas_ha(self, area_ha: Any) -> np.ndarray:
        """Hectares of each stratum in order, from a mapping, a series or a sequence."""
        if isinstance(area_ha, xr.DataArray):
            area_ha = area_ha.to_series()
        if isinstance(area_ha, Mapping | pd.Series):
            given = {str(key): float(value) for key, value in area_ha.items()}
            unknown = {key: value for key, value in given.items() if key not in self.strata and value > 0}
            if unknown:
                raise AccuracyError(
                    f"mapped_area_ha has {unknown}, but no sample lies in such a stratum, only in {', '.join(self.strata)}; "
                    "an area without samples can't be estimated: add samples or join strata"
                )
            areas = np.array([given.get(name, 0.0) for name in self.strata])
        else:
            areas = np.asarray(area_ha, dtype=float)
        if (
            areas.shape != (len(self.strata),)
            or not np.all(np.isfinite(areas))
            or (areas < 0).any()
            or areas.sum() <= 0
        ):
            raise AccuracyError(
                f"mapped_area_ha must give the hectares of each of {', '.join(self.strata)}, got {area_ha!r}"
            )
        empty = [
            name
            for name, area, n in zip(self.strata, areas, np.bincount(self.stratum, minlength=len(areas)), strict=True)
            if n and not area
        ]
        if empty:
            raise AccuracyError(
                f"mapped_area_ha gives no area for {', '.join(empty)}, yet samples lie there; are these the areas of "
                "the map that the samples were drawn from?"
            )
        return areas

    def stratum_weights(self, area_ha: Any) -> np.ndarray:
        """Share of the area in each stratum."""
        areas = self.stratum_areas_ha(area_ha)
        weights: np.ndarray = areas / areas.sum()
        return weights


def _check_design(design: str) -> None:
    if design not in DESIGNS:
        raise AccuracyError(f"design must be one of {', '.join(DESIGNS)}, got {design!r}")


def error_matrix(
    reference: GeoDataFrame | Sequence[str] | np.ndarray | pd.Series[Any],
    predicted: xr.DataArray | Sequence[str] | np.ndarray | pd.Series[Any],
    classes: Sequence[str] | None = None,
    *,
    strata: Sequence[str] | None = None,
    domain: Sequence[str] | None = None,
    cluster: Sequence[Any] | None = None,
    design: str = "stratified",
    positive: str | None = "coca",
    class_column: str = "class",
    year_column: str = "year",
    stratum_column: str = "stratum",
    domain_column: str | None = None,
    cluster_column: str | None = None,
) -> ErrorMatrix:
    """Set reference classes beside map classes.

    Parameters
    ----------
    reference : geopandas.GeoDataFrame, or sequence of str
        Sample points with a class column, or the reference classes.
    predicted : xarray.DataArray, or sequence of str
        Land-cover map ``(y, x)`` or ``(time, y, x)`` to read under the points, or the map classes.
    classes : sequence of str, optional
        Class names in order; those found, in the map's order, where not given.
    strata : sequence of str, optional
        Stratum of each unit, where strata differ from the map classes; a column ``stratum`` of the samples is
        taken by itself.
    domain : sequence of str, optional
        Zone of each unit, for `domain_area`.
    cluster : sequence, optional
        Cluster of each unit, where clusters of units were drawn (segments, plots with several points): neighbours resemble each
        other, so errors taken as if each unit had been drawn by itself are too small. With the design ``stratified`` a
        cluster lies in one stratum; clusters drawn without regard to the strata are ``simple``, or ``post_stratified``.
    design : str
        How the units were drawn: ``stratified`` (a fixed number in each stratum), ``simple``, ``systematic``, or
        ``post_stratified`` (drawn without strata, weighted by them afterwards).
    positive : str, optional
        Class that the reference must hold, if it is one of the classes; None for no such demand.
    class_column, year_column, stratum_column, domain_column, cluster_column : str
        Columns of the samples. With a year column each sample reads its year's map.

    Returns
    -------
    ErrorMatrix

    Raises
    ------
    NoPositives
        There are no samples, or none of class ``positive``.
    AccuracyError
        Lengths differ, a class is not in ``classes``, or a sample has no class.

    Examples
    --------
    >>> error_matrix(["coca", "forest"], ["coca", "coca"]).counts.to_numpy().tolist()
    [[1, 1], [0, 0]]
    """
    _check_design(design)
    left_out: dict[str, int] = {}
    if isinstance(predicted, xr.DataArray) and hasattr(reference, "geometry"):
        samples: GeoDataFrame = reference
        names, usable, left_out = map_at_samples(samples, predicted, year_column=year_column)
        samples = samples[usable]
        if class_column not in samples.columns:
            raise AccuracyError(
                f"the samples have no column {class_column!r}, only {', '.join(map(str, samples.columns))}"
            )
        truth, mapped = _texts(samples[class_column], "reference class"), names[usable]
        strata = samples[stratum_column] if strata is None and stratum_column in samples.columns else strata
        domain = samples[domain_column] if domain is None and domain_column else domain
        cluster = samples[cluster_column] if cluster is None and cluster_column else cluster
        classes = classes if classes is not None else Legend.from_attrs(predicted.attrs).names
    else:
        truth, mapped = _texts(reference, "reference class"), _texts(predicted, "map class")
    if len(truth) == 0:
        raise NoPositives(
            "there is no reference sample on an observed pixel of the map, so no accuracy exists; check years and CRS "
            f"of the samples{f' ({left_out})' if left_out else ''}"
        )
    order = _class_order(truth, mapped, classes)
    if positive is not None and positive in order:
        check_positives(truth, positive, where="the reference sample")
    return _matrix(truth, mapped, order, strata, domain, cluster, design, left_out)


def _texts(values: Any, what: str | None) -> np.ndarray:
    """Values as text; a missing one is no name: refused where ``what`` says what is missing, else empty."""
    column = pd.Series(np.asarray(values, dtype=object))
    missing = column.isna().to_numpy(dtype=bool)
    texts = np.array([str(one) for one in column.where(~missing, "")], dtype=object)
    blank = missing | np.array([not one.strip() for one in texts], dtype=bool)
    if what is not None and blank.any():
        raise AccuracyError(
            f"{int(blank.sum())} of {len(texts)} samples have no {what}; give it to each of them, or leave them out (then the rest "
            "is a probability sample only if they miss at random)"
        )
    return np.asarray(texts, dtype=str)


def _class_order(truth: np.ndarray, mapped: np.ndarray, classes: Sequence[str] | None) -> tuple[str, ...]:
    found = sorted({*truth.tolist(), *mapped.tolist()})
    if classes is None:
        return tuple(found)
    order = [str(name) for name in classes]
    # an observed pixel without a class is a stratum of the map, not an error of the caller
    extra = [name for name in found if name not in order]
    if extra not in ([], ["unclassified"]):
        raise AccuracyError(
            f"classes {', '.join(extra)} occur in the samples or the map but are not among {', '.join(order)}; rename "
            "them, or add them to classes"
        )
    return tuple(order + extra)


def _matrix(
    truth: np.ndarray,
    mapped: np.ndarray,
    order: tuple[str, ...],
    strata: Sequence[str] | None,
    domain: Sequence[str] | None,
    cluster: Sequence[Any] | None,
    design: str,
    left_out: dict[str, int],
) -> ErrorMatrix:
    stratum_names = _texts(strata, "stratum") if strata is not None else mapped
    # a unit in none of the zones has none, whatever a join left there
    zones = _texts(domain, None) if domain is not None else None
    groups = pd.factorize(np.asarray(cluster))[0].astype(np.int64) if cluster is not None else None
    lengths = {len(part) for part in (truth, mapped, stratum_names, zones, groups) if part is not None}
    if len(lengths) != 1:
        raise AccuracyError(
            f"reference, map, strata, domain and cluster must be of one length, got lengths {sorted(lengths)}"
        )
    if groups is not None and (groups < 0).any():
        raise AccuracyError(f"{int((groups < 0).sum())} units have no cluster; give the cluster of every unit")
    names = order if set(stratum_names.tolist()) <= set(order) else tuple(sorted(set(stratum_names.tolist())))
    number, place = ({name: k for k, name in enumerate(group)} for group in (order, names))
    codes = [
        np.array([table[name] for name in column], dtype=np.int64)
        for table, column in ((number, truth), (number, mapped), (place, stratum_names))
    ]
    return ErrorMatrix(order, codes[0], codes[1], codes[2], names, design, zones, left_out, groups)


def map_at_samples(
    samples: GeoDataFrame, land_cover: xr.DataArray, *, year_column: str = "year"
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Read a land-cover map under sample points.

    Parameters
    ----------
    samples : geopandas.GeoDataFrame
        Points; perhaps with a year.
    land_cover : xarray.DataArray
        uint8 ``(y, x)`` or ``(time, y, x)`` with CF flags, 255 = not observed.

    Returns
    -------
    names : numpy.ndarray
        object ``(n,)``, map class; empty where there is none.
    usable : numpy.ndarray
        bool ``(n,)``.
    left_out : dict of str to int
        Points ``outside`` the map, of ``other_year``, and on ``unobserved`` pixels.
    """
    check_kind(land_cover, "land_cover")
    grid = Grid.from_xarray(land_cover)
    legend = Legend.from_attrs(land_cover.attrs)
    points = samples.geometry.to_crs(grid.crs)
    if not (points.geom_type == "Point").all():
        raise AccuracyError(
            "accuracy needs sample points: pixels of one polygon are not independent samples; use one point a polygon"
        )
    pixels = sampled_pixels(points.to_numpy(), grid)
    slices = _slice_of(samples, land_cover, year_column)
    inside = np.zeros(len(samples), dtype=bool)
    inside[pixels.sample] = True
    row, col = np.zeros(len(samples), np.int64), np.zeros(len(samples), np.int64)
    row[pixels.sample], col[pixels.sample] = pixels.row, pixels.col
    dated = slices >= 0
    stack = land_cover if "time" in land_cover.dims else land_cover.expand_dims("time")
    data = stack.transpose("time", "y", "x").data
    good = np.flatnonzero(inside & dated)
    codes = np.full(len(samples), NO_DATA, dtype=np.int64)
    where = (slices[good], row[good], col[good])
    codes[good] = np.asarray(data.vindex[where].compute()) if hasattr(data, "vindex") else data[where]
    lookup = {UNCLASSIFIED: "unclassified", **dict(zip(legend.codes, legend.names, strict=True))}
    names = np.array([lookup.get(int(code), "") for code in codes], dtype=object)
    usable = inside & dated & (codes != NO_DATA)
    counts = {"outside": int((~inside).sum()), "other_year": int((inside & ~dated).sum())}
    return names, usable, counts | {"unobserved": int((inside & dated & (codes == NO_DATA)).sum())}


def _slice_of(samples: GeoDataFrame, land_cover: xr.DataArray, year_column: str) -> np.ndarray:
    """Time slice for each sample, -1 where its year is not mapped."""
    if "time" not in land_cover.coords:
        return np.zeros(len(samples), np.int64)
    years = np.atleast_1d(land_cover["time"].dt.year.values).astype(np.int64)
    if year_column not in samples.columns:
        if len(years) > 1:
            raise AccuracyError(
                f"the map has years {years.tolist()} but the samples have no {year_column}; select one year of the map, "
                "or give the samples a year"
            )
        return np.zeros(len(samples), np.int64)
    wanted = pd.to_numeric(samples[year_column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    if np.isnan(wanted).any() and len(years) > 1:
        raise AccuracyError(
            f"{int(np.isnan(wanted).sum())} samples have no year but the map has {years.tolist()}; select one year of the map"
        )
    return np.array(
        [0 if np.isnan(year) else next(iter(np.flatnonzero(years == year)), -1) for year in wanted], dtype=np.int64
    )
