"""Losses and metrics: parity with scikit-image, exact gradients, defined values for degenerate input."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from configs import InputError
from heads import losses
from heads.lpips import _ALEX, _VGG, CHANNELS, LPIPS
from heads.ssim_kernel import _DeviceSSIM, _ssim_torch, ssim_map


def pair(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(*shape, generator=g)
    return x, (x + 0.2 * torch.randn(*shape, generator=g)).clamp(0, 1)


@pytest.mark.parametrize("shape", [(64, 64, 3), (33, 400, 3), (90, 47, 1)])
def test_ssim_equals_scikit_image(shape):
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    x, y = pair(*shape)
    expected = skimage.structural_similarity(
        x.numpy(),
        y.numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
        channel_axis=-1,
    )
    assert float(losses.ssim(x, y)) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("shape", [(1, 40, 40, 3), (2, 25, 380, 3), (1, 9, 30, 3), (1, 3, 3, 3), (1, 1, 1, 3)])
def test_the_compiled_ssim_and_the_torch_one_agree_in_value_and_gradient(shape):
    x, y = pair(*shape)
    results = []
    for dtype, run in ((torch.float32, ssim_map), (torch.float64, ssim_map)):
        image = x.to(dtype, copy=True).requires_grad_()
        values = run(image, y.to(dtype))
        weight = torch.linspace(0, 1, values.numel(), dtype=dtype).view(values.shape)
        (values * weight).sum().backward()
        results.append((values.detach().double(), image.grad.double()))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("radius", [0, 2, 5])
def test_the_ssim_of_accelerators_is_that_of_torch_in_value_and_gradient(radius):
    x, y = (v.double() for v in pair(2, 14, 19, 3))
    results = []
    for run in (_DeviceSSIM.apply, _ssim_torch):
        image = x.clone().requires_grad_()
        values = run(image, y, radius)
        (values * torch.linspace(0, 1, values.numel()).double().view(values.shape)).sum().backward()
        results.append((values.detach(), image.grad))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


def test_the_torch_ssim_has_exact_gradients():
    x, y = (v.double().requires_grad_() for v in pair(1, 6, 7, 2))
    assert torch.autograd.gradcheck(lambda a, b: _ssim_torch(a, b, 2), (x, y))


def test_ssim_uses_the_threads_it_is_given_and_gives_the_same_bits():
    x, y = pair(1, 96, 70, 3)
    before = torch.get_num_threads()
    try:
        values = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            values.append(ssim_map(x, y))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_equal_images_cost_nothing():
    x, _ = pair(30, 30, 3)
    assert float(losses.l1(x, x)) == 0
    assert float(losses.d_ssim(x, x)) == pytest.approx(0, abs=1e-6)


def test_weights_select_pixels_and_empty_weights_give_zero():
    x, y = pair(40, 40, 3)
    weight = torch.zeros(40, 40)
    weight[10:20] = 1
    assert float(losses.l1(x, y, weight)) == pytest.approx(float((x - y)[10:20].abs().mean()), rel=1e-5)
    changed = y.clone()
    changed[30:] = 0
    assert torch.equal(losses.d_ssim(x, y, weight), losses.d_ssim(x, changed, weight))
    for loss in (losses.l1, losses.ssim, losses.d_ssim):
        assert float(loss(x, y, torch.zeros(40, 40))) == 0
        assert float(loss(x[None], y[None], torch.zeros(1, 40, 40))) == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.sampled_from([0.0, 0.5, 1.0]))
def test_losses_are_finite_for_any_size_and_constant_images(height, width, value):
    x = torch.full((height, width, 3), value, requires_grad=True)
    y = torch.rand(height, width, 3)
    loss = losses.l1(x, y) + losses.d_ssim(x, y)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()


def test_shapes_that_differ_are_told():
    with pytest.raises(ValueError, match="differ in shape"):
        losses.l1(torch.zeros(3, 3, 3), torch.zeros(3, 4, 3))
    with pytest.raises(ValueError, match=r"\[B, H, W, C\]"):
        ssim_map(torch.zeros(3, 3), torch.zeros(3, 3))


def test_penalties_are_zero_inside_their_limits_and_grow_outside():
    offsets = torch.tensor([[0.5, 0.0, 0.0], [0.0, 3.0, 0.0]])
    assert float(losses.offset_penalty(offsets[:1])) == 0
    assert float(losses.offset_penalty(offsets)) == pytest.approx(2.0)
    scales = torch.tensor([[0.1, 0.2, 0.3]]).log()
    assert float(losses.scale_penalty(scales)) == 0
    assert float(losses.scale_penalty(scales + 3)) > 1
    assert float(losses.scale_penalty(torch.tensor([[-9.0, -9.0, -1.0]]))) > 1
    zero = torch.zeros(4, 3, requires_grad=True)
    losses.offset_penalty(zero).backward()
    assert torch.isfinite(zero.grad).all()


def lpips_files(folder, network, seed=0):
    g = torch.Generator().manual_seed(seed)
    rows = [(n, i, o, 3) for n, i, o, *_ in _VGG] if network == "vgg" else [(r[0], r[1], r[2], r[3]) for r in _ALEX]
    backbone = {}
    for number, n_in, n_out, kernel in rows:
        scale = (2 / (n_in * kernel**2)) ** 0.5
        backbone[f"features.{number}.weight"] = torch.randn(n_out, n_in, kernel, kernel, generator=g) * scale
        backbone[f"features.{number}.bias"] = torch.zeros(n_out)
    lines = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1, generator=g) for i, c in enumerate(CHANNELS[network])}
    save_file(backbone, folder / "backbone.safetensors")
    torch.save(lines, folder / "lines.pth")
    return folder / "backbone.safetensors", folder / "lines.pth", backbone, lines


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_lpips_follows_the_definition_with_the_users_weights(tmp_path, network):
    backbone_file, lines_file, backbone, lines = lpips_files(tmp_path, network)
    metric = LPIPS(backbone_file, lines_file)
    x, y = pair(1, 64, 64, 3)
    assert float(metric(x, x)) == 0
    assert float(metric(x, y)) == pytest.approx(float(metric(y, x)), rel=1e-4)
    assert float(metric(x, y)) > float(metric(x, (x + y) / 2)) > 0
    f = torch.nn.functional
    conv, bias = backbone["features.0.weight"], backbone["features.0.bias"]
    shift, spread = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    features = []
    for image in (x, y):
        z = ((image * 2 - 1 - shift) / spread).permute(0, 3, 1, 2)
        z = f.relu(f.conv2d(z, conv, bias, padding=1) if network == "vgg" else f.conv2d(z, conv, bias, 4, 2))
        if network == "vgg":
            z = f.relu(f.conv2d(z, backbone["features.2.weight"], backbone["features.2.bias"], padding=1))
        features.append(z)
    torch.testing.assert_close(metric.activations(x)[0], features[0], rtol=1e-4, atol=1e-5)
    assert [a.shape[1] for a in metric.activations(x)] == list(CHANNELS[network])
    a, b = (z / z.norm(dim=1, keepdim=True) for z in features)
    first = ((a - b).square() * lines["lin0.model.1.weight"]).sum(1).mean()
    for line in list(metric.lines)[1:]:
        line.zero_()
    assert float(metric(x, y)) == pytest.approx(float(first), rel=1e-3)


def test_lpips_is_differentiable_in_the_image_and_frozen_in_its_weights(tmp_path):
    metric = LPIPS(*lpips_files(tmp_path, "alex")[:2])
    x, y = pair(48, 48, 3)
    metric(x.requires_grad_(), y).sum().backward()
    assert x.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in metric.parameters())


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_weight_files_that_would_run_code_are_refused(tmp_path, capsys):
    backbone, lines, *_ = lpips_files(tmp_path, "alex")
    bad = tmp_path / "bad.pth"
    torch.save({"features.0.weight": Payload()}, bad)
    with pytest.raises(InputError, match="would run code"):
        LPIPS(bad, lines)
    bad.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError, match="bad"):
        LPIPS(bad, lines)
    assert "code ran" not in capsys.readouterr().out
    with pytest.raises(InputError, match="no such file"):
        LPIPS(tmp_path / "none.pth", lines)
    with pytest.raises(InputError, match=r"lin0\.model\.1\.weight"):
        LPIPS(backbone, backbone)
    with pytest.raises(InputError, match="VGG16"):
        LPIPS(lines, lines)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(InputError, match="not readable"):
        LPIPS(tmp_path / "text.safetensors", lines)


def test_numpy_seed_free_results_repeat():
    x, y = pair(1, 64, 64, 3)
    assert np.array_equal(ssim_map(x, y).numpy(), ssim_map(x, y).numpy())
