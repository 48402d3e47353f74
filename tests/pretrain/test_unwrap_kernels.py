"""The kernels of expression-visual against their twins in plain PyTorch: values and gradients."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from heads.person.appearance import AppearanceBasis, changed
from pretrain.expression_visual import networks
from pretrain.expression_visual.objective import lit
from pretrain.expression_visual.unwrap import mean_under, mean_under_reference, visibility, visibility_reference
from tests.pretrain.test_expression_visual import CONFIG, S, frontal, model, person, stripes


def poses(count: int) -> dict[str, torch.Tensor]:
    """Turned heads with open mouths, one of them half outside the frame."""
    pose = {
        name: torch.cat([frontal(yaw=yaw)[name] for yaw in torch.linspace(-0.8, 0.8, count).tolist()])
        for name in frontal()
    }
    pose["expression"] = torch.randn(pose["expression"].shape, generator=torch.Generator().manual_seed(1))
    pose["translation"][-1, 0] = 1.5
    return pose


def mattes(count: int) -> torch.Tensor:
    matte = torch.rand(count, S, S, generator=torch.Generator().manual_seed(2)).sqrt()
    matte[:, 8:56, 12:52] = 1
    return matte


def looks(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    pose = poses(count)
    return visibility(model().surface, model().vertices(person().expand(count, -1), pose), pose, mattes(count))


def test_visibility_is_that_of_plain_pytorch():
    pose = poses(4)
    given = (model().surface, model().vertices(person().expand(4, -1), pose), pose, mattes(4))
    pixels, seen = visibility(*given)
    expected_pixels, expected_seen = visibility_reference(*given)
    assert torch.allclose(pixels, expected_pixels, atol=1e-3)
    assert 0.1 < float(expected_seen.mean()) < 0.9
    # A texel on the very edge of an opening or of a cell of the depth buffer may fall to either side.
    assert ((seen - expected_seen).abs() > 1e-3).float().mean() < 2e-3


def test_means_of_several_pictures_and_their_gradients_are_those_of_plain_pytorch():
    pixels, seen = looks()
    values = torch.rand(3, S // 4, S // 4, 5, generator=torch.Generator().manual_seed(3))
    upstream = torch.randn(2, seen.shape[1], 5, generator=torch.Generator().manual_seed(4))
    results, gradients = [], []
    for function in (mean_under, mean_under_reference):
        pictures = values.clone().requires_grad_()
        results.append(function(pictures, pixels, seen, [0, 1, 3], 0.25))
        results[-1].backward(upstream)
        gradients.append(pictures.grad)
    assert torch.allclose(*results, atol=1e-5)
    assert torch.allclose(*gradients, atol=1e-4)
    assert gradients[0].abs().max() > 1


def test_the_texture_and_the_mirrored_side_are_those_of_plain_pytorch():
    pixels, seen = looks()
    texture = mean_under(stripes().expand(3, -1, -1, -1).contiguous(), pixels, seen, [0, 1, 2, 3], 1.0)
    cells, base = model()._shown_by_kernels(texture, seen)
    known, mirror = seen[..., None], model().mirror
    expected = model().base_colour(texture, seen)
    parts = [texture * known, known, texture[:, mirror] * known[:, mirror], known[:, mirror], expected]
    assert torch.allclose(base, expected, atol=1e-5)
    assert torch.allclose(cells, model()._cells(torch.cat(parts, -1)), atol=1e-5)


def test_the_network_reads_cells_as_it_reads_a_map():
    torch.manual_seed(0)
    unet = networks.UNet(model().unet.stem.weight.shape[1] // CONFIG.model.patch**2, 14, CONFIG.model)
    torch.nn.init.normal_(unet.out.weight, std=0.1)
    features, texture = (
        torch.randn(2, model().binding.n, CONFIG.model.image_channels),
        torch.rand(2, model().binding.n, 11),
    )
    place = model().constant.expand(2, -1, -1).index_select(1, model().slot)
    whole = model().binding.scatter(torch.cat([texture, place, features], -1))
    with mock.patch.object(model(), "unet", unet):
        change = model().change(model()._cells(texture), features)
    assert torch.allclose(change, model().binding.gather(unet(whole)), atol=1e-5)
    assert change.abs().max() > 0.1


def test_patches_are_what_the_stem_convolves():
    matte = mattes(2)
    image = torch.rand(2, S, S, 3)
    encoder = model().encoder
    expected = encoder.stem(torch.cat([image * matte[..., None], matte[..., None]], -1).permute(0, 3, 1, 2))
    expected = encoder.out(encoder.block(expected)).permute(0, 2, 3, 1)
    assert torch.allclose(encoder(image, matte), expected, atol=1e-5)


def test_a_map_changes_at_its_followers_as_if_all_changes_were_written_out():
    torch.manual_seed(0)
    row = torch.tensor([2, 0, 3, 1, 3])  # 3: does not follow
    basis = AppearanceBasis(4, 2, 3, row)
    torch.nn.init.normal_(basis.basis)
    maps, coefficients = torch.randn(2, 5, 14), torch.randn(2, 3, 2)
    results, gradients = [], []
    for function in (basis.apply_to, lambda m, c: changed(m[:, None], basis(c))):
        inputs = [maps.clone().requires_grad_(), coefficients.clone().requires_grad_()]
        basis.basis.grad = None
        results.append(function(*inputs))
        (results[-1] * torch.arange(14)).sum().backward()
        gradients.append([*(x.grad for x in inputs), basis.basis.grad])
    assert torch.allclose(*results, atol=1e-6)
    for ours, expected in zip(*gradients):
        assert torch.allclose(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("vary", [True, False])
def test_light_through_tables_is_the_power_of_every_pixel(vary):
    image = torch.randint(0, 256, (2, 2, 8, 8, 3), dtype=torch.uint8)
    matte = torch.randint(0, 256, (2, 2, 8, 8), dtype=torch.uint8)
    seen = torch.tensor([[1.0, 1.0], [1.0, 0.0]])  # what is not used is not computed
    batch = {"identity": torch.zeros(2, 1), "source_image": image, "target_image": image.flip(2), "seen": seen}
    batch |= {"source_matte": matte, "target_matte": matte}
    torch.manual_seed(5)
    got = lit(batch, CONFIG, vary=vary)
    torch.manual_seed(5)
    gain = (CONFIG.augment.gain * torch.randn(2, 1, 1, 1, 3)).exp()
    gamma = (CONFIG.augment.gamma * torch.randn(2, 1, 1, 1, 1)).exp()
    unit = image.float() / 255
    expected = (unit.clamp_min(1e-4) ** gamma * gain).clamp(0, 1) if vary else unit
    assert torch.allclose(got["source_image"], expected * seen[..., None, None, None], atol=1e-6)
    assert torch.allclose(got["target_image"], expected.flip(2), atol=1e-6)
    assert torch.equal(got["source_matte"], matte.float() / 255)
