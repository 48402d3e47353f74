"""The objective: from source to target frames of the same person, driven by the targets' tracks, compared by pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from heads.gaussians.render import render_head
from heads.losses import LPIPS
from heads.photometric import composed, photometric
from heads.raster import threads
from heads.raster.arrays import flat
from heads.raster.kernels import comparing
from pretrain.expression_visual.config import ExpressionVisualConfig
from pretrain.expression_visual.fused.penalties import SCALES, penalties
from pretrain.expression_visual.model import VisualModel
from pretrain.expression_visual.view import POSE

CODED = 0.6  # probability that a training person's code is used; the shared part must also work without it · guess
GROWTH = 0.7  # log of the growth over its neutral size that a Gaussian is not penalised for, a factor of two · guess


class VisualObjective(nn.Module):
    """``forward(batch)``: predict one map per person, render all targets of the batch in one call, compare.

    L1 + D-SSIM (+ LPIPS if its weights are given) on the head, agreement of alpha with the matte, and penalties that keep
    Gaussians near their texel and of its size. The background is a random colour in both images, so that it cannot be
    learned.

    Every training person has a code on the shared basis (:class:`heads.person.appearance.AppearanceBasis`), so that the basis
    spans what people have in common *and* how they differ. Codes are not part of the prior.

    Args:
        model: the prior's network.
        people: number of training people; mirrored people have codes of their own.
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
        batch = lit(batch, config, vary=self.training)
        sources = {name: batch[f"source_{name}"].float() for name in ("image", "matte", *POSE)}
        maps = self.model(sources, batch["identity"].float(), batch["seen"].float()).float()
        code = self._codes(batch)
        # Geometry and compositing need float32: half a texel is lost in bf16.
        with torch.autocast(maps.device.type, enabled=False):
            head, alpha, behind = self.render_targets(maps, batch, code)
            parts = self.losses(head, alpha, behind, maps, batch)
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
        """Rendered heads ``[B * G, S, S, 3]``, premultiplied, alphas ``[B * G, S, S, 1]`` and random backgrounds ``[B * G, 3]``."""
        model, count = self.model, batch["target_image"].shape[1]
        here, there = ({name: batch[f"{side}_{name}"].float() for name in POSE} for side in ("source", "target"))
        maps = model.follow(maps, here, batch["seen"].float(), there, code).flatten(0, 1)
        pose = {name: value.flatten(0, 1) for name, value in there.items()}
        identity = batch["identity"].float().repeat_interleave(count, 0)
        gaussians = model.binding.bind(model.vertices(identity, pose), maps)
        behind = torch.rand(len(identity), 3, device=maps.device)
        size = batch["target_image"].shape[-2]
        head, alpha, _ = render_head(gaussians, pose["rotation"], pose["translation"], pose["intrinsics"], size, size)
        return head, alpha, behind

    def losses(
        self, head: Tensor, alpha: Tensor, behind: Tensor, maps: Tensor, batch: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parts of the loss, by the names of their weights in the configuration."""
        config = self.model.config.loss
        picture, matte, weight = (batch[f"target_{n}"].float().flatten(0, 1) for n in ("image", "matte", "weight"))
        parts = photometric(head, alpha, behind, picture, matte, weight)
        parts |= penalties(maps, self.model.neutral[:, SCALES] + GROWTH)
        if config.perceptual:
            near, solid = (weight > 0).float()[..., None], matte[..., None]
            images = (composed(head, alpha, behind), composed(picture * solid, solid, behind))
            parts["perceptual"] = self.perceptual()(*(image * near for image in images)).mean()
        return parts

    def perceptual(self) -> nn.Module:
        """LPIPS with the weights that the config names."""
        if not self._perceptual:
            self._perceptual.append(LPIPS(*str(self.model.config.loss.lpips).split(",")).to(self.model.device))
        return self._perceptual[0]


def lit(batch: dict[str, Tensor], config: ExpressionVisualConfig, *, vary: bool) -> dict[str, Tensor]:
    """8-bit pictures and mattes in [0, 1]; ``vary``: another white balance and gamma for each person, in all pictures.

    On the CPU the result is looked up in a table of 256 entries per channel: the same values, without a power per pixel.
    """
    count, device = len(batch["identity"]), batch["identity"].device
    gain, gamma = torch.ones(count, 1, 1, 1, 3, device=device), torch.ones(count, 1, 1, 1, 1, device=device)
    if vary:
        gain = (config.augment.gain * torch.randn(gain.shape, device=device)).exp()
        gamma = (config.augment.gamma * torch.randn(gamma.shape, device=device)).exp()

    def tone(image: Tensor) -> Tensor:
        unit = image.float() / 255
        return (unit.clamp_min(1e-4) ** gamma * gain).clamp(0, 1) if vary else unit

    def toned(image: Tensor, used: Tensor) -> Tensor:
        if device.type != "cpu":
            return tone(image)
        levels = torch.arange(256, dtype=torch.uint8)[:, None].expand(count, 1, 1, 256, 3)
        return looked_up(image, tone(levels)[:, 0, 0].transpose(1, 2), used)

    mattes = {name: batch[name].float() / 255 for name in ("source_matte", "target_matte")}
    used = {
        "source_image": batch["seen"] > 0,
        "target_image": torch.ones(batch["target_image"].shape[:2], dtype=torch.bool),
    }
    return batch | mattes | {name: toned(batch[name], shown) for name, shown in used.items()}


def looked_up(image: Tensor, tables: Tensor, used: Tensor) -> Tensor:
    """8-bit pictures ``[B, R, H, W, 3]`` through tables ``[B, 3, 256]`` of their channels; zeros where not ``used [B, R]``."""
    result = torch.empty(image.shape)
    values, out = (flat(t).reshape(*image.shape[:2], -1) for t in (image, result))
    table = flat(tables).reshape(len(tables), -1)

    def job(b: int, r: int) -> None:
        if used[b, r]:
            comparing.tone(values[b, r], table[b], values.shape[2] // 3, out[b, r])
        else:
            out[b, r] = 0

    jobs = [(b, r) for b in range(len(image)) for r in range(image.shape[1])]
    threads.run(job, jobs, threads.get_num_threads())
    return result
