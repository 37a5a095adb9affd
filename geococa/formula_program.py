"""From parsed formulas to the small programs that the spectral kernel runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geococa.formulas import Node

__all__ = ["Fractions", "Program", "compile_formulas", "evaluate"]

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


@dataclass(frozen=True)
class Fractions:
    """Formulas that are one linear combination of bands over another, such as EVI: each is a single step.

    Attributes
    ----------
    bands : tuple of str
        Bands that they read.
    terms : numpy.ndarray
        int64 ``(formulas, 4)``, numbers into ``bands``.
    top, bottom : numpy.ndarray
        float64 ``(formulas, 5)``: factors of the terms, and the constant.
    targets : numpy.ndarray
        int64 ``(formulas,)``: rows of the output.
    """

    bands: tuple[str, ...]
    terms: np.ndarray
    top: np.ndarray
    bottom: np.ndarray
    targets: np.ndarray

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Precision of the arithmetic."""
        return np.dtype(np.float64)


def compile_formulas(formulas: Sequence[Node]) -> list[Program | Fractions]:
    """Turn formulas into programs; formula ``i`` goes to row ``i`` of the output.

    A formula whose float32 value is sure to lie within 4 units in the last place (5e-7) of the exact one, for
    reflectance that is not negative, is computed in float32: all normalised differences, simple ratios.
    Any other, where digits may cancel, is computed in float64 and rounded once; so are ratios of linear combinations,
    which take one pass.
    """
    fractions = {i: found for i, node in enumerate(formulas) if (found := _fraction(node)) is not None}
    programs: list[Program | Fractions] = []
    for dtype, chosen in (
        (np.dtype(np.float32), [i for i, node in enumerate(formulas) if _ulps(node) <= _SAFE_ULPS]),
        (np.dtype(np.float64), [i for i, node in enumerate(formulas) if _ulps(node) > _SAFE_ULPS]),
    ):
        rest = {i: formulas[i] for i in chosen if i not in fractions}
        if rest:
            programs.append(_compile(rest, dtype))
    if fractions:
        programs.append(_joined(fractions))
    return programs


def evaluate(programs: Sequence[Program | Fractions], bands: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    """Run programs over flat bands.

    Parameters
    ----------
    programs : sequence of Program or Fractions
        From `compile_formulas`.
    bands : mapping of str to numpy.ndarray
        float32 ``(n,)``, C-contiguous.
    out : numpy.ndarray
        float32 ``(formulas, n)``, C-contiguous; overwritten.
    """
    from geococa._kernels import spectral

    size = out.shape[1]
    names = list(dict.fromkeys(name for program in programs for name in program.bands))
    block = np.zeros((max(len(names), 1), min(spectral.BLOCK, size)), np.float32)
    runs = [_placed(program, names) for program in programs]
    # only the uncompiled kernel would warn: overflow and 0 / 0 are data here, and become NaN
    with np.errstate(all="ignore"):
        for begin in range(0, size, spectral.BLOCK):
            count = min(spectral.BLOCK, size - begin)
            for row, name in zip(block, names, strict=False):
                row[:count] = bands[name][begin : begin + count]
            for run, arguments in runs:
                run(block, count, *arguments, begin, out)


def _placed(program: Program | Fractions, names: list[str]) -> tuple[Callable[..., None], tuple[np.ndarray, ...]]:
    """Kernel of a program and its arguments, with bands by their place among ``names``."""
    from geococa._kernels import spectral

    places = np.array([names.index(name) for name in program.bands], np.int64)
    if isinstance(program, Fractions):
        return spectral.run_fractions, (places[program.terms], program.top, program.bottom, program.targets)
    code = program.code.copy()
    operands = code[:, 2:]
    operands[operands < 0] = -1 - places[-1 - operands[operands < 0]]
    scratch = np.zeros((program.rows, spectral.STRIP_BYTES // program.dtype.itemsize), program.dtype)
    run = spectral.run_single if program.dtype == np.float32 else spectral.run_program
    return run, (code, program.constants, scratch)


_Linear = dict[str, float]
"""Factors of bands, and the constant under the empty name."""


def _linear(node: Node) -> _Linear | None:
    """Formula as a linear combination of bands, None where it is none."""
    if node.kind == "band":
        return {node.name: 1.0, "": 0.0}
    if node.kind == "constant":
        return {"": node.value}
    parts = [_linear(part) for part in node.operands]
    if node.kind == "negate" and parts[0] is not None:
        return {name: -factor for name, factor in parts[0].items()}
    first, second = parts if len(parts) == 2 else (None, None)
    if first is None or second is None:
        return None
    if node.kind in ("add", "subtract"):
        sign = 1.0 if node.kind == "add" else -1.0
        return {name: first.get(name, 0.0) + sign * second.get(name, 0.0) for name in {**first, **second}}
    if node.kind == "multiply" and (len(first) == 1 or len(second) == 1):
        number, other = (first, second) if len(first) == 1 else (second, first)
        return {name: number[""] * factor for name, factor in other.items()}
    if node.kind == "divide" and len(second) == 1 and second[""] != 0:
        return {name: factor / second[""] for name, factor in first.items()}
    return None


def _fraction(node: Node) -> tuple[_Linear, _Linear] | None:
    """Formula as one linear combination over another of at most four bands, where that takes less than its steps."""
    if node.kind != "divide" or _normalised_bands(node) or all(not part.operands for part in node.operands):
        return None
    top, bottom = (_linear(part) for part in node.operands)
    if top is None or bottom is None or len({*top, *bottom} - {""}) not in range(1, 5):
        return None
    finite = all(np.isfinite(factor) for part in (top, bottom) for factor in part.values())
    return (top, bottom) if finite else None


def _normalised_bands(node: Node) -> bool:
    pair = _normalised_pair(node)
    return pair is not None and all(part.kind == "band" for part in pair)


def _joined(fractions: Mapping[int, tuple[_Linear, _Linear]]) -> Fractions:
    bands = tuple(dict.fromkeys(name for pair in fractions.values() for part in pair for name in part if name))
    terms = np.zeros((len(fractions), 4), np.int64)
    factors = np.zeros((2, len(fractions), 5))
    for row, pair in enumerate(fractions.values()):
        used = list(dict.fromkeys(name for part in pair for name in part if name))
        # terms that are left over repeat a band, with a factor of 0
        terms[row] = [bands.index(name) for name in (used * 4)[:4]]
        for k, part in enumerate(pair):
            factors[k, row, : len(used)] = [part.get(name, 0.0) for name in used]
            factors[k, row, 4] = part.get("", 0.0)
    return Fractions(bands, terms, factors[0], factors[1], np.array(list(fractions), np.int64))


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
