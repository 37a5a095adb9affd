"""Band arithmetic: a small program of array operations, run strip by strip so that it stays in the cache."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = [
    "ABS",
    "ADD",
    "BLOCK",
    "DIVIDE",
    "EXP",
    "LOG",
    "MAXIMUM",
    "MINIMUM",
    "MULTIPLY",
    "NEGATE",
    "NORMALISE",
    "OUTPUT",
    "POWER",
    "SQRT",
    "STORE",
    "STRIP_BYTES",
    "SUBTRACT",
    "TANH",
    "run_program",
    "run_single",
]

STRIP_BYTES = 4096
"""Length of a strip: long enough to hide the cost of choosing an operation, short enough for a dozen strips to stay
in the first- and second-level cache (measured for 0.5 to 16 KiB: 4 KiB was fastest for float32 and float64)."""

BLOCK = 32768
"""Pixels of a block, whose bands are gathered in one array: to choose one of a tuple of arrays takes numba longer than
the arithmetic on a strip. Long enough for a call to cost little beside it, short enough to stay in the cache."""
OUTPUT = 1 << 20
"""Row from which on a step of `run_single` writes to the output."""

STORE = 1
ADD, SUBTRACT, MULTIPLY, DIVIDE, POWER, MINIMUM, MAXIMUM = 2, 3, 4, 5, 6, 7, 8
NORMALISE = 9
NEGATE, ABS, SQRT, EXP, LOG, TANH = 10, 11, 12, 13, 14, 15


@inline
def _finite(value: np.floating) -> np.floating:
    """Return the value, NaN for infinity; by arithmetic, since a choice could become a masked store, which is slow."""
    return value - (value - value)


@inline
def _binary(op: int, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Combine two strips; ``out`` is never ``a`` or ``b``, which lets the compiler use vector instructions."""
    # constants of another type would turn the arithmetic into that of double precision
    zero, nan = out.dtype.type(0), out.dtype.type(np.nan)
    if op == ADD:
        for i in range(len(out)):
            out[i] = a[i] + b[i]
    elif op == SUBTRACT:
        for i in range(len(out)):
            out[i] = a[i] - b[i]
    elif op == MULTIPLY:
        for i in range(len(out)):
            out[i] = a[i] * b[i]
    elif op == DIVIDE:
        for i in range(len(out)):
            # a finite result such as 1 / (1 / 0) = 0 must not come out of a division by zero
            out[i] = a[i] / b[i] if b[i] != zero else nan
    elif op == NORMALISE:
        for i in range(len(out)):
            out[i] = _finite((a[i] - b[i]) / (a[i] + b[i]))
    elif op == MINIMUM:
        for i in range(len(out)):
            out[i] = nan if np.isnan(a[i]) or np.isnan(b[i]) else min(a[i], b[i])
    elif op == MAXIMUM:
        for i in range(len(out)):
            out[i] = nan if np.isnan(a[i]) or np.isnan(b[i]) else max(a[i], b[i])
    else:
        for i in range(len(out)):
            out[i] = a[i] ** b[i] if a[i] != zero or b[i] > zero else nan


@inline
def _unary(op: int, a: np.ndarray, out: np.ndarray) -> None:
    zero, nan = out.dtype.type(0), out.dtype.type(np.nan)
    if op == NEGATE:
        for i in range(len(out)):
            out[i] = -a[i]
    elif op == ABS:
        for i in range(len(out)):
            out[i] = abs(a[i])
    elif op == SQRT:
        for i in range(len(out)):
            out[i] = np.sqrt(a[i]) if a[i] >= zero else nan
    elif op == EXP:
        for i in range(len(out)):
            out[i] = np.exp(a[i])
    elif op == LOG:
        for i in range(len(out)):
            out[i] = np.log(a[i]) if a[i] > zero else nan
    else:
        for i in range(len(out)):
            out[i] = np.tanh(a[i])


@inline
def _store(row: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(row)):
        out[i] = _finite(np.float32(row[i]))


@inline
def _row(bands: np.ndarray, scratch: np.ndarray, row: int, start: int, m: int) -> np.ndarray:
    """Strip of a band, -1 for the first, -2 for the second, or a row of ``scratch``."""
    if row < 0:
        return bands[-1 - row][start : start + m]
    return scratch[row][:m]


@inline
def _widen(row: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(out)):
        out[i] = row[i]


@inline
def _fill_constants(constants: np.ndarray, scratch: np.ndarray) -> None:
    for j in range(len(constants)):
        for i in range(scratch.shape[1]):
            scratch[j, i] = constants[j]


@kernel
def run_program(
    bands: np.ndarray,
    count: int,
    code: np.ndarray,
    constants: np.ndarray,
    scratch: np.ndarray,
    begin: int,
    out: np.ndarray,
) -> None:
    """Run a program of band arithmetic over a block of pixels.

    Parameters
    ----------
    bands : numpy.ndarray
        float32 ``(bands, BLOCK)``, NaN = not observed.
    count : int
        Pixels of the block.
    code : numpy.ndarray
        int64 ``(steps, 4)``: operation, row of ``scratch`` to write (of ``out`` for STORE), and the rows of its
        operands, where -1 is the first band, -2 the second, and so on.
    constants : numpy.ndarray
        float64 ``(k,)``; constant ``j`` is in row ``j`` of ``scratch``, which no step writes.
    scratch : numpy.ndarray
        ``(rows, width)``; its dtype, float32 or float64, is the precision of the arithmetic.
    begin : int
        First pixel of the block in ``out``.
    out : numpy.ndarray
        float32 ``(results, n)``; NaN where an operand is NaN or the result is not finite.
    """
    width = scratch.shape[1]
    wide = np.empty((bands.shape[0], width), scratch.dtype)
    _fill_constants(constants, scratch)
    for start in range(0, count, width):
        m = min(width, count - start)
        for k in range(bands.shape[0]):
            _widen(bands[k][start : start + m], wide[k][:m])
        for step in range(code.shape[0]):
            op, to, a, b = code[step, 0], code[step, 1], code[step, 2], code[step, 3]
            left = _row(wide, scratch, a, 0, m)
            if op == STORE:
                _store(left, out[to][begin + start : begin + start + m])
            elif op >= NEGATE:
                _unary(op, left, scratch[to][:m])
            else:
                _binary(op, left, _row(wide, scratch, b, 0, m), scratch[to][:m])


@kernel
def run_single(
    bands: np.ndarray,
    count: int,
    code: np.ndarray,
    constants: np.ndarray,
    scratch: np.ndarray,
    begin: int,
    out: np.ndarray,
) -> None:
    """Run a program in single precision, which writes results where they lie.

    Parameters
    ----------
    bands, count, constants, begin, out
        As in `run_program`.
    code : numpy.ndarray
        As in `run_program`, but the row to write is that of ``out`` plus `OUTPUT` where a result is written.
    scratch : numpy.ndarray
        float32 ``(rows, width)``.
    """
    width = scratch.shape[1]
    _fill_constants(constants, scratch)
    for start in range(0, count, width):
        m = min(width, count - start)
        for step in range(code.shape[0]):
            op, to, a, b = code[step, 0], code[step, 1], code[step, 2], code[step, 3]
            left = _row(bands, scratch, a, start, m)
            target = scratch[to][:m] if to < OUTPUT else out[to - OUTPUT][begin + start : begin + start + m]
            if op == STORE:
                _store(left, target)
                continue
            if op >= NEGATE:
                _unary(op, left, target)
            else:
                _binary(op, left, _row(bands, scratch, b, start, m), target)
            if to >= OUTPUT and op != NORMALISE:
                _store(target, target)
