"""The demo's three priors: trained, registered, given an alias and pulled by it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from cluster.registry import registry
from pretrain.train import pretrain

ALIAS = "demo"  # not "champion": a ten-minute prior must not become what every later command picks up


def train_prior(
    prior: str, dataset: str, out: Path, steps: int, seed: int, ray: bool, allowed: list
) -> dict[str, object]:
    """Train one prior with the public function; returns its result and its evidence on held-out people."""
    run = str(out / "runs" / f"{prior}-{time.strftime('%Y%m%d-%H%M%S')}")
    changes = [f"steps={steps}", f"seed={seed}", f"validate_every={max(20, steps // 3)}", f"checkpoint_every={steps}"]
    changes += allowed
    result = pretrain(prior, dataset, None, run, workers=1, ray=ray, overrides=changes)
    if not result["finished"]:
        raise KeyboardInterrupt  # asked to end: the training has saved its state, and the demo ends with it
    return {**result, **_evidence(Path(run) / "prior")}


def _evidence(folder: Path) -> dict[str, object]:
    """Contents of the prior's folder: table on held-out people, pictures, losses, dataset and size."""
    info = json.loads((folder / "prior.json").read_text())
    report = folder / "report.json"
    losses = folder / "losses.txt"
    return {
        "folder": str(folder),
        "rows": json.loads(report.read_text())["rows"] if report.is_file() else [],
        "pictures": {path.stem: str(path) for path in sorted(folder.glob("*.png"))},
        "losses": [float.fromhex(line.split()[1]) for line in losses.read_text().splitlines()]
        if losses.is_file()
        else [],
        "dataset": info["dataset"],
        "weights_bytes": (folder / "weights.safetensors").stat().st_size,
    }


def promote_and_pull(priors: dict[str, dict[str, Any]]) -> str:
    """Give each new version the alias and pull it by that alias; returns the URIs, comma-separated.

    Raises:
        RuntimeError: other weights were pulled than were trained.
    """
    uris = []
    for result in priors.values():
        version = result["registered"]
        registry.promote(version["name"], version["version"], alias=ALIAS)
        uri = f"models:/{version['name']}@{ALIAS}"
        folder = Path(registry.resolve(uri))
        pulled = json.loads((folder / "prior.json").read_text())["weights_sha256"]
        if pulled != result["weights_sha256"]:
            raise RuntimeError(
                f"{uri} gave other weights ({pulled[:12]}) than were trained ({result['weights_sha256'][:12]})"
            )
        result["uri"] = uri
        uris.append(uri)
    return ",".join(uris)
