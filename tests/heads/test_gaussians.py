"""UV Gaussians follow their triangles exactly; batches render in one call; free Gaussians grow and shrink."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from configs import InputError
from heads.gaussians.carrying import carry
from heads.gaussians.cloud import Gaussians
from heads.gaussians.covering import covering
from heads.gaussians.free import Densifier, FreeGaussians
from heads.gaussians.render import render_head
from heads.gaussians.uv import UVGaussians
from heads.geometry.rotation import euler_to_rotation, quaternion_product, quaternions
from heads.geometry.rotation import quaternion_matrices as rotation_matrices
from heads.rig import load_rig
from tests.support.raster_scenes import small_rotations


def small_rig():
    """A square of two triangles, bent, and a third triangle that has no area on the head."""
    mean = torch.tensor([[-0.5, -0.5, 0.0], [0.5, -0.5, 0.1], [0.5, 0.5, 0.0], [-0.5, 0.5, 0.2], [0.7, 0.7, 0.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [2, 4, 4]])
    uvs = torch.tensor(
        [
            [[0.02, 0.03], [0.48, 0.02], [0.47, 0.97]],
            [[0.02, 0.03], [0.47, 0.97], [0.03, 0.98]],
            [[0.6, 0.6], [0.9, 0.6], [0.6, 0.9]],
        ]
    )
    return SimpleNamespace(faces=faces, face_uvs=uvs, face_regions=torch.tensor([0, 1, 2]), mean=mean)


def random_maps(uv, batch, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return uv.neutral()[None].to(dtype) + 0.3 * torch.randn(batch, uv.n, 14, generator=g, dtype=torch.float64).to(dtype)


def covariances(gaussians):
    M = rotation_matrices(gaussians.quats) * gaussians.scales[..., None, :]
    return M @ M.transpose(-1, -2)


def test_every_texel_in_a_triangle_has_one_gaussian_at_its_point():
    rig = small_rig()
    uv = UVGaussians(rig, 32)
    assert uv.texels.unique(dim=0).shape[0] == uv.n
    assert (uv.triangles.diff() >= 0).all()
    centre = (uv.texels.flip(-1).float() + 0.5) / 32
    at = (rig.face_uvs[uv.triangles] * uv.barycentric[..., None]).sum(1)
    torch.testing.assert_close(at, centre, atol=1e-6, rtol=0)
    assert torch.equal(uv.regions, rig.face_regions[uv.triangles])
    area = 0.5 * torch.linalg.det(
        torch.stack([rig.face_uvs[:, 1] - rig.face_uvs[:, 0], rig.face_uvs[:, 2] - rig.face_uvs[:, 0]], 1)
    )
    counts = torch.bincount(uv.triangles, minlength=3)
    assert ((counts - area.abs() * 32 * 32).abs() < 3 * 32 * 0.5).all()


def test_gather_and_scatter_are_inverse():
    uv = UVGaussians(small_rig(), 16)
    values = torch.rand(2, uv.n, 14)
    image = uv.scatter(values, fill=-1.0)
    assert torch.equal(uv.gather(image), values)
    row, column = uv.texels[5]
    assert torch.equal(image[1, :, row, column], values[1, 5])
    with pytest.raises(InputError, match=r"UV map: expected \[B, C, 16, 16\], got \[2, 14, 8, 8\]"):
        uv.gather(torch.zeros(2, 14, 8, 8))


@given(st.integers(0, 10_000), st.floats(0.1, 10), st.sampled_from(["bind", "bind_reference"]))
@settings(max_examples=25, deadline=None)
def test_gaussians_follow_any_rigid_motion_and_scale_exactly(seed, scale, how):
    rig = small_rig()
    uv = UVGaussians(rig, 12)
    g = torch.Generator().manual_seed(seed)
    turn = small_rotations(torch.randn(3, generator=g, dtype=torch.float64) * 2)
    shift = torch.randn(3, generator=g, dtype=torch.float64)
    # The flat triangle has no direction of its own: it keeps the axes of head space, so it is left out here.
    maps, rest = random_maps(uv, 1, seed=seed), uv.triangles < 2
    vertices = rig.mean.double()[None]
    before = getattr(uv, how)(vertices, maps)
    after = getattr(uv, how)(scale * vertices @ turn.T + shift, maps)
    torch.testing.assert_close(
        after.means[:, rest], (scale * before.means @ turn.T + shift)[:, rest], atol=1e-6, rtol=1e-6
    )
    expected = scale**2 * turn @ covariances(before) @ turn.T
    torch.testing.assert_close(covariances(after)[:, rest], expected[:, rest], atol=1e-9 * scale**2, rtol=1e-6)
    torch.testing.assert_close(after.opacities, before.opacities)


def carried(uv, vertices, maps):
    """What accelerators run, here on the CPU."""
    return Gaussians(*carry(vertices, maps, uv._faces, uv.triangles, uv.barycentric[:, 1:].to(maps.dtype)))


@pytest.mark.parametrize("bind", [UVGaussians.bind, carried])
def test_kernel_and_accelerator_agree_with_the_reference_with_gradients(bind):
    rig = small_rig()
    uv = UVGaussians(rig, 24)
    g = torch.Generator().manual_seed(0)
    for batches in ((3, 3), (1, 2), (2, 1)):
        vertices = rig.mean.double() + 0.1 * torch.randn(batches[0], 5, 3, generator=g, dtype=torch.float64)
        vertices[:, 4] = vertices[:, 2] + 1e-3
        vertices.requires_grad_(True)
        maps = random_maps(uv, batches[1]).requires_grad_(True)
        kernel, reference = bind(uv, vertices, maps), uv.bind_reference(vertices, maps)
        # A quaternion and its negative are the same rotation; the two ways may choose differently.
        sign = (kernel.quats.detach() * reference.quats.detach()).sum(-1, True).sign()
        parts = [
            (kernel.means, reference.means),
            (kernel.quats, reference.quats * sign),
            (kernel.scales, reference.scales),
            (kernel.opacities, reference.opacities),
            (kernel.colors, reference.colors),
        ]
        weights = [torch.randn(a.shape, generator=g, dtype=a.dtype) for a, _ in parts]
        for a, b in parts:
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
        ours, theirs = (
            torch.autograd.grad(sum((pair[k] * w).sum() for pair, w in zip(parts, weights)), (vertices, maps))
            for k in (0, 1)
        )
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b, atol=1e-6 * float(b.abs().max()), rtol=1e-6)


def test_binding_passes_gradcheck():
    rig = small_rig()
    uv = UVGaussians(rig, 4)
    vertices = rig.mean.double()[None].clone().requires_grad_(True)
    maps = random_maps(uv, 1).requires_grad_(True)

    def bind(v, m):
        g = uv.bind(v, m)
        return g.means, g.quats, g.scales, g.opacities, g.colors

    assert torch.autograd.gradcheck(bind, (vertices, maps), atol=1e-5)


def test_triangles_without_area_give_finite_gaussians_and_gradients():
    rig = small_rig()
    uv = UVGaussians(rig, 16)
    for collapsed in (rig.mean * 0, rig.mean * torch.tensor([1.0, 0, 0])):
        vertices = collapsed[None].clone().requires_grad_(True)
        maps = random_maps(uv, 1, torch.float32).requires_grad_(True)
        for how in (uv.bind, uv.bind_reference):
            g = how(vertices, maps)
            total = g.means.sum() + g.quats.sum() + g.scales.sum()
            for tensor in (total, *torch.autograd.grad(total, (vertices, maps))):
                assert tensor.isfinite().all()


def test_rotation_matrices_and_quaternions_are_inverse():
    q = torch.nn.functional.normalize(torch.randn(500, 4, dtype=torch.float64), dim=-1)
    back = quaternions(rotation_matrices(q))
    torch.testing.assert_close(back * (back * q).sum(-1, True).sign(), q)
    p = torch.nn.functional.normalize(torch.randn(500, 4, dtype=torch.float64), dim=-1)
    both = rotation_matrices(quaternion_product(p, q))
    torch.testing.assert_close(both, rotation_matrices(p) @ rotation_matrices(q))


def camera(batch, size):
    K = torch.tensor([[4.0 * size, 0, size / 2], [0, 4.0 * size, size / 2], [0, 0, 1]]).repeat(batch, 1, 1)
    turn = small_rotations(torch.linspace(-0.5, 0.5, batch)[:, None] * torch.tensor([0.0, 1, 0]))
    return turn, torch.tensor([[0.0, 0, 8]]).repeat(batch, 1), K


def test_a_batch_of_heads_renders_in_one_call_as_one_by_one():
    rig = small_rig()
    uv = UVGaussians(rig, 24)
    maps = random_maps(uv, 3, torch.float32)
    gaussians = uv.bind(rig.mean[None] * torch.tensor([1.0, 1.2, 0.8])[:, None, None], maps)
    views = camera(3, 48)
    background = torch.rand(48, 48, 3)
    image, alpha, meta = render_head(gaussians, *views, 48, 48, background=background)
    assert image.shape == (3, 48, 48, 3)
    assert alpha.shape == (3, 48, 48, 1)
    assert meta["means2d"].shape == (3, 1, uv.n, 2)
    for k in range(3):
        one = Gaussians(
            *(getattr(gaussians, n)[k : k + 1] for n in ("means", "quats", "scales", "opacities", "colors"))
        )
        alone, _, _ = render_head(one, *(v[k : k + 1] for v in views), 48, 48, background=background)
        assert torch.equal(alone[0], image[k])


def test_one_head_in_many_poses_is_shared():
    rig = small_rig()
    uv = UVGaussians(rig, 24)
    maps = random_maps(uv, 1, torch.float32).requires_grad_(True)
    gaussians = uv.bind(rig.mean[None], maps)
    views = camera(3, 48)
    shared, _, _ = render_head(gaussians, *views, 48, 48)
    repeated = Gaussians(
        *(
            getattr(gaussians, n).expand(3, *getattr(gaussians, n).shape[1:])
            for n in ("means", "quats", "scales", "opacities", "colors")
        )
    )
    apart, _, _ = render_head(repeated, *views, 48, 48)
    assert torch.equal(shared, apart)
    a, b = (torch.autograd.grad(picture.square().sum(), maps, retain_graph=True)[0] for picture in (shared, apart))
    torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=1e-4)


def test_poses_receive_gradients_that_point_downhill():
    rig = small_rig()
    uv = UVGaussians(rig, 24)
    gaussians = uv.bind(rig.mean[None], uv.neutral()[None])
    rotation, translation, K = camera(1, 48)
    target, _, _ = render_head(gaussians, rotation, translation, K, 48, 48)
    off = (translation + torch.tensor([[0.03, -0.02, 0.0]])).requires_grad_(True)
    image, _, _ = render_head(gaussians, rotation, off, K, 48, 48)
    (gradient,) = torch.autograd.grad((image - target).square().sum(), off)
    assert gradient[0, 0] > 0 > gradient[0, 1]


def test_neutral_gaussians_cover_the_face_of_the_mean_head():
    rig = load_rig("mediapipe")
    uv = UVGaussians(rig, 96)
    gaussians = uv.bind(rig.mean[None], uv.neutral(torch.tensor([1.0, 0, 0]))[None])
    K = torch.tensor([[[4.0 * 96, 0, 48], [0, 4.0 * 96, 48], [0, 0, 1]]])
    image, alpha, _ = render_head(gaussians, torch.eye(3)[None], torch.tensor([[0, 0, 14.0]]), K, 96, 96)
    face = rig.mean[:468] if rig.n_landmarks == 478 else rig.mean
    pixel = face[:, :2] / (face[:, 2:] + 14) * 4 * 96 + 48
    inside = pixel.round().long().clamp(0, 95)
    assert alpha[0, inside[:, 1], inside[:, 0], 0].quantile(0.05) > 0.9
    assert image[..., 1:].max() < 1e-6
    assert alpha[0, 0, 0] < 0.01


@pytest.mark.parametrize("resolution", [64, 128])
@pytest.mark.parametrize("yaw", [-40, 0, 40])
def test_covering_gaussians_leave_no_gap_in_cranium_and_neck(resolution, yaw):
    rig = load_rig("mediapipe")
    uv = UVGaussians(rig, resolution)
    gaussians = uv.bind(rig.mean[None], covering(uv, rig)[None])
    K = torch.tensor([[[3.0 * 128, 0, 64], [0, 3.0 * 128, 56], [0, 0, 1]]])
    turn = torch.from_numpy(euler_to_rotation(np.radians([yaw]), np.zeros(1), np.zeros(1))).float()
    _, alpha, _ = render_head(gaussians, turn, torch.tensor([[0, 0, 14.0]]), K, 128, 128)
    covered = alpha[0, ..., 0].numpy()
    silhouette = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(covered > 0.5, 4), iterations=4)[4:-4, 4:-4])
    inside = ndimage.binary_erosion(silhouette, iterations=2)
    assert inside.sum() > 2000
    assert covered[inside].min() > 0.5
    assert np.quantile(covered[inside], 0.02) > 0.95


def test_a_binding_moves_with_its_module_and_stays_out_of_its_weights():
    uv = UVGaussians(small_rig(), 16)
    assert not uv.state_dict()
    assert uv.to(torch.device("meta")).texels.device.type == "meta"


def test_wrong_shapes_are_named():
    rig = small_rig()
    uv = UVGaussians(rig, 16)
    with pytest.raises(InputError, match=rf"maps: expected \[B, {uv.n}, 14\], got \[1, 3, 14\]"):
        uv.bind(rig.mean[None], torch.zeros(1, 3, 14))
    with pytest.raises(InputError, match=r"vertices: expected \[B, 5, 3\], got \[5, 3\]"):
        uv.bind(rig.mean, torch.zeros(1, uv.n, 14))
    with pytest.raises(InputError, match="2 sets of vertices do not go with 3 maps"):
        uv.bind(rig.mean.repeat(2, 1, 1), torch.zeros(3, uv.n, 14))
    gaussians = uv.bind(rig.mean[None], uv.neutral()[None])
    with pytest.raises(InputError, match="render_head: expected rotation"):
        render_head(gaussians, torch.eye(3), torch.zeros(1, 3), torch.eye(3)[None], 8, 8)


def picture_of_waves(size):
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return torch.stack([(6 * x).sin() / 2 + 0.5, (5 * y).cos() / 2 + 0.5, ((x**2 + y**2) < 0.5).float()], -1)


@pytest.mark.parametrize("absgrad", [False, True])
def test_a_free_cloud_densifies_where_the_picture_asks_for_it(absgrad):
    torch.manual_seed(0)
    target = picture_of_waves(48)
    cloud = FreeGaussians(torch.randn(150, 3) * 0.4, opacity=0.3)
    options = {
        "refine_start_iter": 10,
        "refine_every": 15,
        "absgrad": absgrad,
        "grow_grad2d": 4e-4 if absgrad else 2e-4,
    }
    densifier = Densifier(cloud, rates={"means": 5e-3, "colors": 2e-2}, **options)
    views = (torch.eye(3)[None], torch.tensor([[0.0, 0, 5]]), torch.tensor([[[96.0, 0, 24], [0, 96, 24], [0, 0, 1]]]))
    losses = []
    for _ in range(50):
        image, _, meta = render_head(cloud.gaussians(), *views, 48, 48, absgrad=absgrad)
        loss = (image[0] - target).square().mean()
        densifier.before_backward(meta)
        loss.backward()
        densifier.after_backward(meta)
        losses.append(loss.item())
    assert cloud.n > 200
    assert losses[-1] < 0.25 * losses[0]
    assert all(len(p) == cloud.n for p in cloud.parameters())
    fresh = FreeGaussians(torch.zeros(2, 3), scale=1.0)
    fresh.load_state_dict(cloud.state_dict())
    assert torch.equal(fresh.gaussians().means, cloud.gaussians().means)


def test_a_cloud_inside_a_larger_scene_counts_its_own_gradients():
    torch.manual_seed(0)
    rig = small_rig()
    uv = UVGaussians(rig, 16)
    face = uv.bind(rig.mean[None], uv.neutral()[None])
    cloud = FreeGaussians(torch.randn(20, 3) * 0.3)
    densifier = Densifier(cloud)
    scene = Gaussians.join(face, cloud.gaussians())
    assert scene.n == uv.n + 20
    image, _, meta = render_head(scene, *camera(1, 32), 32, 32)
    densifier.before_backward(meta)
    image.square().sum().backward()
    densifier.after_backward(meta, first=uv.n)
    counted = densifier.state["count"]
    assert counted.shape == (20,)
    assert torch.equal(counted, (meta["radii"][0, 0, uv.n :] > 0).all(-1).float())


def test_a_bad_cloud_is_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"points: expected \[N, 3\] with N at least 1, got \[0, 3\]"):
        FreeGaussians(torch.zeros(0, 3))
    with pytest.raises(InputError, match="unknown part 'mean'"):
        Densifier(FreeGaussians(torch.randn(4, 3)), rates={"mean": 1.0})
