"""Sound of any file, decoded as a stream: every block is placed by its own time stamp.

Time 0 is the first picture (the first sound where there is no picture), as in ``shards.media.decode``. Priming samples
and edit lists are honoured by FFmpeg's demuxer; holes in the recording become silence, nothing drifts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from configs import InputError
from shards.media.container import decoded, find_pictures, open_input
from shards.media.decode import LONGEST_GAP, first_frame, stamp_of
from shards.media.memo import once_per_file
from shards.media.rates import SAMPLE_RATE
from shards.media.tracks import SoundTrack, finite, sound_track

if TYPE_CHECKING:
    from av import AudioFrame

STEP = 0.003  # most s between a block's stamp and the end of the previous block; Matroska rounds to 1 ms
JITTER = 4  # successive blocks that must all be off before it counts as a step


def read_audio(path: str | Path) -> np.ndarray:
    """All sound of a file: ``[N]`` float32 in [-1, 1], 16 kHz mono, sample 0 at the first picture.

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
    held: list[np.ndarray] = []
    count = 0
    for piece in stream_sound(path):
        held.append(piece[0])
        count += piece.shape[1]
        while count >= block:
            joined = np.concatenate(held)
            yield joined[:block]
            held, count = [joined[block:]], count - block
    if count:
        yield np.concatenate(held)


def stream_sound(path: str | Path, *, rate: int = SAMPLE_RATE, layout: str = "mono") -> Iterator[np.ndarray]:
    """Sound mixed and resampled, block by block as it is decoded.

    Args:
        rate: Hz.
        layout: ``mono`` or ``stereo``.

    Yields:
        ``[channels, n]`` float32 in [-1, 1]. Sample ``i`` is ``i / rate`` s after the first picture.

    Raises:
        InputError: no such file, not readable, or without sound.
    """
    track = sound_track(path)
    channels, written = {"mono": 1, "stereo": 2}[layout], 0
    with open_input(path, "sound") as container:
        stream = container.streams.audio[track.index]
        frames = decoded(container, stream, path)
        for begin, samples in _resampled(_runs(frames, _origin(path)), track, rate, layout):
            gap = begin - written
            if gap > LONGEST_GAP * rate:
                raise InputError(
                    f"{path}: its sound jumps ahead by {gap / rate:.0f} s at {written / rate:.1f} s; "
                    "split it there, or re-encode it with ffmpeg"
                )
            while gap > 0:  # a late start, or a hole in the recording
                silence = min(gap, rate)
                yield np.zeros((channels, silence), np.float32)
                gap, written = gap - silence, written + silence
            samples = samples[:, -gap:] if gap < 0 else samples  # before the first picture, or said twice
            if samples.shape[1]:
                yield samples
                written += samples.shape[1]


@once_per_file
def _origin(path: str | Path) -> float | None:
    """Seconds on the container's clock that are time 0; ``None``: wherever the sound begins."""
    with open_input(path, "sound") as container:
        pictures = find_pictures(container)
        return None if pictures is None else first_frame(container, pictures, path)[1]


class _Block(NamedTuple):
    """A decoded frame, its length and its stamp in s after time 0 (``None``: it has none)."""

    frame: AudioFrame
    length: float
    stamp: float | None


def _runs(frames: Iterable[AudioFrame], origin: float | None) -> Iterator[tuple[float | None, AudioFrame]]:
    """``(begin, frame)``: ``begin`` in s after time 0 where a run of frames starts, ``None`` where the run goes on."""
    ahead: deque[_Block] = deque()
    end: float | None = None  # of the frame before, by its run's begin and the samples since
    source = _blocks(frames, origin)
    while True:
        while len(ahead) < JITTER and (block := next(source, None)) is not None:
            ahead.append(block)
        if not ahead:
            return
        steps = end is None or _steps(ahead, end)
        block = ahead.popleft()
        begin = None
        if steps:
            begin = block.stamp if block.stamp is not None else end or 0.0
            end = begin
        assert end is not None
        end += block.length
        yield begin, block.frame


def _blocks(frames: Iterable[AudioFrame], origin: float | None) -> Iterator[_Block]:
    for frame in frames:
        stamp = stamp_of(frame)
        if origin is None:
            origin = stamp or 0.0
        yield _Block(frame, frame.samples / frame.sample_rate, None if stamp is None else stamp - origin)


def _steps(ahead: Iterable[_Block], end: float) -> bool:
    """Whether all of the next blocks are off, in one direction, from where counting samples puts them; one alone is jitter."""
    signs = set()
    for block in ahead:
        off = 0.0 if block.stamp is None else block.stamp - end
        if abs(off) <= STEP:
            return False
        signs.add(off > 0)
        end += block.length
    return len(signs) == 1


def _resampled(
    runs: Iterable[tuple[float | None, AudioFrame]], track: SoundTrack, rate: int, layout: str
) -> Iterator[tuple[int, np.ndarray]]:
    """``(number of the first sample, samples [channels, n])``."""
    mixer, position = None, 0
    for begin, frame in runs:
        if begin is not None or mixer is None or not mixer.takes(frame):
            if mixer is not None:  # what the resampler still holds belongs before the step
                for samples in mixer.finish():
                    yield position, samples
                    position += samples.shape[1]
            mixer = _Mixer(frame, track, rate, layout)
            position = round(begin * rate) if begin is not None else position
        for samples in mixer.push(frame):
            yield position, samples
            position += samples.shape[1]
    for samples in mixer.finish() if mixer is not None else ():
        yield position, samples
        position += samples.shape[1]


class _Mixer:
    """Resamples frames of one format and mixes their channels."""

    def __init__(self, frame: AudioFrame, track: SoundTrack, rate: int, layout: str) -> None:
        import av

        self._form = self._form_of(frame)
        self._single = track.single if layout == "mono" and frame.layout.nb_channels == 2 else None
        mixes = layout == "mono" and self._single is None
        self._gain = np.float32(track.mono_gain if mixes else track.gain)
        mixed = layout if self._single is None else frame.layout.name
        self._resampler = av.AudioResampler(format="fltp", layout=mixed, rate=rate)

    @staticmethod
    def _form_of(frame: AudioFrame) -> tuple[str, str, int]:
        return frame.format.name, frame.layout.name, frame.sample_rate

    def takes(self, frame: AudioFrame) -> bool:
        """Whether a frame has the format, layout and rate of those before."""
        return self._form == self._form_of(frame)

    def push(self, frame: AudioFrame) -> Iterator[np.ndarray]:
        """Samples ``[channels, n]`` that have become ready."""
        frame.pts = None  # we place the blocks; the resampler must not stretch them
        return self._made(self._resampler.resample(frame))

    def finish(self) -> Iterator[np.ndarray]:
        """The rest."""
        return self._made(self._resampler.resample(None))

    def _made(self, frames: Iterable[AudioFrame]) -> Iterator[np.ndarray]:
        for frame in frames:
            samples = np.ascontiguousarray(frame.to_ndarray(), np.float32)
            if self._single is not None:
                samples = samples[self._single : self._single + 1]
            if not np.isfinite(samples).all():
                samples = finite(samples)
            yield samples if self._gain == 1 else samples * self._gain
