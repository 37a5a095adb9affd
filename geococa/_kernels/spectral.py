"""Band arithmetic: a small program of array operations, run strip by strip so that it stays in the cache."""

from __future__ import annotations

import numpy as np

from geococa._kernels._jit import inline, kernel

__all__ = [
    "ABS",
    "ADD",
    "DIVIDE",
    "EXP",
    "LOAD",
    "LOG",
    "MAXIMUM",
    "MINIMUM",
    "MOST_BANDS",
    "MULTIPLY",
    "NEGATE",
    "NORMALISE",
    "POWER",
    "SQRT",
    "STORE",
    "STRIP_BYTES",
    "SUBTRACT",
    "TANH",
    "run_program",
]

MOST_BANDS = 16
"""Bands that one program can read; the tuple of bands is padded to it, so that the kernel compiles once."""
STRIP_BYTES = 4096
"""Length of a strip: long enough to hide the cost of choosing an operation, short enough for a dozen strips to stay
in the first- and second-level cache (measured for 0.5 to 16 KiB: 4 KiB was fastest for float32 and float64)."""

LOAD, STORE = 0, 1
ADD, SUBTRACT, MULTIPLY, DIVIDE, POWER, MINIMUM, MAXIMUM = 2, 3, 4, 5, 6, 7, 8
NORMALISE = 9
NEGATE, ABS, SQRT, EXP, LOG, TANH = 10, 11, 12, 13, 14, 15


@inline
def _binary(op: int, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """Combine two strips; ``out`` is never ``a`` or ``b``, which lets the compiler use vector instructions."""
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
            out[i] = a[i] / b[i] if b[i] != 0 else np.nan
    elif op == NORMALISE:
        for i in range(len(out)):
            total = a[i] + b[i]
            out[i] = (a[i] - b[i]) / total if total != 0 else np.nan
    elif op == MINIMUM:
        for i in range(len(out)):
            out[i] = np.nan if np.isnan(a[i]) or np.isnan(b[i]) else min(a[i], b[i])
    elif op == MAXIMUM:
        for i in range(len(out)):
            out[i] = np.nan if np.isnan(a[i]) or np.isnan(b[i]) else max(a[i], b[i])
    else:
        for i in range(len(out)):
            out[i] = a[i] ** b[i] if a[i] != 0 or b[i] > 0 else np.nan


@inline
def _unary(op: int, a: np.ndarray, out: np.ndarray) -> None:
    if op == NEGATE:
        for i in range(len(out)):
            out[i] = -a[i]
    elif op == ABS:
        for i in range(len(out)):
            out[i] = abs(a[i])
    elif op == SQRT:
        for i in range(len(out)):
            out[i] = np.sqrt(a[i]) if a[i] >= 0 else np.nan
    elif op == EXP:
        for i in range(len(out)):
            out[i] = np.exp(a[i])
    elif op == LOG:
        for i in range(len(out)):
            out[i] = np.log(a[i]) if a[i] > 0 else np.nan
    else:
        for i in range(len(out)):
            out[i] = np.tanh(a[i])


@inline
def _store(row: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(row)):
        value = np.float32(row[i])
        out[i] = value if abs(value) < np.inf else np.float32(np.nan)


@kernel
def run_program(
    bands: tuple[np.ndarray, ...], code: np.ndarray, constants: np.ndarray, scratch: np.ndarray, out: np.ndarray
) -> None:
    """Run a program of band arithmetic over all pixels.

    Parameters
    ----------
    bands : tuple of MOST_BANDS arrays
        float32 ``(n,)`` each, NaN = not observed.
    code : numpy.ndarray
        int64 ``(steps, 4)``: operation, row of ``scratch`` to write (of ``out`` for STORE), and the rows of its
        operands (for LOAD the number of the band).
    constants : numpy.ndarray
        float64 ``(k,)``; constant ``j`` is in row ``j`` of ``scratch``, which no step writes.
    scratch : numpy.ndarray
        ``(rows, width)``; its dtype, float32 or float64, is the precision of the arithmetic.
    out : numpy.ndarray
        float32 ``(results, n)``; NaN where an operand is NaN or the result is not finite.
    """
    n = out.shape[1]
    width = scratch.shape[1]
    for j in range(len(constants)):
        for i in range(width):
            scratch[j, i] = constants[j]
    for start in range(0, n, width):
        m = min(width, n - start)
        for step in range(code.shape[0]):
            op, to, a, b = code[step, 0], code[step, 1], code[step, 2], code[step, 3]
            if op == LOAD:
                band = bands[a][start : start + m]
                row = scratch[to][:m]
                for i in range(len(band)):
                    row[i] = band[i]
            elif op == STORE:
                _store(scratch[a][:m], out[to][start : start + m])
            elif op >= NEGATE:
                _unary(op, scratch[a], scratch[to])
            else:
                _binary(op, scratch[a], scratch[b], scratch[to])
