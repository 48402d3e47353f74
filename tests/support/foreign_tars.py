"""Tars as other tools write them for WebDataset: members of one sample after each other, under any names."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def plan(*shots: dict[str, Any], seed: int = 0) -> bytes:
    """A "video" of :mod:`tests.support.fake_tracker`."""
    return json.dumps({"shots": list(shots) or [{"seed": seed}]}).encode()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """Members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, person: str = "", seed: int = 0, **facts: Any) -> list[tuple[str, bytes]]:
    """A video and its JSON, with the person's name under ``speaker.id``."""
    value = {"speaker": {"id": person}, "licence": "CC BY 4.0", **facts}
    return [(f"{key}.mp4", plan(seed=seed)), (f"{key}.json", json.dumps(value).encode())]
