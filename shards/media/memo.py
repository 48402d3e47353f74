"""Results about a file, cached until the file changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def once_per_file(ask: Callable[[str | Path], T]) -> Callable[[str | Path], T]:
    """Cache the results for the last 256 files by path, size and modification time; errors are not cached."""

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
