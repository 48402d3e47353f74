"""Finds a rig by name or path: the shipped one, one learned by ``learn_basis``, FLAME, ICT-FaceKit."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from configs import InputError
from heads.rig.rig import FORMAT, Rig

SHIPPED = Path(__file__).parent / "data"


@lru_cache(maxsize=4)
def load_rig(source: str | Path = "mediapipe") -> Rig:
    """A rig, on the CPU; equal arguments give the same object, so do not change it.

    Args:
        source: ``"mediapipe"`` (shipped), a rig file written by ``headstart``'s basis learning (``.npz``), a FLAME
            model (``.npz``, ``.safetensors``, ``.pkl``, or a folder that holds one), or an ICT-FaceKit folder of
            ``.obj`` files.

    Raises:
        InputError: nothing there, or a file of another kind.
    """
    path = SHIPPED / f"{source}.npz" if str(source) == "mediapipe" else Path(source)
    if not path.exists():
        raise InputError(f"rig '{source}': no such rig or file; use 'mediapipe' or a path to FLAME or ICT-FaceKit")
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".npz" and (arrays := _own_arrays(path)) is not None:
        return Rig(arrays)
    if path.suffix in (".npz", ".pkl", ".safetensors"):
        from heads.rig.flame import load_flame

        return load_flame(path)
    raise InputError(f"rig '{path}': expected .npz, .pkl, .safetensors or a folder, got '{path.suffix}'")


def _from_folder(path: Path) -> Rig:
    if any(path.rglob("generic_neutral_mesh.obj")):
        from heads.rig.ict import load_ict

        return load_ict(path)
    flame = sorted(
        p for p in path.iterdir() if p.suffix in (".npz", ".pkl", ".safetensors") and "FLAME" in p.name.upper()
    )
    if flame:
        from heads.rig.flame import load_flame

        return load_flame(flame[0])
    raise InputError(f"rig folder '{path}': found neither a FLAME file nor ICT-FaceKit's generic_neutral_mesh.obj")


def _own_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a rig file of ours, ``None`` for another kind of npz."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if "format" not in file.files:
                return None
            if str(file["format"]) != FORMAT:
                raise InputError(f"rig '{path}': format {file['format']}, expected {FORMAT}; learn it again")
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"rig '{path}': not a readable npz file ({error})") from None
