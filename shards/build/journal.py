"""The build's memory, ``build.json`` beside ``dataset.json``: what became of each clip, with which settings.

It is the machine-readable build report and what makes a build idempotent. A clip counts as done only when all shards
that its record names are listed in ``dataset.json``; so whichever of the two files a crash left behind, no clip is lost
and none comes twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
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
        clips: clip name → record as :func:`shards.build.worker.run_task` gives it, with ``shards``: base names.
    """

    def __init__(self, url: str, settings: dict[str, Any] | None = None, clips: dict[str, Any] | None = None) -> None:
        self.url, self.settings, self.clips = url, settings or {}, clips or {}

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
        return cls(url, value.get("settings"), value["clips"])

    def write(self) -> None:
        """Replace the file in one piece."""
        rows = ",".join(f"\n  {json.dumps(k)}: {json.dumps(self.clips[k])}" for k in sorted(self.clips))
        text = f'{{\n "format": "{FORMAT}",\n "settings": {json.dumps(self.settings)},\n "clips": {{{rows}\n }}\n}}\n'
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
        """Note clips that are complete in these shards."""
        names = sorted(map(base_name, shards))
        for record in records:
            kept = {k: v for k, v in record.items() if k != "prefix"}
            self.clips[record["clip"]] = {**kept, "shards": names if record["frames"] else []}
