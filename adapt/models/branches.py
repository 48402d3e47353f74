"""Heads of free Gaussians in branches (face, inside of the mouth, eyes), each with its own motion field.

Used by ``talkinggaussian`` (two branches) and ``fg3dgs`` (three). A branch is a canonical cloud in head space that is
densified while it is static, and a field that moves it with sound and with the upper face; branches are rendered
apart and composed front to back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapt.fit.context import Context
from adapt.models.action_units import upper_units
from adapt.models.base import HeadModel, Window
from adapt.models.drive import AUDIO_CONTEXT, Drive
from heads.compose import over
from heads.gaussians.cloud import Gaussians
from heads.gaussians.free import PARTS, Densifier, FreeGaussians
from heads.gaussians.render import render_head
from heads.motion.audio import AudioEncoder
from heads.motion.fields import Motion
from heads.person.backdrop import Backdrop
from heads.person.inputs import POSE
from heads.person.talking_head import moved

AUDIO_SIZE = 32
# Regions of the rig on which each branch's cloud is born.
MOUTH = ("mouth_inside", "teeth_upper", "teeth_lower")
EYES = ("eyeball_left", "eyeball_right", "eye_left", "eye_right")


class BranchHead(HeadModel):
    """A head of branches; see the module's docstring.

    Args:
        clouds: branch -> canonical Gaussians, the front-most first.
        fields: branch -> motion field.
        identity: ``[K_id]``, for the upper-face units.
        audio_features: width of a row of audio features.
    """

    uses_audio = True

    def __init__(
        self,
        size: int,
        intrinsics: Tensor,
        *,
        rig: Any,
        identity: Tensor,
        clouds: dict[str, FreeGaussians],
        fields: dict[str, nn.Module],
        audio_features: int,
    ) -> None:
        super().__init__(size, intrinsics)
        self.rig = rig
        self.backdrop = Backdrop(size, size, 3 * POSE)
        self.clouds, self.fields = nn.ModuleDict(clouds), nn.ModuleDict(fields)
        self.audio = AudioEncoder(audio_features, AUDIO_SIZE)
        self.register_buffer("identity", identity.float().clone())
        self.active = tuple(clouds)
        self.still = True
        self.metas: dict[str, dict] = {}

    def conditions(self, drive: Drive) -> dict[str, Tensor]:
        """What the fields listen to: ``audio [B, 32]``, ``units [B, 7]``, ``eyes [B, 6]``."""
        centre = torch.tensor([AUDIO_CONTEXT], device=drive.rotation.device)
        if drive.features is None:
            audio = torch.zeros(len(drive), AUDIO_SIZE, device=drive.rotation.device)
        else:
            audio = torch.cat([self.audio(rows, centre) for rows in drive.features])
        eyes = torch.cat([drive.eyelids, drive.gaze.flatten(1)], 1)
        return {"audio": audio, "units": upper_units(self.rig, self.identity, drive), "eyes": eyes}

    def motion(self, branch: str, condition: dict[str, Tensor], means: Tensor) -> Motion:
        """The residual of one branch; recipes' fields take different keywords, named by their ``listens``."""
        field = self.fields[branch]
        return field(means, **{name: condition[name] for name in field.listens})

    def branch(self, name: str, condition: dict[str, Tensor] | None) -> Gaussians:
        """The Gaussians of a branch ``[B or 1, N, ...]`` under a condition; canonical for ``None``."""
        cloud = self.clouds[name].gaussians()
        if condition is None:
            return cloud
        count = len(condition["audio"])
        shared = cloud.replace(
            **{part: getattr(cloud, part).expand(count, *getattr(cloud, part).shape[1:]) for part in PARTS}
        )
        return moved(shared, self.motion(name, condition, cloud.means[0]))

    def gaussians(self, drive: Drive | None) -> Gaussians:
        """All branches in one scene."""
        condition = None if drive is None else self.conditions(drive)
        return Gaussians.join(*(self.branch(name, condition) for name in self.clouds))

    def layers(self, drive: Drive, window: Window | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Premultiplied colour and alpha of every active branch, rendered apart."""
        condition = None if self.still else self.conditions(drive)
        intrinsics, height, width = self.view(window)
        views = (drive.rotation, drive.translation, intrinsics.expand(len(drive), 3, 3), width, height)
        found = {}
        for name in self.active:
            color, alpha, self.metas[name] = render_head(self.branch(name, condition), *views)
            found[name] = (color, alpha)
        return found

    def head(self, drive: Drive, window: Window | None = None) -> tuple[Tensor, Tensor]:
        """Front-to-back composition of the branches; see :class:`HeadModel`."""
        return over(list(self.layers(drive, window).values()))

    def motion_groups(self, branches: tuple[str, ...], scale: float = 1.0) -> list[dict]:
        """Groups of the fields and of the audio encoder."""
        groups = [{"params": list(self.audio.parameters()), "lr": 5e-4 * scale, "name": "audio"}]
        for name in branches:
            groups += [
                {**group, "name": f"motion.{name}"}
                for group in self.fields[name].parameter_groups(5e-4 * scale, 5e-3 * scale)
            ]
        return groups

    def cloud_groups(self, branches: tuple[str, ...], scale: float = 1.0, only: tuple[str, ...] = ()) -> list[dict]:
        """Groups of the clouds' parameters at the rates of 3D Gaussian Splatting, for rig units."""
        return [
            {"params": [parameter], "lr": RATES[key] * scale, "name": f"{name}.{key}"}
            for name in branches
            for key, parameter in self.clouds[name].params.items()
            if not only or key in only
        ]

    def backdrop_groups(self, scale: float = 1.0) -> list[dict]:
        """Groups of body and background."""
        from heads.fitting import RATES as SHARED

        eps, named = self.backdrop.adam_eps, {f"backdrop.{name}": p for name, p in self.backdrop.named_parameters()}
        return [
            {"params": [parameter], "lr": _rate(SHARED, name) * scale, "eps": eps, "name": name}
            for name, parameter in named.items()
        ]


# A CPU renders this many in a few milliseconds; papers end with 20 to 60 thousand.
MOST_GAUSSIANS = 40_000
# Adam's rates per parameter of a cloud (Kerbl et al. 2023, means for scenes of this size).
RATES = {"means": 2e-3, "scales": 5e-3, "quats": 1e-3, "opacities": 5e-2, "colors": 5e-3}


def _rate(rates: dict[str, float], name: str) -> float:
    return rates[max((key for key in rates if name == key or name.startswith(key + ".")), key=len)]


def seed_cloud(context: Context, members: tuple[str, ...] | None, without: tuple[str, ...], count: int) -> tuple:
    """Points ``[N, 3]`` and colours ``[N, 3]`` on regions of the tracked rig, coloured by the frontal frame."""
    from adapt.fit.initial_maps import frame_colors
    from heads.gaussians.uv import UVGaussians

    rig = context.rig
    binding = UVGaussians(rig, 192)
    labels = [rig.regions[n] for n in (members or rig.regions) if n not in without]
    rows = torch.isin(binding.regions, torch.tensor(labels)).nonzero()[:, 0]
    chosen = np.random.default_rng(context.seed).permutation(len(rows))[:count]
    rows = rows[np.sort(chosen)]
    frame = context.frontal_frame()
    drive = context.drive().to("cpu").pick([frame])
    vertices = rig.vertices(context.identity[None], drive.expression, drive.eyelids, drive.gaze)
    points = binding.bind(vertices, binding.neutral()[None]).means[0][rows]
    return points.detach(), frame_colors(context, points.detach(), frame)


def train_static(
    fit: Any,
    model: BranchHead,
    branch: str,
    begin: float,
    until: float,
    loss: Callable,
    *,
    densify: bool,
    extra: list,
    beside: tuple[str, ...] = (),
) -> None:
    """Optimise one branch's canonical cloud without motion, densified on the way (gsplat's default strategy).

    Args:
        extra: groups that learn at the same time (the backdrop).
        beside: branches that are rendered with it and learn, but are not densified.
    """
    model.active, model.still = beside or (branch,), True
    if not densify:
        groups = extra + model.cloud_groups(model.active)
        fit.stage(f"static {branch}", begin, until, groups, loss)
        return
    densifier = _densifier(model.clouds[branch])

    def watched(rendered: Any, batch: Any) -> Tensor:
        densifier.before_backward(model.metas[branch])
        return loss(rendered, batch)

    def densified(progress: float) -> None:
        # Nothing is split or pruned at the end of the stage, so that what remains can settle; nor beyond the limit.
        if progress > 0.8 or densifier.cloud.n > MOST_GAUSSIANS:
            densifier.strategy.refine_stop_iter = 0
        densifier.after_backward(model.metas[branch])

    groups = extra + model.cloud_groups(tuple(name for name in beside if name != branch))
    fit.stage(f"static {branch}", begin, until, groups, watched, after=densified, densifier=densifier)


def _densifier(cloud: FreeGaussians) -> Densifier:
    """gsplat's default strategy on a schedule for budgets of minutes: early, often, and without opacity resets."""
    rates = {name: rate for name, rate in RATES.items() if name != "means"}
    never = 1 << 30
    return Densifier(
        cloud,
        scene_scale=1.0,
        rates={**rates, "means": RATES["means"]},
        refine_start_iter=50,
        refine_every=50,
        refine_stop_iter=never,
        reset_every=never,
        grow_grad2d=4e-4,
        verbose=False,
    )


class IncrementalSampling:
    """TalkingGaussian's incremental sampling: a window slides over the frames sorted by a motion metric.

    Fields that see extreme mouths first learn to smear; so frames come from nearly still ones up to all of them, and
    the window moves every ``every`` steps.

    Args:
        metric: ``[T]`` size of the motion (mouth opening, eye closure) per frame.
        width: share of the frames inside the window.
    """

    def __init__(self, metric: np.ndarray, rng: np.random.Generator, width: float = 0.4, every: int = 10) -> None:
        self.order, self.rng, self.width, self.every = np.argsort(metric), rng, width, every
        self._calls = 0

    def __call__(self, progress: float) -> np.ndarray:
        """One frame number; every ``every``-th draw looks at the window, the others at all frames below its top."""
        count = len(self.order)
        top = max(1, int(np.ceil(count * min(1.0, self.width + (1 - self.width) * progress * 1.25))))
        low = max(0, top - max(1, int(count * self.width)))
        self._calls += 1
        if self._calls % self.every:
            low = 0 if progress >= 0.8 else low // 2
        return self.order[self.rng.integers(low, top, 1)]
