"""A coarse head that becomes a fine one in the middle of its fit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from adapt.avatar import folder
from adapt.clip import track_clip
from adapt.fit.context import Context
from adapt.fit.finer import BASIS, OWN, finer
from adapt.fit.initial_maps import build_rigged, nearest_texels
from adapt.fit.loop import Fit
from adapt.job import adapt as make_avatar
from adapt.models.rigged import RiggedHead
from adapt.priors import Priors
from adapt.recipes import recipe
from heads.measures.image import psnr
from heads.person.inputs import head_inputs
from heads.person.talking_head import HeadConfig
from heads.rig import load_rig
from tests.support.avatars import SIZE

STEPS = 16


class Killed(BaseException):
    """Stands for the end of the process between two steps."""


@pytest.fixture(autouse=True)
def _truth(world, monkeypatch):
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    monkeypatch.setattr("adapt.recipes.headstart.COARSE_FROM", SIZE)


def run(world, out, **options):
    return make_avatar(world.video, out, budget=f"{STEPS}it", prior="none", size=SIZE, **options)


@pytest.fixture(scope="module")
def built(world):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        with track_clip(world.video, size=SIZE) as clip:
            context = Context(clip, load_rig(), len(clip), recipe("headstart").config(), Priors(), torch.device("cpu"))
            parts = HeadConfig(color_rank=3, offset_rank=3, correction_rank=4, hidden=8)
            yield build_rigged(context, parts, residual=True, resolution=32), head_inputs(clip.motion()).pick([9])


@torch.no_grad()
def test_a_finer_head_shows_what_the_coarse_one_showed(built):
    model, inputs = built
    talking = model.talking
    basis = talking.add_appearance_basis(2, 10)
    basis.basis.normal_(std=0.01)
    basis.row.copy_(torch.arange(talking.n) % 11)
    talking.color.basis.normal_(std=0.01)
    talking.offset.basis.normal_(std=0.001)
    fine = finer(model, 64)
    assert fine.resolution == 64
    assert fine.talking.n > 3 * talking.n
    assert fine.shape() | {"resolution": 32} == model.shape()
    before, after = (head.eval()(inputs).image[0] for head in (model, fine))
    assert psnr(after, before) > 25
    parent = nearest_texels(talking.uv, fine)
    assert torch.equal(fine.talking.colors, talking.colors[parent])
    assert torch.equal(fine.talking.color.basis.view(3, -1, 3), talking.color.basis.view(3, -1, 3)[:, parent])
    assert torch.equal(fine.talking.appearance_basis.row, basis.row[parent])
    assert torch.equal(fine.start[:, 10:], model.start[parent, 10:])
    ours, theirs = fine.state_dict(), model.state_dict()
    shared = [name for name, value in theirs.items() if value.shape == ours[name].shape]
    assert {BASIS, OWN} & set(shared) == set()
    assert all(torch.equal(ours[name], theirs[name]) for name in shared)


@torch.no_grad()
def test_the_parts_of_a_gaussian_have_its_middle_and_its_spread(built):
    model, _ = built
    fine = finer(model, 64)
    parent = nearest_texels(model.talking.uv, fine)
    whole, parts = (head.gaussians(None) for head in (model, fine))
    four = (torch.bincount(parent, minlength=model.talking.n) == 4).nonzero()[:, 0]
    assert len(four) > 100
    for texel in four[::37].tolist():
        own = parent == texel
        axes = torch.linalg.svd(parts.means[0, own] - parts.means[0, own].mean(0)).S
        largest = whole.scales[0, texel].sort(descending=True).values
        assert torch.allclose(parts.means[0, own].mean(0), whole.means[0, texel], atol=1e-4)
        assert torch.allclose(axes[:2] / 2, 0.8 * largest[:2], rtol=1e-3)
        assert torch.allclose(
            parts.scales[0, own].sort(1, descending=True).values[:, 0], 0.6 * largest[0].expand(4), rtol=1e-3
        )


@pytest.mark.parametrize("step", [3, 12])
def test_a_run_killed_before_or_after_ends_with_the_same_weights(world, tmp_path, step):
    between, resolutions = Fit._between, []

    def dies(fit, stage):
        between(fit, stage)
        assert isinstance(fit.model, RiggedHead)
        resolutions.append(fit.model.resolution)
        if fit.clock.iterations == step:
            fit.save()
            raise Killed

    run(world, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "_between", dies)
        with pytest.raises(Killed):
            run(world, tmp_path / "killed")
    assert resolutions == sorted(resolutions)
    assert resolutions[-1] == (32 if step == 3 else 64)
    assert run(world, tmp_path / "killed", resume=True)["complete"]
    ours, theirs = (load_file(tmp_path / name / folder.WEIGHTS) for name in ("whole", "killed"))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_larger_budget_goes_on_with_the_fine_head(world, tmp_path):
    run(world, tmp_path / "ada")
    document = folder.read_document(tmp_path / "ada")
    assert document["model"]["resolution"] == 64
    make_avatar(world.video, tmp_path / "ada", budget=f"{2 * STEPS}it", prior="none", size=SIZE, resume=True)
    document = folder.read_document(tmp_path / "ada")
    assert (document["model"]["resolution"], document["metrics"]["iterations"]) == (64, 2 * STEPS)
