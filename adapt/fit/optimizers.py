"""Adam for what a recipe optimises: rates of the head's parts, parameter groups, moments that can be saved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from configs.devices import is_accelerator
from heads.adam import Adam
from heads.gaussians.free import Densifier
from heads.person.talking_head import TalkingHead

# Adam's rate per part of the head at the start of the schedule, in units of the stored parameter. Those of the colour and
# offset residuals were measured (docs/fitting.md). A parameter takes the row of the longest key that its name begins with.
RATES = {
    "offsets": 0.02,
    "quats": 0.01,
    "log_scales": 0.02,
    "colors": 0.01,
    "opacities": 0.05,
    "identity": 0.002,
    "color": 0.0005,
    "offset": 0.0001,
    "correction": 0.002,
    "appearance_basis.code": 0.015,
    "appearance_basis.basis": 0.002,
    "backdrop.background": 0.01,
    "backdrop.body": 0.01,
    "backdrop.body_alpha": 0.05,
}
BETAS, EPS = (0.9, 0.99), 1e-12  # Adam's


class _Named(TypedDict):
    params: list[nn.Parameter]
    lr: float
    name: str


class Group(_Named, total=False):
    """An Adam group: parameters that share a rate (at the stage's start), a name and perhaps their own epsilon."""

    eps: float


def rate_of(name: str) -> tuple[str, float]:
    """The key of :data:`RATES` that applies to a parameter's name, and its rate.

    Raises:
        KeyError: no key applies.
    """
    keys = [key for key in RATES if name == key or name.startswith(key + ".")]
    if not keys:
        raise KeyError(f"no learning rate for parameter '{name}'")
    key = max(keys, key=len)
    return key, RATES[key]


def parameter_groups(head: TalkingHead) -> list[Group]:
    """Adam groups of all that a head learns, by the keys of :data:`RATES`."""
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in head.named_parameters():
        if parameter.requires_grad:
            parts.setdefault(rate_of(name)[0], []).append(parameter)
    groups = [Group(params=parameters, lr=RATES[key], name=key) for key, parameters in parts.items()]
    for group in groups:
        if group["name"].startswith("backdrop.") and head.backdrop is not None:
            group["eps"] = head.backdrop.adam_eps
    return groups


class Optimizers:
    """One Adam for parameters of fixed size and, with a densifier, its optimisers, whose parameters come and go."""

    def __init__(self, groups: Iterable[Group], device: torch.device, densifier: Densifier | None = None) -> None:
        groups = [group for group in groups if group["params"]]
        self.main = Adam([dict(group) for group in groups], betas=BETAS, eps=EPS) if groups else None
        self.densifier, self._behind = densifier, is_accelerator(device)
        for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
            # Moments take the parameter's order in memory and Adam rounds by it; what is read back from a file is in rows.
            parameter.data = parameter.data.contiguous()

    def _all(self) -> list[Adam]:
        own = [] if self.densifier is None else list(self.densifier.optimizers.values())
        return [*([self.main] if self.main is not None else []), *own]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of all of them."""
        return [group for optimizer in self._all() for group in optimizer.param_groups]

    def zero_grad(self) -> None:
        """Clear all gradients."""
        for optimizer in self._all():
            optimizer.zero_grad()

    def step(self) -> None:
        """Step the parameters of fixed size; the densifier steps its own after it has looked at the gradients."""
        if self.main is not None:
            self.main.step()

    @property
    def refuses_behind(self) -> bool:
        """Whether :meth:`refuse_broken` is to be used: on an accelerator, if there is no densifier."""
        return self._behind and self.densifier is None

    def refuse_broken(self, loss: Tensor) -> None:
        """Skip the next step on the device if ``loss``, a scalar there, is not finite; the host does not wait for it."""
        if self.main is not None:
            self.main.found_inf = (loss - loss != 0).float()  # infinity less itself is NaN, which equals nothing

    def _moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Adam's moments of a parameter, a live dictionary."""
        for optimizer in self._all():
            if any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                return optimizer.moments(parameter)
        raise KeyError("no optimiser holds this parameter")

    def state(self) -> dict[str, Tensor]:
        """Moments as ``adam/GROUP/POSITION/KEY``, and the densifier's statistics as ``densifier/KEY``."""
        tensors: dict[str, Tensor] = {}
        for g, group in enumerate(self.param_groups):
            for p, parameter in enumerate(group["params"]):
                for key, value in self._moments(parameter).items():
                    tensors[f"adam/{g}/{p}/{key}"] = torch.as_tensor(value).detach()
        if self.densifier is not None:
            counted = {key: value for key, value in self.densifier.state.items() if isinstance(value, Tensor)}
            tensors |= {f"densifier/{key}": value for key, value in counted.items()}
            tensors["densifier/steps"] = torch.tensor(self.densifier.steps)
        return tensors

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state`; entries that match no parameter are ignored."""
        groups = self.param_groups
        for key, value in saved.items():
            kind, *rest = key.split("/")
            if kind == "adam":
                g, p, name = int(rest[0]), int(rest[1]), rest[2]
                if g < len(groups) and p < len(groups[g]["params"]):
                    self._restore_moment(groups[g]["params"][p], name, value)
            elif kind == "densifier" and self.densifier is not None:
                if rest[0] == "steps":
                    self.densifier.steps = int(value)
                else:
                    self.densifier.state[rest[0]] = value.to(self.densifier.cloud.params["means"].device).clone()

    def _restore_moment(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        if name == "step":
            self._moments(parameter)[name] = value.to(parameter.device, torch.float32).clone()
        elif value.shape == parameter.shape:
            self._moments(parameter)[name] = value.to(parameter.device, parameter.dtype).clone()
