"""Where results may be written: checked before any work begins."""

from __future__ import annotations

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
        InputError: it exists and ``overwrite`` is off or does not apply, its name ends otherwise, or its parent folder
            cannot be made or written to.
    """
    path = Path(path)
    if suffix is not None and path.suffix.lower() != suffix:
        raise InputError(f"output '{path}': expected a name that ends in {suffix}")
    if path.exists() and not overwrite:
        raise InputError(f"output '{path}' exists; choose another name, remove it or pass --overwrite")
    if path.exists() and not _replaceable(path, mark):
        raise not_replaceable(path, path.is_dir(), mark)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"output '{path}': its folder cannot be written to ({error.strerror}); choose another"
        ) from None
    return path


def _replaceable(path: Path, mark: str | None) -> bool:
    """Whether an earlier output stands there: a file, or a folder that is empty or has the mark."""
    if mark is None or not path.is_dir():
        return mark is None and not path.is_dir()
    return (path / mark).is_file() or not any(path.iterdir())
