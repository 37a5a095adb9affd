"""Pictures for the report's map: land-cover maps copied into Web Mercator as small PNGs.

For looking only. Hectares are never taken from these pictures: Web Mercator stretches areas, and coca is drawn
larger than it is so that a small plot does not vanish when a tile of thousands of cells becomes a picture of hundreds.
"""

from __future__ import annotations

import base64
import io
import math
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
import xarray as xr

from geococa._checks import check_kind, optional_import
from geococa.errors import InputRefused
from geococa.grid import Grid
from geococa.legend import NO_DATA, Legend

__all__ = [
    "MercatorFrame",
    "change_codes",
    "map_payload",
    "mark_codes",
    "mercator_centres",
    "mercator_frame",
    "nearest_codes",
    "png_bytes",
    "zones_payload",
]

_HALF = 20037508.342789244
_NEW, _STABLE, _GONE = 1, 2, 3
_LEVELS = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True)
class MercatorFrame:
    """A Web Mercator picture of a grid: size, position, and where each of its pixels lies in the grid.

    Attributes
    ----------
    left, top, pixel : float
        EPSG:3857 metres: upper left corner and pixel size.
    shape : tuple of int
        Rows and columns of the picture.
    source : numpy.ndarray
        int64 (rows, columns), flat index of the source cell nearest to each pixel's centre, -1 outside.
    """

    left: float
    top: float
    pixel: float
    shape: tuple[int, int]
    source: np.ndarray

    @property
    def bounds(self) -> list[list[float]]:
        """``[[south, west], [north, east]]`` in degrees, as Leaflet wants it."""
        rows, columns = self.shape
        south, west = _degrees(self.left, self.top - rows * self.pixel)
        north, east = _degrees(self.left + columns * self.pixel, self.top)
        return [[south, west], [north, east]]


def mercator_frame(grid: Grid, side: int) -> MercatorFrame:
    """Frame of a grid whose longer side has at most ``side`` pixels (twice the grid's own resolution at most).

    Parameters
    ----------
    grid : Grid
        Grid of the map, any CRS.
    side : int
        Largest number of pixels on a side.
    """
    rows, columns = grid.shape
    to_mercator = pyproj.Transformer.from_crs(grid.crs, "EPSG:3857", always_xy=True)
    edge_r = np.concatenate([np.linspace(0, rows, 33)] * 2 + [np.zeros(33), np.full(33, rows)])
    edge_c = np.concatenate([np.zeros(33), np.full(33, columns), *[np.linspace(0, columns, 33)] * 2])
    x, y = to_mercator.transform(*_to_xy(grid, edge_c, edge_r))
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputRefused(
            f"a map in {grid.crs.name} reaches beyond Web Mercator and can't be drawn; leave it out of maps="
        )
    left, right, bottom, top = x.min(), x.max(), y.min(), y.max()
    longest = max(right - left, top - bottom)
    pixel = longest / min(side, 2 * max(rows, columns))
    shape = (max(1, math.ceil((top - bottom) / pixel)), max(1, math.ceil((right - left) / pixel)))
    px = left + (np.arange(shape[1]) + 0.5) * pixel
    py = top - (np.arange(shape[0]) + 0.5) * pixel
    back = pyproj.Transformer.from_crs("EPSG:3857", grid.crs, always_xy=True)
    gx, gy = back.transform(*(a.ravel() for a in np.meshgrid(px, py)))
    inverse = ~grid.transform
    finite = np.isfinite(gx) & np.isfinite(gy)
    gx, gy = np.where(finite, gx, 0.0), np.where(finite, gy, 0.0)
    column = np.floor(inverse.a * gx + inverse.b * gy + inverse.c).astype(np.int64)
    row = np.floor(inverse.d * gx + inverse.e * gy + inverse.f).astype(np.int64)
    inside = finite & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    source = np.where(inside, row * columns + column, -1).reshape(shape)
    return MercatorFrame(float(left), float(top), float(pixel), shape, source)


def nearest_codes(frame: MercatorFrame, codes: np.ndarray, outside: int) -> np.ndarray:
    """Copy codes (y, x) into the frame by nearest neighbour; ``outside`` beyond the grid."""
    picked = np.asarray(codes).ravel()[np.maximum(frame.source, 0)]
    return np.where(frame.source >= 0, picked, outside).astype(np.uint8)


def mercator_centres(grid: Grid, row: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres of cells in Web Mercator."""
    to_mercator = pyproj.Transformer.from_crs(grid.crs, "EPSG:3857", always_xy=True)
    x, y = to_mercator.transform(*_to_xy(grid, column + 0.5, row + 0.5))
    return np.asarray(x), np.asarray(y)


def mark_codes(
    frame: MercatorFrame, codes: np.ndarray, x: np.ndarray, y: np.ndarray, values: np.ndarray, order: Sequence[int]
) -> np.ndarray:
    """Codes of the nearest cells; the pixels under the cell centres (x, y) then take the cells' values, so that none is lost.

    Later codes in ``order`` win.
    """
    out = nearest_codes(frame, codes, 0)
    px = np.clip(((x - frame.left) / frame.pixel).astype(np.int64), 0, frame.shape[1] - 1)
    py = np.clip(((frame.top - y) / frame.pixel).astype(np.int64), 0, frame.shape[0] - 1)
    for code in order:
        chosen = values == code
        out[py[chosen], px[chosen]] = code
    return out


def change_codes(before: np.ndarray | None, now: np.ndarray, code: int) -> np.ndarray:
    """Cells of a class: 1 new, 2 stayed, 3 gone, 0 otherwise; cells not seen in either year are 0."""
    out = np.zeros(now.shape, dtype=np.uint8)
    if before is None:
        return out
    seen = (before != NO_DATA) & (now != NO_DATA)
    out[seen & (now == code)] = _NEW
    out[seen & (now == code) & (before == code)] = _STABLE
    out[seen & (now != code) & (before == code)] = _GONE
    return out


def png_bytes(codes: np.ndarray, colors: Mapping[int, tuple[int, int, int, int]]) -> bytes:
    """Encode uint8 codes (y, x) as a palette PNG; codes without a colour are transparent.

    The same codes always give the same bytes: no ancillary chunk, one filter, one compression level.

    References
    ----------
    ISO/IEC 15948:2004, Portable Network Graphics, section 11.
    """
    rows, columns = codes.shape
    used = np.unique(codes)
    index = np.zeros(256, dtype=np.uint8)
    index[used] = np.arange(len(used), dtype=np.uint8)
    rgba = np.array([colors.get(int(code), (0, 0, 0, 0)) for code in used], dtype=np.uint8)
    depth = next(d for d in (1, 2, 4, 8) if len(used) <= 1 << d)
    lines = np.zeros((rows, 1 + (columns * depth + 7) // 8), dtype=np.uint8)
    lines[:, 1:] = _pack(index[codes], depth)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", columns, rows, depth, 3, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"PLTE", rgba[:, :3].tobytes()),
            chunk(b"tRNS", rgba[:, 3].tobytes()),
            chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
            chunk(b"IEND", b""),
        ]
    )


def _pack(values: np.ndarray, depth: int) -> np.ndarray:
    if depth == 8:
        return values
    per_byte = 8 // depth
    padded = np.zeros((values.shape[0], -(-values.shape[1] // per_byte) * per_byte), dtype=np.uint8)
    padded[:, : values.shape[1]] = values
    out = np.zeros((padded.shape[0], padded.shape[1] // per_byte), dtype=np.uint8)
    for i in range(per_byte):
        out |= padded[:, i::per_byte] << np.uint8(8 - depth * (i + 1))
    return out


def map_payload(
    maps: xr.DataArray | Mapping[str, xr.DataArray],
    class_name: str,
    *,
    pictures: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
    side: int = 1000,
    budget: int = 3_000_000,
) -> dict[str, Any]:
    """Pictures of every tile and year as base64 PNGs, made smaller until all of them fit in ``budget`` characters.

    Parameters
    ----------
    maps : xarray.DataArray or mapping of str to xarray.DataArray
        Land-cover maps ((time,) y, x).
    class_name : str
        Class drawn so that no pixel of it is lost.
    pictures : xarray.DataArray or mapping of str to xarray.DataArray, optional
        Background of a tile, (band, y, x), three bands.
    side : int
        Largest side of a picture in pixels, for one tile; less for many.
    budget : int
        Characters of base64 for all pictures together.

    Returns
    -------
    dict
        ``years`` (list of int or None), ``legend`` (name, colour), ``tiles``: per tile the bounds and, per year,
        ``cover``, ``unobserved`` and the levels of ``coca`` and ``change`` (finest first).
    """
    tiles = maps if isinstance(maps, Mapping) else {"map": maps}
    if not tiles:
        return {}
    # one tile at a time: a mapping may read its maps when asked, and all of an archive would not fit in memory
    names = sorted(tiles, key=str)
    found: set[int | None] = set()
    legend: dict[str, str] = {}
    for name in names:
        array, _, own = _checked(str(name), tiles[name], class_name)
        found |= set(own)
        classes = Legend.from_attrs(array.attrs).with_unclassified()
        legend.update(dict(zip(classes.names, classes.colors, strict=True)))
    years = sorted(found, key=lambda y: (y is not None, y))
    size = int(max(160, side / math.sqrt(len(tiles))))
    for _ in range(8):
        drawn = {
            str(name): _draw_tile(*_checked(str(name), tiles[name], class_name), class_name, size) for name in names
        }
        yearly = [year for tile in drawn.values() for year in tile["years"].values()]
        total = sum(len(png) for year in yearly for png in _strings(year))
        if total <= budget or size <= 64:
            break
        size = max(64, int(size * min(0.85, 0.95 * math.sqrt(budget / total))))
    backgrounds = pictures if isinstance(pictures, Mapping) else {} if pictures is None else {"map": pictures}
    limits = _stretch(backgrounds[name] for name in sorted(backgrounds, key=str))
    for name, tile in drawn.items():
        known = name in backgrounds
        tile["picture"], tile["picture_bounds"] = _background(backgrounds[name], size, limits) if known else ("", [])
    return {
        "years": years,
        "legend": sorted(legend.items(), key=lambda item: (item[0] == "unclassified",)),
        "tiles": list(drawn.values()),
        "picture": any(tile["picture"] for tile in drawn.values()),
    }


def zones_payload(zones: Any, anchors: Mapping[str, str], pixel_m: float) -> dict[str, Any]:
    """Outlines of zones as GeoJSON in degrees, simplified to what the picture can show."""
    import shapely

    if zones.crs is None:
        raise InputRefused("zones have no coordinate reference system; set one with zones.set_crs(...)")
    shapes = zones.to_crs("EPSG:4326")
    tolerance = max(pixel_m, 10.0) / 111_320.0 / 2
    features = []
    for name, shape in zip(shapes["zone"].astype(str), shapes.geometry, strict=True):
        if name not in anchors or shape is None or shape.is_empty:
            continue
        simple = shapely.simplify(shape, tolerance, preserve_topology=True)
        rounded = shapely.set_precision(simple, 1e-6, mode="pointwise")
        features.append(
            {
                "type": "Feature",
                "properties": {"zone": name, "anchor": anchors[name]},
                "geometry": _rounded(shapely.geometry.mapping(rounded)),
            }
        )
    return {"type": "FeatureCollection", "features": features}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def _checked(name: Any, array: xr.DataArray, class_name: str) -> tuple[xr.DataArray, Grid, list[int | None]]:
    check_kind(array, "land_cover")
    if array.dtype != np.uint8 or not {"y", "x"} <= set(array.dims):
        raise InputRefused(
            f"map {name!r} is {array.dtype} {tuple(array.dims)}, expected a uint8 land-cover map "
            "(time, y, x); make one with geococa.as_land_cover"
        )
    Legend.from_attrs(array.attrs).code(class_name)
    dated = array if "time" in array.dims else array.expand_dims("time")
    years: list[int | None] = [None]
    if "time" in dated.coords:
        dated = dated.sortby("time")
        years = [int(year) for year in dated["time"].dt.year.values]
    return dated.transpose("time", "y", "x"), Grid.from_xarray(array), years


def _draw_tile(array: xr.DataArray, grid: Grid, years: list[int | None], class_name: str, side: int) -> dict[str, Any]:
    legend = Legend.from_attrs(array.attrs).with_unclassified()
    code = legend.code(class_name)
    frames = [mercator_frame(grid, max(16, int(side * level))) for level in _LEVELS]
    frames = [f for i, f in enumerate(frames) if i == 0 or f.shape != frames[i - 1].shape]
    colors = {c: (*_rgb(color), 255) for c, color in zip(legend.codes, legend.colors, strict=True)}
    coca = {1: (*_rgb(legend.colors[legend.codes.index(code)]), 255)}
    change = {
        _NEW: (*_rgb(CHANGE_COLORS["new"]), 255),
        _STABLE: (*_rgb(CHANGE_COLORS["stable"]), 255),
        _GONE: (*_rgb(CHANGE_COLORS["gone"]), 255),
    }
    pictures, before = {}, None
    for position, year in enumerate(years):
        now = np.asarray(array.isel(time=position).values)
        cover = nearest_codes(frames[0], now, NO_DATA)
        unseen = nearest_codes(frames[0], (now == NO_DATA).astype(np.uint8), 0)
        changed = change_codes(before, now, code)
        is_coca = (now == code).astype(np.uint8)
        # a full tile has a million such cells: their places are worked out once for all levels
        row, column = np.nonzero(is_coca | changed)
        x, y = mercator_centres(grid, row, column)
        coca_here, change_here = is_coca[row, column], changed[row, column]
        order = (_STABLE, _GONE, _NEW)
        pictures[str(year)] = {
            "cover": _encode(cover, colors),
            "unobserved": _encode(_hatched(unseen), _HATCH),
            "coca": [_encode(mark_codes(f, is_coca, x, y, coca_here, (1,)), coca) for f in frames],
            "change": [_encode(mark_codes(f, changed, x, y, change_here, order), change) for f in frames]
            if before is not None
            else [],
        }
        before = now
    return {
        "bounds": frames[0].bounds,
        "levels": [{"bounds": f.bounds, "columns": f.shape[1]} for f in frames],
        "pixel_m": frames[0].pixel,
        "years": pictures,
    }


def _stretch(pictures: Iterable[xr.DataArray]) -> list[tuple[float, float]]:
    """2nd and 98th percentile of each band over all pictures, so that neighbouring tiles look alike."""
    seen: list[list[np.ndarray]] = [[], [], []]
    for picture in pictures:
        if picture.ndim != 3 or picture.shape[0] != 3:
            raise InputRefused(f"a background picture must be (band, y, x) with three bands, got {dict(picture.sizes)}")
        for i in range(3):
            band = np.asarray(picture.isel({picture.dims[0]: i}).values, dtype=np.float32).ravel()
            seen[i].append(band[:: max(1, band.size // 50_000)])
    out = []
    for parts in seen:
        values = np.concatenate(parts) if parts else np.empty(0)
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [2, 98]) if values.size else (0.0, 1.0)
        out.append((float(low), float(high)))
    return out


def _background(
    picture: xr.DataArray, side: int, limits: Sequence[tuple[float, float]]
) -> tuple[str, list[list[float]]]:
    """Three bands as a JPEG data URI, each stretched between its limits; no data is grey."""
    image = optional_import("PIL.Image", "report")
    frame = mercator_frame(Grid.from_xarray(picture), side)
    out = np.full((*frame.shape, 3), 200, dtype=np.uint8)
    for i in range(3):
        band = np.asarray(picture.isel({picture.dims[0]: i}).values, dtype=np.float32).ravel()
        low, high = limits[i]
        picked = np.where(frame.source >= 0, band[np.maximum(frame.source, 0)], np.nan)
        scaled = np.clip((picked - low) / max(high - low, 1e-9), 0, 1) * 255
        out[..., i] = np.where(np.isfinite(scaled), np.nan_to_num(scaled), 200).astype(np.uint8)
    buffer = io.BytesIO()
    image.fromarray(out).save(buffer, "JPEG", quality=72, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"), frame.bounds


CHANGE_COLORS = {"new": "#d55e00", "stable": "#7b3294", "gone": "#0072b2"}
"""Colours of new, lasting and vanished coca: apart for every common colour-vision deficiency."""

_HATCH = {1: (96, 99, 107, 255), 2: (226, 228, 233, 235)}


def _hatched(mask: np.ndarray) -> np.ndarray:
    """Diagonal hatching, so that unobserved land differs from every class by more than colour."""
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    return np.where(mask == 1, np.where((rows + columns) % 6 < 2, 1, 2), 0).astype(np.uint8)


def _encode(codes: np.ndarray, colors: Mapping[int, tuple[int, int, int, int]]) -> str:
    if not np.isin(codes, list(colors)).any():
        return ""
    return base64.b64encode(png_bytes(codes, colors)).decode("ascii")


def _strings(picture: Mapping[str, Any]) -> list[str]:
    return [picture["cover"], picture["unobserved"], *picture["coca"], *picture["change"]]


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _to_xy(grid: Grid, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    t = grid.transform
    return t.a * column + t.b * row + t.c, t.d * column + t.e * row + t.f


def _degrees(x: float, y: float) -> tuple[float, float]:
    latitude = math.degrees(2 * math.atan(math.exp(y / _HALF * math.pi)) - math.pi / 2)
    return round(latitude, 9), round(x / _HALF * 180.0, 9)
