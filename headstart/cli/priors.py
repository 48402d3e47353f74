"""``headstart priors list | show | pull | promote | register``."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

from rich.console import Console

from configs import InputError
from headstart.cli import output
from headstart.cli.parser import Subparsers, actions, call, command

PRIOR = "NAME[@alias|/version]"
CHAMPION = "champion"


def add(commands: Subparsers) -> None:
    """Their parsers."""
    priors = actions(commands, "priors", "list, show, pull, promote or register priors")
    text = "list registered priors, versions and aliases"
    command(priors, "list", text, run_list, show_list, "headstart priors list")
    text = "show the record of one version"
    shown = command(priors, "show", text, run_show, show_record, "headstart priors show audio-expression@champion")
    shown.add_argument("prior", metavar=PRIOR)
    text = "download a prior into the local cache and verify its hashes"
    pull = command(priors, "pull", text, run_pull, show_record, "headstart priors pull audio-expression/3")
    pull.add_argument("prior", metavar=PRIOR)
    text, example = "give a version an alias", "headstart priors promote audio-expression/3 --alias champion"
    promote = command(priors, "promote", text, run_promote, show_promoted, example)
    promote.add_argument("prior", metavar="NAME/VERSION")
    promote.add_argument("--alias", default="champion", help="default: champion")
    text, example = (
        "register a finished run, for example after a registry outage",
        "headstart priors register runs/audio-expression-1",
    )
    register = command(priors, "register", text, run_register, show_record, example)
    register.add_argument("finished", metavar="RUN", help="run folder or s3:// URL")


def run_list(a: argparse.Namespace) -> dict[str, object]:
    """``priors list``."""
    return {"priors": call("cluster.registry.registry:list_models")}


def run_show(a: argparse.Namespace) -> dict[str, object]:
    """``priors show``."""
    return call("cluster.registry.registry:show", *name_and_version(a.prior))


def run_pull(a: argparse.Namespace) -> dict[str, object]:
    """``priors pull``."""
    name, version = name_and_version(a.prior)
    uri = a.prior if ":" in a.prior else f"models:/{name}{'/' if str(version).isdigit() else '@'}{version}"
    return {"prior": a.prior, "folder": str(call("cluster.registry.registry:resolve", uri))}


def run_promote(a: argparse.Namespace) -> dict[str, object]:
    """``priors promote``."""
    name, version = name_and_version(a.prior)
    if version == CHAMPION and not a.prior.endswith(f"@{CHAMPION}"):
        raise InputError(
            f"'{a.prior}' names no version; say which is to be promoted, such as {name}/2 (headstart priors list)"
        )
    return call("cluster.registry.registry:promote", name, version, alias=a.alias)


def run_register(a: argparse.Namespace) -> dict[str, object]:
    """``priors register``."""
    return call("pretrain.finish:register_run", a.finished)


def name_and_version(text: str) -> tuple[str, str]:
    """``NAME``, ``NAME@alias`` or ``NAME/VERSION`` (with or without ``models:/``); the default is ``@champion``."""
    text = text.removeprefix("models:/")
    for separator in "@/":
        name, found, version = text.partition(separator)
        if found:
            return name, version
    return text, CHAMPION


def show_list(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """One row per version."""
    rows = [
        (model["name"], version["version"], ", ".join(version["aliases"]) or "–", _date(version.get("created")))
        for model in result["priors"]
        for version in model["versions"]
    ]
    if not rows:
        out.print("No prior is registered yet.")
        output.next_step(out, "headstart pretrain audio-expression --data DATASET")
        return
    output.table(out, ("prior", "version", "aliases", "created"), rows)
    for version in (version for model in result["priors"] for version in model["versions"]):
        if version.get("missing"):
            output.line(out, "", version["missing"], "red")
    output.next_step(out, output.command("priors", "show", f"{rows[-1][0]}/{rows[-1][1]}"))


def show_promoted(out: Console, result: dict[str, object], a: argparse.Namespace) -> None:
    """What the alias means now, what it meant, and how to go back."""
    name, before = result["name"], result["before"]
    was = f"; before, it was {name}/{before}" if before else ""
    output.line(out, f"{name}/{result['version']} is @{a.alias} now{was}")
    if result.get("misfit"):
        output.line(out, str(result["misfit"]))
    if before and str(before) != str(result["version"]):
        back = output.command("priors", "promote", f"{name}/{before}", "--alias", a.alias)
        output.next_step(out, f"{back}   (to go back)")


def show_record(out: Console, result: dict[str, object], a: argparse.Namespace) -> None:
    """All fields of the record."""
    output.facts(out, {**result, "created": _date(result.get("created"))} if result else {})


def _date(created: object) -> str | None:
    """Milliseconds since 1970 as local date and time."""
    if not isinstance(created, int):
        return None
    return datetime.fromtimestamp(created / 1000).astimezone().strftime("%Y-%m-%d %H:%M")
