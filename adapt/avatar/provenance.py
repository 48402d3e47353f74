"""The machine-readable statement that a picture or video is synthetic, by whom and with which avatar it was made."""

from __future__ import annotations

import contextlib
import json
import os
import re
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from configs.machine import package_version

# IPTC's term for media made by a trained model; C2PA assertions use the same URL.
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

# The sentence in comments, of this version and of older ones; some files keep it alone, without the record.
STATEMENT = re.compile(
    r"^Synthetic \w+ made (?:by (?P<creator>.+) )?with (?P<tool>headstart\b.*?)(?:, avatar '(?P<avatar>.*)')?$"
)
# Keys of the record: our own, and one of the few that survive remuxing by other programs.
RECORD_KEYS = ("headstart_provenance", "description")


def tool_version() -> str:
    """``headstart X.Y.Z``."""
    return f"headstart {package_version()}"


def creator_name() -> str:
    """Who makes the output: ``HEADSTART_CREATOR``, else empty, and then nothing is said. Login names are private."""
    return os.environ.get("HEADSTART_CREATOR", "").strip()


def now() -> str:
    """The present time, UTC, ISO 8601 to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0).isoformat()


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What every output carries.

    Attributes:
        avatar: name of the avatar folder, or a description of what made the frames.
        avatar_sha256: hash of the avatar's weights, empty when no avatar took part.
        recipe: the recipe that made the avatar.
        audio: name of the driving audio file.
        creator: see :func:`creator_name`; IPTC's and C2PA's fields for an author are left out where none is known, too.
        created: ISO 8601, UTC.
        tool: name and version.
        watermark, watermark_key: payload and key of the watermark in the pictures, empty without one.
        consent, licence: what the avatar's maker recorded about the person's agreement and the footage, or ``unknown``.
    """

    avatar: str
    avatar_sha256: str = ""
    recipe: str = ""
    audio: str = ""
    creator: str = ""
    created: str = ""
    tool: str = ""
    watermark: str = ""
    watermark_key: str = ""
    consent: str = "unknown"
    licence: str = "unknown"

    @classmethod
    def make(cls, **fields: str) -> Provenance:
        """A statement with creator, time and tool filled in."""
        return cls(**{"creator": creator_name(), "created": now(), "tool": tool_version(), **fields})

    def statement(self) -> str:
        """One sentence for people."""
        by = f"by {self.creator} " if self.creator else ""
        return f"Synthetic video made {by}with {self.tool}, avatar '{self.avatar}'"

    def as_dict(self) -> dict[str, object]:
        """Everything that is known, with the flag and the IPTC source type that machines look for."""
        known = {name: value for name, value in asdict(self).items() if value or name != "creator"}
        return {"synthetic": True, "digital_source_type": SOURCE_TYPE, "statement": self.statement(), **known}

    def tags(self) -> dict[str, str]:
        """Container metadata: the plain comment that players show, and the JSON that machines read."""
        record = json.dumps(self.as_dict(), sort_keys=True)
        return {
            "comment": self.statement(),
            "synthetic": "true",
            "digital_source_type": SOURCE_TYPE,
            **dict.fromkeys(RECORD_KEYS, record),
            "keywords": f"synthetic, trainedAlgorithmicMedia, {self.tool}",
        }


def read_record(tags: dict[str, str]) -> dict[str, object] | None:
    """The JSON record among tags, whose keys are compared without regard to case; ``None`` if there is none.

    Raises:
        ValueError: the record is damaged.
    """
    lowered = {key.lower().removeprefix("com.apple.quicktime."): value for key, value in tags.items()}
    for key in RECORD_KEYS:
        text = lowered.get(key, "")
        if text.lstrip().startswith("{") and (key != "description" or '"synthetic"' in text):
            record = json.loads(text)
            if not isinstance(record, dict):
                raise ValueError("not a JSON object")
            return record
    return None


def parse_tags(tags: dict[str, str]) -> dict[str, object] | None:
    """The statement found in container or PNG metadata, ``None`` if there is none.

    Keys are compared without regard to case: Matroska and WebM write them in capitals. QuickTime files keep the comment
    alone, from which creator, tool and avatar are read.
    """
    with contextlib.suppress(ValueError):
        record = read_record(tags)
        if record is not None and "synthetic" in record:
            return record
    lowered = {key.lower(): value for key, value in tags.items()}
    said = next((s for key in ("comment", "description") if (s := STATEMENT.match(lowered.get(key, "").strip()))), None)
    if said is None:
        return None
    return {
        "synthetic": True,
        "statement": said.group(0),
        **{k: v for k, v in said.groupdict().items() if v is not None},
    }
