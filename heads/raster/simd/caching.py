"""The disk cache of compiled kernels; the only module that uses numba's private caching.

Numba's own cache checks only the kernel's own file: after a change in a module that the kernel calls it returns stale
machine code, and a read-only installation with an unwritable home fails at import. Ours is stamped with the kernel's own
file and every source file of ``heads.raster``, where the helpers of all kernels are. Without a writable folder there is
no cache, and kernels compile once per process.

If a version of numba lacks the private names, :func:`keep` falls back to numba's public cache, in a separate folder for
each state of our sources, so that nothing stale is read there either.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

try:
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

    BROKEN = ""
except ImportError as error:  # tests/heads/test_numba_private.py names this
    BROKEN = f"numba {numba.__version__} has other caching internals: {error}"


@cache
def source_stamp(file: str | None = None) -> str:
    """Digest of numba's version and of all source files that kernels are compiled from: those of ``heads.raster``, and ``file``."""
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted({*Path(__file__).parents[1].rglob("*.py"), *([Path(file)] if file else [])}):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where compiled kernels are kept: ``$HEADSTART_CACHE``, else the user's cache folder."""
    root = os.environ.get("HEADSTART_CACHE")
    if root:
        return Path(root) / "kernels"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headstart" / "kernels"


def keep(dispatcher: Any, function: Callable[..., Any]) -> Any:
    """The dispatcher of a kernel, with a disk cache if a folder is writable."""
    if BROKEN:
        return _kept_publicly(dispatcher)
    # No writable folder, or a numba whose cache is built differently: compile in every process.
    with contextlib.suppress(RuntimeError, OSError, AttributeError):
        dispatcher._cache = _Cache(function)
    return dispatcher


def _kept_publicly(dispatcher: Any) -> object:
    """Enable numba's own cache, in a folder for this state of our sources."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder() / f"public-{source_stamp()[:12]}")
    try:
        dispatcher.enable_caching()
    except (RuntimeError, OSError):
        pass  # no writable folder: compile in every process
    finally:
        config.CACHE_DIR = before
    return dispatcher


if not BROKEN:

    class _Locator(_CacheLocator):  # type: ignore[misc]
        def __init__(self, function: Callable[..., object], file: str) -> None:
            self._py_file = file
            self._name = function.__qualname__

        def get_cache_path(self) -> str:
            return str(cache_folder())

        def get_source_stamp(self) -> str:
            return source_stamp(self._py_file)

        def get_disambiguator(self) -> str:
            # Several versions of Headstart may share the folder, so the stamp is part of the file's name.
            return source_stamp(self._py_file)[:12]

        @classmethod
        def from_function(cls, function: Callable[..., object], file: str) -> _Locator | None:
            locator = cls(function, file)
            try:
                locator.ensure_cache_path()
            except OSError:
                return None
            return locator

    class _Impl(CompileResultCacheImpl):  # type: ignore[misc]
        _locator_classes = [_Locator]  # noqa: RUF012 numba's own protocol

    class _Cache(FunctionCache):  # type: ignore[misc]
        _impl_class = _Impl
