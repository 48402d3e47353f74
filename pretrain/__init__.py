"""The priors, learned once from many people, and the one loop that trains them.

``pretrain`` trains a prior and registers it; ``load_prior`` loads a trained one, ready to use. The loop (``loop.py``) is
independent of the priors, and the tasks (one folder each) are independent of the cluster.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pretrain.names import prior_names

__all__ = ["load_prior", "pretrain", "prior_names"]

# Imported on first use, so that the command line can list the priors without importing torch.
_LAZY = {"pretrain": "pretrain.train", "load_prior": "pretrain.folder"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'pretrain' has no attribute '{name}'")
