"""Files that appear whole or not at all, and the record that says a head is synthetic."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# What an exported file says about itself: ``Provenance.as_dict()`` and the axes.
Record = Mapping[str, object]
RECORD_KEY = "headstart_provenance"


@contextmanager
def partial_file(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write to; renamed to ``path`` at the end, removed after an error.

    The name keeps the suffix, because some writers choose the format by it.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def statement(record: Record) -> str:
    """The record's sentence for people, on one line."""
    return " ".join(str(record.get("statement", "Synthetic head made with headstart")).split())


def as_json(record: Record, axes: str) -> str:
    """The record as one line of ASCII JSON; ``axes`` and ``synthetic`` are part of it."""
    return json.dumps({"synthetic": True, **record, "axes": axes, "units": "metres"}, sort_keys=True)


def parse_record(text: str) -> dict[str, object] | None:
    """The record in a line of JSON; ``None`` if it is not a JSON object."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
