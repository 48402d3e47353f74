"""Errors that the command line turns into one sentence and an exit status."""


class InputError(ValueError):
    """The user's input is wrong: one sentence with what, where, got, expected and what to do.

    The command line prints it without a traceback and exits with status 2.
    """

    exit_status = 2
