"""Tensors in a safetensors file that others may read."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors with the permissions of any other new file in that folder.

    safetensors 0.8 writes a private temporary file (0600) and renames it, so that a colleague or a server under another
    user could read everything of a prior or an avatar but its weights.

    Args:
        tensors: by name; on any device, with any strides.
        path: the file, which is replaced.
    """
    from safetensors.torch import save_file

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    path.touch()
    permissions = stat.S_IMODE(path.stat().st_mode)
    save_file(plain, path)
    path.chmod(permissions)
