"""Loading the compiled kernels of a step while the tracker works, so that the first step need not wait for them."""

from __future__ import annotations

import torch

from adapt.models.rigged import RiggedHead
from heads.adam import Adam
from heads.masks import region_masks
from heads.person.inputs import HeadInputs, head_inputs
from heads.person.talking_head import HeadConfig
from heads.pictures import picture_loss
from heads.rig import Rig
from shards.tracking.pose import intrinsics_for

SIZE, RESOLUTION = 64, 32  # px, texels: what is rendered does not matter


def load_kernels(rig: Rig, device: torch.device) -> None:
    """Take one step of a small rigged head, whose kernels are those of any size. On an accelerator there are none to load.

    Args:
        rig: of the tracks, on the CPU.
    """
    if device.type != "cpu":
        return
    intrinsics, identity = torch.from_numpy(intrinsics_for(SIZE)), torch.zeros(rig.n_identity)
    model = RiggedHead(
        SIZE, intrinsics, rig=rig, identity=identity, parts=HeadConfig(resolution=RESOLUTION), residual=False
    )
    optimizer = Adam([{"params": list(model.parameters()), "lr": 0.0}])
    inputs = _facing(rig)
    for window in (None, (0, 0, SIZE // 2, SIZE // 2)):
        image = model(inputs, window).image
        real = torch.full_like(image, 0.5)
        (picture_loss(image, real, torch.ones_like(real[..., :1]), 0.2) + model.penalty(1.0, 1.0)).backward()
        optimizer.step()
    region_masks(rig.landmarks(rig.mean)[None].numpy() * SIZE, SIZE, SIZE, levels=255)


def _facing(rig: Rig) -> HeadInputs:
    """A head at rest, ten units in front of the camera."""
    track = {
        "rotation": torch.eye(3)[None],
        "translation": torch.tensor([[0.0, 0.0, 10.0]]),
        "expression": torch.zeros(1, rig.n_expression),
        "eyelids": torch.zeros(1, 2),
        "gaze": torch.zeros(1, 2, 2),
    }
    return head_inputs(track)
