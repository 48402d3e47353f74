"""The rasteriser is right: against brute force, finite differences, gsplat's projection, and its own reference."""

from __future__ import annotations

import pytest
import torch

from configs import InputError
from heads import rasterization
from heads.raster.api import sh_colors
from tests.support.raster_scenes import brute_force, head_scene, scene, small_rotations

NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats")


def with_gradients(arguments, backend, seed=0, **options):
    """Picture, alpha, meta, and the gradients of a random weighting of both."""
    leaves = [t.detach().clone().requires_grad_(True) for t in arguments[:6]]
    picture, alpha, meta = rasterization(*leaves, *arguments[6:], backend=backend, **options)
    g = torch.Generator().manual_seed(seed)
    weights = [torch.randn(t.shape, generator=g, dtype=torch.float64).to(t.dtype) for t in (picture, alpha)]
    loss = (picture * weights[0]).sum() + (alpha * weights[1]).sum()
    return picture.detach(), alpha.detach(), meta, torch.autograd.grad(loss, leaves)


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_picture_equals_brute_force_in_float64(backend):
    arguments = scene(40, (37, 21))
    picture, alpha, _ = rasterization(*arguments, backend=backend, render_mode="RGB+D")
    tensors = [t[0] if t.dim() > 2 and k >= 5 else t for k, t in enumerate(arguments[:7])]
    expected, expected_alpha = brute_force(*tensors, 37, 21)
    assert (picture[0] - expected).abs().max() < 1e-11
    assert (alpha[0, ..., 0] - expected_alpha).abs().max() < 1e-11


def test_float32_stays_close_to_brute_force_but_for_pixels_at_a_threshold():
    arguments = scene(60, (40, 40), dtype=torch.float32, seed=3)
    picture, _, _ = rasterization(*arguments, backend="cpu")
    tensors = [(t[0] if k >= 5 else t).double() for k, t in enumerate(arguments[:7])]
    expected, _ = brute_force(*tensors, 40, 40)
    error = (picture[0] - expected[..., :3]).abs().flatten()
    assert error.quantile(0.99) < 5e-6
    assert error.max() < 1e-2


@pytest.mark.parametrize("mode", ["RGB", "RGB+ED", "D"])
def test_gradients_equal_finite_differences(mode):
    arguments = scene(5, (12, 9), seed=5)
    leaves = [t.clone().requires_grad_(True) for t in arguments[:6]]
    backgrounds = torch.rand(1, 3, dtype=torch.float64, requires_grad=True) if mode == "RGB" else None

    def render(*tensors):
        behind = tensors[6] if len(tensors) > 6 else None
        picture, alpha, _ = rasterization(*tensors[:6], *arguments[6:], render_mode=mode, backgrounds=behind)
        return picture, alpha

    inputs = [*leaves, backgrounds] if backgrounds is not None else leaves
    assert torch.autograd.gradcheck(render, inputs, eps=1e-6, atol=1e-5, rtol=1e-3, fast_mode=False)


def test_the_projection_equals_gsplats_pytorch_reference():
    reference = pytest.importorskip("gsplat.cuda._torch_impl")
    means, quats, scales, opacities, colors, viewmats, Ks, width, height = scene(300, (64, 48), seed=2, cameras=2)
    _, _, meta = rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height)
    covariances, _ = reference._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    radii, means2d, depths, conics, _ = reference._fully_fused_projection(
        means, covariances, viewmats, Ks, width, height
    )
    drawn = (meta["radii"] > 0).all(-1)
    assert drawn.float().mean() > 0.9
    assert ((radii > 0).all(-1) | ~drawn).all(), "we draw what gsplat does not"
    assert (meta["radii"][drawn] <= radii[drawn]).all(), "gsplat's reference knows no opacity, so its radii are wider"
    for ours, theirs in ((meta["means2d"], means2d), (meta["depths"], depths), (meta["conics"], conics)):
        torch.testing.assert_close(ours[drawn], theirs[drawn], rtol=1e-9, atol=1e-9)


def test_the_projections_gradients_equal_gsplats_pytorch_reference():
    reference = pytest.importorskip("gsplat.cuda._torch_impl")
    means, quats, scales, opacities, colors, viewmats, Ks, width, height = scene(200, (64, 48), seed=4)
    leaves = [t.clone().requires_grad_(True) for t in (means, quats, scales, viewmats)]
    means, quats, scales, viewmats = leaves
    _, _, meta = rasterization(means, quats, scales, opacities, colors, viewmats, Ks, width, height)
    drawn = (meta["radii"] > 0).all(-1)
    covariances, _ = reference._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    _, means2d, depths, conics, _ = reference._fully_fused_projection(means, covariances, viewmats, Ks, width, height)
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(t.shape, generator=g, dtype=t.dtype) for t in (means2d, depths, conics)]

    def loss(parts):
        return sum((p[drawn] * w[drawn]).sum() for p, w in zip(parts, weights))

    ours = torch.autograd.grad(loss((meta["means2d"], meta["depths"], meta["conics"])), leaves)
    theirs = torch.autograd.grad(loss((means2d, depths, conics)), leaves)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8 * float(b.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mode", ["classic", "antialiased"])
def test_kernels_and_twin_agree_for_batches_and_cameras(dtype, mode):
    arguments = scene(150, (50, 44), dtype=dtype, lead=(2, 1), cameras=3, seed=7)
    background = torch.rand(2, 1, 3, 3, dtype=dtype)
    ours, reference = (
        with_gradients(arguments, backend, rasterize_mode=mode, render_mode="RGB+ED", backgrounds=background)
        for backend in ("cpu", "torch")
    )
    assert ours[0].shape == (2, 1, 3, 44, 50, 4)
    assert ours[1].shape == (2, 1, 3, 44, 50, 1)
    tolerance = 1e-10 if dtype == torch.float64 else 5e-4
    assert (ours[0] - reference[0]).abs().quantile(0.99) < tolerance
    assert torch.equal(ours[2]["radii"], reference[2]["radii"])
    for name, a, b in zip(NAMES, ours[3], reference[3]):
        assert relative(a, b) < tolerance * 10, name


def test_a_batch_is_the_same_as_its_scenes_one_by_one():
    arguments = scene(90, (40, 40), dtype=torch.float32, lead=(3,), cameras=2)
    together, _, _, gradients = with_gradients(arguments, "cpu")
    g = torch.Generator().manual_seed(0)
    weights = torch.randn(together.shape, generator=g, dtype=torch.float64).float()
    for k in range(3):
        leaves = [t[k].detach().clone().requires_grad_(True) for t in arguments[:6]]
        alone, _, _ = rasterization(*leaves, arguments[6][k], *arguments[7:], backend="cpu")
        assert torch.equal(alone, together[k])
        g = torch.autograd.grad((alone * weights[k]).sum(), leaves)
        assert g[4].shape == gradients[4][k].shape


def test_colours_may_differ_per_camera():
    arguments = list(scene(60, (32, 32), cameras=2))
    colors = torch.rand(2, 60, 3, dtype=torch.float64)
    both, _, _ = rasterization(*arguments[:4], colors, *arguments[5:])
    for camera in range(2):
        alone, _, _ = rasterization(*arguments[:4], colors[camera], *arguments[5:])
        assert torch.equal(alone[camera], both[camera])


@pytest.mark.parametrize("channels", [1, 2, 5, 8, 33])
def test_any_number_of_channels_is_rendered_alike(channels):
    arguments = list(scene(50, (33, 17), seed=channels))
    arguments[4] = torch.rand(50, channels, dtype=torch.float64)
    background = torch.rand(1, channels, dtype=torch.float64)
    ours, reference = (
        with_gradients(arguments, backend, render_mode="RGB+D", backgrounds=background) for backend in ("cpu", "torch")
    )
    assert ours[0].shape[-1] == channels + 1
    assert (ours[0] - reference[0]).abs().max() < 1e-11
    for name, a, b in zip(NAMES, ours[3], reference[3]):
        assert relative(a, b) < 1e-10, name


def test_a_window_of_a_picture_is_the_same_picture():
    arguments = head_scene(2000, 96)
    whole, _, _ = rasterization(*arguments)
    Ks = arguments[6].clone()
    Ks[..., 0, 2] -= 13
    Ks[..., 1, 2] -= 29
    part, _, _ = rasterization(*arguments[:6], Ks, 51, 47)
    error = (part[0] - whole[0, 29:76, 13:64]).abs().flatten()
    assert error.quantile(0.999) < 1e-4, "tiles, boxes or the picture's edge leak into the picture"


def test_absolute_gradients_sum_what_each_pixel_asks_for():
    arguments = scene(3, (7, 6), seed=11)
    leaves = [t.clone().requires_grad_(True) for t in arguments[:6]]
    picture, _, meta = rasterization(*leaves, *arguments[6:], absgrad=True)
    meta["means2d"].retain_grad()
    picture.sum().backward()
    expected, signed = torch.zeros_like(meta["means2d"]), torch.zeros_like(meta["means2d"])
    for y in range(6):
        for x in range(7):
            one, _, other = rasterization(*leaves, *arguments[6:])
            (g,) = torch.autograd.grad(one[0, y, x].sum(), other["means2d"])
            expected += g.abs()
            signed += g
    torch.testing.assert_close(meta["means2d"].absgrad, expected)
    torch.testing.assert_close(meta["means2d"].grad, signed)


def test_spherical_harmonics_have_gsplats_order_and_signs():
    reference = pytest.importorskip("gsplat.cuda._torch_impl")
    means, _, _, _, _, viewmats, *_ = scene(20, cameras=2)
    coefficients = torch.randn(20, 16, 3, dtype=torch.float64)
    ours = sh_colors(coefficients, means, viewmats, 3)
    positions = torch.linalg.inv(viewmats)[:, :3, 3]
    directions = means[None] - positions[:, None]
    theirs = reference._spherical_harmonics(3, directions, coefficients.expand(2, -1, -1, -1))
    torch.testing.assert_close(ours, (theirs + 0.5).clamp_min(0))


def test_the_largest_alpha_is_a_parameter():
    means = torch.tensor([[0.0, 0, 5]])
    arguments = (means, torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), 2.0), torch.ones(1), torch.ones(1, 1))
    views = (torch.eye(4)[None], torch.tensor([[[16.0, 0, 4.5], [0, 16, 4.5], [0, 0, 1]]]), 9, 9)
    for clamp in (0.999, 0.99):
        _, alpha, _ = rasterization(*arguments, *views, alpha_clamp=clamp)
        assert alpha.max() == pytest.approx(clamp, abs=1e-6)


def test_nearer_gaussians_hide_farther_ones_whatever_their_order():
    means = torch.tensor([[0.0, 0, 6], [0, 0, 4]])
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    rest = (torch.tensor([[1.0, 0, 0, 0]] * 2), torch.full((2, 3), 0.5), torch.full((2,), 0.999))
    views = (torch.eye(4)[None], torch.tensor([[[16.0, 0, 4.5], [0, 16, 4.5], [0, 0, 1]]]), 9, 9)
    for order in ([0, 1], [1, 0]):
        picture, _, _ = rasterization(means[order], *rest, colors[order], *views)
        assert picture[0, 4, 4, 1] > 0.99 > 0.01 > picture[0, 4, 4, 0]


def test_a_tile_that_is_finished_early_keeps_its_gradients_right():
    arguments = list(scene(400, (20, 20), seed=13))
    arguments[2] = arguments[2] + 1.0  # each covers the picture: all pixels are opaque after a few dozen
    arguments[3] = arguments[3] * 0 + 0.6
    ours, reference = (with_gradients(arguments, backend) for backend in ("cpu", "torch"))
    assert (ours[1] > 0.999).all()
    assert (ours[0] - reference[0]).abs().max() < 1e-11
    hidden = (ours[3][4] == 0).all(-1)
    assert hidden.sum() > 200, "nothing was hidden, so nothing was left out"
    for name, a, b in zip(NAMES, ours[3], reference[3]):
        assert relative(a, b) < 1e-9, name


def test_viewmats_and_means_are_two_sides_of_one_motion():
    arguments = list(scene(80, (40, 36), seed=9))
    turn = small_rotations(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))
    shift = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64)
    moved = list(arguments)
    moved[0] = arguments[0] @ turn.T + shift
    w = torch.sqrt(1 + turn.trace()) / 2
    q = torch.stack([w, *((turn[i, j] - turn[j, i]) / (4 * w) for i, j in ((2, 1), (0, 2), (1, 0)))])
    from heads.geometry.rotation import quaternion_product

    moved[1] = quaternion_product(q.expand(80, 4), arguments[1])
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = turn, shift
    moved[5] = arguments[5] @ torch.linalg.inv(motion)
    assert (rasterization(*moved)[0] - rasterization(*arguments)[0]).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({1: torch.zeros(40, 3)}, r"quats: expected \[40, 4\].*got \[40, 3\]"),
        ({3: torch.zeros(39)}, r"opacities: expected \[40\].*got \[39\]"),
        ({4: torch.zeros(40, 3)}, r"colors: expected torch.float64.*got torch.float32"),
        ({5: torch.zeros(4, 4)}, r"viewmats: expected \[..., C, 4, 4\], got \[4, 4\]"),
        ({7: 0}, r"width and height are pixels, at least 1, got width=0"),
    ],
)
def test_wrong_shapes_are_named_with_what_was_expected(change, sentence):
    arguments = list(scene(40))
    for index, value in change.items():
        arguments[index] = value
    with pytest.raises(InputError, match=sentence):
        rasterization(*arguments)


def test_unknown_modes_and_missing_backends_are_refused():
    with pytest.raises(InputError, match="render_mode: expected one of RGB"):
        rasterization(*scene(), render_mode="rgb")
    with pytest.raises(InputError, match="no such backend; known: cpu, gsplat, reference"):
        rasterization(*scene(), backend="cuda")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="backend 'gsplat' is not usable"):
            rasterization(*scene(), backend="gsplat")


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["RGB", "RGB+ED"])
def test_kernels_agree_with_gsplat_on_the_gpu(mode):
    arguments = head_scene(5000, 128)
    cuda = [t.cuda() if isinstance(t, torch.Tensor) else t for t in arguments]
    ours, theirs = with_gradients(arguments, "cpu", render_mode=mode), None
    leaves = [t.detach().clone().requires_grad_(True) for t in cuda[:6]]
    picture, alpha, meta = rasterization(*leaves, *cuda[6:], backend="gsplat", render_mode=mode)
    g = torch.Generator().manual_seed(0)
    weights = [torch.randn(t.shape, generator=g, dtype=torch.float64).float().cuda() for t in (picture, alpha)]
    theirs = torch.autograd.grad((picture * weights[0]).sum() + (alpha * weights[1]).sum(), leaves)
    assert meta["backend"] == "gsplat"
    error = (picture.cpu() - ours[0]).abs().flatten()
    assert error.quantile(0.99) < 1e-4
    for name, a, b in zip(NAMES, ours[3], theirs):
        distance = (a - b.cpu()).norm() / b.cpu().norm()
        assert distance < 1e-2, name
