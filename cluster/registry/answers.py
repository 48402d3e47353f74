"""What an embedded registry answered before, valid until its database changes.

Opening MLflow takes seconds; an adaptation looks up three champions, and they rarely change.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from cluster.registry import mlflow_client
from cluster.storage import storage
from configs import InputError

FILE = "answers.json"  # beside the fetched priors
_COUNTER = slice(24, 28)  # SQLite's header: file change counter (SQLite file format, section 1.3)


def stamp() -> list[object] | None:
    """A value that changes whenever the registry does; ``None`` for a server, or before the database exists."""
    file = mlflow_client.sqlite_file(mlflow_client.tracking_uri())
    if file is None or not file.is_file():
        return None
    with file.open("rb") as data_base:
        counter = data_base.read(_COUNTER.stop)[_COUNTER].hex()
    # In write-ahead logging mode transactions are in the second file first.
    states = [path.stat() for path in (file, file.with_name(f"{file.name}-wal")) if path.is_file()]
    return [str(file), counter, *([state.st_size, state.st_mtime_ns] for state in states)]


def recall(cache: Path, name: str, version: str) -> dict[str, str] | None:
    """The answer to a question that was asked since the registry last changed.

    Returns:
        ``folder`` (below ``cache``) and ``manifest`` (its SHA-256), or ``missing``: the sentence that there is no such
        version; ``None`` if it was not asked.
    """
    answer: dict[str, str] | None = _read(cache, stamp()).get(f"{name}@{version}")
    return answer


def remember(cache: Path, asked: list[object] | None, name: str, version: str, answer: dict[str, str]) -> None:
    """Keep an answer, unless the registry has changed since ``asked`` (its :func:`stamp` before the question)."""
    now = stamp()
    if now is None or now != asked:
        return
    answers = {**_read(cache, now), f"{name}@{version}": answer}
    with contextlib.suppress(InputError):  # a home that cannot be written to only costs time
        storage.write_json(cache / FILE, {"stamp": now, "answers": answers})


def _read(cache: Path, now: list[object] | None) -> dict[str, Any]:
    """All answers of the registry as it is now."""
    if now is None:
        return {}
    try:
        kept = json.loads((cache / FILE).read_text())
        return dict(kept["answers"]) if kept["stamp"] == now else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
