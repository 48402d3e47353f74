"""Who agreed to an avatar, asked before one is made; and the refusal of people who were withdrawn from a dataset."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from adapt.avatar.provenance import now
from cluster.storage import storage
from cluster.storage.errors import is_remote
from configs import InputError
from shards.format.catalogue import read_catalogue
from shards.format.schema import clean_name
from shards.people.consent import UNKNOWN, read_consent
from shards.people.withdrawn import withdrawn_people

LONGEST_TEXT = 300  # characters
# A text that ends like this was meant as a file.
FILES = (".csv", ".txt", ".md", ".pdf", ".json", ".png", ".jpg", ".jpeg", ".docx", ".odt", ".eml")
WAYS = "give a file, a sentence that says who agreed and when, or 'unknown'"
QUESTION = (
    "Who is in {video}, and have they agreed to an avatar? One line, which every video of the avatar will carry, such as "
    "'Ann Lee agreed in writing on 3 May 2026'; Enter alone records 'unknown':"
)
WARNING = (
    "nobody's consent to this avatar is recorded: it and its videos say 'consent unknown'; "
    "give --consent FILE or --consent 'who agreed, and when'"
)


@dataclass(frozen=True, kw_only=True)
class Consent:
    """What an avatar says about the person's agreement.

    Attributes:
        consent: who agreed, in the user's words, or ``unknown``; every output of the avatar carries it.
        licence: of the footage, ``unknown`` where no consent file says it.
        identity: the person's name in datasets: that of the consent file's row, else the video's name.
        file, file_sha256: the file that was given, by name and hash; its content is not copied.
        recorded: ISO 8601, UTC.
    """

    consent: str
    licence: str = UNKNOWN
    identity: str
    file: str = ""
    file_sha256: str = ""
    recorded: str

    def as_dict(self) -> dict[str, str]:
        """For ``avatar.json``."""
        return asdict(self)


def question(video: str | Path) -> str:
    """What a person at a terminal is asked."""
    return QUESTION.format(video=Path(str(video)).name)


def consent_of(video: str | Path, given: str | Path | None) -> Consent:
    """The consent record of an adaptation.

    Args:
        video: the clip.
        given: a consent file as ``shards build`` takes it (``.csv``), any other file that shows the agreement, a text,
            ``unknown``, or ``None`` where nothing is known.

    Raises:
        InputError: a file that is absent or does not name the video, a text that is empty, too long or not one line.
    """
    text = str(given).strip() if given is not None else UNKNOWN
    identity = clean_name(Path(str(video)).stem)
    if is_remote(text) or text.lower().endswith(FILES) or (text and Path(text[:200]).exists()):
        return _of_file(text, str(video), identity)
    if not text or not text.isprintable() or len(text) > LONGEST_TEXT:
        raise InputError(f"--consent {text[:40]!r}: expected one line of 1 to {LONGEST_TEXT} characters; {WAYS}")
    return Consent(consent=text, identity=identity, recorded=now())


def _of_file(path: str, video: str, identity: str) -> Consent:
    if not is_remote(path) and not Path(path).is_file():
        why = "is a folder" if Path(path).is_dir() else "no such file"
        raise InputError(f"--consent {path}: {why}; {WAYS}")
    name, sha256 = storage.basename(path), hashlib.sha256(storage.read_bytes(path)).hexdigest()
    if not path.lower().endswith(".csv"):
        said = f"as in {name}, SHA-256 {sha256[:16]}"
        return Consent(consent=said, identity=identity, file=name, file_sha256=sha256, recorded=now())
    record = read_consent(path).assign([video]).get(video)
    if record is None:
        raise InputError(f"--consent {path}: no row names the clip {Path(video).name}; add one, or {WAYS}")
    return Consent(
        consent=record.consent,
        licence=record.licence,
        identity=record.identity,
        file=name,
        file_sha256=sha256,
        recorded=now(),
    )


def refuse_withdrawn(video: str | Path, sha256: str, identity: str, dataset: str | Path) -> None:
    """Refuse a clip or a person that was withdrawn from a dataset (``headstart shards forget``).

    Args:
        sha256: of the clip's content, by which it is recognised.
        identity: the person's name, from the consent file or else from the clip's name.
        dataset: folder or URL.

    Raises:
        InputError: withdrawn, or ``dataset`` is not a dataset.
    """
    read_catalogue(str(dataset))
    entry = withdrawn_people(str(dataset)).entry(identity, sha256)
    if entry is None:
        return
    what = "this very clip" if sha256 in entry.get("videos", ()) else f"the identity '{identity}'"
    raise InputError(
        f"{video}: {what} was withdrawn from {dataset} on {entry['date']}; no avatar is made of people who withdrew "
        "(if they agreed again, leave --dataset out and say so with --consent)"
    )
