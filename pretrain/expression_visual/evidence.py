"""Evidence of expression-visual: heads from one frame of a held-out person, compared with a texture copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from heads.losses import ssim
from heads.masks import region_masks
from heads.measures.image import psnr_per_image
from pretrain.expression_visual.clips import TARGETS, PictureClip, heads_of, render
from pretrain.expression_visual.inference import ExpressionVisualPrior
from pretrain.expression_visual.pictures import sheet
from pretrain.task import Evidence, people_means
from shards.media.rates import FPS

NOTES = [
    "PSNR in dB and SSIM of the face (landmark outline) against the real frame, 'head' with hair, neck and outline over grey;",
    "copy: the source frame's texture on the person's tracked mesh. The source is the clip's most frontal frame with a closed",
    "mouth and open eyes. turned: the quarter of the frames farthest from it in head angle; open: the quarter of widest mouth;",
    "mouth: PSNR within the inner lips and around of those frames. hair: the person without the face, down to the neck.",
]
NEEDS = f"{2 * TARGETS} frames ({2 * TARGETS / FPS:.1f} s) in one piece"


class Comparison:
    """A clip's targets over grey and the regions that are compared.

    Args:
        size: side of the frames, px.
    """

    def __init__(self, clip: PictureClip, size: int) -> None:
        image, matte = clip.image[clip.sources :], clip.matte[clip.sources :]
        self.clip, self.target = clip, image * matte[..., None] + 0.5 * (1 - matte[..., None])
        names = ("face", "head", "hair_neck", "lips", "mouth_inside")
        drawn = region_masks(clip.landmarks[clip.sources :], size, size, names, matte=matte.numpy())
        self.masks = masks = {name: torch.from_numpy(mask) for name, mask in drawn.items()}
        self.whole = torch.maximum(masks["head"], masks["hair_neck"])
        self.mouth = torch.clamp(masks["lips"] + masks["mouth_inside"], 0, 1)

    def figures(self, image: Tensor) -> dict[str, float]:
        """Means over the frames of rendered targets ``[G, S, S, 3]``."""
        shown = image.clamp(0, 1)
        face = psnr_per_image(shown, self.target, self.masks["face"])
        mouth = psnr_per_image(shown, self.target, self.mouth)
        return {
            "PSNR": face.mean().item(),
            "SSIM": ssim_under(image, self.target, self.masks["face"]),
            "head": psnr_per_image(shown, self.target, self.whole).mean().item(),
            "hair": psnr_per_image(shown, self.target, self.masks["hair_neck"]).mean().item(),
            "turned": face[self.clip.turned].mean().item(),
            "open": face[self.clip.opened].mean().item(),
            "mouth": mouth[self.clip.opened].mean().item(),
        }


def score(prior: ExpressionVisualPrior, clip: PictureClip) -> dict[str, object]:
    """One clip's row."""
    comparison, poses = Comparison(clip, prior.size), clip.poses
    row: dict[str, Any] = {"identity": clip.identity, "clip": clip.name, "frames": len(comparison.target)}
    for name, maps in heads_of(prior, clip, poses).items():
        figures = comparison.figures(render(prior, maps, clip.person, poses))
        row |= {f"{figure} {name}": value for figure, value in figures.items()}
    row["gain"] = row["PSNR prior"] - row["PSNR copy"]
    return row


def ssim_under(image: Tensor, target: Tensor, mask: Tensor) -> float:
    """Mean SSIM under the masks."""
    return float(ssim(image.clamp(0, 1).contiguous(), target.contiguous(), mask))


def summarise(rows: list[dict[str, object]]) -> dict[str, float]:
    """Means over people, and the gains over the texture copy."""
    result = {name.lower().replace(" ", "_"): mean for name, mean in people_means(rows).items()}
    for name in ("psnr", "ssim", "head", "hair", "turned", "open", "mouth"):
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
    return Evidence(rows=rows, summary=summarise(rows), pictures=pictures, notes=NOTES, needs=NEEDS)
