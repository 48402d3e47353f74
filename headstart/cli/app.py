"""The command line: its commands, how a command runs, and its exit status."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

import headstart
from configs import InputError, runtime
from configs.errors import is_resumable
from configs.words import finite
from headstart.cli import output, progress
from headstart.cli.parser import HelpFormatter, Parser

# Commands by purpose; each is a module of this package.
GROUPS = {
    "getting started": ("demo", "doctor"),
    "one person": ("adapt", "talk", "live", "evaluate", "export", "track"),
    "provenance": ("detect", "sign_init"),
    "many people": ("shards", "pretrain", "priors"),
}
KEPT_LOGS = 20  # files
AGAIN = "run the same command again"
# Faults that no code of ours can prevent, and what to do about them.
OF_THE_MACHINE = {
    errno.ENOSPC: "free space where the output goes and run the same command again, or choose another folder",
    errno.EDQUOT: "free space where the output goes and run the same command again, or choose another folder",
    errno.EROFS: "choose a folder that may be written to",
    errno.EACCES: "ask for the right to it, or choose another folder",
    errno.EPERM: "ask for the right to it, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class _Overview(HelpFormatter):
    """The list of commands in groups."""

    def add_arguments(self, actions: Any) -> None:
        """The sub-parsers' own list is replaced by the description's groups."""
        super().add_arguments([action for action in actions if not isinstance(action, argparse._SubParsersAction)])


def parser() -> Parser:
    """The whole command line."""
    made = Parser(prog="headstart", formatter_class=_Overview, add_help=True)
    made.add_argument("--version", action="version", version=f"headstart {headstart.__version__}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for names in GROUPS.values():
        for name in names:
            importlib.import_module(f"headstart.cli.{name}").add(commands)
    helps = {action.dest: action.help for action in commands._choices_actions}
    lines = ["Train Gaussian head priors on many people; make talking heads from one person's clip.", ""]
    for group, names in GROUPS.items():
        lines += [
            f"{group}:",
            *(f"  {name:<10} {helps[name]}" for name in (name.replace("_", "-") for name in names)),
            "",
        ]
    made.description = "\n".join(lines)
    made.epilog = (
        "start here:\n  headstart adapt me.mp4 --out me.avatar\n  headstart talk me.avatar speech.wav --out talking.mp4\n\n"
        "'headstart COMMAND --help' lists the options of a command and shows an example."
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit status: 0 success, 1 internal error, 2 wrong input or a failed check, 3 no mark (``detect``), 130
        interrupted, 143 ended by SIGTERM.
    """
    runtime.prepare()
    arguments = parser().parse_args(argv)
    with _streams(arguments) as (out, err, log), _terminable():
        return _run(arguments, out, err, log)


class Terminated(KeyboardInterrupt):
    """SIGTERM, as from ``kill``, ``timeout`` or a batch system: a command ends as with Ctrl-C, and cleans up."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises :class:`Terminated` in this process; what a command forks keeps the usual effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends it at once
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGTERM)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(arguments: argparse.Namespace, out: TextIO, err: TextIO, log: Path | None) -> int:
    try:
        with progress.shown(output.console(err)):
            result = arguments.run(arguments)
        if arguments.json:
            print(json.dumps(finite(result), default=str), file=out)
        else:
            arguments.show(output.console(out), result, arguments)
        out.flush()
    except InputError as error:
        print(f"headstart: {again(str(error), arguments, error)}", file=err)
        return 2
    except KeyboardInterrupt as error:
        print(f"headstart: {interrupted(arguments.command, error)}", file=err)
        return 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
            print(f"headstart: {again(of_the_machine(error), arguments, error)}", file=err)
            return 2
        traceback.print_exc(file=err)
        where = f"; the output of other libraries is in {log}" if log else ""
        print(f"headstart: this is a bug in headstart, please report it with the lines above{where}", file=err)
        return 1
    return status(result)


def interrupted(command: str, error: BaseException) -> str:
    """What is left of a command that Ctrl-C or SIGTERM ended."""
    kept = {"shards": "; full shards are kept, run the same command again to continue a build",
            "pretrain": "; add --resume to continue from the newest checkpoint"}  # fmt: skip
    if is_resumable(error):
        return "interrupted; add --resume to continue from what was saved"
    return "interrupted" + kept.get(command, "; nothing half-written is left")


def again(sentence: str, arguments: argparse.Namespace, error: BaseException) -> str:
    """A sentence whose advice to repeat the command names the option without which this one would refuse its own output."""
    # A run of pretrain without a checkpoint begins anew with --resume, too.
    if getattr(arguments, "resume", True) or not (arguments.command == "pretrain" or is_resumable(error)):
        return sentence
    return sentence.replace(AGAIN, f"{AGAIN} with --resume")


def of_the_machine(error: OSError) -> str:
    """One sentence on a full disk, a missing right or the like."""
    where = f"{os.fspath(error.filename)!s}: " if isinstance(error.filename, (str, os.PathLike)) else ""
    return f"{where}{str(error.strerror).lower()}; {OF_THE_MACHINE[error.errno or 0]}"


def status(result: object) -> int:
    """The exit status of a result: its ``status``, else 2 for a check whose ``ok`` is false, else 0."""
    if not isinstance(result, dict):
        return 0
    return int(result.get("status", 2 if result.get("ok") is False else 0))


@contextlib.contextmanager
def _streams(arguments: argparse.Namespace) -> Iterator[tuple[TextIO, TextIO, Path | None]]:
    """Streams of this command and the log that other libraries write to; with ``--verbose`` there is no log."""
    if arguments.verbose:
        yield sys.stdout, sys.stderr, None
        return
    log = _log_file(arguments)
    try:
        with runtime.others_to(log) as (out, err):
            yield out, err, log
    finally:
        with contextlib.suppress(FileNotFoundError):  # commands that began later may have removed it
            if not log.stat().st_size:
                log.unlink()


def _log_file(arguments: argparse.Namespace) -> Path:
    """A new file under ``HEADSTART_HOME/logs``; all but the newest ``KEPT_LOGS`` others are removed."""
    folder = Path(os.environ.get("HEADSTART_HOME") or Path.home() / ".headstart") / "logs"
    log = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{arguments.command}-{os.getpid()}.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log.touch()
    except OSError as error:
        print(
            f"headstart: {folder} cannot be written ({error.strerror}); set HEADSTART_HOME to a folder that can",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    # Names begin with the time. Another command may remove the same ones.
    for old in sorted(folder.glob("*.log"))[: -KEPT_LOGS - 1]:
        with contextlib.suppress(OSError):
            old.unlink()
    return log
