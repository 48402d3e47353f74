"""What recipes of free Gaussians share: clouds on the tracked head, their static stage, sampling, and the fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from adapt.clip import Batch
from adapt.fit.config import BranchConfig, CloudConfig, RecipeConfig
from adapt.fit.context import Context
from adapt.fit.groups import backdrop_groups, cloud_groups
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


def train_static(
    fit: Fit,
    model: BranchHead,
    branch: str,
    begin: float,
    until: float,
    loss: Loss,
    config: BranchConfig,
    *,
    densify: bool,
    extra: Sequence[Group] = (),
    beside: tuple[str, ...] = (),
) -> None:
    """Optimise one branch's canonical cloud without motion, densified on the way (gsplat's default strategy).

    Args:
        begin, until: fractions of the budget.
        extra: groups that are trained at the same time (the backdrop).
        beside: branches that are rendered with it and trained, but not densified.
    """
    model.active, model.still = beside or (branch,), True
    rates, name = config.clouds.rates(), f"static {branch}"
    if not densify:
        fit.stage(name, begin, until, [*extra, *cloud_groups(model, model.active, rates)], loss)
        return
    densifier = _densifier(model.cloud(branch), config.clouds)

    def watched(rendered: Rendered, batch: Batch) -> Tensor:
        densifier.before_backward(model.metas[branch])
        return loss(rendered, batch)

    def densified(progress: float) -> None:
        # Nothing is split or pruned at the end of the stage, so that what remains can settle; nor beyond the limit.
        if progress > config.clouds.settle or densifier.cloud.n > config.clouds.most:
            densifier.strategy.refine_stop_iter = 0
        densifier.after_backward(model.metas[branch])

    others = tuple(name for name in beside if name != branch)
    groups = [*extra, *cloud_groups(model, others, rates)]
    fit.stage(name, begin, until, groups, watched, after=densified, densifier=densifier)


def _densifier(cloud: FreeGaussians, config: CloudConfig) -> Densifier:
    """gsplat's default strategy on a schedule for budgets of minutes: early, often, and without opacity resets."""
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
    rates = config.clouds.rates()
    groups = cloud_groups(model, tuple(model.clouds), rates, config.rate, ("colors", "opacities"))
    groups += backdrop_groups(model, config.fuse_backdrop * config.rate)
    fit.stage("fuse", begin, until, groups, fused_loss(config))


def incremental(fit: Fit, config: BranchConfig, motion: str) -> Sampler | None:
    """Incremental sampling over the mouth's opening or the eyes' closure; ``None`` when it is switched off.

    Args:
        motion: ``mouth`` or ``eyes``.
    """
    if not config.incremental_sampling:
        return None
    frames = fit.available()
    if motion == "mouth":
        metric = lip_gap(fit.clip.track["landmarks"][frames])
    else:
        metric = fit.clip.track["eyelids"][frames].mean(1)
    return IncrementalSampling(frames, metric, width=config.window, every=config.window_every)
