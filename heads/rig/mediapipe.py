"""Rigs of FaceMesh's topology completed to a head: the shipped one, and those learned by ``shards.basis``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from configs import InputError
from heads.rig.rig import FORMAT, Rig, RigKind

SHIPPED = Path(__file__).parent / "data" / "mediapipe.npz"
RECESSION = 0.04  # rig units by which a closed lid pushes its eyeball back: a fifth of its radius · guess


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
    return _with_receding_eyeballs(Rig(arrays))


def _with_receding_eyeballs(rig: Rig) -> Rig:
    """The rig, whose closing lids push their eyeball back; the file and its digest stay as they are.

    The lids are 0.012 units in front of the eyeball. An eye's Gaussians that drift by more than that, along a line of sight
    on which open eyes do not hold them, would show an iris on a closed lid.
    """
    for eye in (0, 1):
        rig.eyelids[eye, rig.eyeball_vertices == eye + 1, 2] += RECESSION
    return rig


RIG = RigKind(
    name="mediapipe", about="nothing, or a rig file (.npz) that shards.basis learned", accepts=accepts, load=load
)
