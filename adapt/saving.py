"""The state of a running adaptation, and how it is saved: always as a complete avatar that can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adapt.avatar import folder
from adapt.avatar.avatar import config_dict, loudness_driver
from adapt.avatar.body import BODY_FRAMES
from adapt.avatar.document import AvatarContent, AvatarDocument, ClipRecord, VisualPrior
from adapt.avatar.provenance import Provenance, now, tool_version
from adapt.avatar.writer import PREVIEW, THUMBNAIL, avatar_tensors, exact_tensors, thumbnail
from adapt.clip import TRACK_FIELDS, Clip
from adapt.drivers.base import Driver
from adapt.drivers.prior import PriorDriver
from adapt.fit.config import RecipeConfig
from adapt.fit.context import Context
from adapt.fit.loop import Fit
from adapt.plan import Plan
from adapt.priors import record_of
from adapt.talk.level import speech_level
from pretrain.roles import APPEARANCE


@dataclass
class Run:
    """The mutable state of one adaptation; its plan is fixed."""

    plan: Plan
    fit: Fit
    metrics: dict[str, float | None] = field(default_factory=dict)
    null_reasons: dict[str, str] = field(default_factory=dict)

    @property
    def context(self) -> Context[RecipeConfig]:
        """Clip, rig, priors and configuration."""
        return self.fit.context

    @property
    def clip(self) -> Clip:
        """The training frames."""
        return self.fit.clip


def save(
    run: Run, driver: Driver | None = None, files: Mapping[str, Path] | None = None, *, complete: bool = False
) -> AvatarDocument:
    """Replace the avatar on disk by the current one; nothing is computed but the preview.

    Args:
        driver: of the finished avatar; by default loudness opens the jaw.
        files: what only the finished avatar contains (body video, priors), by name.
        complete: the budget is used up, so no state for ``--resume`` is stored.
    """
    with run.fit.clock.timed("saving"):
        return _save(run, driver, files or {}, complete)


def _save(run: Run, driver: Driver | None, files: Mapping[str, Path], complete: bool) -> AvatarDocument:
    clip, fit = run.clip, run.fit
    driver = driver or loudness_driver(run.context.rig, clip.track["expression"])
    count = min(len(clip), BODY_FRAMES)
    kept = {*TRACK_FIELDS, *clip.behind} - {"quality"}
    track = {name: rows[:count] for name, rows in clip.track.items() if name in kept}
    provenance = provenance_of(run.plan)
    real, image = _preview(fit)
    pictures = {
        THUMBNAIL: thumbnail(image, provenance),
        PREVIEW: thumbnail(np.concatenate([real, image], 1), provenance),
    }
    return folder.write_folder(
        run.plan.out,
        _document(run, driver, count, complete),
        avatar_tensors(fit.model, track, driver, clip.texture),
        files={**files, **pictures},
        state=None if complete else {**fit.state(), **exact_tensors(fit.model)},
    )


def provenance_of(plan: Plan) -> Provenance:
    """The record that the pictures of a plan's avatar carry."""
    agreed = {name: plan.consent[name] for name in ("consent", "licence")}
    return Provenance.make(avatar=plan.out.name, recipe=plan.recipe.name, **agreed)


def _document(run: Run, driver: Driver, count: int, complete: bool) -> AvatarContent:
    plan, clip, clock = run.plan, run.clip, run.fit.clock
    records = run.context.priors.records
    visual = record_of(records, APPEARANCE) or next(iter(records.values()), None)
    return {
        "recipe": plan.recipe.name,
        "prior": None
        if visual is None
        else VisualPrior(name=visual["name"], version=visual["version"], sha256=visual["sha256"]),
        "priors": records,
        "rig": plan.rig.record,
        "features": plan.feature.record,
        "size": clip.size,
        "created": now(),
        "provenance": {
            "statement": f"An avatar of the person in '{plan.video.name}', made with {tool_version()}",
            "tool": tool_version(),
            "video": plan.video.name,
            "video_sha256": plan.video_sha256,
        },
        "consent": dict(plan.consent),
        "metrics": {**run.metrics, "adapt_seconds": round(clock.seconds, 2), "iterations": clock.iterations},
        "null_reasons": run.null_reasons,
        "config": config_dict(plan.config),
        "model": plan.recipe.shape_of(run.fit.model),
        "clip": _clip_record(run, count),
        "progress": {
            "seconds": round(clock.seconds, 3),
            "iterations": clock.iterations,
            "budget": str(plan.budget),
            "complete": complete,
            "psnr_face": [[round(s, 2), round(v, 3)] for s, v in run.fit.history if v == v],
            "stages": clock.seconds_by_stage(),
        },
        "driver": "prior" if isinstance(driver, PriorDriver) else "clip",
        "device": str(plan.device),
        "seed": plan.seed,
    }


def _clip_record(run: Run, count: int) -> ClipRecord:
    plan, clip = run.plan, run.clip
    record: ClipRecord = {
        "frames": plan.frames,
        "total": plan.total,
        "kept": count,
        "crop_box": list(clip.crop_box),
        "av_offset": clip.av_offset,
        "refined": clip.texture is not None,
        "identity": [float(v) for v in clip.identity],
    }
    if (level := speech_level([clip.audio])) is not None:
        record["level"] = round(level, 1)
    if plan.in_step:
        record["tracked_offset"] = clip.tracked_offset
    return record


def _preview(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """A real frame and the same rendered, ``[H, W, 3]`` in [0, 1] each: a held-out one if it is already tracked."""
    frame = int(fit.held[-1]) if len(fit.held) and fit.held[-1] < len(fit.clip) else len(fit.clip) - 1
    real, image, _ = fit.look(frame)
    return real.numpy(), image.numpy()
