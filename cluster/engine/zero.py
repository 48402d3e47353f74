"""DeepSpeed behind Accelerate: its settings, and conversion of its partitioned state to whole tensors and back.

Whole tensors make checkpoints independent of the mode and of the number of workers, and free of pickles
(DeepSpeed's own checkpoint files are pickles and are never read here).
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import torch
from torch import nn

from configs import InputError

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine


def stage(mode: str) -> int:
    """ZeRO stage of a mode name, 0 where it is not a ZeRO mode."""
    return int(mode[4:]) if mode.startswith("zero") else 0


def plugin(mode: str, *, accumulate: int, clip: float, persistence: int) -> object:
    """Accelerate's DeepSpeed plug-in for one of ``zero1``, ``zero2``, ``zero3``.

    Raises:
        InputError: DeepSpeed is not installed.
    """
    _import_deepspeed(mode)
    from accelerate import DeepSpeedPlugin

    return DeepSpeedPlugin(
        hf_ds_config={
            "train_micro_batch_size_per_gpu": 1,  # the reader cuts the batches; DeepSpeed only multiplies this number
            "gradient_accumulation_steps": accumulate,
            "gradient_clipping": clip,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 10**9,
            "zero_optimization": {
                "stage": stage(mode),
                "stage3_param_persistence_threshold": persistence,
                "overlap_comm": torch.cuda.is_available(),
            },
        }
    )


def _import_deepspeed(mode: str) -> None:
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("DS_IGNORE_CUDA_DETECTION", "1")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        import deepspeed
        import deepspeed.ops
    except ImportError as error:
        raise InputError(
            f"engine.mode={mode} needs DeepSpeed, which is not installed ({error}); install headstart[cluster] or use mode ddp"
        ) from None
    # Its shared-memory all-reduce would take minutes to compile on first use; gloo does the same work.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.utils.logging.logger.setLevel(logging.WARNING)


def register_direct_parameters(model: nn.Module) -> None:
    """Let ZeRO-3 gather, before the model's forward, the parameters that modules of ours own directly.

    ZeRO-3 gathers a module's parameters when its ``forward`` is called; our modules may use tokens and gates from other
    methods. Layers of ``torch.nn`` are always called.
    """
    from deepspeed.runtime.zero import register_external_parameter

    for module in model.modules():
        if module is not model and not type(module).__module__.startswith("torch.nn"):
            for parameter in module.parameters(recurse=False):
                register_external_parameter(model, parameter)


# ------------------------------------------------------------------------------------------------ whole tensors


def weights(engine: DeepSpeedEngine, model: nn.Module, keep: bool) -> dict[str, torch.Tensor]:
    """Every tensor of ``model.state_dict()``, whole, on the CPU; empty unless ``keep``. Collective."""
    import deepspeed

    whole: dict[str, torch.Tensor] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, value in model.state_dict(keep_vars=True).items():
        if name in parameters and stage3(engine):
            with deepspeed.zero.GatheredParameters([parameters[name]]):
                if keep:
                    whole[name] = parameters[name].detach().cpu().clone()
        elif keep:
            whole[name] = value.detach().cpu().clone()
    return whole


def load_weights(engine: DeepSpeedEngine, model: nn.Module, whole: dict[str, torch.Tensor]) -> None:
    """Put whole tensors into the partitioned model and DeepSpeed's master copies. Collective."""
    import deepspeed

    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, value in model.state_dict(keep_vars=True).items():
        if name in parameters and stage3(engine):
            with deepspeed.zero.GatheredParameters([parameters[name]], modifier_rank=0), torch.no_grad():
                if engine.global_rank == 0:
                    parameters[name].copy_(whole[name])
        else:
            value.detach().copy_(whole[name])
    engine.optimizer.refresh_fp32_params()


def moments(engine: DeepSpeedEngine, model: nn.Module, keep: bool) -> dict[str, torch.Tensor]:
    """Optimiser state as ``{"PARAMETER/KEY": whole tensor}``; empty unless ``keep``. Collective."""
    from deepspeed.utils import safe_get_full_optimizer_state

    whole: dict[str, torch.Tensor] = {}
    tensors, scalars = _keys(engine)
    _link(engine)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        for key in tensors:
            value = safe_get_full_optimizer_state(parameter, key)
            if keep:
                whole[f"{name}/{key}"] = value.detach().cpu().reshape(_shape(parameter)).clone()
        if keep:
            whole.update({f"{name}/{key}": value.detach().cpu().clone() for key, value in scalars.items()})
    return whole


def load_moments(engine: DeepSpeedEngine, model: nn.Module, whole: dict[str, torch.Tensor]) -> None:
    """Put this rank's part of whole optimiser state (as :func:`moments` gives it) into DeepSpeed's partitions."""
    if not whole:
        return
    some = next(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    keys = {name.rsplit("/", 1)[1]: value for name, value in whole.items() if name.rsplit("/", 1)[0] == some}
    tensors = [key for key, value in keys.items() if value.dim()]
    for flat in _flat_groups(engine):
        state = {key: torch.zeros_like(flat) for key in tensors}
        state.update({key: value.clone() for key, value in keys.items() if not value.dim()})
        engine.optimizer.optimizer.state[flat] = state
    _link(engine)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            for key in tensors:
                _set_partition(parameter, whole[f"{name}/{key}"].to(flat.device), key)


def stage3(engine: DeepSpeedEngine) -> bool:
    """Whether the parameters themselves are partitioned."""
    return engine.zero_optimization_stage() == 3


def _keys(engine: DeepSpeedEngine) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Names of the moments, and the scalars (``step``), of the wrapped optimiser; empty before its first step."""
    states = [engine.optimizer.optimizer.state.get(flat) for flat in _flat_groups(engine)]
    if not states or not states[0]:
        return [], {}
    tensors = [key for key, value in states[0].items() if torch.is_tensor(value) and value.dim()]
    scalars = {key: value for key, value in states[0].items() if torch.is_tensor(value) and not value.dim()}
    return tensors, scalars


def _flat_groups(engine: DeepSpeedEngine) -> list[torch.Tensor]:
    optimizer = engine.optimizer
    return optimizer.fp32_partitioned_groups_flat if stage3(engine) else optimizer.single_partition_of_fp32_groups


def _link(engine: DeepSpeedEngine) -> None:
    """Point each parameter of ZeRO 1 and 2 at its part of the optimiser state.

    DeepSpeed links all groups after the first group's first step, when the others have no state yet.
    """
    optimizer = engine.optimizer
    if stage3(engine):
        return
    for flat, group in zip(optimizer.single_partition_of_fp32_groups, optimizer.bit16_groups):
        for parameter in group:
            if parameter._hp_mapping is not None and flat in optimizer.optimizer.state:
                parameter._hp_mapping.set_optim_state_fragment(flat, optimizer.optimizer.state[flat])
    optimizer._hp_optimizer_states_linked = True


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


def _set_partition(parameter: nn.Parameter, value: torch.Tensor, key: str) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if not hasattr(parameter, "ds_id"):
        safe_set_full_optimizer_state(parameter, value, key)
        return
    # DeepSpeed's own setter reads past the end of a tensor that does not divide by the number of ranks.
    import torch.distributed as dist

    length = parameter.ds_tensor.numel()  # type: ignore[attr-defined]  # set by DeepSpeed
    padded = torch.zeros(length * dist.get_world_size(), dtype=value.dtype, device=value.device)
    padded[: value.numel()] = value.flatten()
    safe_set_local_optimizer_state(parameter, padded.narrow(0, length * dist.get_rank(), length), key)
