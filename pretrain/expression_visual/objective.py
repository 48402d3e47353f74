"""Source frame to target frame of the same person, driven by the target's track, compared pixel by pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heads.gaussians.render import render_head
from heads.losses import LPIPS, d_ssim, l1, offset_penalty
from pretrain.expression_visual.config import ExpressionVisualConfig
from pretrain.expression_visual.model import VisualModel
from pretrain.expression_visual.view import POSE

CODED = 0.6  # chance that a training person's code is used: the shared part must do without it, too
GROWTH = 0.7  # log of how much larger than its texel a Gaussian may become without penalty: twice


class VisualObjective(nn.Module):
    """``forward(batch)``: predict one map a person, render all targets of the batch in one call, compare.

    L1 + D-SSIM (+ perceptual when its weights are given) on the head, agreement of the outline with the matte, and
    penalties that keep Gaussians near their texel and of its size. The background is a random colour in both images,
    so that nothing of it can be learned.

    Every training person has a code on the shared basis (:class:`heads.person.appearance.AppearanceBasis`), so that the basis
    holds what people have in common *and* that in which they differ. Codes are no part of the prior.

    Args:
        model: the prior's network.
        people: number of training people; mirrored they are others, with codes of their own.
    """

    def __init__(self, model: VisualModel, people: int) -> None:
        super().__init__()
        self.model = model
        self.codes = nn.Parameter(torch.zeros(2 * people, model.appearance_basis.rank, model.appearance_basis.size))
        # In a list: a perceptual network that is not ours must not enter the checkpoint.
        self._perceptual: list = []

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """batch: see :class:`pretrain.expression_visual.view.ReferenceView`; returns the loss and its parts."""
        config = self.model.config
        batch = vary_light(batch, config) if self.training else batch
        sources = {name: batch[f"source_{name}"].float() for name in ("image", "matte", *POSE)}
        maps = self.model(sources, batch["identity"].float(), batch["seen"].float()).float()
        code = self._codes(batch)
        # Geometry and compositing need float32: half a texel is lost in bf16.
        with torch.autocast(maps.device.type, enabled=False):
            image, alpha, target = self.render_targets(maps, batch, code)
            parts = self.losses(image, alpha, target, maps, batch)
            parts["code"] = self.codes.square().sum() / len(self.codes)
        weights = {name: getattr(config.loss, name) for name in parts}
        loss = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
        return loss, {name: value.detach() for name, value in parts.items()}

    def _codes(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Codes ``[B, K, C]`` in training, zero for some; ``None`` otherwise, since no person is known then."""
        if not self.training:
            return None
        codes = self.codes[batch["person"].long()]
        return codes * (torch.rand(len(codes), 1, 1, device=codes.device) < CODED)

    def render_targets(
        self, maps: Tensor, batch: dict[str, Tensor], code: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rendered images (B·G, S, S, 3), alphas (B·G, S, S, 1) and composited targets."""
        model, count = self.model, batch["target_image"].shape[1]
        here, there = ({name: batch[f"{side}_{name}"].float() for name in POSE} for side in ("source", "target"))
        maps = model.follow(maps, here, batch["seen"].float(), there, code).flatten(0, 1)
        pose = {name: value.flatten(0, 1) for name, value in there.items()}
        identity = batch["identity"].float().repeat_interleave(count, 0)
        gaussians = model.binding.bind(model.vertices(identity, pose), maps)
        behind = torch.rand(len(identity), 3, device=maps.device)
        size = batch["target_image"].shape[-2]
        image, alpha, _ = render_head(
            gaussians, pose["rotation"], pose["translation"], pose["intrinsics"], size, size, background=behind
        )
        matte = batch["target_matte"].float().flatten(0, 1)[..., None]
        target = batch["target_image"].float().flatten(0, 1) * matte + behind[:, None, None] * (1 - matte)
        return image, alpha, target

    def losses(
        self, image: Tensor, alpha: Tensor, target: Tensor, maps: Tensor, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parts, by the names of their weights in the config."""
        config = self.model.config.loss
        weight = batch["target_weight"].float().flatten(0, 1)
        near = (weight > 0).float()[..., None]
        matte = batch["target_matte"].float().flatten(0, 1)[..., None]
        parts = {
            "l1": l1(image, target, weight),
            "d_ssim": d_ssim(image, target, weight),
            "alpha": ((alpha - matte).abs() * near).sum() / near.sum().clamp_min(1),
            "offset": offset_penalty(maps[..., :3]),
            "scale": (maps[..., 7:10] - self.model.neutral[:, 7:10] - GROWTH).clamp_min(0).square().mean(),
        }
        if config.perceptual:
            parts["perceptual"] = self.perceptual()(image * near, target * near).mean()
        return parts

    def perceptual(self) -> nn.Module:
        """LPIPS with the weights that the config names."""
        if not self._perceptual:
            self._perceptual.append(LPIPS(*str(self.model.config.loss.lpips).split(",")).to(self.model.device))
        return self._perceptual[0]


def vary_light(batch: dict[str, Tensor], config: ExpressionVisualConfig) -> dict[str, Tensor]:
    """Another white balance and gamma for each person, the same in source and target."""
    count, device = len(batch["identity"]), batch["identity"].device
    gain = (config.augment.gain * torch.randn(count, 1, 1, 1, 3, device=device)).exp()
    gamma = (config.augment.gamma * torch.randn(count, 1, 1, 1, 1, device=device)).exp()
    changed = {
        name: (batch[name].float().clamp_min(1e-4) ** gamma * gain).clamp(0, 1)
        for name in ("source_image", "target_image")
    }
    return batch | changed
