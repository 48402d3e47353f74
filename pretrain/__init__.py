"""The three priors, learned once from many people, and the one loop that trains them.

``pretrain`` trains a prior and registers it; ``load_prior`` gives the trained one back, ready to use. The loop
(``loop.py``) knows no paper and the tasks (one folder each) know no cluster.
"""

from __future__ import annotations

from typing import Any

__all__ = ["PRIORS", "load_prior", "pretrain"]

PRIORS = ("audio-expression", "expression-visual", "sync-expert")


def __getattr__(name: str) -> Any:
    # Lazy, so that naming a prior in a command line does not import torch.
    if name == "pretrain":
        from pretrain.train import pretrain

        return pretrain
    if name == "load_prior":
        from pretrain.folder import load_prior

        return load_prior
    raise AttributeError(f"module 'pretrain' has no attribute '{name}'")
