"""Where results may be written: checked before any work begins."""

from __future__ import annotations

from pathlib import Path

from configs import InputError


def claim(path: str | Path, *, suffix: str | None = None, overwrite: bool = False) -> Path:
    """An output path that may be written; its parent folder is created.

    Raises:
        InputError: it exists and ``overwrite`` is off, has another suffix, or its parent cannot be made.
    """
    path = Path(path)
    if suffix is not None and path.suffix.lower() != suffix:
        raise InputError(f"output '{path}': expected a name that ends in {suffix}")
    if path.exists() and not overwrite:
        raise InputError(f"output '{path}' exists; choose another name, remove it or pass --overwrite")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output '{path}': its folder cannot be made ({error.strerror}); choose another") from None
    return path
