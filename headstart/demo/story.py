"""``headstart demo``: the whole pipeline on this machine, with the same functions as the individual commands.

People (generated, or a folder of clips) → shards → three priors on a local Ray → the model registry → pulled by alias →
held-out people adapted with and without them → scores → speech that adaptation did not use → one page.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from adapt.budget import parse_budget
from adapt.recipes import recipe as find_recipe
from configs import InputError
from configs.machine import commit, package_version, processor
from headstart.demo.cast import Cast, invented_people, real_cast
from headstart.demo.corpus import build_corpus, demo_folder, describe_corpus, forget_other, make_talkers
from headstart.demo.people import adapt_person
from headstart.demo.priors import promote_and_pull, train_prior
from headstart.demo.report import write_demo_report
from headstart.demo.speed import plan_steps
from headstart.demo.telling import Story
from pretrain.names import prior_names

FEWEST_PEOPLE = 2  # one to train on, one to validate on


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
) -> dict[str, object]:
    """Run the whole pipeline; what ``out`` contains of an earlier demo is continued (shards) or replaced.

    Args:
        videos: folder of real clips; without it, talkers are generated.
        consent: CSV as for ``shards build``; by default the folder's ``consent.csv``.
        hold_out: identities kept out of the corpus; by default every fifth.
        seed: of generated people, training and adaptation.
        identities, seconds, size: of the generated corpus: people, length of each clip, px.
        minutes: total time for the optimisation steps of the three priors; by default 1.8, for real clips 10.
        people: how many held-out people are adapted; by default one generated, two real.
        budget: of each adaptation; each person is adapted twice, with the priors and without.
        train_seconds: seconds from the start of a person's clip that are trained on, at most half of it; the rest is the
            test; by default 4, for real clips 10.
        recipe: of the adaptations.
        speech: audio file that real held-out people say; by default another clip's.
        workers: processes for rendering and tracking; by default one per core.
        ray: False trains in this process.

    Returns:
        ``out, report, video, corpus, priors, held_out, toy, failed, refused, machine, stages, seconds``, as in
        ``out/demo.json``.

    Raises:
        InputError: an argument is wrong or the output cannot be written.
    """
    minutes = (10.0 if videos else 1.8) if minutes is None else minutes
    train_seconds = (10.0 if videos else 4.0) if train_seconds is None else train_seconds
    _check(minutes, identities, people, budget, recipe, seed)
    cast = real_cast(videos, consent, hold_out, people or 2, speech) if videos else None
    out, workers = demo_folder(out), workers or max(1, os.cpu_count() or 1)
    story = Story("Real people" if videos else "Invented people", ray)
    story.machine = _machine()
    dataset = str(out / "dataset")
    forget_other(out, {"videos": str(videos), "seconds": seconds, "size": size, "seed": seed, "train": train_seconds})
    if cast is not None:
        with story.stage(f"shards: tracking {len(cast.videos)} clips"):
            build_corpus(cast, dataset, workers, story)
    else:
        with story.stage(f"shards: {identities} talkers of {seconds:g} s at {size} px"):
            make_talkers(identities, seconds, seed, dataset, size, workers)
        with story.stage("filming who stays outside the corpus"):
            held_out = invented_people(people or 1, seed, out / "held_out", 2 * train_seconds, 256)
            cast = Cast([], None, held_out, [person.identity for person in held_out])
    with story.stage("verifying the shards"):
        story.corpus = describe_corpus(dataset, cast, bool(videos))
    allowed = ["allow_unknown_licence=true"] if story.corpus["unknown"] else []
    with story.stage("measuring this machine's speed"):
        steps = plan_steps(dataset, minutes, allowed)
    for prior in prior_names():
        with story.stage(f"pretraining {prior}: {steps[prior]} steps", vital=False):
            story.priors[prior] = train_prior(prior, dataset, out, steps[prior], seed, ray, allowed)
    uris = "none"
    with story.stage("registry: promoting and pulling by alias", vital=False):
        uris = promote_and_pull(story.priors) or "none"
    for person in cast.held_out:
        story.held_out.append(adapt_person(person, out, uris, recipe, budget, train_seconds, seed, story))
    story.toy = _toy(story, seconds, size, minutes, budget, train_seconds, bool(videos))
    return _finish(story, out, bool(videos))


def _check(minutes: float, identities: int, people: int | None, budget: str, recipe: str, seed: int) -> None:
    """Refuse at once what a stage would refuse minutes later.

    Raises:
        InputError: names the option and what it takes.
    """
    if not minutes > 0:
        raise InputError(f"--minutes {minutes}: training needs some time; give a positive number")
    if not FEWEST_PEOPLE <= identities <= 1000:
        raise InputError(
            f"--identities {identities}: expected {FEWEST_PEOPLE} to 1000; priors are proved on people left out"
        )
    if people is not None and people < 1:
        raise InputError(f"--people {people}: expected 1 or more people to adapt")
    if seed < 0:
        raise InputError(f"--seed {seed}: expected 0 or more")
    parse_budget(budget)
    find_recipe(recipe)


def _machine() -> dict[str, object]:
    """Hardware and versions that the figures were measured with."""
    cores = os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "processor": processor(), "cores": cores, "memory": f"{memory:.0f} GiB" if memory else "unknown", "GPU": gpu,
        "system": platform.platform(terse=True), "python": platform.python_version(), "torch": torch.__version__,
        "headstart": package_version(), "commit": commit() or "not a checkout",
    }  # fmt: skip


def _toy(
    story: Story, seconds: float, size: int, minutes: float, budget: str, train_seconds: float, real: bool
) -> list[str]:
    """In which ways this demo is toy-sized, a sentence each."""
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


def _finish(story: Story, out: Path, real: bool) -> dict[str, object]:
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
