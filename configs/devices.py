"""Choosing the device that work runs on, and what differs between CUDA and other accelerators.

A device is ``cpu``, ``cuda`` or any other that the installed torch knows by name, such as one that another package has
registered. ``auto`` is CUDA where there is one, else the CPU.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from configs.errors import InputError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """The device that a name means; an accelerator always with its index (``cuda:0``).

    Raises:
        InputError: no such device, or one that this machine does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}': expected auto, cpu, cuda or another device that torch knows") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device '{name}': this machine has no CUDA device that PyTorch can use; use cpu, or see 'headstart doctor'"
        )
    if device.type != "cpu" and not _present(device):
        raise InputError(f"device '{name}': this machine has none that PyTorch can use; use auto or cpu")
    if device.type != "cpu" and device.index is None:  # tensors there say "cuda:0", which is not equal to "cuda"
        return torch.device(device.type, int(_module(device).current_device()))
    return device


def _present(device: torch.device) -> bool:
    import torch

    try:
        module = torch.get_device_module(device)
        return bool(module.is_available()) and (device.index or 0) < int(module.device_count())
    except (RuntimeError, AttributeError):  # a name of torch's without a module, such as "meta"
        return False


def is_accelerator(device: torch.device) -> bool:
    """Whether kernels run on it asynchronously to the host: any device but the CPU."""
    return device.type != "cpu"


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a CPU tensor to a device without making the host wait: through pinned memory, which torch caches."""
    return tensor.pin_memory().to(device, non_blocking=True) if is_accelerator(device) else tensor.to(device)


def constant(values: tuple[object, ...], like: torch.Tensor) -> torch.Tensor:
    """A tensor of these numbers (nested tuples) with the device and dtype of ``like``; cached, so never write to it.

    Making a tensor from Python numbers at every step would be a copy to the device that the host waits for.
    """
    return _constant(values, like.device, like.dtype)


@functools.lru_cache(maxsize=256)
def _constant(values: tuple[object, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    import torch

    with torch.inference_mode(False):  # an inference tensor could not be used in training later
        return torch.tensor(values, dtype=dtype, device=device)


def seed_device(device: torch.device, number: int) -> None:
    """Seed the random generator of an accelerator; on the CPU this does nothing."""
    if not is_accelerator(device):
        return
    module = _module(device)
    generators = getattr(module, "default_generators", None)
    if generators:
        generators[device.index or 0].manual_seed(number)
    else:
        module.manual_seed(number)


def random_state(device: torch.device) -> torch.Tensor | None:
    """State of an accelerator's random generator as a uint8 tensor in host memory; None for the CPU."""
    return _module(device).get_rng_state(device) if is_accelerator(device) else None


def set_random_state(device: torch.device, state: torch.Tensor) -> None:
    """Restore a state from :func:`random_state`; on the CPU this does nothing."""
    if is_accelerator(device):
        _module(device).set_rng_state(state, device)


def synchronize(device: torch.device) -> None:
    """Wait for all work queued on the device; on the CPU this does nothing."""
    if is_accelerator(device):
        _module(device).synchronize(device)


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes that this process allocated for tensors on an accelerator; None on the CPU."""
    return int(_module(device).max_memory_allocated(device)) if is_accelerator(device) else None


def _module(device: torch.device) -> Any:
    import torch

    return torch.get_device_module(device)
