"""From parsed formulas to the small programs that the spectral kernel runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geococa.formulas import Node

__all__ = ["FUSED_PIXELS", "Program", "compile_formulas", "evaluate", "run_fused", "run_steps"]

FUSED_PIXELS = 1 << 16
"""Pixels from which on a loop is made for the formulas: compiling one takes as long as some million pixels of steps, once
for a set of formulas, and blocks of an archive are larger."""

_SAFE_ULPS = 4.0


_Key = tuple[str, int, int, str, float]
"""A value: kind, numbers of its operands or -1, name of a band, number of a constant."""


@dataclass(frozen=True)
class Program:
    """Steps that compute several formulas in one pass over the pixels.

    Attributes
    ----------
    bands : tuple of str
        Bands that it reads.
    values : tuple
        Values in the order in which they can be computed; none is computed twice.
    results : mapping of int to int
        Value of each row of the output.
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
    values: tuple[_Key, ...]
    results: Mapping[int, int]
    code: np.ndarray
    constants: np.ndarray
    rows: int
    dtype: np.dtype[np.floating]


def compile_formulas(formulas: Sequence[Node]) -> list[Program]:
    """Turn formulas into programs; formula ``i`` goes to row ``i`` of the output.

    A formula whose float32 value is sure to lie within 4 units in the last place (5e-7) of the exact one, for
    reflectance that is not negative, is computed in float32: all normalised differences, also of sums of two bands, and
    simple ratios. Any other, where digits may cancel, is computed in float64 and rounded once.
    """
    single = {i: node for i, node in enumerate(formulas) if _ulps(node) <= _SAFE_ULPS}
    double = {i: node for i, node in enumerate(formulas) if i not in single}
    pairs = ((single, np.dtype(np.float32)), (double, np.dtype(np.float64)))
    return [_compile(part, dtype) for chosen, dtype in pairs for part in _by_kind(chosen) if part]


def _by_kind(formulas: Mapping[int, Node]) -> tuple[dict[int, Node], dict[int, Node]]:
    """Formulas of which one loop can be made, and those that call functions such as the logarithm."""
    from geococa._kernels.fused import FUSABLE

    plain = {}
    for target, node in formulas.items():
        builder = _Builder(single=True)
        builder.number(node)
        if FUSABLE.issuperset(key[0] for key in builder.values):
            plain[target] = node
    return plain, {target: node for target, node in formulas.items() if target not in plain}


def evaluate(programs: Sequence[Program], bands: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    """Run programs over flat bands.

    Large images go through a loop made for the formulas, where they allow one, small ones through steps that need no
    compiling; the values are the same to the bit.

    Parameters
    ----------
    programs : sequence of Program
        From `compile_formulas`.
    bands : mapping of str to numpy.ndarray
        float32 ``(n,)``, C-contiguous.
    out : numpy.ndarray
        float32 ``(formulas, n)``, C-contiguous; overwritten.
    """
    from geococa._kernels.fused import COMPILED, FUSABLE

    together = [program for program in programs if FUSABLE.issuperset(key[0] for key in program.values)]
    if out.shape[1] < FUSED_PIXELS or not together or not COMPILED:
        run_steps(programs, bands, out)
        return
    run_fused(together, bands, out)
    run_steps([program for program in programs if program not in together], bands, out)


def run_fused(programs: Sequence[Program], bands: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    """Run programs in one loop that is made for them; arguments as for `evaluate`."""
    from geococa._kernels.fused import fused

    names = _bands_of(programs)
    arrays = [np.ascontiguousarray(bands[name], np.float32) for name in names]
    if any(array.shape != out.shape[1:] for array in arrays) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError("bands and results must be float32, C-contiguous and of one length")
    kernel = fused("|".join(_text(program, names) for program in programs))
    kernel(np.array([array.ctypes.data for array in arrays], np.int64), out)


def _text(program: Program, names: Sequence[str]) -> str:
    """Steps of a program as `geococa._kernels.fused.fused` reads them."""
    lines = ["float" if program.dtype == np.float32 else "double"]
    for kind, a, b, name, value in program.values:
        words = {"band": [str(names.index(name))] if name else [], "constant": [float(value).hex()]}
        lines.append(" ".join([kind, *words.get(kind, [str(number) for number in (a, b) if number >= 0])]))
    return ";".join([*lines, *(f"store {target} {value}" for target, value in program.results.items())])


def _bands_of(programs: Sequence[Program]) -> list[str]:
    return list(dict.fromkeys(name for program in programs for name in program.bands))


def run_steps(programs: Sequence[Program], bands: Mapping[str, np.ndarray], out: np.ndarray) -> None:
    """Run programs step by step over strips of pixels; arguments as for `evaluate`."""
    from geococa._kernels import spectral

    size = out.shape[1]
    names = _bands_of(programs)
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


def _placed(program: Program, names: list[str]) -> tuple[Callable[..., None], tuple[np.ndarray, ...]]:
    """Kernel of a program and its arguments, with bands by their place among ``names``."""
    from geococa._kernels import spectral

    places = np.array([names.index(name) for name in program.bands], np.int64)
    code = program.code.copy()
    operands = code[:, 2:]
    operands[operands < 0] = -1 - places[-1 - operands[operands < 0]]
    scratch = np.zeros((program.rows, spectral.STRIP_BYTES // program.dtype.itemsize), program.dtype)
    run = spectral.run_single if program.dtype == np.float32 else spectral.run_program
    return run, (code, program.constants, scratch)


def _ulps(node: Node) -> float:
    """Bound of a formula's float32 rounding error in units in the last place; infinity where there is none."""
    if node.kind == "band":
        return 0.0
    if node.kind == "constant":
        return 0.0 if float(np.float32(node.value)) == node.value else 0.5
    if _compensated(node) is not None:
        return 2.5
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


def _compensated(node: Node) -> tuple[Node, Node] | None:
    """Operands of a normalised difference that are bands or sums of two, such as those of the bare soil index.

    The sums are rounded, and where they are nearly the same their difference is hardly more than what the rounding
    took away; but that part is known exactly [1]_, and is given back.

    References
    ----------
    .. [1] Knuth (1998), The Art of Computer Programming 2, section 4.2.2, theorem B.
    """
    pair = _normalised_pair(node)
    if pair is None or {part.kind for part in pair} not in ({"add"}, {"add", "band"}):
        return None
    return pair if all(part.kind == "band" for side in pair for part in side.operands) else None


class _Builder:
    """Numbers the distinct values of formulas in the order in which they can be computed."""

    def __init__(self, single: bool) -> None:
        self.single = single
        self.values: dict[_Key, int] = {}

    def number(self, node: Node) -> int:
        pair = _normalised_pair(node)
        if pair is not None:
            first, second = self.number(pair[0]), self.number(pair[1])
            if not self.single or _compensated(node) is None:
                return self._value(("normalise", first, second, "", 0.0))
            difference = self._step("subtract", first, second)
            given_back = self._step("subtract", self._lost(pair[0]), self._lost(pair[1]))
            top, bottom = self._step("add", difference, given_back), self._step("add", first, second)
            return self._step("divide", top, bottom)
        operands = [self.number(part) for part in node.operands]
        if node.kind == "power" and node.operands[1].value in (1.0, 2.0, 3.0, 4.0):
            return self._product(operands[0], int(node.operands[1].value))
        a, b = [*operands, -1, -1][:2]
        return self._value((node.kind, a, b, node.name, node.value))

    def _lost(self, node: Node) -> int:
        """What rounding took away from a sum of two bands."""
        if node.kind == "band":
            return self._value(("constant", -1, -1, "", 0.0))
        total, first, second = self.number(node), *(self.number(part) for part in node.operands)
        virtual = self._step("subtract", total, first)
        back = self._step("subtract", total, virtual)
        return self._step("add", self._step("subtract", first, back), self._step("subtract", second, virtual))

    def _product(self, base: int, times: int) -> int:
        product = base
        for _ in range(times - 1):
            product = self._step("multiply", product, base)
        return product

    def _step(self, kind: str, a: int, b: int) -> int:
        return self._value((kind, a, b, "", 0.0))

    def _value(self, key: _Key) -> int:
        return self.values.setdefault(key, len(self.values))


def _compile(formulas: Mapping[int, Node], dtype: np.dtype[np.floating]) -> Program:
    from geococa._kernels import spectral

    single = dtype == np.float32
    builder = _Builder(single)
    results = {target: builder.number(node) for target, node in formulas.items()}
    values = tuple(builder.values)
    bands = tuple(dict.fromkeys(name for kind, _, _, name, _ in values if kind == "band"))
    constants = [number for number, key in enumerate(values) if key[0] == "constant"]
    rows = {number: row for row, number in enumerate(constants)}
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
    numbers = np.array([values[v][4] for v in constants], float)
    return Program(bands, values, results, table, numbers, max(height, 1), dtype)


def _last_uses(values: Sequence[_Key], results: Mapping[int, int]) -> dict[int, int]:
    """Step after which each value is needed no more; values that nothing needs are left out."""
    last: dict[int, int] = {value: value for value in results.values()}
    for number in range(len(values) - 1, -1, -1):
        if number in last:
            for operand in values[number][1:3]:
                if operand >= 0:
                    last[operand] = max(last.get(operand, -1), number)
    return last
