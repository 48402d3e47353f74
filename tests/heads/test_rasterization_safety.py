"""The rasteriser stands bad input, threads, forks and read-only machines; its vector type computes what it says."""

from __future__ import annotations

import multiprocessing
import os
import platform
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import InputError
from heads import get_num_threads, rasterization, set_num_threads
from heads.raster import threads
from heads.raster.simd import jit
from heads.raster.simd.channels import load_pixels, store_pixels, store_planes, store_totals
from heads.raster.simd.maths import exp_fast, exp_negative
from heads.raster.simd.memory import load, store
from heads.raster.simd.vector import WIDTH
from tests.support.raster_scenes import head_scene, scene
from tests.support.waiting import LONGEST

# How one Gaussian of a good scene may be spoilt: (what, index of the argument, value)
SPOILT = {
    "nothing": None,
    "zero scale": (2, 0.0),
    "one axis flat": (2, [0.0, 0.1, 0.1]),
    "enormous": (2, 1e12),
    "huge": (2, 1e4),
    "needle": (2, [50.0, 1e-5, 1e-5]),
    "behind the camera": (0, [0.0, 0.0, -50.0]),
    "in the camera": (0, [0.0, 0.0, -5.0]),
    "just before the near plane": (0, [0.1, 0.1, -4.989]),
    "far away": (0, [0.0, 0.0, 1e8]),
    "far aside": (0, [1e6, 0.0, 0.0]),
    "no direction": (1, 0.0),
    "tiny quaternion": (1, 1e-20),
    "transparent": (3, 0.0),
    "at the threshold": (3, 1 / 255),
    "opaque": (3, 1.0),
    "NaN mean": (0, float("nan")),
    "infinite mean": (0, float("inf")),
    "NaN scale": (2, float("nan")),
    "infinite scale": (2, float("inf")),
    "NaN quaternion": (1, float("nan")),
    "NaN opacity": (3, float("nan")),
}


def identity_view(arguments):
    arguments[5] = torch.eye(4, dtype=arguments[5].dtype)[None].clone()
    arguments[5][0, 2, 3] = 5
    return arguments


@given(
    st.lists(st.sampled_from(sorted(SPOILT)), min_size=1, max_size=8),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(["classic", "antialiased"]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_spoilt_gaussians_never_spoil_the_picture_or_its_gradients(kinds, dtype, mode, no_blur):
    arguments = identity_view(list(scene(12, (20, 20), dtype=dtype)))
    for row, kind in enumerate(kinds):
        if SPOILT[kind] is not None:
            index, value = SPOILT[kind]
            arguments[index][row] = torch.tensor(value, dtype=dtype)
    leaves = [t.clone().requires_grad_(True) for t in arguments[:6]]
    picture, alpha, meta = rasterization(
        *leaves, *arguments[6:], rasterize_mode=mode, eps2d=0.0 if no_blur else 0.3, render_mode="RGB+ED", absgrad=True
    )
    assert picture.isfinite().all()
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    (picture.sum() + alpha.sum()).backward()
    for leaf in leaves:
        assert leaf.grad.isfinite().all()
    for row, kind in enumerate(kinds):
        if kind.startswith(("NaN", "infinite", "behind", "transparent")):
            assert (meta["radii"][0, row] == 0).all()
            assert all((leaf.grad[row] == 0).all() for leaf in leaves[:5])


def test_an_empty_scene_shows_its_background():
    arguments = list(scene(12, (9, 7), dtype=torch.float32, cameras=2))
    for k in range(5):
        arguments[k] = arguments[k][:0].requires_grad_(True)
    background = torch.rand(2, 3)
    for backend in ("cpu", "torch"):
        picture, alpha, meta = rasterization(*arguments, backgrounds=background, backend=backend)
        assert torch.equal(picture, background[:, None, None].expand(2, 7, 9, 3))
        assert (alpha == 0).all()
        assert meta["means2d"].shape == (2, 0, 2)
    picture, _, _ = rasterization(*arguments, backgrounds=background)
    picture.sum().backward()
    assert arguments[0].grad.shape == (0, 3)


def test_a_scene_behind_the_camera_shows_its_background():
    arguments = list(scene(12, (9, 7), dtype=torch.float32))
    arguments[5] = arguments[5].clone()
    arguments[5][..., 2, 3] = -20
    picture, alpha, _ = rasterization(*arguments, backgrounds=torch.ones(1, 3))
    assert (picture == 1).all()
    assert (alpha == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (40, 3), (33, 31)])
def test_pictures_of_any_size_agree_with_the_twin(size):
    arguments = scene(60, size)
    ours, _, _ = rasterization(*arguments, render_mode="RGB+D")
    reference, _, _ = rasterization(*arguments, render_mode="RGB+D", backend="torch")
    assert (ours - reference).abs().max() < 1e-11


@pytest.fixture
def restore_threads():
    yield
    set_num_threads(None)


def picture_and_gradients(arguments):
    leaves = [t.detach().clone().requires_grad_(True) for t in arguments[:5]]
    picture, alpha, _ = rasterization(*leaves, *arguments[5:])
    (picture.square().sum() + alpha.sum()).backward()
    return [picture.detach(), alpha.detach(), *(leaf.grad for leaf in leaves)]


def test_pictures_and_gradients_are_the_same_bits_for_any_number_of_threads(restore_threads):
    arguments = head_scene(20_000, 160)
    results = []
    for count in (1, 2, 3):
        set_num_threads(count)
        results.append(picture_and_gradients(arguments))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def test_many_threads_may_render_at_once(restore_threads):
    set_num_threads(2)
    arguments = head_scene(9000, 96)
    expected = picture_and_gradients(arguments)
    wrong = []

    def work():
        for _ in range(3):
            if not all(torch.equal(a, b) for a, b in zip(expected, picture_and_gradients(arguments))):
                wrong.append(threading.current_thread().name)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LONGEST)
    assert not any(worker.is_alive() for worker in workers)
    assert not wrong


def _render_in_child(queue):
    set_num_threads(2)
    torch.set_num_threads(1)
    queue.put(float(rasterization(*head_scene(9000, 96))[0].double().sum()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_process_renders_after_its_parent_has(method, restore_threads):
    set_num_threads(2)
    expected = float(rasterization(*head_scene(9000, 96))[0].double().sum())
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_render_in_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=LONGEST) == expected
        child.join(LONGEST)
        assert child.exitcode == 0
    finally:
        child.kill()


def test_the_thread_limit_comes_from_the_call_the_environment_or_torch(monkeypatch, restore_threads):
    assert get_num_threads() == int(os.environ.get("HEADSTART_THREADS", torch.get_num_threads()))
    monkeypatch.setenv("HEADSTART_THREADS", "3")
    assert get_num_threads() == 3
    set_num_threads(5)
    assert get_num_threads() == 5
    set_num_threads(None)
    monkeypatch.setenv("HEADSTART_THREADS", "many")
    with pytest.raises(InputError, match=r"HEADSTART_THREADS.*got 'many'"):
        get_num_threads()
    with pytest.raises(InputError, match="got 0"):
        set_num_threads(0)


def test_an_error_in_a_worker_reaches_the_caller():
    def fail(number):
        if number == 0:
            raise ZeroDivisionError("in the worker")

    with pytest.raises(ZeroDivisionError, match="in the worker"):
        threads.run(fail, [(0,), (1,)], 2)


def test_kernels_compile_where_no_cache_can_be_written(monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", "/dev/null/nowhere")

    @jit.kernel
    def double(a):
        for i in range(len(a)):
            a[i] *= 2

    values = np.ones(3)
    double(values)
    assert values.tolist() == [2, 2, 2]


@jit.kernel
def _vector_functions(x, exp_small, exp_any, sums, pixels, back):
    for at in range(0, len(x), WIDTH):
        v = load(x, at)
        store(exp_small, at, exp_negative(v))
        store(exp_any, at, exp_fast(v * 10.0 - 20.0))
    a, b, c = load(x, 0), load(x, 8), load(x, 16)
    store_totals(sums, 0, (a, b, c, a + b, b + c, a + c, a - b, b - c, c - a))
    store_pixels(pixels, 0, (a, b, c))
    store_planes(back, 0, 8, load_pixels(pixels, 0, (0, 0, 0)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_vector_type_computes_what_it_says(dtype):
    x = np.linspace(0, np.log(255), 4000).astype(dtype)
    small, big, sums, pixels, back = (np.zeros(n, dtype) for n in (4000, 4000, 9, 24, 24))
    _vector_functions(x, small, big, sums, pixels, back)
    exact = x.astype(np.float64)
    tolerance = 3e-6 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(small, np.exp(-exact), rtol=tolerance)
    np.testing.assert_allclose(big, np.exp(exact * 10 - 20), rtol=10 * tolerance)
    a, b, c = exact[:24].reshape(3, 8)
    expected = [v.sum() for v in (a, b, c, a + b, b + c, a + c, a - b, b - c, c - a)]
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(pixels.reshape(8, 3), x[:24].reshape(3, 8).T)
    np.testing.assert_array_equal(back, x[:24])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="counts x86 instructions")
def test_vector_code_is_compiled_to_packed_instructions():
    import numba

    @numba.njit(error_model="numpy", fastmath=jit.FASTMATH)
    def fresh(x, out):
        for at in range(0, len(x), WIDTH):
            store(out, at, exp_negative(load(x, at)))

    fresh(np.zeros(16, np.float32), np.zeros(16, np.float32))
    assembly = next(iter(fresh.inspect_asm().values()))
    register = "ymm" if "ymm" in assembly else "xmm"
    lines = [line for line in assembly.splitlines() if register in line]
    arithmetic = [line for line in lines if line.split()[0].endswith("ps") and not line.split()[0].startswith("vmov")]
    assert len(arithmetic) >= 8
