"""Held-out people: adapted with the priors and without, scored, and driven by audio that adaptation did not use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from adapt.avatar.provenance import Provenance
from adapt.evaluate.evaluate import evaluate
from adapt.job import adapt
from adapt.priors import find_priors
from adapt.talk.talk import talk
from cluster.registry.registry import resolve
from headstart.demo.cast import HeldOutPerson
from headstart.demo.telling import Story
from pretrain.roles import SYNC
from shards.media.decode import read_frames
from shards.media.encode import VideoWriter
from shards.media.probe import video_info


def adapt_person(
    person: HeldOutPerson, out: Path, uris: str, recipe: str, budget: str, train_seconds: float, seed: int, story: Story
) -> dict[str, object]:
    """One held-out person: adapted with the priors and without, scored, and driven by audio that adaptation did not use."""
    record: dict[str, Any] = {"identity": person.identity, "licence": person.licence, "consent": person.consent,
                              "words": person.words, "variants": {}, "video": None}  # fmt: skip
    sync = next((prior.uri for prior in find_priors(uris) if prior.role == SYNC), None)
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
    length = min(train_seconds, _length(person.video) / 2)
    result = adapt(
        person.video,
        folder,
        recipe=recipe,
        prior=prior,
        seconds=length,
        budget=budget,
        seed=seed,
        overwrite=True,
        consent=person.consent,
    )
    document = json.loads((folder / "avatar.json").read_text())
    return {**result, "curve": document["progress"]["psnr_face"], "train_seconds": length}


def _length(video: Path) -> float:

    return video_info(video).seconds


def _score(avatar: Path, person: HeldOutPerson, folder: Path, sync: str | None) -> dict[str, Any]:
    expert = str(resolve(sync)) if sync else None
    result = evaluate(avatar, person.video, folder, sync=expert, overwrite=True)
    return {
        key: result[key] for key in ("drives", "fps", "adapt_seconds", "frames", "size", "device", "commit", "report")
    }


def _speak(person: HeldOutPerson, avatar: str, target: Path) -> dict[str, object]:
    """The avatar says the unused speech; beside it the real video of that speech, if there is one, else the person's clip."""
    spoken = target.with_name(f"{target.stem}-avatar.mp4")
    result = talk(avatar, person.speech, spoken, pose_from=person.truth, overwrite=True)
    provenance = Provenance.make(
        avatar=Path(avatar).name,
        recipe="demo side by side: the right half is synthetic",
        consent=person.consent,
        licence=person.licence,
    )
    _side_by_side(person.truth or person.video, spoken, target, provenance)
    spoken.unlink()
    return {**result, "video": str(target), "truth": person.truth is not None, "speech": person.speech.name}


def _side_by_side(left: Path, right: Path, target: Path, provenance: Provenance) -> None:
    """Two videos in one, with the sound and the length of the right one.

    The right one already carries its watermark.
    """

    size = video_info(right).width
    still, frames = None, read_frames(left, size=size)
    with VideoWriter(target, 2 * size, size, tags=provenance.tags(), sound=right) as writer:
        for picture in read_frames(right):
            still = next(frames, still)  # the true video may be a frame shorter
            writer.write(np.concatenate([still, picture], 1))
