"""Body inpainter: puts a rendered head into a frame and repairs the ring around it (neck, hair edge, revealed background).

A small U-Net sees the rendered head and the frame with the dilated head region removed. It changes that region only:
everywhere else the frame's own pixels are kept bit for bit. Source: GGTalker (2025), section 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from configs.devices import constant


def fill_hole(image: Tensor, hole: Tensor) -> Tensor:
    """Smooth completion of ``image [B, C, H, W]`` where ``hole [B, 1, H, W]`` is one, by a pull-push pyramid.

    Where the hole covers the whole image, the result is mid-grey.
    """
    weight = 1 - hole
    known = image * weight
    if min(image.shape[-2:]) < 2:
        return torch.where(weight > 1e-4, known / weight.clamp_min(1e-4), torch.full_like(image, 0.5))
    size = image.shape[-2:]
    coarse_weight = F.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    coarse = F.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False) / coarse_weight.clamp_min(1e-4)
    below = fill_hole(coarse, (coarse_weight < 1e-3).to(hole.dtype))
    below = F.interpolate(below, size=size, mode="bilinear", align_corners=False)
    return known + hole * below


class _Block(nn.Sequential):
    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(
            nn.Conv2d(n_in, n_out, 3, padding=1), nn.SiLU(), nn.Conv2d(n_out, n_out, 3, padding=1), nn.SiLU()
        )


class BodyInpainter(nn.Module):
    """U-Net from (rendered head, frame without its head region) to the final frame.

    At initialisation it is the plain composition, the head over the hole filled from its rim; the network adds a correction
    that starts at zero.

    Args:
        width: channels of the finest level (each coarser one doubles them).
        depth: number of halvings.
    """

    def __init__(self, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        self.depth = depth
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(_Block(8 if i == 0 else widths[i - 1], widths[i]) for i in range(depth + 1))
        self.up = nn.ModuleList(_Block(widths[i] + widths[i + 1], widths[i]) for i in range(depth))
        self.last = nn.Conv2d(width, 3, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, head: Tensor, alpha: Tensor, frame: Tensor, region: Tensor) -> Tensor:
        """Final frames ``[B, H, W, 3]``.

        Args:
            head: ``[B, H, W, 3]`` rendered colour, premultiplied by its alpha, in [0, 1].
            alpha: ``[B, H, W, 1]`` coverage of the head.
            frame: ``[B, H, W, 3]`` the real frame; where ``region`` is one its pixels are not used.
            region: ``[B, H, W]`` or ``[B, H, W, 1]`` dilated head region in [0, 1]; the result differs from ``frame``
                only where it is above zero, and blends in where it is between zero and one.
        """
        region = region if region.dim() == 4 else region[..., None]
        if not head.shape == frame.shape or alpha.shape != region.shape or frame.shape[:3] != region.shape[:3]:
            raise ValueError(
                "inpainter: expected head and frame [B, H, W, 3] with alpha and region [B, H, W, 1], got "
                f"{tuple(head.shape)}, {tuple(frame.shape)}, {tuple(alpha.shape)}, {tuple(region.shape)}"
            )
        h, a, f, m = (x.permute(0, 3, 1, 2) for x in (head, alpha, frame, region))
        filled = fill_hole(torch.where(m > 0, torch.zeros_like(f), f), (m > 0).to(f.dtype))
        plain = h + (1 - a) * filled
        fixed = plain + self._unet(torch.cat([h, a, filled, m], dim=1))
        blended = torch.where(m >= 1, fixed, m * fixed + (1 - m) * f)
        return torch.where(m > 0, blended, f).permute(0, 2, 3, 1)

    def correction(self, composed: Tensor) -> Tensor:
        """What the network adds to pictures ``[B, H, W, 3]`` that are composed already.

        Equals ``forward`` with alpha and region one everywhere, minus the pictures.
        """
        b, height, width = composed.shape[:3]
        known = constant((1.0, 0.5, 0.5, 0.5, 1.0), composed)[:, None, None].expand(b, 5, height, width)
        return self._unet(torch.cat([composed.permute(0, 3, 1, 2), known], dim=1)).permute(0, 2, 3, 1)

    def _unet(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        unit = 2**self.depth
        x = F.pad(x, (0, -width % unit, 0, -height % unit), mode="replicate")
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(self.depth)):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.up[level](torch.cat([skips[level], x], dim=1))
        return self.last(x)[..., :height, :width]
