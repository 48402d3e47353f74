"""Finds a rig by name or path: this folder's kinds, and those of other packages (entry points ``headstart.rigs``).

A kind is a file of this folder that defines ``RIG``, or an entry point ``NAME = "package.module:RIG"`` of any
installed package; see :class:`heads.rig.rig.RigKind`.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path

from configs import InputError, nearest
from heads.rig.rig import Rig, RigKind

GROUP = "headstart.rigs"
DEFAULT = "mediapipe"


@lru_cache(maxsize=4)
def load_rig(source: str | Path = DEFAULT) -> Rig:
    """A rig, on the CPU; equal arguments give the same object, so do not change it.

    Args:
        source: a kind's name (``"mediapipe"``), a kind and a path (``"ict:/path"``), or a path alone, whose kind is
            detected: a rig file of ``shards.basis`` (``.npz``), a FLAME model (``.npz``, ``.safetensors``, ``.pkl``, or a
            folder that holds one), an ICT-FaceKit folder of ``.obj`` files.

    Raises:
        InputError: no such file, or no known kind of rig.
    """
    name, _, rest = str(source).partition(":")
    kind = _kind(name)
    if kind is None:
        # "C:\\rigs" is a path too, and so is anything that exists.
        kind, rest = _kind_of(Path(source)), str(source)
    path = Path(rest) if rest else None
    if path is not None and not path.exists():
        raise InputError(f"rig '{source}': no such file or folder as '{path}'")
    rig = kind.load(path)
    rig.source = kind.name if path is None else f"{kind.name}:{path.resolve()}"
    return rig


def rig_kinds() -> dict[str, RigKind]:
    """Every kind of rig by name: this folder's first, then those of entry points.

    Raises:
        InputError: an entry point that cannot be imported, is no :class:`RigKind`, or whose name is taken.
    """
    found: dict[str, RigKind] = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        kind = getattr(import_module(f"{__package__}.{path.stem}"), "RIG", None)
        if isinstance(kind, RigKind):
            found[kind.name] = kind
    for point in metadata.entry_points(group=GROUP):
        if point.name in found:
            raise InputError(f"rig '{point.name}' ({point.value}): the name is taken; choose another")
        found[point.name] = _of_entry_point(point)
    return found


def _kind(name: str) -> RigKind | None:
    """A kind by name; ours are found without importing the others."""
    if name.isidentifier() and (Path(__file__).parent / f"{name}.py").exists():
        kind = getattr(import_module(f"{__package__}.{name}"), "RIG", None)
        if isinstance(kind, RigKind):
            return kind
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    return _of_entry_point(points[name]) if name in points else None


def _kind_of(path: Path) -> RigKind:
    kinds = rig_kinds()
    if not path.exists():
        raise InputError(f"rig '{path}': no such rig or file{nearest(str(path), kinds)}, or a path to one")
    for kind in kinds.values():
        if kind.accepts(path):
            return kind
    choices = "; ".join(f"{kind.name}: {kind.about}" for kind in kinds.values())
    raise InputError(f"rig '{path}': no known kind of rig; give one of these. {choices}")


def _of_entry_point(point: metadata.EntryPoint) -> RigKind:
    where = f"rig '{point.name}' ({point.value})"
    try:
        kind = point.load()
    except Exception as error:  # whatever another package's module does when it is imported
        raise InputError(f"{where} cannot be imported ({type(error).__name__}: {error}); repair or remove it") from None
    if not isinstance(kind, RigKind) or kind.name != point.name:
        raise InputError(f"{where}: expected a heads.rig.rig.RigKind whose name is '{point.name}', got {kind!r}")
    return kind
