"""Which engines this machine has: CUDA, gsplat, tinycudann, our CPU kernels. `doctor` shows these probes.

A probe never raises and imports nothing heavy; what it finds is kept for the life of the process.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Probe:
    """One engine: is it usable, what was found, and the command or step that would make it usable ("" when it is)."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


@cache
def probe_cuda() -> Probe:
    """A CUDA device that torch can use."""
    import torch

    if not torch.cuda.is_available():
        why = "torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        return Probe("cuda", False, why, "install an NVIDIA driver and a CUDA build of torch (https://pytorch.org)")
    names = ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))
    return Probe("cuda", True, f"{names} (CUDA {torch.version.cuda})")


@cache
def probe_gsplat() -> Probe:
    """gsplat with a device for its kernels, and either built kernels or a compiler to build them at first use."""
    if not _installed("gsplat"):
        return Probe("gsplat", False, "gsplat is not installed", "pip install 'headstart[gpu]'")
    found = f"gsplat {_version('gsplat')}"
    if not probe_cuda().ok:
        return Probe("gsplat", False, f"{found}, but {probe_cuda().detail}", probe_cuda().fix)
    spec = importlib.util.find_spec("gsplat")
    folder = (spec.submodule_search_locations or [""])[0] if spec else ""
    built = bool(folder) and any(name.startswith("csrc") and name.endswith(".so") for name in os.listdir(folder))
    if not built and shutil.which("nvcc") is None and "CUDA_HOME" not in os.environ:
        fix = "install the CUDA toolkit (nvcc), or a prebuilt wheel from https://docs.gsplat.studio/whl"
        return Probe("gsplat", False, f"{found} without built kernels, and there is no nvcc to build them", fix)
    return Probe("gsplat", True, found if built else f"{found}, kernels are built by nvcc at first use")


@cache
def probe_tinycudann() -> Probe:
    """tiny-cuda-nn's PyTorch bindings and a device for them."""
    name = "tinycudann"
    if not _installed(name):
        fix = "pip install git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"
        return Probe(name, False, "tinycudann is not installed: the PyTorch twin encodes instead", fix)
    if not probe_cuda().ok:
        return Probe(name, False, f"tinycudann {_version(name)}, but {probe_cuda().detail}", probe_cuda().fix)
    return Probe(name, True, f"tinycudann {_version(name)}")


@cache
def probe_cpu() -> Probe:
    """Our CPU rasteriser: numba, threads, and where compiled kernels are kept."""
    if not _installed("numba"):
        return Probe("cpu", False, "numba is not installed: only the slow PyTorch twin renders", "pip install numba")
    from heads.raster.simd.jit import cache_folder
    from heads.raster.threads import get_num_threads

    folder = cache_folder()
    detail = f"numba {_version('numba')}, {get_num_threads()} threads, compiled kernels in {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        return Probe("cpu", True, f"{detail} (not writable: compiled anew in every process)", "set HEADSTART_CACHE")
    return Probe("cpu", True, detail)


def rendering_check() -> dict[str, object]:
    """One line for `doctor`: the backend that will render here and what the others lack.

    Not ok only where a GPU is present that rendering will not use, or where only the slow twin is left.
    """
    device = "cuda" if probe_cuda().ok else "cpu"
    backend = default_backend(device)
    found = {"cpu": probe_cpu(), "gsplat": probe_gsplat()}
    others = "; ".join(f"{name}: {probe.detail}" for name, probe in found.items() if name != backend and not probe.ok)
    used = found[backend].detail if backend in found else "the PyTorch twin, slow"
    lacking = found["gsplat"] if device == "cuda" else found["cpu"]
    detail = f"{backend} ({used})" + (f"; {others}" if others else "")
    ok = backend != "torch"
    return {"name": "rendering", "ok": ok, "detail": detail, "fix": "" if ok else lacking.fix}


def default_backend(device_type: str) -> str:
    """The rendering backend for tensors on a device: gsplat on CUDA, our kernels on the CPU, else the PyTorch twin."""
    if device_type == "cuda" and probe_gsplat().ok:
        return "gsplat"
    if device_type == "cpu" and _installed("numba"):
        return "cpu"
    return "torch"
