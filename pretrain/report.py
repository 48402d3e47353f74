"""The report at the end of a run: files beside the prior, and the block that is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from PIL import Image

from cluster.registry.prior_folder import PriorInfo
from configs.machine import device_name
from pretrain.task import Evidence


class Registration(TypedDict):
    """A prior in the registry.

    Attributes:
        name: of the registered model.
        version: ``None`` while the registry is unreachable.
        champion: whether the version is the champion.
        misfit: why it is incompatible with the champions of the other priors; ``None`` if it is not.
    """

    name: str
    version: int | None
    champion: bool
    misfit: str | None


class RunResult(TypedDict):
    """Content of ``result.json``.

    Attributes:
        prior: its name.
        run: the run's URL; checkpoint: that of the newest checkpoint.
        weights_sha256, validation, registered: the published prior's weights, evidence figures and registration.
        steps, samples: trained so far.
        seconds: wall-clock time of this call.
        samples_per_second, wait_share: speed, and the share of the time spent waiting for data.
        peak_memory_mb: of rank 0.
        finished: false after a request to stop, when nothing is published.
    """

    prior: str
    run: str
    checkpoint: str | None
    weights_sha256: str | None
    steps: int
    samples: int
    seconds: float
    samples_per_second: float
    wait_share: float
    peak_memory_mb: float
    validation: dict[str, float]
    registered: Registration | None
    finished: bool


def write_report(folder: Path, evidence: Evidence, info: PriorInfo, result: RunResult, losses: str) -> None:
    """Write ``report.md``, ``report.json``, ``losses.txt`` and the pictures into a prior's folder.

    Args:
        info: its ``prior.json``; result: steps and speed of the run; losses: one line per step.
    """
    held = info["dataset"]["held_out"]
    head = [
        f"# {info['prior']}: evidence on people it never saw",
        "",
        f"Trained on {len(info['dataset']['identities'])} people, {info['dataset']['hours']:.3f} h; "
        f"held out {len(held)}: {', '.join(held)}.",
        f"{result['steps']} steps, {result['samples_per_second']:.1f} samples/s, "
        f"code {info['code_version']}, device {device_name()}.",
        "",
    ]
    for name, picture in evidence.pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    shown = "".join(f"\n![{name}]({name}.png)\n" for name in evidence.pictures)
    (folder / "report.md").write_text("\n".join(head) + "\n" + evidence.markdown() + shown)
    (folder / "report.json").write_text(json.dumps({"rows": evidence.rows, "summary": evidence.summary}, indent=1))
    (folder / "losses.txt").write_text(losses)


def end_of_run(result: RunResult) -> str:
    """The block printed when a run ends."""
    state = "finished" if result["finished"] else "stopped as asked, state saved"
    lines = [
        f"{result['prior']}: {state} at step {result['steps']}",
        f"  samples      {result['samples']} at {result['samples_per_second']:.1f}/s, "
        f"{100 * result['wait_share']:.1f} % of the time waiting for data",
        f"  time         {result['seconds']:.1f} s",
        f"  memory       {result['peak_memory_mb']:.0f} MB at the peak",
        f"  checkpoint   {result['checkpoint']}",
    ]
    lines += [f"  {name:<28} {value:.4f}" for name, value in result["validation"].items() if isinstance(value, float)]
    if result["registered"]:
        lines.append(f"  registered   {registered_as(result['registered'])}")
    return "\n".join(lines)


def registered_as(registered: Registration) -> str:
    """A registration in a few words."""
    if registered["version"] is None:
        return "not yet; the next training or 'headstart priors register RUN' does it"
    return f"models:/{registered['name']}/{registered['version']}"
