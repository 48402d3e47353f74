"""How this process runs: environment variables that count only before torch and other libraries are imported."""

from __future__ import annotations

import os

# torch's OpenMP threads otherwise spin at every barrier: a step that shares a core with any other process then takes
# three to fifteen times as long.
BEFORE_TORCH = {"OMP_WAIT_POLICY": "PASSIVE"}


def prepare() -> None:
    """Set what the user has not set; call it before torch is imported."""
    for name, value in BEFORE_TORCH.items():
        os.environ.setdefault(name, value)
