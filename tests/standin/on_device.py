"""The stand-in itself: what CUDA refuses is refused, values are the CPU's, kernels are called as they are declared."""

from __future__ import annotations

import inspect

import pytest
import torch

from benchmarks.standin import counting
from benchmarks.standin.kernels import FACTS, signature
from configs import InputError
from configs.devices import pick_device
from heads import rasterization
from heads.motion.encoding import TriPlaneHash

REFUSED = {
    "operands on two devices": lambda d: torch.ones(3, device=d) + torch.ones(3),
    "a matrix of the CPU": lambda d: torch.ones(3, 3, device=d) @ torch.ones(3, 3),
    "a list with one of the CPU": lambda d: torch.cat([torch.ones(3, device=d), torch.ones(3)]),
    "numpy": lambda d: torch.ones(3, device=d).numpy(),
    "numpy without saying so": lambda d: __import__("numpy").asarray(torch.ones(3, device=d)),
    "a generator of the CPU": lambda d: torch.randn(3, device=d, generator=torch.Generator()),
    "float64": lambda d: torch.ones(3, device=d).double(),
    "a layer of the CPU": lambda d: torch.nn.Conv2d(1, 1, 1)(torch.ones(1, 1, 2, 2, device=d)),
    "a mask of the CPU": lambda d: torch.where(torch.ones(3, dtype=torch.bool), torch.ones(3, device=d), 0.0),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_refuses(device, what):
    with pytest.raises((RuntimeError, TypeError)):
        REFUSED[what](device)


def test_scalars_and_indices_of_the_cpu_are_taken_as_by_cuda(device):
    x = torch.arange(4.0, device=device)
    assert torch.equal((x * torch.tensor(2.0)).cpu(), torch.arange(4.0) * 2)
    assert torch.equal(x[torch.tensor([1, 3])].cpu(), torch.tensor([1.0, 3.0]))


def test_new_memory_holds_no_number(device):
    assert bool(torch.empty(100, device=device).isnan().all())


def test_waits_and_launches_are_counted(device):
    x = torch.ones(5, device=device)
    with counting() as counts:
        y = (x * 2).sum()
        float(y)
        y.cpu()
        x[x > 0]
    assert counts.launches["aten::mul.out"] == 1
    assert counts.waits["aten::_local_scalar_dense"] == 1
    assert counts.waits["aten::nonzero"] == 1  # the mask, as indices
    assert counts.to_host["aten::copy_"] == 1
    assert counts.synchronisations.total() >= 3


def test_random_numbers_follow_the_seed_and_leave_the_cpus_alone(device):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = torch.nn.functional.dropout(torch.ones(50, device=device)) + torch.randn(50, device=device)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    again = torch.nn.functional.dropout(torch.ones(50, device=device)) + torch.randn(50, device=device)
    assert torch.equal(first.cpu(), again.cpu())


def test_a_device_is_chosen_by_name(device):
    assert pick_device("standin") == pick_device("standin:0") == torch.device("standin", 0)
    assert pick_device("cpu") == torch.device("cpu")
    for name in ("xpu", "meta", "standin:3", "nonsense"):
        with pytest.raises(InputError, match=f"device '{name}'"):
            pick_device(name)


def _scene(device):
    made = torch.Generator().manual_seed(0)

    def some(*shape):
        return torch.randn(*shape, generator=made)

    tensors = [some(2, 200, 3) * 0.5 + torch.tensor([0, 0, 4.0]), some(2, 200, 4), some(2, 200, 3).exp() * 0.05]
    tensors += [some(2, 200).sigmoid(), some(2, 200, 3).sigmoid(), torch.eye(4).expand(2, 1, 4, 4).clone()]
    camera = torch.tensor([[60.0, 0, 32], [0, 60, 32], [0, 0, 1]]).expand(2, 1, 3, 3)
    return [x.to(device).requires_grad_() for x in tensors] + [camera.to(device)]


@pytest.mark.parametrize("mode", ["RGB", "RGB+ED", "D"])
def test_gsplats_path_gives_the_values_and_gradients_of_ours(device, mode):
    found = []
    for place in (torch.device("cpu"), device):
        scene = _scene(place)
        background = torch.rand(2, 1, 3, generator=torch.Generator().manual_seed(1)).to(place)
        image, alpha, meta = rasterization(
            *scene, 64, 48, render_mode=mode, absgrad=True, backgrounds=None if mode == "D" else background
        )
        meta["means2d"].retain_grad()
        (image.square().sum() + alpha.sum()).backward()
        gradients = [x.grad for x in scene[:6] if x.grad is not None] + [meta["means2d"].grad, meta["means2d"].absgrad]
        found.append((meta["backend"], [image, alpha, *gradients]))
    assert [name for name, _ in found] == ["cpu", "gsplat"]
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        assert torch.equal(ours, theirs.cpu())


def test_tinycudanns_path_gives_the_values_and_gradients_of_ours(device):
    grid = TriPlaneHash(levels=4, finest=64)
    with torch.no_grad():
        grid.params.uniform_(-1, 1)
    points = torch.rand(100, 3) * 6 - 3
    expected = grid(points)
    expected.square().sum().backward()
    there = TriPlaneHash(levels=4, finest=64).to(device)
    there.load_state_dict(grid.state_dict())
    assert there.active_backend(device) == "tinycudann"
    got = there(points.to(device))
    got.square().sum().backward()
    # On 64 grid points a position is rounded to 4e-6 of their distance, and the CPU's kernel fuses what others round twice.
    assert torch.allclose(got.cpu(), expected, atol=2e-5)
    assert torch.allclose(there.params.grad.cpu(), grid.params.grad, rtol=1e-4, atol=1e-4)


def test_the_recorded_signatures_are_those_of_the_installed_gsplat(device):
    from importlib.metadata import version

    if version("gsplat") != FACTS["gsplat"]["version"]:
        pytest.skip(f"gsplat {version('gsplat')} is installed, {FACTS['gsplat']['version']} is recorded")
    from gsplat.cuda import _wrapper

    for name in FACTS["gsplat"]["functions"]:
        real = inspect.signature(getattr(_wrapper, name))
        recorded = signature("gsplat", name)
        assert list(real.parameters) == list(recorded.parameters), name
        for key, parameter in recorded.parameters.items():
            assert parameter.default == real.parameters[key].default, f"{name}: {key}"


def test_a_call_that_the_real_kernels_would_not_take_is_refused(device):
    import gsplat

    with pytest.raises(TypeError, match=r"radi(us|i)"):
        gsplat.isect_tiles(torch.ones(1, 1, 2, device=device), radius=3)
    with pytest.raises(RuntimeError, match="must be a CUDA tensor"):
        gsplat.isect_offset_encode(torch.ones(1), 1, 2, 2)
