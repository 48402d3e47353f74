"""Samples of WebDataset tars that other tools wrote: a video, optionally its sound, and optionally a JSON.

A tar is read once, as a stream. Video and sound of one sample at a time are put on the disk, because the decoders need
files; nothing else is unpacked. The names in a tar are only labels: no file is made under one of them and links are not
followed, so a hostile tar reaches nothing outside the given folder.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from cluster.storage import storage
from configs import InputError
from shards.format.index import WholeTar
from shards.media.container import SOUND_ENDINGS, VIDEO_ENDINGS
from shards.tar.tars import sample_name

MAX_JSON = 1 << 22  # bytes of the JSON of one sample
COPY = 1 << 20  # bytes copied at a time


@dataclass(frozen=True)
class Fault:
    """What cannot be used, and why: a sample by its key, or the rest of the tar if ``key`` is empty."""

    key: str
    reason: str


@dataclass(frozen=True)
class ForeignSample:
    """One sample with a video.

    Attributes:
        key: as WebDataset forms it: the path up to the first dot of the file's name.
        ending: of the video, such as ``.mp4``.
        bytes: length of the video.
        video, sound: files that exist until the next sample is requested; None if not wanted or absent.
        facts: the JSON, or None.
        end: bytes of the (unzipped) tar read so far.
    """

    key: str
    ending: str
    bytes: int
    video: Path | None
    sound: Path | None
    facts: dict[str, object] | None
    end: int


def read_samples(url: str, folder: Path, wanted: Callable[[str], bool]) -> Iterator[ForeignSample | Fault]:
    """The samples of a tar or gzipped tar in file order, and the faults of those that cannot be used.

    Args:
        url: a local path, ``s3://`` or ``http(s)://``.
        folder: where the files of one sample are put; they are removed afterwards.
        wanted: called with a key; whether the files of that sample are needed.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    without: list[Fault] = []
    videos = False
    try:
        with _opened(url) as stream:
            for found in _samples(stream, folder, wanted):
                if isinstance(found, _Without):
                    without.append(found.fault())
                else:
                    videos = True
                    yield found
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, InputError) as error:
        yield Fault("", _sentence(url, error))
        return
    if videos:
        yield from without
    else:
        yield Fault("", "holds no videos; expected a video, its sound and a JSON of one name for each sample")


def _sentence(url: str, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error).removeprefix(f"{url}: ")
    return f"is not a readable tar, or is cut off ({error}); fetch it again"


@contextmanager
def _opened(url: str) -> Iterator[WholeTar]:
    with storage.open_read(url) as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if not zipped:
            yield WholeTar(stream, url)
            return
        with gzip.GzipFile(fileobj=stream) as plain:
            yield WholeTar(plain, url)


def _samples(
    stream: WholeTar, folder: Path, wanted: Callable[[str], bool]
) -> Iterator[ForeignSample | Fault | _Without]:
    sample: _Gathered | None = None
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                archive.members = []  # type: ignore[assignment]  # tarfile would remember every header
                key, suffix = sample_name(info.name.removeprefix("./"))
                if key is None or suffix is None or info.isdir():
                    continue
                if sample is not None and sample.key != key:
                    yield from sample.finish()
                    sample = None
                if sample is None:
                    sample = _Gathered(key, folder, wanted(key), _bad_key(key, key in seen))
                    seen.add(key)
                sample.take(info, suffix.lower(), archive)
            _check_end(archive, stream)  # before what there is of the last sample is taken for all of it
            if sample is not None:
                yield from sample.finish()
    finally:
        if sample is not None:
            sample.clear()


def _check_end(archive: tarfile.TarFile, stream: WholeTar) -> None:
    """Check that the tar was read to its end: tarfile silently takes a damaged header for it.

    Raises:
        InputError: something follows, or the end mark is missing.
    """
    while rest := archive.fileobj.read(COPY):  # type: ignore[union-attr]
        if rest.strip(b"\0"):
            raise InputError("is damaged: what follows its last readable member is no tar; fetch it again")
    stream.check_end()


def _bad_key(key: str, again: bool) -> str:
    if key.startswith("/") or ".." in key.split("/"):
        return "its name leads outside the tar; it was not unpacked"
    return (
        "its members lie in two places of the tar, or two samples have this name; write them together" if again else ""
    )


@dataclass
class _Without:
    """A sample that has no video: a fault only where the tar has others that do."""

    key: str
    members: list[str]

    def fault(self) -> Fault:
        return Fault(self.key, f"has no video (members: {', '.join(sorted(self.members))})")


@dataclass
class _Gathered:
    """Members of one sample, collected in file order."""

    key: str
    folder: Path
    wanted: bool
    fault: str = ""
    end: int = 0
    members: list[str] = field(default_factory=list)
    lengths: dict[str, int] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)

    def take(self, info: tarfile.TarInfo, suffix: str, archive: tarfile.TarFile) -> None:
        """Write a video or a sound to a file, keep a JSON, ignore anything else."""
        ending = _ending(suffix)
        self.members.append(suffix)
        self.end = info.offset_data + info.size
        media = ending in VIDEO_ENDINGS or ending in SOUND_ENDINGS
        if not media and ending != ".json":
            return
        if not info.isreg():
            self.fault = self.fault or f"its member '{suffix}' is a link or a device, not a file; it was not followed"
        elif not media and info.size > MAX_JSON:
            self.fault = self.fault or f"its JSON claims {info.size} bytes, expected at most {MAX_JSON}"
        elif suffix in self.lengths or suffix in self.texts:
            self.fault = self.fault or f"holds '{suffix}' twice"
        else:
            self._keep(archive.extractfile(info), suffix, ending, info.size)  # type: ignore[arg-type]

    def _keep(self, data: BinaryIO, suffix: str, ending: str, length: int) -> None:
        if ending == ".json":
            self.texts[suffix] = data.read()
            return
        self.lengths[suffix] = length
        if self.wanted and not self.fault:
            path = self.files[suffix] = self.folder / f"{len(self.files)}{ending}"
            with open(path, "wb") as sink:
                shutil.copyfileobj(data, sink, COPY)

    def finish(self) -> Iterator[ForeignSample | Fault | _Without]:
        """Yield the sample, or its fault; its files are removed afterwards."""
        try:
            if not any(_ending(name) in VIDEO_ENDINGS for name in self.members):
                if self.texts or self.lengths:
                    yield _Without(self.key, self.members)
                return
            try:
                found = self._found()
            except InputError as error:
                yield Fault(self.key, str(error))
                return
            yield found
        finally:
            self.clear()

    def _found(self) -> ForeignSample:
        if self.fault:
            raise InputError(self.fault)
        video = _only("videos", [name for name in self.lengths if _ending(name) in VIDEO_ENDINGS])
        sound = _only("sounds", [name for name in self.lengths if _ending(name) in SOUND_ENDINGS])
        facts = _only("JSON files", list(self.texts))
        return ForeignSample(
            self.key,
            _ending(video),
            self.lengths[video],
            self.files.get(video),
            self.files.get(sound),
            _facts(self.texts[facts]) if facts else None,
            self.end,
        )

    def clear(self) -> None:
        """Remove the files."""
        for path in self.files.values():
            path.unlink(missing_ok=True)


def _ending(suffix: str) -> str:
    return f".{suffix.rpartition('.')[2]}"


def _only(what: str, names: list[str]) -> str:
    """The only name, or of several the one without a dot (``mp4`` beside ``left.mp4``); empty if there is none."""
    plain = [name for name in names if "." not in name]
    chosen = plain if len(names) > 1 else names
    if len(names) > 1 and len(plain) != 1:
        raise InputError(f"holds {len(names)} {what} ({', '.join(sorted(names))}), expected one")
    return chosen[0] if chosen else ""


def _facts(text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"its JSON cannot be read ({type(error).__name__}: {error})") from None
    if not isinstance(value, dict):
        raise InputError("its JSON holds no object of keys and values")
    return value
