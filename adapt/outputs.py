"""Where results may be written: checked before any work begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from cluster.storage.staging import not_replaceable
from configs import InputError


def claim(path: str | Path, *, suffix: str | None = None, overwrite: bool = False, mark: str | None = None) -> Path:
    """An output path that may be written, which is tried; its parent folder is created.

    Args:
        suffix: that its name has to have.
        overwrite: whether an earlier output may be replaced; a folder of anything else never is.
        mark: of a folder, a file that every earlier output holds; ``None`` for an output that is a file.

    Raises:
        InputError: it exists and ``overwrite`` is off or does not apply, its name ends otherwise, its parent folder
            cannot be made or written to, or the folder that it would replace may not be emptied.
    """
    path = Path(path)
    if suffix is not None and path.suffix.lower() != suffix:
        raise InputError(f"output '{path}': expected a name that ends in {suffix}")
    if path.exists() and not overwrite:
        raise InputError(f"output '{path}' exists; choose another name, remove it or pass --overwrite")
    if path.exists() and not _replaceable(path, mark):
        raise not_replaceable(path, path.is_dir(), mark)
    check_changeable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"output '{path}': its folder cannot be written to ({error.strerror}); choose another"
        ) from None
    return path


def check_changeable(path: Path) -> None:
    """Refuse to replace a folder that this user may not empty, such as a read-only copy of another's; a file may be.

    Raises:
        InputError: it is such a folder, or holds one.
    """
    locked = next((where for where, _, _ in os.walk(path) if not os.access(where, os.W_OK | os.X_OK)), None)
    if locked is not None:
        raise InputError(
            f"output '{path}': may not be changed, because the folder {locked} cannot be written to; choose another name, or ask "
            "its owner for the right to it"
        )


def _replaceable(path: Path, mark: str | None) -> bool:
    """Whether an earlier output stands there: a file, or a folder that is empty or has the mark."""
    if mark is None or not path.is_dir():
        return mark is None and not path.is_dir()
    return (path / mark).is_file() or not any(path.iterdir())
