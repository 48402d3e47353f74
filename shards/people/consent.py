"""Who is in a clip, under which licence, and with which consent: the consent file and its record in every sample.

A CSV with the columns ``clip,identity,licence,consent,source``. ``clip`` is the name of a file with or without its
ending (``001``), a path or the end of one (``person_a/001``), or a pattern of either (``news_*``, ``person_a/*``; ``*``
does not match a ``/``). A row without a pattern must match one file: if it matches several, it is refused. A path has
precedence over a name, a name over patterns, an earlier pattern over a later one. A clip that no row matches is its own identity
with licence and consent ``unknown``, and a pretraining run needs ``allow_unknown_licence`` to use it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
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

    def sentence(self) -> str:
        """Who is in the clip and under which terms: ``ann, licence CC BY 4.0, consent signed``."""
        return f"{self.identity}, licence {self.licence}, consent {self.consent}"

    def for_meta(self) -> dict[str, str]:
        """The entries that ``meta.json`` of a sample keeps: licence, consent and source."""
        return {name: value for name, value in asdict(self).items() if name not in ("clip", "identity")}


class ConsentFile:
    """The rows of a consent file, and their assignment to files."""

    def __init__(self, path: str, rows: Mapping[int, ConsentRecord]) -> None:
        """``rows``: line of the CSV → record."""
        self.path, self.rows = path, dict(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def assign(self, files: Sequence[str]) -> dict[str, ConsentRecord]:
        """The records of the files that a row matches, by path or URL.

        Raises:
            InputError: a row without a pattern fits several files, or two rows of equal rank fit one.
        """
        exact: dict[str, tuple[int, int]] = {}  # file → (parts of the row's path, line)
        patterns: dict[str, int] = {}
        for line, record in self.rows.items():
            fits = [file for file in files if _fits(record.clip, file, equal=True)]
            if len(fits) > 1:
                shown = ", ".join(fits[:3]) + (", ..." if len(fits) > 3 else "")
                raise InputError(
                    f"{self.path}: row {line} names '{record.clip}', which fits {len(fits)} files ({shown}); write the "
                    "path that it means, such as person_a/001, or a pattern such as person_a/*"
                )
            for file in fits:
                self._keep(exact, file, record.clip.count("/"), line)
            for file in files:
                if not fits and _fits(record.clip, file, equal=False):
                    patterns.setdefault(file, line)
        return {file: self.rows[exact[file][1] if file in exact else patterns[file]] for file in {**patterns, **exact}}

    def _keep(self, exact: dict[str, tuple[int, int]], file: str, parts: int, line: int) -> None:
        before = exact.get(file)
        if before is not None and before[0] == parts and self.rows[before[1]] != self.rows[line]:
            raise InputError(f"{self.path}: rows {before[1]} and {line} both name {file}; keep one")
        if before is None or parts > before[0]:
            exact[file] = (parts, line)


def _fits(row: str, file: str, *, equal: bool) -> bool:
    """Whether a row's name, path or pattern matches the end of a file's path, with or without the file's ending."""
    wanted = row.split("/")
    parts = file.replace("\\", "/").split("/")[-len(wanted) :]
    if len(parts) < len(wanted):
        return False
    match = (lambda name, sign: name == sign) if equal else fnmatchcase
    stem = parts[-1].rpartition(".")[0] or parts[-1]
    within = all(match(part, sign) for part, sign in zip(parts[:-1], wanted))
    return within and (match(parts[-1], wanted[-1]) or match(stem, wanted[-1]))


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
    records: dict[int, ConsentRecord] = {}
    lines: dict[str, int] = {}
    people: dict[str, tuple[str, int]] = {}
    for line, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        cells = [cell.strip() for cell in row]
        record = records[line] = _record(path, line, cells)
        if (first := lines.setdefault(record.clip, line)) != line:
            raise InputError(f"{path}: rows {first} and {line} both name clip '{record.clip}'; keep one")
        written, first = people.setdefault(record.identity, (cells[1], line))
        if written != cells[1]:
            raise InputError(
                f"{path}: rows {first} and {line} name '{written}' and '{cells[1]}', which are both written "
                f"'{record.identity}' in keys; choose names that differ in their first 36 letters, digits, '_' or '-'"
            )
    return ConsentFile(path, records)


def _record(path: str, line: int, row: Sequence[str]) -> ConsentRecord:
    if len(row) != len(COLUMNS):
        raise InputError(f"{path}: row {line} has {len(row)} cells, expected {len(COLUMNS)}: {','.join(COLUMNS)}")
    clip, identity, licence, consent, source = row
    if not clip or not identity:
        raise InputError(f"{path}: row {line} lacks a {'clip' if not clip else 'identity'}; fill the cell in")
    return ConsentRecord(
        clip=clip.replace("\\", "/").removeprefix("./"),
        identity=clean_name(identity),
        licence=licence or UNKNOWN,
        consent=consent or UNKNOWN,
        source=source,
    )


def unknown_record(clip: str) -> ConsentRecord:
    """The record of a clip that no consent file names: itself as identity, everything else unknown."""
    return ConsentRecord(clip=clip, identity=clean_name(clip))
