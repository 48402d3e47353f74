"""Tensors in a safetensors file that others may read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.storage.errors import sentence

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors with the permissions of any other new file in that folder.

    safetensors 0.8 writes a private temporary file (0600) and renames it, so that a colleague or a server under another
    user could read everything of a prior or an avatar but its weights.

    Args:
        tensors: by name; on any device, with any strides.
        path: the file, which is replaced.

    Raises:
        StorageError: it cannot be written, such as to a full disk; nothing half-written is left.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    new = not path.exists()
    try:
        path.touch()
        permissions = stat.S_IMODE(path.stat().st_mode)
        save_file(plain, path)
        path.chmod(permissions)
    except (OSError, SafetensorError) as error:
        if new:
            path.unlink(missing_ok=True)
        raise sentence(path, "write", _of_the_system(error)) from error


def _of_the_system(error: BaseException) -> BaseException:
    """The operating system's error that safetensors reports in words: ``... (os error 28)``."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error
