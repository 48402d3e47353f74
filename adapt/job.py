"""``adapt``: one person's clip into an avatar, within a budget, from the first tracked second on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from adapt.avatar import folder
from adapt.avatar.avatar import (
    BODY,
    THUMBNAIL,
    Avatar,
    avatar_tensors,
    body_video,
    config_dict,
    features_record,
    loudness_driver,
    pick_device,
    thumbnail,
)
from adapt.avatar.provenance import Provenance, now, tool_version
from adapt.budget import Budget, Clock, graceful_stop, parse_budget
from adapt.clip import Clip, split_frames, track_clip
from adapt.drivers.base import Driver
from adapt.drivers.ridge import RidgeDriver
from adapt.fit.context import Context
from adapt.fit.loop import Fit
from adapt.outputs import claim
from adapt.priors import Priors, open_priors
from adapt.recipes import recipe as recipe_module
from cluster.storage.staging import staged
from configs import InputError, load_config
from shards.media.probe import video_info

PREVIEW = "preview.jpg"
# An avatar is a few MB: a minute of its clip is enough of a body to speak over.
BODY_FRAMES = 1500
HELD_FRAMES = 8
# Seconds that the end wants for measuring, writing and hashing, and for encoding a frame of the body (256 px).
ENDING, ENCODING = 2.0, 0.006
# Tracked frames that a recipe wants before it builds its model: a second shows the face, its light and the body.
FIRST_FRAMES = 25
# More steps than these teach a handful of frames by heart, and an unseen view gets worse: for a second of video, and for
# each frame beyond it.
FEWEST_STEPS, STEPS_PER_FRAME = 300, 40


@dataclass
class Job:
    """One call of :func:`adapt`: what was asked, what there is so far."""

    video: Path
    out: Path
    recipe: str
    module: ModuleType
    config: Any
    budget: Budget
    device: torch.device
    seed: int
    self_contained: bool
    frames: int
    total: int
    before: dict[str, Any] | None = None
    context: Context | None = None
    fit: Fit | None = None
    driver: Driver | None = None
    body: bytes | None = None
    whole_body: bool = False
    metrics: dict[str, Any] = field(default_factory=dict)


@staged(reads=("video",), writes="out")
def adapt(
    video: str | Path,
    out: str | Path,
    *,
    recipe: str = "headstart",
    prior: str | Path | None = None,
    seconds: float | None = None,
    budget: str | float | Budget = "60s",
    resume: bool = False,
    set: Sequence[str] = (),
    self_contained: bool = False,
    size: int | None = None,
    device: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    clip: Clip | None = None,
) -> dict[str, Any]:
    """Make an avatar of the person in a video.

    Args:
        video: one person, one take, their face in view; sound if the avatar is to learn how they speak.
        out: the avatar's folder, or its ``s3://`` URL: uploaded whole at the end, and when a run is interrupted.
        recipe: ``headstart``, ``ggtalker``, ``talkinggaussian`` or ``fg3dgs``.
        prior: prior folders or registry URIs (see :func:`adapt.priors.open_priors`), ``"none"``, or ``None`` for the
            registry's champions.
        seconds: train on the first so many; by default on the first 10/11, which leaves the rest for ``evaluate``.
        budget: ``60s``, ``10m``, ``1000it``: wall clock from this call on, or optimisation steps.
        resume: go on with the unfinished avatar in ``out`` (the budget is the total, earlier time included).
        set: ``key=value`` changes of the recipe's configuration, such as ``color_mlp=false``.
        self_contained: copy the priors that talking needs into the folder.
        clip: frames of the video that are tracked already, all of which are trained on (instead of ``seconds``); its
            size counts. It stays open.
        size: side of the frames, px; by default 512 on a GPU and 256 on a CPU, or the source's if smaller.

    Returns:
        ``avatar, recipe, prior, iterations, seconds, metrics`` (and ``driver``, ``size``, ``frames``).

    Raises:
        InputError: the video, an option or a prior is wrong; nothing is left half-written.
    """
    given = clip
    job = _job(video, out, recipe, budget, seconds, set, size, device, seed, self_contained, resume, overwrite, given)
    clock = _clock(job)
    from heads.rig import load_rig

    rig = load_rig("mediapipe")
    if given is None:
        clip = track_clip(job.video, frames=job.frames, size=job.config.size, background=True)
    try:
        priors = open_priors(prior, rig, str(job.device))
        clip.wait(None if job.budget.iterations is not None else min(job.frames, FIRST_FRAMES))
        _prepare(job, clip, rig, priors, clock)
        with graceful_stop(clock):
            _save(job)
            job.module.run(job.fit, job.context)
            return _finish(job)
    finally:
        if given is None:
            clip.close()


def _job(
    video, out, recipe, budget, seconds, changes, size, device, seed, self_contained, resume, overwrite, clip
) -> Job:
    size = clip.size if clip is not None else size
    module, parsed, place = recipe_module(recipe), parse_budget(budget), pick_device(device)
    config = load_config(module.Config, f"adapt/{recipe}", list(changes) + ([f"size={size}"] if size else []))
    if not Path(str(video)).is_file():
        why = "is a folder, expected a video file" if Path(str(video)).is_dir() else "no such file"
        raise InputError(f"{video}: {why}; give the path of a video")
    frames, total = split_frames(video, seconds) if clip is None else (len(clip), len(clip))
    before = None
    if resume and Path(str(out)).exists():
        before = folder.verify_folder(out)
        config, frames = _resumed(before, module, recipe, parsed, video, out)
    else:
        out = claim(out, overwrite=overwrite)
    config = load_config(module.Config, {**config_dict(config), "size": config.size or _auto_size(video, place)})
    return Job(
        Path(str(video)),
        Path(str(out)),
        recipe,
        module,
        config,
        parsed,
        place,
        seed,
        self_contained,
        frames,
        total,
        before,
    )


def _auto_size(video: str | Path, device: torch.device) -> int:
    info = video_info(video)
    wanted = 512 if device.type == "cuda" else 256
    return max(64, min(wanted, min(info.width, info.height) // 16 * 16))


def _resumed(
    before: dict, module: ModuleType, recipe: str, budget: Budget, video: str | Path, out: str | Path
) -> tuple:
    """Configuration and frames of the avatar that is resumed, after checking that it is the same job."""
    if before["recipe"] != recipe:
        raise InputError(f"avatar '{out}' was begun with recipe {before['recipe']}, not {recipe}; resume with that one")
    if before["provenance"]["video_sha256"] != folder.file_sha256(video):
        raise InputError(f"avatar '{out}' was begun with another video than {video}; resume with that one")
    progress = before["progress"]
    spent = progress["iterations"] if budget.iterations is not None else progress["seconds"]
    whole = budget.iterations if budget.iterations is not None else budget.seconds
    if progress["complete"] and spent >= 0.9 * whole:
        raise InputError(f"avatar '{out}' is complete after {progress['seconds']:.0f}s; resume with a larger --budget")
    return load_config(module.Config, before["config"]), before["clip"]["frames"]


def _clock(job: Job) -> Clock:
    progress = job.before["progress"] if job.before else {"seconds": 0.0, "iterations": 0}
    reserve = ENDING + ENCODING * min(job.frames, BODY_FRAMES) * (job.config.size / 256) ** 2
    return Clock(
        job.budget,
        spent_seconds=progress["seconds"],
        spent_iterations=progress["iterations"],
        reserve=reserve,
        most=FEWEST_STEPS + STEPS_PER_FRAME * max(0, job.frames - FIRST_FRAMES),
    )


def _prepare(job: Job, clip: Clip, rig: Any, priors: Priors, clock: Clock) -> None:
    """Model and loop, new or restored."""
    torch.manual_seed(job.seed)
    context = Context(clip, rig.to(job.device), job.frames, job.config, priors, job.device, job.seed)
    restored: dict[str, torch.Tensor] = {}
    if job.before is not None:
        from adapt.avatar.avatar import load_avatar

        model = load_avatar(job.out, str(job.device)).model.train()
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        restored = folder.read_state(job.out)
        if "anchor" in restored:
            model.start = restored["anchor"].to(job.device)
    else:
        model = job.module.build(context)
    job.context = context
    job.fit = Fit(
        model=model,
        clip=clip,
        clock=clock,
        device=job.device,
        held=_held_frames(job.frames),
        seed=job.seed,
        save=lambda fit: _save(job),
        report=_progress_line,
        tracked=None if job.before else lambda: context.complete_backdrop(model),
        restored=restored,
    )


def _held_frames(frames: int) -> np.ndarray:
    """Frames that no step sees: the last ones of the training part, at most a twentieth of it."""
    count = min(HELD_FRAMES, frames // 20)
    return np.arange(frames - count, frames)


def _progress_line(state: dict[str, Any]) -> None:
    if not sys.stderr.isatty():
        return
    left = state["seconds_left"]
    left_text = "" if left is None else f", {left:.0f} s left"
    line = f"{state['stage']}: step {state['iterations']}, face {state['psnr_face']:.2f} dB{left_text}"
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


# --- saving ---------------------------------------------------------------------------------------------------------


def _save(job: Job, complete: bool = False) -> dict[str, Any]:
    """Put the present avatar on disk, whole, in place of the one before."""
    clip, fit = job.context.clip, job.fit
    done = clip.done
    count = min(len(clip), BODY_FRAMES)
    track = {name: rows[:count] for name, rows in clip.track.items() if name != "quality"}
    document = _document(job, count, complete)
    provenance = Provenance.make(avatar=job.out.name, recipe=job.recipe)
    if job.body is None or (done and not job.whole_body):
        job.body, job.whole_body = body_video(clip, count, provenance), done
        if done:
            fit.clock.reserve = ENDING
    real, image = _look(job)
    files: dict[str, Any] = {
        BODY: job.body,
        THUMBNAIL: thumbnail(image, provenance),
        PREVIEW: thumbnail(np.concatenate([real, image], 1), provenance),
    }
    if job.self_contained:
        files.update(_prior_files(job))
    driver = _driver(job)
    document["driver"] = "prior" if _uses_prior(driver) else "clip"
    return folder.write_folder(
        job.out,
        document,
        avatar_tensors(fit.model, track, driver),
        files=files,
        state=None if complete else fit.state(),
    )


def _document(job: Job, count: int, complete: bool) -> dict[str, Any]:
    clip, clock, context = job.context.clip, job.fit.clock, job.context
    records = context.priors.records
    visual = records.get("expression-visual") or next(iter(records.values()), None)
    return {
        "recipe": job.recipe,
        "prior": {key: visual[key] for key in ("name", "version", "sha256")} if visual else None,
        "priors": records,
        "rig": {"name": context.rig.name, "sha256": context.rig.sha256, "source": "mediapipe"},
        "features": features_record(),
        "size": clip.size,
        "created": now(),
        "provenance": {
            "statement": f"An avatar of the person in '{job.video.name}', made with {tool_version()}",
            "tool": tool_version(),
            "video": job.video.name,
            "video_sha256": folder.file_sha256(job.video),
        },
        "metrics": {**job.metrics, "adapt_seconds": round(clock.seconds, 2), "iterations": clock.iterations},
        "config": config_dict(job.config),
        "model": job.module.shape_of(job.fit.model),
        "clip": {
            "frames": job.frames,
            "total": job.total,
            "kept": count,
            "crop_box": list(clip.crop_box),
            "identity": [float(v) for v in clip.identity],
        },
        "progress": {
            "seconds": round(clock.seconds, 3),
            "iterations": clock.iterations,
            "budget": str(job.budget),
            "complete": complete,
            "psnr_face": [[round(s, 2), round(v, 3)] for s, v in job.fit.history if v == v],
        },
        "device": str(job.device),
        "seed": job.seed,
    }


@torch.no_grad()
def _look(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """A real frame and the same rendered, ``[H, W, 3]`` each: a held-out one where it is tracked already."""
    fit = job.fit
    frame = int(fit.held[-1]) if len(fit.held) and fit.held[-1] < len(fit.clip) else len(fit.clip) - 1
    batch = fit.clip.batch([frame], job.device)
    image = fit.model(fit.drive(batch).with_(index=None)).image
    return batch.image[0].cpu().numpy(), image[0].clamp(0, 1).cpu().numpy()


def _driver(job: Job) -> Driver:
    """What will turn sound into this person's expressions; fitted once the whole clip is tracked."""
    context, clip = job.context, job.context.clip
    if job.driver is not None:
        return job.driver
    if not clip.done or not clip.has_sound or len(clip) < 25:
        return loudness_driver(context.rig, clip.track["expression"])
    # Recipes without this switch listen to the sound themselves.
    prior = context.priors.get("audio-expression") if getattr(job.config, "audio_prior", False) else None
    if prior is not None:
        from adapt.drivers.personal_voice import person_driver

        job.driver = person_driver(
            prior,
            clip,
            context.priors.records["audio-expression"],
            context.rig,
            finetune=job.config.audio_finetune,
            seconds=_finetune_seconds(job.budget),
            seed=job.seed,
        )
    else:
        job.driver = RidgeDriver.fit(clip.features(), clip.track["expression"])
    return job.driver


def _finetune_seconds(budget: Budget) -> float:
    """A twentieth of the budget, between 1 and 30 s."""
    return min(30.0, max(1.0, (budget.seconds or 60.0) / 20))


def _uses_prior(driver: Driver) -> bool:
    from adapt.drivers.prior import PriorDriver

    return isinstance(driver, PriorDriver)


def _prior_files(job: Job) -> dict[str, Path]:
    """The audio-expression prior's files, which talking needs; the visual prior has done its work."""
    source = job.context.priors.folders.get("audio-expression")
    if source is None:
        return {}
    return {f"priors/audio-expression/{name}": source / name for name in ("prior.json", "weights.safetensors")}


def _finish(job: Job) -> dict[str, Any]:
    clip, fit = job.context.clip, job.fit
    clip.wait()
    value = fit.measure("done")
    job.metrics["psnr_face_held"] = round(value, 3) if value == value else None
    document = _save(job, complete=not fit.clock.stopped)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return {
        "avatar": str(job.out),
        "recipe": job.recipe,
        "prior": document["prior"],
        "iterations": fit.clock.iterations,
        "seconds": round(fit.clock.seconds, 2),
        "metrics": document["metrics"],
        "driver": _driver(job).name,
        "size": clip.size,
        "frames": job.frames,
        "complete": document["progress"]["complete"],
        "bytes": sum(record["bytes"] for record in document["files"].values()),
    }


def open_result(result: dict[str, Any], device: str = "auto") -> Avatar:
    """The avatar that :func:`adapt` has just written."""
    from adapt.avatar.avatar import load_avatar

    return load_avatar(result["avatar"], device)
