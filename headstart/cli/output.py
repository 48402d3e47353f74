"""Results for people: aligned tables, units, and next steps. Coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

WIDTH = 120  # characters per line in a pipe, where there is no terminal width


def console(stream: TextIO) -> Console:
    """A console on a stream; long words are never cut, and only a terminal gets colours."""
    terminal = stream.isatty()
    width = None if terminal else WIDTH
    return Console(file=stream, highlight=False, emoji=False, width=width, soft_wrap=not terminal)


def line(out: Console, words: object, label: str = "", style: str = "dim") -> None:
    """One line, in which square brackets are nothing but brackets, behind a coloured label."""
    out.print(Text.assemble((label, style), " " if label and words else "", str(words)), soft_wrap=True)


def command(*words: object) -> str:
    """``headstart WORDS``, quoted where a shell needs it: what stands there can be pasted."""
    return shlex.join(["headstart", *map(str, words)])


def facts(out: Console, rows: Mapping[str, object]) -> None:
    """Names and values, aligned; ``None`` is left out."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value is not None:
            table.add_row(escape(name.replace("_", " ")), escape(text(value)))
    _print(out, table)


def table(out: Console, columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """A table; numbers are right-aligned. Nothing is printed without rows."""
    cells = [[text(cell) for cell in row] for row in rows]
    if not cells:
        return
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in cells)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        shown.add_row(*(escape(cell) for cell in row))
    _print(out, shown)


def _print(out: Console, shown: Table) -> None:
    """Print a table; in a pipe without the spaces that fill its last column."""
    if out.is_terminal:
        out.print(shown)
        return
    with out.capture() as captured:
        out.print(shown)
    out.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def next_step(out: Console, *lines: str) -> None:
    """Commands to type next, one per line."""
    out.print()
    for words in lines:
        line(out, words, "next:")


def text(value: object) -> str:
    """A value as people read it: four significant digits, ``–`` for ``None``."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(text(entry) for entry in value)
    return str(value)


def seconds(value: float | None) -> str | None:
    """``8.1 s``, ``4 min 12 s``, ``2 h 5 min``."""
    if value is None:
        return None
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float | None) -> str | None:
    """Bytes as ``kB``, ``MB`` or ``GB``."""
    if count is None:
        return None
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return None


def with_unit(value: float | None, unit: str, digits: int = 2) -> str:
    """``31.52 dB``; ``–`` for what was not measured."""
    return "–" if value is None else f"{value:.{digits}f} {unit}".rstrip()


def _is_number(cell: str) -> bool:
    return cell == "–" or cell[:1].isdigit() or cell[:2].lstrip("-+").isdigit()
