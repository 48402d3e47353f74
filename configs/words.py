"""Parts of sentences: numbers with their noun, and the reasons that other programs give."""

from __future__ import annotations


def counted(number: int, one: str, more: str | None = None) -> str:
    """``1 clip``, ``2 clips``; ``more`` is the plural where it is not made by an s."""
    return f"{number} {one if number == 1 else more or one + 's'}"


def shortened(text: object, most: int = 200) -> str:
    """One line of at most ``most`` characters; where more is said, it ends behind a whole word with an ellipsis."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 2].rpartition(' ')[0] or line[: most - 2]} …"
