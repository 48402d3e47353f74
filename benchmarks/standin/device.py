"""Builds, loads and registers the stand-in device.

``load()`` compiles two C++ files against the installed torch (about a minute, once: the result is cached by the hash of
the sources, torch's version and the compiler) and registers ``torch.device("standin")`` in this process. Call it before
the first backward pass: autograd creates its threads for the devices that exist then.

Its tensors are in host memory and every operator runs its CPU kernel, so values equal the CPU's. What CUDA refuses is an
error: operands on two devices, ``.numpy()``, a generator of another device. So is float64, which Apple's GPUs lack and
consumer GPUs compute at 1/64 of the speed. New memory holds NaNs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

NAME = "standin"
HERE = Path(__file__).parent
SOURCES = ("device.cpp", "autocast.cpp")
FLAGS = ("-O1", "-std=c++20", "-w")


def missing() -> str | None:
    """Why the device cannot be built here, or None."""
    if shutil.which("g++") is None and shutil.which("c++") is None:
        return "no C++ compiler (g++) to build the stand-in device with"
    if os.name != "posix" or sys.platform == "darwin":
        return f"the stand-in device is built on Linux alone, this is {sys.platform}"
    return None


def load() -> torch.device:
    """The device, built and registered at the first call.

    Raises:
        RuntimeError: it cannot be built here (see :func:`missing`), or the compiler failed.
    """
    if torch._C._get_privateuse1_backend_name() != NAME:
        # Autograd's thread for the device would otherwise outlive the interpreter, and abort the process at its end.
        os.environ.setdefault("TORCH_AUTOGRAD_SHUTDOWN_WAIT_LIMIT", "0")
        torch.ops.load_library(str(build()))
        torch.ops.standin.start()
        torch.utils.rename_privateuse1_backend(NAME)
        torch._register_device_module(NAME, _module())
        torch.utils.generate_methods_for_privateuse1_backend()
        # CUDA's parameters stay the same objects when their module moves, so an optimiser made before still has them.
        torch.__future__.set_swap_module_params_on_conversion(True)
    return torch.device(NAME, 0)


def build() -> Path:
    """The shared library, compiled unless the cache holds it."""
    if why := missing():
        raise RuntimeError(why)
    compiler = shutil.which("g++") or "c++"
    library = _folder() / f"{_fingerprint(compiler)}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        _compile(compiler, library)
    return library


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path(tempfile.gettempdir()) / f"headstart-standin-{os.getuid()}"
    return Path(base) / "headstart-standin"


def _fingerprint(compiler: str) -> str:
    digest = hashlib.sha256(f"{torch.__version__} {compiler} {FLAGS}".encode())
    for name in SOURCES:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:20]


def _compile(compiler: str, library: Path) -> None:
    from torch.utils.cpp_extension import include_paths

    includes = [part for path in include_paths() for part in ("-isystem", path)]
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        objects = [Path(scratch) / f"{name}.o" for name in SOURCES]
        running = [
            subprocess.Popen(
                [compiler, *FLAGS, abi, "-fPIC", *includes, "-c", str(HERE / name), "-o", str(made)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for name, made in zip(SOURCES, objects)
        ]
        errors = [process.communicate()[1] for process in running]
        if any(process.returncode for process in running):
            raise RuntimeError("the stand-in device does not compile:\n" + "\n".join(errors)[-4000:])
        libs = Path(torch.__file__).parent / "lib"
        made = Path(scratch) / "whole.so"
        link = [compiler, "-shared", *map(str, objects), f"-L{libs}", "-ltorch_cpu", "-lc10", "-o", str(made)]
        subprocess.run(link, check=True, capture_output=True)
        made.replace(library)


@dataclass
class Counts:
    """What the device was asked to do, each by operator's name.

    Attributes:
        launches: kernels; waits: the host needs a value of the device (``.item()``, ``nonzero``, a mask as index);
        to_host: copies to the host, which wait too; to_device: copies that wait (not from pinned memory, or not
        ``non_blocking``); to_device_async: copies that do not.
    """

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    to_host: Counter[str] = field(default_factory=Counter)
    to_device: Counter[str] = field(default_factory=Counter)
    to_device_async: Counter[str] = field(default_factory=Counter)

    @property
    def synchronisations(self) -> Counter[str]:
        """Everything that makes the host wait for the device."""
        return self.waits + self.to_host


_KINDS = {
    "launch": "launches",
    "wait": "waits",
    "to_host": "to_host",
    "to_device": "to_device",
    "to_device_async": "to_device_async",
}


@contextlib.contextmanager
def counting() -> Iterator[Counts]:
    """Counts what the device is asked to do inside the block; read the result after it."""
    counts = Counts()
    before: dict[str, int] = dict(torch.ops.standin.counts())
    try:
        yield counts
    finally:
        for key, number in torch.ops.standin.counts().items():
            kind, _, name = key.partition("/")
            if more := number - before.get(key, 0):
                getattr(counts, _KINDS[kind])[name] += more


def _module() -> types.ModuleType:
    """``torch.standin``: what libraries ask of ``torch.cuda``."""
    module = types.ModuleType(f"torch.{NAME}")
    operators = torch.ops.standin
    entries: dict[str, Any] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "synchronize": lambda device=None: operators.synchronize(),
        "empty_cache": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "manual_seed": lambda seed: operators.set_seed(int(seed)),
        "manual_seed_all": lambda seed: operators.set_seed(int(seed)),
        "get_rng_state": lambda device=None: operators.get_random_state(),
        "set_rng_state": lambda state, device=None: operators.set_random_state(state),
        "get_amp_supported_dtype": lambda: [torch.bfloat16, torch.float16],
        "get_device_name": lambda device=None: "stand-in accelerator in host memory",
        "max_memory_allocated": lambda device=None: operators.peak(),
        "memory_allocated": lambda device=None: operators.allocated(),
        "reset_peak_memory_stats": lambda device=None: operators.reset_peak(),
    }
    for name, value in entries.items():
        setattr(module, name, value)
    return module
