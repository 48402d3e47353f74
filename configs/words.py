"""What is printed and written: numbers with their noun, the reasons that other programs give, numbers that JSON knows."""

from __future__ import annotations

import math


def counted(number: int, one: str, more: str | None = None) -> str:
    """``1 clip``, ``2 clips``; ``more`` is the plural where it is not made by an s."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def shortened(text: object, most: int = 200) -> str:
    """One line of at most ``most`` characters; where more is said, it ends behind a whole word with an ellipsis."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 2].rpartition(' ')[0] or line[: most - 2]} …"


def finite(value: object) -> object:
    """What a JSON document may hold: NaN and the infinities, of which JSON knows none, become ``None``, at any depth."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
