"""The journal of a build, ``build.json`` beside ``dataset.json``: the result for each clip, and the settings.

It is the machine-readable build report and what makes a build idempotent. A clip counts as done only when all shards
that its record names are listed in ``dataset.json``; so whichever of the two files a crash left outdated, no clip is
lost and none is added twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from cluster.storage import storage
from configs import InputError
from shards.format.catalogue import Catalogue, base_name

FILE = "build.json"
FORMAT = "headstart-build"


class Journal:
    """Records of clips by name.

    Attributes:
        settings: size of the dataset's frames, on which later builds must agree, and ``adding``: records of the
            features that are being added to its shards.
        clips: clip name → record from a ``commit`` message of :func:`shards.build.worker.run_task`, with ``shards``: base
            names of the shards that hold it.
        tars: name of a foreign tar → ``bytes``, ``modified``; ``complete``: whether it was read to its end; ``stated``:
            digest of the statements about its people; ``clips``: names; ``refused``: samples that cannot be used.
    """

    def __init__(
        self,
        url: str,
        settings: dict[str, Any] | None = None,
        clips: dict[str, Any] | None = None,
        tars: dict[str, Any] | None = None,
    ) -> None:
        self.url, self.settings, self.clips, self.tars = url, settings or {}, clips or {}, tars or {}

    @classmethod
    def read(cls, url: str) -> Journal:
        """The journal of a dataset; an empty one where there is none.

        Raises:
            InputError: not a build report of ours.
        """
        where = storage.join(url, FILE)
        if not storage.exists(where):
            return cls(url)
        value = storage.read_json(where)
        if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("clips"), dict):
            raise InputError(f"{where}: not a build report of headstart; move it away and run the build again")
        return cls(url, value.get("settings"), value["clips"], value.get("tars"))

    def write(self) -> None:
        """Replace the file atomically."""
        tars = f',\n "tars": {{{_rows(self.tars)}\n }}' if self.tars else ""
        head = f'{{\n "format": "{FORMAT}",\n "settings": {json.dumps(self.settings)},\n "clips": '
        text = f"{head}{{{_rows(self.clips)}\n }}{tars}\n}}\n"
        storage.write_bytes(storage.join(self.url, FILE), text.encode())

    def agree(self, settings: dict[str, Any]) -> None:
        """Take over the settings of a first build, or prove that a later one has the same.

        Raises:
            InputError: naming both values.
        """
        for name, value in settings.items():
            if name in self.settings and self.settings[name] != value:
                raise InputError(
                    f"{self.url}: was built with {name} {self.settings[name]}, got {value}; "
                    "use the same or another folder"
                )
        self.settings.update(settings)

    def done(self, catalogue: Catalogue) -> dict[str, Any]:
        """Records of the clips that need no work: refused ones, and those whose shards are all listed."""
        listed = {base_name(name) for name in catalogue.names()}
        return {name: record for name, record in self.clips.items() if listed.issuperset(record.get("shards", ()))}

    def add(self, records: Iterable[dict[str, Any]], shards: Iterable[str]) -> None:
        """Record clips that are complete in these shards."""
        names = sorted(map(base_name, shards))
        for record in records:
            kept = {k: v for k, v in record.items() if k != "prefix"}
            self.clips[record["clip"]] = {**kept, "shards": names if record["frames"] else []}

    def forget(self, clips: Iterable[str]) -> None:
        """Drop the records of some clips, without causing their tars to be read again."""
        gone = set(clips)
        for name in gone:
            self.clips.pop(name, None)
        for record in self.tars.values():
            record["clips"] = [name for name in record["clips"] if name not in gone]


def _rows(records: Mapping[str, object]) -> str:
    return ",".join(f"\n  {json.dumps(name)}: {json.dumps(records[name])}" for name in sorted(records))
