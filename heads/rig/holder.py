"""A module that holds a rig: it takes its rig along to another device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from heads.rig.rig import Rig


class RigModule(nn.Module):
    """A module with a ``rig``, which is no module and holds no weights, so ``nn.Module.to`` would leave it behind."""

    rig: Rig

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.rig = self.rig.to(fn(torch.empty(0, device=self.rig.device)).device)
        return self
