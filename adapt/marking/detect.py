"""Reads every mark of a file: the signed manifest, the container's statement, the watermark.

The answer is ``synthetic: true`` where a mark says so, and ``null`` (unknown) otherwise: a file without marks may be
anything. Exit statuses: 0 a mark was found in at least one file, 3 in none, 2 wrong input.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from adapt.avatar.export.registry import formats
from adapt.avatar.provenance import parse_tags, read_record
from adapt.marking.code import KEY_VARIABLE, NO_AVATAR, key_id, payload_name, watermark_key
from adapt.marking.search import Finding, Search, working_size
from adapt.marking.sign import EMBEDDED, SIDECAR_SUFFIX, Manifest, available, read_manifest, sidecar_of
from cluster.storage import storage
from cluster.storage.errors import is_remote
from cluster.storage.files import fetch_file
from cluster.storage.staging import Stage
from configs import InputError
from shards.media.inspect import FRAME_FOLDER, MODELS, PICTURES, SOUNDS, VIDEOS, open_media

FOUND, NOT_FOUND = 0, 3
KNOWN = VIDEOS | PICTURES | SOUNDS | MODELS
# Frames of a video that are summed for the watermark at most, spread over its length.
MOST_FRAMES = 250
# Confidence of a mark · guesses: anyone can write a statement; a valid signature comes from whoever holds the key.
STATEMENT, SIGNED, TRUSTED = 0.9, 0.99, 0.999


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One mark of a file.

    Attributes:
        kind: ``c2pa``, ``statement`` or ``watermark``; ``file`` where a file in a folder cannot be read.
        state: ``found``, ``absent``, ``valid``, ``trusted``, ``invalid``, ``damaged``, ``other key`` or ``not checked``.
        detail: a sentence.
    """

    kind: str
    state: str
    detail: str


class FileReport(TypedDict):
    """What the marks of one file say.

    Attributes:
        file: as it was given, or its place in the given folder.
        synthetic: true where a mark says so, ``None`` (unknown) otherwise.
        avatar: the avatar's name, else the start of its hash.
        confidence: of the strongest mark, in [0, 1].
        marks: ``kind, state, detail`` of every kind that was looked for.
    """

    file: str
    synthetic: bool | None
    avatar: str | None
    confidence: float
    marks: list[dict[str, str]]


class Report(TypedDict):
    """One row per file."""

    files: list[FileReport]


@dataclass(frozen=True)
class _Evidence:
    """A mark with what follows from it."""

    mark: Mark
    confidence: float = 0.0
    avatar: str | None = None


def detect(files: Iterable[str | Path], *, key: str | None = None) -> Report:
    """Read the marks of videos, pictures, sounds, exported heads and folders of them, here or in a bucket.

    Args:
        files: paths or URLs. A folder stands for all media in it; a folder of frames is one item.
        key: of the watermark; ``None`` reads ``HEADSTART_WATERMARK_KEY`` or takes the public key.

    Returns:
        A row per file, see :class:`FileReport`.

    Raises:
        InputError: nothing given, a named file that cannot be read, a folder without media.
    """
    given = list(files)
    if not given:
        raise InputError("detect: no file given; name videos, pictures or folders")
    watermark_key(key)
    with Stage() as stage:
        rows = []
        for name in given:
            local = _fetched(stage, name)
            for path in _media_in(local):
                if path == local:
                    rows.append(_row(str(name), path, key))
                else:
                    rows.append(_row_in_folder(f"{str(name).rstrip('/')}/{path.relative_to(local)}", path, key))
    return {"files": rows}


def exit_status(report: Report) -> int:
    """0 if at least one file is marked as synthetic, else 3."""
    return FOUND if any(row["synthetic"] for row in report["files"]) else NOT_FOUND


def _fetched(stage: Stage, name: str | Path) -> Path:
    """A local copy of a file or folder: a bucket's folder with its media, a head with the signed manifest beside it."""
    if not is_remote(name):
        return Path(name).expanduser()
    suffix = Path(str(name)).suffix.lower()
    if suffix not in KNOWN and not storage.is_committed(name) and storage.listdir(name):
        folder = stage.stand_in(name)
        _fetch_folder(str(name).rstrip("/"), folder)
        return folder
    local = Path(stage.fetch(name))
    beside = f"{name}{SIDECAR_SUFFIX}"
    if suffix in MODELS and storage.exists(beside):
        sidecar_of(local).write_bytes(storage.read_bytes(beside))
    return local


def _fetch_folder(url: str, folder: Path) -> None:
    """Copy the media of a bucket's folder, and of the folders in it."""
    folder.mkdir(exist_ok=True)
    for name in storage.listdir(url):
        inner, suffix = storage.join(url, name), Path(name).suffix.lower()
        if suffix in KNOWN or suffix == SIDECAR_SUFFIX or name == FRAME_FOLDER:
            fetch_file(inner, folder / name)
        elif not suffix:
            _fetch_folder(inner, folder / name)


def _media_in(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file; give a video, a picture or a folder")
    if path.is_file():
        if path.suffix.lower() not in KNOWN:
            raise InputError(
                f"{path}: neither video, picture, sound nor exported head; known: {', '.join(sorted(KNOWN))}"
            )
        return [path]
    if (path / FRAME_FOLDER).is_file():
        return [path]
    folders = sorted(marker.parent for marker in path.rglob(FRAME_FOLDER))
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and file.suffix.lower() in KNOWN and not any(folder in file.parents for folder in folders)
    )
    if not files and not folders:
        raise InputError(f"{path}: holds no video, picture, sound or exported head")
    return sorted([*folders, *files])


def _row_in_folder(shown: str, path: Path, key: str | None) -> FileReport:
    """As :func:`_row`; a damaged file is reported, so that the others of its folder are still read."""
    try:
        return _row(shown, path, key)
    except InputError as error:
        mark = Mark(kind="file", state="damaged", detail=str(error))
        return FileReport(file=shown, synthetic=None, avatar=None, confidence=0.0, marks=[asdict(mark)])


def _row(shown: str, path: Path, key: str | None) -> FileReport:
    """Verdict and marks of one file or folder of frames, reported under the name ``shown``."""
    evidence = [_signature(path)]
    with open_media(path, MOST_FRAMES, working_size) as media:
        statement, said = _head_statement(path) if path.suffix.lower() in MODELS else _statement(media.tags)
        evidence.append(statement)
        if media.height:
            search = Search(media.height, media.width, key=key)
            for luma in media.frames:
                search.add(luma)
            evidence.append(_watermark(search.finding(), said, search.key))
    confidence = max(item.confidence for item in evidence)
    # A name comes before the hash that the watermark carries.
    avatar = next((item.avatar for item in evidence if item.avatar and item.confidence), None)
    return FileReport(
        file=shown,
        synthetic=True if confidence > 0 else None,
        avatar=avatar,
        confidence=confidence,
        marks=[asdict(item.mark) for item in evidence],
    )


def _signature(path: Path) -> _Evidence:
    if path.is_dir() or (path.suffix.lower() not in EMBEDDED and not sidecar_of(path).is_file()):
        return _Evidence(
            Mark(kind="c2pa", state="absent", detail="files of this kind carry no manifest, none beside it")
        )
    if not available():
        detail = "c2pa-python is not installed, so signed manifests are not read; pip install 'headstart[sign]'"
        return _Evidence(Mark(kind="c2pa", state="not checked", detail=detail))
    manifest = read_manifest(path)
    if manifest is None:
        return _Evidence(Mark(kind="c2pa", state="absent", detail="no manifest"))
    return _of_manifest(manifest)


def _of_manifest(manifest: Manifest) -> _Evidence:
    state = manifest.state.lower()
    if state == "invalid":
        detail = f"the manifest does not fit the file or is broken: {', '.join(manifest.problems) or 'no reason given'}"
        return _Evidence(Mark(kind="c2pa", state=state, detail=detail))
    trust = "on a trust list" if state == "trusted" else "not on a trust list"
    what = manifest.source_type or "no source type"
    mark = Mark(kind="c2pa", state=state, detail=f"{what}, signed by {manifest.signer or 'unknown'} ({trust})")
    if not manifest.synthetic:
        return _Evidence(mark)
    avatar = manifest.provenance.get("avatar")
    return _Evidence(mark, TRUSTED if state == "trusted" else SIGNED, str(avatar) if avatar else None)


def _head_statement(path: Path) -> tuple[_Evidence, dict[str, object]]:
    """The evidence of an exported head's statement, and the statement itself; a folder has none of its own.

    Raises:
        InputError: the file is broken.
    """
    read = getattr(formats().get(path.suffix.lower()), "read_record", None)
    if read is None:
        detail = f"statements in {path.suffix.lower()} files are not read"
        return _Evidence(Mark(kind="statement", state="not checked", detail=detail)), {}
    try:
        said = read(path)
    except InputError:  # says it better
        raise
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise InputError(f"{path}: not readable as {path.suffix.lower()[1:]} ({type(error).__name__})") from None
    return _said(said)


def _statement(tags: dict[str, str]) -> tuple[_Evidence, dict[str, object]]:
    """The evidence of the container's statement, and the statement itself."""
    try:
        said = read_record(tags)
    except ValueError:
        detail = "there is a statement of Headstart, and it is not readable"
        return _Evidence(Mark(kind="statement", state="damaged", detail=detail), STATEMENT), {}
    evidence, said = _said(said if said is not None else parse_tags(tags))
    source = tags.get("digital_source_type", "")
    if not evidence.confidence and "rainedAlgorithmicMedia" in source:
        return _Evidence(Mark(kind="statement", state="found", detail=source), STATEMENT), {}
    return evidence, said


def _said(said: dict[str, object] | None) -> tuple[_Evidence, dict[str, object]]:
    """What a record is evidence of, and the record."""
    if said is None or not said.get("synthetic"):
        return _Evidence(Mark(kind="statement", state="absent", detail="no statement in the file")), {}
    detail = str(said.get("statement") or "synthetic")
    if said.get("consent"):
        detail += f"; consent: {said['consent']}"
    mark = Mark(kind="statement", state="found", detail=detail)
    return _Evidence(mark, STATEMENT, str(said.get("avatar") or "") or None), said


def _watermark(finding: Finding, said: dict[str, object], key: bytes) -> _Evidence:
    if finding.found:
        return _found(finding, said)
    other = said.get("watermark_key")
    if other and other != key_id(key):
        detail = (
            f"the file says that it was marked with the key {other}, this is {key_id(key)}; "
            f"set {KEY_VARIABLE} to that key to look for its mark"
        )
        return _Evidence(Mark(kind="watermark", state="other key", detail=detail))
    detail = f"no mark of the key {key_id(key)} in {finding.frames} frames"
    return _Evidence(Mark(kind="watermark", state="absent", detail=detail))


def _found(finding: Finding, said: dict[str, object]) -> _Evidence:
    avatar = payload_name(finding.payload) if finding.payload not in (None, NO_AVATAR) else None
    who = (
        f"avatar {avatar}" if avatar else "no avatar" if finding.payload == NO_AVATAR else "the avatar is not readable"
    )
    chance = f"false alarm at most {max(finding.false_alarm, 1e-300):.0e}"
    detail = f"{who}, score {finding.score:.1f}, {chance}, {finding.frames} frames"
    told = str(said.get("avatar_sha256") or "")
    if avatar and told and not told.startswith(avatar):
        detail += f"; the statement names another avatar ({told[:8]})"
    return _Evidence(Mark(kind="watermark", state="found", detail=detail), finding.confidence, avatar)
