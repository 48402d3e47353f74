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
    """A held-out clip: the source frame, then G targets, at the prior's size; arrays are ``[1 + G, ...]``."""

    identity: str
    name: str
    image: Tensor
    matte: Tensor
    landmarks: np.ndarray
    pose: dict[str, Tensor]
    person: Tensor
    turned: np.ndarray
    opened: np.ndarray


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
    track = run.track
    rig = recorded_rig(dataset.rig, f"dataset {dataset.url}")
    opening = lip_motion(rig, track["identity"], track["expression"]).opening
    angle = angles_to_frontal(track["rotation"])
    mouth = 1.5 * (opening - opening.min()) / max(opening.std(), 1e-6)
    lids = 10 * np.clip(track["eyelids"].max(1) - 0.2, 0, None)
    source = int(np.argmin(angle / max(angle.std(), 1e-3) + mouth + lids))
    others = np.unique(np.linspace(0, len(run) - 1, targets).round().astype(int))
    rows = np.concatenate([[source], others[others != source]])
    image, matte, scale = read_pictures(dataset, run, rows, size)
    intrinsics = track["intrinsics"] * np.array([[scale[0]], [scale[1]], [1]], np.float32)
    pose = {n: torch.tensor(track[n][rows]) for n in POSE if n != "intrinsics"}
    pose["intrinsics"] = torch.tensor(intrinsics)[None].expand(len(rows), -1, -1)
    away = relative_angles(track["rotation"][rows[1:]], track["rotation"][source])
    return PictureClip(
        identity=run.identity,
        name=run.clip,
        image=image,
        matte=matte,
        landmarks=track["landmarks"][rows] * np.array([*scale, scale[0]], np.float32),
        pose=pose,
        person=torch.tensor(track["identity"])[None],
        turned=away >= np.quantile(away, 1 - FAR),
        opened=opening[rows[1:]] >= np.quantile(opening[rows[1:]], 1 - FAR),
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
def heads_of(prior: ExpressionVisualPrior, clip: PictureClip, poses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Maps from the clip's source frame: the prior's ``[T, N, 14]`` for T poses, and the baseline's ``[N, 14]``."""
    source = {name: value[:1] for name, value in clip.pose.items()}
    device = prior.model.device
    first = (clip.image[:1].to(device), clip.matte[:1].to(device), clip.person.to(device))
    pose = {name: value.to(device) for name, value in source.items()}
    tracks = {name: value[0].numpy() for name, value in source.items()} | {"identity": clip.person[0].numpy()}
    there = {name: value[None].to(device) for name, value in poses.items()}
    here, seen = {name: value[None] for name, value in pose.items()}, torch.ones(1, 1, device=device)
    return {
        "prior": prior.model.follow(prior.predict(clip.image[0], clip.matte[0], tracks)[None], here, seen, there)[0],
        "copy": texture_copy(prior.model, *first, pose)[0],
    }
