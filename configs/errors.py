"""Errors that the command line turns into one sentence and an exit status."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """The user's input is wrong: one sentence with what, where, got, expected and what to do.

    The command line prints it without a traceback and exits with status 2.
    """

    exit_status = 2


@contextmanager
def resumable() -> Iterator[None]:
    """Whatever ends the block is marked: the command's output can be continued with ``--resume`` (:func:`is_resumable`)."""
    try:
        yield
    except BaseException as error:
        vars(error)["resumable"] = True
        raise


def is_resumable(error: BaseException) -> bool:
    """Whether what the command had done when ``error`` ended it was saved, so that ``--resume`` continues it."""
    return bool(getattr(error, "resumable", False))
