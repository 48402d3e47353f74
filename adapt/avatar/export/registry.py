"""Export formats by suffix: the modules of this package, and those of other packages by entry point.

A format is a module, or any object, with the attributes of :class:`Format`. A package outside this one offers it by
an entry point of the group ``headstart.exports``.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from adapt.avatar.export.cloud import Cloud
from adapt.avatar.export.files import Record
from configs import InputError, nearest

GROUP = "headstart.exports"
COMPRESSED = ".compressed.ply"  # another format than .ply, whose readers choose by this suffix


class Format(Protocol):
    """What an export format offers.

    A format that holds an animation also has
    ``write_sequence(path, clouds, record, axes=None, *, fps=25.0) -> int``, see :func:`animates`.

    Attributes:
        SUFFIXES: of its files, lower case, with the dot.
        AXES: ``opencv`` or ``opengl``, what its standard says.
    """

    SUFFIXES: tuple[str, ...]
    AXES: str

    def write(self, path: str | Path, cloud: Cloud, record: Record, axes: str | None = None) -> None:
        """Write a cloud given in OpenCV axes, whole or not at all."""

    def read(self, path: str | Path) -> Cloud:
        """The cloud of a file that ``write`` made, in OpenCV axes."""


@functools.cache
def formats() -> dict[str, Any]:
    """Every suffix and its format, in alphabetical order.

    Raises:
        InputError: two formats claim one suffix, or an entry point lacks an attribute.
    """
    found: dict[str, Any] = {}
    for name, candidate in [*_shipped(), *_offered()]:
        for suffix in candidate.SUFFIXES:
            if suffix in found:
                raise InputError(f"export format '{name}' claims {suffix}, which another one has; remove one of them")
            found[suffix] = candidate
    return dict(sorted(found.items()))


def _shipped() -> list[tuple[str, Any]]:
    package = __name__.rpartition(".")[0]
    folder = str(Path(__file__).parent)
    names = sorted(module.name for module in pkgutil.iter_modules([folder]) if f"{package}.{module.name}" != __name__)
    modules = [(name, importlib.import_module(f"{package}.{name}")) for name in names]
    return [(name, module) for name, module in modules if hasattr(module, "SUFFIXES")]


def _offered() -> list[tuple[str, Any]]:
    offered = []
    for point in metadata.entry_points(group=GROUP):
        candidate = point.load()
        missing = [name for name in ("SUFFIXES", "AXES", "write", "read") if not hasattr(candidate, name)]
        if missing:
            raise InputError(
                f"export format '{point.name}' ({point.value}) lacks {', '.join(missing)}; update its package"
            )
        offered.append((point.name, candidate))
    return offered


def format_of(path: str | Path) -> Any:
    """The format that a file's suffix names; of a format's longer one, such as ``.compressed.ply``, and a shorter one the longer.

    Raises:
        InputError: none does; the sentence lists all suffixes and the nearest.
    """
    place, known = Path(str(path)), formats()
    suffix, longer = place.suffix.lower(), "".join(place.suffixes[-2:]).lower()
    if longer in known:
        return known[longer]
    if longer == COMPRESSED:
        plain = place.with_name(f"{place.name[: -len(COMPRESSED)]}.ply").name
        raise InputError(
            f"output '{path}': {COMPRESSED} is PlayCanvas' compressed format, which is not written; export {plain} and convert "
            f"it, such as with npx @playcanvas/splat-transform {plain} {place.name}"
        )
    if suffix not in known:
        named = f"suffix '{suffix}'" if suffix else "a name without suffix"
        hint = nearest(suffix, known) if suffix else ""
        raise InputError(
            f"output '{path}': {named} is not an export format; expected {', '.join(known)}"
            f"{hint if 'did you mean' in hint else ''}"
        )
    return known[suffix]


def animates(candidate: object) -> bool:
    """Whether the format holds an animation."""
    return hasattr(candidate, "write_sequence")


def animated_suffixes() -> list[str]:
    """Suffixes of the formats that hold an animation."""
    return [suffix for suffix, candidate in formats().items() if animates(candidate)]
