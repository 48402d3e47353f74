"""Held-out clips with a source frame and targets, and the heads made from them, for evidence and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from heads.gaussians.render import render_head
from heads.geometry.rotation import angles_to_frontal, relative_angles
from heads.measures.face import lip_motion
from pretrain.data.rigs import recorded_rig
from pretrain.data.sequences import Sequence, sequences
from pretrain.expression_visual.baseline import texture_copy
from pretrain.expression_visual.inference import ExpressionVisualPrior
from pretrain.expression_visual.view import POSE
from shards.read.dataset import Dataset

TARGETS = 24  # frames of a clip that are compared
FAR = 0.25  # share of the targets that counts as far from the source, in head angle or mouth opening


@dataclass(frozen=True)
class PictureClip:
    """A held-out clip: R source frames, then G targets, at the prior's size; arrays are ``[R + G, ...]``.

    Attributes:
        person: ``[1, K_id]``.
        turned, opened: ``[G]`` whether a target is far from the first source in head angle or in mouth opening.
        sources: R.
    """

    identity: str
    name: str
    image: Tensor
    matte: Tensor
    landmarks: np.ndarray
    pose: dict[str, Tensor]
    person: Tensor
    turned: np.ndarray
    opened: np.ndarray
    sources: int = 1

    @property
    def poses(self) -> dict[str, Tensor]:
        """Pose fields ``[G, ...]`` of the targets."""
        return {name: value[self.sources :] for name, value in self.pose.items()}


def load_clips(dataset: Dataset, size: int, targets: int = TARGETS, per_person: int = 2) -> list[PictureClip]:
    """The held-out clips, at most ``per_person`` runs of each identity."""
    clips: list[PictureClip] = []
    count: dict[str, int] = {}
    for run in sequences(dataset, None):
        if len(run) >= 2 * targets and count.get(run.identity, 0) < per_person:
            count[run.identity] = count.get(run.identity, 0) + 1
            clips.append(load_clip(dataset, run, size, targets))
    return clips


def load_clip(dataset: Dataset, run: Sequence, size: int, targets: int) -> PictureClip:
    """Choose the source and evenly spaced targets of a run and read their frames."""
    opening = opening_of(dataset, run)
    angle = angles_to_frontal(run.track["rotation"])
    mouth = 1.5 * (opening - opening.min()) / max(opening.std(), 1e-6)
    lids = 10 * np.clip(run.track["eyelids"].max(1) - 0.2, 0, None)
    source = int(np.argmin(angle / max(angle.std(), 1e-3) + mouth + lids))
    others = np.unique(np.linspace(0, len(run) - 1, targets).round().astype(int))
    return picture_clip(dataset, run, size, np.array([source]), others[others != source], opening)


def opening_of(dataset: Dataset, run: Sequence) -> np.ndarray:
    """Mouth opening ``[T]`` of a run, see :func:`heads.measures.face.lip_motion`."""
    rig = recorded_rig(dataset.rig, f"dataset {dataset.url}")
    return lip_motion(rig, run.track["identity"], run.track["expression"]).opening


def picture_clip(
    dataset: Dataset, run: Sequence, size: int, sources: np.ndarray, targets: np.ndarray, opening: np.ndarray
) -> PictureClip:
    """The frames ``sources`` and ``targets`` of a run; what is far is measured from the first source."""
    track, rows = run.track, np.concatenate([sources, targets])
    image, matte, scale = read_pictures(dataset, run, rows, size)
    intrinsics = track["intrinsics"] * np.array([[scale[0]], [scale[1]], [1]], np.float32)
    pose = {n: torch.tensor(track[n][rows]) for n in POSE if n != "intrinsics"}
    pose["intrinsics"] = torch.tensor(intrinsics)[None].expand(len(rows), -1, -1)
    away = relative_angles(track["rotation"][targets], track["rotation"][sources[0]])
    return PictureClip(
        identity=run.identity,
        name=run.clip,
        image=image,
        matte=matte,
        landmarks=track["landmarks"][rows] * np.array([*scale, scale[0]], np.float32),
        pose=pose,
        person=torch.tensor(track["identity"])[None],
        turned=away >= np.quantile(away, 1 - FAR),
        opened=opening[targets] >= np.quantile(opening[targets], 1 - FAR),
        sources=len(sources),
    )


def read_pictures(
    dataset: Dataset, run: Sequence, rows: np.ndarray, size: int
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Frames ``[n, S, S, 3]``, mattes ``[n, S, S]`` in [0, 1], and the factors on x and y from stored to read pixels."""
    starts = np.cumsum([0, *(length for _, length in run.keys)])
    images, mattes, scale = [], [], (1.0, 1.0)
    for row in rows:
        part = int(np.searchsorted(starts, row, side="right")) - 1
        sample, index = dataset.read(run.keys[part][0]), int(row - starts[part])
        scale = (size / sample.size[0], size / sample.size[1])
        images.append(_resize(sample.frames([index], size)[0], size))
        mattes.append(_resize(sample.matte(index), size))
    return torch.stack(images), torch.stack(mattes), scale


def _resize(picture: np.ndarray, size: int) -> Tensor:
    from PIL import Image

    shrunk = Image.fromarray(picture).resize((size, size), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(shrunk, np.float32) / 255)


@torch.no_grad()
def render(
    prior: ExpressionVisualPrior, maps: Tensor, person: Tensor, pose: dict[str, Tensor], grey: float = 0.5
) -> Tensor:
    """Images ``[T, S, S, 3]`` of one map ``[N, 14]``, or one per pose ``[T, N, 14]``, under T poses, over grey."""
    model, frames, device = prior.model, len(pose["rotation"]), prior.model.device
    pose = {name: value.to(device) for name, value in pose.items()}
    vertices = model.vertices(person.to(device).expand(frames, -1), pose)
    gaussians = prior.binding.bind(vertices, maps.expand(frames, -1, -1))
    behind = torch.full((frames, 3), grey, device=device)
    camera = (pose["rotation"], pose["translation"], pose["intrinsics"])
    return render_head(gaussians, *camera, prior.size, prior.size, background=behind)[0].cpu()


@torch.no_grad()
def predicted(prior: ExpressionVisualPrior, clip: PictureClip, poses: dict[str, Tensor]) -> Tensor:
    """The prior's maps ``[T, N, 14]`` from the clip's source frames, for T poses."""
    count, device = clip.sources, prior.model.device
    pose = {name: value[:count] for name, value in clip.pose.items()}
    tracks = {name: value.numpy() for name, value in pose.items()} | {
        "intrinsics": pose["intrinsics"][0].numpy(),
        "identity": clip.person[0].numpy(),
    }
    here, there = ({name: value[None].to(device) for name, value in part.items()} for part in (pose, poses))
    maps = prior.predict(clip.image[:count], clip.matte[:count], tracks)
    return prior.model.follow(maps[None], here, torch.ones(1, count, device=device), there)[0]


@torch.no_grad()
def copied(prior: ExpressionVisualPrior, clip: PictureClip) -> Tensor:
    """The baseline's map ``[N, 14]`` from the clip's source frames."""
    count, device = clip.sources, prior.model.device
    pose = {name: value[:count].to(device) for name, value in clip.pose.items()}
    given = (clip.image[:count].to(device), clip.matte[:count].to(device), clip.person.to(device))
    return texture_copy(prior.model, *given, pose)


def heads_of(prior: ExpressionVisualPrior, clip: PictureClip, poses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Maps from the clip's source frames: the prior's ``[T, N, 14]`` for T poses, and the baseline's ``[N, 14]``."""
    return {"prior": predicted(prior, clip, poses), "copy": copied(prior, clip)}
