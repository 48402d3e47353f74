"""A module that moves its rig along to another device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from heads.rig.rig import Rig


class RigModule(nn.Module):
    """Base of modules with a ``rig``. A rig is no ``nn.Module``, so ``nn.Module.to`` would not move it."""

    rig: Rig

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.rig = self.rig.to(fn(torch.empty(0, device=self.rig.device)).device)
        return self
