"""Arrays by their address: numba takes long to choose one of a tuple of arrays, and every number of arrays is a type."""

from __future__ import annotations

import ctypes
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from geococa._kernels._jit import inline

__all__ = ["floats_at"]


def _pointer(address: Any) -> Any:
    """Pointer to float32 from a number."""
    return ctypes.cast(int(address), ctypes.POINTER(ctypes.c_float))


if not numba.config.DISABLE_JIT:

    @intrinsic
    def _pointer(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(types.float32)(address), generate


@inline
def floats_at(address: int, count: int) -> np.ndarray:
    """View of ``count`` float32 values at an address; the caller keeps the array that it is of."""
    view: np.ndarray = numba.carray(_pointer(address), (count,), np.float32)
    return view
