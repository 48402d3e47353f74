"""People withdrawn from a dataset: ``withdrawn.json`` holds hashes of names and videos, so that no later build adds them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypedDict

from cluster.storage import storage
from configs import InputError

FILE = "withdrawn.json"
FORMAT = "headstart-withdrawn"


def name_hash(identity: str) -> str:
    """Hex SHA-256 of ``headstart:NAME``; the name itself is not stored."""
    return hashlib.sha256(f"headstart:{identity}".encode()).hexdigest()


class _Counts(TypedDict):
    person: str
    date: str
    samples: int
    clips: int


class Withdrawal(_Counts, total=False):
    """One withdrawal.

    Attributes:
        person: :func:`name_hash` of the name.
        date: UTC, ISO 8601.
        samples: number of samples removed.
        clips: number of clips removed.
        videos: SHA-256 of the person's videos; records of version 0.1 have none.
    """

    videos: list[str]


@dataclass
class Withdrawn:
    """The record of withdrawals."""

    people: list[Withdrawal]

    def covers(self, identity: str) -> bool:
        """Whether this person was withdrawn."""
        return self.entry(identity) is not None

    def entry(self, identity: str, video_sha256: str = "") -> Withdrawal | None:
        """The withdrawal of this person, or of the person in this video; else ``None``."""
        person = name_hash(identity)
        for entry in self.people:
            if entry["person"] == person or (video_sha256 and video_sha256 in entry.get("videos", ())):
                return entry
        return None


def withdrawn_people(url: str) -> Withdrawn:
    """Read the record; empty if no person was withdrawn.

    Raises:
        InputError: the file is damaged: a build could add a withdrawn person again.
    """
    where = storage.join(url, FILE)
    if not storage.exists(where):
        return Withdrawn([])
    value = storage.read_json(where)
    try:
        if value["format"] != FORMAT:
            raise KeyError("format")
        return Withdrawn([entry for entry in value["people"] if entry["person"]])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where}: damaged ({error!r}); restore it, it records who must not be added again") from None


def write_withdrawn(url: str, withdrawn: Withdrawn) -> None:
    """Replace the record atomically."""
    storage.write_json(storage.join(url, FILE), {"format": FORMAT, "people": withdrawn.people})
