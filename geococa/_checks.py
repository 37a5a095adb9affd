"""Checks at the public door: dims, kind, CRS and dtype, once, so that the stages behind need not ask again."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable
from types import ModuleType
from typing import TypeVar

import numpy as np
import pyproj
import xarray as xr

from geococa.errors import (
    CRSMismatch,
    GridMismatch,
    InputRefused,
    KindMismatch,
    MissingExtra,
    NoPositives,
)
from geococa.grid import Grid

__all__ = [
    "check_dims",
    "check_kind",
    "check_positives",
    "check_same_crs",
    "check_same_grid",
    "check_seed",
    "check_threads",
    "check_type",
    "check_whole",
    "is_lazy",
    "kind_of",
    "optional_import",
]

T = TypeVar("T", xr.DataArray, xr.Dataset)

_HINTS = {
    "scenes": "geococa.open_tile",
    "clear": "geococa.clear_sky",
    "reflectance": "geococa.to_reflectance",
    "composite": "geococa.composite",
    "features": "geococa.spectral_features",
    "probability": "geococa.classify",
    "fraction": "geococa.classify with a model of method 'fraction' or 'unmixing', or geococa.as_fraction",
    "land_cover": "geococa.label or geococa.as_land_cover",
}


def kind_of(array: xr.DataArray | xr.Dataset) -> str | None:
    """Product of which stage an array says it is, or None where it does not say."""
    kind = array.attrs.get("kind")
    return None if kind is None else str(kind)


def check_kind(array: T, *expected: str, required: bool = False) -> T:
    """Return ``array`` if its ``kind`` is one of ``expected``.

    An array that does not say what it is passes unless ``required``: users bring their own.
    """
    if not isinstance(array, xr.DataArray | xr.Dataset):
        raise KindMismatch(f"expected an xarray object ({' or '.join(expected)}), got {type(array).__name__}")
    kind = kind_of(array)
    if kind in expected or (kind is None and not required):
        return array
    made_by = "; ".join(f"{name} comes from {_HINTS[name]}" for name in expected if name in _HINTS)
    raise KindMismatch(
        f"expected {' or '.join(expected)}, got {kind or 'an array that does not say what it is'}; {made_by}"
    )


def check_dims(array: xr.DataArray | xr.Dataset, *required: str, optional: Iterable[str] = ()) -> None:
    """Refuse an array that lacks a required dim or has one that is neither required nor optional."""
    dims = {str(dim) for dim in array.dims}
    missing = [dim for dim in required if dim not in dims]
    surplus = sorted(dims - set(required) - set(optional))
    if missing or surplus:
        raise GridMismatch(
            f"expected dims {required}{' and perhaps ' + str(tuple(optional)) if optional else ''}, "
            f"got {tuple(array.dims)}"
        )


def check_same_grid(a: xr.DataArray | xr.Dataset, b: xr.DataArray | xr.Dataset, *, names: tuple[str, str]) -> Grid:
    """Return the grid of two arrays that must share it."""
    first, second = Grid.from_xarray(a), Grid.from_xarray(b)
    check_same_crs(first.crs, second.crs, names=names)
    if not first.same_as(second):
        raise GridMismatch(
            f"{names[0]} and {names[1]} are on different grids: {first.shape} at {tuple(first.transform)[:6]} "
            f"against {second.shape} at {tuple(second.transform)[:6]}; bring one onto the other's grid"
        )
    return first


def check_same_crs(a: pyproj.CRS, b: pyproj.CRS, *, names: tuple[str, str]) -> None:
    """Refuse two layers in different coordinate reference systems."""
    if not (a == b or a.equals(b, ignore_axis_order=True)):
        raise CRSMismatch(
            f"{names[0]} are in {a.to_string()[:60]}, {names[1]} in {b.to_string()[:60]}; reproject one to the other's CRS"
        )


def check_type(value: object, kind: type | tuple[type, ...], name: str, remedy: str) -> None:
    """Refuse an argument of another type, saying what it is and how to get the right one."""
    if not isinstance(value, kind):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise InputRefused(f"{name} must be a {kinds}, got {type(value).__name__}; {remedy}")


def is_lazy(array: xr.DataArray | xr.Dataset) -> bool:
    """Whether an array is Dask-backed, so that nothing may be computed yet."""
    return array.chunks is not None and len(array.chunks) > 0


def optional_import(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise MissingExtra(f"this needs {package}, which is not installed: pip install 'geococa[{extra}]'") from error


def positive(value: float, name: str, *, zero: bool = False) -> float:
    """Return ``value`` if it is a positive finite number (or zero where allowed)."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not (value > 0 or (zero and value == 0)) or value == float("inf"):
        raise InputRefused(f"{name} must be {'zero or more' if zero else 'positive'}, got {value!r}")
    return value


def check_whole(value: int, name: str, least: int = 0, most: int | None = None) -> int:
    """Return ``value`` if it is a whole number within its limits."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        limits = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InputRefused(f"{name} must be a whole number {limits}, got {value!r}")
    return int(value)


def check_seed(seed: int) -> int:
    """Return ``seed`` if numpy and every training library take it."""
    return check_whole(seed, "seed", 0, 2**32 - 1)


def check_threads(threads: int | None) -> int:
    """Return a number of threads: the one given, a whole number of at least 1, or one for each processor."""
    return (os.cpu_count() or 1) if threads is None else check_whole(threads, "threads", 1)


def check_positives(classes: Iterable[object], positive: str, *, where: str) -> None:
    """Refuse a set of samples without a single one of the class in question: no score of it exists."""
    found = sorted({str(name) for name in classes})
    if positive not in found:
        raise NoPositives(
            f"{where} holds no sample of class {positive!r}, only {', '.join(found) or 'no samples at all'}, so no score of "
            "it exists; add samples, use fewer folds or smaller blocks, or name the class with positive="
        )
