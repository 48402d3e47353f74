"""What recipes of free Gaussians share: clouds on the tracked head, their static stage, sampling, and the fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from adapt.clip import Batch
from adapt.fit.config import BranchConfig, CloudConfig, RecipeConfig
from adapt.fit.context import Context
from adapt.fit.groups import backdrop_groups, cloud_groups, field_and_audio_groups
from adapt.fit.initial_maps import frame_colors
from adapt.fit.loop import Fit
from adapt.fit.losses import Loss, fused_loss
from adapt.fit.optimizers import Group
from adapt.fit.sampling import IncrementalSampling, Sampler
from adapt.models.base import Rendered
from adapt.models.branches import BranchHead, Field
from configs.seeds import derive
from heads.gaussians.free import Densifier, FreeGaussians
from heads.gaussians.uv import UVGaussians
from heads.measures.face import lip_gap
from heads.person.inputs import pose_vectors

# Side of the UV map whose texels are candidates for a cloud's points: about 30,000, more than any branch takes.
CANDIDATES = 192
NEVER = 1 << 30  # steps
OPEN = 0.01  # eye distances between the lips from which on there is an inside to learn · 1 px at 512, as TalkingGaussian's code


def build_branches(
    context: Context[BranchConfig],
    fields: Mapping[str, Field],
    seeds: Mapping[str, tuple[tuple[str, ...] | None, tuple[str, ...], int]],
) -> BranchHead:
    """A head of branches whose clouds lie on the tracked head, coloured by the frontal frame.

    Args:
        fields: branch -> motion field, the front-most first.
        seeds: branch -> regions of the rig that it is seeded on (``None``: all), regions left out, number of points.
    """
    model = BranchHead(
        context.clip.size,
        context.intrinsics,
        rig=context.rig.to("cpu"),  # initialised on the CPU, then moved as a whole
        identity=context.identity,
        clouds={name: FreeGaussians(*seed_cloud(context, *seeds[name])) for name in fields},
        fields=fields,
        audio_features=context.clip.feature.size,
    )
    model.backdrop.calibrate(pose_vectors(context.inputs().to("cpu").vectors))
    context.start_backdrop(model.backdrop)
    return model.to(context.device)


@torch.no_grad()
def calibrate_branches(model: BranchHead, context: Context[RecipeConfig]) -> None:
    """Set the scales of the sound, and of the tracks that correct the pose, from the frames tracked so far."""
    model.correction.net.calibrate(context.inputs().vectors)
    if context.clip.has_sound:
        sound = torch.from_numpy(context.clip.features().astype(np.float32))
        model.audio_center.copy_(sound.mean(0))
        model.audio_scale.copy_(sound.std(0, unbiased=False).clamp_min(1e-3))


def seed_cloud(
    context: Context[RecipeConfig], regions: tuple[str, ...] | None, without: tuple[str, ...], count: int
) -> tuple[Tensor, Tensor]:
    """Points ``[N, 3]`` and colours ``[N, 3]`` on regions of the tracked rig, coloured by the frontal frame."""
    rig = context.rig.to("cpu")
    binding = UVGaussians(rig, CANDIDATES)
    labels = [rig.regions[name] for name in (regions or rig.regions) if name not in without]
    rows = torch.isin(binding.regions, torch.tensor(labels)).nonzero()[:, 0]
    chosen = np.random.default_rng(derive(context.seed, "cloud", *labels)).permutation(len(rows))[:count]
    rows = rows[torch.from_numpy(np.sort(chosen))]
    frame = context.frontal_frame()
    inputs = context.inputs().to("cpu").pick([frame])
    vertices = rig.vertices(context.identity[None], inputs.expression, inputs.eyelids, inputs.gaze)
    points = binding.points(vertices)[0][rows].detach()
    return points, frame_colors(context, points, frame)[0]


def train_branch(
    fit: Fit,
    model: BranchHead,
    branch: str,
    begin: float,
    until: float,
    loss: Loss,
    config: BranchConfig,
    *,
    extra: Sequence[Group] = (),
    beside: tuple[str, ...] = (),
) -> None:
    """One stage of a branch: its cloud alone at first, then with its motion, densified on the way (gsplat's default strategy).

    The cloud goes on changing while the motion is learned: what a still cloud averages over all frames becomes sharp only
    once it moves.

    Args:
        begin, until: fractions of the budget, between which rates fall.
        extra: groups that are trained at the same time (the backdrop).
        beside: branches that are rendered with it and trained, but not densified; the branch is one of them.
    """
    model.active = beside or (branch,)
    others = tuple(name for name in model.active if not config.densify or name != branch)
    groups = [*extra, *field_and_audio_groups(model, model.active, config.motion, config.rate)]
    groups += cloud_groups(model, others, config.clouds.rates())
    densifier = _densifier(model.cloud(branch), config.clouds) if config.densify else None

    def still(progress: float) -> None:
        model.still = progress < config.still_share
        if not model.still:
            fit.once("calibrate", lambda: calibrate_branches(model, fit.context))

    def watched(rendered: Rendered, batch: Batch) -> Tensor:
        if densifier is not None:
            densifier.before_backward(model.metas[branch])
        return loss(rendered, batch)

    def densified(progress: float) -> None:
        if densifier is not None:
            _refine(densifier, progress, config.clouds)
            densifier.after_backward(model.metas[branch])

    fit.stage(
        branch,
        begin,
        until,
        groups,
        watched,
        sample=_incremental(fit, config, branch) if config.incremental_sampling else None,
        before=still,
        after=densified,
        anneal=(begin, until),
        densifier=densifier,
    )
    model.still = False


def _refine(densifier: Densifier, progress: float, config: CloudConfig) -> None:
    """Set what the strategy may do at this point of the stage: nothing at the end, so that what remains can settle."""
    strategy = densifier.strategy
    if progress > config.settle:
        strategy.refine_stop_iter = 0
    strategy.prune_opa = config.faint + (config.faint_end - config.faint) * progress
    strategy.grow_grad2d = config.gradient if densifier.cloud.n <= config.most else float("inf")


def _densifier(cloud: FreeGaussians, config: CloudConfig) -> Densifier:
    """gsplat's default strategy without opacity resets, as TalkingGaussian's code uses it."""
    return Densifier(
        cloud,
        scene_scale=1.0,
        rates=config.rates(),
        refine_start_iter=config.refine_from,
        refine_every=config.refine_every,
        refine_stop_iter=NEVER,
        reset_every=NEVER,
        grow_grad2d=config.gradient,
        verbose=False,
    )


def fuse(fit: Fit, model: BranchHead, begin: float, until: float, config: BranchConfig) -> None:
    """Train colours, opacities and the backdrop of all branches composed; motion and shape stay fixed."""
    model.active = tuple(model.clouds)
    rates = config.clouds.rates()
    groups = cloud_groups(model, model.active, rates, config.rate, ("colors", "opacities"))
    groups += backdrop_groups(model, config.fuse_backdrop * config.rate)
    model.frozen = True
    fit.stage("fuse", begin, until, groups, fused_loss(config), anneal=(begin, until))
    model.frozen = False


def _incremental(fit: Fit, config: BranchConfig, branch: str) -> Sampler:
    """Incremental sampling over the mouth's opening for the branch of the mouth, over the eyes' closure for others.

    The mouth is learned from frames in which it is open.
    """
    made: dict[int, IncrementalSampling] = {}

    def sample(progress: float, step: int, rng: np.random.Generator) -> np.ndarray:
        frames = fit.available()
        if len(frames) not in made:  # the clip is perhaps still being tracked
            made.clear()
            made[len(frames)] = _mouth(frames) if branch == "mouth" else _eyes(frames)
        return made[len(frames)](progress, step, rng)

    def _mouth(frames: np.ndarray) -> IncrementalSampling:
        gap = lip_gap(fit.clip.track["landmarks"][frames])
        seen = gap > OPEN if (gap > OPEN).any() else np.ones(len(gap), bool)
        widest = config.still_share
        return IncrementalSampling(frames[seen], gap[seen], width=0.0, every=config.mouth_every, widest=widest)

    def _eyes(frames: np.ndarray) -> IncrementalSampling:
        closure = fit.clip.track["eyelids"][frames].mean(1)
        return IncrementalSampling(frames, closure, width=config.eye_window, every=config.eye_every)

    return sample
