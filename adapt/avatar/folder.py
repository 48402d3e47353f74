"""The avatar folder on disk: ``avatar.json``, ``weights.safetensors``, thumbnail, body frames, each with its hash.

A new folder is built beside the old one and the two are exchanged, so that a process that is killed leaves the last
good avatar intact. The exchange is atomic on Linux; elsewhere it takes two renames.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch

from adapt.avatar.document import AvatarDocument
from cluster.storage.storage import sha256 as file_sha256
from cluster.storage.tensors import save_tensors
from cluster.storage.trees import Entry
from configs import InputError

SCHEMA = 1
DOCUMENT = "avatar.json"
WEIGHTS = "weights.safetensors"
# Optimiser state, kept while an adaptation is under way: needed by --resume, not for opening the avatar.
STATE = "state.safetensors"
REQUIRED = ("schema", "recipe", "prior", "rig", "features", "size", "created", "provenance", "metrics", "files")


def write_folder(
    out: str | Path,
    document: Mapping[str, object],
    tensors: Mapping[str, torch.Tensor],
    *,
    files: Mapping[str, str | Path | bytes] | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> AvatarDocument:
    """Write an avatar; on Linux, ``out`` is at every moment either the old avatar or the new one.

    Args:
        document: what ``avatar.json`` says; ``schema`` and ``files`` are added here.
        tensors: the weights, by name.
        files: further files by their name in the folder: a path to copy or the bytes themselves.
        state: optimiser tensors for ``--resume``; not part of the hashed avatar.

    Returns:
        The document as written.
    """
    out = Path(out)
    fresh = out.with_name(f".{out.name}.{os.getpid()}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        # Copies, because a file holds no memory that two tensors share.
        save_tensors({name: t.detach().clone() for name, t in tensors.items()}, fresh / WEIGHTS)
        for name, content in (files or {}).items():
            target = fresh / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            else:
                shutil.copyfile(content, target)
        if state:
            save_tensors({name: t.detach().clone() for name, t in state.items()}, fresh / STATE)
        written = {"schema": SCHEMA, **document, "files": _listing(fresh)}
        (fresh / DOCUMENT).write_text(json.dumps(written, indent=2, sort_keys=False) + "\n")
        _put_in_place(fresh, out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return cast(AvatarDocument, written)


def _listing(folder: Path) -> dict[str, Entry]:
    return {
        path.relative_to(folder).as_posix(): Entry(sha256=file_sha256(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != STATE
    }


def _put_in_place(fresh: Path, out: Path) -> None:
    if not out.exists():
        os.rename(fresh, out)
        return
    if not _exchange(fresh, out):
        # No atomic exchange on this system: two renames, with both folders whole in between.
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        os.rename(out, old)
        os.rename(fresh, out)
        os.rename(old, fresh)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two folders in one step with Linux's ``renameat2(RENAME_EXCHANGE)``; False where that does not exist."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        here = -100  # AT_FDCWD: paths are relative to the working directory
        return libc.renameat2(here, os.fsencode(a), here, os.fsencode(b), 2) == 0
    except (OSError, AttributeError):
        return False


def read_document(folder: str | Path) -> AvatarDocument:
    """``avatar.json``, checked for its schema and keys.

    Raises:
        InputError: not an avatar folder, broken JSON, another schema, missing keys.
    """
    folder = Path(folder)
    path = folder / DOCUMENT
    if folder.is_file():
        raise InputError(
            f"avatar '{folder}': is a file, expected the folder that headstart adapt makes; check the order"
        )
    if not folder.is_dir():
        raise InputError(f"avatar '{folder}': no such folder; make one with 'headstart adapt VIDEO --out {folder}'")
    if not path.is_file():
        raise InputError(f"avatar '{folder}': contains no {DOCUMENT}, so it is not an avatar folder; check the path")
    try:
        document = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}); restore the file or adapt again") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: not an object; restore the file or adapt again")
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path}: schema is {document.get('schema')!r}, expected {SCHEMA}; adapt again")
    missing = [key for key in REQUIRED if key not in document]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing)}; restore the file or adapt again")
    return cast(AvatarDocument, document)


def verify_folder(folder: str | Path) -> AvatarDocument:
    """Check every listed file's presence and hash; returns the document.

    Raises:
        InputError: a file is missing or was altered, with its name.
    """
    folder = Path(folder)
    document = read_document(folder)
    for name, record in document["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"avatar '{folder}': '{name}' is missing; copy the whole folder again or adapt again")
        if path.stat().st_size != record["bytes"] or file_sha256(path) != record["sha256"]:
            raise InputError(
                f"avatar '{folder}': '{name}' was altered since the avatar was made (its SHA-256 differs from "
                f"{DOCUMENT}); restore the file or adapt again"
            )
    return document


def read_folder(folder: str | Path) -> tuple[AvatarDocument, dict[str, torch.Tensor]]:
    """The verified document and the weights, on the CPU.

    Raises:
        InputError: see :func:`verify_folder`; also weights that are no safetensors file.
    """
    document = verify_folder(folder)
    return document, read_tensors(Path(folder) / WEIGHTS)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """A safetensors file, never a pickle.

    Raises:
        InputError: not a whole safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a complete safetensors file ({error}); restore it or adapt again") from None


def read_state(folder: str | Path) -> dict[str, torch.Tensor]:
    """The optimiser state of an unfinished adaptation; empty if there is none."""
    path = Path(folder) / STATE
    return read_tensors(path) if path.is_file() else {}
