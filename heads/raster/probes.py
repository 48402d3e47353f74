"""Probes: whether a backend can be used. A probe never raises and imports nothing heavy; it runs once per process."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

import torch


@dataclass(frozen=True)
class Probe:
    """One backend: whether it is usable, what was found, and the command or step that would make it usable ("" if it is)."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def installed(package: str) -> bool:
    """Whether a package is installed, without importing it."""
    return importlib.util.find_spec(package) is not None


def version(package: str) -> str:
    """The installed version of a package."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "of unknown version"


@cache
def probe_cuda() -> Probe:
    """A CUDA device that torch can use."""
    if not torch.cuda.is_available():
        why = "torch is built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        return Probe("cuda", False, why, "install an NVIDIA driver and a CUDA build of torch (https://pytorch.org)")
    names = ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))
    return Probe("cuda", True, f"{names} (CUDA {torch.version.cuda})")
