"""Spectral indices and user formulas of the bands of a composite, fused into one pass over the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused
from geococa.feature_stack import as_features
from geococa.formula_program import Program, compile_formulas, evaluate
from geococa.formulas import INDICES, Node, bands_in, parse_formula

__all__ = ["bands_of", "spectral_features", "split_name"]


def bands_of(names: Iterable[str]) -> set[str]:
    """Return the bands that features need.

    Parameters
    ----------
    names : iterable of str
        Bands, indices or formulas, as `spectral_features` takes them.

    Examples
    --------
    >>> sorted(bands_of(["red", "ndmi", "ratio=nir/green"]))
    ['green', 'nir', 'red', 'swir16']
    """
    bands: set[str] = set()
    for name in names:
        bands |= _resolve(bands_in(split_name(name)[1]))
    return bands


def _resolve(names: set[str]) -> set[str]:
    """Replace names of indices by the bands of their formulas."""
    return {
        band
        for name in names
        for band in (bands_in(parse_formula(INDICES[name.lower()].formula)) if name.lower() in INDICES else {name})
    }


def split_name(name: str, known: Iterable[str] | None = None) -> tuple[str, Node]:
    """Feature name and formula of a band, an index, or ``name=formula``."""
    label, equals, formula = (part.strip() for part in str(name).partition("="))
    if equals and not label.isidentifier():
        raise InputRefused(f"a formula is written name=formula with a name of letters, digits and _, got {name!r}")
    return label, parse_formula(formula if equals else label, known)


def spectral_features(composite: xr.Dataset, names: Sequence[str], *, out: np.ndarray | None = None) -> xr.DataArray:
    """Compute spectral indices, all in one pass over the pixels; bands pass through by their names.

    Parameters
    ----------
    composite : xarray.Dataset
        Reflectance by band, float32 ``(time, y, x)`` or ``(y, x)``, NaN = not observed, named as STAC does (``red``,
        ``nir``, ``swir16``, ``rededge071``, ...).
    names : sequence of str
        Bands, indices (see ``geococa.formulas.INDICES``, any case) or formulas such as
        ``"ndre=(nir-rededge071)/(nir+rededge071)"``. A formula may use numbers, bands, indices,
        ``+ - * / ** ( )``, abs, exp, log, sqrt, tanh, minimum and maximum; it is parsed, never executed.
    out : numpy.ndarray, optional
        Where to write the values, as numpy's functions have it: float32, C-contiguous, of the result's shape. Memory that
        is new costs about as much as the indices themselves; where one image comes after the other, reuse it. Not for
        Dask.

    Returns
    -------
    xarray.DataArray
        float32 ``(time, feature, y, x)``, or ``(feature, y, x)`` for input without time; NaN where a band is NaN, at a
        division by zero, and where a result is not finite. Dask in, Dask out. Formulas whose digits may cancel are
        computed in float64 and rounded once; the others (normalised differences of bands or of sums of two, ratios) in
        float32, within 5e-7. Images of 65,536 cells and more go through a loop that is compiled once for their
        formulas; its values are the same to the bit.

    Raises
    ------
    InputRefused
        A name is neither band nor index, a formula is not plain arithmetic, a name comes twice, a band holds
        digital numbers instead of reflectance, or ``out`` does not fit.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> bands = xr.Dataset({"red": (("y", "x"), np.float32([[0.1]])), "nir": (("y", "x"), np.float32([[0.3]]))})
    >>> float(spectral_features(bands, ["ndvi"])[0, 0, 0].round(3))
    0.5
    """
    check_kind(composite, "composite", "reflectance")
    if not hasattr(composite, "data_vars"):
        raise InputRefused("expected a Dataset with one variable a band; make one with array.to_dataset('band')")
    check_dims(composite, "y", "x", optional=("time",))
    bands = [str(name) for name, variable in composite.data_vars.items() if {"y", "x"} <= set(variable.dims)]
    labels, programs = _compiled(tuple([names] if isinstance(names, str) else map(str, names)), tuple(bands))
    used = sorted({band for program in programs for band in program.bands})
    if not used:
        raise InputRefused(f"the formulas {labels} use no band at all")
    dims = ("time", "y", "x") if "time" in composite.dims else ("y", "x")
    chosen = composite[used].transpose(*dims)
    for name in used:
        if not np.issubdtype(chosen[name].dtype, np.floating):
            raise InputRefused(
                f"band {name} holds {chosen[name].dtype} numbers, not reflectance; use geococa.to_reflectance first"
            )
    layers = [chosen[name].variable for name in used]
    shape = layers[0].shape
    lazy = any(is_lazy(chosen[name]) for name in used)
    _check_out(out, (*shape[:-2], len(labels), *shape[-2:]), lazy)
    arrays = [layer.data for layer in layers]
    if lazy:
        data = _per_block(arrays, used, programs, len(labels))
    else:
        data = _run(*arrays, used=used, programs=programs, count=len(labels), out=out)
    return as_features(data, dims, labels, composite)


def _check_out(out: np.ndarray | None, shape: tuple[int, ...], lazy: bool) -> None:
    if out is None:
        return
    if lazy:
        raise InputRefused("out is for numpy arrays; leave it out where the bands are Dask arrays")
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != np.float32 or not out.flags.c_contiguous:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise InputRefused(f"out must be a C-contiguous float32 array of shape {shape}, got {found}")


@lru_cache(maxsize=64)
def _compiled(names: tuple[str, ...], bands: tuple[str, ...]) -> tuple[list[str], list[Program]]:
    """Labels and programs of features: the blocks of an archive all ask for the same."""
    wanted = [split_name(name, bands) for name in names]
    labels = [label for label, _ in wanted]
    if not labels or len(set(labels)) != len(labels):
        raise InputRefused(f"name at least one feature, each once, got {labels}")
    return labels, compile_formulas([node for _, node in wanted])


def _per_block(bands: Sequence[Any], used: list[str], programs: list[Program], count: int) -> Any:
    """Run the programs block by block, when the blocks are computed."""
    import dask.array

    dims = tuple(range(max(band.ndim for band in bands)))
    arrays = dask.array.core.unify_chunks(*(part for band in bands for part in (dask.array.asarray(band), dims)))[1]
    axis = arrays[0].ndim - 2
    chunks = (*arrays[0].chunks[:axis], (count,), *arrays[0].chunks[axis:])
    return dask.array.map_blocks(
        _run, *arrays, used=used, programs=programs, count=count, dtype=np.float32, new_axis=axis, chunks=chunks,
        meta=np.empty((0,) * (arrays[0].ndim + 1), np.float32),
    )  # fmt: skip


def _run(
    *blocks: np.ndarray, used: list[str], programs: list[Program], count: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Features ``(..., feature, y, x)`` of blocks ``(..., y, x)``."""
    shape = blocks[0].shape
    planes = [np.ascontiguousarray(block, dtype=np.float32).reshape(-1, shape[-2] * shape[-1]) for block in blocks]
    whole = np.empty((*shape[:-2], count, *shape[-2:]), np.float32) if out is None else out
    for time, values in enumerate(whole.reshape(len(planes[0]), count, planes[0].shape[1])):
        evaluate(programs, {name: plane[time] for name, plane in zip(used, planes, strict=True)}, values)
    return whole
