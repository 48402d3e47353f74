"""Answers about a file that hold for as long as the file does not change."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def once_per_file(ask: Callable[[str | Path], T]) -> Callable[[str | Path], T]:
    """Remembers the answers of the last 256 files by path, size and time of change; errors are not remembered."""

    @lru_cache(maxsize=256)
    def remembered(path: str, size: int, changed: int) -> T:
        return ask(path)

    @wraps(ask)
    def answer(path: str | Path) -> T:
        file = Path(path)
        try:
            stat = file.stat()
        except OSError:
            return ask(path)
        return remembered(str(path), stat.st_size, stat.st_mtime_ns)

    return answer
