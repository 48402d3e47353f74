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

# torch's sentences about tensors that do not fit
SHAPES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\(\[(.*?)\]\).*?torch\.Size\(\[(.*?)\]\)")
MISSING = re.compile(r"Missing key\(s\) in state_dict: (.*)")
UNEXPECTED = re.compile(r"Unexpected key\(s\) in state_dict: (.*)")


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


def misfit(error: Exception) -> str:
    """What an error of ``load_state_dict`` is about: the first tensor that does not fit, and how many others do not.

    torch lists them all, below a line that names only the module.
    """
    text = str(error)
    wrong = [f"{name} is [{got}], expected [{wanted}]" for name, got, wanted in SHAPES.findall(text)]
    for found, what in ((MISSING.search(text), "is missing"), (UNEXPECTED.search(text), "is not one of its tensors")):
        wrong += [f"{name} {what}" for name in (re.findall(r'"([^"]+)"', found[1]) if found else ())]
    if not wrong:
        return text.splitlines()[0] if text else type(error).__name__
    return wrong[0] + (f", and {len(wrong) - 1} more" if wrong[1:] else "")
