"""Synthetic talkers as a dataset or as videos: identities from a seed, rendered by as many processes as asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage import storage
from configs import InputError
from heads.rig import Rig, load_rig
from shards.build.lock import locked
from shards.features import extract_features
from shards.format.codecs import encode_jpeg
from shards.format.schema import MAX_FRAMES, sample_key
from shards.media.rates import FPS, SAMPLES_PER_FRAME
from shards.read.dataset import open_dataset
from shards.synthetic.identity import sample_identity
from shards.synthetic.look.skin import Painter
from shards.synthetic.mp4 import write_mp4
from shards.synthetic.talker import Performance, Talker
from shards.tar.writer import DatasetWriter

LICENCE = "CC0-1.0"
CONSENT = "synthetic: no such person exists"
_CHUNK = 5 * MAX_FRAMES  # frames that one task renders: bounds memory whatever the length of a clip
_PEOPLE_PER_SEED = 1000
MIN_SIZE, MAX_SIZE = 32, 1024


def identity_seeds(identities: int, seed: int) -> list[int]:
    """Seeds of the people that `synthesize(identities, ..., seed)` makes; `make_talker` turns one into a person."""
    return [seed * _PEOPLE_PER_SEED + i for i in range(identities)]


@lru_cache(maxsize=1)
def _painter(rig_source: str) -> tuple[Rig, Painter]:
    rig = load_rig(rig_source)
    if rig.n_landmarks != 478:
        raise InputError(
            f"rig '{rig.name}' has {rig.n_landmarks} FaceMesh landmarks, synthetic talkers need 478; use 'mediapipe'"
        )
    return rig, Painter(rig)


@lru_cache(maxsize=1)
def make_talker(identity_seed: int, rig: str = "mediapipe") -> Talker:
    """The synthetic person with this seed, on a rig by name or path."""
    loaded, painter = _painter(rig)
    return Talker(loaded, sample_identity(identity_seed, loaded.n_identity), painter)


@lru_cache(maxsize=1)
def _performance(identity_seed: int, seconds: float, clip: int, size: int, rig: str) -> tuple[Performance, np.ndarray]:
    person = make_talker(identity_seed, rig)
    performance = person.perform(seconds, clip, size)
    return performance, person.landmarks(performance)


def _segments(
    identity_seed: int, seconds: float, clip: int, size: int, rig: str, first: int, threads: int
) -> list[dict[str, object]]:
    """One task: the segments of frames first .. first + 250 of a clip, as arguments of `DatasetWriter.add`."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    person = make_talker(identity_seed, rig)
    performance, landmarks = _performance(identity_seed, seconds, clip, size, rig)
    features = extract_features("logmel", performance.audio)
    stop = min(first + _CHUNK, len(performance))
    drawn = [(encode_jpeg(frame), matte) for frame, matte in person.render(performance, first, stop)]
    parts = []
    for start in range(first, stop, MAX_FRAMES):
        piece = slice(start, min(start + MAX_FRAMES, stop))
        inside = drawn[piece.start - first : piece.stop - first]
        parts.append({
            "key": sample_key(person.identity.name, f"talk{clip}", start // MAX_FRAMES),
            "meta": _meta(person, performance, identity_seed, clip, start),
            "frames_jpeg": [jpeg for jpeg, _ in inside],
            "matte": np.stack([matte for _, matte in inside]),
            "track": _track(person, performance, landmarks, piece),
            "audio": performance.audio[piece.start * SAMPLES_PER_FRAME : piece.stop * SAMPLES_PER_FRAME],
            "features": {"logmel": features[piece]},
        })  # fmt: skip
    return parts


def _meta(person: Talker, performance: Performance, identity_seed: int, clip: int, start: int) -> dict[str, object]:
    who = person.identity
    return {
        "first_frame": start,
        "licence": LICENCE,
        "consent": CONSENT,
        "source": f"shards.synthetic identity {identity_seed} clip {clip}",
        "crop_box": [0, 0, performance.size, performance.size],
        "synthetic": {
            "hair": who.hair,
            "beard": who.beard,
            "top": who.top,
            "glasses": who.glasses,
            "age": round(who.age),
            "words": " ".join(performance.words),
        },
    }


def _track(person: Talker, performance: Performance, landmarks: np.ndarray, piece: slice) -> dict[str, np.ndarray]:
    """Exact ground truth (``shards.format.fields.TRACK_SHAPES``): what was drawn, not what a tracker found."""
    return {
        "landmarks": landmarks[piece],
        "rotation": performance.rotation[piece],
        "translation": performance.translation[piece],
        "intrinsics": performance.intrinsics,
        "identity": person.identity.shape,
        "expression": performance.expression[piece],
        "eyelids": performance.eyelids[piece],
        "gaze": performance.gaze[piece],
        "quality": np.ones(piece.stop - piece.start, np.float32),
    }


def synthesize(
    identities: int,
    seconds: float,
    seed: int,
    out: str | Path,
    size: int = 256,
    *,
    workers: int = 1,
    rig: str = "mediapipe",
    clips: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Generate a dataset of synthetic talkers; run again with more identities to add only the new ones.

    Args:
        identities: number of people; person i of seed K is `make_talker(K * 1000 + i)`, at any number of identities.
        seconds: length of each clip; rounded to whole frames at 25 fps.
        out: dataset folder or ``s3://`` URL, in the schema of `shards.format.schema`, with exact tracks and mattes.
        size: side of the frames in px, even.
        workers: processes that render; one is this process.
        clips: clips per person, with different speech and motion.
        progress: called with the number of clip parts done, and of all.

    Returns:
        ``identities, clips, segments, frames, hours, bytes, schema, seconds`` of the dataset, and the time it took.

    Raises:
        InputError: a number out of range, a rig without FaceMesh landmarks, an output that cannot be written or that another
            process is writing.
    """
    _check(identities, seconds, size, workers, seed, clips)
    started = time.monotonic()
    frames = max(1, round(seconds * FPS))
    loaded, _ = _painter(rig)
    url = str(out) if storage.is_remote(out) else str(storage.local_path(out))
    with locked(url), DatasetWriter(url, rig=loaded) as writer:
        tasks = [
            (person, seconds, clip, size, rig, first)
            for person in identity_seeds(identities, seed)
            for clip in range(clips)
            if not writer.has(sample_key(_name(person), f"talk{clip}", 0))
            for first in range(0, frames, _CHUNK)
        ]
        for done, parts in enumerate(_run(tasks, workers)):
            for part in parts:
                writer.add(part.pop("key"), part.pop("meta"), **part)
            if progress:
                progress(done + 1, len(tasks))
    return {**open_dataset(str(out)).info, "seconds": round(time.monotonic() - started, 2)}


def _name(identity_seed: int) -> str:
    return f"synthetic-{identity_seed:04d}"


def _run(tasks: list[tuple[int, float, int, int, str, int]], workers: int) -> Iterator[list[dict[str, Any]]]:
    """Results of `_segments` in the order of the tasks."""
    if workers <= 1 or len(tasks) <= 1:
        for task in tasks:
            yield _segments(*task, 0)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    # spawn: forking a process that has started torch's or numba's threads can hang.
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=get_context("spawn")) as pool:
        pending = []
        for task in tasks:
            pending.append(pool.submit(_segments, *task, 1))
            if len(pending) > 2 * workers:  # rendered clips that are not written yet fill the memory
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()


def _check(identities: int, seconds: float, size: int, workers: int, seed: int, clips: int) -> None:
    if not 1 <= identities <= _PEOPLE_PER_SEED:
        raise InputError(f"--identities {identities}: expected 1 to {_PEOPLE_PER_SEED}; use several seeds for more")
    if not seconds >= 0.2:
        raise InputError(f"--seconds {seconds}: a clip needs at least 0.2 s")
    if size % 2 or not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"--size {size}: expected an even number of px from {MIN_SIZE} to {MAX_SIZE}")
    if workers < 1 or seed < 0 or clips < 1:
        raise InputError(f"--workers {workers}, --seed {seed}, clips {clips}: workers and clips start at 1, seeds at 0")


def synthetic_video(
    identity_seed: int, seconds: float, path: str | Path, *, size: int = 512, clip: int = 0, rig: str = "mediapipe"
) -> dict[str, object]:
    """A synthetic person speaking, as an MP4 with sound; another `clip` is the same person saying something else.

    Returns:
        ``video, frames, seconds, size, identity, words``.

    Raises:
        InputError: a number out of range, or the file cannot be written.
    """
    _check(1, seconds, size, 1, identity_seed, clip + 1)
    person = make_talker(identity_seed, rig)
    performance = person.perform(seconds, clip, size)
    pictures = (frame for frame, _ in person.render(performance))
    count = write_mp4(path, pictures, performance.audio, FPS, person.identity.name)
    return {"video": str(path), "frames": count, "seconds": count / FPS, "size": size, "identity": person.identity.name,
            "words": list(performance.words)}  # fmt: skip
