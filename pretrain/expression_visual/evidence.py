"""Evidence of expression-visual: heads from one frame of a held-out person, compared with a texture copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads.losses import ssim
from heads.masks import region_masks
from heads.measures.image import psnr_per_image
from pretrain.expression_visual.clips import PictureClip, heads_of, render
from pretrain.expression_visual.inference import ExpressionVisualPrior
from pretrain.expression_visual.pictures import sheet
from pretrain.task import Evidence, people_means

NOTES = [
    "PSNR in dB and SSIM of the face (landmark outline) against the real frame, 'head' with hair, neck and outline over grey;",
    "copy: the source frame's texture on the person's tracked mesh. The source is the clip's most frontal frame with a closed",
    "mouth and open eyes. turned: the quarter of the frames farthest from it in head angle; open: the quarter of widest mouth;",
    "mouth: PSNR within the inner lips and around of those frames.",
]


def score(prior: ExpressionVisualPrior, clip: PictureClip) -> dict[str, object]:
    """One clip's row."""
    target = clip.image[1:] * clip.matte[1:, ..., None] + 0.5 * (1 - clip.matte[1:, ..., None])
    pose = {name: value[1:] for name, value in clip.pose.items()}
    names = ("face", "head", "hair_neck", "lips", "mouth_inside")
    drawn = region_masks(clip.landmarks[1:], prior.size, prior.size, names, matte=clip.matte[1:].numpy())
    masks = {name: torch.from_numpy(mask) for name, mask in drawn.items()}
    whole = torch.maximum(masks["head"], masks["hair_neck"])
    mouth = torch.clamp(masks["lips"] + masks["mouth_inside"], 0, 1)
    row: dict[str, Any] = {"identity": clip.identity, "clip": clip.name, "frames": len(target)}
    for name, maps in heads_of(prior, clip, pose).items():
        image = render(prior, maps, clip.person, pose)
        face = psnr_per_image(image.clamp(0, 1), target, masks["face"])
        row[f"PSNR {name}"] = face.mean().item()
        row[f"SSIM {name}"] = ssim_under(image, target, masks["face"])
        row[f"head {name}"] = psnr_per_image(image.clamp(0, 1), target, whole).mean().item()
        row[f"turned {name}"] = face[clip.turned].mean().item()
        row[f"open {name}"] = face[clip.opened].mean().item()
        row[f"mouth {name}"] = psnr_per_image(image.clamp(0, 1), target, mouth)[clip.opened].mean().item()
    row["gain"] = row["PSNR prior"] - row["PSNR copy"]
    return row


def ssim_under(image: Tensor, target: Tensor, mask: Tensor) -> float:
    """Mean SSIM under the masks."""
    return float(ssim(image.clamp(0, 1).contiguous(), target.contiguous(), mask))


def summarise(rows: list[dict[str, object]]) -> dict[str, float]:
    """Means over people, and the gains over the texture copy."""
    result = {name.lower().replace(" ", "_"): mean for name, mean in people_means(rows).items()}
    for name in ("psnr", "ssim", "head", "turned", "open", "mouth"):
        if f"{name}_prior" in result:
            result[f"gain_{name}"] = result[f"{name}_prior"] - result[f"{name}_copy"]
    return result


def collect(prior: ExpressionVisualPrior, clips: list[PictureClip]) -> Evidence:
    """Table, summary and one sheet of pictures per person."""
    rows: list[dict[str, object]] = []
    pictures: dict[str, np.ndarray] = {}
    for clip in clips:
        rows.append(score(prior, clip))
        pictures.setdefault(f"one-shot-{clip.identity}", sheet(prior, clip))
    return Evidence(rows=rows, summary=summarise(rows), pictures=pictures, notes=NOTES)
