"""Reading samples from a tar that this project did not write as it is: reordered, with folders or ``./``, or damaged.

It finds whatever another reader of WebDataset tars finds; the members of a sample need not be contiguous.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs import InputError
from shards.format.index import MAX_MEMBER
from shards.format.schema import is_member, split_key

UNREADABLE = (tarfile.TarError, EOFError, OSError, ValueError)


class Salvage:
    """The samples of a local tar, as far as it can be read.

    Attributes:
        members: key → member name → (offset, length) of its bytes, keys in the order of their first member.
        strays: names of files in the tar that belong to no sample.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members: dict[str, dict[str, tuple[int, int]]] = {}
        self.strays: list[str] = []
        length = path.stat().st_size
        for info in _headers(path):
            name = info.name.removeprefix("./")
            if info.isreg() and info.offset_data + info.size <= length:
                self._place(name, info)

    def _place(self, name: str, info: tarfile.TarInfo) -> None:
        key, _, suffix = name.partition(".")
        try:
            split_key(key)
        except InputError:
            self.strays.append(info.name)
            return
        sample = self.members.setdefault(key, {})
        if not is_member(suffix) or info.size > MAX_MEMBER or suffix in sample:
            self.strays.append(info.name)
        else:
            sample[suffix] = (info.offset_data, info.size)

    def samples(self) -> Iterator[dict[str, Any]]:
        """As :func:`shards.tar.tars.stream_samples`: ``{"__key__", "f000.jpg": bytes, ...}``."""
        with self.path.open("rb") as stream:
            for key, members in self.members.items():
                sample: dict[str, object] = {"__key__": key}
                for name, (offset, length) in members.items():
                    stream.seek(offset)
                    sample[name] = stream.read(length)
                yield sample


def _headers(path: Path) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar; behind a damaged one, those that follow the next whole block of a header."""
    end = 0
    with suppress(*UNREADABLE), tarfile.open(path, "r:") as archive:
        try:
            yield from archive
        finally:
            end = archive.offset
    with path.open("rb") as file:
        file.seek(end)
        if not any(file.read(tarfile.BLOCKSIZE)):  # the mark of a tar's end, or nothing
            return
        # With ignore_zeros, tarfile goes on block by block until it meets a header with a right checksum.
        with suppress(*UNREADABLE), tarfile.open(fileobj=file, mode="r:", ignore_zeros=True) as archive:
            yield from archive
