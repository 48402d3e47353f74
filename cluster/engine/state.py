"""The engine's state on disk: whole tensors as safetensors and one JSON file, the same for every mode."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np
import torch

from cluster.engine import zero
from cluster.storage.tensors import save_tensors
from configs import InputError, nearest
from configs.devices import random_state, set_random_state

if TYPE_CHECKING:
    from cluster.engine.engine import Engine

SCHEMA = 1
# Options of how an optimiser computes on this machine, which are no part of its state.
IMPLEMENTATION = ("fused", "foreach", "capturable")


class Saved(TypedDict):
    """``engine.json``: what is not a tensor. ``groups`` and ``scheduler`` are torch's own state dictionaries."""

    schema: int
    mode: str
    world_size: int
    precision: str
    groups: list[dict[str, object]]
    scheduler: dict[str, object] | None


class Copies:
    """Copies of tensors that training changes, made while it computes its next gradients.

    On a CPU a thread makes them, in the memory of the previous copies: new memory takes as long to get as to fill. On an
    accelerator they are made at once, in new memory, so that the training has it between two checkpoints.
    """

    def __init__(self) -> None:
        self._held: dict[str, torch.Tensor] = {}
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._copying: Future[None] | None = None

    def of(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """The copy of a tensor, whole after :meth:`begin` and :meth:`wait`, and until the next of this name."""
        value = value.detach()
        if value.device.type != "cpu":
            return value.clone()
        held = self._held.get(name)
        if held is None or (held.shape, held.dtype, held.stride()) != (value.shape, value.dtype, value.stride()):
            held = self._held[name] = torch.empty_like(value)
        self._waiting.append((held, value))
        return held

    def begin(self) -> None:
        """Copy what was asked for; until :meth:`wait` returns, nothing may change it."""
        work, self._waiting = self._waiting, []

        def copy() -> None:
            for to, value in work:
                to.copy_(value)

        thread = ThreadPoolExecutor(1, "snapshot")
        self._copying = thread.submit(copy)
        thread.shutdown(wait=False)

    def wait(self) -> None:
        """Wait until everything is copied."""
        if self._copying is not None:
            self._copying.result()


def weights(engine: Engine) -> dict[str, torch.Tensor]:
    """Whole float32 tensors by name, as copies; empty off the main rank. Collective."""
    if engine._is_zero:
        return zero.weights(engine._model, engine.unwrapped, keep=engine.is_main)
    if not engine.is_main:
        return {}
    return {name: value.detach().clone() for name, value in engine.unwrapped.state_dict().items()}


@dataclass(frozen=True)
class Snapshot:
    """An engine's state at one moment, as copies: training may go on while it is written, before the next snapshot is taken.

    Copies of tensors on an accelerator stay there, so taking them is quick; :meth:`write` copies them to the CPU.

    Attributes:
        also: the caller's own tensors, copied at the same moment; complete after :meth:`wait`.
    """

    tensors: dict[str, dict[str, torch.Tensor]]
    saved: Saved | None
    also: dict[str, torch.Tensor]
    copies: Copies

    def wait(self) -> None:
        """Wait until everything is copied."""
        self.copies.wait()

    def write(self, folder: Path) -> None:
        """Write the files of :meth:`cluster.engine.engine.Engine.save`; not collective."""
        self.wait()
        folder.mkdir(parents=True, exist_ok=True)
        for name, tensors in self.tensors.items():
            write_tensors(folder / f"{name}.safetensors", tensors)
        (folder / "engine.json").write_text(json.dumps(self.saved, indent=1))


def snapshot(engine: Engine, copies: Copies, also: Mapping[str, torch.Tensor]) -> Snapshot:
    """The state to be saved, valid until the next one in these copies; empty off the main rank. Collective."""
    copies.wait()
    generators = _random_state(engine)
    if engine._is_zero:
        whole, moments = weights(engine), zero.moments(engine._model, engine.unwrapped, keep=engine.is_main)
    elif engine.is_main:
        whole, moments = _copied_weights(engine, copies), _copied_moments(engine, copies)
    if not engine.is_main:
        return Snapshot({}, None, {}, copies)
    others = {name: copies.of(f"also/{name}", value) for name, value in also.items()}
    copies.begin()
    groups = [{k: v for k, v in group.items() if k != "params"} for group in engine._optimizer.param_groups]
    saved = Saved(
        schema=SCHEMA,
        mode=engine.mode,
        world_size=engine.world_size,
        precision=engine.config.precision,
        groups=[_plain_dict(group) for group in groups],
        scheduler=_plain_dict(engine._scheduler.state_dict()) if engine._scheduler is not None else None,
    )
    return Snapshot({"weights": whole, "optimizer": moments, "random": generators}, saved, others, copies)


def load(engine: Engine, folder: Path) -> None:
    """See :meth:`cluster.engine.engine.Engine.load`."""
    from safetensors.torch import load_file

    saved = read_state(folder)
    if engine._model is None:
        raise InputError("the engine has no model yet; call prepare before load")
    whole = load_file(folder / "weights.safetensors")
    _check_names(engine.unwrapped, whole, folder)
    moments = load_file(folder / "optimizer.safetensors")
    if engine._is_zero:
        zero.load_weights(engine._model, engine.unwrapped, whole)
        zero.load_moments(engine._model, engine.unwrapped, moments)
    else:
        engine.unwrapped.load_state_dict(whole)
        _load_moments(engine, moments)
    _load_groups(engine, saved["groups"], folder)
    if engine._scheduler is not None and saved["scheduler"] is not None:
        engine._scheduler.load_state_dict(_lists(saved["scheduler"], engine._scheduler.state_dict()))
    if saved["world_size"] == engine.world_size:
        _load_random_state(engine, load_file(folder / "random.safetensors"))
    engine.barrier()


def write_tensors(path: Path, tensors: dict[str, torch.Tensor] | None) -> None:
    """One safetensors file; None (off the main rank) writes nothing."""
    if tensors is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(tensors, path)


# ---------------------------------------------------------------------------------------------- optimiser


def _copied_weights(engine: Engine, copies: Copies) -> dict[str, torch.Tensor]:
    """Parameters are copied while gradients are computed, which changes buffers: those are copied at once."""
    model = engine.unwrapped
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {
        name: copies.of(f"weights/{name}", value) if name in parameters else value.detach().clone()
        for name, value in model.state_dict().items()
    }


def _copied_moments(engine: Engine, copies: Copies) -> dict[str, torch.Tensor]:
    state = engine._optimizer.state
    return {
        f"{name}/{key}": copies.of(f"optimizer/{name}/{key}", value)
        for name, parameter in engine.unwrapped.named_parameters()
        for key, value in state.get(parameter, {}).items()
        if torch.is_tensor(value)
    }


def _load_moments(engine: Engine, moments: dict[str, torch.Tensor]) -> None:
    parameters = dict(engine.unwrapped.named_parameters())
    state = engine._optimizer.state
    state.clear()
    for name, value in moments.items():
        parameter, key = name.rsplit("/", 1)
        # Adam counts its steps on the CPU whatever the device of the parameter, a fused one on the device.
        moves = value.dim() or engine._optimizer.defaults.get("fused")
        value = value.to(parameters[parameter].device) if moves else value
        state[parameters[parameter]][key] = value.clone()


def _load_groups(engine: Engine, groups: list[dict[str, object]], folder: Path) -> None:
    mine = engine._optimizer.param_groups
    if len(groups) != len(mine):
        raise InputError(
            f"{folder}: the optimiser had {len(groups)} parameter groups, this one has {len(mine)}; resume the same run"
        )
    for group, saved in zip(mine, groups):
        group.update({k: v for k, v in _lists(saved, group).items() if k not in IMPLEMENTATION})


def _plain_dict(state: Mapping[str, object]) -> dict[str, object]:
    """The part of a state dictionary that JSON holds exactly: numbers, text, booleans, lists."""
    return {str(key): _plain(item) for key, item in state.items() if _is_plain(item)}


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return _plain_dict(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if torch.is_tensor(value) else value


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return True
    return value is None or isinstance(value, bool | int | float | str) or (torch.is_tensor(value) and not value.dim())


def _lists(saved: Mapping[str, object], now: Mapping[str, object]) -> dict[str, object]:
    """``saved`` with the container types of ``now`` (JSON made lists of the tuples)."""
    return {
        key: tuple(value) if isinstance(value, list) and isinstance(now.get(key), tuple) else value
        for key, value in saved.items()
    }


# ---------------------------------------------------------------------------------------------- randomness


def _random_state(engine: Engine) -> dict[str, torch.Tensor]:
    """Generator states of every rank by name, on the main rank. Collective."""
    import torch.distributed as dist

    mine = _generators(engine)
    if engine.world_size == 1:
        return {f"{name}/0": value for name, value in mine.items()}
    whole: dict[str, torch.Tensor] = {}
    for name, value in mine.items():
        everyone = [torch.zeros_like(value, device=engine.device) for _ in range(engine.world_size)]
        dist.all_gather(everyone, value.to(engine.device))
        whole.update({f"{name}/{rank}": state.cpu() for rank, state in enumerate(everyone)})
    return whole if engine.is_main else {}


def _generators(engine: Engine) -> dict[str, torch.Tensor]:
    # NumPy's global (legacy) generator, which libraries of this field use.
    _, keys, position, _, _ = cast("tuple[str, np.ndarray, int, int, float]", np.random.get_state())  # noqa: NPY002
    states = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.append(keys, position).astype(np.int64)),
        "python": torch.tensor(random.getstate()[1], dtype=torch.int64),
    }
    if (state := random_state(engine.device)) is not None:
        states[engine.device.type] = state
    return states


def _load_random_state(engine: Engine, states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states[f"torch/{engine.rank}"])
    numbers = states[f"numpy/{engine.rank}"].numpy()
    np.random.set_state(("MT19937", numbers[:-1].astype(np.uint32), int(numbers[-1]), 0, 0.0))  # noqa: NPY002
    random.setstate((3, tuple(states[f"python/{engine.rank}"].tolist()), None))
    if (name := f"{engine.device.type}/{engine.rank}") in states:
        set_random_state(engine.device, states[name])


def _check_names(model: torch.nn.Module, whole: dict[str, torch.Tensor], folder: Path) -> None:
    wanted = {
        name: tuple(getattr(value, "ds_shape", value.shape)) for name, value in model.state_dict(keep_vars=True).items()
    }
    for name in sorted(set(wanted) ^ set(whole)):
        where = "missing in" if name in wanted else "unknown to the model but in"
        raise InputError(f"{folder}: weight '{name}' is {where} the checkpoint{nearest(name, set(whole) - {name})}")
    for name, shape in wanted.items():
        if tuple(whole[name].shape) != shape:
            got = tuple(whole[name].shape)
            raise InputError(f"{folder}: weight '{name}' has shape {got}, the model wants {shape}; use the same config")


def read_state(folder: Path) -> Saved:
    """The ``engine.json`` of a saved engine.

    Raises:
        InputError: absent, damaged or of another schema.
    """
    path = folder / "engine.json"
    with contextlib.suppress(OSError, ValueError):
        saved = json.loads(path.read_text())
        if isinstance(saved, dict) and saved.get("schema") == SCHEMA:
            return cast(Saved, saved)
    raise InputError(f"{path}: no engine state of schema {SCHEMA}; give a folder that Engine.save wrote")
