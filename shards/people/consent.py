"""Who is in a clip, under which licence, and whether they agreed: the consent file and its record in every sample.

A CSV with the columns ``clip,identity,licence,consent,source``; ``clip`` is a clip's name or a pattern (``news_*``).
The exact name wins over patterns, an earlier pattern over a later one. A clip that no row names is its own identity
with licence and consent ``unknown``, and a pretraining run must say ``allow_unknown_licence`` to use it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

from cluster.storage import storage
from configs import InputError
from shards.format.schema import clean_name

COLUMNS = ("clip", "identity", "licence", "consent", "source")
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class ConsentRecord:
    """One row of the consent file."""

    clip: str
    identity: str
    licence: str = UNKNOWN
    consent: str = UNKNOWN
    source: str = ""

    def for_meta(self) -> dict[str, str]:
        """What ``meta.json`` of a sample keeps of it."""
        return {name: value for name, value in asdict(self).items() if name not in ("clip", "identity")}


class ConsentFile:
    """The rows of a consent file, found by clip name."""

    def __init__(self, records: Sequence[ConsentRecord]) -> None:
        self._exact = {record.clip: record for record in records}
        self._patterns = [record for record in records if any(sign in record.clip for sign in "*?[")]

    def __len__(self) -> int:
        return len(self._exact)

    def find(self, name: str) -> ConsentRecord | None:
        """The row that speaks of the clip called ``name`` (its file's name, with or without ending), or None."""
        stem = name.rpartition(".")[0] or name
        exact = self._exact.get(name) or self._exact.get(stem)
        if exact is not None:
            return exact
        return next((r for r in self._patterns if fnmatchcase(stem, r.clip) or fnmatchcase(name, r.clip)), None)


def read_consent(path: str) -> ConsentFile:
    """Read a consent file.

    Raises:
        InputError: unreadable, other columns than expected, an incomplete row, or a clip named twice.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"{error.reason} at byte {error.start}"
        raise InputError(f"{path}: not UTF-8 text ({what}); save it as UTF-8 CSV") from None
    rows = list(csv.reader(io.StringIO(text)))
    header = tuple(name.strip() for name in rows[0]) if rows else ()
    if header != COLUMNS:
        raise InputError(
            f"{path}: row 1 has the columns '{','.join(header)}', expected '{','.join(COLUMNS)}'; correct the header"
        )
    records: dict[str, tuple[int, ConsentRecord]] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        record = _record(path, line, [cell.strip() for cell in row])
        if record.clip in records:
            first = records[record.clip][0]
            raise InputError(f"{path}: rows {first} and {line} both name clip '{record.clip}'; keep one")
        records[record.clip] = (line, record)
    return ConsentFile([record for _, record in records.values()])


def _record(path: str, line: int, row: Sequence[str]) -> ConsentRecord:
    if len(row) != len(COLUMNS):
        raise InputError(f"{path}: row {line} has {len(row)} cells, expected {len(COLUMNS)}: {','.join(COLUMNS)}")
    clip, identity, licence, consent, source = row
    if not clip or not identity:
        raise InputError(f"{path}: row {line} lacks a {'clip' if not clip else 'identity'}; fill the cell in")
    return ConsentRecord(
        clip=clip,
        identity=clean_name(identity),
        licence=licence or UNKNOWN,
        consent=consent or UNKNOWN,
        source=source,
    )


def unknown_record(clip: str) -> ConsentRecord:
    """The record of a clip that no consent file names: itself as identity, everything else unknown."""
    return ConsentRecord(clip=clip, identity=clean_name(clip))
