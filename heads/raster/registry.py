"""Registry of rendering backends: which exist, which are usable here, and which is the default for a device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from types import MappingProxyType

import torch

from configs import InputError, nearest
from heads.raster.backends.base import Backend
from heads.raster.probes import Probe, probe_cuda

GROUP = "headstart.backends"
FOLDER = Path(__file__).parent / "backends"
OLD_NAMES = {"torch": "reference"}


@cache
def backends() -> Mapping[str, Backend]:
    """Every backend by name: ours first, then those of entry points. One that cannot be imported is left out.

    Raises:
        InputError: an entry point that is no :class:`Backend`, or whose name is taken.
    """
    found: dict[str, Backend] = {}
    for backend, _ in _imported().values():
        if backend is not None:
            found[backend.name] = backend
    return MappingProxyType(found)


def probes() -> dict[str, Probe]:
    """The probe of every backend by name, including backends that cannot be imported."""
    return {name: failure if backend is None else backend.probe() for name, (backend, failure) in _imported().items()}


@cache
def default_backend(device: str) -> Backend:
    """The default backend for a device type such as ``cpu``: the usable one with the lowest ``place``.

    Raises:
        InputError: no usable backend takes tensors on such a device.
    """
    for backend in sorted(backends().values(), key=lambda backend: backend.place):
        if backend.takes(device) and backend.probe().ok:
            return backend
    raise InputError(f"rasterization: no backend renders tensors on {device}; {_what_probes_say()}")


@cache
def find_backend(name: str) -> Backend:
    """A backend by name.

    Raises:
        InputError: no such backend, or one that this machine cannot use; the sentence lists what each probe said.
    """
    name = OLD_NAMES.get(name, name)
    known = probes()
    if name not in known:
        raise InputError(f"rasterization: backend '{name}': no such backend{nearest(name, known)}")
    if not known[name].ok:
        raise InputError(f"rasterization: backend '{name}' is not usable: {_what_probes_say()}")
    return backends()[name]


def rendering_check() -> dict[str, object]:
    """One line for ``headstart doctor``: the backend that will render here and what the others lack.

    Not ok if rendering will not use a GPU that is present, or if only the slow reference is usable.
    """
    chosen, found = default_backend("cuda" if probe_cuda().ok else "cpu"), probes()
    others = "; ".join(
        f"{name}: {probe.detail}" for name, probe in found.items() if name != chosen.name and not probe.ok
    )
    detail = f"{chosen.name} ({found[chosen.name].detail})" + (f"; {others}" if others else "")
    lacking = found["gsplat" if probe_cuda().ok else "cpu"]
    ok = chosen.name != "reference"
    return {"name": "rendering", "ok": ok, "detail": detail, "fix": "" if ok else lacking.fix}


def _what_probes_say() -> str:
    said = []
    for name, probe in probes().items():
        state = "usable" if probe.ok else "not usable"
        said.append(f"{name}: {state} ({probe.detail})" + (f", {probe.fix}" if probe.fix else ""))
    return "; ".join(said)


@cache
def _imported() -> dict[str, tuple[Backend | None, Probe]]:
    found: dict[str, tuple[Backend | None, Probe]] = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        if path.stem != "base":
            found[path.stem] = _of_module(path.stem)
    for point in metadata.entry_points(group=GROUP):
        if point.name in found or point.name in OLD_NAMES:
            raise InputError(f"backend '{point.name}' ({point.value}): the name is taken; choose another")
        found[point.name] = _of_entry_point(point)
    return found


def _of_module(name: str) -> tuple[Backend | None, Probe]:
    try:
        return import_module(f"heads.raster.backends.{name}").BACKEND, Probe(name, True, "")
    except Exception as error:  # a third party that is absent, or of a version whose interface has changed
        why = f"cannot be imported: {type(error).__name__}: {error}"
        return None, Probe(name, False, why, "install the versions of constraints.txt")


def _of_entry_point(point: metadata.EntryPoint) -> tuple[Backend | None, Probe]:
    try:
        backend = point.load()
    except Exception as error:  # whatever another package's module does when it is imported
        why = f"{point.value} cannot be imported: {type(error).__name__}: {error}"
        return None, Probe(point.name, False, why, "repair or remove it")
    if not isinstance(backend, Backend) or backend.name != point.name:
        raise InputError(
            f"backend '{point.name}' ({point.value}): expected a heads.raster.backends.base.Backend whose name is "
            f"'{point.name}', got {backend!r}"
        )
    return backend, Probe(point.name, True, "")


def renders(backend: Backend, tensor: torch.Tensor, absgrad: bool, alpha_clamp: float) -> None:
    """Check that a backend takes such tensors and settings.

    Raises:
        InputError: it does not; the message says what it takes.
    """
    where = f"rasterization: backend '{backend.name}'"
    if not backend.takes(tensor.device.type):
        choices = [b.name for b in backends().values() if b.takes(tensor.device.type)]
        raise InputError(
            f"{where} takes tensors on {', '.join(backend.devices)}, got tensors on {tensor.device}; move them there or "
            f"use backend '{choices[0]}'"
        )
    if tensor.dtype not in backend.dtypes:
        raise InputError(f"{where} renders {', '.join(map(str, backend.dtypes))}, got {tensor.dtype}")
    if absgrad and not backend.absgrad:
        raise InputError(f"{where} offers no absgrad; use 'cpu' or 'gsplat'")
    if backend.alpha_clamp not in (None, alpha_clamp):
        raise InputError(f"{where} clamps alpha at {backend.alpha_clamp}, got alpha_clamp={alpha_clamp}")
