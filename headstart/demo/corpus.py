"""The demo's corpus: its folder, shards that are written or continued, and their verification."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from cluster.storage.errors import is_remote
from configs import InputError, progress
from heads.rig import load_rig
from headstart.demo.cast import Cast
from headstart.demo.telling import Story
from shards.build.build import build
from shards.check.verify import verify
from shards.media.rates import FPS
from shards.read.dataset import open_dataset
from shards.synthetic import synthesize


def demo_folder(given: str | Path) -> Path:
    """The demo's output folder, created if necessary.

    Raises:
        InputError: a URL, a folder with other files in it, or one that cannot be made.
    """
    out = Path(given)
    known = {
        "dataset",
        "held_out",
        "runs",
        "avatars",
        "evaluation",
        "demo.json",
        "settings.json",
        "report.html",
        "talking.mp4",
    }
    if is_remote(given):
        raise InputError(f"--out {given}: a demo is made on this machine; give a local folder")
    if out.exists() and (not out.is_dir() or any(p.name not in known for p in out.iterdir())):
        raise InputError(f"--out {out}: exists and is not a demo's folder; choose another name")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made ({error.strerror}); choose another") from None
    return out


def forget_other(out: Path, settings: dict[str, object]) -> None:
    """Remove the shards of a demo with other settings or another rig, which must not be continued."""
    now = {**settings, "rig": load_rig().sha256}
    note = out / "settings.json"
    if note.is_file() and json.loads(note.read_text()) != now:
        for name in ("dataset", "held_out"):
            shutil.rmtree(out / name, ignore_errors=True)
    note.write_text(json.dumps(now, indent=2) + "\n")


def make_talkers(identities: int, seconds: float, seed: int, dataset: str, size: int, workers: int) -> None:
    """Generate people into a dataset, as ``shards synthesize`` does; ``size``: side of the frames, px."""
    with progress.task("drawing talkers", unit="segments") as task:
        synthesize(
            identities, seconds, seed, dataset, size, workers=workers,
            progress=lambda done, total: task.update(done, total=total),
        )  # fmt: skip


def build_corpus(cast: Cast, dataset: str, workers: int, story: Story) -> None:
    """Track the corpus videos into a dataset; refused clips are noted in the story."""
    result = build([str(v) for v in cast.videos], dataset, consent=cast.consent, workers=workers, size=256)
    for refused in result["refused"]:
        story.refused.append({"clip": str(refused["clip"]), "reason": str(refused["reason"])})


def describe_corpus(dataset: str, cast: Cast, real: bool) -> dict[str, Any]:
    """Verify the dataset and describe its people: identity, licence, consent, seconds and a picture ``[H, W, 3]`` uint8.

    Raises:
        InputError: a sample is broken.
    """
    checked = verify(dataset)
    if not checked["ok"]:
        first = checked["broken"][0]
        raise InputError(
            f"dataset {dataset}: {first['key']} is broken ({first['reason']}); delete the folder and run again"
        )
    opened = open_dataset(dataset)
    people: dict[str, dict[str, Any]] = {}
    for row in opened.samples:
        identity = row.key.split("/")[0]
        person = people.setdefault(identity, {"identity": identity, "frames": 0, "key": row.key})
        person["frames"] += opened.read(row.key).length
    for identity, person in people.items():
        sample = opened.read(person.pop("key"))
        person["seconds"] = round(person.pop("frames") / FPS, 1)
        person["licence"] = ", ".join(opened.licences[identity])
        person["consent"] = ", ".join(opened.consents[identity])
        person["picture"] = sample.frame(sample.length // 2)
    info = {
        k: v for k, v in opened.info.items() if k in ("identities", "clips", "segments", "frames", "hours", "bytes")
    }
    unknown = [p["identity"] for p in people.values() if "unknown" in (p["licence"].lower(), p["consent"].lower())]
    return {"people": list(people.values()), "left_out": cast.left_out, "unknown": unknown, "real": real, **info}
