"""Which sound track of a file is used, and how its channels are mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import InputError
from shards.media.container import decoded, find_pictures, log, open_input
from shards.media.memo import once_per_file

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SILENT = 1e-4  # peak, of full scale, below which a track is silent
CANCELLED = 0.05  # energy of the mix over that of the channels below which they cancel each other (correlation < -0.9)
LOUD_TOLD = 0.9  # gain below which the note mentions it


@dataclass(frozen=True)
class SoundTrack:
    """The sound track that is used.

    Attributes:
        index: number among the file's sound tracks, from 0.
        count: how many there are.
        rate: of the track, Hz.
        channels: of the track.
        single: the one channel that is used if mixing would cancel the sound; ``None``: all are mixed.
        gain: factor that brings samples beyond ±1 back into range; 1 if there are none.
        note: what was chosen or changed and why; empty if nothing was.
    """

    index: int
    count: int
    rate: int
    channels: int
    single: int | None = None
    gain: float = 1.0
    note: str = ""


@dataclass
class _Heard:
    """Peak and energies of a track, accumulated block by block."""

    peak: float = 0.0
    mix: float = 0.0
    energy: np.ndarray | None = None

    def add(self, samples: np.ndarray) -> None:
        """Samples ``[channels, n]``."""
        self.peak = max(self.peak, float(np.abs(samples).max(initial=0.0)))
        energy = np.einsum("cn,cn->c", samples, samples, dtype=np.float64)
        same = self.energy is not None and self.energy.shape == energy.shape
        self.energy = self.energy + energy if same else energy
        self.mix += float(np.square(samples.mean(0), dtype=np.float64).sum())

    @property
    def single(self) -> int | None:
        """The louder of two channels that cancel each other."""
        if self.energy is None or len(self.energy) != 2 or self.peak < SILENT:
            return None
        return int(self.energy.argmax()) if self.mix < CANCELLED * self.energy.mean() else None


@once_per_file
def sound_track(path: str | Path) -> SoundTrack:
    """The track marked default, or if it is silent the first that is not; decodes it once for peak and phase.

    Raises:
        InputError: no such file, unreadable, or without sound.
    """
    order = _candidates(path)
    first: tuple[int, _Heard] | None = None
    for index in order:
        heard = _listen(path, index)
        first = first or (index, heard)
        if heard.peak >= SILENT:
            return _described(path, index, heard, order)
    assert first is not None
    return _described(path, *first, order)


def _candidates(path: str | Path) -> list[int]:
    """Numbers of the sound tracks in the order in which they are tried."""
    from av.stream import Disposition

    with open_input(path, "sound") as container:
        streams = container.streams.audio
        known = [number for number, stream in enumerate(streams) if stream.codec_context is not None]
        if not streams:
            raise InputError(f"{path}: has no audio stream; give a file with sound")
        if not known:
            raise InputError(f"{path}: its sound is in a codec that FFmpeg does not know; convert it to AAC")
        # Of several programmes, as in a broadcast, the one that the pictures belong to.
        pictures = find_pictures(container)
        best = container.streams.best("audio", related=pictures) if pictures is not None else None
        aside = Disposition.hearing_impaired | Disposition.visual_impaired | Disposition.comment | Disposition.dub

        def rank(number: int) -> tuple[bool, bool, bool, int]:
            stream = streams[number]
            default = bool(stream.disposition & Disposition.default)
            return not default, bool(stream.disposition & aside), best is None or stream.index != best.index, number

        return sorted(known, key=rank)


def _listen(path: str | Path, index: int) -> _Heard:
    """Decode a track, only as far as needed to know its peak and phase."""
    heard = _Heard()
    with open_input(path, "sound") as container:
        stream = container.streams.audio[index]
        for samples, exact in _plain(container, stream, path):
            heard.add(samples)
            # One channel of whole numbers can neither cancel nor exceed 1.
            if exact and len(samples) == 1 and heard.peak >= SILENT:
                break
    return heard


def _plain(container: InputContainer, stream: AudioStream, path: str | Path) -> Iterator[tuple[np.ndarray, bool]]:
    """Samples ``[channels, n]`` float32 as they are, and whether they were stored as whole numbers."""
    import av

    resampler, form = None, None
    for frame in decoded(container, stream, path):
        if frame.format.name == "fltp":
            yield np.nan_to_num(frame.to_ndarray()), False
            continue
        if form != (frame.format.name, frame.layout.name, frame.sample_rate):
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = av.AudioResampler(format="fltp", layout=frame.layout.name, rate=frame.sample_rate)
        assert resampler is not None
        exact = not frame.format.name.startswith(("flt", "dbl"))
        for block in resampler.resample(frame):
            yield np.nan_to_num(block.to_ndarray()), exact


def _described(path: str | Path, index: int, heard: _Heard, order: list[int]) -> SoundTrack:
    with open_input(path, "sound") as container:
        stream = container.streams.audio[index]
        rate, channels, language = stream.rate, stream.channels, stream.language
    notes = []
    if len(order) > 1:
        why = "marked default" if index == order[0] else "the first that is not silent"
        named = f" ({language})" if language else ""
        notes.append(f"has {len(order)} sound tracks, number {index + 1}{named} is heard: {why}")
    gain = 1.0 if heard.peak <= 1 or not np.isfinite(heard.peak) else 1.0 / heard.peak
    if heard.single is not None:
        notes.append(f"its two channels cancel each other, channel {heard.single + 1} is heard alone")
    if gain < LOUD_TOLD:
        notes.append(f"its samples reach {heard.peak:.2f} times full scale, all are turned down by it")
    note = "; ".join(notes)
    if note:
        log.warning("%s: %s", path, note)
    return SoundTrack(index, len(order), rate, channels, heard.single, gain, note)
