"""``adapt``: make an avatar from one person's clip within a budget: plan, track, build, stages, finish."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from adapt.avatar import folder
from adapt.avatar.avatar import restore_model
from adapt.avatar.document import Adapted
from adapt.avatar.writer import BODY, restore_exact
from adapt.budget import Budget, Clock, graceful_stop
from adapt.clip import Clip, track_clip
from adapt.drivers.base import Driver
from adapt.ending import Ending
from adapt.fit.context import Context
from adapt.fit.loop import Fit, Stopped
from adapt.fit.state import seed_step
from adapt.models.base import HeadModel
from adapt.models.kernels import load_kernels
from adapt.plan import Plan, make_plan
from adapt.priors import open_priors, record_of
from adapt.saving import Run, save
from cluster.storage.staging import staged
from configs import progress
from configs.errors import resumable
from configs.scratch import ScratchFolder
from pretrain.roles import MOTION

HELD_FRAMES = 8  # at most, see :func:`_held_frames`
# Tracked frames needed before a recipe builds its model: one second shows the face, its lighting and the body.
FIRST_FRAMES = 25
# More steps than these overfit a handful of frames, and unseen views get worse. The first number is for one second of
# video, the second for each frame beyond it.
FEWEST_STEPS, STEPS_PER_FRAME = 300, 40


@staged(reads=("video",), writes="out", mark=folder.DOCUMENT)
def adapt(
    video: str | Path,
    out: str | Path,
    *,
    recipe: str | None = None,
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
    consent: str | Path | None = None,
    dataset: str | Path | None = None,
    in_step: bool = True,
) -> Adapted:
    """Make an avatar of the person in a video.

    Args:
        video: one person in one continuous shot, with the face in view; with sound if the avatar is to learn how they speak.
        out: the avatar's folder, or an ``s3://`` URL, to which it is uploaded at the end or when the run is interrupted.
        recipe: ``headstart`` (the default), ``ggtalker``, ``talkinggaussian``, ``fg3dgs``, or one that another package
            provides (with ``resume``: the one that the avatar was started with).
        prior: prior folders or registry URIs (see :func:`adapt.priors.find_priors`), ``"none"``, or ``None`` for the
            registry's champions (with ``resume``: the priors that the avatar was started with).
        seconds: train on the first ``seconds`` of the clip; by default on the first 10/11, which leaves the rest for ``evaluate``.
        budget: ``60s``, ``10m``, ``1000it``: wall-clock time from this call on, or optimisation steps. The clock stands
            still while kernels compile, which happens once on a machine.
        resume: continue the unfinished avatar in ``out`` (the budget is the total and includes earlier time). With the
            same budget of steps, the weights are bit-identical to those of an uninterrupted run.
        set: ``key=value`` overrides of the recipe's configuration, such as ``color_mlp=false``.
        self_contained: copy the priors that ``talk`` needs into the folder.
        size: side of the frames, px; by default 512 on a GPU and 256 on a CPU, or the source's if smaller.
        device: ``auto``, ``cpu``, ``cuda``, or another that torch knows.
        seed: of everything random (with ``resume``: as it was begun).
        overwrite: replace an existing avatar.
        clip: already tracked frames of the video, all used for training (instead of ``seconds``); its
            size is used. It is not closed.
        consent: who agreed: a consent file as ``shards build`` takes it, another file, a sentence, or ``unknown``; ``None``
            is ``unknown`` too (with ``resume``: as it was begun). Every output of the avatar carries it.
        dataset: a dataset, folder or URL, whose withdrawn people are refused.
        in_step: shift sound that is clearly late or early into step with the lips (with ``resume``: as it was begun).

    Returns:
        See :class:`adapt.avatar.document.Adapted`.

    Raises:
        InputError: the video, an option or a prior is wrong; nothing is left half-written.
    """
    start = time.monotonic()
    plan = make_plan(
        video,
        out,
        recipe_name=recipe,
        prior=prior,
        seconds=seconds,
        budget=budget,
        resume=resume,
        changes=set,
        self_contained=self_contained,
        size=size,
        device=device,
        seed=seed,
        overwrite=overwrite,
        clip=clip,
        consent=consent,
        dataset=dataset,
        in_step=in_step,
    )
    clock = make_clock(plan, start)
    with (
        clock.waits_for_compiling(),
        tracked_clip(plan, clip) as frames,
        ScratchFolder("body") as temporary,
        graceful_stop(clock),
    ):
        run = build(plan, frames, clock)
        with resumable():
            ending = Ending(plan, temporary)
            if plan.budget.seconds is not None:
                keep_time(run, ending)
            run_stages(run)
            return finish(run, *ending.prepare(run))


# --- track ----------------------------------------------------------------------------------------------------------


@contextmanager
def tracked_clip(plan: Plan, given: Clip | None) -> Iterator[Clip]:
    """The training frames: the given ones, or the video's, tracked in the background and removed at the end."""
    if given is not None:
        given.listen_for(plan.feature)
        yield given
        return
    size = plan.config.size
    feature, rig = plan.feature, plan.rig.source
    clip = track_clip(
        plan.video,
        frames=plan.frames,
        size=size,
        feature=feature,
        rig=rig,
        av_offset=plan.av_offset,
        refine=plan.refine,
        background=True,
    )
    try:
        yield clip
    finally:
        clip.close()


def make_clock(plan: Plan, start: float) -> Clock:
    """The budget's clock, running since ``start`` (``time.monotonic()``)."""
    clock = Clock(
        plan.budget,
        spent_seconds=plan.before["progress"]["seconds"] if plan.before else 0.0,
        spent_iterations=plan.before["progress"]["iterations"] if plan.before else 0,
        most=FEWEST_STEPS + STEPS_PER_FRAME * max(0, plan.frames - FIRST_FRAMES),
        start=start,
    )
    clock.stages["planning"] = time.monotonic() - start
    return clock


# --- build ----------------------------------------------------------------------------------------------------------


def build(plan: Plan, clip: Clip, clock: Clock) -> Run:
    """Model and loop, new or restored, and the first save."""
    with clock.timed("opening priors"):
        priors = open_priors(plan.priors, str(plan.device))
    # A budget of steps waits for the whole clip, so that the run can be repeated bit for bit.
    wanted = None if plan.budget.iterations is not None else min(plan.frames, FIRST_FRAMES)
    with clock.timed("waiting for tracks"), progress.task("tracking", total=plan.frames, unit="frames") as task:
        if not clip.done:
            load_kernels(plan.rig.to("cpu"), plan.device)
        clip.wait(wanted, task)
    rig = plan.rig.to(plan.device)
    context = Context(clip, rig, plan.frames, plan.config, priors, plan.device, plan.seed)
    seed_step(plan.seed, plan.device, "build")
    with clock.timed("building"):
        model, state = _restored(plan) if plan.before is not None else (plan.recipe.build(context), {})
    held = _held_frames(plan.frames)
    run = Run(plan, Fit(model, context, clock, held, restored=state, exact=plan.exact, history=_history(plan)))
    run.fit.save = lambda: save(run)
    save(run)
    return run


def _restored(plan: Plan) -> tuple[HeadModel, dict[str, Tensor]]:
    """The model of the avatar that is resumed, as it was trained: not rounded, with gradients."""
    document, tensors = folder.read_folder(plan.out)
    state = folder.read_state(plan.out)
    model, _ = restore_model(document, tensors, plan.device, plan.out)
    restore_exact(model, state)
    if "anchor" in state:
        model.start = state["anchor"].to(plan.device)
    return model.train(), state


def _history(plan: Plan) -> list[tuple[float, float]]:
    curve = plan.before["progress"].get("psnr_face", []) if plan.before is not None else []
    return [(float(seconds), float(value)) for seconds, value in curve]


def _held_frames(frames: int) -> np.ndarray:
    """Frames that no step sees: the last ones of the training part, at most a twentieth of it."""
    count = min(HELD_FRAMES, frames // 20)
    return np.arange(frames - count, frames)


# --- stages ---------------------------------------------------------------------------------------------------------


def keep_time(run: Run, ending: Ending) -> None:
    """Reserve what the end of a wall-clock budget takes, which each save measures again; begin it once the clip is tracked."""
    fit, write = run.fit, run.fit.save
    assert write is not None

    def timed_save() -> None:
        write()
        fit.clock.reserve = ending.seconds(fit.clock)

    fit.save = timed_save
    fit.when_tracked = lambda: ending.prepare(run)
    if not run.clip.done:
        ending.try_encoding(run.clip)
    fit.clock.reserve = ending.seconds(fit.clock)


def run_stages(run: Run) -> None:
    """The recipe's stages, until they are done or a signal asks for the end."""
    with progress.task("fitting", total=1.0, unit="of the budget") as run.fit.task:
        try:
            run.plan.recipe.run(run.fit, run.context)
        except Stopped:
            run.clip.stop()
    with run.fit.clock.timed("waiting for tracks"):
        run.clip.wait()


# --- finish ---------------------------------------------------------------------------------------------------------


def finish(run: Run, driver: Driver, body: Path) -> Adapted:
    """Measure and write the finished avatar with its voice and body video; returns what :func:`adapt` returns."""
    plan, clip, fit = run.plan, run.clip, run.fit
    value = fit.measure("done")
    run.metrics["psnr_face_held"] = round(value, 3) if value == value else None
    run.null_reasons = {} if value == value else {"psnr_face_held": fit.why_unmeasured()}
    files = {BODY: body, **(_prior_files(run) if plan.self_contained else {})}
    document = save(run, driver, files, complete=not fit.clock.stopped)
    return {
        "avatar": str(plan.out),
        "recipe": plan.recipe.name,
        "prior": document["prior"],
        "iterations": fit.clock.iterations,
        "seconds": round(fit.clock.seconds, 2),
        "stages": fit.clock.seconds_by_stage(),
        "metrics": document["metrics"],
        "null_reasons": document["null_reasons"],
        "driver": driver.name,
        "consent": plan.consent["consent"],
        "size": clip.size,
        "frames": len(clip),
        "complete": document["progress"]["complete"],
        "bytes": sum(record["bytes"] for record in document["files"].values()),
    }


def _prior_files(run: Run) -> dict[str, Path]:
    """The files of the prior of motion, which talking needs; the others are not needed any more."""
    record = record_of(run.context.priors.records, MOTION)
    if record is None:
        return {}
    kind = record["name"]
    source = run.context.priors.folders[kind]
    return {f"priors/{kind}/{name}": source / name for name in ("prior.json", "weights.safetensors")}
