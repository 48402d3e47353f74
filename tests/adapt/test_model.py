"""Composition of a rendered head over a real frame: the soft rim of its region."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from adapt.models.base import HeadModel, feather
from heads.adam import Adam
from heads.person.backdrop import Backdrop
from heads.person.inputs import POSE, HeadInputs


def pooled(mask: torch.Tensor, radius: int) -> torch.Tensor:
    """The same by plain pooling."""
    flat, side = mask.permute(0, 3, 1, 2), 2 * radius + 1
    grown = functional.max_pool2d(flat, side, 1, radius)
    soft = functional.avg_pool2d(grown, side, 1, radius, count_include_pad=False)
    return torch.maximum(soft, flat).permute(0, 2, 3, 1)


@pytest.mark.parametrize("radius", [1, 2, 4, 7])
def test_a_feathered_mask_is_what_pooling_makes_of_it(radius):
    generator = torch.Generator().manual_seed(radius)
    mask = torch.rand(2, 37, 50, 1, generator=generator) * (torch.rand(2, 37, 50, 1, generator=generator) > 0.99)
    mask[0, 10:20, 0:9] = 1.0
    assert torch.allclose(feather(mask, radius), pooled(mask, radius), atol=1e-6)


def test_beyond_the_rim_a_feathered_mask_is_exactly_zero_and_inside_exactly_one():
    mask = torch.zeros(1, 64, 64, 1)
    mask[:, 20:40, 20:40] = 1.0
    soft = feather(mask, 4)[0, :, :, 0]
    assert (soft[20:40, 20:40] == 1).all()
    assert (soft[:12] == 0).all()
    assert (soft[:, 48:] == 0).all()
    assert 0 < soft[30, 45] < 1


class Headless(HeadModel):
    """Nothing in front of a body that follows the pose."""

    def __init__(self) -> None:
        super().__init__(32, torch.eye(3))
        self.backdrop = Backdrop(32, 32, 3 * POSE)
        torch.nn.init.normal_(self.backdrop.bend.weight, std=0.02)
        torch.nn.init.normal_(self.backdrop.body_alpha)
        for colors in (self.backdrop.body, self.backdrop.background):
            torch.nn.init.uniform_(colors)

    def head(self, drive, window=None, shrink=1):
        height, width = window[2:] if window else (self.size // shrink,) * 2
        return torch.zeros(len(drive), height, width, 3), torch.zeros(len(drive), height, width, 1)


@pytest.mark.parametrize("shrink", [1, 2])
def test_a_window_shows_that_part_of_the_frame_and_teaches_the_body_nothing(shrink):
    torch.manual_seed(0)
    model, zero = Headless(), torch.zeros(2, 1)
    drive = HeadInputs(zero, zero, zero, zero, zero, torch.randn(2, 3 * (POSE + 4)))
    whole, part = model(drive, None, shrink), model(drive, (3, 5, 8, 6), shrink)
    torch.testing.assert_close(part.image, whole.image[:, 3:11, 5:11])
    assert whole.image.requires_grad
    assert not part.image.requires_grad
    optimizer = Adam([{"params": [model.backdrop.body], "lr": 0.1}])
    whole.image.sum().backward()
    optimizer.step()
    whole, part = model(drive, None, shrink), model(drive, (3, 5, 8, 6), shrink)
    torch.testing.assert_close(part.image, whole.image[:, 3:11, 5:11].clamp(0, 1))


def test_the_body_starts_anew_when_a_clip_has_grown_since_and_only_then(monkeypatch):
    from types import SimpleNamespace

    from adapt.fit.context import Context

    begun = []
    context = Context(list(range(100)), None, 100, None, None, torch.device("cpu"), pictured=25)
    monkeypatch.setattr(Context, "inputs", lambda self: SimpleNamespace(vectors=torch.zeros(3, 54)))
    monkeypatch.setattr(Context, "start_backdrop", lambda self, backdrop: begun.append(backdrop))
    backdrop = SimpleNamespace(calibrate=lambda conditions: begun.append(conditions.shape))
    model = SimpleNamespace(backdrop=backdrop)
    context.complete_backdrop(model)
    assert begun == [(3, 18), backdrop]
    context.pictured = 90
    context.complete_backdrop(model)
    assert len(begun) == 2
