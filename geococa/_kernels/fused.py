"""Band arithmetic of one set of formulas as one loop: bands are loaded once, every result is stored once.

A processor that waits for memory can compute meanwhile, but only what stands close to the load or store it waits for.
Steps that each pass over a strip leave it idle, so here all steps of a group of pixels stand together, their values in
registers. The loop is made from the steps themselves, as vector instructions of LLVM's own intermediate code, and
cached like any other kernel; no text is ever run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from geococa._kernels._jit import kernel
from geococa._kernels.prefetch import build_prefetch

__all__ = ["COMPILED", "FUSABLE", "fused"]

COMPILED = not numba.config.DISABLE_JIT
"""Whether there is a compiler at all."""

FUSABLE = frozenset(
    {
        *("band", "constant", "add", "subtract", "multiply", "divide"),
        *("normalise", "negate", "abs", "sqrt", "minimum", "maximum"),
    }
)
"""Kinds of steps that are vector instructions; the others call a function for each pixel."""

_LANES = 8
"""Pixels of a vector: LLVM takes it apart where the processor's are shorter."""
_LINE = 16
"""Pixels of a cache line."""
_AHEAD = 256
"""Bytes ahead of the loop at which memory is asked for (of 128 to 1,024, 256 were best)."""


@lru_cache(maxsize=64)
def fused(steps: str) -> Callable[[np.ndarray, np.ndarray], None]:
    """Make the kernel of some steps.

    Parameters
    ----------
    steps : str
        Parts, one after the other with ``|`` between them; each is a precision, ``float`` or ``double``, and its steps,
        with ``;`` between them. A step is a kind of `FUSABLE` and its operands: numbers of earlier steps of its part,
        for ``band`` its number, for ``constant`` its value in hexadecimal; ``store row step`` writes a result.

    Returns
    -------
    callable
        From the addresses of the bands, int64 ``(bands,)``, each float32 ``(n,)``, and ``out``, float32 ``(results,
        n)``, C-contiguous, which it overwrites: NaN where a result is not finite.
    """

    @kernel
    def run(addresses: np.ndarray, out: np.ndarray) -> None:
        bands, first = np.int64(addresses.ctypes.data), np.int64(out.ctypes.data)
        count, stride = np.int64(out.shape[1]), np.int64(out.strides[0])
        # vectors that start with a cache line never lie across two of them
        head = int(min(count, (-first % 64) // 4))
        for pixel in range(head):
            _pixels(steps, 1, bands, first, stride, pixel)
        lines = (count - head) // _LINE
        for line in range(lines):
            pixel = head + line * _LINE
            _ask_ahead(steps, bands, first, stride, pixel)
            _pixels(steps, _LANES, bands, first, stride, pixel)
            _pixels(steps, _LANES, bands, first, stride, pixel + _LANES)
        for pixel in range(head + lines * _LINE, count):
            _pixels(steps, 1, bands, first, stride, pixel)

    return run


@intrinsic(prefer_literal=True)
def _pixels(context: Any, steps: Any, lanes: Any, bands: Any, out: Any, stride: Any, pixel: Any) -> Any:  # noqa: ARG001
    """Compute and store all results of some neighbouring pixels."""
    if not isinstance(steps, types.StringLiteral) or not isinstance(lanes, types.IntegerLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        _Vectors(builder, lanes.literal_value, *arguments[2:]).run(steps.literal_value)
        return context.get_dummy_value()

    return types.void(steps, lanes, *[types.int64] * 4), generate


@intrinsic(prefer_literal=True)
def _ask_ahead(context: Any, steps: Any, bands: Any, out: Any, stride: Any, pixel: Any) -> Any:  # noqa: ARG001
    """Ask for the memory that the loop comes to next."""
    if not isinstance(steps, types.StringLiteral):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
        _Vectors(builder, 1, *arguments[1:]).ask_ahead(steps.literal_value)
        return context.get_dummy_value()

    return types.void(steps, *[types.int64] * 4), generate


class _Vectors:
    """Intermediate code of the steps for ``lanes`` pixels from ``pixel`` on."""

    def __init__(self, builder: Any, lanes: int, bands: Any, out: Any, stride: Any, pixel: Any) -> None:
        from llvmlite import ir

        self.ir, self.builder, self.lanes = ir, builder, lanes
        self.bands, self.out, self.stride = bands, out, stride
        self.offset = builder.mul(pixel, self.whole(4))
        self.loaded: dict[str, Any] = {}

    def whole(self, value: int) -> Any:
        return self.ir.Constant(self.ir.IntType(64), value)

    def vector(self, kind: Any) -> Any:
        return kind if self.lanes == 1 else self.ir.VectorType(kind, self.lanes)

    def constant(self, kind: Any, value: float) -> Any:
        return self.ir.Constant(self.vector(kind), value if self.lanes == 1 else [value] * self.lanes)

    def run(self, steps: str) -> None:
        for part in steps.split("|"):
            precision, *lines = part.split(";")
            kind = self.ir.FloatType() if precision == "float" else self.ir.DoubleType()
            values: list[Any] = []
            finite: set[int] = set()
            for name, *operands in (line.split(" ") for line in lines):
                if name == "store":
                    self.store(operands[0], values[int(operands[1])], int(operands[1]) in finite)
                elif name == "band":
                    values.append(self.band(operands[0], kind))
                elif name == "constant":
                    values.append(self.constant(kind, float.fromhex(operands[0])))
                else:
                    if name == "normalise" and precision == "float":
                        finite.add(len(values))
                    values.append(self.step(name, kind, *(values[int(number)] for number in operands)))

    def ask_ahead(self, steps: str) -> None:
        words = [line.split(" ") for part in steps.split("|") for line in part.split(";")]
        starts = [(self.start_of_band(k), False) for k in sorted({word[1] for word in words if word[0] == "band"})]
        starts += [(self.start_of_row(k), True) for k in sorted({word[1] for word in words if word[0] == "store"})]
        for start, write in starts:
            place = self.builder.add(start, self.whole(_AHEAD))
            build_prefetch(self.builder, self.builder.inttoptr(place, self.ir.IntType(8).as_pointer()), write)

    def start_of_band(self, band: str) -> Any:
        entry = self.builder.add(self.bands, self.whole(8 * int(band)))
        address = self.builder.load(self.builder.inttoptr(entry, self.ir.IntType(64).as_pointer()))
        return self.builder.add(address, self.offset)

    def start_of_row(self, row: str) -> Any:
        start = self.builder.add(self.out, self.builder.mul(self.stride, self.whole(int(row))))
        return self.builder.add(start, self.offset)

    def band(self, band: str, kind: Any) -> Any:
        if band not in self.loaded:
            pointer = self.vector(self.ir.FloatType()).as_pointer()
            place = self.builder.inttoptr(self.start_of_band(band), pointer)
            self.loaded[band] = self.builder.load(place, align=4)
        value = self.loaded[band]
        return value if kind == self.ir.FloatType() else self.builder.fpext(value, self.vector(kind))

    def store(self, row: str, value: Any, finite: bool) -> None:
        single = self.vector(self.ir.FloatType())
        if value.type != single:
            value = self.builder.fptrunc(value, single)
        if not finite:
            value = self.finite(value)
        place = self.builder.inttoptr(self.start_of_row(row), single.as_pointer())
        self.builder.store(value, place, align=4)

    def finite(self, value: Any) -> Any:
        """Value less zero, or less NaN where it is infinite."""
        return self.builder.fsub(value, self.builder.fsub(value, value))

    def step(self, name: str, kind: Any, a: Any, b: Any = None) -> Any:
        """Return the value of an operation, to the bit that of `spectral.run_program` and `spectral.run_single`."""
        build, nan = self.builder, self.constant(kind, float("nan"))
        plain = {"add": build.fadd, "subtract": build.fsub, "multiply": build.fmul}
        if name in plain:
            return plain[name](a, b)
        if name == "normalise":
            return self.finite(build.fdiv(build.fsub(a, b), build.fadd(a, b)))
        if name == "divide":
            # a finite result such as 1 / (1 / 0) = 0 must not come out of a division by zero
            return build.select(build.fcmp_unordered("!=", b, self.constant(kind, 0.0)), build.fdiv(a, b), nan)
        if name in ("minimum", "maximum"):
            least = build.select(build.fcmp_ordered("<" if name == "minimum" else ">", b, a), b, a)
            return build.select(build.fcmp_unordered("uno", a, b), nan, least)
        if name == "negate":
            return build.fneg(a)
        suffix = ("" if self.lanes == 1 else f"v{self.lanes}") + kind.intrinsic_name
        called = {"abs": "llvm.fabs.", "sqrt": "llvm.sqrt."}[name] + suffix
        function = build.module.globals.get(called)
        if function is None:
            function = self.ir.Function(build.module, self.ir.FunctionType(a.type, [a.type]), called)
        return build.call(function, [a])
