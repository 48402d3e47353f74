"""Heads of branches: what is trained together with what, what a step shows, and the losses of the branches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt.clip import Batch, track_clip
from adapt.fit.clouds import calibrate_branches
from adapt.fit.context import Context
from adapt.fit.groups import correction_groups, field_and_audio_groups
from adapt.fit.losses import face_branch_loss
from adapt.models.base import Rendered
from adapt.models.branches import BranchHead
from adapt.priors import Priors
from adapt.recipes import recipe
from heads.person.inputs import AUDIO_CONTEXT, HeadInputs
from heads.rig import load_rig
from tests.support.avatars import SIZE

CHANGES = ["face_points=300", "mouth_points=60"]


@pytest.fixture(scope="module")
def context(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        with track_clip(world.video, size=SIZE) as clip:
            config = recipe("talkinggaussian").config(changes=CHANGES)
            yield Context(clip, load_rig(), len(clip), config, Priors(), torch.device("cpu"))


@pytest.fixture
def model(context) -> BranchHead:
    """With motion that is not zero."""
    torch.manual_seed(0)
    head = recipe("talkinggaussian").build(context)
    for field in head.fields.values():
        torch.nn.init.normal_(field.decide[-1].weight, std=0.05)
    head.still = False
    return head


@pytest.fixture
def inputs(context) -> HeadInputs:
    torch.manual_seed(1)
    sound = torch.randn(1, 2 * AUDIO_CONTEXT + 1, context.clip.feature.size)
    return context.inputs().pick(np.array([5])).with_(features=sound)


def placed(model: BranchHead, branch: str, inputs: HeadInputs) -> torch.Tensor:
    with torch.no_grad():
        return model.branch(branch, model.conditions(inputs, [branch])[branch]).means.clone()


def test_training_the_mouth_leaves_the_motion_of_the_finished_face_alone(model, context, inputs):
    face, mouth = (placed(model, name, inputs) for name in ("face", "mouth"))
    for group in field_and_audio_groups(model, ["mouth"], context.config.motion):
        for parameter in group["params"]:
            parameter.data.add_(0.01)
    assert torch.equal(placed(model, "face", inputs), face)
    assert not torch.equal(placed(model, "mouth", inputs), mouth)


def test_frozen_branches_look_the_same_and_only_colours_and_opacities_learn(model, inputs):
    pictures, learned = [], []
    for model.frozen in (False, True):
        model.zero_grad()
        color, _ = model.head(inputs)
        color.sum().backward()
        pictures.append(color.detach())
        learned.append({name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0})
    torch.testing.assert_close(pictures[0], pictures[1])
    clouds = {f"clouds.{name}.params.{part}" for name in model.clouds for part in ("colors", "opacities")}
    assert learned[1] == clouds < learned[0]


def test_steps_show_the_active_branch_and_pictures_all_of_them(model, inputs):
    model.active = ("mouth",)
    assert list(model.layers(inputs)) == ["mouth"]
    with torch.no_grad():
        assert list(model.layers(inputs)) == ["face", "mouth"]


def test_the_pose_is_the_tracked_one_until_its_correction_has_learned(model, context, inputs):
    calibrate_branches(model, context)
    rotation, translation = model.pose(inputs)
    torch.testing.assert_close(rotation, inputs.rotation)
    torch.testing.assert_close(translation, inputs.translation)
    torch.nn.init.constant_(model.correction.basis, 1.0)
    assert {id(p) for group in correction_groups(model) for p in group["params"]} == {
        id(p) for p in model.correction.parameters()
    }
    assert not torch.allclose(model.pose(inputs)[1], inputs.translation)
    model.still = True
    assert model.pose(inputs)[1] is inputs.translation


def test_the_branch_of_the_face_is_to_be_opaque_on_the_head_and_clear_elsewhere(context):
    batch: Batch = context.clip.batch([5])
    loss, body = face_branch_loss(context.config), torch.rand_like(batch.image)
    whole = batch.matte * batch.masks["head"] * (1 - batch.masks["mouth_inside"])

    def value(alpha: torch.Tensor) -> float:
        torch.manual_seed(3)
        return float(loss(Rendered(batch.image * alpha, alpha, body, batch.image), batch))

    right = value(whole)
    assert right < 1e-5
    assert value(0.5 * whole) > right + 0.05
    assert value(torch.ones_like(whole)) > right + 0.05
    assert value(batch.matte * batch.masks["head"]) >= right


def test_the_sound_reaches_the_fields_at_about_unit_size_before_the_first_step(model, context, inputs):
    quiet = model.heard("face", inputs.with_(features=0 * inputs.features))
    calibrate_branches(model, context)
    clip = torch.from_numpy(context.clip.features().astype(np.float32))
    rows = (clip - model.audio_center) / model.audio_scale
    torch.testing.assert_close(rows.mean(0), torch.zeros(rows.shape[1]), atol=1e-3, rtol=0)
    loud = model.heard("face", inputs.with_(features=model.audio_center + model.audio_scale * inputs.features))
    assert 0.1 < (loud - quiet).std() < 10


def test_fields_give_every_place_all_of_the_sound_and_the_units_until_they_learn_otherwise(model):
    to_audio, to_units = model.field("face").attention(model.field("face").features(torch.rand(50, 3)))
    torch.testing.assert_close(to_audio, torch.ones_like(to_audio), atol=1e-3, rtol=0)
    torch.testing.assert_close(to_units, torch.ones_like(to_units), atol=1e-3, rtol=0)
