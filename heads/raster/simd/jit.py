"""How our CPU kernels are compiled: numba without the GIL, cached on disk wherever that is possible.

Numba's own cache knows only the file of the kernel: a change in a module that it calls leaves stale machine code,
and a read-only installation with an unwritable home fails at import. Ours is stamped with every source file of
this folder, and is simply absent where no folder can be written (the kernels then compile once per process).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

# nnan and ninf are left out on purpose: bad Gaussians are found by comparisons that NaN must fail.
FASTMATH = {"contract", "reassoc", "nsz", "arcp", "afn"}


@cache
def _source_stamp() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where compiled kernels are kept: `$HEADSTART_CACHE`, else the user's cache folder."""
    root = os.environ.get("HEADSTART_CACHE")
    if root:
        return Path(root) / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headstart" / "kernels"


class _Locator(_CacheLocator):
    def __init__(self, function: Callable, file: str) -> None:
        self._py_file = file
        self._name = function.__qualname__

    def get_cache_path(self) -> str:
        return str(cache_folder())

    def get_source_stamp(self) -> str:
        return _source_stamp()

    def get_disambiguator(self) -> str:
        # Two installations of different age share the folder, so the stamp is part of the file's name.
        return _source_stamp()[:12]

    @classmethod
    def from_function(cls, function: Callable, file: str) -> _Locator | None:
        locator = cls(function, file)
        try:
            locator.ensure_cache_path()
        except OSError:
            return None
        return locator


class _Impl(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 numba's own protocol


class _Cache(FunctionCache):
    _impl_class = _Impl


def kernel(function: Callable) -> Callable:
    """Compile `function` at its first call: no GIL, IEEE division, contracted arithmetic, cached if possible."""
    dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath=FASTMATH, boundscheck=False)(function)
    # No writable folder, or a numba whose cache is built differently: compile in every process.
    with contextlib.suppress(RuntimeError, OSError, AttributeError):
        dispatcher._cache = _Cache(function)
    return dispatcher


def inline(function: Callable) -> Callable:
    """A helper that is compiled into the kernels that call it."""
    return numba.njit(nogil=True, error_model="numpy", fastmath=FASTMATH, boundscheck=False)(function)
