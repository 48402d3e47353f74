"""What a prior knows of how maps follow pose and expression, and its fit to one person."""

from __future__ import annotations

import torch

from heads.person.appearance import CHANNELS, AppearanceBasis, PersonalAppearance, changed

SIZE, RANK, TEXELS = 7, 3, 5


def shared() -> AppearanceBasis:
    torch.manual_seed(0)
    residual = AppearanceBasis(SIZE, RANK, TEXELS, torch.arange(TEXELS))
    residual.net.calibrate(torch.randn(50, SIZE))
    torch.nn.init.normal_(residual.basis)
    return residual


def appearance_basis(vectors: torch.Tensor, texel: torch.Tensor) -> PersonalAppearance:
    one = PersonalAppearance(SIZE, RANK, TEXELS, len(texel))
    one.take(shared(), vectors, texel)
    return one


def test_a_new_basis_changes_nothing_and_learns():
    new = AppearanceBasis(SIZE, RANK, TEXELS, torch.arange(TEXELS))
    change = new(new.coefficients(torch.randn(4, SIZE)))
    assert change.shape == (4, TEXELS, CHANNELS)
    assert not change.any()
    change.sum().backward()
    assert new.basis.grad.abs().sum() > 0


def test_a_map_holds_as_it_is_at_the_frames_it_was_made_from_whatever_the_code():
    vectors = torch.randn(1, SIZE)
    one = appearance_basis(vectors, torch.arange(TEXELS))
    torch.nn.init.normal_(one.code)
    for part in one.at(vectors[0]):
        assert part.abs().max() < 1e-5
    assert one.at(torch.randn(SIZE))[1].abs().max() > 1e-2


def test_every_gaussian_takes_the_change_of_its_texel():
    vectors, texel = torch.randn(2, SIZE), torch.tensor([4, 0, 0, 2])
    offsets, colors = appearance_basis(vectors, texel).at(torch.ones(SIZE))
    all_offsets, all_colors = appearance_basis(vectors, torch.arange(TEXELS)).at(torch.ones(SIZE))
    assert torch.equal(offsets, all_offsets[texel])
    assert torch.equal(colors, all_colors[texel])


def test_texels_that_do_not_follow_stay_as_they_are():
    shared = AppearanceBasis(SIZE, RANK, 2, torch.tensor([2, 0, 2, 1]))
    torch.nn.init.normal_(shared.basis)
    change = shared(torch.ones(RANK))
    assert change.abs().sum(-1).bool().tolist() == [False, True, False, True]


def test_a_code_bends_what_is_shared_and_the_prior_itself_stays_as_it_is():
    vectors = torch.zeros(1, SIZE)
    one = appearance_basis(vectors, torch.arange(TEXELS))
    before = one.at(torch.ones(SIZE))[1].detach()
    assert torch.allclose(
        before, shared()(shared().coefficients(torch.ones(SIZE)) - shared().coefficients(vectors)[0])[:, 3:]
    )
    one.at(torch.ones(SIZE))[1].square().sum().backward()
    assert one.code.grad.abs().sum() > 0
    assert all(p.grad is None for p in one.net.parameters())
    with torch.no_grad():
        one.code.add_(0.1)
    assert not torch.allclose(one.at(torch.ones(SIZE))[1], before)


def test_only_offsets_and_colours_change():
    maps, change = torch.randn(1, TEXELS, 14), torch.randn(2, TEXELS, CHANNELS)
    moved = changed(maps, change) - maps
    assert torch.allclose(moved[..., [0, 1, 2, 10, 11, 12]], change, atol=1e-6)
    assert not moved[..., [3, 4, 5, 6, 7, 8, 9, 13]].any()


def test_no_basis_at_all_changes_nothing():
    none = AppearanceBasis(SIZE, 0, TEXELS, torch.arange(TEXELS))
    assert not none(none.coefficients(torch.randn(2, SIZE))).any()
