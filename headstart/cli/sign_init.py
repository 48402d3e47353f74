"""``headstart sign-init``."""

from __future__ import annotations

import argparse

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "a private authority and certificate to try signing with"
    sign_init = command(commands, "sign-init", text, run, show, "headstart sign-init keys")
    sign_init.add_argument("folder", metavar="DIR", help="where certificate and key go")
    sign_init.add_argument("--name", default="Headstart test signer", help="whom the certificate names")


def run(a: argparse.Namespace) -> dict[str, object]:
    """Make them."""
    return call("adapt.marking.certificates:sign_init", a.folder, name=a.name)


def show(out: Console, result: dict[str, object], a: argparse.Namespace) -> None:
    """Where they are, and what a verifier will say."""
    output.facts(out, result)
    out.print("A verifier shows such a signature as valid, by a signer that it does not trust.")
