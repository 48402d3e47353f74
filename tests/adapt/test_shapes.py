"""Public tensor functions of adaptation have the shapes that their docstrings promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt.clip import Batch
from adapt.drivers.base import drive
from adapt.drivers.personal_voice import calibration, lip_weights
from adapt.drivers.ridge import RidgeDriver
from adapt.fit.losses import head_target, pixel_weights
from adapt.models.action_units import upper_units
from adapt.models.base import HeadModel, Rendered, feather, over_original
from adapt.models.inpainting import Inpainting
from heads.person.inputs import HeadInputs
from heads.rig import load_rig
from tests.support.shapes import checked

MASK = (torch.rand(2, 16, 16, 1) > 0.5).float()
IMAGE = torch.rand(2, 16, 16, 3)
RENDERED = Rendered(IMAGE * MASK, MASK, IMAGE, IMAGE)
BATCH = Batch(torch.arange(2), IMAGE, MASK, {"sure_head": MASK, "lips": MASK}, {})
ROWS, TRACKED = np.random.default_rng(0).random((80, 6)), np.random.default_rng(1).random((80, 4))


def inputs() -> HeadInputs:
    rows = torch.eye(3).expand(2, 3, 3)
    zeros = torch.zeros
    return HeadInputs(
        rotation=rows, translation=zeros(2, 3), expression=zeros(2, 32), eyelids=zeros(2, 2), gaze=zeros(2, 2, 2),
        vectors=zeros(2, 44), features=None,
    )  # fmt: skip


CASES = {
    "pixel_weights": lambda: checked(pixel_weights)(BATCH, {"lips": 2.0}),
    "head_target": lambda: checked(head_target)(BATCH),
    "feather": lambda: checked(feather)(MASK, 2),
    "over_original": lambda: checked(over_original)(RENDERED, IMAGE, MASK),
    "HeadModel.view": lambda: checked(HeadModel(16, torch.eye(3)).view)((2, 2, 8, 8)),
    "Inpainting": lambda: checked(Inpainting(4, 1).forward)(RENDERED, IMAGE, MASK),
    "upper_units": lambda: checked(upper_units)(load_rig(), torch.zeros(load_rig().n_identity), inputs()),
    "RidgeDriver.fit": lambda: checked(RidgeDriver.fit)(ROWS, TRACKED),
    "drive": lambda: checked(drive)(RidgeDriver.fit(ROWS, TRACKED), ROWS),
    "calibration": lambda: checked(calibration)(TRACKED, TRACKED, np.ones(4)),
    "lip_weights": lambda: checked(lip_weights)(load_rig(), load_rig().n_expression),
}


@pytest.mark.parametrize("name", CASES)
def test_a_call_has_the_shapes_that_the_docstring_promises(name):
    CASES[name]()
