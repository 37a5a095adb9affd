"""Every numba option of the project.

Kernels are single-threaded and release the GIL: the project's own thread pool runs them over blocks.
``parallel=True`` is never used, since it aborts the process on some threading layers when two Python
threads call it, and its sums change with the number of threads. ``fastmath`` is never global, since it
lets the compiler assume that NaN does not occur, and here NaN is data.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import platformdirs

__all__ = ["contracted", "contracted_kernel", "inline", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])


def _cache_directory() -> Path | None:
    """Folder for compiled kernels that only this user can write, or None where there is none.

    Numba's cache is pickle, so a folder that others can write could run their code in our process.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    try:
        base = Path(chosen) if chosen else Path(platformdirs.user_cache_dir("geococa")) / "numba" / _source_digest()
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = base.stat()
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise PermissionError(f"{base} is writable by other users")
        probe = base / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        warnings.warn(
            f"geococa compiles its kernels anew in this process: no safe cache folder ({error})",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return base


def _source_digest() -> str:
    """Digest of all kernels.

    Numba compiles a kernel anew when its own file changes, but not when only a core changes that it takes from
    another file; kernels of two versions must not share a folder.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _set_up_cache() -> bool:
    if numba.config.DISABLE_JIT:
        return False
    folder = _cache_directory()
    if folder is None:
        return False
    numba.config.CACHE_DIR = str(folder)
    return True


_CACHE = _set_up_cache()


def kernel(function: F) -> F:
    """Compile a block loop: nopython, GIL released, cached, numpy's rules for division by zero."""
    compiled: F = numba.njit(nogil=True, cache=_CACHE, error_model="numpy")(function)
    return compiled


def inline(function: F) -> F:
    """Compile a scalar core that kernels call; LLVM inlines it into their loops."""
    compiled: F = numba.njit(nogil=True, error_model="numpy", cache=_CACHE)(function)
    return compiled


def contracted(function: F) -> F:
    """Compile a scalar core as `inline` does, and let a product and a sum become one instruction that rounds once.

    Twice as fast where the processor has it. For arithmetic whose rounding is bounded and never reaches a
    result, since processors without it round twice. NaN and infinity behave as ever.
    """
    compiled: F = numba.njit(nogil=True, error_model="numpy", cache=_CACHE, fastmath={"contract"})(function)
    return compiled


def contracted_kernel(function: F) -> F:
    """Compile a block loop as `kernel` does, with the liberty of `contracted`."""
    compiled: F = numba.njit(nogil=True, cache=_CACHE, error_model="numpy", fastmath={"contract"})(function)
    return compiled
