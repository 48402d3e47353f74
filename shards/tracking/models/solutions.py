"""MediaPipe itself: imported where it is used, quiet, and without matplotlib."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from configs import InputError

_QUIET = threading.RLock()  # standard error belongs to the whole process: two threads must not take it from each other


def tessellation() -> np.ndarray:
    """Edges ``[E, 2]`` of the face mesh, as MediaPipe publishes them."""
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

    return np.array(sorted(FACEMESH_TESSELATION))


def version() -> str:
    """MediaPipe's version, for records."""
    from importlib.metadata import version as installed

    return f"mediapipe {installed('mediapipe')}"


class _Postponed(ModuleType):
    """Stands in for a module until something of it is used."""

    def __getattr__(self, name: str) -> object:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def _without_matplotlib() -> Iterator[None]:
    """MediaPipe's drawing tools import matplotlib, which takes longer than all the rest; here nothing is drawn."""
    names = [name for name in ("matplotlib", "matplotlib.pyplot") if name not in sys.modules]
    waiting = {name: _Postponed(name) for name in names}
    if len(waiting) == 2:
        waiting["matplotlib"].__dict__["pyplot"] = waiting["matplotlib.pyplot"]
    sys.modules.update(waiting)
    try:
        yield
    finally:
        for name, module in waiting.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def solutions() -> Any:
    """MediaPipe's solutions.

    Raises:
        InputError: it is not installed.
    """
    try:
        with _without_matplotlib():
            import mediapipe
    except ImportError:
        raise InputError("tracking needs mediapipe 0.10.21: pip install 'headstart[track]'") from None
    return mediapipe.solutions


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what the native library writes to standard error while it starts, which no option prevents."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _QUIET:
        with contextlib.suppress(ValueError, OSError):
            sys.stderr.flush()
        saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(sink)


class Solution:
    """A solution of MediaPipe that remembers nothing between pictures; threads take turns."""

    def __init__(self, part: str, name: str, **options: float) -> None:
        with quiet():
            self._solution = getattr(getattr(solutions(), part), name)(**options)
        self._lock, self._warm = threading.Lock(), False

    def __call__(self, picture: np.ndarray) -> Any:
        """What it finds in a picture ``[H, W, 3]`` uint8 RGB."""
        with self._lock, contextlib.nullcontext() if self._warm else quiet():
            found = self._solution.process(np.ascontiguousarray(picture))
        # Some networks are loaded, and log, when something is found for the first time.
        self._warm = self._warm or any(getattr(found, name) is not None for name in found._fields)
        return found


def solution(part: str, name: str, **options: float) -> Solution:
    """The process's own one of MediaPipe's solutions, such as ``"face_mesh", "FaceMesh"``.

    Loading one takes 5 to 25 ms: as long as tracking a few frames.
    """
    return _of_process(os.getpid(), part, name, tuple(sorted(options.items())))


@functools.lru_cache(maxsize=16)
def _of_process(process: int, part: str, name: str, options: tuple[tuple[str, float], ...]) -> Solution:
    """``process``: its number, since threads of MediaPipe do not survive a fork."""
    return Solution(part, name, **dict(options))
