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

from cluster import storage
from configs import InputError
from shards.schema import clean_name

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


def read_consent(path: str) -> list[ConsentRecord]:
    """Read a consent file.

    Raises:
        InputError: unreadable, other columns than expected, an incomplete row, or a clip named twice.
    """
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8 CSV"
        ) from None
    rows = list(csv.reader(io.StringIO(text)))
    header = tuple(name.strip() for name in rows[0]) if rows else ()
    if header != COLUMNS:
        raise InputError(
            f"{path}: row 1 has the columns '{','.join(header)}', expected '{','.join(COLUMNS)}'; correct the header"
        )
    records, seen = [], {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        record = _record(path, line, [cell.strip() for cell in row])
        if record.clip in seen:
            raise InputError(f"{path}: rows {seen[record.clip]} and {line} both name clip '{record.clip}'; keep one")
        seen[record.clip] = line
        records.append(record)
    return records


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


def record_for(records: Sequence[ConsentRecord], name: str) -> ConsentRecord | None:
    """The row that speaks of the clip called ``name`` (its file's name, with or without ending), or None."""
    stem = name.rsplit(".", 1)[0] if "." in name else name
    exact = next((record for record in records if record.clip in (name, stem)), None)
    if exact is not None:
        return exact
    return next((r for r in records if fnmatchcase(stem, r.clip) or fnmatchcase(name, r.clip)), None)


def unknown_record(clip: str) -> ConsentRecord:
    """The record of a clip that no consent file names: itself as identity, everything else unknown."""
    return ConsentRecord(clip=clip, identity=clean_name(clip))
