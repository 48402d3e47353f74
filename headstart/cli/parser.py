"""What the parsers of all commands share: errors that point to --help, an example, ``--json``."""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

# A command's modules live in the rooms; they are imported when the command runs, so that --help answers at once.
Subparsers = Any  # argparse keeps the class private


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """argparse's help, coloured on a terminal; group names are not capitalised."""

    group_name_formatter = str


class Parser(argparse.ArgumentParser):
    """argparse that points to --help instead of printing the usage for a misspelt option."""

    takes_overrides = False  # whether key=value may appear anywhere on the line

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, **options})

    def parse_known_args(  # type: ignore[override]  # argparse allows any object as the namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; argparse alone loses positional arguments that follow an option."""
        found, rest = super().parse_known_args(args, namespace)
        if self.takes_overrides:
            loose = [text for text in rest if "=" in text and not text.startswith("-")]
            found.overrides = [*found.overrides, *loose]
            rest = [text for text in rest if text not in loose]
        if rest:  # argparse would leave it to the parser above, whose --help lists no options of this command
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """One line on standard error and exit status 2."""
        self.exit(2, f"{self.prog}: {message}; '{self.prog} --help' lists the options\n")


def command(
    commands: Subparsers,
    name: str,
    description: str,
    run: Callable[[argparse.Namespace], object],
    show: Callable[..., None],
    example: str,
) -> Parser:
    """A command's parser.

    Args:
        commands: what ``add_subparsers`` returned.
        run: runs the command and returns a JSON-serialisable result.
        show: prints that result for people.
        example: one complete command line.
    """
    parser: Parser = commands.add_parser(
        name, help=description, description=description, epilog=f"example:\n  {example}"
    )
    general = parser.add_argument_group("output")
    general.add_argument("--json", action="store_true", help="print one JSON object on the last line of stdout")
    general.add_argument("--verbose", action="store_true", help="show the output and logs of other libraries")
    parser.set_defaults(run=run, show=show)
    return parser


def actions(commands: Subparsers, name: str, description: str) -> Subparsers:
    """A command that has actions of its own, such as ``shards build``."""
    parser = commands.add_parser(name, help=description, description=description)
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)


def number(text: str) -> float:
    """A finite number, for ``type=``; argparse turns the error into its own sentence."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def call(target: str, *arguments: object, **options: object) -> Any:
    """Call ``module:function``, imported now."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)(*arguments, **options)
