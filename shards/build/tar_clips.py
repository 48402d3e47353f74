"""The clips of one foreign tar, one after the other, for the worker that builds them, and the tar's result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping

from cluster.storage import storage
from cluster.storage.errors import sentence
from configs import InputError
from shards.build.task import SourceClip, TarTask
from shards.people.consent import ConsentRecord
from shards.people.copies import Copies
from shards.tar.foreign import Fault, ForeignSample, read_samples


class TarClips:
    """Iterates over the clips to build; the files of each exist until the next one is requested."""

    def __init__(self, task: TarTask, out: str) -> None:
        self.task, self._out = task, out
        self._names: list[str] = []
        self._faults: list[dict[str, object]] = []
        self._changed: list[dict[str, object]] = []
        self._complete = True
        self._copies = Copies(task.held)
        self.fraction = 0.0  # of the tar that was read

    def __iter__(self) -> Iterator[SourceClip]:
        tar, folder = self.task.tar, storage.scratch(self._out)
        try:
            for found in read_samples(tar.url, folder, lambda key: tar.clip_name(key) not in self.task.done):
                if isinstance(found, Fault):
                    self._note(found)
                else:
                    self.fraction = min(1.0, found.end / tar.bytes) if tar.bytes else 0.0
                    yield from self._clip(found)
        except OSError as error:
            raise sentence(folder, "write", error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _note(self, fault: Fault) -> None:
        if not fault.key:
            self._complete = False
        name = f"{self.task.tar.name}/{fault.key}" if fault.key else self.task.tar.file
        self._faults.append({"clip": name, "start": None, "end": None, "reason": fault.reason})

    def _clip(self, sample: ForeignSample) -> Iterator[SourceClip]:
        tar = self.task.tar
        file, name = f"{tar.name}/{sample.key}{sample.ending}", tar.clip_name(sample.key)
        try:
            record, known = self.task.statements.record(file, name, sample.facts)
        except InputError as error:
            self._note(Fault(sample.key, str(error)))
            return
        before = self.task.done.get(name)
        if before is not None:
            self._names.append(name)
            self._compare(name, before, sample.bytes, record if known else None)
            return
        sha256 = storage.sha256(str(sample.video))
        if reason := self._copies.reason(sha256, record.identity):
            self._note(Fault(sample.key, reason))
            return
        self._copies.add(sha256, name, record.identity)
        self._names.append(name)
        yield SourceClip(
            name=name,
            path=str(sample.video),
            bytes=sample.bytes,
            modified=0,
            consent=record,
            known=known,
            tar=tar.name,
            member=file,
            sound=str(sample.sound or ""),
        )

    def _compare(self, name: str, before: Mapping[str, object], length: int, now: ConsentRecord | None) -> None:
        """A clip that is built already must be the same, of the same person, under the same terms."""
        reason = ""
        if before["bytes"] != length:
            reason = "the video differs from the one that was built under this name; give its tar another name"
        elif now is not None and (was := stated(before)) != (
            says := stated({**now.for_meta(), "identity": now.identity})
        ):
            reason = f"was built as {was}, the statements now say {says}; {CORRECT}"
        if reason:
            self._changed.append({"clip": before.get("file", name), "start": None, "end": None, "reason": reason})

    def message(self) -> tuple[str, str, dict[str, object], list[dict[str, object]]]:
        """``("tar", name, record, changed)`` for the builder, after the last clip was taken."""
        record = {
            "bytes": self.task.tar.bytes,
            "modified": self.task.tar.modified,
            "complete": self._complete,
            "stated": self.task.statements.digest,
            "clips": self._names,
            "refused": self._faults,
        }
        return "tar", self.task.tar.name, record, self._changed


CORRECT = "correct it with headstart shards relabel DATASET --consent FILE.csv"


def stated(record: Mapping[str, object]) -> str:
    """Who is in a clip and under which terms, for a sentence."""
    return f"{record['identity']}, licence {record['licence']}, consent {record['consent']}"
