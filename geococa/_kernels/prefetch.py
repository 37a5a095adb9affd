"""Ask for memory before it is read: a kernel that works on one strip lets the next one come from far memory meanwhile.

The processor guesses by itself where a loop reads next, but a strip of many planes is too short a run in each of them to
guess from.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from geococa._kernels._jit import inline

__all__ = ["build_prefetch", "prefetch_planes"]

_LINE = 64
"""Bytes of a cache line."""


def build_prefetch(builder: Any, place: Any, write: bool = False) -> None:
    """Add the instruction that asks for the cache line of a pointer, to read or to ``write``, for all levels of the cache."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [builder.bitcast(place, byte), word(int(write)), word(3), word(1)])


def _ask_for(*_: Any) -> Any:
    """Ask for the cache line of an element of an array; nothing else happens, wherever the index points."""


if not numba.config.DISABLE_JIT:

    @intrinsic
    def _ask_for(_: Any, array: Any, _index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            build_prefetch(builder, builder.gep(data, [arguments[1]]))
            return context.get_dummy_value()

        return types.void(array, types.intp), generate


@inline
def prefetch_planes(flat: np.ndarray, step: int, n_planes: int, start: int, width: int) -> None:
    """Ask for ``width`` values from ``start`` of each plane; for planes see `geococa._kernels.planes.flat_planes`."""
    for plane in range(n_planes):
        for p in range(start, start + width, _LINE // flat.itemsize):
            _ask_for(flat, plane * step + p)
