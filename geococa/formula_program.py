"""From parsed formulas to the small programs that the spectral kernel runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geococa.formulas import Node

__all__ = ["Program", "compile_formulas", "evaluate"]

_SAFE_ULPS = 4.0


@dataclass(frozen=True)
class Program:
    """Steps that compute several formulas in one pass over the pixels.

    Attributes
    ----------
    bands : tuple of str
        Bands that it reads.
    code : numpy.ndarray
        int64 ``(steps, 4)``, see `geococa._kernels.spectral`: for `run_single` in single precision, else for `run_program`.
    constants : numpy.ndarray
        float64 ``(k,)``.
    rows : int
        Scratch rows that it needs.
    dtype : numpy.dtype
        Precision of the arithmetic.
    """

    bands: tuple[str, ...]
    code: np.ndarray
    constants: np.ndarray
    rows: int
    dtype: np.dtype[np.floating]


def compile_formulas(formulas: Sequence[Node]) -> list[Program]:
    """Turn formulas into programs; formula ``i`` goes to row ``i`` of the output.

    A formula whose float32 value is sure to lie within 4 units in the last place (5e-7) of the exact one, for
    reflectance that is not negative, is computed in float32: all normalised differences, simple ratios, SAVI.
    Any other, where digits may cancel, is computed in float64 and rounded once.
    """
    programs = []
    for dtype, chosen in (
        (np.dtype(np.float32), [i for i, node in enumerate(formulas) if _ulps(node) <= _SAFE_ULPS]),
        (np.dtype(np.float64), [i for i, node in enumerate(formulas) if _ulps(node) > _SAFE_ULPS]),
    ):
        if chosen:
            programs.append(_compile({i: formulas[i] for i in chosen}, dtype))
    return programs


def evaluate(programs: Sequence[Program], bands: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    """Run programs over flat bands.

    Parameters
    ----------
    programs : sequence of Program
        From `compile_formulas`.
    bands : mapping of str to numpy.ndarray
        float32 ``(n,)``, C-contiguous.
    out : numpy.ndarray
        float32 ``(formulas, n)``, C-contiguous; overwritten.
    """
    from geococa._kernels import spectral

    size = out.shape[1]
    length = min(spectral.BLOCK, size)
    parts = []
    for program in programs:
        block = np.zeros((max(len(program.bands), 1), length), np.float32)
        scratch = np.zeros((program.rows, spectral.STRIP_BYTES // program.dtype.itemsize), program.dtype)
        single = program.dtype == np.float32
        parts.append((program, block, scratch, spectral.run_single if single else spectral.run_program))
    # only the uncompiled kernel would warn: overflow and 0 / 0 are data here, and become NaN
    with np.errstate(all="ignore"):
        for begin in range(0, size, spectral.BLOCK):
            count = min(spectral.BLOCK, size - begin)
            for program, block, scratch, run in parts:
                for row, name in zip(block, program.bands, strict=False):
                    row[:count] = bands[name][begin : begin + count]
                run(block, count, program.code, program.constants, scratch, begin, out)


def _ulps(node: Node) -> float:
    """Bound of a formula's float32 rounding error in units in the last place; infinity where there is none."""
    if node.kind == "band":
        return 0.0
    if node.kind == "constant":
        return 0.0 if float(np.float32(node.value)) == node.value else 0.5
    parts = [_ulps(part) for part in node.operands]
    if node.kind in ("add", "subtract"):
        # of exact operands it is rounded once; of rounded ones the digits may cancel, unless both are positive
        if max(parts) == 0 or (node.kind == "add" and all(map(_not_negative, node.operands))):
            return max(parts) + 0.5
        return np.inf
    if node.kind in ("multiply", "divide"):
        return sum(parts) + 0.5
    if node.kind == "power" and node.operands[1].value == 2.0:
        return 2 * parts[0] + 0.5
    if node.kind in ("negate", "abs", "minimum", "maximum"):
        return max(parts)
    return parts[0] / 2 + 0.5 if node.kind == "sqrt" else np.inf


def _not_negative(node: Node) -> bool:
    """Whether a formula is zero or more wherever the bands are."""
    if node.kind == "constant":
        return node.value >= 0
    if node.kind in ("band", "abs", "sqrt", "exp"):
        return True
    return node.kind in ("add", "multiply", "divide") and all(map(_not_negative, node.operands))


def _normalised_pair(node: Node) -> tuple[Node, Node] | None:
    """Operands of a normalised difference ``(a - b) / (a + b)``, which is one step of a program."""
    if node.kind == "divide" and [part.kind for part in node.operands] == ["subtract", "add"]:
        difference, total = (part.operands for part in node.operands)
        if difference in (total, total[::-1]):
            return difference[0], difference[1]
    return None


class _Builder:
    """Numbers the distinct values of formulas in the order in which they can be computed."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, int, int, str, float], int] = {}

    def number(self, node: Node) -> int:
        pair = _normalised_pair(node)
        if pair is not None:
            return self._value(("normalise", self.number(pair[0]), self.number(pair[1]), "", 0.0))
        operands = [self.number(part) for part in node.operands]
        if node.kind == "power" and node.operands[1].value in (1.0, 2.0, 3.0, 4.0):
            return self._product(operands[0], int(node.operands[1].value))
        a, b = [*operands, -1, -1][:2]
        return self._value((node.kind, a, b, node.name, node.value))

    def _product(self, base: int, times: int) -> int:
        product = base
        for _ in range(times - 1):
            product = self._value(("multiply", product, base, "", 0.0))
        return product

    def _value(self, key: tuple[str, int, int, str, float]) -> int:
        return self.values.setdefault(key, len(self.values))


def _compile(formulas: Mapping[int, Node], dtype: np.dtype[np.floating]) -> Program:
    from geococa._kernels import spectral

    builder = _Builder()
    results = {target: builder.number(node) for target, node in formulas.items()}
    values = list(builder.values)
    bands = tuple(dict.fromkeys(name for kind, _, _, name, _ in values if kind == "band"))
    constants = [number for number, key in enumerate(values) if key[0] == "constant"]
    rows = {number: row for row, number in enumerate(constants)}
    single = dtype == np.float32
    rows |= {number: -1 - bands.index(key[3]) for number, key in enumerate(values) if key[0] == "band"}
    fixed = set(rows)
    free: list[int] = []
    height = len(constants)
    last = _last_uses(values, results)
    code: list[tuple[int, int, int, int]] = []
    for number, (kind, a, b, _, _) in enumerate(values):
        targets = [target for target, value in results.items() if value == number]
        if number not in fixed and number in last:
            # what no later step reads goes straight to the output
            direct = single and len(targets) == 1 and last[number] == number
            row = spectral.OUTPUT + targets[0] if direct else (free.pop() if free else height)
            if direct:
                fixed.add(number)
                targets = []
            else:
                height = max(height, row + 1)
            rows[number] = row
            code.append((getattr(spectral, kind.upper()), row, rows.get(a, 0), rows.get(b, 0)))
        first = spectral.OUTPUT if single else 0
        code += [(spectral.STORE, first + target, rows[number], 0) for target in targets]
        # a row is given back only after the step that reads it last, so no step writes what it reads
        free += [rows[v] for v in dict.fromkeys((a, b, number)) if v >= 0 and last.get(v) == number and v not in fixed]
    table = np.array(code, dtype=np.int64).reshape(-1, 4)
    return Program(bands, table, np.array([values[v][4] for v in constants], float), max(height, 1), dtype)


def _last_uses(values: Sequence[tuple[str, int, int, str, float]], results: Mapping[int, int]) -> dict[int, int]:
    """Step after which each value is needed no more; values that nothing needs are left out."""
    last: dict[int, int] = {value: value for value in results.values()}
    for number in range(len(values) - 1, -1, -1):
        if number in last:
            for operand in values[number][1:3]:
                if operand >= 0:
                    last[operand] = max(last.get(operand, -1), number)
    return last
