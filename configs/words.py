"""Numbers with their noun in sentences."""

from __future__ import annotations


def counted(number: int, one: str, more: str | None = None) -> str:
    """``1 clip``, ``2 clips``; ``more`` is the plural where it is not made by an s."""
    return f"{number} {one if number == 1 else more or one + 's'}"
