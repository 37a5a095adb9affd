"""Areas on the WGS84 ellipsoid: between parallels, inside rings, and the scale of transverse Mercator.

On the ellipsoid the area between the equator and latitude φ, per radian of longitude, has the closed form
``A(φ) = b²/2 · (sin φ / (1 - e² sin² φ) + artanh(e sin φ) / e)``; R² times the sine of the authalic latitude is the
same thing. A ring's area is then the line integral of ``A dλ`` around it (Green's theorem). For rings in another
plane the integrand is the surface's area density, given there as a Chebyshev series and integrated once along x.

References
----------
Snyder, J. P. (1987). Map projections: a working manual. U.S. Geological Survey Professional Paper 1395.
Karney, C. F. F. (2011). Transverse Mercator with an accuracy of a few nanometers. Journal of Geodesy 85, 475-485.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = [
    "FLATTENING",
    "SEMI_MAJOR_M",
    "chebyshev_table",
    "lonlat_ring_areas",
    "parallel_band_areas",
    "surface_ring_areas",
    "tmerc_density",
]

SEMI_MAJOR_M = 6378137.0
FLATTENING = 1.0 / 298.257223563
_E2 = FLATTENING * (2.0 - FLATTENING)
_E = np.sqrt(_E2)
_B2 = (SEMI_MAJOR_M * (1.0 - FLATTENING)) ** 2

# Gauss-Legendre nodes and weights on -1..1, 2 and 5 of them
_X2 = 0.5773502691896257
_X5 = np.array([-0.9061798459386640, -0.5384693101056831, 0.0, 0.5384693101056831, 0.9061798459386640])
_W5 = np.array([0.2369268850561891, 0.4786286704993665, 0.5688888888888889, 0.4786286704993665, 0.2369268850561891])


@inline
def _area_to_equator(latitude: Any) -> Any:
    """m² between the equator and a latitude (radians) per radian of longitude."""
    sine = np.sin(latitude)
    return 0.5 * _B2 * (sine / (1.0 - _E2 * sine * sine) + np.arctanh(_E * sine) / _E)


@inline
def _density(latitude: Any) -> Any:
    """m² per radian of latitude and radian of longitude: the product of both radii of curvature and cos φ."""
    sine = np.sin(latitude)
    inner = 1.0 - _E2 * sine * sine
    return _B2 * np.cos(latitude) / (inner * inner)


@kernel
def parallel_band_areas(latitude: Any, width_deg: Any, out: Any) -> None:
    """Area of cells bounded by parallels and meridians.

    The density is integrated, since the difference of two areas to the equator loses eight digits for small cells.

    Parameters
    ----------
    latitude : float64[rows + 1]
        Latitudes of the borders of the rows, degrees.
    width_deg : float
        Width of the cells, degrees of longitude.
    out : float64[rows]
        Areas in m², positive whichever way the rows run.
    """
    width = np.abs(np.radians(width_deg))
    for row in range(latitude.size - 1):
        first, last = np.radians(latitude[row]), np.radians(latitude[row + 1])
        pieces = 1 + int(np.abs(last - first) / 0.03)
        step = (last - first) / pieces
        total = 0.0
        for piece in range(pieces):
            middle = first + (piece + 0.5) * step
            for node in range(5):
                total += _W5[node] * _density(middle + 0.5 * step * _X5[node])
        out[row] = np.abs(0.5 * step * total) * width


@inline
def _edge_lonlat(lon0: Any, lat0: Any, lon1: Any, lat1: Any) -> Any:
    """Integral of A dλ along the edge that is straight in longitude and latitude (radians)."""
    rise = lat1 - lat0
    if np.abs(rise) < 1e-3:
        middle, half = 0.5 * (lat0 + lat1), 0.5 * rise * _X2
        return 0.5 * (lon1 - lon0) * (_area_to_equator(middle - half) + _area_to_equator(middle + half))
    pieces = 1 + int(np.abs(rise) / 0.05)
    step = rise / pieces
    total = 0.0
    for piece in range(pieces):
        middle = lat0 + (piece + 0.5) * step
        for node in range(5):
            total += _W5[node] * _area_to_equator(middle + 0.5 * step * _X5[node])
    return 0.5 * (lon1 - lon0) / pieces * total


@kernel
def lonlat_ring_areas(lon: Any, lat: Any, ring_offsets: Any, out: Any) -> None:
    """Ellipsoidal area of rings whose edges are straight in longitude and latitude.

    Parameters
    ----------
    lon, lat : float64[n]
        Vertices in degrees; every ring closed, without jumps of longitude.
    ring_offsets : int64[rings + 1]
        First vertex of each ring, and the end.
    out : float64[rings]
        Signed areas in m², positive for counter-clockwise rings.
    """
    for ring in range(ring_offsets.size - 1):
        first, last = ring_offsets[ring], ring_offsets[ring + 1]
        total = 0.0
        if last - first > 3:
            # the area down to the ring's own first parallel, not to the equator: small rings keep their digits
            base = _area_to_equator(np.radians(lat[first]))
            for i in range(first, last - 1):
                lon0, lon1 = np.radians(lon[i]), np.radians(lon[i + 1])
                if lon0 != lon1:
                    total -= _edge_lonlat(lon0, np.radians(lat[i]), lon1, np.radians(lat[i + 1])) - base * (lon1 - lon0)
        out[ring] = total


@inline
def _chebyshev(coefficients: Any, u: Any, v: Any) -> Any:
    """Value of a two-dimensional Chebyshev series, rows of ``coefficients`` in ``v``, columns in ``u`` (Clenshaw)."""
    rows, columns = coefficients.shape
    outer1, outer2 = 0.0, 0.0
    for i in range(rows - 1, -1, -1):
        inner1, inner2 = 0.0, 0.0
        for j in range(columns - 1, 0, -1):
            inner1, inner2 = coefficients[i, j] + 2.0 * u * inner1 - inner2, inner1
        value = coefficients[i, 0] + u * inner1 - inner2
        if i > 0:
            outer1, outer2 = value + 2.0 * v * outer1 - outer2, outer1
        else:
            outer1 = value + v * outer1 - outer2
    return outer1


@kernel
def chebyshev_table(coefficients: Any, u: Any, v: Any, out: Any) -> None:
    """Values of a two-dimensional Chebyshev series at all pairs of ``u`` and ``v``.

    A matrix product would do, but its rounding depends on how many rows are asked for at once.

    Parameters
    ----------
    coefficients : float64[rows, columns]
        Coefficients, rows in v, columns in u.
    u, v : float64[m], float64[n]
        Places, in -1..1.
    out : float64[n, m]
        Values.
    """
    rows, columns = coefficients.shape
    series = np.empty(columns)
    for i in range(v.size):
        for j in range(columns):
            one, two = 0.0, 0.0
            for k in range(rows - 1, 0, -1):
                one, two = coefficients[k, j] + 2.0 * v[i] * one - two, one
            series[j] = coefficients[0, j] + v[i] * one - two
        for j in range(u.size):
            one, two = 0.0, 0.0
            for k in range(columns - 1, 0, -1):
                one, two = series[k] + 2.0 * u[j] * one - two, one
            out[i, j] = series[0] + u[j] * one - two


@inline
def _bend(coefficients: Any) -> Any:
    """Upper bound of the second derivatives of a Chebyshev series: T_n' is at most n², T_n'' at most n² (n² - 1) / 3."""
    total = 0.0
    for i in range(coefficients.shape[0]):
        for j in range(coefficients.shape[1]):
            one, two = np.float64(i * i), np.float64(j * j)
            bend = one * (one - 1.0) / 3.0 + 2.0 * one * two + two * (two - 1.0) / 3.0
            total += bend * np.abs(coefficients[i, j])
    return total


@inline
def _along(coefficients: Any, u: float, v: float, run: float, rise: float, base: float, straight: float) -> Any:
    """Integral of the series minus ``base`` over v, along an edge from (u, v); ``straight`` edges need one point."""
    length = max(np.abs(run), np.abs(rise))
    if length < straight:
        return rise * (_chebyshev(coefficients, u + 0.5 * run, v + 0.5 * rise) - base)
    if length < 1e-2:
        near, far = 0.5 - 0.5 * _X2, 0.5 + 0.5 * _X2
        value = _chebyshev(coefficients, u + near * run, v + near * rise)
        value += _chebyshev(coefficients, u + far * run, v + far * rise)
        return rise * (0.5 * value - base)
    pieces = 1 + int(length / 0.1)
    value = 0.0
    for piece in range(pieces):
        for node in range(5):
            side = (piece + 0.5 + 0.5 * _X5[node]) / pieces
            value += 0.5 * _W5[node] * (_chebyshev(coefficients, u + side * run, v + side * rise) - base)
    return rise * value / pieces


@kernel
def surface_ring_areas(x: Any, y: Any, ring_offsets: Any, coefficients: Any, scale: Any, frame: Any, out: Any) -> None:
    """Area of rings on a surface whose area density, integrated once along x, is a Chebyshev series.

    Parameters
    ----------
    x, y : float64[n]
        Vertices; every ring closed.
    ring_offsets : int64[rings + 1]
        First vertex of each ring, and the end.
    coefficients : float64[rows, columns]
        Chebyshev coefficients of the integral of the density along u, rows in v, columns in u.
    scale : float64[4]
        ``u = x * scale[0] + scale[1]`` and ``v = y * scale[2] + scale[3]``.
    frame : float64[4]
        Least u, least v, largest u, largest v of the part of the plane that counts. An edge beyond its sides acts on the
        side, one above or below it not at all: that cuts rings at the frame without making new ones.
    out : float64[rings]
        Signed integrals over u and v.
    """
    u_low, v_low, u_high, v_high = frame
    cuts = np.empty(4)
    # the middle of an edge stands for its mean to bend length² / 24: no more than 1e-11 of the largest value
    largest = 1e-300
    for coefficient in coefficients.flat:
        largest = max(largest, np.abs(coefficient))
    straight = min(1e-3, np.sqrt(24e-11 * largest / max(_bend(coefficients), 1e-300)))
    for ring in range(ring_offsets.size - 1):
        first, last = ring_offsets[ring], ring_offsets[ring + 1]
        total = 0.0
        if last - first > 3:
            u0 = min(max(x[first] * scale[0] + scale[1], u_low), u_high)
            v0 = min(max(y[first] * scale[2] + scale[3], v_low), v_high)
            base = _chebyshev(coefficients, u0, v0)
            for i in range(first, last - 1):
                u, v = x[i] * scale[0] + scale[1], y[i] * scale[2] + scale[3]
                run, rise = (x[i + 1] - x[i]) * scale[0], (y[i + 1] - y[i]) * scale[2]
                if rise == 0.0:
                    continue
                # shares of the edge between which it lies in the frame's rows
                one, two = (v_low - v) / rise, (v_high - v) / rise
                begin, end = max(0.0, min(one, two)), min(1.0, max(one, two))
                if begin >= end:
                    continue
                ends_low, ends_high = min(u + begin * run, u + end * run), max(u + begin * run, u + end * run)
                if ends_low >= u_low and ends_high <= u_high:
                    total += _along(
                        coefficients,
                        u + begin * run,
                        v + begin * rise,
                        (end - begin) * run,
                        (end - begin) * rise,
                        base,
                        straight,
                    )
                    continue
                cuts[0], cuts[1], cuts[2], cuts[3] = begin, end, end, end
                if run != 0.0:
                    left, right = (u_low - u) / run, (u_high - u) / run
                    cuts[1] = min(max(min(left, right), begin), end)
                    cuts[2] = min(max(max(left, right), begin), end)
                for part in range(3):
                    from_, to = cuts[part], cuts[part + 1]
                    if from_ >= to:
                        continue
                    start = min(max(u + from_ * run, u_low), u_high)
                    stop = min(max(u + to * run, u_low), u_high)
                    rest = (to - from_) * rise
                    total += _along(coefficients, start, v + from_ * rise, stop - start, rest, base, straight)
        out[ring] = total


@kernel
def tmerc_density(x: Any, y: Any, k0: Any, northing_m: Any, beta: Any, rectifying_m: Any, out: Any) -> None:
    """Ellipsoidal area per area of the plane, 1/k², of transverse Mercator on WGS84.

    Parameters
    ----------
    x, y : float64[n]
        Metres east of the central meridian and north of the false origin (false easting and northing taken off).
    k0 : float
        Scale on the central meridian.
    northing_m : float
        Meridian distance from the equator to the latitude of origin, metres (unscaled).
    beta : float64[6]
        Coefficients of the inverse series (Karney 2011, equation 36).
    rectifying_m : float
        Radius of the circle as long as a meridian (A in Karney).
    out : float64[n]
        1/k².
    """
    for i in range(x.size):
        xi = (y[i] / k0 + northing_m) / rectifying_m
        eta = x[i] / k0 / rectifying_m
        xi1, eta1, p, q = xi, eta, 1.0, 0.0
        for j in range(1, 7):
            sine, cosine = np.sin(2 * j * xi), np.cos(2 * j * xi)
            sinh, cosh = np.sinh(2 * j * eta), np.cosh(2 * j * eta)
            xi1 -= beta[j - 1] * sine * cosh
            eta1 -= beta[j - 1] * cosine * sinh
            p -= 2 * j * beta[j - 1] * cosine * cosh
            q += 2 * j * beta[j - 1] * sine * sinh
        distance2 = np.sinh(eta1) ** 2 + np.cos(xi1) ** 2
        conformal = np.sin(xi1) / np.sqrt(distance2)
        # tangent of the latitude from that of the conformal latitude, by Newton's method
        tangent = conformal / (1.0 - _E2)
        for _ in range(6):
            root = np.sqrt(1.0 + tangent * tangent)
            sigma = np.sinh(_E * np.arctanh(_E * tangent / root))
            value = tangent * np.sqrt(1.0 + sigma * sigma) - sigma * root
            slope = (1.0 + (1.0 - _E2) * tangent * tangent) / ((1.0 - _E2) * np.sqrt(1.0 + value * value) * root)
            change = (conformal - value) * slope
            tangent += change
            if np.abs(change) < 1e-15 * max(1.0, np.abs(tangent)):
                break
        sine2 = tangent * tangent / (1.0 + tangent * tangent)
        scale2 = (k0 * rectifying_m / SEMI_MAJOR_M) ** 2 / (p * p + q * q)
        scale2 *= (1.0 - _E2 * sine2) * (1.0 + tangent * tangent) * distance2
        out[i] = 1.0 / scale2
