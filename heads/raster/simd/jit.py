"""How our CPU kernels are compiled: numba without the GIL, IEEE division, contracted arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

from heads.raster.simd import caching

# nnan and ninf are left out on purpose: invalid Gaussians are recognised by comparisons that NaN must fail.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}
Returned = TypeVar("Returned")
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH, "boundscheck": False}


def kernel(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """Compile ``function`` at its first call, and cache the machine code on disk if possible."""
    return caching.keep(numba.njit(**OPTIONS)(function), function)


def inline(function: Callable[..., Returned]) -> Callable[..., Returned]:
    """A helper that is compiled into the kernels that call it."""
    return numba.njit(**OPTIONS)(function)


def exact(function: Callable[..., Any]) -> Any:
    """As :func:`kernel`, but without fast-math: every operation rounds as in IEEE 754 and NumPy."""
    return caching.keep(numba.njit(nogil=True, error_model="numpy")(function), function)
