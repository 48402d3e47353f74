"""Adam by torch's own kernels, without what :mod:`torch.optim` imports: the compiler takes seconds to load."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Adam:
    """``torch.optim.Adam(groups, betas=betas, eps=eps, fused=True)``, step for step and bit for bit.

    Args:
        groups: dictionaries with ``params`` and ``lr``, optionally an ``eps`` of their own; other keys are kept.
        betas, eps: as for ``torch.optim.Adam``.

    Attributes:
        param_groups: the same dictionaries, completed; ``lr`` may be changed between steps.
        state: ``step``, ``exp_avg`` and ``exp_avg_sq`` of each parameter that was stepped. It is a defaultdict, as torch's
            is, so that gsplat's strategies can split and prune what it holds.
        found_inf: a scalar on the parameters' device; where it is 1, the next step does nothing.
    """

    def __init__(
        self, groups: Iterable[Mapping[str, Any]], *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self.betas = betas
        self.param_groups: list[dict[str, Any]] = [{"eps": eps, **group} for group in groups]
        self.state: defaultdict[nn.Parameter, dict[str, Tensor]] = defaultdict(dict)
        self.found_inf: Tensor | None = None

    def moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The optimiser state of a parameter, as a live dictionary; empty before its first step."""
        return self.state[parameter]

    def zero_grad(self) -> None:
        """Set all gradients to ``None``."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        moved = [[p for p in group["params"] if p.grad is not None] for group in self.param_groups]
        every = [parameter for parameters in moved for parameter in parameters]
        self._begin(every)
        counts = [self.state[parameter]["step"] for parameter in every]
        if not counts:
            return
        torch._foreach_add_(counts, 1)  # of all groups at once: on an accelerator each call is a launch
        for (rate, eps), parameters in self._by_rate(moved).items():
            self._step(parameters, rate, eps)
        if self.found_inf is not None:
            torch._foreach_sub_(counts, [self.found_inf] * len(counts))
        # The fused kernel does not count its changes, but what is computed from frozen weights is kept by that count.
        torch.autograd.graph.increment_version(every)

    def _by_rate(self, moved: list[list[nn.Parameter]]) -> dict[tuple[float, float], list[nn.Parameter]]:
        """Parameters that can be stepped by one call."""
        together: dict[tuple[float, float], list[nn.Parameter]] = {}
        for parameters, group in zip(moved, self.param_groups, strict=True):
            if parameters:
                together.setdefault((group["lr"], group["eps"]), []).extend(parameters)
        return together

    def _begin(self, parameters: list[nn.Parameter]) -> None:
        for parameter in parameters:
            moments = self.moments(parameter)
            if not moments:
                moments["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                moments["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                moments["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)

    def _step(self, parameters: list[nn.Parameter], rate: float, eps: float) -> None:
        states = [self.moments(parameter) for parameter in parameters]
        torch._fused_adam_(
            [*parameters],
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [moments["exp_avg"] for moments in states],
            [moments["exp_avg_sq"] for moments in states],
            [],
            [moments["step"] for moments in states],
            lr=rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=0.0,
            eps=eps,
            amsgrad=False,
            maximize=False,
            found_inf=self.found_inf,
        )
