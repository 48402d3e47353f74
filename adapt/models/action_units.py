"""Upper-face action units from the rig's geometry, in place of those that TalkingGaussian takes from OpenFace."""

from __future__ import annotations

import torch
from torch import Tensor

from heads.person.inputs import HeadInputs
from heads.rig import Rig
from heads.rig.facemesh import UPPER_UNITS

# AU1, AU2, AU4, AU5, AU6, AU9 and the blink AU45, last as heads.motion.fields wants it.
N_UNITS = len(UPPER_UNITS) + 1
# Percent of the eye distance that one unit stands for: units then spread over about 1 in a clip, as OpenFace's do.
SCALE = 1.0


def upper_units(rig: Rig, identity: Tensor, inputs: HeadInputs) -> Tensor:
    """``[B, 7]``: change of six distances of the upper face against the person's neutral face, and the blink.

    Args:
        identity: ``[K_id]``.
    """
    count = len(inputs)
    neutral = torch.zeros_like(inputs.expression[:1])
    expressions = torch.cat([neutral, inputs.expression])
    # Only the blink unit describes the lids, so distances are those of open eyes.
    vertices = rig.vertices(identity[None].expand(count + 1, -1), expressions)
    units = [
        torch.stack([(vertices[:, a] - vertices[:, b]).norm(dim=-1) for a, b in pairs]).sum(0) / len(pairs)
        for pairs in UPPER_UNITS.values()
    ]
    lengths = torch.stack(units, 1) * (100.0 / SCALE)
    return torch.cat([lengths[1:] - lengths[:1], inputs.eyelids.mean(1, keepdim=True)], 1)
