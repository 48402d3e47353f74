"""Finds the clips behind files, folders and URLs, names them, and assigns their consent records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.storage import storage
from configs import InputError
from shards.build.task import SourceClip, short_hash
from shards.format.schema import clean_name
from shards.media.container import VIDEO_ENDINGS
from shards.people.consent import read_consent, unknown_record


def find_clips(videos: Sequence[str | Path], consent: str | Path | None = None) -> list[SourceClip]:
    """The clips behind files and folders, sorted by name, with unique names and their consent records.

    A local folder is searched with its subfolders, a remote one without.

    Raises:
        InputError: nothing there, a folder without videos, or a wrong consent file.
    """
    rows = read_consent(str(consent)) if consent is not None else None
    paths = list(dict.fromkeys(path for video in videos for path in _expand(str(video))))
    if not paths:
        raise InputError("no videos were given; name files or folders")
    names = unique_names({path: Path(storage.basename(path)).stem for path in paths})
    records = rows.assign(paths) if rows is not None else {}
    clips = []
    for path in paths:
        found = records.get(path)
        bytes_, modified = file_state(path)
        record = found or unknown_record(names[path])
        clips.append(
            SourceClip(
                name=names[path], path=path, bytes=bytes_, modified=modified, consent=record, known=found is not None
            )
        )
    return sorted(clips, key=lambda clip: clip.name)


def _expand(video: str) -> list[str]:
    if storage.is_remote(video):
        if Path(video).suffix.lower() in VIDEO_ENDINGS:
            return [video]
        found = [storage.join(video, n) for n in storage.listdir(video) if Path(n).suffix.lower() in VIDEO_ENDINGS]
    else:
        path = storage.local_path(video)
        if not path.exists():
            raise InputError(f"{video}: no such file or folder; check the name")
        if not path.is_dir():
            return [str(path.resolve())]
        found = [str(p.resolve()) for p in sorted(path.rglob("*")) if p.suffix.lower() in VIDEO_ENDINGS and p.is_file()]
    if not found:
        raise InputError(
            f"{video}: holds no videos (looked for {' '.join(sorted(VIDEO_ENDINGS))}); name another folder or a file"
        )
    return found


def unique_names(stems: Mapping[str, str]) -> dict[str, str]:
    """A clean, unique name per path; files of the same stem in different folders get a hash of their path."""
    plain = {path: clean_name(stem) for path, stem in stems.items()}
    counts: dict[str, int] = {}
    for name in plain.values():
        counts[name.lower()] = counts.get(name.lower(), 0) + 1
    return {p: n if counts[n.lower()] == 1 else f"{n[:27]}-{short_hash(p)}" for p, n in plain.items()}


def file_state(path: str) -> tuple[int, int]:
    """Bytes, and modification time in ns (0 for a file in a store)."""
    if storage.is_remote(path):
        return storage.size(path), 0
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns
