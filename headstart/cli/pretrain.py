"""``headstart pretrain``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rich.console import Console

from configs.words import counted
from headstart.cli import output
from headstart.cli.parser import Subparsers, call, command
from pretrain.names import prior_names

if TYPE_CHECKING:
    from pretrain.report import Registration, RunResult


def add(commands: Subparsers) -> None:
    """Its parser."""
    names = prior_names()
    text = f"train a prior: {', '.join(names[:-1])} or {names[-1]}"
    example = "headstart pretrain audio-expression --data corpus --config base steps=20000"
    pretrain = command(commands, "pretrain", text, run, show, example)
    pretrain.add_argument("prior", metavar="PRIOR", help=" | ".join(names))
    pretrain.add_argument("--data", required=True, metavar="DATASET", help="folder or s3:// URL")
    pretrain.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file or shipped size: tiny, base, large (default: tiny; with --resume, as the run was begun)",
    )
    pretrain.add_argument("--out", metavar="RUN", help="run folder or s3:// URL (default: runs/PRIOR-TIME)")
    pretrain.add_argument(
        "--workers", metavar="N", help="training processes, or a range: 2-4 (default: 1, or as --cluster says)"
    )
    pretrain.add_argument("--address", help="Ray cluster to join: 'auto' or host:port")
    pretrain.add_argument(
        "--cluster", metavar="FILE", help="YAML file or shipped name: local, single-node-8gpu, multi-node"
    )
    pretrain.add_argument("--no-ray", action="store_true", help="train in this process, without Ray")
    pretrain.add_argument("--resume", action="store_true", help="continue from the run's newest checkpoint")
    pretrain.add_argument("overrides", nargs="*", metavar="key=value", help="override keys of the configuration")
    pretrain.takes_overrides = True


def run(a: argparse.Namespace) -> dict[str, object]:
    """Train and register."""
    return call(
        "pretrain.train:pretrain",
        a.prior,
        a.data,
        a.config,
        a.out,
        workers=a.workers,
        address=a.address,
        cluster=a.cluster,
        ray=not a.no_ray,
        resume=a.resume,
        overrides=a.overrides,
    )


def show(out: Console, result: RunResult, a: argparse.Namespace) -> None:
    """The summary of a run."""
    if not result["finished"]:
        output.line(out, f"{result['prior']}: stopped on request at step {result['steps']}; its state is saved")
        output.facts(out, {"checkpoint": result["checkpoint"]})
        output.next_step(out, output.command("pretrain", a.prior, "--data", a.data, "--out", result["run"], "--resume"))
        return
    output.line(
        out,
        f"{result['prior']}: finished after {counted(result['steps'], 'step')} in {output.seconds(result['seconds'])}",
    )
    registered = result["registered"]
    output.facts(
        out,
        {
            "samples": f"{result['samples']} at {result['samples_per_second']:.1f}/s",
            "waiting for data": f"{100 * result['wait_share']:.1f} % of the time",
            "memory": f"{result['peak_memory_mb']:.0f} MB peak",
            "run": result["run"],
            "registered": _registered(registered),
            "not champion": registered["misfit"] if registered is not None else None,
        },
    )
    rows = [(name, value) for name, value in result["validation"].items() if isinstance(value, float)]
    output.table(out, ("on held-out people", "value"), rows)
    if registered is None or registered["version"] is None:
        output.next_step(
            out, f"{output.command('priors', 'register', result['run'])}   (when the registry is available again)"
        )
    elif not registered.get("champion"):
        name = f"{registered['name']}/{registered['version']}"
        output.next_step(out, output.command("priors", "promote", name, "--alias", "champion"))


def _registered(registered: Registration | None) -> str:
    if registered is None or registered["version"] is None:
        return "not yet"
    champion = " @champion" if registered.get("champion") else ""
    return f"models:/{registered['name']}/{registered['version']}{champion}"
