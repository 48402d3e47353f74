"""``headstart demo``: the main job end to end on this machine, with the same functions as the single commands.

Talkers (invented, or a folder of clips) → shards → three priors on a local Ray → the model registry → pulled by alias →
people outside the corpus adapted with and without them → speech nobody adapted on → scores → one page.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage.errors import is_remote
from configs import InputError, progress
from configs.machine import commit, package_version, processor
from headstart.demo.cast import Cast, HeldOutPerson, invented_people, real_cast
from headstart.demo.speed import plan_steps

PRIORS = ("audio-expression", "expression-visual", "sync-expert")
FEWEST_PEOPLE = 2  # one to train on, one to prove it on
ALIAS = "demo"  # not "champion": a ten-minute prior must not become what every later command picks up


@dataclass
class Story:
    """What happened, in the order it happened: everything that the page tells."""

    title: str
    ray: bool = True
    began: float = field(default_factory=time.time)
    stages: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)  # clips that tracking would not take, and why
    toy: list[str] = field(default_factory=list)
    corpus: dict[str, Any] = field(default_factory=dict)
    priors: dict[str, dict[str, Any]] = field(default_factory=dict)
    held_out: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str, vital: bool = True) -> Iterator[None]:
        """Times a stage; a failure in one that is not vital is told on the page and the demo goes on."""
        began = time.time()
        progress.say(f"[{began - self.began:5.0f} s] {name}")
        try:
            yield
        except Exception as error:
            reason = str(error) or type(error).__name__
            self.failed.append({"stage": name, "reason": reason.splitlines()[-1][:300]})
            if vital:
                raise
            progress.say(f"          failed: {reason.splitlines()[-1][:200]}")
        finally:
            self.stages.append({"name": name, "start": began - self.began, "seconds": time.time() - began})


def demo(
    out: str | Path = "demo",
    videos: str | Path | None = None,
    consent: str | Path | None = None,
    hold_out: Sequence[str] | None = None,
    *,
    seed: int = 0,
    identities: int = 8,
    seconds: float = 6.0,
    size: int = 192,
    minutes: float | None = None,
    people: int | None = None,
    budget: str = "40s",
    train_seconds: float | None = None,
    recipe: str = "headstart",
    speech: str | Path | None = None,
    workers: int | None = None,
    ray: bool = True,
) -> dict[str, Any]:
    """The main job, end to end; what exists in ``out`` from a demo before is continued (shards) or replaced.

    Args:
        videos: folder of real clips; without it, talkers are generated.
        consent: CSV as for ``shards build``; by default the folder's ``consent.csv``.
        hold_out: identities kept out of the corpus; by default every fifth.
        seed: of generated people, training and adaptation.
        identities, seconds, size: of the generated corpus: people, length of each clip, px.
        minutes: total time for the optimisation steps of the three priors; by default 1.8, for real clips 10.
        people: how many outsiders are adapted (default: one invented, two real).
        budget: of each adaptation; each person is adapted twice, with the priors and without.
        train_seconds: adaptation sees the first so many seconds of a person's clip, at most half of it, and the rest is
            the test; by default 4, of real clips 10.
        recipe: of the adaptations.
        speech: sound file that the real held-out people say; by default another clip.
        workers: processes for rendering, tracking; by default one per core.
        ray: False trains in this process.

    Returns:
        ``out, report, video, corpus, priors, held_out, failed, seconds`` (JSON-able; also in ``out/demo.json``).

    Raises:
        InputError: an argument is wrong or the output cannot be written.
    """
    minutes = (10.0 if videos else 1.8) if minutes is None else minutes
    train_seconds = (10.0 if videos else 4.0) if train_seconds is None else train_seconds
    _check(minutes, identities, people, budget, recipe, seed)
    cast = real_cast(videos, consent, hold_out, people or 2, speech) if videos else None
    out, workers = _folder(out), workers or max(1, os.cpu_count() or 1)
    story = Story("Real people" if videos else "Invented people", ray)
    story.machine = _machine()
    dataset = str(out / "dataset")
    _forget_other(out, {"videos": str(videos), "seconds": seconds, "size": size, "seed": seed, "train": train_seconds})
    if cast is not None:
        with story.stage(f"shards: tracking {len(cast.videos)} clips"):
            _build(cast, dataset, workers, story)
    else:
        with story.stage(f"shards: {identities} talkers of {seconds:g} s at {size} px"):
            _synthesize(identities, seconds, seed, dataset, size, workers)
        with story.stage("filming who stays outside the corpus"):
            held_out = invented_people(people or 1, seed, out / "held_out", 2 * train_seconds, 256)
            cast = Cast([], None, held_out, [person.identity for person in held_out])
    with story.stage("verifying the shards"):
        story.corpus = _corpus(dataset, cast, bool(videos))
    allowed = ["allow_unknown_licence=true"] if story.corpus["unknown"] else []
    with story.stage("measuring this machine's speed"):
        steps = plan_steps(dataset, minutes, allowed)
    for prior in PRIORS:
        with story.stage(f"pretraining {prior}: {steps[prior]} steps", vital=False):
            story.priors[prior] = _pretrain(prior, dataset, out, steps[prior], seed, ray, allowed)
    uris = "none"
    with story.stage("registry: promoting and pulling by alias", vital=False):
        uris = _promote_and_pull(story.priors) or "none"
    for person in cast.held_out:
        story.held_out.append(_adapt_person(person, out, uris, recipe, budget, train_seconds, seed, story))
    story.toy = _toy(story, seconds, size, minutes, budget, train_seconds, bool(videos))
    return _finish(story, out, bool(videos))


def _check(minutes: float, identities: int, people: int | None, budget: str, recipe: str, seed: int) -> None:
    """Refuses now what a stage would refuse minutes later.

    Raises:
        InputError: which option, and what it takes.
    """
    from adapt.budget import parse_budget
    from adapt.recipes import recipe as find_recipe

    if not minutes > 0:
        raise InputError(f"--minutes {minutes}: training needs some time; give a positive number")
    if not FEWEST_PEOPLE <= identities <= 1000:
        raise InputError(
            f"--identities {identities}: expected {FEWEST_PEOPLE} to 1000; priors are proved on people left out"
        )
    if people is not None and people < 1:
        raise InputError(f"--people {people}: somebody must be adapted; give 1 or more")
    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more")
    parse_budget(budget)
    find_recipe(recipe)


# ------------------------------------------------------------------------------------------------------------- corpus


def _folder(given: str | Path) -> Path:
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


def _forget_other(out: Path, settings: dict[str, Any]) -> None:
    """Drops the shards of a demo with other settings or another rig: continuing them would mix what does not belong."""
    from heads.rig import load_rig

    now = {**settings, "rig": load_rig().sha256}
    note = out / "settings.json"
    if note.is_file() and json.loads(note.read_text()) != now:
        for name in ("dataset", "held_out"):
            shutil.rmtree(out / name, ignore_errors=True)
    note.write_text(json.dumps(now, indent=2) + "\n")


def _synthesize(identities: int, seconds: float, seed: int, dataset: str, size: int, workers: int) -> None:
    from shards.synthetic import synthesize

    with progress.task("drawing talkers", unit="segments") as task:
        synthesize(
            identities, seconds, seed, dataset, size, workers=workers,
            progress=lambda done, total: task.update(done, total=total),
        )  # fmt: skip


def _build(cast: Cast, dataset: str, workers: int, story: Story) -> None:
    from shards.build.build import build

    result = build([str(v) for v in cast.videos], dataset, consent=cast.consent, workers=workers, size=256)
    for refused in result["refused"]:
        story.refused.append({"clip": str(refused["clip"]), "reason": str(refused["reason"])})


def _corpus(dataset: str, cast: Cast, real: bool) -> dict[str, Any]:
    """Who is in it, proven intact: identity, licence, consent, seconds and a picture of everyone."""
    from shards.check.verify import verify
    from shards.read.dataset import open_dataset

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
        person["seconds"] = round(person.pop("frames") / 25, 1)
        person["licence"] = ", ".join(opened.licences[identity])
        person["consent"] = ", ".join(opened.consents[identity])
        person["picture"] = sample.frame(sample.length // 2)
    info = {
        k: v for k, v in opened.info.items() if k in ("identities", "clips", "segments", "frames", "hours", "bytes")
    }
    unknown = [p["identity"] for p in people.values() if "unknown" in (p["licence"].lower(), p["consent"].lower())]
    return {"people": list(people.values()), "left_out": cast.left_out, "unknown": unknown, "real": real, **info}


# ------------------------------------------------------------------------------------------------------------- priors


def _pretrain(prior: str, dataset: str, out: Path, steps: int, seed: int, ray: bool, allowed: list) -> dict[str, Any]:
    """One prior by the public function; its evidence on held-out people comes back with it."""
    from pretrain.train import pretrain

    run = str(out / "runs" / f"{prior}-{time.strftime('%Y%m%d-%H%M%S')}")
    changes = [f"steps={steps}", f"seed={seed}", f"validate_every={max(20, steps // 3)}", f"checkpoint_every={steps}"]
    changes += allowed
    result = pretrain(prior, dataset, None, run, workers=1, ray=ray, overrides=changes)
    if not result["finished"]:
        raise KeyboardInterrupt  # asked to end: the training has saved its state, and the demo ends with it
    return {**result, **_evidence(Path(run) / "prior")}


def _evidence(folder: Path) -> dict[str, Any]:
    """What the prior's folder says about it: table on held-out people, notes, pictures, loss curve, record."""
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


def _promote_and_pull(priors: dict[str, dict[str, Any]]) -> str:
    """Gives each new version the alias and pulls it back by that alias: the URIs, comma-separated."""
    from cluster.registry import registry

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


# --------------------------------------------------------------------------------------------------------- adaptation


def _adapt_person(
    person: HeldOutPerson, out: Path, uris: str, recipe: str, budget: str, train_seconds: float, seed: int, story: Story
) -> dict[str, Any]:
    """One outsider: adapted with the priors and without, scored, and made to say something new."""
    record: dict[str, Any] = {"identity": person.identity, "licence": person.licence, "consent": person.consent,
                              "words": person.words, "variants": {}, "video": None}  # fmt: skip
    sync = next((uri for uri in uris.split(",") if "sync-expert" in uri), None)
    for name, prior in (("with priors", uris), ("without", "none")):
        folder = out / "avatars" / f"{person.identity}-{name.split()[0]}"
        with story.stage(f"adapting {person.identity} {name}, {budget}", vital=False):
            record["variants"][name] = _adapt(person, folder, prior, recipe, budget, train_seconds, seed)
        if name not in record["variants"]:
            continue
        with story.stage(f"scoring {person.identity} {name}", vital=False):
            record["variants"][name]["scores"] = _score(folder, person, out / "evaluation" / folder.name, sync)
    if not record["variants"]:
        return record
    with story.stage(f"{person.identity} says what adaptation never heard", vital=False):
        avatar = next(iter(record["variants"].values()))["avatar"]
        target = out / ("talking.mp4" if not story.held_out else f"held_out/{person.identity}-talking.mp4")
        record["video"] = _speak(person, avatar, target)
    return record


def _adapt(
    person: HeldOutPerson, folder: Path, prior: str, recipe: str, budget: str, train_seconds: float, seed: int
) -> dict:
    from adapt.job import adapt

    length = min(train_seconds, _length(person.video) / 2)
    result = adapt(
        person.video, folder, recipe=recipe, prior=prior, seconds=length, budget=budget, seed=seed, overwrite=True
    )
    document = json.loads((folder / "avatar.json").read_text())
    return {**result, "curve": document["progress"]["psnr_face"], "train_seconds": length}


def _length(video: Path) -> float:
    from shards.media.probe import video_info

    return video_info(video).seconds


def _score(avatar: Path, person: HeldOutPerson, folder: Path, sync: str | None) -> dict[str, Any]:
    from adapt.evaluate.evaluate import evaluate
    from cluster.registry.registry import resolve

    expert = str(resolve(sync)) if sync else None
    result = evaluate(avatar, person.video, folder, sync=expert, overwrite=True)
    return {
        key: result[key] for key in ("drives", "fps", "adapt_seconds", "frames", "size", "device", "commit", "report")
    }


def _speak(person: HeldOutPerson, avatar: str, target: Path) -> dict[str, Any]:
    """The avatar says the unheard speech; beside it the truth, where that was filmed, else the person as recorded."""
    from adapt.talk.talk import talk

    spoken = target.with_name(f"{target.stem}-avatar.mp4")
    result = talk(avatar, person.speech, spoken, pose_from=person.truth, overwrite=True)
    _side_by_side(person.truth or person.video, spoken, target)
    spoken.unlink()
    return {**result, "video": str(target), "truth": person.truth is not None, "speech": person.speech.name}


def _side_by_side(left: Path, right: Path, target: Path) -> None:
    """Two videos in one, with the sound and the provenance of the right one, as long as the right one."""
    from adapt.avatar.provenance import Provenance
    from shards.media.decode import read_frames
    from shards.media.encode import VideoWriter
    from shards.media.probe import video_info

    size = video_info(right).width
    tags = Provenance.make(avatar=right.stem, recipe="demo side by side: the right half is synthetic")
    still, frames = None, read_frames(left, size=size)
    with VideoWriter(target, 2 * size, size, tags=tags.tags(), sound=right) as writer:
        for picture in read_frames(right):
            still = next(frames, still)  # the true video may be a frame shorter
            writer.write(np.concatenate([still, picture], 1))


# ------------------------------------------------------------------------------------------------------------- ending


def _machine() -> dict[str, Any]:
    """Hardware and versions that the figures were made with."""
    import torch

    cores = os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": processor(), "cores": cores, "memory": f"{memory:.0f} GiB" if memory else "unknown", "GPU": gpu,
        "system": platform.platform(terse=True), "python": platform.python_version(), "torch": torch.__version__,
        "headstart": package_version(), "commit": commit() or "not a checkout",
    }  # fmt: skip


def _toy(story: Story, seconds, size, minutes, budget, train_seconds, real: bool) -> list[str]:
    """What is small about this demo, said plainly."""
    people, hours = story.corpus["identities"], story.corpus["hours"]
    lines = [
        f"The corpus has {people} people and {60 * hours:.1f} minutes; the papers use hundreds of hours.",
        f"The three priors together were given {minutes:g} minutes on {story.machine['cores']} cores, in size 'tiny'.",
        f"Each adaptation saw {train_seconds:g} s of video (at most half the clip) for {budget}; "
        "scores are from the rest of the same clip.",
    ]
    if not real:
        lines.append(
            "The people are generated: drawn faces, synthesised voices, exact tracks. Figures on them say that "
            "the machinery works, not how it does on people."
        )
    if story.corpus["unknown"]:
        lines.append(
            f"Consent or licence of {len(story.corpus['unknown'])} people is unknown: these priors are for looking at "
            "on this machine; do not publish them or what they make."
        )
    return lines


def _finish(story: Story, out: Path, real: bool) -> dict[str, Any]:
    from headstart.demo.report import write_demo_report

    report = out / "report.html"
    spoken = next((person["video"] for person in story.held_out if person["video"]), None)
    result: dict[str, Any] = {
        "out": str(out), "report": str(report), "video": spoken["video"] if spoken else None,
        "corpus": {k: v for k, v in story.corpus.items() if k != "people"},
        "priors": {name: {k: prior.get(k) for k in ("uri", "steps", "seconds", "validation", "registered")}
                   for name, prior in story.priors.items()},
        "held_out": [_summary(person) for person in story.held_out],
        "toy": story.toy, "failed": story.failed, "refused": story.refused, "machine": story.machine,
        "stages": [{"name": s["name"], "seconds": round(s["seconds"], 1)} for s in story.stages],
    }  # fmt: skip
    with story.stage("writing the report"):
        write_demo_report(report, story)
    result["seconds"] = round(time.time() - story.began, 1)
    (out / "demo.json").write_text(json.dumps(result, indent=2) + "\n")
    return result


def _summary(person: dict[str, Any]) -> dict[str, Any]:
    """What demo.json keeps of a person: the scores of both variants."""
    return {
        "identity": person["identity"],
        "video": person["video"]["video"] if person["video"] else None,
        "variants": {
            name: {"iterations": v["iterations"], "seconds": v["seconds"], "driver": v["driver"],
                   "scores": v.get("scores", {}).get("drives")}
            for name, v in person["variants"].items()
        },
    }  # fmt: skip
