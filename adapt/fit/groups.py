"""Adam groups of the models: which parameters learn together, and how fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from adapt.fit.config import MotionConfig
from adapt.fit.optimizers import Group, parameter_groups, rate_of
from adapt.fit.schedule import residual_share
from adapt.models.branches import BranchHead
from adapt.models.rigged import RiggedHead
from heads.motion.audio import AudioWindowEncoder
from heads.motion.fields import MotionField

# Adam's rates of motion fields and of their hash grids (TalkingGaussian's code).
FIELD_RATE, GRID_RATE = 5e-4, 5e-3
# Parts that depend on pose and expression, and the shape: one second of video cannot tell these from tracking noise.
SLOW_GROUPS = ("color", "offset", "correction", "identity", "appearance_basis")


def rigged_groups(model: RiggedHead, scale: float = 1.0, leave: tuple[str, ...] = ()) -> list[Group]:
    """Groups of map, residuals, track correction and backdrop.

    Args:
        scale: factor on all rates.
        leave: parts to leave out, by the beginning of their names (``color``, ``correction``, ...).
    """
    groups = parameter_groups(model.talking)
    kept = [group for group in groups if not _begins(group["name"], leave)]
    for group in kept:
        group["lr"] *= scale
        group["name"] = f"head.{group['name']}"
    return kept


def groups_for_clip(model: RiggedHead, rate: float, frames: int, patience: float) -> list[Group]:
    """Groups for a clip of ``frames`` frames: map and body only up to one second, all at full rate from ten seconds on.

    Args:
        rate: factor on all rates.
        patience: power of the residuals' share if the model has a prior's appearance basis: with a few seconds of video,
            residuals then learn more slowly.
    """
    share = residual_share(frames)
    share = share if model.talking.appearance_basis is None else share**patience
    slow = [group for group in rigged_groups(model, rate * share) if group["name"].split(".")[1] in SLOW_GROUPS]
    return rigged_groups(model, rate, leave=SLOW_GROUPS) + (slow if share else [])


def residual_motion_groups(model: RiggedHead, scale: float = 1.0, only: str | None = None) -> list[Group]:
    """Groups of the residual motion of eyes and mouth."""
    return [
        group
        for name, field in model.motion.items()
        if only in (None, name)
        for group in field_groups(cast(MotionField, field), f"motion.{name}", scale)
    ]


def mouth_groups(model: RiggedHead, scale: float) -> list[Group]:
    """What the alignment may change: the colours and, if there is residual motion, the mouth's network (FG-3DGS, 3.4)."""
    colors = [group for group in rigged_groups(model, scale) if group["name"] in ("head.colors", "head.color")]
    return colors + residual_motion_groups(model, scale, only="mouth")


def field_groups(field: MotionField, name: str, scale: float = 1.0, **rates: float) -> list[Group]:
    """Groups of a motion field and of its hash grid.

    Args:
        rates: ``rate`` and ``grid_rate`` instead of the usual ones.
    """
    rate, grid = rates.get("rate", FIELD_RATE) * scale, rates.get("grid_rate", GRID_RATE) * scale
    rows = field.parameter_groups(rate, grid)
    return [Group(params=list(row["params"]), lr=row["lr"], name=name) for row in rows]


def field_and_audio_groups(
    model: BranchHead, branches: Iterable[str], rates: MotionConfig, scale: float = 1.0
) -> list[Group]:
    """Groups of the branches' fields and of their audio encoders."""
    found = []
    for name in branches:
        found += audio_groups(model, name, rates, scale)
        found += field_groups(model.field(name), f"motion.{name}", scale, rate=rates.network, grid_rate=rates.grid)
    return found


def audio_groups(model: BranchHead, branch: str, rates: MotionConfig, scale: float = 1.0) -> list[Group]:
    """Groups of a branch's audio encoder: its network, and the attention that smooths what it says."""
    if branch not in model.audio:
        return []
    encoder = cast(AudioWindowEncoder, model.audio[branch])
    parts = {"net": (encoder.net, rates.audio), "attention": (encoder.attention, rates.attention)}
    return [
        Group(params=list(module.parameters()), lr=rate * scale, name=f"audio.{branch}.{part}")
        for part, (module, rate) in parts.items()
    ]


def correction_groups(model: BranchHead, scale: float = 1.0) -> list[Group]:
    """Group of the correction of the head's pose."""
    rate = rate_of("correction")[1] * scale
    return [Group(params=list(model.correction.parameters()), lr=rate, name="correction")]


def cloud_groups(
    model: BranchHead,
    branches: Iterable[str],
    rates: Mapping[str, float],
    scale: float = 1.0,
    only: tuple[str, ...] = (),
) -> list[Group]:
    """Groups of the branches' clouds, at a rate per part."""
    return [
        Group(params=[parameter], lr=rates[part] * scale, name=f"{name}.{part}")
        for name in branches
        for part, parameter in model.cloud(name).params.items()
        if not only or part in only
    ]


def backdrop_groups(model: BranchHead, scale: float = 1.0) -> list[Group]:
    """Groups of body and background."""
    learned = [(name, p) for name, p in model.backdrop.named_parameters() if p.requires_grad]
    named = {f"backdrop.{name}": parameter for name, parameter in learned}
    eps = model.backdrop.adam_eps
    return [Group(params=[p], lr=rate_of(name)[1] * scale, name=name, eps=eps) for name, p in named.items()]


def _begins(name: str, parts: tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(part + ".") for part in parts)
