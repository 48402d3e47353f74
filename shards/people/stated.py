"""Who is in a sample of another tool's tar: the consent file's row, else what its JSON says under the stated keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from configs import InputError, nearest
from shards.format.schema import clean_name
from shards.people.consent import ConsentFile, ConsentRecord, unknown_record

FIELDS = ("identity", "licence", "consent", "source")


def stated_keys(texts: Sequence[str]) -> dict[str, str]:
    """``["identity=person.id", 'licence="CC BY 4.0"']`` as a mapping from field to key.

    Raises:
        InputError: not ``FIELD=KEY``, an unknown field, or one that is given twice.
    """
    keys: dict[str, str] = {}
    for text in texts:
        name, equals, key = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--json-keys '{text}': expected FIELD=KEY, such as identity=person.id")
        if name not in FIELDS:
            raise InputError(
                f"--json-keys '{text}': no field '{name}'{nearest(name, FIELDS)}; one of {', '.join(FIELDS)}"
            )
        if name in keys:
            raise InputError(f"--json-keys names {name} twice; keep one")
        keys[name] = key.strip()
    return keys


@dataclass(frozen=True)
class Statements:
    """Where to find identity, licence, consent and source of a sample.

    Attributes:
        rows: the consent file; a row that matches a sample decides alone.
        keys: field → key in the sample's JSON, where dots lead into inner objects (``person.id``), or a text in double quotes.
    """

    rows: ConsentFile | None = None
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest of the statements; tars that were read under another one are read again."""
        rows = sorted(map(repr, self.rows.rows.values())) if self.rows is not None else []
        return hashlib.sha256(json.dumps([rows, sorted(self.keys.items())]).encode()).hexdigest()[:16]

    def record(self, file: str, clip: str, facts: Mapping[str, object] | None) -> tuple[ConsentRecord, bool]:
        """The record of a sample, and whether a row or the JSON states who is in it.

        Args:
            file: ``TAR/KEY.ENDING``, which rows of the consent file match as a path.
            clip: the clip's name, which becomes the identity if none is stated.
            facts: the sample's JSON.

        Raises:
            InputError: a row without a pattern that names no tar, a JSON without the stated identity, or one that denies consent.
        """
        row = self._row(file)
        if row is not None:
            return row, True
        record = unknown_record(clip)
        if not self.keys:
            return record, False
        values = {name: _value(name, key, facts) for name, key in self.keys.items()}
        if "identity" in self.keys:
            if not values["identity"]:
                where = "has no" if facts is not None else "has no JSON and so no"
                raise InputError(
                    f"{where} '{self.keys['identity']}' (identity); name another key, or the person in the consent file"
                )
            values["identity"] = identity_name(values["identity"])
        return ConsentRecord(**{**vars(record), **{k: v for k, v in values.items() if v}}), "identity" in self.keys

    def _row(self, file: str) -> ConsentRecord | None:
        if self.rows is None:
            return None
        row = self.rows.assign([file]).get(file)
        if row is not None and not any(sign in row.clip for sign in "*?[") and not _names_tar(row.clip, file):
            raise InputError(
                f"{self.rows.path} names '{row.clip}' without its tar, and other tars may hold one of this name; write "
                f"'{file.rpartition('.')[0]}', or a pattern such as '*{row.clip}'"
            )
        return row


def _names_tar(row: str, file: str) -> bool:
    return row.count("/") == file.count("/")


def _value(name: str, key: str, facts: Mapping[str, object] | None) -> str:
    """What the JSON says, as text; empty if it says nothing."""
    if len(key) > 1 and key[0] == key[-1] == '"':
        return key[1:-1]
    found: object = facts
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if name == "consent" and isinstance(found, bool):
        if not found:
            raise InputError(f"its JSON says '{key}': false, so it is not used")
        return "yes"
    if found is None or found == "":
        return ""
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise InputError(
            f"its JSON has {type(found).__name__} under '{key}' ({name}), expected a text or a whole number"
        )
    return str(found).strip()


def identity_name(stated: str) -> str:
    """A name for keys, at most 36 characters; different names stay different."""
    clean = clean_name(stated)
    return clean if clean == stated else f"{clean[:27]}-{hashlib.sha256(stated.encode()).hexdigest()[:8]}"
