"""``headstart demo``."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from rich.console import Console

from configs.words import counted
from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command, number


def add(commands: Subparsers) -> None:
    """Its parser."""
    text = "run the whole pipeline on this machine"
    demo = command(commands, "demo", text, run, show, "headstart demo --out demo")
    demo.add_argument("--videos", metavar="DIR", help="real clips instead of synthetic people")
    demo.add_argument("--consent", metavar="FILE.csv", help="consent and licences of the real clips")
    demo.add_argument("--hold-out", metavar="ID,ID", help="people held out of the corpus for adaptation and evaluation")
    demo.add_argument("--out", default="demo", metavar="DIR", help="output folder (default: demo)")
    demo.add_argument("--identities", type=int, help="number of synthetic people")
    demo.add_argument("--minutes", type=number, help="total training minutes of the three priors")
    demo.add_argument("--budget", help="budget of each adaptation, such as 60s")
    demo.add_argument("--people", type=int, help="number of held-out people to adapt")
    demo.add_argument(
        "--seed", type=int, default=0, help="seed of synthetic people, training and adaptation (default: 0)"
    )


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """The whole demo."""
    a = arguments
    options = {"identities": a.identities, "budget": a.budget, "people": a.people, "minutes": a.minutes}
    return call(
        "headstart.demo.story:demo",
        a.out,
        videos=a.videos,
        consent=a.consent,
        hold_out=a.hold_out.split(",") if a.hold_out else None,
        seed=a.seed,
        **{name: value for name, value in options.items() if value is not None},
    )


def show(out: Console, result: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Corpus, priors, people and files; what is toy-sized, and what failed."""
    corpus = result["corpus"]
    out.print(f"demo finished in {output.seconds(result['seconds'])}")
    output.facts(
        out,
        {
            "corpus": f"{corpus['identities']} people, {60 * corpus['hours']:.1f} min",
            "held out": ", ".join(corpus["left_out"]),
        },
    )
    output.table(out, ("prior", "steps", "time", "version"), map(_prior, result["priors"].items()))
    output.table(out, ("person", "adapted", "face, by track", "face, by audio", "time"), _people(result["held_out"]))
    for line in result["toy"]:
        output.line(out, line, "toy-sized:")
    if result["refused"]:
        parts = counted(len(result["refused"]), "clip or part was", "clips or parts were")
        out.print(f"{parts} refused; the report says why")
    for item in result["failed"]:
        output.line(out, f"{item['stage']}: {item['reason']}", "failed:", "red")
    watch = [shlex.join(["watch", result["video"]])] if result["video"] else []
    output.next_step(out, *watch, shlex.join(["open", str(result["report"])]))


def _prior(item: tuple[str, dict[str, Any]]) -> tuple[object, ...]:
    name, prior = item
    registered = prior["registered"] or {"version": "–"}
    return name, prior["steps"], output.seconds(prior["seconds"]), registered["version"]


def _people(people: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    rows = []
    for person in people:
        for variant, found in person["variants"].items():
            scores = found["scores"] or {}
            faces = [output.with_unit((scores.get(drive) or {}).get("psnr_face"), "dB") for drive in ("track", "audio")]
            rows.append((person["identity"], variant, *faces, output.seconds(found["seconds"])))
    return rows
