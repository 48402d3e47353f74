"""Rigs of FaceMesh's topology completed to a head: the shipped one, and those learned by ``shards.basis``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from configs import InputError
from heads.rig.rig import FORMAT, Rig, RigKind

SHIPPED = Path(__file__).parent / "data" / "mediapipe.npz"


def accepts(path: Path) -> bool:
    """Whether the path is one of our rig files, of any version."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with np.load(path, allow_pickle=False) as file:
            return "format" in file.files
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"rig '{path}': not a readable npz file ({error})") from None


def load(path: Path | None = None) -> Rig:
    """The rig of a file; the shipped one without a path.

    Raises:
        InputError: not one of our rig files, or one of another version.
    """
    path = path or SHIPPED
    try:
        with np.load(path, allow_pickle=False) as file:
            found = str(file["format"]) if "format" in file.files else "none"
            if found != FORMAT:
                raise InputError(f"rig '{path}': format {found}, expected {FORMAT}; learn it again")
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"rig '{path}': not a readable npz file ({error})") from None
    return Rig(arrays)


RIG = RigKind(
    name="mediapipe", about="nothing, or a rig file (.npz) that shards.basis learned", accepts=accepts, load=load
)
