"""One frame of an unseen person: the prior's head against that frame's texture on the person's tracked mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads.measures.face import lip_motion
from pretrain.data.sequences import Sequence, sequences
from pretrain.expression_visual.baseline import texture_copy
from pretrain.expression_visual.prior import ExpressionVisualPrior
from pretrain.expression_visual.view import POSE
from pretrain.task import Evidence, people_means

TARGETS = 24  # frames of a clip that are compared
FAR = 0.25  # share of them that counts as far from the source, in head angle or in mouth opening
NOTES = [
    "PSNR in dB and SSIM of the face (landmark outline) against the real frame, 'head' with hair, neck and outline over grey;",
    "copy: the source frame's texture on the person's tracked mesh. The source is the clip's most frontal frame with a closed",
    "mouth and open eyes. turned: the quarter of the frames farthest from it in head angle; open: the quarter of widest mouth;",
    "mouth: PSNR within the inner lips and around of those frames.",
]


@dataclass(frozen=True)
class Clip:
    """A held-out clip: source first, then targets, at the prior's size; ``pose`` fields alike. Everything (1 + G, ...)."""

    identity: str
    name: str
    image: Tensor
    matte: Tensor
    landmarks: np.ndarray
    pose: dict[str, Tensor]
    person: Tensor
    turned: np.ndarray
    opened: np.ndarray


def load_clips(dataset: Any, size: int, targets: int = TARGETS, per_person: int = 2) -> list[Clip]:
    """The held-out clips, at most ``per_person`` runs of each identity."""
    clips, count = [], {}
    for run in sequences(dataset, None):
        if len(run) >= 2 * targets and count.get(run.identity, 0) < per_person:
            count[run.identity] = count.get(run.identity, 0) + 1
            clips.append(load_clip(dataset, run, size, targets))
    return clips


def load_clip(dataset: Any, run: Sequence, size: int, targets: int) -> Clip:
    """Choose the source and evenly spaced targets of a run and read their frames."""
    from heads.measures.face import default_rig

    track = run.track
    opening = lip_motion(default_rig(), track["identity"], track["expression"]).opening
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
    return Clip(
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


def angles_to_frontal(rotation: np.ndarray) -> np.ndarray:
    """Angle (T,) in radians between head and camera axes."""
    return np.arccos(np.clip(rotation[:, 2, 2], -1, 1))


def relative_angles(rotation: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Angle (T,) in radians of each rotation (T, 3, 3) from one of them (3, 3)."""
    trace = np.einsum("tij,ij->t", rotation, reference)
    return np.arccos(np.clip((trace - 1) / 2, -1, 1))


def read_pictures(
    dataset: Any, run: Sequence, rows: np.ndarray, size: int
) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Frames (n, S, S, 3), mattes (n, S, S) in [0, 1], and the factors of x and y from stored to read pixels."""
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
    """One map (N, 14), or one a pose (T, N, 14), under T poses: images (T, S, S, 3) over a grey background."""
    from heads.gaussians.render import render_head

    model, frames, device = prior.model, len(pose["rotation"]), prior.model.device
    pose = {name: value.to(device) for name, value in pose.items()}
    vertices = model.vertices(person.to(device).expand(frames, -1), pose)
    gaussians = prior.binding.bind(vertices, maps.expand(frames, -1, -1))
    behind = torch.full((frames, 3), grey, device=device)
    camera = (pose["rotation"], pose["translation"], pose["intrinsics"])
    return render_head(gaussians, *camera, prior.size, prior.size, background=behind)[0].cpu()


@torch.no_grad()
def heads_of(prior: ExpressionVisualPrior, clip: Clip, poses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Maps from the clip's source frame: the prior's (T, N, 14) under T poses, and the copy's (N, 14)."""
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


def score(prior: ExpressionVisualPrior, clip: Clip) -> dict[str, Any]:
    """One clip's row."""
    from heads.masks import region_masks

    target = clip.image[1:] * clip.matte[1:, ..., None] + 0.5 * (1 - clip.matte[1:, ..., None])
    pose = {name: value[1:] for name, value in clip.pose.items()}
    names = ("face", "head", "hair_neck", "lips", "mouth_inside")
    masks = region_masks(clip.landmarks[1:], prior.size, prior.size, names, matte=clip.matte[1:].numpy())
    masks = {name: torch.from_numpy(mask) for name, mask in masks.items()}
    whole = torch.maximum(masks["head"], masks["hair_neck"])
    mouth = torch.clamp(masks["lips"] + masks["mouth_inside"], 0, 1)
    row: dict[str, Any] = {"identity": clip.identity, "clip": clip.name, "frames": len(target)}
    for name, maps in heads_of(prior, clip, pose).items():
        image = render(prior, maps, clip.person, pose)
        face = psnr(image, target, masks["face"])
        row[f"PSNR {name}"] = face.mean().item()
        row[f"SSIM {name}"] = ssim_under(image, target, masks["face"])
        row[f"head {name}"] = psnr(image, target, whole).mean().item()
        row[f"turned {name}"] = face[clip.turned].mean().item()
        row[f"open {name}"] = face[clip.opened].mean().item()
        row[f"mouth {name}"] = psnr(image, target, mouth)[clip.opened].mean().item()
    row["gain"] = row["PSNR prior"] - row["PSNR copy"]
    return row


def psnr(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """PSNR in dB of each of (T, H, W, 3) under masks (T, H, W): (T,)."""
    weight = mask[..., None]
    error = ((image.clamp(0, 1) - target) ** 2 * weight).sum((1, 2, 3)) / (3 * weight.sum((1, 2, 3))).clamp_min(1e-6)
    return -10 * torch.log10(error.clamp_min(1e-8))


def ssim_under(image: Tensor, target: Tensor, mask: Tensor) -> float:
    """Mean SSIM under the masks."""
    from heads.losses import ssim

    return float(ssim(image.clamp(0, 1).contiguous(), target.contiguous(), mask))


def summarise(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over people, and the gains over the copy."""
    result = {name.lower().replace(" ", "_"): mean for name, mean in people_means(rows).items()}
    for name in ("psnr", "ssim", "head", "turned", "open", "mouth"):
        if f"{name}_prior" in result:
            result[f"gain_{name}"] = result[f"{name}_prior"] - result[f"{name}_copy"]
    return result


def collect(prior: ExpressionVisualPrior, clips: list[Clip]) -> Evidence:
    """Table, summary and one sheet of pictures a person."""
    from pretrain.expression_visual.pictures import sheet

    rows, pictures = [], {}
    for clip in clips:
        rows.append(score(prior, clip))
        pictures.setdefault(f"one-shot-{clip.identity}", sheet(prior, clip))
    return Evidence(rows=rows, summary=summarise(rows), pictures=pictures, notes=NOTES)
