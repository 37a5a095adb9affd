"""Spectral indices and user formulas of the bands of a composite, fused into one pass over the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from geococa._checks import check_dims, check_kind, is_lazy
from geococa.errors import InputRefused
from geococa.feature_stack import as_features
from geococa.formula_program import Fractions, Program, compile_formulas, evaluate
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


def spectral_features(composite: xr.Dataset, names: Sequence[str]) -> xr.DataArray:
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

    Returns
    -------
    xarray.DataArray
        float32 ``(time, feature, y, x)``, or ``(feature, y, x)`` for input without time; NaN where a band is NaN, at a
        division by zero, and where a result is not finite. Dask in, Dask out. Formulas whose digits may cancel are
        computed in float64 and rounded once; the others (normalised differences, ratios) in float32, within 5e-7.

    Raises
    ------
    InputRefused
        A name is neither band nor index, a formula is not plain arithmetic, a name comes twice, or a band holds
        digital numbers instead of reflectance.

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
    wanted = [split_name(name, bands) for name in ([names] if isinstance(names, str) else names)]
    labels = [label for label, _ in wanted]
    if not labels or len(set(labels)) != len(labels):
        raise InputRefused(f"name at least one feature, each once, got {labels}")
    programs = compile_formulas([node for _, node in wanted])
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
    data = _per_block([chosen[name] for name in used], used, programs, len(labels))
    return as_features(data, dims, labels, composite)


def _per_block(bands: list[xr.DataArray], used: list[str], programs: list[Program | Fractions], count: int) -> Any:
    """Run the programs on numpy arrays now, on Dask arrays block by block later."""
    if not any(is_lazy(band) for band in bands):
        return _run(*(np.asarray(band.values) for band in bands), used=used, programs=programs, count=count)
    import dask.array

    arrays = dask.array.core.unify_chunks(
        *(part for band in bands for part in (dask.array.asarray(band.data), bands[0].dims))
    )[1]
    axis = arrays[0].ndim - 2
    chunks = (*arrays[0].chunks[:axis], (count,), *arrays[0].chunks[axis:])
    return dask.array.map_blocks(
        _run, *arrays, used=used, programs=programs, count=count, dtype=np.float32, new_axis=axis, chunks=chunks,
        meta=np.empty((0,) * (arrays[0].ndim + 1), np.float32),
    )  # fmt: skip


def _run(*blocks: np.ndarray, used: list[str], programs: list[Program | Fractions], count: int) -> np.ndarray:
    """Features ``(..., feature, y, x)`` of blocks ``(..., y, x)``."""
    shape = blocks[0].shape
    planes = [np.ascontiguousarray(block, dtype=np.float32).reshape(-1, shape[-2] * shape[-1]) for block in blocks]
    out = np.empty((len(planes[0]), count, planes[0].shape[1]), np.float32)
    for time in range(len(out)):
        evaluate(programs, {name: plane[time] for name, plane in zip(used, planes, strict=True)}, out[time])
    return out.reshape(*shape[:-2], count, *shape[-2:])
