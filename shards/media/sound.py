"""Sound: any file decoded to 16 kHz mono as a stream.

Time 0 is the start of the video stream (of the sound where there is no picture). AAC priming and edit lists are
honoured by FFmpeg's demuxer, and each decoded block is placed by its time stamp: gaps become silence, nothing drifts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from configs import InputError
from shards.format.schema import SAMPLE_RATE, SAMPLES_PER_FRAME

HOP = SAMPLES_PER_FRAME // 4  # 10 ms


# ---------------------------------------------------------------------------------------------------- decoding


def read_audio(path: str | Path) -> np.ndarray:
    """All sound of a file: (N,) float32 in [-1, 1], 16 kHz mono, sample 0 at the start of the video.

    Raises:
        InputError: no such file, not readable, or without sound.
    """
    blocks = list(stream_audio(path))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def stream_audio(path: str | Path, block: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
    """The same as :func:`read_audio` in pieces of ``block`` samples (the last may be shorter); constant memory.

    Raises:
        InputError: no such file, not readable, or without sound.
    """
    import av

    held, count = [], 0
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise InputError(f"{path}: has no audio stream; give a file with sound")
            for piece in _placed(container):
                held.append(piece)
                count += len(piece)
                while count >= block:
                    joined = np.concatenate(held)
                    yield joined[:block]
                    held, count = [joined[block:]], count - block
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read as sound ({reason}); check the file") from None
    if count:
        yield np.concatenate(held)


def _placed(container: Any) -> Iterator[np.ndarray]:
    """Decoded mono blocks at 16 kHz, cut or padded so that each lies where its time stamp says."""
    written = 0
    for start, samples in _resampled(container):
        gap = start - written
        if gap > HOP:  # a hole in the recording; smaller steps are rounding of time stamps
            for at in range(0, gap, SAMPLE_RATE):
                yield np.zeros(min(SAMPLE_RATE, gap - at), np.float32)
            written += gap
        elif gap < -HOP:  # before the picture starts, or said twice
            samples = samples[-gap:]
        if len(samples):
            yield samples
            written += len(samples)


def _resampled(container: Any) -> Iterator[tuple[int, np.ndarray]]:
    """``(first sample at 16 kHz, samples)`` for each decoded block."""
    import av

    stream = container.streams.audio[0]
    picture = container.streams.video[0] if container.streams.video else None
    origin = _start(picture) if picture is not None else _start(stream)
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
    begin = position = None
    for frame in container.decode(stream):
        seconds = float(frame.time) - origin if frame.time is not None else None
        if seconds is not None and (begin is None or abs(seconds - (begin + position / SAMPLE_RATE)) > 0.1):
            if begin is not None:  # a jump in the time stamps: what the resampler holds belongs before it
                yield from _numbered(resampler.resample(None), begin, position)
                resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
            begin, position = seconds, 0
        begin, position = (0.0, 0) if begin is None else (begin, position)
        frame.pts = None
        for start, samples in _numbered(resampler.resample(frame), begin, position):
            position += len(samples)
            yield start, samples
    if begin is not None:
        yield from _numbered(resampler.resample(None), begin, position)


def _numbered(frames: Any, begin: float, position: int) -> Iterator[tuple[int, np.ndarray]]:
    first = round(begin * SAMPLE_RATE)
    for frame in frames:
        samples = np.ascontiguousarray(frame.to_ndarray()[0], np.float32)
        yield first + position, samples
        position += len(samples)


def _start(stream: Any) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time is not None else 0.0
