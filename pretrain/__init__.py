"""The priors, learned once from many people, and the one loop that trains them.

``pretrain`` trains a prior and registers it; ``load_prior`` gives the trained one back, ready to use. The loop
(``loop.py``) knows no paper and the tasks (one folder each) know no cluster.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pretrain.names import prior_names

__all__ = ["load_prior", "pretrain", "prior_names"]

# Imported when they are used, so that naming a prior in a command line does not import torch.
_LAZY = {"pretrain": "pretrain.train", "load_prior": "pretrain.folder"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pretrain' has no attribute '{name}'")
