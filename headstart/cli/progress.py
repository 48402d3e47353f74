"""Progress for people: bars with the time left on a terminal, sentences only in a pipe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Row
from rich.text import Text

from configs import progress


class _Note(ProgressColumn):
    def render(self, task: Row) -> Text:
        """Unit and note of a row."""
        return Text(" ".join(filter(None, (task.fields.get("unit"), task.fields.get("note")))), style="dim")


class _Bar:
    def __init__(self, bars: Progress, row: TaskID) -> None:
        self.bars, self.row = bars, row

    def update(self, done: float | None = None, *, total: float | None = None, note: str | None = None) -> None:
        """See :class:`configs.progress.Task`."""
        self.bars.update(self.row, completed=done, total=total)
        if note is not None:
            self.bars.update(self.row, note=note)

    def advance(self, by: float = 1) -> None:
        """See :class:`configs.progress.Task`."""
        self.bars.advance(self.row, by)


class Bars:
    """A listener that draws on a terminal."""

    def __init__(self, console: Console) -> None:
        self.bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            _Note(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def say(self, text: str) -> None:
        """A sentence above the bars."""
        self.bars.console.print(escape(text), soft_wrap=True)

    def start(self, label: str, total: float | None, unit: str) -> _Bar:
        """A new bar."""
        self.bars.start()
        return _Bar(self.bars, self.bars.add_task(escape(label), total=total, unit=unit, note=""))

    def stop(self, task: progress.Task) -> None:
        """Remove the bar, and after the last one the display."""
        assert isinstance(task, _Bar)
        self.bars.remove_task(task.row)
        if not self.bars.tasks:
            self.bars.stop()


class _Quiet:
    def update(self, done: float | None = None, *, total: float | None = None, note: str | None = None) -> None:
        """Nothing: bars are not written to logs."""

    def advance(self, by: float = 1) -> None:
        """Nothing."""


class Lines:
    """A listener for pipes and logs: sentences only."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """A sentence."""
        self.console.print(escape(text), soft_wrap=True)

    def start(self, label: str, total: float | None, unit: str) -> _Quiet:
        """A task that shows nothing."""
        return _Quiet()

    def stop(self, task: progress.Task) -> None:
        """Nothing was shown."""


@contextlib.contextmanager
def shown(console: Console) -> Iterator[None]:
    """Show what the rooms say inside the block."""
    listener = Bars(console) if console.is_terminal else Lines(console)
    try:
        with progress.listen(listener):
            yield
    finally:
        if isinstance(listener, Bars):
            listener.bars.stop()
