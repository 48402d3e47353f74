"""Which sound track of a file is used, and how its channels are mixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from configs import InputError, progress
from shards.media.container import check_length, decoded, find_pictures, open_input
from shards.media.memo import once_per_file

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer

SILENT = 1e-4  # peak, of full scale, below which a track is silent
CANCELLED = 0.05  # energy of the mix over that of the channels below which they cancel each other (correlation < -0.9)
LOUD_TOLD = 0.9  # gain below which the note mentions it
CUT_OFF = 0.2  # s of a WAV file's sound that may be missing: headers are off by a block · guess
UNKNOWN_LENGTH = 0x7FFF_F000  # bytes of a WAV file's sound from which tools mean that they do not know


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
        mono_gain: the same for the mix of all channels, whose samples can reach further than those of one.
        broken: number of samples that are no finite numbers, as of a speech synthesis that diverged; they count as silence.
        note: what was chosen or changed and why; empty if nothing was.
    """

    index: int
    count: int
    rate: int
    channels: int
    single: int | None = None
    gain: float = 1.0
    mono_gain: float = 1.0
    broken: int = 0
    note: str = ""


@dataclass
class _Heard:
    """Peak and energies of a track, accumulated block by block."""

    peak: float = 0.0
    mono: float = 0.0
    mix: float = 0.0
    broken: int = 0
    energy: np.ndarray | None = None

    def add(self, samples: np.ndarray, mono: np.ndarray) -> None:
        """Samples ``[channels, n]``, and their mix ``[n]``."""
        if broken := int(np.count_nonzero(~np.isfinite(samples))):
            self.broken += broken
            samples, mono = finite(samples), finite(mono)
        self.mono = max(self.mono, float(np.abs(mono).max(initial=0.0)))
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
        InputError: no such file, unreadable, cut off, or without sound.
    """
    order = _candidates(path)
    _check_whole(path)
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
        for samples, mono, exact in _plain(container, stream, path):
            heard.add(samples, mono)
            # One channel of whole numbers can neither cancel nor exceed 1.
            if exact and len(samples) == 1 and heard.peak >= SILENT:
                break
    return heard


def _plain(
    container: InputContainer, stream: AudioStream, path: str | Path
) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Samples ``[channels, n]`` float32 as they are, their mix ``[n]``, and whether they were stored as whole numbers."""
    converters: dict[tuple[str, str, int], tuple[AudioResampler, AudioResampler]] = {}
    for frame in decoded(container, stream, path):
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        exact = not frame.format.name.startswith(("flt", "dbl"))
        plain, mixer = converters.setdefault(form, _converters(frame))
        frame.pts = None
        samples = _packed(plain, frame, path)
        yield samples, samples[0] if len(samples) == 1 else _packed(mixer, frame, path)[0], exact


def _converters(frame: AudioFrame) -> tuple[AudioResampler, AudioResampler]:
    """To float32 with the channels of a frame, and to their mix; packed, since PyAV 18.1 crashes on 8 or more planes."""
    import av

    layouts = (frame.layout.name, "mono")
    plain, mixer = (av.AudioResampler(format="flt", layout=layout, rate=frame.sample_rate) for layout in layouts)
    return plain, mixer


def _packed(resampler: AudioResampler, frame: AudioFrame, path: str | Path) -> np.ndarray:
    """Samples ``[channels, n]`` of a frame.

    Raises:
        InputError: channels that cannot be mixed.
    """
    import av

    try:
        blocks = [block.to_ndarray().reshape(-1, block.layout.nb_channels).T for block in resampler.resample(frame)]
    except av.FFmpegError:
        count = frame.layout.nb_channels
        raise InputError(
            f"{path}: its {count} channels of sound cannot be mixed; convert it to mono or stereo"
        ) from None
    return np.concatenate(blocks, 1) if blocks else np.zeros((frame.layout.nb_channels, 0), np.float32)


def finite(samples: np.ndarray) -> np.ndarray:
    """Samples in which silence stands for what is no finite number; an infinite one would turn all others down to nothing."""
    return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)


def _described(path: str | Path, index: int, heard: _Heard, order: list[int]) -> SoundTrack:
    with open_input(path, "sound") as container:
        stream = container.streams.audio[index]
        rate, channels, language = stream.rate, stream.channels, stream.language
    notes = []
    if len(order) > 1:
        why = "marked default" if index == order[0] else "the first that is not silent"
        named = f" ({language})" if language else ""
        notes.append(f"has {len(order)} sound tracks, number {index + 1}{named} is heard: {why}")
    gain = 1.0 if heard.peak <= 1 else 1.0 / heard.peak
    if heard.single is not None:
        notes.append(f"its two channels cancel each other, channel {heard.single + 1} is heard alone")
    if gain < LOUD_TOLD:
        notes.append(f"its samples reach {heard.peak:.2f} times full scale, all are turned down by it")
    if heard.broken:
        verb = (
            "sample is no finite number and counts" if heard.broken == 1 else "samples are no finite numbers and count"
        )
        notes.append(f"{heard.broken} {verb} as silence")
    note = "; ".join(notes)
    if note:
        progress.warn(f"{path}: {note}")
    mono_gain = min(gain, 1.0 / heard.mono) if 1 < heard.mono < np.inf else gain
    return SoundTrack(index, len(order), rate, channels, heard.single, gain, mono_gain, heard.broken, note)


def _check_whole(path: str | Path) -> None:
    """Compare the length that the header of a WAV file promises with what the file holds.

    FFmpeg takes the file's end for the sound's, so a transfer that broke off is a shorter sound to it.

    Raises:
        InputError: more than ``CUT_OFF`` is missing.
    """
    held, second = Path(path).stat().st_size, 0
    with Path(path).open("rb") as file:
        start = file.read(12)
        if (start[:4], start[8:]) != (b"RIFF", b"WAVE"):
            return
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                break
            here = file.tell()
            if head[:4] == b"fmt ":
                second = int.from_bytes(file.read(12)[8:], "little")  # bytes
            file.seek(here + length + length % 2)
        else:
            return
        rest = held - file.tell()
    # What is written to a pipe does not know its length, and says nothing or the largest number.
    if second and 0 < length < UNKNOWN_LENGTH:
        check_length(path, length / second, rest / second, CUT_OFF)
