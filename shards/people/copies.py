"""Videos that are equal byte for byte: one person under two identities would stand in training and among held-out people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cluster.storage import storage
from shards.build.task import SourceClip


class Copies:
    """Which clip, of which identity, has which content. Clips of one identity may be equal."""

    def __init__(self, held: Mapping[str, tuple[str, str]] | None = None) -> None:
        """``held``: SHA-256 of a video → (clip, identity)."""
        self.held = dict(held or {})

    @classmethod
    def of(cls, records: Mapping[str, Mapping[str, object]]) -> Copies:
        """The clips of a journal that have samples."""
        copies = cls()
        for name, record in sorted(records.items()):
            if record["frames"] and record["sha256"]:
                copies.add(str(record["sha256"]), name, str(record["identity"]))
        return copies

    def add(self, sha256: str, clip: str, identity: str) -> None:
        """Record a clip that is used."""
        self.held.setdefault(sha256, (clip, identity))

    def reason(self, sha256: str, identity: str) -> str:
        """Why a video of this person is not used; empty if no other person has it."""
        clip, other = self.held.get(sha256, ("", identity))
        if other == identity:
            return ""
        return (
            f"byte for byte the video of clip '{clip}', identity '{other}', which is used; if they are to be two clips, "
            f"give both one identity in the consent file"
        )


def leave_out_copies(
    clips: Sequence[SourceClip], records: Mapping[str, Mapping[str, object]]
) -> tuple[list[SourceClip], list[dict[str, object]]]:
    """Clips without copies of other people's videos, and a refusal for each copy.

    Only files of equal length are read. Among new copies, one that a consent file names is kept before one that it
    does not name.

    Args:
        clips: to be built, sorted by name.
        records: of the clips that are built, by name.
    """
    lengths = Counter[object](clip.bytes for clip in clips)
    lengths.update({record["bytes"] for record in records.values() if record["frames"]})
    copies = Copies.of(records)
    refused: dict[str, dict[str, object]] = {}
    for clip in sorted(clips, key=lambda clip: not clip.known):
        if lengths[clip.bytes] > 1 and (sha256 := _sha256(clip)):
            if reason := copies.reason(sha256, clip.consent.identity):
                refused[clip.name] = {"clip": clip.name, "start": None, "end": None, "reason": reason}
            copies.add(sha256, clip.name, clip.consent.identity)
    return [clip for clip in clips if clip.name not in refused], list(refused.values())


def people_of_one_video(records: Mapping[str, Mapping[str, object]]) -> Iterable[str]:
    """A sentence for each clip of a dataset whose video another identity has too."""
    copies = Copies.of(records)
    for name, record in sorted(records.items()):
        sha256, identity = str(record["sha256"]), str(record["identity"])
        if record["frames"] and copies.reason(sha256, identity):
            clip, other = copies.held[sha256]
            yield (
                f"clips '{clip}' and '{name}' are the same video, of identities '{other}' and '{identity}': "
                "one person may stand in training and among held-out people; give both one identity in a consent file "
                "and correct them by it (headstart shards relabel)"
            )


def _sha256(clip: SourceClip) -> str:
    try:
        return storage.sha256(storage.cached(clip.path))
    except (OSError, storage.StorageError):
        return ""  # what is wrong with it is said when it is read
