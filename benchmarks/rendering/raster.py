"""The rasteriser and the binding of UV Gaussians: time per picture against our reference and gsplat's PyTorch projection.

Scenes are head-sized ellipsoids whose Gaussians are as large in the picture as a fitted head's (3-sigma 3 to 7 px) and
are in random order in memory, the worst case for the caches. Times are the least of several repetitions, which a busy
machine disturbs least; ratios are taken within one run.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from benchmarks.results import row, write

SCENES = ((5_000, 128), (20_000, 256), (60_000, 512))
# Forward and backward on two quiet cores as a study of five routes measured it (fused numba, the best of them).
STUDY_MS = {5_000: 2.1, 20_000: 7.0, 60_000: 19.7}
STUDY_FORWARD_MS = {5_000: 1.1, 20_000: 3.3, 60_000: 9.4}
REFERENCE_LIMIT = 20_000  # the reference's gradients of more Gaussians take gigabytes


def scene(number: int, size: int, device: str = "cpu") -> list[Any]:
    """Arguments of `rasterization` for `number` Gaussians on a picture of `size` pixels squared."""
    import torch

    g = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.randn(number, 3, generator=g), dim=-1)
    means = direction * torch.tensor([0.8, 1.1, 0.9]) * (1 + 0.03 * torch.randn(number, 1, generator=g))
    quats = torch.randn(number, 4, generator=g)
    spread = torch.exp(0.4 * torch.randn(number, 3, generator=g)) * torch.tensor([1, 1, 0.4])
    opacities = torch.rand(number, generator=g) * 0.7 + 0.2
    colors = torch.rand(number, 3, generator=g)
    viewmats = torch.eye(4)[None].clone()
    viewmats[0, 2, 3] = 10
    Ks = torch.tensor([[[4.0 * size, 0, size / 2], [0, 4.0 * size, size / 2], [0, 0, 1]]])
    tensors = [means, quats, 1.9 / math.sqrt(number) * spread, opacities, colors, viewmats, Ks]
    return [t.to(device) for t in tensors] + [size, size]


def least_ms(function: Callable[[], Any], repeats: int, budget_s: float = 1.5) -> float:
    """Least time of one call in milliseconds, after one call to warm up."""
    function()
    best, start = math.inf, time.perf_counter()
    for _ in range(repeats):
        before = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - before)
        if time.perf_counter() - start > budget_s:
            break
    return best * 1e3


def passes(arguments: list[Any], backend: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """(forward, forward and backward) of a scene on a backend, gradients to all six inputs."""
    import torch

    from heads import rasterization

    leaves = [t.clone().requires_grad_(True) for t in arguments[:6]]
    weights = torch.randn(1, arguments[7], arguments[7], 3, device=arguments[0].device)

    def wait() -> None:
        if weights.is_cuda:
            torch.cuda.synchronize()

    def forward() -> None:
        with torch.no_grad():
            rasterization(*leaves, *arguments[6:], backend=backend)
        wait()

    def both() -> None:
        picture, _, _ = rasterization(*leaves, *arguments[6:], backend=backend)
        torch.autograd.grad(picture, leaves, weights)
        wait()

    return forward, both


def rasteriser_rows() -> list[dict[str, Any]]:
    """Kernels on one and two threads against the reference, forward and with gradients."""
    from heads import set_num_threads

    rows = []
    for number, size in SCENES:
        arguments = scene(number, size)
        case = f"{number // 1000}k Gaussians, {size}x{size}"
        forward, both = passes(arguments, "torch")
        reference_forward = least_ms(forward, 10)
        reference_both = least_ms(both, 10) if number <= REFERENCE_LIMIT else None
        rows.append(row(f"{case}, forward", "PyTorch reference, 1 thread", reference_forward, "ms"))
        if reference_both is not None:
            rows.append(row(f"{case}, forward + backward", "PyTorch reference, 1 thread", reference_both, "ms"))
        for threads in (1, 2):
            set_num_threads(threads)
            forward, both = passes(arguments, "cpu")
            variant = f"our kernels, {threads} thread{'s' * (threads > 1)}"
            value = least_ms(forward, 40)
            against = f"reference {reference_forward:.0f} ms"
            if threads == 2:
                against += f"; study on quiet cores {STUDY_FORWARD_MS[number]} ms"
            rows.append(row(f"{case}, forward", variant, value, "ms", against, value / reference_forward))
            value = least_ms(both, 40)
            against = f"reference {reference_both:.0f} ms" if reference_both else ""
            ratio = value / reference_both if reference_both else None
            if threads == 2:
                against = f"{against + '; ' if against else ''}study on quiet cores {STUDY_MS[number]} ms"
            rows.append(row(f"{case}, forward + backward", variant, value, "ms", against, ratio))
        set_num_threads(None)
    return rows


def projection_rows() -> list[dict[str, Any]]:
    """Our projection against gsplat's PyTorch reference, the part of gsplat that runs on a CPU."""
    import torch

    try:
        from gsplat.cuda._torch_impl import _fully_fused_projection, _quat_scale_to_covar_preci
    except ImportError:
        return []
    from heads.raster.backends.cpu import project
    from heads.raster.camera import Camera

    number, size = SCENES[-1]
    means, quats, scales, opacities, _, viewmats, Ks, _, _ = scene(number, size)
    leaves = [t.clone().requires_grad_(True) for t in (means, quats, scales)]

    def ours() -> None:
        parts = project(*(t[None] for t in leaves), opacities[None], viewmats[None], Ks[None], Camera(size, size))
        torch.autograd.grad(parts[0].sum() + parts[1].sum(), leaves)

    def theirs() -> None:
        covariances, _ = _quat_scale_to_covar_preci(leaves[1], leaves[2], compute_preci=False)
        _, means2d, _, conics, _ = _fully_fused_projection(leaves[0], covariances, viewmats, Ks, size, size)
        torch.autograd.grad(means2d.sum() + conics.sum(), leaves)

    case = f"{number // 1000}k projections, forward + backward"
    reference, value = least_ms(theirs, 10), least_ms(ours, 40)
    return [
        row(case, "gsplat's PyTorch reference, 1 thread", reference, "ms"),
        row(case, "our kernels, 1 thread", value, "ms", "gsplat's reference", value / reference),
    ]


def binding_rows() -> list[dict[str, Any]]:
    """UV Gaussians to head space: kernel against reference, and Adam over them."""
    import torch

    from heads.gaussians.uv import UVGaussians

    uv = UVGaussians(_grid_rig(40), 256)
    vertices = uv._mean[None].clone().requires_grad_(True)
    maps = uv.neutral()[None].clone().requires_grad_(True)
    rows, reference = [], None
    for variant, bind in (("PyTorch reference, 1 thread", uv.bind_reference), ("our kernels, 1 thread", uv.bind)):

        def step(bind: Callable = bind) -> None:
            g = bind(vertices, maps)
            total = g.means.sum() + g.quats.sum() + g.scales.sum() + g.opacities.sum() + g.colors.sum()
            torch.autograd.grad(total, (vertices, maps))

        value = least_ms(step, 20)
        ratio = None if reference is None else value / reference
        case = f"{uv.n // 1000}k UV Gaussians bound, forward + backward"
        rows.append(
            row(
                case,
                variant,
                value,
                "ms",
                "" if ratio is None else "reference",
                ratio,
            )
        )
        reference = reference or value
    return rows + _adam_rows(maps)


def _adam_rows(maps: Any) -> list[dict[str, Any]]:
    """One step of Adam on the map: PyTorch's default loop over tensors against its fused kernel."""
    import torch

    rows, reference = [], None
    for variant, fused in (("Adam, default", False), ("Adam, fused=True", True)):
        parameter = torch.nn.Parameter(maps.detach()[0].clone())
        parameter.grad = torch.randn_like(parameter)
        optimizer = torch.optim.Adam([parameter], lr=1e-3, fused=fused)
        value = least_ms(optimizer.step, 40)
        ratio = None if reference is None else value / reference
        rows.append(
            row(f"{len(parameter) // 1000}k x 14 parameters", variant, value, "ms", "default" * bool(ratio), ratio)
        )
        reference = reference or value
    return rows


def _grid_rig(cells: int) -> SimpleNamespace:
    """A bent sheet of 2 x cells^2 triangles that fills its atlas: as many triangles as a head, and no file needed."""
    import torch

    line = torch.linspace(0.01, 0.99, cells + 1)
    v, u = torch.meshgrid(line, line, indexing="ij")
    mean = torch.stack([u - 0.5, v - 0.5, (u * 3).sin() * 0.2], -1).reshape(-1, 3)
    corner = (torch.arange(cells)[:, None] * (cells + 1) + torch.arange(cells)).reshape(-1)
    below = corner + cells + 1
    faces = torch.cat([torch.stack([corner, corner + 1, below], 1), torch.stack([corner + 1, below + 1, below], 1)])
    uvs = torch.stack([u, v], -1).reshape(-1, 2)[faces]
    return SimpleNamespace(faces=faces, face_uvs=uvs, face_regions=torch.zeros(len(faces), dtype=torch.long), mean=mean)


_MEMORY_PROGRAM = """
from pathlib import Path
from benchmarks.rendering.raster import SCENES, passes, scene
from heads import set_num_threads

def kilobytes(key):
    return int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])

set_num_threads(2)
passes(scene(500, 32), "cpu")[1]()
_, both = passes(scene(*SCENES[-1]), "cpu")
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of compiling and importing
before = kilobytes("VmRSS")
both()
print((kilobytes("VmHWM") - before) / 1024)
"""


def memory_rows() -> list[dict[str, Any]]:
    """Growth of the peak resident memory by one forward and backward pass, in a process of its own (Linux)."""
    if not os.path.exists("/proc/self/clear_refs"):
        return []
    result = subprocess.run([sys.executable, "-c", _MEMORY_PROGRAM], capture_output=True, text=True, check=True)
    number, size = SCENES[-1]
    case = f"{number // 1000}k Gaussians, {size}x{size}, forward + backward"
    return [row(case, "our kernels, peak memory", float(result.stdout), "MiB", "15 to 20 MB of a study")]


def gpu_rows() -> list[dict[str, Any]]:
    """gsplat through the same function, where there is a GPU."""
    from heads.raster.backends.gsplat import probe as probe_gsplat

    if not probe_gsplat().ok:
        return []
    rows = []
    for number, size in SCENES:
        forward, both = passes(scene(number, size, "cuda"), "gsplat")
        case = f"{number // 1000}k Gaussians, {size}x{size}"
        rows.append(row(f"{case}, forward", "gsplat, CUDA", least_ms(forward, 50), "ms"))
        rows.append(row(f"{case}, forward + backward", "gsplat, CUDA", least_ms(both, 50), "ms"))
    return rows


def main() -> None:
    """Measure, print the table and write `results/raster.json`."""
    import torch

    before = torch.get_num_threads()
    # PyTorch's own threads wait for each other by spinning: on a shared machine one is faster and fairer to compare.
    torch.set_num_threads(1)
    rows = rasteriser_rows() + projection_rows() + binding_rows() + memory_rows() + gpu_rows()
    torch.set_num_threads(before)
    load = (
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the end"
        if hasattr(os, "getloadavg")
        else ""
    )
    notes = f"Least of several repetitions; scenes in random memory order; {load}."
    write("raster", rows, notes)


if __name__ == "__main__":
    main()
