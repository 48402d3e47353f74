"""``headstart sign-init``."""

from __future__ import annotations

import argparse

from rich.console import Console

from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "create a test certificate authority and signing certificate"
    sign_init = command(commands, "sign-init", text, run, show, "headstart sign-init keys")
    sign_init.add_argument("folder", metavar="DIR", help="output folder for the certificate and the key")
    sign_init.add_argument("--name", default="Headstart test signer", help="name in the certificate")


def run(a: argparse.Namespace) -> dict[str, object]:
    """Make them."""
    return call("adapt.marking.certificates:sign_init", a.folder, name=a.name)


def show(out: Console, result: dict[str, object], a: argparse.Namespace) -> None:
    """Where they are, and how verifiers treat them."""
    output.facts(out, result)
    out.print("Verifiers report a signature made with this certificate as valid, but its signer as untrusted.")
