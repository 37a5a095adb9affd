"""How many square metres of the WGS84 ellipsoid (or of a plane) lie behind a unit of a raster or map.

Transverse Mercator on WGS84 or GRS80 (UTM, EPSG:9377, EPSG:3116, ...) has ``1/k²`` of the Krüger series; longitude and
latitude the product of the radii of curvature; everything else the position on the ellipsoid as PROJ gives it, and the
area of its tangent parallelogram. This smooth function of the plane is kept as a Chebyshev series over the window
asked for, whose last coefficients tell how good it is (`AreaDensity.error`, mostly below 1e-10 relative).

A CRS on an unknown datum, such as the sphere of MODIS, is read as PROJ reads it: its longitudes and latitudes are
taken for those of WGS84. One on a known datum is brought to WGS84 by the shift that PROJ takes at the middle of the
window, one shift for all of it. So the hectares of a zone are those of the ellipsoid whatever the raster's own figure of
the earth.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine
from numpy.polynomial import chebyshev

from geococa.errors import InputRefused
from geococa.transforms import horizontal, is_lonlat, place, transform_between, unit_m

__all__ = ["ELLIPSOIDAL", "M2_PER_HA", "AreaDensity", "fit_density", "over_rings", "parse_measure"]

ELLIPSOIDAL = "ellipsoidal"
M2_PER_HA = 1e4
WORST_ERROR = 1e-9
"""A density known worse than this (relative) is refused."""
_GOOD_ERROR = 2e-11
_DEGREES = (6, 10, 16, 24, 36, 54, 80)
_SMALLEST_WINDOW_M = 30_000.0
_FEW_VERTICES = 20_000

Array = npt.NDArray[np.float64]
Sampler = Callable[[Array, Array], tuple[Array, ...]]


def parse_measure(area: str) -> pyproj.CRS | None:
    """Read ``"ellipsoidal"`` (None) or ``"planar:CRS"`` (the CRS in whose plane areas are wanted).

    Raises
    ------
    InputRefused
        The text is neither, or the CRS has no plane.
    """
    if area == ELLIPSOIDAL:
        return None
    kind, _, name = area.partition(":") if isinstance(area, str) else ("", "", "")
    if kind != "planar" or not name:
        raise InputRefused(f"area must be 'ellipsoidal' or 'planar:<CRS>' such as 'planar:EPSG:32618', got {area!r}")
    try:
        crs = pyproj.CRS.from_user_input(name)
    except pyproj.exceptions.CRSError as error:
        raise InputRefused(f"area={area!r}: {name!r} is not a coordinate reference system ({error})") from None
    if not crs.is_projected:
        raise InputRefused(
            f"area={area!r}: {crs.name} has no plane (it is not projected); name a projected CRS or use 'ellipsoidal'"
        )
    return crs


@dataclass(frozen=True)
class AreaDensity:
    """Area behind a unit of the plane, as a Chebyshev series over a window.

    Parameters
    ----------
    coefficients : float64 array (rows, columns)
        Chebyshev coefficients, m² per unit of ``x`` and unit of ``y``; rows in y, columns in x.
    window : tuple of float
        ``(x_low, y_low, x_high, y_high)`` where the series holds.
    error : float
        Estimated largest relative error inside the window.
    """

    coefficients: Array
    window: tuple[float, float, float, float]
    error: float

    def _scales(self) -> tuple[float, float, float, float]:
        x0, y0, x1, y1 = self.window
        return 2 / (x1 - x0), -(x0 + x1) / (x1 - x0), 2 / (y1 - y0), -(y0 + y1) / (y1 - y0)

    def at(self, x: Array, y: Array, *, cell: bool = False) -> Array:
        """Densities at every pair of ``y`` (rows) and ``x`` (columns); with ``cell`` the mean over unit squares."""
        from geococa._kernels import geodesy

        sx, ox, sy, oy = self._scales()
        series = self.coefficients
        if cell:
            # the mean over a square of side 1 is f + (f_xx + f_yy) / 24 and terms of the fourth order
            series = series.copy()
            for axis, scale in ((0, sy), (1, sx)):
                if self.coefficients.shape[axis] > 2:
                    bend = chebyshev.chebder(self.coefficients, 2, scale, axis)
                    series[: bend.shape[0], : bend.shape[1]] += bend / 24
        out = np.empty((np.size(y), np.size(x)))
        geodesy.chebyshev_table(np.ascontiguousarray(series), np.asarray(x) * sx + ox, np.asarray(y) * sy + oy, out)
        return out

    def ring_areas(
        self,
        x: Array,
        y: Array,
        ring_offsets: npt.NDArray[np.int64],
        frame: tuple[float, float, float, float] | None = None,
        threads: int = 1,
    ) -> Array:
        """Signed m² inside closed rings whose edges are straight in the plane.

        ``frame`` limits the plane to ``(x_low, y_low, x_high, y_high)``: what lies beyond does not count.
        """
        from geococa._kernels import geodesy

        sx, ox, sy, oy = self._scales()
        integral = np.asarray(chebyshev.chebint(self.coefficients, axis=1), np.float64)
        series = _without_rounding(integral, 1e-13 * float(np.abs(integral).max()))
        edges = (-np.inf, -np.inf, np.inf, np.inf)
        if frame is not None:
            edges = (frame[0] * sx + ox, frame[1] * sy + oy, frame[2] * sx + ox, frame[3] * sy + oy)
        out = np.empty(ring_offsets.size - 1)
        scale = np.array([sx, ox, sy, oy])

        def work(offsets: npt.NDArray[np.int64], part: Array) -> None:
            geodesy.surface_ring_areas(x, y, offsets, series, scale, np.array(edges), part)

        over_rings(work, ring_offsets, out, threads)
        return out / (sx * sy)


def over_rings(
    work: Callable[[npt.NDArray[np.int64], Array], None], ring_offsets: npt.NDArray[np.int64], out: Array, threads: int
) -> None:
    """Do ``work`` on runs of rings, in threads; each ring's value depends on no other."""
    if threads <= 1 or out.size < 2 or ring_offsets[-1] < _FEW_VERTICES:
        work(ring_offsets, out)
        return
    shares = np.linspace(0, ring_offsets[-1], 4 * threads + 1)
    cuts = np.unique(np.searchsorted(ring_offsets, shares)).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda run: work(ring_offsets[run[0] : run[1] + 1], out[run[0] : run[1]]), pairwise(cuts)))


def fit_density(
    crs: pyproj.CRS,
    transform: Affine,
    window: tuple[float, float, float, float],
    planar: pyproj.CRS | None = None,
    near: tuple[float, float] | None = None,
) -> AreaDensity:
    """Fit the area behind a unit square of ``(column, row)`` over a window.

    Parameters
    ----------
    crs : pyproj.CRS
        CRS of the raster or map.
    transform : affine.Affine
        From (column, row) to x, y of the CRS; the identity for a map in CRS units.
    window : tuple of float
        ``(column_low, row_low, column_high, row_high)``.
    planar : pyproj.CRS, optional
        Measure in the plane of this CRS; on the WGS84 ellipsoid where not given.
    near : tuple of float, optional
        x, y of the place whose datum shift counts; the middle of the window where not given.

    Returns
    -------
    AreaDensity

    Raises
    ------
    InputRefused
        The projection is not smooth over the window (it reaches beyond the projection's domain, or holds a cut).
    """
    wide = _widened(crs, transform, window)
    sample = _sampler(crs, transform, planar, near or _middle(transform, window))
    if _series(sample, wide, _DEGREES[0]) is None:
        wide = window  # near the edge of a projection's domain there is nothing to widen into
    best: AreaDensity | None = None
    for degree in _DEGREES:
        series = _series(sample, wide, degree)
        if series is None:
            break
        error = _tail(series)
        if best is None or error < best.error:
            best = AreaDensity(_without_rounding(series, 1e-14 * abs(series[0, 0])), wide, error)
        elif error > 4 * best.error and best.error < WORST_ERROR:
            break  # what is left is the rounding of positions, which higher degrees only amplify
        if best.error < _GOOD_ERROR:
            return best
    if best is not None and best.error < WORST_ERROR:
        return best
    found = "no position on the earth" if best is None else f"best relative error {best.error:.2g}"
    raise InputRefused(
        f"the area scale of {horizontal(crs).name!r} can't be followed over columns and rows "
        f"{tuple(float(f'{v:.6g}') for v in window)} ({found}, allowed {WORST_ERROR:g}): the window reaches the edge or a cut of the projection; crop it, or use "
        "another CRS"
    )


def _without_rounding(series: Array, limit: float) -> Array:
    """Leave out trailing terms below a limit: they are rounding, and cost time at every evaluation."""
    large = np.abs(series) > limit
    rows, columns = (int(np.flatnonzero(large.any(axis=axis)).max()) + 1 for axis in (1, 0))
    return np.ascontiguousarray(series[:rows, :columns])


def _widened(
    crs: pyproj.CRS, transform: Affine, window: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """Window of at least 30 km: over less, the rounding of PROJ's positions would show in their derivatives."""
    cell_m = abs(transform.determinant) ** 0.5 * (111_320.0 if crs.is_geographic else unit_m(crs))
    least = _SMALLEST_WINDOW_M / cell_m
    x0, y0, x1, y1 = window
    grow_x, grow_y = max(0.0, (least - (x1 - x0)) / 2), max(0.0, (least - (y1 - y0)) / 2)
    return x0 - grow_x, y0 - grow_y, x1 + grow_x, y1 + grow_y


def _middle(transform: Affine, window: tuple[float, float, float, float]) -> tuple[float, float]:
    """x, y of the middle of a window."""
    x, y = place(transform, (window[0] + window[2]) / 2, (window[1] + window[3]) / 2)
    return float(x), float(y)


def _sampler(crs: pyproj.CRS, transform: Affine, planar: pyproj.CRS | None, near: tuple[float, float]) -> Sampler:
    """Return a function of (column, row): one array of densities, or two or three of positions in metres."""
    jacobian = abs(transform.determinant)

    if planar is not None:
        onto, scale = transform_between(crs, planar, near=near), unit_m(planar)
        if horizontal(crs) == horizontal(planar) or crs.equals(planar, ignore_axis_order=True):
            return lambda columns, _: (np.full_like(columns, jacobian * scale * scale),)
        return lambda columns, rows: tuple(axis * scale for axis in onto(*place(transform, columns, rows)))
    if is_lonlat(crs):
        return lambda columns, rows: (_lonlat_density(place(transform, columns, rows)[1]) * jacobian,)
    parameters = _tmerc_parameters(horizontal(crs).to_wkt())
    if parameters is not None:
        area = jacobian * unit_m(crs) ** 2
        return lambda columns, rows: (_tmerc_density(*place(transform, columns, rows), parameters) * area,)
    onto = transform_between(crs, pyproj.CRS.from_epsg(4326), near=near)
    return lambda columns, rows: _geocentric(*onto(*place(transform, columns, rows)))


def _series(sample: Sampler, window: tuple[float, float, float, float], degree: int) -> Array | None:
    """Chebyshev coefficients of the density over a window; None where a position does not exist."""
    count = degree + 1
    nodes = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    vander = chebyshev.chebvander(nodes, degree)
    to_series = vander.T * (2.0 / count)
    to_series[0] /= 2.0
    x0, y0, x1, y1 = window
    columns, rows = np.meshgrid((x0 + x1) / 2 + nodes * (x1 - x0) / 2, (y0 + y1) / 2 + nodes * (y1 - y0) / 2)
    fields = sample(columns, rows)
    if not all(np.isfinite(field).all() for field in fields):
        return None
    if len(fields) == 1:
        density = fields[0]
    else:
        series = [to_series @ (field - field.mean()) @ to_series.T for field in fields]
        along = [vander @ _derivative(s, 1, 2 / (x1 - x0)) @ vander.T for s in series]
        down = [vander @ _derivative(s, 0, 2 / (y1 - y0)) @ vander.T for s in series]
        pairs = ((0, 1), (1, 2), (2, 0)) if len(series) == 3 else ((0, 1),)
        density = np.sqrt(sum(np.square(along[i] * down[j] - along[j] * down[i]) for i, j in pairs))
    out: Array = to_series @ density @ to_series.T
    return out


def _derivative(series: Array, axis: int, scale: float) -> Array:
    out = np.zeros_like(series)
    slope = chebyshev.chebder(series, 1, scale, axis)
    out[: slope.shape[0], : slope.shape[1]] = slope
    return out


def _tail(series: Array) -> float:
    """Size of the last two terms of each direction beside the first: what the series still leaves out."""
    size = np.abs(series)
    return float((size[-2:].sum() + size[:, -2:].sum()) / size[0, 0]) if size[0, 0] > 0 else np.inf


def _geocentric(lon: Array, lat: Array) -> tuple[Array, Array, Array]:
    """Geocentric coordinates of points on the WGS84 ellipsoid, metres."""
    from geococa._kernels import geodesy

    e2 = geodesy.FLATTENING * (2 - geodesy.FLATTENING)
    # PROJ marks what has no position by infinity
    known = np.isfinite(lon) & np.isfinite(lat)
    lam, phi = np.radians(np.where(known, lon, np.nan)), np.radians(np.where(known, lat, np.nan))
    normal = geodesy.SEMI_MAJOR_M / np.sqrt(1 - e2 * np.sin(phi) ** 2)
    return normal * np.cos(phi) * np.cos(lam), normal * np.cos(phi) * np.sin(lam), normal * (1 - e2) * np.sin(phi)


def _lonlat_density(lat: Array) -> Array:
    """m² per square degree at a latitude."""
    from geococa._kernels import geodesy

    e2 = geodesy.FLATTENING * (2 - geodesy.FLATTENING)
    phi = np.radians(lat)
    minor2 = geodesy.SEMI_MAJOR_M**2 * (1 - e2)
    out: Array = minor2 * np.cos(phi) / (1 - e2 * np.sin(phi) ** 2) ** 2 * (np.pi / 180) ** 2
    return out


@dataclass(frozen=True)
class _Tmerc:
    k0: float
    false_easting_m: float
    false_northing_m: float
    origin_m: float
    rectifying_m: float
    beta: tuple[float, ...]
    unit_m: float


def _rectifying() -> tuple[float, tuple[float, ...]]:
    """Rectifying radius in metres, and the coefficients of Karney (2011, equations 14 and 36) for WGS84."""
    from geococa._kernels import geodesy

    n = geodesy.FLATTENING / (2 - geodesy.FLATTENING)
    radius = geodesy.SEMI_MAJOR_M / (1 + n) * (1 + n**2 / 4 + n**4 / 64 + n**6 / 256)
    beta = (
        n / 2 - 2 * n**2 / 3 + 37 * n**3 / 96 - n**4 / 360 - 81 * n**5 / 512 + 96199 * n**6 / 604800,
        n**2 / 48 + n**3 / 15 - 437 * n**4 / 1440 + 46 * n**5 / 105 - 1118711 * n**6 / 3870720,
        17 * n**3 / 480 - 37 * n**4 / 840 - 209 * n**5 / 4480 + 5569 * n**6 / 90720,
        4397 * n**4 / 161280 - 11 * n**5 / 504 - 830251 * n**6 / 7257600,
        4583 * n**5 / 161280 - 108847 * n**6 / 3991680,
        20648693 * n**6 / 638668800,
    )
    return radius, beta


def _on_wgs84(crs: pyproj.CRS) -> bool:
    """Whether a CRS has the ellipsoid of WGS84, or that of GRS80, which differs by a tenth of a millimetre."""
    from geococa._kernels import geodesy

    own = crs.ellipsoid
    return (
        own is not None
        and abs(own.semi_major_metre - geodesy.SEMI_MAJOR_M) < 1e-3
        and abs(own.inverse_flattening - 1.0 / geodesy.FLATTENING) < 1e-5
    )


@lru_cache(maxsize=64)
def _tmerc_parameters(wkt: str) -> _Tmerc | None:
    """Constants of a transverse Mercator CRS whose geographic coordinates are those of WGS84, or None."""
    crs = pyproj.CRS.from_wkt(wkt)
    operation = crs.coordinate_operation
    base = crs.geodetic_crs
    if operation is None or base is None or operation.method_name != "Transverse Mercator":
        return None
    if not (_on_wgs84(base) and is_lonlat(base)):
        return None
    values = {p.name: float(p.value) * p.unit_conversion_factor for p in operation.params}
    try:
        lat0 = values["Latitude of natural origin"]
        k0 = values["Scale factor at natural origin"]
        east, north = values["False easting"], values["False northing"]
    except KeyError:
        return None
    radius, beta = _rectifying()
    return _Tmerc(k0, east, north, _meridian_distance_m(lat0), radius, beta, unit_m(crs))


def _meridian_distance_m(latitude: float) -> float:
    """Distance along the meridian from the equator to a latitude in radians."""
    from geococa._kernels import geodesy

    e2 = geodesy.FLATTENING * (2 - geodesy.FLATTENING)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    phi = latitude / 2 * (nodes + 1)
    radii = geodesy.SEMI_MAJOR_M * (1 - e2) / (1 - e2 * np.sin(phi) ** 2) ** 1.5
    return float(latitude / 2 * (weights @ radii))


def _tmerc_density(x: Array, y: Array, parameters: _Tmerc) -> Array:
    from geococa._kernels import geodesy

    east = np.ascontiguousarray(x * parameters.unit_m - parameters.false_easting_m).ravel()
    north = np.ascontiguousarray(y * parameters.unit_m - parameters.false_northing_m).ravel()
    out = np.empty(east.size)
    geodesy.tmerc_density(
        east, north, parameters.k0, parameters.origin_m, np.array(parameters.beta), parameters.rectifying_m, out
    )
    return out.reshape(x.shape)
