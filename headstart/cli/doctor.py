"""``headstart doctor``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console
from rich.markup import escape

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "what is installed, which backends will be used, what is missing and how to get it"
    command(commands, "doctor", text, run, show, "headstart doctor")


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """All checks."""
    return call("headstart.installation:doctor")


def show(out: Console, result: dict[str, Any], arguments: argparse.Namespace) -> None:
    """A table, then how to get what is missing."""
    rows = [("ok" if check["ok"] else "fault", check["name"], check["detail"]) for check in result["checks"]]
    output.table(out, ("", "part", "found"), rows)
    for check in result["checks"]:
        if check["fix"]:
            out.print(f"\n[bold]{escape(check['name'])}[/bold]: {escape(check['fix'])}", soft_wrap=True)
    if not result["ok"]:
        out.print("\n[red]Something is broken:[/red] see the lines marked 'fault'.")
