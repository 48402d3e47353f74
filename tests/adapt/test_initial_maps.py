"""The maps that heads start from."""

from __future__ import annotations

import pytest
import torch

from adapt.fit.initial_maps import LEAST_SEEN, filled_by_region, with_faded_neck
from adapt.models.rigged import RiggedHead
from heads.gaussians.neck import EARLIER_FADE
from heads.person.talking_head import HeadConfig
from heads.rig import facemesh, load_rig


def test_the_neck_fades_behind_the_jaw_and_nothing_else_does():
    rig = load_rig("mediapipe")
    model = RiggedHead(
        32, torch.eye(3), rig=rig, identity=torch.zeros(rig.n_identity), parts=HeadConfig(resolution=64), residual=False
    )
    assert model.shape()["neck"] is None
    maps = model.talking.maps().detach()
    faded = with_faded_neck(model, maps)
    uv = model.talking.uv
    below = (rig.mean[rig.faces.long()[uv.triangles]] * uv.barycentric[..., None]).sum(1)[:, 1]
    below = below - rig.landmarks(rig.mean)[facemesh.CHIN, 1]  # rig units; the neck ends 1.1 below the chin
    neck = uv.regions == rig.regions["neck"]
    opacity = faded[:, 13].sigmoid()
    assert (faded[~neck] == maps[~neck]).all()
    assert (faded[:, :13] == maps[:, :13]).all()
    assert (opacity[neck & (below < -0.8)] > 0.89).all()
    assert (opacity[neck & (below > -0.25)] < 0.01).all()
    between = opacity[neck & (below > -0.7) & (below < -0.4)]
    assert 0.01 < between.min() < between.max() < 0.9
    assert (with_faded_neck(model, faded) == faded).all()


@pytest.mark.parametrize(
    ("shape", "neck"),
    [
        ({}, None),
        ({"short_neck": False}, None),
        ({"short_neck": True}, EARLIER_FADE),
        ({"neck": None}, None),
        ({"neck": [-0.7, -0.25]}, (-0.7, -0.25)),
    ],
)
def test_an_avatar_opens_with_the_neck_that_it_was_saved_with(shape, neck):
    rig, parts = load_rig("mediapipe"), HeadConfig(resolution=32, neck=neck)
    saved = RiggedHead(
        32, torch.eye(3), rig=rig, identity=torch.zeros(rig.n_identity), parts=parts, residual=False
    ).state_dict()
    opened = RiggedHead.empty(HeadConfig(), False, {"model": {"resolution": 32, **shape}, "size": 32}, saved, rig)
    opened.load_state_dict(saved)
    assert opened.talking.config.neck == neck


def test_what_was_not_seen_gets_the_middle_colour_of_its_region():
    regions = torch.tensor([0] * 10 + [1] * 10 + [2] * 3)
    known = torch.ones(23, dtype=torch.bool)
    known[[0, 10, 20]] = False
    colors = torch.rand(23, 3, generator=torch.Generator().manual_seed(0))
    colors[1:9], colors[9] = 0.2, 0.9  # hair, and a highlight in it
    filled = filled_by_region(colors, known, regions)
    assert torch.equal(filled[known], colors[known])
    assert torch.equal(filled[0], torch.full((3,), 0.2))
    assert torch.equal(filled[10], colors[11:20].median(0).values)
    assert LEAST_SEEN > 2
    assert torch.equal(filled[20], colors[20])  # two texels of its region do not tell
