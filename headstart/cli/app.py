"""The command line itself: which commands there are, how one runs, and its exit status."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import headstart
from configs import InputError, runtime
from headstart.cli import output, progress
from headstart.cli.parser import HelpFormatter, Parser

# Commands by what people come for; each is a module of this package.
GROUPS = {
    "try it": ("demo", "doctor"),
    "one person": ("adapt", "talk", "live", "evaluate", "export", "track"),
    "what was made": ("detect", "sign_init"),
    "many people": ("shards", "pretrain", "priors"),
}
KEPT_LOGS = 20


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
    lines = ["Gaussian head priors from many people; talking heads from one person's clip.", ""]
    for group, names in GROUPS.items():
        lines += [
            f"{group}:",
            *(f"  {name:<10} {helps[name]}" for name in (name.replace("_", "-") for name in names)),
            "",
        ]
    made.description = "\n".join(lines)
    made.epilog = (
        "start here:\n  headstart adapt me.mp4 --out me.avatar\n  headstart talk me.avatar speech.wav --out talking.mp4\n\n"
        "'headstart COMMAND --help' lists a command's options, with an example."
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit status: 0 done, 2 the user's input is wrong or a check failed, 130 interrupted, 1 our fault.
    """
    runtime.prepare()
    arguments = parser().parse_args(argv)
    with _streams(arguments) as (out, err, log):
        return _run(arguments, out, err, log)


def _run(arguments: argparse.Namespace, out: TextIO, err: TextIO, log: Path | None) -> int:
    try:
        with progress.shown(output.console(err)):
            result = arguments.run(arguments)
        if arguments.json:
            print(json.dumps(result, default=str), file=out)
        else:
            arguments.show(output.console(out), result, arguments)
        out.flush()
    except InputError as error:
        print(f"headstart: {error}", file=err)
        return 2
    except KeyboardInterrupt:
        print("headstart: interrupted; what was finished is kept, run the same command again to go on", file=err)
        return 130
    except BrokenPipeError:
        return 0
    except Exception:
        traceback.print_exc(file=err)
        where = f"; what other libraries said is in {log}" if log else ""
        print(f"headstart: this is a fault of ours, please report it with the lines above{where}", file=err)
        return 1
    return status(result)


def status(result: object) -> int:
    """Checks that ran and found something wrong exit with 2, like any other wrong input; ``status`` wins."""
    if not isinstance(result, dict):
        return 0
    return int(result.get("status", 2 if result.get("ok") is False else 0))


@contextlib.contextmanager
def _streams(arguments: argparse.Namespace) -> Iterator[tuple[TextIO, TextIO, Path | None]]:
    """Where this command writes; other libraries write to a log unless ``--verbose``."""
    if arguments.verbose:
        yield sys.stdout, sys.stderr, None
        return
    log = _log_file(arguments)
    try:
        with runtime.others_to(log) as (out, err):
            yield out, err, log
    finally:
        if not log.stat().st_size:
            log.unlink()


def _log_file(arguments: argparse.Namespace) -> Path:
    """A fresh file under ``HEADSTART_HOME/logs``; the oldest beyond the last few are removed."""
    folder = Path(os.environ.get("HEADSTART_HOME") or Path.home() / ".headstart") / "logs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"headstart: {folder} cannot be made ({error.strerror}); set HEADSTART_HOME") from None
    for old in sorted(folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[: -KEPT_LOGS or None]:
        old.unlink(missing_ok=True)
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{arguments.command}-{os.getpid()}.log"
