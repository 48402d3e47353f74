"""One training engine for one process or many: Accelerate with plain, DDP and DeepSpeed ZeRO 1-3, on CPU and GPU.

A training loop uses it like this::

    engine = Engine(config.engine)
    model = engine.prepare(model, optimizer, scheduler)     # every rank starts from rank 0's weights
    for each optimiser step:
        for each of config.engine.accumulate micro-batches:
            loss, metrics = model(batch)                    # the loss is a mean over this rank's share
            engine.backward(loss)
        norm = engine.clip_and_step()                       # also steps the scheduler

The global batch is the union of the ranks' shares, so the same global batch gives the same loss curve in every mode
within rounding. Weights and optimiser state stay float32 in every mode; ``precision: bf16`` runs the forward pass under
autocast. :meth:`Engine.save` writes whole tensors as safetensors: a checkpoint depends neither on the mode nor on
the number of workers, and holds no pickle.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from cluster.engine import process_group, state, zero
from cluster.engine.config import EngineConfig
from configs import InputError
from configs.devices import is_accelerator, pick_device
from configs.loading import validated

log = logging.getLogger("headstart.engine")


class Engine:
    """The engine of this process.

    Attributes:
        rank: this worker's number, from 0.
        world_size: number of workers.
        is_main: whether this is rank 0.
        device: where batches belong.
        mode: the effective one: ``plain`` becomes ``ddp`` with several workers, ``ddp`` becomes ``plain`` with one.

    Raises:
        InputError: a number out of its range, CUDA or DeepSpeed asked for and absent, or workers that do not see each other.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.config = validated(config or EngineConfig())
        self.rank, self.world_size = process_group.current()
        self.is_main = self.rank == 0
        self.device = _device(self.config.device)
        self.mode = _effective_mode(self.config.mode, self.world_size)
        self._accelerator = _accelerator(self.config, self.mode, self.device)
        self._check_seat()
        self._micro = 0
        self._model: Any = None
        self._optimizer: Any = None
        self._scheduler: Any = None
        self.unwrapped: Any = None
        self._copies = state.Copies()

    # -- training --------------------------------------------------------------------------------------------------

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: object = None) -> nn.Module:
        """The model as this engine runs it; call it like the original. Rank 0's weights go to every rank.

        Args:
            model: its ``forward(batch)`` returns the loss first or alone.
            optimizer: a torch optimiser over the model's parameters; element-wise ones (AdamW, SGD) for ZeRO.
            scheduler: a torch scheduler of ``optimizer``; stepped once by every :meth:`clip_and_step`.
        """
        self.unwrapped, self._optimizer, self._scheduler = model, optimizer, scheduler
        if self.config.precision == "bf16":
            model.forward = _autocast(model.forward, self.device.type)  # type: ignore[method-assign]
        if self._is_zero:
            self.broadcast(model.to(self.device))
            prepared, _ = self._accelerator.prepare(model, optimizer)
            if self.mode == "zero3":
                zero.register_direct_parameters(model)
        else:
            # Not the optimiser: Accelerate's wrapper would hide its state, and there is no scaler to serve.
            prepared = self._accelerator.prepare_model(model.to(self.device), device_placement=False)
        self._model = prepared
        self._mark_boundary()
        return prepared

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of this micro-batch's loss, divided here by ``accumulate``; ranks exchange them at the last one."""
        self._micro += 1
        if self._is_zero:
            self._model.backward(loss)
            if self._micro % self.config.accumulate:
                self._model.step()  # not a boundary: only counts the micro-batch
        else:
            (loss / self.config.accumulate).backward()
        self._mark_boundary()

    def clip_and_step(self) -> float:
        """Clip to ``config.clip``, step optimiser and scheduler, clear gradients. Returns the norm before clipping.

        If the norm is not finite, neither is stepped. With ZeRO, DeepSpeed has stepped already: stop and resume.

        Raises:
            InputError: called in the middle of an accumulation.
        """
        self._check_boundary()
        self._copies.wait()
        if self._is_zero:
            self._model.step()
            norm = float(self._model.get_global_grad_norm() or 0.0)
        else:
            norm = float(self._clip())
            if math.isfinite(norm):
                self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        if self._scheduler is not None and math.isfinite(norm):
            self._scheduler.step()
        self._micro = 0
        self._mark_boundary()
        return norm

    @property
    def steps_behind(self) -> bool:
        """Whether to call :meth:`step_behind`: on an accelerator without ZeRO, where the host should not wait for the device."""
        return is_accelerator(self.device) and not self._is_zero

    def step_behind(self, broken: torch.Tensor) -> torch.Tensor:
        """:meth:`clip_and_step` without synchronising host and device; returns the norm as a scalar on the device.

        The scheduler is stepped in any case.

        Args:
            broken: a float scalar on the device, 0 or 1. A norm that is not finite sets it. While it is not 0 the
                optimiser, which must be a fused one, leaves weights and moments unchanged.

        Raises:
            InputError: called in the middle of an accumulation.
        """
        self._check_boundary()
        self._copies.wait()
        norm = self._clip()
        torch.maximum(broken, (~torch.isfinite(norm)).to(broken), out=broken)
        self._optimizer.grad_scale, self._optimizer.found_inf = None, broken
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._scheduler is not None:
            self._scheduler.step()
        self._micro = 0
        self._mark_boundary()
        return norm

    # -- all ranks together ----------------------------------------------------------------------------------------

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over the ranks, on every rank; shape and dtype are kept."""
        if self.world_size == 1:
            return tensor.detach().clone()
        total = tensor.detach().to(self.device).clone()
        dist.all_reduce(total)
        return total / self.world_size

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; every rank gets the same answer."""
        if self.world_size == 1:
            return bool(flag)
        value = torch.tensor([int(bool(flag))], device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def gather(self, values: list[float]) -> list[list[float]]:
        """The lists of all ranks (of equal length, as float64), in rank order, on every rank."""
        if self.world_size == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.float64, device=self.device)
        everyone = [torch.zeros_like(mine) for _ in range(self.world_size)]
        dist.all_gather(everyone, mine)
        return [row.tolist() for row in everyone]

    def broadcast(self, model: nn.Module) -> None:
        """Copy rank 0's parameters and buffers to every rank."""
        if self.world_size > 1:
            for tensor in [*model.parameters(), *model.buffers()]:
                dist.broadcast(tensor.data, src=0)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.any(False)

    # -- state -----------------------------------------------------------------------------------------------------

    def full_state_dict(self) -> dict[str, torch.Tensor] | None:
        """The whole model as float32 CPU tensors on the main rank, None on the others. Collective."""
        whole = state.weights(self)
        return {name: value.cpu() for name, value in whole.items()} if self.is_main else None

    def export(self, path: str | Path) -> None:
        """Write the whole model as one safetensors file that loads alone on one device. Collective."""
        state.write_tensors(Path(path), self.full_state_dict())

    def save(self, folder: str | Path) -> None:
        """Write weights, optimiser, schedule and random state into a local folder. Collective; rank 0 writes.

        Files: ``weights.safetensors``, ``optimizer.safetensors``, ``random.safetensors``, ``engine.json``.
        """
        taken = self.snapshot()
        if self.is_main:
            taken.write(Path(folder))

    def snapshot(self, also: Mapping[str, torch.Tensor] | None = None) -> state.Snapshot:
        """What :meth:`save` would write now, for a thread of the main rank to write before the next is taken. Collective.

        On a CPU it is copied while the next gradients are computed; :meth:`clip_and_step` waits for that.

        Args:
            also: other tensors that do not change before the next :meth:`clip_and_step`, to be copied with it.
        """
        return state.snapshot(self, self._copies, also or {})

    def load(self, folder: str | Path) -> None:
        """Restore what :meth:`save` wrote, in any mode and with any number of workers. Call after :meth:`prepare`.

        Random state is restored when the number of workers is the same. Collective.

        Raises:
            InputError: not a folder that :meth:`save` wrote, or of another model (names the first weight that differs).
        """
        self._copies.wait()
        state.load(self, Path(folder))

    # -- details ---------------------------------------------------------------------------------------------------

    @property
    def _is_zero(self) -> bool:
        return self.mode.startswith("zero")

    def _check_seat(self) -> None:
        # Without CUDA, Accelerate's DeepSpeed path can believe that every rank is rank 0 of 1, and train N times alone.
        seen = (self._accelerator.process_index, self._accelerator.num_processes)
        if seen != (self.rank, self.world_size):
            raise InputError(
                f"the engine reports rank {seen[0]} of {seen[1]}, the launcher set {self.rank} of "
                f"{self.world_size}; start the workers with cluster.launch.launch or torchrun"
            )

    def _mark_boundary(self) -> None:
        """Tell DDP whether the coming forward pass is the last of its step, when the ranks exchange gradients."""
        if hasattr(self._model, "require_backward_grad_sync"):
            self._model.require_backward_grad_sync = self._micro % self.config.accumulate == self.config.accumulate - 1

    def _check_boundary(self) -> None:
        if self._micro == 0 or self._micro % self.config.accumulate:
            raise InputError(
                f"clip_and_step after {self._micro % self.config.accumulate} micro-batches, expected "
                f"{self.config.accumulate}; call backward once for each"
            )

    def _clip(self) -> torch.Tensor:
        parameters = [p for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        limit = self.config.clip or float("inf")
        return torch.nn.utils.clip_grad_norm_(parameters, limit)


def load_libraries() -> None:
    """Import what the first engine and the first optimiser of a process would import, which takes seconds."""
    importlib.import_module("accelerate")
    torch.optim.SGD([torch.zeros(1)])  # imports torch's compiler


def _effective_mode(mode: str, world: int) -> str:
    if mode == "plain" and world > 1:
        return "ddp"
    return "plain" if mode == "ddp" and world == 1 else mode


def _device(name: str) -> torch.device:
    device = pick_device(name)
    if device.type == "cpu":
        return device
    module = torch.get_device_module(device)
    # Ray shows each worker its own GPU as number 0; torchrun shows all of them.
    index = int(os.environ.get("LOCAL_RANK", 0)) % module.device_count() if ":" not in name else device.index
    module.set_device(index)
    return torch.device(device.type, index)


def _accelerator(config: EngineConfig, mode: str, device: torch.device) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    # These are singletons: a second engine in one process would silently get the first one's mode.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    if mode.startswith("zero"):
        plugin = zero.plugin(mode, accumulate=config.accumulate, clip=config.clip, persistence=config.persistence)
        backend = "nccl" if device.type == "cuda" else "gloo"
        if not dist.is_initialized():
            process_group.alone(backend)
        handlers: list[object] = [InitProcessGroupKwargs(backend=backend)] if device.type == "cpu" else []
        return Accelerator(
            deepspeed_plugin=plugin, gradient_accumulation_steps=config.accumulate, kwargs_handlers=handlers
        )
    # find_unused_parameters: dropping a condition leaves some parameters without gradient; and DDP then keeps its
    # buckets, where rebuilt buckets would add in another order after a restart, which changes the last bit.
    handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    return Accelerator(cpu=device.type != "cuda", kwargs_handlers=handlers)


def _autocast(forward: Callable[..., object], device: str) -> Callable[..., object]:
    # Inside the wrapped module's forward: DeepSpeed switches off an autocast that surrounds it.
    def run(*args: object, **kwargs: object) -> object:
        with torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False):
            return forward(*args, **kwargs)

    return run
