"""Following an adaptation: its folder is replaced as a whole every few seconds, and each new state is opened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from adapt.avatar.avatar import Avatar, load_avatar
from adapt.avatar.folder import DOCUMENT
from cluster.storage.errors import is_remote
from configs import InputError, progress

EVERY = 1.0  # s between two checks


def check_followed(paths: Mapping[str, str | Path]) -> None:
    """Refuse what cannot be followed.

    Raises:
        InputError: a remote avatar.
    """
    for path in paths.values():
        if is_remote(path):
            raise InputError(
                f"--follow {path}: only a folder of this machine can be followed; it is uploaded at the end"
            )


def first_state(path: str | Path, device: str) -> Avatar:
    """The avatar at a path; waits until there is one.

    Raises:
        InputError: an avatar that still cannot be opened at the second attempt.
    """
    said = False
    while True:
        try:
            return load_avatar(path, device)
        except InputError:
            if Path(path, DOCUMENT).exists() and said:
                raise
        if not said:
            progress.say(f"waiting for the first state of {path}")
            said = True
        time.sleep(EVERY)


async def keep_newest(
    paths: Mapping[str, str | Path], avatars: dict[str, Avatar], device: str, renewed: Callable[[str], None]
) -> None:
    """Keep ``avatars`` at the newest states of the folders ``paths``, by name; runs until cancelled.

    Args:
        renewed: called with the name of each avatar that was replaced.
    """
    seen = {name: avatar.document["files"] for name, avatar in avatars.items()}
    stamps: dict[str, object] = {}
    while True:
        await asyncio.sleep(EVERY)
        for name, path in paths.items():
            stamp = _stamp(Path(path) / DOCUMENT)
            if stamp is None or stamp == stamps.get(name):
                continue
            try:
                avatar = await asyncio.to_thread(load_avatar, path, device)
            except InputError:
                continue  # it was being replaced; the next check finds it complete
            stamps[name] = stamp
            if avatar.document["files"] != seen[name]:
                seen[name], avatars[name] = avatar.document["files"], avatar
                renewed(name)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def state_of(avatar: Avatar) -> dict[str, object]:
    """How far an adaptation has come: ``seconds, iterations, budget, complete, psnr_face`` (pairs of seconds and dB)."""
    kept = ("seconds", "iterations", "budget", "complete", "psnr_face")
    return {name: avatar.document.get("progress", {}).get(name) for name in kept}
